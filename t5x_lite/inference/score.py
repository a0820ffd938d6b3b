"""`infer --mode=score`: how likely a model finds a text, or targets after inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5x_lite.core import errors
from t5x_lite.core.batch import DECODER, ENCODER, INPUT_TOKENS, POSITIONS, SEGMENT_IDS, key
from t5x_lite.inference import modes, rows
from t5x_lite.inference.modes import Item, Options
from t5x_lite.pretrained import Pretrained


class Score:
  """See `modes.Mode`.

  An encoder-decoder scores "targets", their end included, for "inputs". A decoder scores "targets" behind "inputs", or
  a text behind the id that begins one, as lm-evaluation-harness does.

  Raises:
    UsageError: the model is neither.
  """

  field = 'text'
  columns = (
    'line',
    'text',
    'inputs',
    'targets',
    'log_likelihood',
    'num_tokens',
    'perplexity',
    'bits_per_byte',
    'token_log_likelihoods',
    'truncated',
    'error',
  )

  def __init__(self, model: Pretrained, options: Options):
    name = type(model.module).__name__
    if 'lm' not in model.module.config.heads or name not in ('T5', 'Gpt'):
      raise errors.UsageError(f'model {name} gives a text no likelihood: expected T5 or GPT with an lm head to score')
    self._model, self._options, self._tokenizer = model, options, modes.tokenizer_of(model)
    self._encodes = hasattr(model.module, 'encode')
    config = model.generation_config
    start = config.decoder_start_token_id if self._encodes else config.bos_token_id
    self._start = self._tokenizer.pad_id if start is None and self._encodes else start
    if self._start is None:
      self._start = self._tokenizer.eos_id

    def log_likelihoods(params: Any, batch: Mapping[str, jax.Array], targets: jax.Array) -> jax.Array:
      factored = model.module.apply({'params': params}, batch, deterministic=True, method='factored_logits')
      logits = factored.logits()
      chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
      return chosen - jax.nn.logsumexp(logits, axis=-1)

    self._score = model.jitted(log_likelihoods)

  def read(self, fields: Mapping[str, Any]) -> Item:
    """Ids of all that is read, and how many of the last are scored."""
    tokenizer = self._tokenizer
    if self._encodes:
      text = rows.text_field(fields, 'inputs')
      target = rows.text_field(fields, 'targets')
      ids, told = modes.cut(self._model.prompt_ids(text), self._options.max_input_length)
      targets, _ = tokenizer.with_special_tokens(tokenizer.encode(target))
      return Item(ids, {'inputs': text, 'targets': target}, (np.asarray(targets, np.int32), len(target.encode()), told))
    prompt = rows.text_field(fields, 'inputs') if 'inputs' in fields and 'targets' in fields else ''
    target = rows.text_field(fields, 'targets', 'text', 'inputs')
    before = [self._start, *tokenizer.encode(prompt)]
    targets = tokenizer.encode(prompt + target)[len(before) - 1 :] if prompt else tokenizer.encode(target)
    if not len(targets):
      raise ValueError('nothing to score: expected a text')
    ids = np.asarray([*before, *targets], np.int32)
    config = self._model.module.config
    longest = config.max_length - config.prompt_length if hasattr(config, 'max_length') else None
    if longest is not None and len(ids) - 1 > longest:
      raise ValueError(f'a text of {len(ids) - 1} tokens: the model has positions for {longest}')
    shown = {'inputs': prompt, 'targets': target} if prompt else {'text': target}
    return Item(ids, shown, (np.asarray(targets, np.int32), len(target.encode()), {}))

  def run(self, items: Sequence[Item], length: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Log-likelihood, perplexity by token, bits by byte."""
    scores = self._score(*self._batch(items, length))
    found = []
    for row, item in enumerate(items):
      targets, size, told = item.more
      end = len(targets) if self._encodes else len(item.ids) - 1
      each = np.asarray(scores[row, end - len(targets) : end], np.float64)
      total = float(each.sum())
      bits = {'bits_per_byte': round(-total / math.log(2) / size, 6)} if size else {}
      found.append(
        {
          **item.shown,
          'log_likelihood': round(total, 6),
          'num_tokens': len(targets),
          'perplexity': round(math.exp(min(-total / len(targets), 700.0)), 6),
          **bits,
          'token_log_likelihoods': [round(float(score), 6) for score in each],
          **told,
        }
      )
    return found

  def _batch(self, items: Sequence[Item], length: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    if not self._encodes:
      inputs = [item.ids[:-1] for item in items]
      targets = np.stack([_filled(item.ids[1:], length) for item in items])
      return _side(DECODER, inputs, length), targets
    from t5x_lite.generation import bucket

    longest = bucket(max(len(item.more[0]) for item in items))
    inputs = [np.concatenate([[self._start], item.more[0][:-1]]).astype(np.int32) for item in items]
    targets = np.stack([_filled(item.more[0], longest) for item in items])
    return _side(ENCODER, [item.ids for item in items], length) | _side(DECODER, inputs, longest), targets


def _filled(ids: np.ndarray, length: int) -> np.ndarray:
  return np.pad(ids, (0, length - len(ids))).astype(np.int32)


def _side(side: str, inputs: Sequence[np.ndarray], length: int) -> dict[str, np.ndarray]:
  tokens = np.stack([_filled(ids, length) for ids in inputs])
  segments = np.stack([_filled(np.ones(len(ids), np.int32), length) for ids in inputs])
  places = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
  return {key(side, INPUT_TOKENS): tokens, key(side, SEGMENT_IDS): segments, key(side, POSITIONS): places}
