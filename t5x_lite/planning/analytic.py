"""Memory and time of a step without a compiler: what a search ranks by before it compiles the best.

Rough, but right about what grows with what. Kept activations are traced with the model's own code; traffic of `fsdp`
and `data` follows from the shardings of the parameters, that of `tensor` and `sequence` from the shape of a layer.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from t5x_lite.core import batch as batch_lib
from t5x_lite.core import tree
from t5x_lite.partitioning import mesh as mesh_lib
from t5x_lite.partitioning import sharding
from t5x_lite.partitioning.rules import STANDARD_RULES, Rules
from t5x_lite.planning.chips import Topology
from t5x_lite.planning.memory import Memory, shard_bytes
from t5x_lite.planning.roofline import StepTime, seconds
from t5x_lite.training.learner import Learner, label_weights, objective_weights
from t5x_lite.training.steps import init_state

# FLOPs of a step in units of one without anything computed again (forward 1, backward 2).
_RECOMPUTED = {'none': 1.0, 'elementwise': 1.0, 'minimal': 1.05, 'full': 4 / 3}

Spec = Mapping[str, jax.ShapeDtypeStruct]


def remat_policy(learner: Learner) -> str:
  """The name of the policy of a learner's model."""
  return getattr(learner.module.config, 'remat_policy', 'none')


def with_choices(learner: Learner, policy: str, num_microbatches: int) -> Learner:
  """The learner with another remat policy and another number of microbatches."""
  module = learner.module
  if policy != remat_policy(learner):
    module = module.clone(config=dataclasses.replace(module.config, remat_policy=policy))
  return dataclasses.replace(learner, module=module, num_microbatches=num_microbatches)


@dataclasses.dataclass(frozen=True)
class Kept:
  """Bytes that one row of the batch leaves for the backward pass.

  Attributes:
    whole: of arrays that `tensor` does not cut.
    cut: of arrays that it cuts.
  """

  whole: float
  cut: float


class Estimator:
  """Estimates of one model on one batch, for any mesh.

  Args:
    learner: what is trained.
    spec: shapes of the global batch.
    flops: of a step, forward and backward.
    rules: logical axis -> mesh axes.
  """

  def __init__(self, learner: Learner, spec: Spec, flops: float, rules: Rules = STANDARD_RULES):
    self.learner, self.spec, self.flops, self.rules = learner, dict(spec), flops, rules
    self.rows = next(iter(spec.values())).shape[0]
    self._boxed = jax.eval_shape(functools.partial(init_state, learner, self.spec), np.uint32(0))
    self._state = nn.meta.unbox(self._boxed)
    self._kept: dict[str, Kept] = {}
    self._bytes: dict[tuple[int, ...], tuple[int, int]] = {}
    self.parameters = tree.count_parameters(self._state.params)

  def state_bytes(self, mesh: jax.sharding.Mesh) -> tuple[int, int]:
    """Bytes of parameters and of the optimiser's state on a device.

    Raises:
      UsageError: the mesh does not divide a parameter.
    """
    sizes = tuple(mesh.shape.values())
    if sizes not in self._bytes:
      params, opt_state = self._placed(mesh)
      self._bytes[sizes] = shard_bytes(params), shard_bytes(opt_state)
    return self._bytes[sizes]

  def _placed(self, mesh: jax.sharding.Mesh) -> tuple[Any, Any]:
    """Abstract parameters and optimiser state on a mesh."""
    places = sharding.param_shardings(self._boxed.params, mesh, self.rules)
    of_optimizer = sharding.optimizer_shardings(self._state.opt_state, self._state.params, places, mesh)

    def placed(leaf: Any, place: Any) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    params, opt_state = self._state.params, self._state.opt_state
    return jax.tree.map(placed, params, places), jax.tree.map(placed, opt_state, of_optimizer)

  def kept(self, policy: str) -> Kept:
    """What a row leaves under a policy: traced for one row and for two; the difference is what grows with the batch."""
    if policy not in self._kept:
      learner = with_choices(self.learner, policy, 1)
      one, two = (self._residuals(learner, rows) for rows in (1, 2))
      self._kept[policy] = Kept(max(two.whole - one.whole, 0.0), max(two.cut - one.cut, 0.0))
    return self._kept[policy]

  def _residuals(self, learner: Learner, rows: int) -> Kept:
    batch = {
      name: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype, sharding=None) for name, leaf in self.spec.items()
    }

    def residuals(params: Any, batch: Any) -> Any:
      weights, normalizer = objective_weights(batch, learner.loss_normalizing_factor)
      every = (weights, label_weights(batch, weights))
      return jax.vjp(lambda p: learner.loss(p, batch, every, normalizer, jax.random.key(0))[0], params)[1]

    whole = cut = 0.0
    lengths = self._cut_lengths()
    for leaf in jax.tree.leaves(jax.eval_shape(residuals, self._state.params, batch)):
      size = math.prod(leaf.shape) * _itemsize(leaf.dtype)
      if lengths.intersection(leaf.shape[1:]):
        cut += size
      else:
        whole += size
    return Kept(whole, cut)

  def _cut_lengths(self) -> set[int]:
    """Lengths of axes of activations that `tensor` cuts: heads, MLP width, vocabulary."""
    config = self.learner.module.config
    lengths = {config.num_heads, config.mlp_dim, config.vocab_size, config.num_heads * config.head_dim}
    return lengths - {config.emb_dim}

  def memory(self, mesh: jax.sharding.Mesh, policy: str, num_microbatches: int, limit: int | None) -> Memory:
    """The memory of a device in training."""
    parameters, optimizer = self.state_bytes(mesh)
    shape, layers = mesh.shape, self._num_layers()
    rows = self.rows / num_microbatches / (shape[mesh_lib.DATA] * shape[mesh_lib.FSDP] * shape[mesh_lib.EXPERT])

    def on_device(kept: Kept) -> float:
      return rows * (kept.whole + kept.cut / shape[mesh_lib.TENSOR]) / shape[mesh_lib.SEQUENCE]

    kept, everything = on_device(self.kept(policy)), on_device(self.kept('none'))
    of_layer = everything / layers
    gathered = parameters * shape[mesh_lib.FSDP] / layers * self._itemsize() / 4 if shape[mesh_lib.FSDP] > 1 else 0
    gradients = parameters * (1 if num_microbatches == 1 else 2)
    return Memory(parameters, optimizer, round(kept), round(of_layer + 2 * gathered + gradients), limit, estimated=True)

  def time(self, mesh: jax.sharding.Mesh, topology: Topology, policy: str, num_microbatches: int) -> StepTime:
    """The time of a training step."""
    chip, shape = topology.chip, mesh.shape
    parameters, optimizer = self.state_bytes(mesh)
    matmul = seconds(self.flops * _RECOMPUTED.get(policy, 1.0) / mesh.size, chip.peak_flops)
    everything = self.kept('none')
    per_row = everything.whole + everything.cut / shape[mesh_lib.TENSOR]
    batch_ways = shape[mesh_lib.DATA] * shape[mesh_lib.FSDP] * shape[mesh_lib.EXPERT]
    activations = self.rows / batch_ways * per_row / shape[mesh_lib.SEQUENCE]
    passes = 3 if policy == 'full' else 2
    gathered = parameters * shape[mesh_lib.FSDP] * self._itemsize() / 4
    traffic = num_microbatches * passes * gathered + 6 * parameters + 2 * optimizer + passes * activations
    memory = seconds(traffic, chip.memory_bandwidth)
    beside = self._seconds(topology, mesh, mesh_lib.FSDP, num_microbatches * 2 * gathered)
    after = self._seconds(topology, mesh, mesh_lib.FSDP, num_microbatches * parameters * shape[mesh_lib.FSDP])
    after += self._seconds(topology, mesh, mesh_lib.DATA, num_microbatches * 2 * parameters)
    hidden = self._hidden_bytes() / batch_ways / shape[mesh_lib.SEQUENCE] * self._num_layers()
    after += self._seconds(topology, mesh, mesh_lib.TENSOR, 2 * (2 + passes) * hidden)
    after += self._seconds(topology, mesh, mesh_lib.SEQUENCE, 2 * passes * hidden * shape[mesh_lib.SEQUENCE])
    return StepTime(matmul, memory, beside + after, max(matmul, memory, beside) + after)

  def _seconds(self, topology: Topology, mesh: jax.sharding.Mesh, axis: str, gathered: float) -> float:
    """Of a ring over an axis that sends an array of so many bytes once around."""
    size = mesh.shape[axis]
    return seconds(gathered * (size - 1) / size, topology.bandwidth(mesh, (axis,))) if size > 1 else 0.0

  def _num_layers(self) -> int:
    config = self.learner.module.config
    names = ('num_layers', 'num_encoder_layers', 'num_decoder_layers')
    return max(sum(getattr(config, name, 0) for name in names), 1)

  def _itemsize(self) -> int:
    return jnp.dtype(self.learner.module.config.dtype).itemsize

  def _hidden_bytes(self) -> float:
    """Of the residual stream of the whole batch between two layers, on the average of the stacks."""
    tokens = [math.prod(leaf.shape) for name, leaf in self.spec.items() if name.endswith(batch_lib.INPUT_TOKENS)]
    return sum(tokens) / len(tokens) * self.learner.module.config.emb_dim * self._itemsize()


def _itemsize(dtype: Any) -> int:
  """Bytes of an element; keys of random numbers are what JAX keeps under them."""
  return 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else jnp.dtype(dtype).itemsize
