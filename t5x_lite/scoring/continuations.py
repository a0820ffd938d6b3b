"""Bits per byte of one and the same text by models of any family: how well each continues a text from its beginning.

Documents are cut in two as texts, before any tokenizer sees them, so that all models are asked for the same bytes after
the same bytes. What a model gives them is of one of two kinds, which are never to be compared with each other:

    bits_per_byte_of_continuation         T5, GPT, XLNet: the log2-likelihood of the continuation given the beginning
    pseudo_bits_per_byte_of_continuation  BERT: the sum of log2-likelihoods of its tokens, each masked by itself and
                                          told from all others, those behind it too

Of the first kind are numbers of models that were trained to continue and of others; a model that never saw the task, as
T5 after span corruption, is at a disadvantage. What a tokenizer drops (blanks, or a character that becomes an unknown
id) costs its model little or nothing, and its bytes count.

Sources: Salazar et al. 2020, section 2.1 (pseudo-log-likelihood); Gao et al. 2020, section 3.1 (bits by bytes of
UTF-8); the order in which XLNet predicts is that of `inference.likelihood`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from t5x_lite import families
from t5x_lite.core import batch as batch_lib
from t5x_lite.core import errors
from t5x_lite.data import packing
from t5x_lite.data import task as tasks
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.features import (
  DecoderOnlyFeatures,
  EncoderDecoderFeatures,
  EncoderOnlyFeatures,
  FeatureConverter,
  ModelExample,
  PermutationFeatures,
)
from t5x_lite.data.vocabularies import tokenizers
from t5x_lite.objectives.causal_lm import CausalLM
from t5x_lite.partitioning import sharding
from t5x_lite.training.steps import Trainer

BITS = 'bits_per_byte_of_continuation'
PSEUDO_BITS = f'pseudo_{BITS}'

_GAP = re.compile(r'(?<=\S)\s')
_MULTIPLE = 32  # of which rows are long, so that meshes can cut them


@dataclasses.dataclass(frozen=True)
class Continuations:
  """Which texts are cut where.

  Attributes:
    context: characters of the beginning, at most.
    length: characters of what follows and is scored, at most. A document that is shorter than both is cut in the same
      proportion.
    documents: of the split, at evenly spaced places; all if there are no more.
    per_document: passages of a document, one behind the other from its start; the rest of it is not read.
    masked: by models that read both sides, how many tokens of each continuation are masked, one at a time, at evenly
      spaced places; each then stands for as many as it was chosen from. None: all of them, each a row to be read.
  """

  context: int = 256
  length: int = 256
  documents: int = 200
  per_document: int = 8
  masked: int | None = None

  def __post_init__(self) -> None:
    for name, value in dataclasses.asdict(self).items():
      if value is not None and value < 1:
        raise errors.UsageError(f'Continuations.{name}={value}: expected at least 1')


class Passage(NamedTuple):
  """A text in two parts; the second begins with the blank that stands between them."""

  beginning: str
  continuation: str


class _Row(NamedTuple):
  """A model example, and how much its losses count."""

  example: ModelExample
  weight: float


def measure(trainer: Trainer, params: Any, config: DatasetConfig, chosen: Continuations) -> dict[str, float]:
  """Bits per byte of the continuations of a task's documents.

  Args:
    trainer: whose model and mesh are used.
    params: of its model.
    config: of one task that is text: split, tokenizer, features, objective and batch size.
    chosen: which texts are cut where.

  Returns:
    `BITS`, or `PSEUDO_BITS` of a model that reads both sides; and of what: `passages`, `continuation_bytes`, and how
    many tokens were predicted, `continuation_tokens`. Every process gets the same.

  Raises:
    UsageError: the split has no text that can be cut, or the model predicts none of these features or has no positions
      for so long a passage.
  """
  (member,) = tasks.tasks(config.mixture_or_task_name)
  texts = passages(member, config.split, chosen)
  if not texts:
    raise errors.UsageError(f'task {member.name!r}, split {config.split!r}: no document of two words to continue')
  assert config.tokenizer is not None
  make, converter = _maker(config, chosen.masked)
  rows = [row for text in texts for row in make(*_tokens(config.tokenizer, text))]
  bits = _nll(trainer, params, rows, converter, config.batch_size) / math.log(2.0)
  size = sum(len(text.continuation.encode('utf-8')) for text in texts)
  name = PSEUDO_BITS if isinstance(converter, EncoderOnlyFeatures) else BITS
  predicted = sum(int(np.count_nonzero(batch_lib.targets(row.example)[1])) for row in rows)
  return {name: bits / size, 'passages': len(texts), 'continuation_bytes': size, 'continuation_tokens': predicted}


def passages(member: tasks.Task, split: str, chosen: Continuations) -> list[Passage]:
  """The passages of a split, in the order of its records; they depend on no tokenizer and no model."""
  records = member.source.random_access(member.source_split(split))
  count = min(len(records), chosen.documents)
  found = []
  for record in records.__getitems__([number * len(records) // count for number in range(count)]):
    for example in member.examples(record):
      found += list(cut(example['text'], chosen))
  return found


def cut(text: str, chosen: Continuations) -> Iterator[Passage]:
  """The passages of a document. They begin and end between words; only the first may be shorter than was asked for."""
  text, whole, start = text.strip(), chosen.context + chosen.length, 0
  for number in range(chosen.per_document):
    window = text[start : start + whole]
    if number and len(window) < whole:
      return
    ends = [gap.start() - start for gap in _GAP.finditer(text, start + 1, start + whole + 1)]
    ends += [len(window)] if start + whole >= len(text) else []
    middle = max((end for end in ends if end <= chosen.context * len(window) // whole), default=0)
    end = max(ends, default=0)
    if not 0 < middle < end:
      return
    yield Passage(window[:middle], window[middle:end])
    start += end


def _tokens(tokenizer: tokenizers.Tokenizer, text: Passage) -> tuple[np.ndarray, np.ndarray]:
  first, second = tokenizer.encode_batch([text.beginning, text.continuation])
  return np.asarray(first, np.int32), np.asarray(second, np.int32)


# The ids of a beginning and of what follows -> rows to be read.
_Maker = Callable[[np.ndarray, np.ndarray], list[_Row]]


def _maker(config: DatasetConfig, masked: int | None) -> tuple[_Maker, FeatureConverter]:
  """How a passage is asked for, and what makes model features of it."""
  tokenizer = config.tokenizer
  assert tokenizer is not None
  converter = config.features.for_tokenizer(tokenizer)
  if isinstance(converter, EncoderDecoderFeatures | DecoderOnlyFeatures):
    # As in its training: the inputs end with EOS, unless a text is all that a model has ever read.
    ended = not (isinstance(converter, DecoderOnlyFeatures) and isinstance(config.objective, CausalLM))
    if isinstance(converter, DecoderOnlyFeatures):
      converter = dataclasses.replace(converter, loss_on_targets_only=True)
    return _continued(converter, tokenizer.eos_id if ended else None), converter
  if isinstance(converter, PermutationFeatures):
    return _in_order(converter), converter
  if isinstance(converter, EncoderOnlyFeatures):
    converter = dataclasses.replace(converter, sentence_pairs=False)
    return _one_by_one(converter, tokenizer, masked), converter
  raise errors.UsageError(
    f'{type(converter).__name__}: a model that reads it continues no text; expected the features of an objective'
  )


def _continued(converter: FeatureConverter, end: int | None) -> _Maker:
  ends = np.asarray([] if end is None else [end], np.int32)

  def make(first: np.ndarray, second: np.ndarray) -> list[_Row]:
    return [_Row(converter({'inputs': np.concatenate([first, ends]), 'targets': second}), 1.0)] if len(second) else []

  return make


def _in_order(converter: FeatureConverter) -> _Maker:
  """XLNet: the beginning is context that sees all of itself, what follows is predicted from left to right."""

  def make(first: np.ndarray, second: np.ndarray) -> list[_Row]:
    tokens = np.concatenate([first, second])
    order = np.maximum(np.arange(len(tokens), dtype=np.int32) - len(first) + 1, 0)
    example = {'targets': tokens, 'predicted': (order > 0).astype(np.int32), 'order': order}
    return [_Row(converter(example | {'token_types': np.zeros_like(tokens)}), 1.0)] if len(second) else []

  return make


def _one_by_one(converter: FeatureConverter, tokenizer: tokenizers.Tokenizer, masked: int | None) -> _Maker:
  """BERT: each of the tokens that follow is masked by itself, all others are there to be seen."""

  def make(first: np.ndarray, second: np.ndarray) -> list[_Row]:
    frame = np.asarray([tokenizer.cls_id], np.int32), np.asarray([tokenizer.sep_id], np.int32)
    targets = np.concatenate([frame[0], first, second, frame[1]])
    total = len(second)
    count = total if masked is None else min(masked, total)
    rows = []
    for number in range(count):
      place = 1 + len(first) + (2 * number + 1) * total // (2 * count)
      inputs, predicted = targets.copy(), np.zeros_like(targets)
      inputs[place], predicted[place] = tokenizer.mask_id, 1
      rows.append(_Row(converter({'inputs': inputs, 'targets': targets, 'predicted': predicted}), total / count))
    return rows

  return make


def _nll(trainer: Trainer, params: Any, rows: Sequence[_Row], converter: FeatureConverter, batch_size: int) -> float:
  """The weighted sum of the losses of all rows, in nats; one example a row."""
  names = {side: converter.keys(side) for side in (batch_lib.ENCODER, batch_lib.DECODER) if _has(rows, side)}
  lengths = {side: max(len(row.example[own[0]]) for row in rows) for side, own in names.items()}
  learner, own_rows = trainer.learner, trainer.process_rows(batch_size)
  lengths = {side: _padded(learner.module, names[side], length) for side, length in lengths.items()}

  def sums(params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
    return jnp.sum(learner.token_losses(params, batch)[0].nll * batch_lib.targets(batch)[1], axis=1)

  summed = jax.jit(sums, out_shardings=sharding.replicated(trainer.mesh))
  total = 0.0
  for start in range(0, len(rows), batch_size):
    chosen = rows[start : start + batch_size]
    batch = {
      name: np.zeros((batch_size, lengths[side]), batch_lib.dtype(name)) for side, own in names.items() for name in own
    }
    for at, row in enumerate(chosen):
      packing.write_row(packing.Row.of([packing.Entry(row.example)], lengths), batch, at, converter)
    placed = trainer.shard_batch({name: array[own_rows] for name, array in batch.items()}, batch_size)
    with sharding.scope(trainer.mesh, trainer.rules):
      found = np.asarray(summed(params, placed), np.float64)
    total += float(sum(row.weight * value for row, value in zip(chosen, found, strict=False)))
  return total


def _has(rows: Sequence[_Row], side: str) -> bool:
  return batch_lib.key(side, batch_lib.INPUT_TOKENS) in rows[0].example


def _padded(module: Any, names: Sequence[str], length: int) -> int:
  """The length of rows. Raises UsageError where the model has no positions for its passages."""

  def check(length: int) -> None:
    families.check_length(module, {name: jax.ShapeDtypeStruct((1, length), batch_lib.dtype(name)) for name in names})

  try:
    check(length)
  except errors.UsageError as error:
    raise errors.UsageError(f'Continuations.context and length, a passage of {length} tokens: {error}') from None
  rounded = -(-length // _MULTIPLE) * _MULTIPLE
  try:
    check(rounded)
  except errors.UsageError:  # The table of positions ends between the two.
    return length
  return rounded
