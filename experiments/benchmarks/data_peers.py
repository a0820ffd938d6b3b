"""The peers' side of `data.py`: seqio with t5's preprocessors, and the collator of transformers."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator

import data_rounds

ROWS = 64  # of a batch


def seqio_span_corruption(folder: pathlib.Path) -> Iterator[int]:
  """seqio's pipeline with t5's `span_corruption`, packed and shuffled."""
  import seqio
  import tensorflow as tf
  from t5.data import preprocessors

  vocabulary = seqio.SentencePieceVocabulary(str(folder / 't5' / 'spiece.model'), extra_ids=100)
  seqio.TaskRegistry.add(
    'span_corruption',
    source=seqio.TextLineDataSource({'train': str(folder / 'documents.txt')}),
    preprocessors=[
      lambda lines: lines.map(lambda text: {'inputs': '', 'targets': text}, num_parallel_calls=tf.data.AUTOTUNE),
      seqio.preprocessors.tokenize,
      preprocessors.span_corruption,
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={name: seqio.Feature(vocabulary, add_eos=True) for name in ('inputs', 'targets')},
    metric_fns=[],
  )
  batches = seqio.get_dataset(
    mixture_or_task_name='span_corruption',
    task_feature_lengths={'inputs': 512, 'targets': 114},
    dataset_split='train',
    shuffle=True,
    seed=0,
    num_epochs=None,
    feature_converter=seqio.EncDecFeatureConverter(pack=True),
  ).batch(ROWS, drop_remainder=True)
  for batch in batches.prefetch(2).as_numpy_iterator():
    sides = (batch['encoder_segment_ids'], batch['decoder_segment_ids'])
    yield sum(int((array != 0).sum()) for array in sides)


def hugging_face_collation(folder: pathlib.Path, return_tensors: str) -> Iterator[int]:
  """`DataCollatorForLanguageModeling` on ids with their special tokens, and told which those are."""
  import numpy as np
  import torch
  import transformers

  torch.set_num_threads(1)
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder / 'bert')
  collator = transformers.DataCollatorForLanguageModeling(tokenizer, return_tensors=return_tensors)
  raw = np.load(folder / 'rows.npy').tolist()
  special = [1, *[0] * len(raw[0]), 1]
  rows = [
    {
      'input_ids': [tokenizer.cls_token_id, *tokens, tokenizer.sep_token_id],
      'attention_mask': [1] * len(special),
      'special_tokens_mask': special,
    }
    for tokens in raw
  ]
  for start in itertools.cycle(range(0, len(rows) - ROWS + 1, ROWS)):
    batch = collator(rows[start : start + ROWS])
    yield int(batch['attention_mask'].sum())


def hugging_face_masked_lm(folder: pathlib.Path, wordpiece: str) -> Iterator[int]:
  """Text to masked batches: the tokenizer on many texts, their ids end to end in rows, the collator."""
  import torch
  import transformers

  torch.set_num_threads(1)
  tokenizer = transformers.BertTokenizerFast(vocab=str(pathlib.Path(wordpiece) / 'vocab.txt'))
  collator = transformers.DataCollatorForLanguageModeling(tokenizer)
  texts = (folder / 'documents.txt').read_text(encoding='utf-8').splitlines()
  length, rest, rows = 510, [], []
  for start in itertools.cycle(range(0, len(texts), ROWS)):
    for ids in tokenizer(texts[start : start + ROWS], add_special_tokens=False, verbose=False)['input_ids']:
      rest += [*ids, tokenizer.sep_token_id]
    whole = len(rest) // length * length
    rows += [
      [tokenizer.cls_token_id, *rest[at : at + length], tokenizer.sep_token_id] for at in range(0, whole, length)
    ]
    rest = rest[whole:]
    while len(rows) >= ROWS:
      batch = collator([{'input_ids': row, 'attention_mask': [1] * len(row)} for row in rows[:ROWS]])
      rows = rows[ROWS:]
      yield int(batch['attention_mask'].sum())


ARMS = {
  'seqio_span_corruption': seqio_span_corruption,
  'hugging_face_collation': hugging_face_collation,
  'hugging_face_masked_lm': hugging_face_masked_lm,
}

if __name__ == '__main__':
  data_rounds.serve(ARMS)
