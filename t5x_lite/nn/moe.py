"""Mixture-of-experts MLP: a router sends every token to a few of many MLPs (Shazeer et al. 2017; Fedus et al. 2021).

Each row of the batch is a group of its own, as in GShard (Lepikhin et al. 2020): an expert takes at most
`capacity_factor` times its even share of a row's tokens, earlier tokens first, so that a causal model stays causal.
What finds no room passes by on the residual stream. Decoding through a cache reads one token at a time, which always
finds room; it equals the full forward pass where nothing is dropped there.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core import axes, products
from t5x_lite.core.logits import LAYER_LOSSES
from t5x_lite.nn.linear import Initializer
from t5x_lite.nn.mlp import activation

_EXPERT_TOKENS = (axes.ACT_EXPERT, axes.ACT_EXPERT_BATCH, None, axes.ACT_EMBED)


@dataclasses.dataclass(frozen=True)
class Routing:
  """How tokens find their experts.

  Attributes:
    num_experts: E.
    experts_per_token: experts that a token is sent to: 1 in Switch, 2 in GShard.
    capacity_factor: room of an expert, in even shares of a row's tokens.
    load_balancing_loss: weight of the loss that evens out the shares of the experts (Fedus et al. 2021, eq. 4).
    router_z_loss: weight of the squared log-partition of the router (Zoph et al. 2022, eq. 5).
  """

  num_experts: int
  experts_per_token: int = 1
  capacity_factor: float = 1.25
  load_balancing_loss: float = 0.01
  router_z_loss: float = 0.0

  def capacity(self, length: int) -> int:
    """Tokens of a row of `length` that an expert takes at most."""
    share = length * self.experts_per_token / self.num_experts
    return min(length, max(1, math.ceil(share * self.capacity_factor)))


def route(logits: jax.Array, valid: jax.Array, routing: Routing) -> tuple[jax.Array, jax.Array]:
  """Places of tokens in experts.

  Args:
    logits: of the router, float32 `[B, L, E]`.
    valid: bool `[B, L]`; padding is sent nowhere.
    routing: the rules.

  Returns:
    `(combine, load_balancing)`: float32 `[B, L, E, C]`, the gate of a token at its place in an expert, 0 elsewhere; and
    the load-balancing loss before its weight, a scalar that is 1 where all experts have even shares.
  """
  gates, real = jax.nn.softmax(logits, axis=-1), valid.astype(jnp.float32)
  experts, capacity = logits.shape[-1], routing.capacity(logits.shape[1])
  _, indices = jax.lax.top_k(gates, routing.experts_per_token)
  choices = jax.nn.one_hot(indices, experts, dtype=jnp.float32) * real[..., None, None]  # [B, L, choices, E]
  chosen = jnp.sum(choices, axis=2)
  # The place of a token is the number of tokens before it that chose this expert too.
  place = jnp.cumsum(chosen, axis=1) - chosen
  slot = jax.nn.one_hot(place.astype(jnp.int32), capacity, dtype=jnp.float32)  # all zero where there is no room
  kept = gates * chosen
  if routing.experts_per_token > 1:
    # The gates of a token's choices add up to one, dropped choices included (Lepikhin et al. 2020, algorithm 1).
    kept /= jnp.maximum(jnp.sum(kept, axis=-1, keepdims=True), 1e-9)
  count = jnp.maximum(jnp.sum(real), 1.0)
  shares = jnp.sum(choices[:, :, 0], axis=(0, 1)) / count
  means = jnp.sum(gates * real[..., None], axis=(0, 1)) / count
  return kept[..., None] * (slot * chosen[..., None]), experts * jnp.sum(shares * means)


class MixtureOfExperts(nn.Module):
  """E MLPs of the shape of `nn.mlp.MLP`, and their router; leaves its losses in the collection `LAYER_LOSSES`.

  Attributes:
    routing: how tokens find their experts.
    mlp_dim: width F of every expert.
    activations: as in `nn.mlp.MLP`.
    dropout_rate: dropout on the hidden layer.
    dtype: dtype of activations; the router works in float32.
    kernel_init: initialiser of the input projections, of one expert.
    out_init: initialiser of the output projection, of one expert.
  """

  routing: Routing
  mlp_dim: int
  activations: Sequence[str] = ('relu',)
  dropout_rate: float = 0.0
  dtype: Any = jnp.float32
  kernel_init: Initializer = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')
  out_init: Initializer = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')

  @nn.compact
  def __call__(self, x: jax.Array, *, valid: jax.Array | None = None, deterministic: bool = True) -> jax.Array:
    """Maps `[B, L, D]` to `[B, L, D]`; `valid` bool `[B, L]` tells what is not padding."""
    features = x.shape[-1]
    valid = jnp.ones(x.shape[:2], bool) if valid is None else valid
    kernel = self._kernel(
      'router', nn.initializers.normal(0.02), (features, self.routing.num_experts), (axes.EMBED, None)
    )
    logits = jnp.einsum('bld,de->ble', x.astype(jnp.float32), kernel)
    combine, load_balancing = route(logits, valid, self.routing)
    self._leave_losses(logits, valid, load_balancing)

    dispatch = (combine > 0).astype(self.dtype)
    inputs = jnp.einsum('blec,bld->ebcd', dispatch, x.astype(self.dtype))
    inputs = nn.with_logical_constraint(inputs, _EXPERT_TOKENS)
    parts = []
    for i, name in enumerate(self.activations):
      wi = self._experts('wi' if len(self.activations) == 1 else f'wi_{i}', self.kernel_init, (axes.EMBED, axes.MLP), x)
      parts.append(activation(name)(products.project_each(inputs, wi, self.dtype)))
    hidden = functools.reduce(operator.mul, parts)
    hidden = nn.Dropout(self.dropout_rate, name='dropout')(hidden, deterministic=deterministic)
    wo = self._experts('wo', self.out_init, (axes.MLP, axes.EMBED), x)
    outputs = nn.with_logical_constraint(products.project_each(hidden, wo, self.dtype), _EXPERT_TOKENS)
    return jnp.einsum('blec,ebcd->bld', combine.astype(self.dtype), outputs)

  def _leave_losses(self, logits: jax.Array, valid: jax.Array, load_balancing: jax.Array) -> None:
    self.sow(LAYER_LOSSES, 'load_balancing', self.routing.load_balancing_loss * load_balancing)
    if self.routing.router_z_loss:
      real = valid.astype(jnp.float32)
      square = jnp.sum(jnp.square(jax.nn.logsumexp(logits, axis=-1)) * real) / jnp.maximum(jnp.sum(real), 1.0)
      self.sow(LAYER_LOSSES, 'router_z', self.routing.router_z_loss * square)

  def _kernel(self, name: str, init: Initializer, shape: tuple[int, ...], names: tuple[str | None, ...]) -> jax.Array:
    return self.param(name, nn.with_logical_partitioning(init, names), shape, jnp.float32)

  def _experts(self, name: str, init: Initializer, names: tuple[str, str], x: jax.Array) -> jax.Array:
    """Kernels `[E, in, out]`, each initialised as one alone would be."""

    def each(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
      return jax.vmap(lambda own: init(own, shape[1:], dtype))(jax.random.split(key, shape[0]))

    sizes = {axes.EMBED: x.shape[-1], axes.MLP: self.mlp_dim}
    shape = (self.routing.num_experts, *(sizes[each_name] for each_name in names))
    return self._kernel(name, each, shape, (axes.EXPERT, *names))
