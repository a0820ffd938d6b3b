"""`infer --mode=embed`: a vector for each line, pooled from the last hidden states, as sentence-transformers does."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5x_lite.core import errors
from t5x_lite.inference import modes, rows
from t5x_lite.inference.modes import Item, Options
from t5x_lite.interop import hf_call
from t5x_lite.pretrained import Pretrained

POOLINGS = ('auto', 'mean', 'cls', 'last')
_MODES = {'pooling_mode_cls_token': 'cls', 'pooling_mode_mean_tokens': 'mean', 'pooling_mode_lasttoken': 'last'}


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
    pooling, normalises = _described(model.source)
    self._pooling = pooling if options.pooling == 'auto' else options.pooling
    self._encodes = hasattr(model.module, 'encode') and type(model.module).__name__ == 'T5'
    config = model.module.config
    limit = getattr(config, 'max_length', None)
    limit = None if limit is None else limit - getattr(config, 'first_position', 0) - config.prompt_length
    limits = [each for each in (limit, self._tokenizer.model_max_length, options.max_input_length) if each is not None]
    self._longest = min(limits, default=None)

    def vectors(params: Any, batch: Mapping[str, jax.Array], real: jax.Array) -> jax.Array:
      method = 'encode' if self._encodes else 'outputs'
      out = model.module.apply({'params': params}, batch, deterministic=True, method=method)
      hidden = out[:, config.prompt_length :] if self._encodes else out['last_hidden_state']
      hidden = hidden.astype(jnp.float32)
      pooled = _pooled(hidden, real.astype(jnp.float32), self._pooling)
      if normalises:
        pooled = pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)
      return pooled

    self._vectors = model.jitted(vectors)

  def read(self, fields: Mapping[str, Any]) -> Item:
    """The ids of "text", or of "inputs", in the frame of the family."""
    text = rows.text_field(fields, 'text', 'inputs')
    ids, _ = self._tokenizer.with_special_tokens(self._tokenizer.encode(text))
    if not ids:
      raise ValueError('nothing to embed: expected a text')
    ids, told = modes.cut(ids, self._longest)
    return Item(ids, {'text': text}, told)

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
  """`[B, D]` of hidden states `[B, L, D]`, of which those are `real`, float32 `[B, L]`, that are no padding."""
  if pooling == 'cls':
    return hidden[:, 0]
  if pooling == 'last':
    last = jnp.sum(real, axis=1).astype(jnp.int32) - 1
    return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
  return jnp.einsum('bld,bl->bd', hidden, real) / jnp.sum(real, axis=1, keepdims=True)


def _described(source: str) -> tuple[str, bool]:
  """How the folder of a model of sentence-transformers pools, and whether its vectors have length 1."""
  folder = pathlib.Path(source)
  pooling = 'mean'
  for path in sorted(folder.glob('*_Pooling/config.json')):
    said = json.loads(path.read_text(encoding='utf-8'))
    pooling = next((mode for name, mode in _MODES.items() if said.get(name)), pooling)
  path = folder / 'modules.json'
  modules = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else []
  return pooling, any(str(module.get('type', '')).endswith('Normalize') for module in modules)
