"""Fine-tuning of a part of the parameters: some frozen by name, or low-rank updates (LoRA) beside frozen kernels.

Adapters and soft prompts are of the model (`nn.adapter`), and `Learner.trained` names them.

A kernel `[in, out]` that has a low-rank update has three leaves beside it: `lora_a` `[in, R]`, `lora_b` `[R, out]` and
the constant `lora_scale`. What the module is given is `kernel + lora_scale * lora_a @ lora_b`, so that no module knows
of it, and whoever reads a checkpoint can put the two together without knowing its configuration.

Source: Hu et al. 2022 (LoRA), section 4.1; initialisation as in the package peft.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from t5x_lite.core import errors, tree

A, B, SCALE = LEAVES = ('lora_a', 'lora_b', 'lora_scale')
_KERNEL = 'kernel'


@dataclasses.dataclass(frozen=True)
class Lora:
  """Low-rank updates of chosen kernels; they, and what else is named, are all that is trained.

  Attributes:
    rank: R of every update.
    alpha: the updates are multiplied by `alpha / rank`.
    kernels: regular expressions, looked for in the names of kernels such as
      `blocks/layers/self_attention/query/kernel`.
    trained: the same for parameters that are trained as they are: heads, which are new.
  """

  rank: int = 8
  alpha: float = 16.0
  kernels: tuple[str, ...] = (r'attention/(query|value)/kernel$',)
  trained: tuple[str, ...] = (r'^heads/',)

  def __post_init__(self):
    if self.rank < 1 or not self.alpha > 0:
      raise errors.UsageError(f'Lora: expected rank >= 1 and alpha > 0, got rank={self.rank} and alpha={self.alpha}')
    for pattern in (*self.kernels, *self.trained):
      check_pattern(pattern)

  def add(self, boxed: Any, key: jax.Array) -> Any:
    """Parameters with updates beside their kernels, which begin as nothing: `lora_b` is 0.

    Args:
      boxed: as `module.init` gives them.
      key: of the random `lora_a`: uniform within 1 / sqrt(in).

    Raises:
      UsageError: no kernel has such a name.
    """
    specs = tree.named_leaves(nn.get_partition_spec(boxed))
    shapes = {name: leaf.shape for name, leaf in tree.named_leaves(nn.meta.unbox(boxed)).items()}
    chosen = [name for name in shapes if name.endswith(f'/{_KERNEL}') and matches(name, self.kernels)]
    if not chosen:
      known = [name for name in shapes if name.endswith(f'/{_KERNEL}')]
      raise errors.UsageError(f'Lora.kernels={self.kernels!r} match no kernel: there are {", ".join(known[:6])}, ...')
    added: dict[str, Any] = {}
    for name in chosen:
      *stacked, inputs, outputs = shapes[name]
      *layers, of_inputs, of_outputs = specs[name]
      bound = inputs**-0.5
      own_key = jax.random.fold_in(key, zlib.crc32(name.encode()) % 2**31)
      parent = name.removesuffix(_KERNEL)
      values = {
        A: (jax.random.uniform(own_key, (*stacked, inputs, self.rank), jnp.float32, -bound, bound), of_inputs, None),
        B: (jnp.zeros((*stacked, self.rank, outputs), jnp.float32), None, of_outputs),
        SCALE: (jnp.full(stacked, self.alpha / self.rank, jnp.float32),),
      }
      for leaf, (value, *axes) in values.items():
        added[parent + leaf] = nn.LogicallyPartitioned(value, (*layers, *axes)) if value.ndim else value
    return with_leaves(boxed, added)


def check_pattern(pattern: str) -> None:
  """Raises UsageError for what is no regular expression."""
  try:
    re.compile(pattern)
  except re.error as error:
    raise errors.UsageError(f'{pattern!r} is no regular expression: {error}') from error


def check_found(patterns: Sequence[str] | None, names: Iterable[str]) -> None:
  """Raises UsageError where none of the patterns of what is trained is found in any name."""
  known = list(names)
  if patterns is not None and not any(matches(name, patterns) for name in known):
    raise errors.UsageError(f'Learner.trained={patterns!r} match no parameter: there are {", ".join(known[:6])}, ...')


def matches(name: str, patterns: Sequence[str]) -> bool:
  """Whether any of the patterns is found in a name."""
  return any(re.search(pattern, name) for pattern in patterns)


def is_update(name: str) -> bool:
  """Whether a leaf belongs to a low-rank update."""
  return name.rpartition('/')[2] in LEAVES


def merged(params: Any) -> Any:
  """Parameters as the module has them: updates are added to their kernels, and gone."""

  def visit(node: Any) -> Any:
    if not isinstance(node, Mapping):
      return node
    own = {name: visit(part) for name, part in node.items() if name not in LEAVES}
    if A in node:
      delta = jnp.einsum('...ir,...ro->...io', node[A], node[B])
      own[_KERNEL] = own[_KERNEL] + jnp.asarray(node[SCALE])[..., None, None] * delta
    return own

  return visit(params)


def without_updates(params: Any) -> Any:
  """A tree of parameters, or of anything by their names, without the leaves of updates."""
  if not isinstance(params, Mapping):
    return params
  return {name: without_updates(part) for name, part in params.items() if name not in LEAVES}


def with_updates_of(params: Any, other: Any) -> Any:
  """Parameters without updates, with those that another tree has."""
  leaves = {name: leaf for name, leaf in tree.named_leaves(other).items() if is_update(name)}
  return with_leaves(params, leaves)


def with_leaves(params: Any, leaves: Mapping[str, Any]) -> Any:
  """A tree of dicts with more leaves, by name."""

  def visit(node: Any, below: Mapping[str, Any]) -> Any:
    if not isinstance(node, Mapping):
      return node
    found = {name: leaf for name, leaf in below.items() if '/' not in name}
    deeper: dict[str, dict[str, Any]] = {}
    for name, leaf in below.items():
      first, slash, rest = name.partition('/')
      if slash:
        deeper.setdefault(first, {})[rest] = leaf
    return {name: visit(part, deeper.get(name, {})) for name, part in node.items()} | found

  return visit(params, leaves)


def held_back(params: Any, is_trained: Callable[[str], bool]) -> Any:
  """The same parameters, with no gradient of those that are not trained: XLA then leaves its computation out."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf if is_trained(tree.path_name(path)) else jax.lax.stop_gradient(leaf), params
  )


def of_trained(
  optimizer: optax.GradientTransformation, is_trained: Callable[[str], bool]
) -> optax.GradientTransformation:
  """An optimiser of some parameters. The others stay as they are, and have no state."""

  def labels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
      lambda path, _: 'trained' if is_trained(tree.path_name(path)) else 'frozen', params
    )

  return optax.partition({'trained': optimizer, 'frozen': optax.set_to_zero()}, labels)
