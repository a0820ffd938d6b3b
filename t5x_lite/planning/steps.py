"""Compiles the real steps of a run for devices that need not be there, and says what they will need."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from t5x_lite.core import errors, tree
from t5x_lite.core.batch import DECODER, ENCODER, INPUT_TOKENS, POSITIONS, SEGMENT_IDS, key
from t5x_lite.decoding.generate import generate_from_encoder, generate_from_prompt
from t5x_lite.partitioning import sharding
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.planning import analytic, hlo, roofline
from t5x_lite.planning.chips import Topology
from t5x_lite.planning.collectives import Collective, collectives
from t5x_lite.planning.costs import costs
from t5x_lite.planning.memory import Memory, compiled_memory, needed_bytes, shard_bytes
from t5x_lite.planning.roofline import StepTime
from t5x_lite.training.learner import Learner
from t5x_lite.training.steps import Trainer

STEPS = ('train', 'eval', 'decode')

_LEAST_EFFORT = {'exec_time_optimization_effort': -1.0}

_EOS = 1  # Any id would do: which one ends a row changes nothing in the program's shapes.

Spec = Mapping[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True)
class Plan:
  """What one step needs on one topology.

  Attributes:
    step: one of `STEPS`.
    topology: the devices.
    shape: of the mesh, as it was asked for.
    mesh: size of every mesh axis, over all slices.
    remat_policy: of the model.
    num_microbatches: of the training step.
    parameters: of the model.
    flops_per_step: of the model for the global batch, analytic: forward and backward for a training step.
    memory: of a device.
    collectives: of the program; empty where it did not fit, and was not finished.
    time: by the roofline.
    compile_seconds: that tracing and compiling took here; None: it was not compiled, and memory and time are estimates.
    compiled: whether the compiler was done with it: not where it gave up for want of memory.
  """

  step: str
  topology: Topology
  shape: MeshShape
  mesh: Mapping[str, int]
  remat_policy: str
  num_microbatches: int
  parameters: int
  flops_per_step: float
  memory: Memory
  collectives: Sequence[Collective]
  time: StepTime
  compile_seconds: float | None
  compiled: bool

  @property
  def fits(self) -> bool:
    """Whether a device has room for it."""
    return self.memory.fits and (self.compiled or self.compile_seconds is None)

  @property
  def num_devices(self) -> int:
    """How many devices there are."""
    return len(self.topology.devices)

  @property
  def mfu(self) -> float | None:
    """Model FLOPs utilisation at the time of the roofline: an upper bound."""
    return roofline.mfu(self.flops_per_step, self.time, self.topology.chip, self.num_devices)


class Planner:
  """Plans of one model on one batch and one topology.

  Args:
    learner: what is trained.
    spec: shapes of the global batch.
    topology: the devices.
    step: one of `STEPS`.
    offload_optimizer: whether the optimiser's state waits in the host's memory.
    quick: whether the compiler is to take the least effort: the same operations and collectives and nearly the same
      memory, but a slower program, so that the time is an upper bound.

  Raises:
    UsageError: no such step, or the model does not write, and is to decode.
  """

  def __init__(
    self,
    learner: Learner,
    spec: Spec,
    topology: Topology,
    step: str = 'train',
    *,
    offload_optimizer: bool = False,
    quick: bool = False,
  ):
    if step not in STEPS:
      raise errors.unknown('step', step, STEPS)
    if step == 'decode' and not hasattr(learner.module, 'decode_with_cache'):
      raise errors.UsageError(
        f'model {type(learner.module).__name__} writes no tokens one by one: expected --step=train or --step=eval'
      )
    self.learner, self.spec, self.topology, self.step = learner, dict(spec), topology, step
    self.offload_optimizer, self.quick = offload_optimizer, quick
    self.training_flops = learner.module.flops_per_step(spec)
    self._estimator: analytic.Estimator | None = None
    self._meshes: dict[MeshShape, jax.sharding.Mesh] = {}

  @property
  def estimator(self) -> analytic.Estimator:
    """Estimates without a compiler."""
    if self._estimator is None:
      self._estimator = analytic.Estimator(self.learner, self.spec, self.training_flops)
    return self._estimator

  @property
  def flops(self) -> float:
    """Of a step: a training step is three times its forward pass, and decoding multiplies as much as that pass."""
    return self.training_flops if self.step == 'train' else self.training_flops / 3

  def _mesh(self, shape: MeshShape) -> jax.sharding.Mesh:
    if shape not in self._meshes:
      self._meshes[shape] = make_mesh(shape, self.topology.devices)
    return self._meshes[shape]

  def estimate(self, shape: MeshShape, policy: str, num_microbatches: int) -> Plan:
    """The plan of a training step as it is estimated.

    Raises:
      UsageError: the mesh does not divide the devices, the batch or a parameter.
    """
    mesh, estimator = self._mesh(shape), self.estimator
    sharding.check_batch(estimator.rows, mesh, estimator.rules, num_microbatches=num_microbatches)
    memory = estimator.memory(mesh, policy, num_microbatches, self.topology.chip.memory_bytes)
    if self.offload_optimizer:
      memory = dataclasses.replace(memory, optimizer=0)
    return Plan(
      step='train',
      topology=self.topology,
      shape=shape,
      mesh=dict(mesh.shape),
      remat_policy=policy,
      num_microbatches=num_microbatches,
      parameters=estimator.parameters,
      flops_per_step=self.flops,
      memory=memory,
      collectives=(),
      time=estimator.time(mesh, self.topology, policy, num_microbatches),
      compile_seconds=None,
      compiled=False,
    )

  def compile(self, shape: MeshShape, policy: str | None = None, num_microbatches: int | None = None) -> Plan:
    """The plan of a step as the compiler has it.

    Args:
      shape: of the mesh.
      policy: for remat; None: the model's own.
      num_microbatches: None: the learner's own.

    Raises:
      UsageError: the mesh does not divide the devices, the batch or a parameter.
    """
    policy = policy or analytic.remat_policy(self.learner)
    count = num_microbatches or self.learner.num_microbatches
    mesh = self._mesh(shape)
    learner = analytic.with_choices(self.learner, policy, count)
    trainer = Trainer(learner, mesh, self.spec, offload_optimizer=self.offload_optimizer)
    state, limit = trainer.abstract_state, self.topology.chip.memory_bytes
    parameters, whole = shard_bytes(state.params), shard_bytes(state)
    optimizer = whole - parameters if self.step == 'train' else 0
    start = time.perf_counter()
    lowered = _lower(trainer, self.step)
    try:
      compiled, text = _compile(lowered, self.topology, quick=self.quick)
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      seconds = time.perf_counter() - start
      return self._too_large(shape, policy, count, needed_bytes(str(error), parameters + optimizer), seconds)
    seconds = time.perf_counter() - start
    program = hlo.Program(text)
    transfers = collectives(program, mesh.shape)
    least = self.flops / mesh.size
    return Plan(
      step=self.step,
      topology=self.topology,
      shape=shape,
      mesh=dict(mesh.shape),
      remat_policy=policy,
      num_microbatches=count,
      parameters=tree.count_parameters(state.params),
      flops_per_step=self.flops,
      memory=compiled_memory(compiled, program, parameters, optimizer, limit),
      collectives=transfers,
      time=roofline.step_time(costs(program), transfers, self.topology, mesh, least_flops=least),
      compile_seconds=seconds,
      compiled=True,
    )

  def _too_large(self, shape: MeshShape, policy: str, count: int, needed: int | None, seconds: float) -> Plan:
    """What is known where the compiler gave up: how much it would have needed in all; what of, is estimated."""
    plan = self.estimate(shape, policy, count)
    memory = plan.memory
    if self.step != 'train':
      memory = dataclasses.replace(memory, optimizer=0, activations=0)
    if needed is not None:
      rest = max(needed - memory.parameters - memory.optimizer, 0)
      kept = round(rest * memory.activations / max(memory.activations + memory.temporaries, 1))
      memory = dataclasses.replace(memory, activations=kept, temporaries=rest - kept)
    return dataclasses.replace(plan, step=self.step, flops_per_step=self.flops, memory=memory, compile_seconds=seconds)


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
  """A program read from the cache would have compiled in no time, and those of other machines cannot be read."""
  name = 'jax_enable_compilation_cache'
  before = getattr(jax.config, name)
  jax.config.update(name, False)
  try:
    yield
  finally:
    jax.config.update(name, before)


def _compile(lowered: jax.stages.Lowered, topology: Topology, *, quick: bool) -> tuple[jax.stages.Compiled, str]:
  """The program, and its text.

  A TPU compiler may be newer than jaxlib, and its programs have what jaxlib cannot read: it writes the text itself too.
  """
  with _without_cache(), tempfile.TemporaryDirectory() as folder:
    options = {'xla_dump_to': folder, 'xla_dump_hlo_as_text': True} if topology.chip.dims else {}
    compiled = lowered.compile(compiler_options=options | (_LEAST_EFFORT if quick else {}))
    try:
      return compiled, compiled.as_text()
    except jax.errors.JaxRuntimeError:
      written = [*pathlib.Path(folder).glob('*.after_codegen.txt')]
      if not written:
        raise
      return compiled, max(written, key=lambda path: path.stat().st_size).read_text()


def _lower(trainer: Trainer, step: str) -> jax.stages.Lowered:
  match step:
    case 'train':
      return trainer.lower()
    case 'eval':
      return trainer.lower_eval()
  return _lower_decode(trainer)


def _lower_decode(trainer: Trainer) -> jax.stages.Lowered:
  """Greedy decoding of a batch: an encoder-decoder writes whole targets, a decoder the second half of its rows."""
  module, spec = trainer.learner.module, trainer.batch_spec
  rows, length = spec[key(DECODER, INPUT_TOKENS)].shape
  if hasattr(module, 'encode'):
    names = [key(ENCODER, name) for name in (INPUT_TOKENS, SEGMENT_IDS, POSITIONS)]
    shapes = {name: spec[name].shape for name in names if name in spec}

    def write(params: Any, batch: Any) -> jax.Array:
      return generate_from_encoder(module, params, batch, max_length=length, eos_id=_EOS)

  else:
    prompt = max(length // 2, 1)
    shapes = {'tokens': (rows, prompt), 'segment_ids': (rows, prompt)}

    def write(params: Any, batch: Any) -> jax.Array:
      return generate_from_prompt(
        module, params, batch['tokens'], batch['segment_ids'], max_length=max(length - prompt, 1), eos_id=_EOS
      )

  place = trainer.batch_sharding
  batch = {name: jax.ShapeDtypeStruct(shape, 'int32', sharding=place) for name, shape in shapes.items()}
  step = jax.jit(write, out_shardings=sharding.replicated(trainer.mesh))
  with sharding.scope(trainer.mesh, trainer.rules):
    return step.lower(trainer.abstract_state.params, batch)
