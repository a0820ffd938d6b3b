"""The gradient of the residual stream: the same numbers, and on a CPU added up once for each sub-layer."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np

from t5x_lite.nn.residual import added_up
from t5x_lite.partitioning.mesh import MeshShape, make_mesh

DEPTH = 6


def stream(x, *, hold=True):
  """A stack of sub-layers that are cheap enough to be fused into one another."""
  for i in range(DEPTH):
    x = x + jnp.sin(x * (i + 1))
    x = added_up(x) if hold else x
  return jnp.sum(x * x)


def test_gradients_are_those_without_it_and_nan_stays_nan():
  x = jax.random.normal(jax.random.key(0), (2, 3, 4))
  got, expected = jax.jit(jax.grad(stream))(x), jax.jit(jax.grad(lambda x: stream(x, hold=False)))(x)
  np.testing.assert_allclose(got, expected, rtol=1e-6)
  for place in ((0, 0, 0), (1, 2, 3)):
    found = jax.jit(jax.grad(stream))(x.at[place].set(jnp.nan))
    assert jnp.isnan(found[place])


def test_each_sub_layer_has_its_own_sum_on_one_cpu_device_and_no_device_waits_for_another():
  def loops(text):
    return len(re.findall(r' while\(', text))

  x = jnp.ones((2, 4, 8))
  one = jax.jit(jax.grad(stream)).lower(x).compile().as_text()
  assert loops(one) == DEPTH and loops(jax.jit(stream).lower(x).compile().as_text()) == 0
  mesh = make_mesh(MeshShape(2), jax.devices()[:2])
  rows = jax.NamedSharding(mesh, jax.P('data'))
  with jax.set_mesh(mesh):
    two = jax.jit(jax.grad(stream), in_shardings=rows, out_shardings=rows).lower(x).compile().as_text()
  assert loops(two) == 0 and not re.search(r'all-(reduce|gather)', two)
