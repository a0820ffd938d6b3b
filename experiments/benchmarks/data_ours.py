"""Our side of `data.py`: batches of the library's pipeline, and of its parts."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import data_rounds

ROWS = 64  # of a batch
SPAN_LENGTHS = {'inputs': 512, 'targets': 114}
MLM_LENGTHS = {'inputs': 512}
TEXT = 'documents.txt'  # one a line


def span_corruption(folder: pathlib.Path, ids: bool = False, rows: int = ROWS) -> Iterator[int]:
  """T5's pretraining from text, or from ids that were made before."""
  from t5x_lite.data import features
  from t5x_lite.data.vocabularies import embedded_vocabulary
  from t5x_lite.objectives import span_corruption

  tokenizer = embedded_vocabulary.embedded_vocabulary()
  entry = _tokenised(folder / 't5_ids', tokenizer) if ids else _text(folder)
  return _batches(
    mixture_or_task_name=entry,
    task_feature_lengths=SPAN_LENGTHS,
    tokenizer=tokenizer,
    objective=span_corruption.SpanCorruption(),
    features=features.EncoderDecoderFeatures(),
    batch_size=rows,
  )


def masked_lm(folder: pathlib.Path, ids: bool = False, wordpiece: str | None = None) -> Iterator[int]:
  """BERT's pretraining from text, or from ids that were made before."""
  from t5x_lite.data import features
  from t5x_lite.data.vocabularies import embedded_vocabulary, load_tokenizer
  from t5x_lite.objectives import masked_lm

  bert = embedded_vocabulary.embedded_vocabulary
  tokenizer = load_tokenizer.load_tokenizer(wordpiece) if wordpiece else bert(layout='bert')
  entry = _tokenised(folder / 'bert_ids', tokenizer) if ids else _text(folder)
  return _batches(
    mixture_or_task_name=entry,
    task_feature_lengths=MLM_LENGTHS,
    tokenizer=tokenizer,
    objective=masked_lm.MaskedLM(),
    features=features.EncoderOnlyFeatures(),
    batch_size=ROWS,
  )


def collation(folder: pathlib.Path) -> Iterator[int]:
  """Rows of ids that fill a row of the batch -> masked batches, with nothing around it."""
  import numpy as np

  from t5x_lite.data import features, packing
  from t5x_lite.data.vocabularies import embedded_vocabulary
  from t5x_lite.objectives import masked_lm

  tokenizer = embedded_vocabulary.embedded_vocabulary(layout='bert')
  objective, converter, rng = masked_lm.MaskedLM(), features.EncoderOnlyFeatures(), np.random.default_rng(0)
  spec = features.batch_spec(converter, MLM_LENGTHS, ROWS)
  raw = np.load(folder / 'rows.npy')
  for start in itertools.cycle(range(0, len(raw) - ROWS + 1, ROWS)):
    batch = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in spec.items()}
    tokens = raw[start : start + ROWS]
    draws = np.stack([objective.draws(tokens.shape[1], rng) for _ in tokens])
    for index, example in enumerate(objective.batch(tokens, draws, tokenizer)):
      entry = packing.Entry(converter(example))
      packing.write_row(packing.Row.of([entry], {'encoder': None}), batch, index, converter)
    yield _count(batch)


def tokenizer_alone(folder: pathlib.Path, wordpiece: str) -> Iterator[int]:
  """Texts -> ids, many texts at a time."""
  from t5x_lite.data.vocabularies import load_tokenizer

  tokenizer = load_tokenizer.load_tokenizer(wordpiece)
  texts = (folder / TEXT).read_text(encoding='utf-8').splitlines()
  for start in itertools.cycle(range(0, len(texts), ROWS)):
    yield sum(map(len, tokenizer.encode_batch(texts[start : start + ROWS])))


def prepare(folder: pathlib.Path) -> None:
  """Writes what the arms and the peers read: text, ids, rows of ids, vocabularies."""
  import numpy as np

  from t5x_lite.data import sources
  from t5x_lite.data.preparation import tokenisation
  from t5x_lite.data.vocabularies import embedded_vocabulary
  from t5x_lite.objectives import masked_lm

  records = sources.EmbeddedSource().random_access('train')
  words = ' '.join(record['text'] for record in records.__getitems__(range(len(records)))).split()
  texts = documents_like_c4(words)
  (folder / TEXT).write_text('\n'.join(texts) + '\n', encoding='utf-8')
  t5, bert = (embedded_vocabulary.embedded_vocabulary(layout=layout) for layout in ('t5', 'bert'))
  t5.save(folder / 't5')
  bert.save(folder / 'bert')
  for name, tokenizer in (('t5_ids', t5), ('bert_ids', bert)):
    tokenisation.tokenise(_text(folder), tokenizer, str(folder / name), workers=1)
  flat = np.concatenate([np.array(ids, np.int32) for ids in bert.encode_batch(texts)])
  length = masked_lm.MaskedLM().raw_length(MLM_LENGTHS)
  np.save(folder / 'rows.npy', flat[: len(flat) // length * length].reshape(-1, length))


def documents_like_c4(words: list[str]) -> list[str]:
  """A text as documents as long as those of C4, about 360 words in the mean and 200 in the middle."""
  import numpy as np

  lengths = np.random.default_rng(0).lognormal(np.log(200), 1.08, len(words)).astype(int) + 1
  ends = np.cumsum(lengths)
  ends = ends[ends < len(words)].tolist()
  return [' '.join(words[start:end]) for start, end in zip([0, *ends], [*ends, len(words)], strict=True)]


def _text(folder: pathlib.Path) -> Any:
  from t5x_lite.data import files

  return files.files(str(folder / TEXT), name='text')


def _tokenised(directory: pathlib.Path, tokenizer: Any) -> Any:
  from t5x_lite.data import tokenised

  tokenizer.fingerprint  # the files are read before the clock runs  # noqa: B018
  return tokenised.tokenised(str(directory))


def _batches(**config: Any) -> Iterator[int]:
  from t5x_lite.data import dataset_config, pipeline

  for batch in pipeline.build(dataset_config.DatasetConfig(**config)):
    yield _count(batch)


def _count(batch: Any) -> int:
  """Tokens that are not padding, of all sides."""
  return sum(int((array != 0).sum()) for name, array in batch.items() if name.endswith('segment_ids'))


ARMS = {
  'span_corruption': span_corruption,
  'masked_lm': masked_lm,
  'collation': collation,
  'tokenizer_alone': tokenizer_alone,
}

if __name__ == '__main__':
  data_rounds.serve(ARMS)
