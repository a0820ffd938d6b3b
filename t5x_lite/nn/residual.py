"""Where the gradient of the residual stream is added up, once for each sub-layer.

What a pre-norm block adds to the stream has a gradient that is the sum of all that later blocks contribute. XLA's CPU
backend takes additions to be so cheap that it fuses them into whoever reads the sum: where layers are unrolled, each of
them adds up all later ones again, and the step's work grows with the square of its depth (a fifth of the time of a step
of GPT-2 124M). It neither heeds `optimization_barrier` there, nor fuses across a loop: one that goes round no time
keeps the sum.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


@jax.custom_vjp
def added_up(x: jax.Array) -> jax.Array:
  """`x`, whose gradient is an array of its own on a CPU of one device; elsewhere that is left to the compiler."""
  return x


def _hold(dx: jax.Array) -> jax.Array:
  first = dx[(0,) * dx.ndim]
  rounds = jnp.isnan(first).astype(jnp.int32)  # The compiler cannot know that it is 0; and if not, let all be NaN.
  _, held = jax.lax.while_loop(lambda carry: carry[0] > 0, lambda carry: (carry[0] - 1, carry[1] + first), (rounds, dx))
  return held


def _backward(residuals: None, dx: jax.Array) -> tuple[jax.Array]:
  mesh = jax.sharding.get_abstract_mesh()
  if not mesh.empty and mesh.size > 1:
    return (dx,)  # To look at one number of it, all devices would have to wait for each other.
  return (jax.lax.platform_dependent(dx, cpu=_hold, default=lambda dx: dx),)


added_up.defvjp(lambda x: (x, None), _backward)
