"""What the modes of fine-tuned models share: which head answers, how its labels are called, logits for rows of ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from t5x_lite.core import errors
from t5x_lite.core.batch import DECODER, ENCODER, POOL_POSITION, POSITIONS, key
from t5x_lite.inference import modes
from t5x_lite.interop import hf_call
from t5x_lite.models import heads as model_heads
from t5x_lite.pretrained import Pretrained

_WITH_TYPES = ('Bert', 'Xlnet')  # the families that read token types


class Framed(NamedTuple):
  """One text or two in the frame of their family.

  Attributes:
    ids: int32 `[L]`.
    types: int32 `[L]`, token types.
  """

  ids: np.ndarray
  types: np.ndarray


class HeadReader:
  """A model that is asked through one of its heads.

  Args:
    model: with that head.
    heads: of `models.heads.OUTPUTS`, of which the first that the model has is asked.
    verb: what it is asked to do, for the error.
    max_input_length: tokens of a row at most; None: as the model takes.

  Raises:
    UsageError: the model has none of these heads, or one that nobody trained; or it has no vocabulary.
  """

  def __init__(self, model: Pretrained, heads: Sequence[str], verb: str, max_input_length: int | None):
    own, name = tuple(model.module.config.heads), type(model.module).__name__
    found = [head for head in heads if head in own]
    how = 'fine-tune it first (runs/finetune_encoder.gin), or choose a checkpoint that is'
    if not found:
      raise errors.UsageError(
        f'model {name} has the heads {", ".join(own) or "(none)"}, which {verb} nothing: expected '
        f'{" or ".join(heads)}; {how}'
      )
    self.head = found[0]
    fresh = [each for each in model.report.fresh if each.startswith('heads/')]
    if fresh:
      raise errors.UsageError(f'nobody has trained its head to {verb}: {", ".join(fresh)} are newly initialised; {how}')
    self.model, self.tokenizer = model, modes.tokenizer_of(model)
    config = model.module.config
    positions = getattr(config, 'max_length', None)
    positions = None if positions is None else positions - getattr(config, 'first_position', 0)
    limits = [each for each in (positions, self.tokenizer.model_max_length, max_input_length) if each is not None]
    self.longest: int | None = min(limits, default=None)
    output = model_heads.OUTPUTS[self.head]

    def logits(params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
      return model.module.apply({'params': params}, batch, deterministic=True, method='outputs')[output]

    self._logits = model.jitted(logits)

  def framed(self, first: Sequence[int], second: Sequence[int] | None = None) -> tuple[Framed, dict[str, bool]]:
    """Ids of one text or two in their frame, cut where they are too long, and what the row says of that."""
    whole, _ = self.tokenizer.with_special_tokens(first, second)
    if self.longest is None or len(whole) <= self.longest:
      return self._framed(first, second, None), {}
    return self._framed(first, second, self.longest), {'truncated': True}

  def _framed(self, first: Sequence[int], second: Sequence[int] | None, longest: int | None) -> Framed:
    ids, types = self.tokenizer.with_special_tokens(first, second, longest)
    return Framed(np.asarray(ids, np.int32), np.asarray(types, np.int32))

  def num_special(self, pair: bool) -> int:
    """Special tokens around one text, or two."""
    return len(self.tokenizer.with_special_tokens([], [] if pair else None)[0])

  def logits(self, rows: Sequence[Framed], length: int, batch_size: int) -> list[np.ndarray]:
    """The head's output for each row, float32: `[C]` of a row, or `[L, C]` of its tokens.

    Args:
      rows: any number of them.
      length: that they are padded to.
      batch_size: rows that are computed together; only that and `length` make another program.
    """
    length = max(min(length, self.longest or length), max(len(row.ids) for row in rows))
    found: list[np.ndarray] = []
    for start in range(0, len(rows), batch_size):
      chunk = rows[start : start + batch_size]
      batch = batch_of(self.model, [*chunk, *[chunk[0]] * (batch_size - len(chunk))], length)
      out = np.asarray(self._logits(batch), np.float32)
      found += [own if own.ndim == 1 else own[: len(row.ids)] for own, row in zip(out, chunk, strict=False)]
    return found


def batch_of(model: Pretrained, rows: Sequence[Framed], length: int) -> dict[str, np.ndarray]:
  """What a model reads of some rows, padded to `length`."""
  shape, tokenizer = (len(rows), length), modes.tokenizer_of(model)
  arrays = dict(zip(('input_ids', 'attention_mask', 'token_type_ids'), np.zeros((3, *shape), np.int32), strict=True))
  arrays['input_ids'] += np.int32(tokenizer.pad_id)
  for index, row in enumerate(rows):
    here = (index, slice(0, len(row.ids)))
    arrays['input_ids'][here], arrays['attention_mask'][here], arrays['token_type_ids'][here] = row.ids, 1, row.types
  config = dict(model.config)
  if config.get('pad_token_id') is None:
    config['pad_token_id'] = tokenizer.pad_id
  if type(model.module).__name__ not in _WITH_TYPES:
    del arrays['token_type_ids']
  batch = hf_call.batch_of(model.module, config, arrays, {})
  if key(ENCODER, POSITIONS) in batch:  # RoBERTa's follow from the id of padding, which a vocabulary of ours may lack
    batch[key(ENCODER, POSITIONS)] = np.broadcast_to(np.arange(length, dtype=np.int32), shape)
  if key(DECODER, POOL_POSITION) in batch:  # the last token that is there: padding is behind it, for XLNet too
    batch[key(DECODER, POOL_POSITION)] = np.array([len(row.ids) - 1 for row in rows], np.int32)
  return batch


def label_names(config: Mapping[str, Any], count: int) -> tuple[str, ...]:
  """What a config.json calls the labels of a head; `LABEL_0` and so on where it does not tell.

  Args:
    config: its `id2label` is keyed by indices, as text or not.
    count: labels of the head.
  """
  named = {str(index): str(name) for index, name in dict(config.get('id2label') or {}).items()}
  if len(named) != count:
    named = {}
  return tuple(named.get(str(index), f'LABEL_{index}') for index in range(count))


def softmax(logits: np.ndarray) -> np.ndarray:
  """Along the last axis."""
  exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return exponentials / exponentials.sum(axis=-1, keepdims=True)


def each_once(items: Iterable[modes.Item]) -> list[modes.Item]:
  """Items without those that only fill the batch, which are the same object."""
  return list({id(item): item for item in items}.values())


def said(text: str, what: str) -> str:
  """The text. Raises ValueError where there is nothing in it."""
  if not text.strip():
    raise ValueError(f'{what} is empty: expected a text')
  return text
