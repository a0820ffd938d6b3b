"""`infer --mode=fill`: what a masked language model puts at the masks of a line."""

from __future__ import annotations

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


class Fill:
  """See `modes.Mode`. Raises UsageError where the model has no head for it."""

  field = 'text'
  columns = (
    'line',
    'text',
    'prediction',
    'fills',
    'error',
  )

  def __init__(self, model: Pretrained, options: Options):
    if 'mlm' not in model.module.config.heads:
      raise errors.UsageError(f'model {type(model.module).__name__} fills no masks: expected BERT with an mlm head')
    if options.top < 1:
      raise errors.UsageError(f'top is {options.top}: expected at least 1')
    self._model, self._options, self._tokenizer = model, options, modes.tokenizer_of(model)

    def likeliest(params: Any, batch: Mapping[str, jax.Array], places: jax.Array) -> tuple[jax.Array, jax.Array]:
      factored = model.module.apply({'params': params}, batch, deterministic=True, method='factored_logits')
      hidden = jnp.take_along_axis(factored.hidden, places[..., None], axis=1)
      logits = factored.replace(hidden=hidden).logits()[..., : self._tokenizer.vocab_size]
      return jax.lax.top_k(jax.nn.softmax(logits, axis=-1), options.top)

    self._likeliest = model.jitted(likeliest)

  def read(self, fields: Mapping[str, Any]) -> Item:
    """The ids of "text", or of "inputs", with at least one mask."""
    text = rows.text_field(fields, 'text', 'inputs')
    tokenizer = self._tokenizer
    ids, _ = tokenizer.with_special_tokens(tokenizer.encode(text))
    places = np.flatnonzero(np.asarray(ids) == tokenizer.mask_id)
    if not len(places):
      mask = tokenizer.role_tokens().get('mask', '[MASK]')
      raise ValueError(f'no mask to fill: expected {mask} in the text')
    config = self._model.module.config
    longest = config.max_length - config.first_position - config.prompt_length
    if len(ids) > longest:
      raise ValueError(f'a text of {len(ids)} tokens: the model has positions for {longest}')
    return Item(np.asarray(ids, np.int32), {'text': text}, places)

  def run(self, items: Sequence[Item], length: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """For each mask the likeliest tokens and their probabilities; the text with the first of each."""
    config, tokenizer = self._model.module.config, self._tokenizer
    length = max(
      min(length, config.max_length - config.first_position - config.prompt_length),
      max(len(item.ids) for item in items),
    )
    ids = np.full((len(items), length), tokenizer.pad_id, np.int32)
    mask = np.zeros_like(ids)
    places = np.zeros((len(items), max(len(item.more) for item in items)), np.int32)
    for row, item in enumerate(items):
      ids[row, : len(item.ids)], mask[row, : len(item.ids)] = item.ids, 1
      places[row, : len(item.more)] = item.more
    batch = hf_call.batch_of(self._model.module, self._model.config, {'input_ids': ids, 'attention_mask': mask}, {})
    chances, tokens = self._likeliest(batch, places)
    found = []
    for row, item in enumerate(items):
      fills = [
        [
          {'token': tokenizer.decode([int(token)]).strip(), 'probability': round(float(chance), 6)}
          for token, chance in zip(tokens[row, place], chances[row, place], strict=True)
        ]
        for place in range(len(item.more))
      ]
      filled = item.ids.copy()
      filled[item.more] = tokens[row, : len(item.more), 0]
      special = set(tokenizer.special_ids().values())
      text = tokenizer.decode([token for token in filled.tolist() if token not in special])
      found.append({**item.shown, 'prediction': text, 'fills': fills})
    return found
