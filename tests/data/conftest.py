"""In-memory stand-ins for sources and tokenizers, so that the tests of the pipeline know every token."""

import dataclasses
import hashlib

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.data import pipeline
from t5x_lite.data import task as task_lib
from t5x_lite.data.mixtures import Mixture
from t5x_lite.objectives import span_corruption

EOS = 1


class NumberTokenizer:
  """Texts are numbers with spaces between them, and the numbers are the ids."""

  vocab_size = 5000
  pad_id = 0
  eos_id = EOS
  unk_id = 2
  num_sentinels = 100
  fingerprint = 'numbers'

  def encode(self, text):
    return [int(word) for word in text.split()]

  def encode_batch(self, texts):
    return [self.encode(text) for text in texts]

  def encode_arrays(self, texts):
    return [np.array(self.encode(text), np.int32) for text in texts]

  def decode(self, ids):
    return ' '.join(map(str, ids))

  def sentinel_id(self, index):
    return self.vocab_size - 1 - index


@dataclasses.dataclass(frozen=True)
class MemorySource:
  """Splits as tuples of records."""

  records: dict

  @property
  def splits(self):
    return tuple(self.records)

  def num_examples(self, split):
    return len(self.records[split])

  def random_access(self, split):
    if split not in self.records:
      raise errors.unknown('split', split, self.records)
    return Records(self.records[split])

  def fingerprint(self, split=None):
    return hashlib.sha256(repr(self.records if split is None else self.records[split]).encode()).hexdigest()


class Records(list):
  """A list with grain's batched access."""

  def __getitems__(self, indices):
    return [self[index] for index in indices]


@pytest.fixture
def number_tokenizer():
  return NumberTokenizer()


@pytest.fixture
def registry(monkeypatch):
  """An empty registry of tasks for one test."""
  monkeypatch.setattr(task_lib, '_registry', {})
  monkeypatch.setattr(task_lib, '_catalogue', [])
  return task_lib


def text_of(ids):
  return ' '.join(map(str, ids))


@pytest.fixture
def add_text_task(registry):
  """Registers an unsupervised task of documents given as lists of ids; returns it."""

  def add(name, documents, validation=()):
    records = {split: [{'doc': text_of(ids)} for ids in docs] for split, docs in _splits(documents, validation)}
    return registry.register(task_lib.Task(name, MemorySource(records), lambda record: {'text': record['doc']}))

  return add


@pytest.fixture
def add_pair_task(registry):
  """Registers a supervised task of (inputs ids, targets ids); returns it."""

  def add(name, pairs, validation=()):
    records = {
      split: [{'a': text_of(inputs), 'b': text_of(targets)} for inputs, targets in rows]
      for split, rows in _splits(pairs, validation)
    }
    source = MemorySource(records)
    return registry.register(
      task_lib.Task(
        name,
        source,
        lambda record: {'inputs': record['a'], 'targets': record['b']},
        supervised=True,
      )
    )

  return add


def _splits(train, validation):
  return [
    ('train', train),
    *([('validation', validation)] if len(validation) else []),
  ]


@pytest.fixture
def config(registry, add_text_task, add_pair_task, number_tokenizer):
  """A mixture of two kinds: documents (some empty) of 0 to 60 tokens, and pairs of all lengths, some too long."""
  rng = np.random.default_rng(0)
  sizes = rng.integers(0, 60, 40)
  documents = np.split(np.arange(100, 100 + sizes.sum()), np.cumsum(sizes)[:-1])
  pairs = [
    (
      rng.integers(100, 4800, rng.integers(0, 24)),
      rng.integers(100, 4800, rng.integers(1, 8)),
    )
    for _ in range(23)
  ]
  add_text_task('docs', documents, validation=documents[:13])
  add_pair_task('pairs', pairs, validation=pairs[:9])
  registry.register(Mixture('both', (('docs', 1.0), ('pairs', 3.0))))
  return pipeline.DatasetConfig(
    mixture_or_task_name='both',
    task_feature_lengths={'inputs': 20, 'targets': 12},
    tokenizer=number_tokenizer,
    batch_size=8,
    objective=span_corruption.SpanCorruption(noise_density=0.25, mean_noise_span_length=2.0),
    num_virtual_shards=8,
    prefetch=0,
  )
