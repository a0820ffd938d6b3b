"""Parameters out of a source of tensors, by a table of names: checked whole before anything is read."""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from t5x_lite.core import tree
from t5x_lite.core.errors import UsageError
from t5x_lite.interop.names import LAYER, Entry, Place, first_few, pattern_of, places_of
from t5x_lite.interop.tensors import Index, TensorSource
from t5x_lite.nn.adapter import is_addition

# From names of ours to freshly initialised arrays, on the devices where the parameters will be.
Fresh = Callable[[Sequence[str]], Mapping[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Report:
  """What became of the tensors of a source.

  Attributes:
    loaded: our names of what was read, whole or in part.
    fresh: our names of what theirs lacks: heads, newly initialised.
    resized: a line for each table of the vocabulary that was made longer or shorter.
    ignored: their names of what was not read.
  """

  loaded: tuple[str, ...] = ()
  fresh: tuple[str, ...] = ()
  resized: tuple[str, ...] = ()
  ignored: tuple[str, ...] = ()

  def lines(self) -> list[str]:
    """What a user should know, a line for each kind; none where all was read and all found a place."""
    out = [f'newly initialised: {", ".join(_summarised(self.fresh))}'] if self.fresh else []
    out += self.resized
    return out + ([f'not loaded: {", ".join(_summarised(self.ignored))}'] if self.ignored else [])


def _summarised(names: Iterable[str]) -> list[str]:
  """Names that differ in numbers only as one, `h.*.attn.bias (12)`."""
  counts = collections.Counter(re.sub(r'\d+', '*', name) for name in names)
  single = {re.sub(r'\d+', '*', name): name for name in names}
  return [f'{pattern} ({count})' if count > 1 else single[pattern] for pattern, count in counts.items()]


def load(
  table: Iterable[Entry], source: TensorSource, abstract: Any, *, fresh: Fresh | None = None, resize: bool = False
) -> tuple[Any, Report]:
  """Parameters read from a source: of each, every device's part and no more, straight to that device.

  Args:
    table: of the module that `abstract` belongs to.
    source: where from.
    abstract: tree of `jax.ShapeDtypeStruct`, unboxed; one without a sharding goes to the first device.
    fresh: initialises what theirs may lack; None: nothing may be lacking.
    resize: whether tables of the vocabulary may be of another length there. Rows that theirs lacks are `fresh`, those
      that ours has no place for are dropped.

  Returns:
    The parameters, of the dtypes of `abstract`, and what was read.

  Raises:
    UsageError: a tensor is missing or does not fit, by name; nothing is read then.
  """
  places = places_of([*_additions(abstract), *table], abstract)
  found, lacking, longer, resized = _match(places, source, may_lack=fresh is not None, resize=resize)
  ignored = _ignored(places, source, found)
  _check_tied(places, source, found)
  made = fresh([*lacking, *longer]) if fresh is not None and (lacking or longer) else {}
  by_name = {place.name: place for place in places}

  def place(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
    name = tree.path_name(path)
    if name in lacking:
      return made[name]
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    # Devices that hold copies of one part ask for it each.
    read = functools.cache(
      lambda bounds: _read(by_name[name], source, found, leaf, tuple(slice(*bound) for bound in bounds), made)
    )
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: read(_bounds(index, leaf.shape)))

  params = jax.tree_util.tree_map_with_path(place, abstract)
  loaded = tuple(place.name for place in places if place.name not in lacking)
  return params, Report(loaded, tuple(lacking), tuple(resized), tuple(ignored))


def _additions(abstract: Any) -> list[Entry]:
  """Entries of adapters and soft prompts, which no file of others has: they are freshly initialised."""
  names = {pattern_of(name) for name in tree.named_leaves(abstract) if is_addition(name)}
  return [Entry(name, name, head=True) for name in sorted(names)]


def _bounds(index: Index, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
  return tuple(part.indices(length)[:2] for part, length in zip(index, shape, strict=True))


# Their name of each of our leaves, by our name and layer.
_Found = dict[tuple[str, int | None], str]


def _match(
  places: Iterable[Place], source: TensorSource, *, may_lack: bool, resize: bool
) -> tuple[_Found, list[str], list[str], list[str]]:
  """Finds their tensor for each of our leaves: `(found, lacking, those to be longer, lines about resizing)`."""
  known = frozenset(source.names())
  found: _Found = {}
  missing, misfits, lacking, longer, resized = [], [], [], [], []
  for place in places:
    names = {part: next((name for name in place.names(part) if name in known), None) for part in place.parts()}
    if all(name is None for name in names.values()) and place.entry.head and may_lack:
      lacking.append(place.name)
      continue
    for part, name in names.items():
      if name is None:
        missing.append(place.names(part)[0])
        continue
      found[place.name, part] = name
      shape = place.entry.layout.our_shape(source.shape(name))
      if shape == place.shape:
        continue
      tokens = _numbers_of_tokens(place, shape)
      if tokens is None:
        wanted = list(place.entry.layout.their_shape(place.shape))
        misfits.append(f'{name} is {list(source.shape(name))}, expected {wanted}')
        continue
      have, want = tokens
      if not resize:
        misfits.append(f'{name} has {have} tokens, expected {want} (or a request to resize the vocabulary)')
      elif have < want and not may_lack:
        misfits.append(f'{name} has {have} tokens, expected {want}')
      else:
        rows = f'{want - have} rows newly initialised' if have < want else f'{have - want} rows dropped'
        resized.append(f'{place.name}: {have} tokens there, {want} here: {rows}')
        longer += [place.name] if have < want else []
  if missing:
    raise UsageError(f'{source.origin} lacks {first_few(missing)}: it holds another model')
  if misfits:
    raise UsageError(f'{source.origin} does not fit: {first_few(misfits)}')
  return found, lacking, longer, resized


def _numbers_of_tokens(place: Place, shape: tuple[int, ...] | None) -> tuple[int, int] | None:
  """`(theirs, ours)` where a tensor of `shape` differs from ours in the number of tokens only, else None."""
  axis = place.entry.vocabulary
  if axis is None or shape is None or len(shape) != len(place.shape):
    return None
  same = all(have == want or at == axis for at, (have, want) in enumerate(zip(shape, place.shape, strict=True)))
  return (shape[axis], place.shape[axis]) if same else None


def _ignored(places: Iterable[Place], source: TensorSource, found: _Found) -> list[str]:
  """Their tensors that are not read. Raises UsageError where they are layers that ours has no place for."""
  used = set(found.values())
  for place in places:
    for name in (*place.entry.also, *place.entry.tied):
      used.update(name.replace(LAYER, str(part)) for part in place.parts())
  ignored = [name for name in source.names() if name not in used]
  deeper = {place.entry.theirs for place in places if place.layers is not None and LAYER in place.entry.theirs}
  patterns = [re.compile(re.escape(theirs).replace(re.escape(LAYER), r'\d+')) for theirs in deeper]
  too_many = [name for name in ignored if any(pattern.fullmatch(name) for pattern in patterns)]
  if too_many:
    raise UsageError(f'{source.origin} has more layers than this model: {first_few(too_many)}')
  return ignored


def _check_tied(places: Iterable[Place], source: TensorSource, found: _Found) -> None:
  """Raises UsageError where what should be copies of one tensor are two."""
  known = frozenset(source.names())
  for place in places:
    if (place.name, None) not in found:
      continue
    name = found[place.name, None]
    for copy in place.entry.tied:
      if copy in known and not _equal(source, name, copy):
        raise UsageError(f'{source.origin}: {name} and {copy} differ, and this model has one tensor for both')


def _equal(source: TensorSource, one: str, other: str, rows: int = 4096) -> bool:
  """Whether two tensors are the same, compared some rows at a time."""
  shape = source.shape(one)
  if source.shape(other) != shape:
    return False
  rest = tuple(slice(0, length) for length in shape[1:])
  parts = ((slice(start, min(start + rows, shape[0])), *rest) for start in range(0, shape[0], rows))
  return all(np.array_equal(source.read(one, part), source.read(other, part)) for part in parts)


def _read(
  place: Place,
  source: TensorSource,
  found: _Found,
  leaf: jax.ShapeDtypeStruct,
  index: Index,
  made: Mapping[str, jax.Array],
) -> np.ndarray:
  """The part of a leaf at `index`, which has no open ends."""
  if not place.stacked:
    return _read_one(place, source, found[place.name, place.parts()[0]], leaf, index, made)
  layers = range(index[0].start, index[0].stop)
  out = np.empty([len(layers), *(part.stop - part.start for part in index[1:])], leaf.dtype)
  for at, layer in enumerate(layers):
    out[at] = _read_one(place, source, found[place.name, layer], leaf, index[1:], made)
  return out


def _read_one(
  place: Place, source: TensorSource, name: str, leaf: Any, index: Index, made: Mapping[str, jax.Array]
) -> np.ndarray:
  """The part of one layer's tensor, with new rows where theirs ends before ours."""
  layout, axis = place.entry.layout, place.entry.vocabulary
  have = layout.our_shape(source.shape(name))
  assert have is not None, name
  if axis is None or index[axis].stop <= have[axis]:
    return layout.read(source, name, have, index).astype(leaf.dtype)
  out = _local(made[place.name], index).astype(leaf.dtype)
  start, stop = index[axis].start, min(index[axis].stop, have[axis])
  if start < stop:
    known = (*index[:axis], slice(start, stop), *index[axis + 1 :])
    rows = (*(slice(None),) * axis, slice(0, stop - start))
    out[rows] = layout.read(source, name, have, known)
  return out


def _local(array: jax.Array, index: Index) -> np.ndarray:
  """A copy of the part of an array at `index`, which is that of one of this process's devices."""
  wanted = _bounds(index, array.shape)
  parts = (shard for shard in array.addressable_shards if _bounds(shard.index, array.shape) == wanted)
  return np.array(next(parts).data)
