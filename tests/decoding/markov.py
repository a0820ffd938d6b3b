"""A model that is a table: the logits of a token depend on the one before it alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from t5x_lite.decoding.config import Decoding, GenerationConfig
from t5x_lite.decoding.engine import Start, Written
from t5x_lite.decoding.generate import decode, row_keys


class Nothing(struct.PyTreeNode):
  """A cache of what need not be remembered."""

  def branch(self, count, prompt_length):
    return self

  def reordered(self, chosen):
    return self


def decoding_of(eos=(), pad=0, num_tokens=None, prompt=2, **options: Any) -> Decoding:
  config = GenerationConfig(eos_token_id=tuple(eos) or None, pad_token_id=pad, **options)
  return dataclasses.replace(config.complete(prompt), num_tokens=num_tokens)


def write(table: np.ndarray, prompts: np.ndarray, decoding: Decoding, *, seed=0, stop=None, rows=None) -> Written:
  """What is written after prompts `[B, P]` by logits `[V, V]`."""

  @jax.jit
  def run(table, prompts, key, rows):
    def tokens_to_logits(tokens, cache):
      return table[tokens], cache

    start = Start(table[prompts[:, -1]], prompts, Nothing(), stop=stop)
    return decode(tokens_to_logits, start, decoding, row_keys(key, rows))

  rows = jnp.arange(len(prompts)) if rows is None else jnp.asarray(rows)
  return jax.tree.map(np.asarray, run(table, prompts, jax.random.key(seed), rows))


def random_table(seed: int, size: int = 9, scale: float = 2.0) -> np.ndarray:
  return (scale * np.random.default_rng(seed).normal(size=(size, size))).astype(np.float32)


def path_score(table: np.ndarray, last: int, path) -> float:
  """The log-probability of a path after a token."""
  total = 0.0
  for token in path:
    logits = table[last].astype(np.float64)
    total += logits[token] - np.log(np.exp(logits).sum())
    last = token
  return total
