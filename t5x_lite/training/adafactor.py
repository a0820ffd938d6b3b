"""Adafactor (Shazeer & Stern 2018) with T5X's semantics, layer by layer under a scanned stack.

T5X's numbers, and their order: second moments decay as 1 - t^-0.8; a kernel whose two dimensions are both 128 or more
keeps row and column means only; the update is clipped to RMS 1 and scaled by learning rate and by the parameter's own
RMS.

Under a module called `layers` the leading axis counts layers. It is a batch axis here: never factored, and every layer
has its own clipping and its own scale, so that a scanned stack trains as the unrolled one does. optax's Adafactor takes
RMS over whole leaves and would factor a stack as [layers, ...]; hence this file.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from t5x_lite.core import tree


class FactoredState(NamedTuple):
  """Second moments, float32, as trees like the parameters. What a parameter does not need is zeros of shape [1].

  Attributes:
    step: number of updates so far, int32.
    v_row: means over the last dimension, of factored parameters.
    v_col: means over the last dimension but one, of factored parameters.
    v: the full second moment, of the others.
  """

  step: jax.Array
  v_row: Any
  v_col: Any
  v: Any


def is_factored(shape: tuple[int, ...], stacked: bool, min_dim_size: int) -> bool:
  """Whether a parameter keeps row and column means: both its last dimensions (layers aside) are large enough."""
  dims = shape[1:] if stacked else shape
  return len(dims) >= 2 and min(dims[-2:]) >= min_dim_size


def scale_by_factored_rms(
  decay_rate: float = 0.8,
  step_offset: int = 0,
  clipping_threshold: float | None = 1.0,
  multiply_by_parameter_scale: bool = True,
  epsilon1: float = 1e-30,
  epsilon2: float = 1e-3,
  min_dim_size_to_factor: int = 128,
) -> optax.GradientTransformation:
  """Adafactor without learning rate, momentum and weight decay: normalise, clip, scale by the parameter.

  Args:
    decay_rate: second moments of update t = 1, 2, ... decay by 1 - t^-decay_rate.
    step_offset: number of updates to take off t, which is at least 1. Where fine-tuning starts second moments afresh,
      their updates are counted afresh too, and 0 is right: T5X, which counts the run's steps, wants its first one.
    clipping_threshold: largest RMS of a parameter's update before it is scaled; None: not clipped.
    multiply_by_parameter_scale: whether to multiply by the RMS of the parameter.
    epsilon1: added to squared gradients.
    epsilon2: least value of the RMS of a parameter.
    min_dim_size_to_factor: least size of both dimensions of a factored kernel.
  """

  def init(params: Any) -> FactoredState:
    def zeros(path: tuple[Any, ...], param: jax.Array, kind: str) -> jax.Array:
      factored = is_factored(param.shape, tree.is_stacked(tree.path_name(path)), min_dim_size_to_factor)
      shapes = {'v_row': param.shape[:-1], 'v_col': param.shape[:-2] + param.shape[-1:], 'v': param.shape}
      return jnp.zeros(shapes[kind] if factored == (kind != 'v') else (1,), jnp.float32)

    moments = {
      k: jax.tree_util.tree_map_with_path(lambda p, x, k=k: zeros(p, x, k), params) for k in ('v_row', 'v_col', 'v')
    }
    return FactoredState(step=jnp.zeros((), jnp.int32), **moments)

  def update(grads: Any, state: FactoredState, params: Any = None) -> tuple[Any, FactoredState]:
    assert params is not None, 'Adafactor scales by the parameters: pass them to update()'
    t = jnp.maximum(state.step + 1 - step_offset, 1).astype(jnp.float32)
    decay = 1.0 - t**-decay_rate

    def update_leaf(path: tuple[Any, ...], grad: jax.Array, param: jax.Array, *moments: jax.Array) -> tuple:
      stacked = tree.is_stacked(tree.path_name(path))
      factored = is_factored(param.shape, stacked, min_dim_size_to_factor)
      grad, param = grad.astype(jnp.float32), param.astype(jnp.float32)
      out, moments = _normalise(grad, moments, decay, factored, epsilon1)
      own_axes = tuple(range(int(stacked), param.ndim))
      if clipping_threshold is not None:
        out /= jnp.maximum(1.0, _rms(out, own_axes) / clipping_threshold)
      if multiply_by_parameter_scale:
        out *= jnp.maximum(_rms(param, own_axes), epsilon2)
      return out, *moments

    out = jax.tree_util.tree_map_with_path(update_leaf, grads, params, state.v_row, state.v_col, state.v)
    updates, v_row, v_col, v = jax.tree.transpose(jax.tree.structure(grads), jax.tree.structure((0,) * 4), out)
    return updates, FactoredState(optax.safe_increment(state.step), v_row, v_col, v)

  return optax.GradientTransformation(init, update)


def _normalise(
  grad: jax.Array, moments: tuple[jax.Array, ...], decay: jax.Array, factored: bool, epsilon1: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
  """`(grad / sqrt(second moment), new (v_row, v_col, v))`, all float32."""
  v_row, v_col, v = moments
  square = jnp.square(grad) + epsilon1
  if not factored:
    v = decay * v + (1.0 - decay) * square
    return grad * v**-0.5, (v_row, v_col, v)
  v_row = decay * v_row + (1.0 - decay) * jnp.mean(square, axis=-1)
  v_col = decay * v_col + (1.0 - decay) * jnp.mean(square, axis=-2)
  row_factor = (v_row / jnp.mean(v_row, axis=-1, keepdims=True)) ** -0.5
  return grad * row_factor[..., :, None] * (v_col**-0.5)[..., None, :], (v_row, v_col, v)


def _rms(x: jax.Array, own_axes: tuple[int, ...]) -> jax.Array:
  """Root mean square over these axes, which stay as axes of size 1."""
  return jnp.sqrt(jnp.mean(jnp.square(x), axis=own_axes, keepdims=True))
