"""The examples of a part of a mixture in a virtual shard, by what its task and the features are."""

from __future__ import annotations

from typing import Any

import numpy as np

from t5x_lite.data import dataset_config, documents, randomness, sentence_pairs, streams, task
from t5x_lite.data.encoder import examples as encoder_examples
from t5x_lite.data.encoder import stream as encoder_stream
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.data.opened import OpenedDataset


def example_stream(
  data: OpenedDataset, shard: int, part_index: int, observe: documents.Observer | None = None
) -> streams.ExampleStream:
  """The examples of one part of the mixture in one virtual shard.

  Args:
    data: the data set.
    shard: the virtual shard.
    part_index: of the mixture.
    observe: is told which records are read, in the order of the stream, see `documents.DocumentReader`.
  """
  config, part, tokenizer = data.config, data.parts[part_index], data.tokenizer
  name, records, index_of = part.task.name, part.records, part.order.dealt(shard, data.num_virtual_shards)
  if isinstance(config.features, EncoderTaskFeatures):
    tokenise_labelled = encoder_examples.tokenise_labelled(
      part.task, tokenizer, config.task_feature_lengths['inputs'], config.features.max_query_length
    )
    return encoder_stream.LabelledStream(documents.DocumentReader(name, records, index_of, tokenise_labelled, observe))
  if part.task.supervised:
    tokenise_pairs = documents.tokenise_pairs(part.task, tokenizer, config.task_feature_lengths)
    return streams.PairStream(documents.DocumentReader(name, records, index_of, tokenise_pairs, observe))
  objective: Any = config.objective

  generators = randomness.Generators(config.seed, randomness.EXAMPLE)

  def generator(example: int) -> np.random.Generator:
    return generators((example, shard, part_index))

  if hasattr(objective, 'pair'):
    tokenise_sentences = documents.tokenise_sentences(part.task, tokenizer, data.raw_length)
    return sentence_pairs.SentencePairStream(
      name,
      reader=documents.DocumentReader(name, records, index_of, tokenise_sentences, observe),
      others=documents.DocumentReader(name, records, part.order.stored, tokenise_sentences),
      num_documents=len(records),
      index_of=index_of,
      objective=objective,
      length=data.raw_length,
      tokenizer=tokenizer,
      generator=generator,
    )
  tokenise = documents.tokenise_text(part.task, tokenizer, objective.separator(tokenizer))
  reader = documents.DocumentReader(name, records, index_of, tokenise, observe)
  made_by = (objective, data.raw_length, tokenizer, generator)
  if part.task.documents == task.JOINED:
    return streams.TextStream(reader, *made_by, ahead=not dataset_config.cuts(config))
  stride = part.task.stride if part.task.documents == task.SPLIT_DOCUMENTS else None
  return streams.DocumentStream(reader, *made_by, stride)
