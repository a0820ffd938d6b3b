"""Models that write: prompts are read in one pass, and the rest is `sampling` or `beam`, which know no model.

All of it is pure, to be jitted by the caller. A model that writes has the methods `init_cache` and
`decode_with_cache`, and `encode` if it is an encoder-decoder (see `models.t5`, `models.gpt`, `models.xlnet`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core.batch import ENCODER, INPUT_TOKENS, SEGMENT_IDS, Batch, key
from t5x_lite.decoding.beam import beam_search
from t5x_lite.decoding.config import Decoding, GenerationConfig
from t5x_lite.decoding.engine import Cache, Start, TokensToLogits, Written
from t5x_lite.decoding.sampling import sample
from t5x_lite.decoding.speculative import Draft, speculate
from t5x_lite.decoding.stopping import StopTable


class Assistant(NamedTuple):
  """A smaller model of the same kind and vocabulary, which drafts.

  Attributes:
    module: the model.
    params: its parameters.
  """

  module: nn.Module
  params: Any


def row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
  """A random key for each row, by the row's own number, int32 `[B]`: it is continued alike in any batch."""
  return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


def decode(
  tokens_to_logits: TokensToLogits,
  start: Start,
  decoding: Decoding,
  keys: jax.Array | None = None,
  draft: Draft | None = None,
) -> Written:
  """Writes by the options: greedily, by sampling, or by beam search.

  Args:
    tokens_to_logits: see `engine`.
    start: where to begin.
    decoding: the options.
    keys: of the rows, `[B]`; needed where `do_sample` is set.
    draft: of a smaller model, for one continuation of every row; None: each token is a pass.
  """
  if decoding.options.do_sample:
    assert keys is not None, 'sampling without keys'
  else:
    keys = None
  if draft is not None:
    return speculate(tokens_to_logits, start, draft, decoding, keys)
  method = sample if (decoding.options.num_beams or 1) == 1 else beam_search
  return method(tokens_to_logits, start, decoding, keys)


def write_from_encoder(
  module: nn.Module,
  params: Any,
  batch: Batch,
  prompt: jax.Array,
  decoding: Decoding,
  *,
  keys: jax.Array | None = None,
  stop: StopTable | None = None,
  assistant: Assistant | None = None,
) -> Written:
  """What an encoder-decoder writes.

  Args:
    module: the model.
    params: its parameters.
    batch: `encoder_input_tokens`, `encoder_segment_ids` and `encoder_positions`, int32 `[B, S]`, one example a row.
    prompt: what the decoder starts from, int32 `[B, P]`.
    decoding: the options.
    keys: see `decode`.
    stop: finds stop strings.
    assistant: drafts what this model judges (see `speculative`).
  """
  if assistant is not None:
    batch, prompt, keys = _each_alone(decoding, (dict(batch), prompt), keys)
  tokens, segments = batch[_TOKENS], batch[_SEGMENTS]

  def read(module: nn.Module, params: Any, branches: int) -> tuple[jax.Array, Cache]:
    variables = {'params': params}
    encoded = module.apply(variables, batch, method='encode')
    length = prompt.shape[1] + branches * (decoding.max_new - 1)
    cache = module.apply(variables, length, encoded, segments, method='init_cache')
    return module.apply(variables, prompt, cache, last_only=True, method='decode_with_cache')

  logits, cache = read(module, params, decoding.branches if assistant is None else 1)
  start = Start(logits[:, 0], prompt, cache, jnp.where(segments > 0, tokens, -1), stop)
  return _go_on(_step_of(module, params), start, decoding, keys, assistant, read)


def write_from_prompt(
  module: nn.Module,
  params: Any,
  tokens: jax.Array,
  segment_ids: jax.Array,
  decoding: Decoding,
  *,
  keys: jax.Array | None = None,
  stop: StopTable | None = None,
  bidirectional: bool = False,
  assistant: Assistant | None = None,
) -> Written:
  """How a decoder-only model goes on.

  Args:
    module: the model.
    params: its parameters.
    tokens: the prompts, int32 `[B, P]`, padded on the left.
    segment_ids: int32 `[B, P]`, 1, and 0 for padding.
    decoding: the options.
    keys: see `decode`.
    stop: finds stop strings.
    bidirectional: whether a prompt sees all of itself, as the prefix of a prefix LM does.
    assistant: drafts what this model judges (see `speculative`).
  """
  if assistant is not None:
    tokens, segment_ids, keys = _each_alone(decoding, (tokens, segment_ids), keys)
  rows, length = tokens.shape
  more = {'bidirectional': True} if bidirectional else {}

  def read(module: nn.Module, params: Any, branches: int) -> tuple[jax.Array, Cache]:
    variables = {'params': params}
    cache = _prompt_cache(module, variables, rows, length, decoding, branches)
    return module.apply(variables, tokens, cache, segment_ids, last_only=True, method='decode_with_cache', **more)

  logits, cache = read(module, params, decoding.branches if assistant is None else 1)
  start = Start(logits[:, 0], jnp.where(segment_ids > 0, tokens, -1), cache, stop=stop)
  return _go_on(_step_of(module, params), start, decoding, keys, assistant, read)


def generate_from_encoder(
  module: nn.Module, params: Any, batch: Batch, *, max_length: int, eos_id: int, num_tokens: int | None = None
) -> jax.Array:
  """Greedy output of an encoder-decoder model, int32 `[B, max_length]`, filled up with 0.

  Args:
    module: the model.
    params: its parameters.
    batch: `encoder_input_tokens` and `encoder_segment_ids`, int32 `[B, S]`, one example a row.
    max_length: number of tokens written at most.
    eos_id: the token that ends a row; it is part of the output.
    num_tokens: size of the tokenizer's vocabulary, where the model has more rows than that.
  """
  prompt = jnp.zeros((batch[_TOKENS].shape[0], 1), jnp.int32)
  return write_from_encoder(module, params, batch, prompt, _greedy(1, max_length, eos_id, num_tokens)).tokens[:, 0]


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
  """Greedy continuation by a decoder-only model, int32 `[B, max_length]`, filled up with 0.

  Args:
    module: the model.
    params: its parameters.
    tokens: the prompts, int32 `[B, P]`, padded on the left.
    segment_ids: int32 `[B, P]`, 1, and 0 for padding.
    max_length: number of tokens written at most, at least 1.
    eos_id: the token that ends a row.
    num_tokens: size of the tokenizer's vocabulary, where the model has more rows than that.
    bidirectional: whether a prompt sees all of itself, as the prefix of a prefix LM does.
  """
  decoding = _greedy(tokens.shape[1], max_length, eos_id, num_tokens)
  written = write_from_prompt(module, params, tokens, segment_ids, decoding, bidirectional=bidirectional)
  return written.tokens[:, 0]


_TOKENS, _SEGMENTS = key(ENCODER, INPUT_TOKENS), key(ENCODER, SEGMENT_IDS)


def _greedy(prompt: int, new: int, eos_id: int, num_tokens: int | None) -> Decoding:
  options = GenerationConfig(max_new_tokens=new)
  return Decoding(options.complete(prompt).options, prompt == 1, new, 0, (eos_id,), 0, num_tokens)


def _prompt_cache(module: Any, variables: Any, rows: int, length: int, decoding: Decoding, branches: int) -> Cache:
  """An empty cache, exactly as long as it must be: the token written last is never read."""
  more = {}
  if branches > 1 and getattr(module, 'SHARES_PROMPTS', False):
    more = {'prompt_length': length, 'branches': branches}
  return module.apply(variables, rows, length + decoding.max_new - 1, method='init_cache', **more)


def _each_alone(decoding: Decoding, arrays: tuple[Any, Any], keys: jax.Array | None) -> tuple[Any, Any, Any]:
  """Inputs and keys with a row for each continuation: what is drafted for one says nothing of another."""
  count = decoding.returned
  first, second = jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), arrays)
  if keys is not None:
    keys = jax.vmap(lambda key: row_keys(key, jnp.arange(count, dtype=jnp.int32)))(keys).reshape(-1)
  return first, second, keys


def _go_on(
  step: TokensToLogits,
  start: Start,
  decoding: Decoding,
  keys: jax.Array | None,
  assistant: Assistant | None,
  read: Callable[[nn.Module, Any, int], tuple[jax.Array, Cache]],
) -> Written:
  """What follows a prompt that was read; `read` has another model read it."""
  if assistant is None:
    return decode(step, start, decoding, keys)
  _, cache = read(*assistant, 1)
  written = decode(step, start, decoding, keys, Draft(_step_of(*assistant), cache))
  # The continuations of every row side by side again.
  return jax.tree.map(lambda leaf: leaf.reshape(-1, decoding.returned, *leaf.shape[2:]), written)


def _step_of(module: Any, params: Any) -> TokensToLogits:
  def tokens_to_logits(tokens: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
    return module.apply({'params': params}, tokens, cache, method='decode_with_cache')

  return tokens_to_logits
