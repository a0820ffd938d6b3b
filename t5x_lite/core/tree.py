"""Names of the leaves of a parameter tree."""

from __future__ import annotations

from typing import Any

import jax

from t5x_lite.core import axes


def path_name(path: tuple[Any, ...]) -> str:
  """A key path as `encoder/layers/mlp/wi/kernel`."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def named_leaves(tree: Any) -> dict[str, Any]:
  """The leaves of `tree` by name, in the order of the flattened tree."""
  return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def is_stacked(name: str) -> bool:
  """Whether the leaf called `name` has a leading axis of layers: `nn.Stack` calls the scanned module `layers`."""
  return axes.LAYERS in name.split('/')


def stacked(tree: Any) -> Any:
  """A tree of bools: which leaves of `tree` have a leading axis of layers."""
  return jax.tree_util.tree_map_with_path(lambda path, _: is_stacked(path_name(path)), tree)


def count_parameters(tree: Any) -> int:
  """Number of elements in all leaves of `tree` (arrays or `jax.ShapeDtypeStruct`s)."""
  total = 0
  for leaf in jax.tree_util.tree_leaves(tree):
    size = 1
    for dim in leaf.shape:
      size *= dim
    total += size
  return total
