"""Predictions of models that write: the output for each input, or the likeliest of the texts that stand for labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5x_lite.core import batch as batch_lib
from t5x_lite.core import errors
from t5x_lite.core.batch import ENCODER, INPUT_TOKENS, POSITIONS, SEGMENT_IDS, key
from t5x_lite.data import packing
from t5x_lite.data import task as tasks
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.features import DecoderOnlyFeatures, append_eos_after_trim
from t5x_lite.decoding.generate import generate_from_encoder, generate_from_prompt
from t5x_lite.inference.answers import log_total
from t5x_lite.partitioning import sharding
from t5x_lite.scoring import heads
from t5x_lite.scoring.items import Item, Prediction
from t5x_lite.training.steps import Trainer

Arrays = dict[str, np.ndarray]
# `(params, arrays) -> ids`: how a batch of inputs becomes a batch of outputs, int32 [B, T].
Write = Callable[[Any, Mapping[str, jax.Array]], jax.Array]


def greedy_writer(trainer: Trainer, config: DatasetConfig) -> Write:
  """Writes the likeliest token after every token: the one place where this package decodes."""
  learner, tokenizer = trainer.learner, config.tokenizer
  assert tokenizer is not None
  options: dict[str, Any] = {
    'max_length': config.task_feature_lengths['targets'],
    'eos_id': tokenizer.eos_id,
    'num_tokens': tokenizer.vocab_size,
  }
  if isinstance(config.features, DecoderOnlyFeatures):
    options['bidirectional'] = config.features.bidirectional_prefix

    def continued(params: Any, arrays: Mapping[str, jax.Array]) -> jax.Array:
      params = learner.full_params(params)
      return generate_from_prompt(learner.module, params, arrays['tokens'], arrays['segment_ids'], **options)

    return continued
  return lambda params, arrays: generate_from_encoder(learner.module, learner.full_params(params), arrays, **options)


class TextPredictor:
  """Has a model write the output for each input, in batches of like lengths.

  Args:
    trainer: whose model and mesh are used.
    config: features, lengths, tokenizer and batch size.
    member: the task.
  """

  def __init__(self, trainer: Trainer, config: DatasetConfig, member: tasks.Task):
    assert config.tokenizer is not None
    self._trainer, self._config, self._member, self._tokenizer = trainer, config, member, config.tokenizer
    self._write = jax.jit(greedy_writer(trainer, config), out_shardings=sharding.replicated(trainer.mesh))

  def __call__(self, params: Any, items: Sequence[Item]) -> list[Prediction]:
    """A prediction for each item. Every process must call it, with the same items; all get all."""
    config, size = self._config, self._config.batch_size
    longest = config.task_feature_lengths['inputs']
    encoded = self._tokenizer.encode_batch([item.example['inputs'] for item in items])
    inputs = [append_eos_after_trim(ids, longest, self._tokenizer.eos_id)[0] for ids in encoded]
    order = sorted(range(len(items)), key=lambda index: len(inputs[index]))
    rows = self._trainer.process_rows(size)
    texts: dict[int, str] = {}
    for length, chosen in heads.chunks(order, list(map(len, inputs)), heads.buckets(longest), size):
      batch = self._arrays([inputs[index] for index in chosen], length)
      placed = self._trainer.shard_batch({name: array[rows] for name, array in batch.items()}, size)
      with sharding.scope(self._trainer.mesh, self._trainer.rules):
        written = np.asarray(self._write(params, placed))
      for row, index in enumerate(chosen):
        texts[index] = self._tokenizer.decode(written[row].tolist())
    postprocess = self._member.postprocess
    values = [texts[index] if postprocess is None else postprocess(texts[index]) for index in range(len(items))]
    return [Prediction(value, {'text': texts[index]}) for index, value in enumerate(values)]

  def _arrays(self, inputs: Sequence[np.ndarray], length: int) -> Arrays:
    """A batch of inputs: of an encoder, or prompts padded on the left, behind the id that starts every example."""
    size, features = self._config.batch_size, self._config.features
    if isinstance(features, DecoderOnlyFeatures):
      start_id = features.for_tokenizer(self._tokenizer).start_id
      assert start_id is not None  # `for_tokenizer` has seen to it
      tokens = np.zeros((size, length + 1), np.int32)
      segments = np.zeros_like(tokens)
      segments[len(inputs) :, -1] = 1  # an empty row still has to begin somewhere
      for row, ids in enumerate(inputs):
        tokens[row, length - len(ids)] = start_id
        tokens[row, length + 1 - len(ids) :] = ids
        segments[row, length - len(ids) :] = 1
      return {'tokens': tokens, 'segment_ids': segments}
    tokens, segments = np.zeros((2, size, length), np.int32)
    for row, ids in enumerate(inputs):
      tokens[row, : len(ids)], segments[row, : len(ids)] = ids, 1
    positions = np.ascontiguousarray(np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape))
    return {
      key(ENCODER, INPUT_TOKENS): tokens,
      key(ENCODER, SEGMENT_IDS): segments,
      key(ENCODER, POSITIONS): positions,
    }


def fixed_labels(member: tasks.Task) -> tuple[str, ...]:
  """The texts that stand for the classes of a task, in the order of their indices; none where there are no classes."""
  labels = member.encoder.labels if member.encoder is not None else ()
  if member.postprocess is None or [member.postprocess(label) for label in labels] != list(range(len(labels))):
    return ()
  return labels


def labels_to_rank(member: tasks.Task) -> tuple[str, ...]:
  """The same. Raises UsageError where there are none."""
  labels = fixed_labels(member)
  if not labels:
    raise errors.UsageError(
      f'task {member.name!r} has no fixed set of labels: nothing to rank, expected a task of classes'
    )
  return labels


class RankPredictor:
  """Chooses the label that is likeliest as a target: the sum of the log-likelihoods of its tokens, EOS included.

  Source: Brown et al. 2020 (GPT-3), section 2.4, without normalising; Sanh et al. 2022 (T0), section 5.

  Args:
    trainer: whose model and mesh are used.
    config: features, lengths, tokenizer and batch size.
    member: the task.
  """

  def __init__(self, trainer: Trainer, config: DatasetConfig, member: tasks.Task):
    assert config.tokenizer is not None
    self._trainer, self._config, self._tokenizer = trainer, config, config.tokenizer
    self._converter = config.features.for_tokenizer(config.tokenizer)
    self._labels = labels_to_rank(member)
    learner = trainer.learner

    def likelihood(params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
      tokens = learner.token_losses(params, batch)[0]
      return -jnp.sum(tokens.nll * batch_lib.targets(batch)[1], axis=1)

    self._likelihood = jax.jit(likelihood, out_shardings=sharding.replicated(trainer.mesh))

  def __call__(self, params: Any, items: Sequence[Item]) -> list[Prediction]:
    """A prediction for each item. Every process must call it, with the same items; all get all."""
    eos_id, lengths = self._tokenizer.eos_id, self._config.task_feature_lengths
    encoded = self._tokenizer.encode_batch([item.example['inputs'] for item in items])
    inputs = [append_eos_after_trim(ids, lengths['inputs'], eos_id)[0] for ids in encoded]
    targets = [append_eos_after_trim(ids, 2**30, eos_id)[0] for ids in self._tokenizer.encode_batch(list(self._labels))]
    longest = max(map(len, targets))
    if longest > lengths['targets']:
      raise errors.UsageError(f'a label has {longest} tokens: expected at least that many targets, got {dict(lengths)}')
    order = sorted(range(len(items)), key=lambda index: len(inputs[index]))
    scores = np.zeros((len(items), len(self._labels)), np.float64)
    pairs = [(index, label) for index in order for label in range(len(targets))]
    sizes = [len(inputs[index]) for index, _ in pairs]
    for length, chosen in heads.chunks(
      range(len(pairs)), sizes, heads.buckets(lengths['inputs']), self._config.batch_size
    ):
      examples = [{'inputs': inputs[pairs[at][0]], 'targets': targets[pairs[at][1]]} for at in chosen]
      found = self._sums(params, examples, {'inputs': length, 'targets': longest})
      for at, value in zip(chosen, found, strict=False):
        scores[pairs[at]] = value
    return [self._ranked(item, own) for item, own in zip(items, scores, strict=True)]

  def _ranked(self, item: Item, scores: np.ndarray) -> Prediction:
    """The likeliest label; probabilities and the loss are those among the labels."""
    best, chances = int(np.argmax(scores)), scores - log_total([scores])
    right = item.reference if isinstance(item.reference, int) and 0 <= item.reference < len(scores) else None
    shown = {
      'label': self._labels[best],
      'log_likelihoods': [round(float(value), 4) for value in scores],
      'probabilities': [round(float(value), 6) for value in np.exp(chances)],
    }
    return Prediction(best, shown, None if right is None else float(-chances[right]))

  def _sums(self, params: Any, examples: Sequence[Arrays], lengths: Mapping[str, int]) -> np.ndarray:
    size, sides = self._config.batch_size, self._converter.side_lengths(lengths)
    batch = {
      name: np.zeros((size, length), batch_lib.dtype(name))
      for side, length in sides.items()
      for name in self._converter.keys(side)
    }
    for row, example in enumerate(examples):
      entry = packing.Entry(self._converter(example))
      packing.write_row(packing.Row.of([entry], sides), batch, row, self._converter)
    rows = self._trainer.process_rows(size)
    placed = self._trainer.shard_batch({name: array[rows] for name, array in batch.items()}, size)
    with sharding.scope(self._trainer.mesh, self._trainer.rules):
      return np.asarray(self._likelihood(params, placed))
