"""Dropout masks of attention weights, made of the place of a weight alone, so that any part of one can be made anew.

A kernel that works in blocks needs the mask of each block twice, forward and backward, in blocks of another shape
maybe; and the mask must not depend on how many devices share the work. So it is a hash of the seed and of row, head,
query and key: the finaliser of MurmurHash3 (Appleby 2011), whose every output bit depends on every input bit.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_BITS = 24  # of the hash that are compared with the rate


def seeds(dropout_key: jax.Array) -> jax.Array:
  """int32 `[2]` of a key."""
  return jax.lax.bitcast_convert_type(jax.random.bits(dropout_key, (2,), jnp.uint32), jnp.int32)


def keep(
  seed: tuple[jax.Array, jax.Array], head: jax.Array, query: jax.Array, key: jax.Array, dropout_rate: float
) -> jax.Array:
  """Which weights stay, bool of the broadcast shape of the three places.

  Args:
    seed: two int32 scalars.
    head: int32, number of the head among all heads of all rows.
    query: int32, row index of the query.
    key: int32, row index of the key.
    dropout_rate: the share that goes.
  """
  first, second = seed
  of_key = _mixed(key * jnp.int32(-1640531535) + _mixed(head ^ first))
  of_query = _mixed(query * jnp.int32(-2048144789) ^ second)
  bits = jax.lax.shift_right_logical(_mixed(of_key + of_query), jnp.int32(32 - _BITS))
  return bits >= jnp.int32(round(dropout_rate * 2**_BITS))


def _mixed(x: jax.Array) -> jax.Array:
  """The finaliser of MurmurHash3 on int32, whose products wrap around."""
  x = x ^ _shifted(x, 16)
  x = x * jnp.int32(-2048144789)
  x = x ^ _shifted(x, 13)
  x = x * jnp.int32(-1028477387)
  return x ^ _shifted(x, 16)


def _shifted(x: jax.Array, bits: int) -> jax.Array:
  return jax.lax.shift_right_logical(x, jnp.full_like(x, bits))
