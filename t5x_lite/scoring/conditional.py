"""The likelihood of a text behind another one, by models of any family: rows to be read, and their losses.

    encoder-decoder    the first text is the input, the second the target
    decoder            the second follows the first, in one row
    XLNet              the first is context that sees all of itself, the second is predicted from left to right
    encoder            each token of the second is masked by itself, all others are there to be seen: the sum of their
                       log-likelihoods is the pseudo-log-likelihood (Salazar et al. 2020, section 2.1)

The order in which XLNet predicts is that of `inference.likelihood`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from t5x_lite import families
from t5x_lite.core import batch as batch_lib
from t5x_lite.core import errors
from t5x_lite.data import packing
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

_MULTIPLE = 32  # of which rows are long, so that meshes can cut them


class Row(NamedTuple):
  """A model example, and how much its losses count."""

  example: ModelExample
  weight: float


# The ids of a text and of what follows -> rows to be read.
Maker = Callable[[np.ndarray, np.ndarray], list[Row]]


def encoded(tokenizer: tokenizers.Tokenizer, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
  """The ids of two texts, int32 each, by themselves."""
  one, other = tokenizer.encode_batch([first, second])
  return np.asarray(one, np.int32), np.asarray(other, np.int32)


def is_pseudo(converter: FeatureConverter) -> bool:
  """Whether what models of these features tell is a pseudo-likelihood."""
  return isinstance(converter, EncoderOnlyFeatures)


def maker(config: DatasetConfig, masked: int | None) -> tuple[Maker, FeatureConverter]:
  """How a text is asked for behind another one, and what makes model features of both.

  Args:
    config: tokenizer, features and objective.
    masked: of an encoder, how many tokens of the second text are masked, at evenly spaced places, each of which then
      stands for as many as it was chosen from; None: all.

  Raises:
    UsageError: a model that reads these features predicts no text.
  """
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


def _continued(converter: FeatureConverter, end: int | None) -> Maker:
  ends = np.asarray([] if end is None else [end], np.int32)

  def make(first: np.ndarray, second: np.ndarray) -> list[Row]:
    return [Row(converter({'inputs': np.concatenate([first, ends]), 'targets': second}), 1.0)] if len(second) else []

  return make


def _in_order(converter: FeatureConverter) -> Maker:
  """XLNet: the beginning is context that sees all of itself, what follows is predicted from left to right."""

  def make(first: np.ndarray, second: np.ndarray) -> list[Row]:
    tokens = np.concatenate([first, second])
    order = np.maximum(np.arange(len(tokens), dtype=np.int32) - len(first) + 1, 0)
    example = {'targets': tokens, 'predicted': (order > 0).astype(np.int32), 'order': order}
    return [Row(converter(example | {'token_types': np.zeros_like(tokens)}), 1.0)] if len(second) else []

  return make


def _one_by_one(converter: FeatureConverter, tokenizer: tokenizers.Tokenizer, masked: int | None) -> Maker:
  """BERT: each of the tokens that follow is masked by itself, all others are there to be seen."""

  def make(first: np.ndarray, second: np.ndarray) -> list[Row]:
    frame = np.asarray([tokenizer.cls_id], np.int32), np.asarray([tokenizer.sep_id], np.int32)
    targets = np.concatenate([frame[0], first, second, frame[1]])
    total = len(second)
    count = total if masked is None else min(masked, total)
    rows = []
    for number in range(count):
      place = 1 + len(first) + (2 * number + 1) * total // (2 * count)
      inputs, predicted = targets.copy(), np.zeros_like(targets)
      inputs[place], predicted[place] = tokenizer.mask_id, 1
      rows.append(Row(converter({'inputs': inputs, 'targets': targets, 'predicted': predicted}), total / count))
    return rows

  return make


def nll(
  trainer: Trainer, params: Any, rows: Sequence[Row], converter: FeatureConverter, batch_size: int, what: str
) -> np.ndarray:
  """The losses of rows, weighted, in nats, float64 `[rows]`; one example a row. Every process gets the same.

  Args:
    trainer: whose model and mesh are used.
    params: of its model.
    rows: at least one.
    converter: of `maker`.
    batch_size: rows at a time.
    what: has made them so long, for errors.

  Raises:
    UsageError: the model has no positions for so long a row.
  """
  names = {side: converter.keys(side) for side in (batch_lib.ENCODER, batch_lib.DECODER) if _has(rows, side)}
  lengths = {side: max(len(row.example[own[0]]) for row in rows) for side, own in names.items()}
  learner, own_rows = trainer.learner, trainer.process_rows(batch_size)
  lengths = {side: padded(learner.module, names[side], length, what) for side, length in lengths.items()}

  def sums(params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
    return jnp.sum(learner.token_losses(params, batch)[0].nll * batch_lib.targets(batch)[1], axis=1)

  summed = jax.jit(sums, out_shardings=sharding.replicated(trainer.mesh))
  losses = []
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
    losses += [row.weight * value for row, value in zip(chosen, found, strict=False)]
  return np.asarray(losses)


def _has(rows: Sequence[Row], side: str) -> bool:
  return batch_lib.key(side, batch_lib.INPUT_TOKENS) in rows[0].example


def padded(module: Any, names: Sequence[str], length: int, what: str) -> int:
  """The length of rows. Raises UsageError where the model has no positions for them; see `nll`."""

  def check(length: int) -> None:
    families.check_length(module, {name: jax.ShapeDtypeStruct((1, length), batch_lib.dtype(name)) for name in names})

  try:
    check(length)
  except errors.UsageError as error:
    raise errors.UsageError(f'{what} of {length} tokens: {error}') from None
  rounded = -(-length // _MULTIPLE) * _MULTIPLE
  try:
    check(rounded)
  except errors.UsageError:  # The table of positions ends between the two.
    return length
  return rounded
