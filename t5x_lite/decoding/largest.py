"""The largest scores of a vocabulary, found in chunks of it on a CPU.

There `jax.lax.top_k` sorts indices of all that it is given and `jnp.argmax` compares pairs, one after the other; a
maximum is taken of many numbers at once. So first comes the maximum of every chunk. The k largest lie in those k chunks
whose maxima are largest: of any other chunk, each entry has k before it. Of equal numbers the first counts, as there.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

_LEAST = 1024  # fewer are not worth it


def top_k(x: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
  """The `count` largest of `[..., V]` and their places, int32: `jax.lax.top_k`."""
  chunk = _chunk(x.shape[-1], count)
  if chunk * count >= x.shape[-1] // 2:
    return _top_k(x, count)
  return jax.lax.platform_dependent(
    x, cpu=lambda x: _top_k_in_chunks(x, count, chunk), default=lambda x: _top_k(x, count)
  )


def argmax(x: jax.Array) -> jax.Array:
  """The place of the largest of `[..., V]`, int32: `jnp.argmax`."""
  chunk = _chunk(x.shape[-1], 1)
  if x.shape[-1] < _LEAST:
    return _argmax(x)
  return jax.lax.platform_dependent(x, cpu=lambda x: _argmax_in_chunks(x, chunk), default=_argmax)


def _top_k(x: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
  best, places = jax.lax.top_k(x, count)
  return best, places


def _argmax(x: jax.Array) -> jax.Array:
  return jnp.argmax(x, axis=-1).astype(jnp.int32)


def _chunk(size: int, count: int) -> int:
  """Entries of a chunk: about as many chunks as entries of those that are looked at."""
  return 1 << max(0, round(math.log2(math.sqrt(size / count))))


def _in_chunks(x: jax.Array, chunk: int) -> jax.Array:
  """`[..., V]` as `[..., C, chunk]`, filled up with -inf."""
  fill = [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % chunk)]
  return jnp.pad(x, fill, constant_values=-jnp.inf).reshape(*x.shape[:-1], -1, chunk)


def _top_k_in_chunks(x: jax.Array, count: int, chunk: int) -> tuple[jax.Array, jax.Array]:
  chunks = _in_chunks(x, chunk)
  # In their order, so that the first of equal numbers is still the first.
  chosen = jnp.sort(jax.lax.top_k(jnp.max(chunks, axis=-1), count)[1], axis=-1)
  candidates = jnp.take_along_axis(chunks, chosen[..., None], axis=-2)
  best, places = jax.lax.top_k(candidates.reshape(*x.shape[:-1], -1), count)
  return best, jnp.take_along_axis(chosen, places // chunk, axis=-1) * chunk + places % chunk


def _argmax_in_chunks(x: jax.Array, chunk: int) -> jax.Array:
  chunks = _in_chunks(x, chunk)
  chosen = _argmax(jnp.max(chunks, axis=-1))
  candidates = jnp.take_along_axis(chunks, chosen[..., None, None], axis=-2)[..., 0, :]
  return chosen * chunk + _argmax(candidates)
