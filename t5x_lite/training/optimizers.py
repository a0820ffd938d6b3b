"""Optimisers, each a function of hyperparameters that gives an `optax.GradientTransformation`.

All take a learning rate or a schedule, and optionally clip the global norm of the gradient first (Pascanu et al. 2013);
the gradient is the accumulated one, of all microbatches. Weight decay, where there is any, is decoupled, and leaves
biases and norm scales alone.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from t5x_lite.core import errors, tree
from t5x_lite.training.adafactor import scale_by_factored_rms
from t5x_lite.training.schedules import Schedule

LearningRate = float | Schedule

# A layer of an unrolled stack, and what stands below the lowest layer.
_NUMBERED = re.compile(r'(?:^|/)layers_(\d+)/')
_EMBEDS = re.compile(r'^embeddings/|(?<!logits_dense/)embedding$|^mask_emb$')  # what is below all layers
_NOT_DECAYED = ('bias', 'scale')


def decayed(params: Any) -> Any:
  """A tree of bools: which parameters weight decay applies to: all but `scale`, `bias` and what ends in `_bias`."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: tree.path_name(path).rsplit('/', 1)[-1].rsplit('_', 1)[-1] not in _NOT_DECAYED, params
  )


def adafactor(
  learning_rate: LearningRate,
  *,
  beta1: float | None = None,
  decay_rate: float = 0.8,
  step_offset: int = 0,
  clipping_threshold: float | None = 1.0,
  multiply_by_parameter_scale: bool = True,
  weight_decay_rate: float | None = None,
  epsilon1: float = 1e-30,
  epsilon2: float = 1e-3,
  min_dim_size_to_factor: int = 128,
  max_grad_norm: float | None = None,
) -> optax.GradientTransformation:
  """T5X's Adafactor (Shazeer & Stern 2018); arguments as in `adafactor.scale_by_factored_rms`, and:

  Args:
    learning_rate: relative to the RMS of each parameter, unless `multiply_by_parameter_scale` is off.
    beta1: momentum of the finished update; None keeps none.
    weight_decay_rate: share of every parameter taken off at each step, whatever the learning rate, as T5X does.
    max_grad_norm: global norm the gradient is clipped to.
  """
  return _chain(
    max_grad_norm,
    scale_by_factored_rms(
      decay_rate=decay_rate,
      step_offset=step_offset,
      clipping_threshold=clipping_threshold,
      multiply_by_parameter_scale=multiply_by_parameter_scale,
      epsilon1=epsilon1,
      epsilon2=epsilon2,
      min_dim_size_to_factor=min_dim_size_to_factor,
    ),
    optax.scale_by_learning_rate(learning_rate, flip_sign=False),
    optax.ema(beta1, debias=False) if beta1 is not None else None,
    optax.add_decayed_weights(weight_decay_rate) if weight_decay_rate is not None else None,
    optax.scale(-1.0),
  )


def adamw(
  learning_rate: LearningRate,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.01,
  max_grad_norm: float | None = None,
  layer_decay: float | None = None,
) -> optax.GradientTransformation:
  """Adam with decoupled weight decay (Loshchilov & Hutter 2019), decay multiplied by the learning rate.

  Args:
    learning_rate: a number or a schedule.
    b1: decay of the first moment.
    b2: decay of the second.
    eps: added to its root.
    weight_decay: share of every parameter, but biases and norm scales, taken off at each step, times the rate.
    max_grad_norm: global norm the gradient is clipped to.
    layer_decay: the rate of every layer is that of the one above it times this d (Howard & Ruder 2018; Clark et al.
      2020): 1 for heads, d for the top layer, d^Y for the lowest of Y, d^(Y + 1) for embeddings. None: all alike.
  """
  return _chain(
    max_grad_norm,
    optax.chain(
      _scale_by_adam(b1, b2, eps),
      optax.add_decayed_weights(weight_decay, mask=decayed),
      optax.scale_by_learning_rate(learning_rate),
    ),
    None if layer_decay is None else _scale_by_depth(layer_decay),
  )


def sgd(
  learning_rate: LearningRate,
  *,
  momentum: float | None = None,
  nesterov: bool = False,
  max_grad_norm: float | None = None,
) -> optax.GradientTransformation:
  """Stochastic gradient descent."""
  return _chain(max_grad_norm, optax.sgd(learning_rate, momentum, nesterov))


def lion(
  learning_rate: LearningRate,
  *,
  b1: float = 0.9,
  b2: float = 0.99,
  weight_decay: float = 1e-3,
  max_grad_norm: float | None = None,
) -> optax.GradientTransformation:
  """Lion (Chen et al. 2023): the sign of an interpolated momentum."""
  return _chain(max_grad_norm, optax.lion(learning_rate, b1, b2, weight_decay=weight_decay, mask=decayed))


def lamb(
  learning_rate: LearningRate,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-6,
  weight_decay: float = 0.01,
  max_grad_norm: float | None = None,
) -> optax.GradientTransformation:
  """LAMB (You et al. 2020). Its trust ratio is that of each layer, under a scanned stack too."""
  return _chain(
    max_grad_norm,
    _scale_by_adam(b1, b2, eps),
    optax.add_decayed_weights(weight_decay, mask=decayed),
    _scale_by_layerwise_trust_ratio(),
    optax.scale_by_learning_rate(learning_rate),
  )


def depth_factors(params: Any, decay: float) -> Any:
  """What the updates of each parameter are multiplied by: a tree of floats, of stacked layers arrays `[Y, 1, ...]`."""
  leaves = tree.named_leaves(params)
  layers = [leaf.shape[0] for name, leaf in leaves.items() if tree.is_stacked(name)]
  numbered = {name: int(found[1]) for name in leaves if (found := _NUMBERED.search(name))}
  height = max((*layers, *(number + 1 for number in numbered.values())), default=0)

  def factor(path: tuple[Any, ...], leaf: Any) -> Any:
    name = tree.path_name(path)
    if tree.is_stacked(name):
      own = [decay ** (leaf.shape[0] - layer) for layer in range(leaf.shape[0])]
      return np.asarray(own, np.float32).reshape(-1, *([1] * (leaf.ndim - 1)))
    if name in numbered:
      return decay ** (height - numbered[name])
    return decay ** (height + 1) if _EMBEDS.search(name) else 1.0

  return jax.tree_util.tree_map_with_path(factor, params)


def _scale_by_depth(decay: float) -> optax.GradientTransformation:
  if not 0.0 < decay <= 1.0:
    raise errors.UsageError(f'layer_decay={decay}: expected more than 0 and at most 1')

  def scale(updates: Any, params: Any) -> Any:
    return jax.tree.map(lambda update, factor: update * factor, updates, depth_factors(updates, decay))

  return optax.stateless(scale)


def _scale_by_layerwise_trust_ratio() -> optax.GradientTransformation:
  """Multiplies each update by |parameter| / |update| (1 where either is 0), over each layer of a stack by itself."""

  def scale(path: tuple[Any, ...], update: jax.Array, param: jax.Array) -> jax.Array:
    own_axes = tuple(range(int(tree.is_stacked(tree.path_name(path))), param.ndim))
    param_norm, update_norm = (jnp.sqrt(jnp.sum(jnp.square(x), axis=own_axes, keepdims=True)) for x in (param, update))
    defined = (param_norm > 0) & (update_norm > 0)
    return update * jnp.where(defined, param_norm / jnp.where(defined, update_norm, 1.0), 1.0).astype(update.dtype)

  return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates, params))


def _scale_by_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
  """`optax.scale_by_adam`, with its state, but for how the bias is corrected.

  A division of every number by the same one is a multiplication by its inverse here. XLA leaves the division, and on a
  CPU it is what an update takes longest for: three divisions and a root for each parameter, instead of one and a root.
  """
  plain = optax.scale_by_adam(b1, b2, eps)

  def update(updates: Any, state: optax.ScaleByAdamState, params: Any = None) -> tuple[Any, optax.ScaleByAdamState]:
    del params
    mu = jax.tree.map(lambda g, m: (1 - b1) * g + b1 * m, updates, state.mu)
    nu = jax.tree.map(lambda g, v: (1 - b2) * jnp.square(g) + b2 * v, updates, state.nu)
    count = optax.safe_increment(state.count)
    for_mu, for_nu = (1 / (1 - b**count) for b in (b1, b2))
    scaled = jax.tree.map(lambda m, v: (m * for_mu) / (jnp.sqrt(v * for_nu) + eps), mu, nu)
    return scaled, optax.ScaleByAdamState(count, mu, nu)

  return optax.GradientTransformation(plain.init, update)


def _clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
  """`optax.clip_by_global_norm`, by one factor for all: it divides every number, which XLA fuses into nothing else."""

  def clip(updates: Any, params: Any) -> Any:
    del params
    factor = max_norm / jnp.maximum(optax.tree.norm(updates), max_norm)
    return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates)

  return optax.stateless(clip)


def _chain(max_grad_norm: float | None, *parts: optax.GradientTransformation | None) -> optax.GradientTransformation:
  """The parts that are not None, after clipping where there is a norm to clip to."""
  clip = _clip_by_global_norm(max_grad_norm) if max_grad_norm is not None else None
  chain = optax.chain(*(part for part in (clip, *parts) if part is not None))

  def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    # optax raises floats to the power of integer counts, which strict promotion would refuse.
    with jax.numpy_dtype_promotion('standard'):
      return chain.update(updates, state, params)

  return optax.GradientTransformation(chain.init, update)
