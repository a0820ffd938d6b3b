"""Tables of names: which tensor of ours is which of theirs. A table is all that a family's weights need, both ways.

How to write one. A table is a tuple of `Entry`s, one for each parameter of a family's tree, for example

    Entry('embeddings/tokens/embedding', 'bert.embeddings.word_embeddings.weight', vocabulary=0)
    Entry('blocks/{layer}/mlp/wi/kernel', 'bert.encoder.layer.{layer}.intermediate.dense.weight', TRANSPOSED)
    Entry('blocks/{layer}/self_attention/key/kernel', 'transformer.h.{layer}.attn.c_attn.weight', fused(1, 3, axis=1))
    Entry('classification/kernel', 'classifier.weight', TRANSPOSED, head=True)

- `{layer}` in our name stands for `layers` (scanned: one array with a leading axis of layers) and for `layers_0`,
  `layers_1`, ... (unrolled); in theirs for the number. The layout is that of one layer: the same table serves both.
- Entries for parameters that a module does not have are passed over, so that one table can name the parameters of all
  heads. What a module has and no entry names is an error.
- `head=True`: theirs may lack it; it is then initialised and reported. Everything else has to be there.
- `also`: other names of the same tensor in files of other classes or older releases; `prefixed` and `with_endings`
  write the usual ones. The first name is the one that is exported.
- `tied`: names of copies, which some files have. They have to hold the same values, and are not exported.
- `vocabulary`: our axis that counts tokens, which may be resized on request.
- Layouts: `SAME`, `TRANSPOSED`, `fused`, or a `Layout` of your own (see `layouts`).

A family's file `hf_FAMILY.py` has `MODEL_TYPES`, `ARCHITECTURES`, `module_from_hf`, `config_to_hf` and `table` (and a
`variant`, as `hf_t5`, where two model types are one module), and its lines in `families`. How it is called, with the
argument names of transformers, is in `hf_call`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from t5x_lite.core import tree
from t5x_lite.core.errors import UsageError
from t5x_lite.interop.layouts import SAME, Layout

LAYER = '{layer}'
_UNROLLED = re.compile(r'layers_(\d+)')
_MAX_NAMED = 4


@dataclasses.dataclass(frozen=True)
class Entry:
  """One parameter (of one layer), here and there; the module's docstring tells what each field is for.

  Attributes:
    ours: path of the leaf, such as `encoder/blocks/{layer}/mlp/wo/kernel`.
    theirs: name of their tensor.
    layout: how ours lies in theirs.
    head: whether theirs may lack it.
    also: further names of their tensor.
    tied: names of copies of their tensor.
    vocabulary: our axis (of one layer) that counts tokens, if one does.
  """

  ours: str
  theirs: str
  layout: Layout = SAME
  head: bool = False
  also: tuple[str, ...] = ()
  tied: tuple[str, ...] = ()
  vocabulary: int | None = None


Table = tuple[Entry, ...]


def prefixed(prefix: str, entries: Iterable[Entry], *, written: bool = True) -> Table:
  """Entries whose tensors go by their name both with and without `prefix` (`bert.`), as whole model and bare one do.

  Args:
    prefix: with its dot.
    entries: with names that lack it.
    written: whether export writes the prefix.
  """

  def both(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(each for name in names for each in ((prefix + name, name) if written else (name, prefix + name)))

  def one(entry: Entry) -> Entry:
    theirs, *also = both((entry.theirs, *entry.also))
    return dataclasses.replace(entry, theirs=theirs, also=tuple(also), tied=both(entry.tied))

  return tuple(map(one, entries))


def with_endings(endings: Mapping[str, str], entries: Iterable[Entry]) -> Table:
  """Entries that are also known by another ending, such as `LayerNorm.gamma` for `LayerNorm.weight`.

  Args:
    endings: from the ending of `theirs` to the other one.
    entries: the entries; those of other endings stay as they are.
  """

  def one(entry: Entry) -> Entry:
    names = (entry.theirs, *entry.also)
    more = (name.removesuffix(end) + other for end, other in endings.items() for name in names if name.endswith(end))
    return dataclasses.replace(entry, also=(*entry.also, *more))

  return tuple(map(one, entries))


@dataclasses.dataclass(frozen=True)
class Place:
  """A leaf of ours and its counterparts.

  Attributes:
    name: of the leaf.
    shape: of one layer.
    entry: that names it.
    layers: numbers of the layers that the leaf holds; None where it belongs to no layer.
    stacked: whether it has a leading axis of layers.
  """

  name: str
  shape: tuple[int, ...]
  entry: Entry
  layers: tuple[int, ...] | None
  stacked: bool

  def names(self, layer: int | None) -> tuple[str, ...]:
    """Their names for it, the written one first."""
    names = (self.entry.theirs, *self.entry.also)
    return names if layer is None else tuple(name.replace(LAYER, str(layer)) for name in names)

  def parts(self) -> tuple[int | None, ...]:
    """The layers, or None once."""
    return (None,) if self.layers is None else self.layers


def pattern_of(name: str) -> str:
  """The name of a leaf as a table has it, for every layer alike."""
  return '/'.join(LAYER if part == 'layers' or _UNROLLED.fullmatch(part) else part for part in name.split('/'))


def places_of(table: Iterable[Entry], params: Any) -> list[Place]:
  """Every leaf of `params` (arrays or shapes), with the entry that names it."""
  by_name = {entry.ours: entry for entry in table}
  places, unknown = [], []
  for name, leaf in tree.named_leaves(params).items():
    parts = name.split('/')
    numbers = [match for match in map(_UNROLLED.fullmatch, parts) if match]
    stacked = tree.is_stacked(name)
    pattern = pattern_of(name)
    if name in by_name:  # a table may also name a leaf literally: a stack as a whole, or one layer of it
      places.append(Place(name, tuple(leaf.shape), by_name[name], None, False))
    elif pattern not in by_name:
      unknown.append(name)
    elif stacked:
      places.append(Place(name, tuple(leaf.shape[1:]), by_name[pattern], tuple(range(leaf.shape[0])), True))
    else:
      layers = (int(numbers[0][1]),) if numbers else None
      places.append(Place(name, tuple(leaf.shape), by_name[pattern], layers, False))
  if unknown:
    raise UsageError(f'without a counterpart there: {first_few(unknown)}')
  return places


def first_few(items: Sequence[str]) -> str:
  """The first few, and how many more there are."""
  more = f'; and {len(items) - _MAX_NAMED} more' if len(items) > _MAX_NAMED else ''
  return '; '.join(items[:_MAX_NAMED]) + more
