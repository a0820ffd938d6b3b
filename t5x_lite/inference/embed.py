"""`infer --mode=embed`: a vector for each line, pooled from the last hidden states, as sentence-transformers does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5x_lite.core import errors
from t5x_lite.inference import modes, rows
from t5x_lite.inference.modes import Item, Options
from t5x_lite.interop import hf_call, sentence_transformers
from t5x_lite.models.heads import EMBEDDING, mean_of_real, unit_length
from t5x_lite.pretrained import Pretrained

POOLINGS = ('auto', 'mean', 'cls', 'last')


class Embed:
  """See `modes.Mode`."""

  field = 'text'
  columns = (
    'line',
    'text',
    'embedding',
    'truncated',
    'error',
  )

  def __init__(self, model: Pretrained, options: Options):
    if options.pooling not in POOLINGS:
      raise errors.unknown('pooling', options.pooling, POOLINGS)
    self._model, self._options, self._tokenizer = model, options, modes.tokenizer_of(model)
    config = model.module.config
    if EMBEDDING in config.heads:
      pooling, normalises = config.pooling, True
    else:
      pooling = sentence_transformers.pooling_of(model.source) or 'mean'
      normalises = sentence_transformers.normalises(model.source)
    self._pooling = pooling if options.pooling == 'auto' else options.pooling
    self._encodes = hasattr(model.module, 'encode') and type(model.module).__name__ == 'T5'
    limit = getattr(config, 'max_length', None)
    limit = None if limit is None else limit - getattr(config, 'first_position', 0) - config.prompt_length
    stored = sentence_transformers.max_length(model.source)
    limits = (limit, stored, self._tokenizer.model_max_length, options.max_input_length)
    self._longest = min((each for each in limits if each is not None), default=None)

    def vectors(params: Any, batch: Mapping[str, jax.Array], real: jax.Array) -> jax.Array:
      method = 'encode' if self._encodes else 'outputs'
      out = model.module.apply({'params': params}, batch, deterministic=True, method=method)
      hidden = out[:, config.prompt_length :] if self._encodes else out['last_hidden_state']
      pooled = _pooled(hidden.astype(jnp.float32), real, self._pooling)
      return unit_length(pooled) if normalises else pooled

    self._vectors = model.jitted(vectors)

  def read(self, fields: Mapping[str, Any]) -> Item:
    """The ids of "text", or of "inputs", in the frame of the family."""
    text = rows.text_field(fields, 'text', 'inputs')
    tokens = self._tokenizer.encode(text)
    ids, _ = self._tokenizer.with_special_tokens(tokens)
    if not ids:
      raise ValueError('nothing to embed: expected a text')
    if self._longest is None or len(ids) <= self._longest:
      return Item(np.asarray(ids, np.int32), {'text': text}, {})
    ids, _ = self._tokenizer.with_special_tokens(tokens, None, self._longest)  # cut within the frame
    return Item(np.asarray(ids, np.int32), {'text': text}, {'truncated': True})

  def run(self, items: Sequence[Item], length: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The vector of each."""
    length = max(min(length, self._longest or length), max(len(item.ids) for item in items))
    ids = np.full((len(items), length), self._tokenizer.pad_id, np.int32)
    mask = np.zeros_like(ids)
    for row, item in enumerate(items):
      ids[row, : len(item.ids)], mask[row, : len(item.ids)] = item.ids, 1
    inputs = {'input_ids': ids, 'attention_mask': mask}
    if self._encodes:
      inputs |= {'decoder_input_ids': ids[:, :1]}
    batch = hf_call.batch_of(self._model.module, self._model.config, inputs, {})
    vectors = self._vectors(batch, mask)
    return [
      {**item.shown, 'embedding': [round(float(x), 7) for x in vectors[row]], **item.more}
      for row, item in enumerate(items)
    ]


def _pooled(hidden: jax.Array, real: jax.Array, pooling: str) -> jax.Array:
  """`[B, D]` of hidden states `[B, L, D]`, of which those are `real`, int32 `[B, L]`, that are no padding."""
  if pooling == 'cls':
    return hidden[:, 0]
  if pooling == 'last':
    last = jnp.sum(real, axis=1) - 1
    return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
  return mean_of_real(hidden, real)
