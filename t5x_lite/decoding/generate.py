"""Writing a sequence, token by token, through the KV cache.

Beam search and sampling will stand beside `greedy`; all take a `tokens_to_logits` callable, never a model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core.batch import Batch

TokensToLogits = Callable[[jax.Array, Any], tuple[jax.Array, Any]]


def greedy(
  tokens_to_logits: TokensToLogits,
  cache: Any,
  *,
  batch_size: int,
  max_length: int,
  eos_id: int,
  start: int | jax.Array = 0,
  pad_id: int = 0,
  num_tokens: int | None = None,
) -> jax.Array:
  """Takes the likeliest token at every step, until every row has ended or `max_length` tokens are written.

  Args:
    tokens_to_logits: from int32 tokens `[B, 1]` and a cache to float32 logits `[B, 1, V]` and the next cache.
    cache: the cache before the first token.
    batch_size: B.
    max_length: number of tokens written at most.
    eos_id: the token that ends a row; it is part of the output.
    start: the first token read, one for all rows or int32 `[B, 1]`.
    pad_id: what follows the end of a row.
    num_tokens: ids from here on are never written: rows of the embedding table that no token stands for.

  Returns:
    int32 `[B, max_length]`.
  """

  def unfinished(carry: tuple[Any, ...]) -> jax.Array:
    step, _, _, ended, _ = carry
    return (step < max_length) & ~jnp.all(ended)

  def write_one(carry: tuple[Any, ...]) -> tuple[Any, ...]:
    step, last, written, ended, cache = carry
    logits, cache = tokens_to_logits(last, cache)
    token = jnp.argmax(logits[:, 0, :num_tokens], axis=-1).astype(jnp.int32)
    token = jnp.where(ended, pad_id, token)
    written = jax.lax.dynamic_update_slice(written, token[:, None], (0, step))
    return step + 1, token[:, None], written, ended | (token == eos_id), cache

  first = jnp.broadcast_to(jnp.asarray(start, jnp.int32), (batch_size, 1))
  written = jnp.full((batch_size, max_length), pad_id, jnp.int32)
  ended = jnp.zeros((batch_size,), bool)
  carry = (jnp.zeros((), jnp.int32), first, written, ended, cache)
  return jax.lax.while_loop(unfinished, write_one, carry)[2]


def generate_from_encoder(
  module: nn.Module, params: Any, batch: Batch, *, max_length: int, eos_id: int, num_tokens: int | None = None
) -> jax.Array:
  """Greedy output of an encoder-decoder model, int32 `[B, max_length]`; a pure function, to be jitted by the caller.

  Args:
    module: a model with the methods `encode`, `init_cache` and `decode_with_cache` (see `models.t5`).
    params: its parameters.
    batch: `encoder_input_tokens` and `encoder_segment_ids`, int32 `[B, S]`, one example a row.
    max_length: number of tokens written at most.
    eos_id: the token that ends a row.
    num_tokens: size of the tokenizer's vocabulary, where the model has more rows than that.
  """
  variables = {'params': params}
  encoded = module.apply(variables, batch, method='encode')
  cache = module.apply(variables, max_length, encoded, batch['encoder_segment_ids'], method='init_cache')

  def tokens_to_logits(tokens: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
    return module.apply(variables, tokens, cache, method='decode_with_cache')

  return greedy(
    tokens_to_logits,
    cache,
    batch_size=encoded.shape[0],
    max_length=max_length,
    eos_id=eos_id,
    num_tokens=num_tokens,
  )


def generate_from_prompt(
  module: nn.Module,
  params: Any,
  tokens: jax.Array,
  segment_ids: jax.Array,
  *,
  max_length: int,
  eos_id: int,
  num_tokens: int | None = None,
  bidirectional: bool = False,
) -> jax.Array:
  """Greedy continuation by a decoder-only model, int32 `[B, max_length]`; a pure function, to be jitted by the caller.

  Args:
    module: a model with the methods `init_cache` and `decode_with_cache` (see `models.gpt`).
    params: its parameters.
    tokens: the prompts, int32 `[B, P]`, padded on the left.
    segment_ids: int32 `[B, P]`, 1, and 0 for padding.
    max_length: number of tokens written at most, at least 1.
    eos_id: the token that ends a row.
    num_tokens: size of the tokenizer's vocabulary, where the model has more rows than that.
    bidirectional: whether a prompt sees all of itself, as the prefix of a prefix LM does.
  """
  variables = {'params': params}
  rows, length = tokens.shape
  cache = module.apply(variables, rows, length + max_length - 1, method='init_cache')
  logits, cache = module.apply(
    variables, tokens, cache, segment_ids, bidirectional=bidirectional, method='decode_with_cache'
  )
  first = jnp.argmax(logits[:, -1, :num_tokens], axis=-1).astype(jnp.int32)[:, None]
  if max_length == 1:
    return first

  def tokens_to_logits(tokens: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
    return module.apply(variables, tokens, cache, method='decode_with_cache')

  rest = greedy(
    tokens_to_logits,
    cache,
    batch_size=rows,
    max_length=max_length - 1,
    eos_id=eos_id,
    start=first,
    num_tokens=num_tokens,
  )
  return jnp.concatenate([first, jnp.where(first == eos_id, 0, rest)], axis=1)
