"""`infer --mode=attention` and `--mode=hidden_states`: what a model computes on the way, for each line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from t5x_lite.core import errors
from t5x_lite.core.batch import DECODER, ENCODER
from t5x_lite.inference import heads
from t5x_lite.inference.modes import Item, Options
from t5x_lite.inference.readings import TextReader
from t5x_lite.pretrained import Pretrained
from t5x_lite.research import attention_page, intermediates, pictures

# The stack whose layers an array of `research.intermediates` is of, and whose positions its last axes have.
_STACKS = {'cross': DECODER, 'content': DECODER, 'query': DECODER}
_READ = {'cross': ENCODER}
_COLUMNS = ('line', 'text', 'pair', 'targets', 'tokens', 'layers')


class _Inside:
  """What both share: lines to batches, and of what the model leaves the part of each line.

  Args:
    model: any.
    look: `intermediates.attentions` or `.hidden_states`.
    name: of its arrays in a row.
    writes: see `readings.TextReader`.
    layers: numbers of those that are looked at, by stack.
    squares: whether the last two axes are positions, or only the last but one.
  """

  field = TextReader.field

  def __init__(
    self,
    model: Pretrained,
    look: Callable[..., dict[str, jax.Array]],
    name: str,
    *,
    writes: bool,
    layers: Mapping[str, tuple[int, ...]],
    squares: bool,
  ):
    self.reader, self._name, self._layers, self._squares = TextReader(model, writes=writes), name, layers, squares
    self.columns = (*_COLUMNS, name, 'error')

    def chosen(params: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
      left = look(model.module, params, batch)
      kept = {each: np.asarray(layers[_STACKS.get(each, each)], np.int32) for each in left}
      return {each: left[each][kept[each]].swapaxes(0, 1) for each in left if len(kept[each])}

    self._look = model.jitted(chosen)

  def read(self, fields: Mapping[str, Any]) -> Item:
    """See `readings.TextReader`."""
    return self.reader.read(fields)

  def run(self, items: Sequence[Item], length: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The arrays of each, without padding."""
    found: dict[int, dict[str, Any]] = {}
    each = heads.each_once(items)
    for writes in (False, True):  # XLNet reads the two in two ways
      own = [item for item in each if (len(item.more.written) > 0) == writes]
      if own:
        filled = [*own, *[own[0]] * (len(items) - len(own))]
        batch = self.reader.batch([item.more for item in filled], length)
        left = self._look(batch)
        found |= {id(item): self._row(item, batch, left, row) for row, item in enumerate(own)}
    return [found[id(item)] for item in items]

  def _row(
    self, item: Item, batch: Mapping[str, np.ndarray], left: Mapping[str, np.ndarray], row: int
  ) -> dict[str, Any]:
    tokens = self.reader.tokens_of(batch, row, with_prompt=True)
    arrays, numbers = {}, {}
    for name, array in left.items():
      stack = _STACKS.get(name, name)
      queries, keys = len(tokens[stack]), len(tokens[_READ.get(name, stack)])
      cut = array[row][..., :queries, :keys] if self._squares else array[row][..., :queries, :]
      arrays[name], numbers[name] = np.asarray(cut, np.float32), list(self._layers[stack])
    return {**item.shown, 'tokens': tokens, 'layers': numbers, self._name: arrays}


class Attention(_Inside):
  """Attention probabilities, float32 `[layers, N, T, S]`, by stack: 'encoder', 'decoder', 'cross', 'content', 'query'.

  See `modes.Mode`. An encoder-decoder writes greedily what its decoder reads, where a line has no targets.
  """

  kinds = ('html', 'svg')

  def __init__(self, model: Pretrained, options: Options):
    layers = chosen_layers(intermediates.num_layers(model.module), options.layers)
    super().__init__(model, intermediates.attentions, 'attention', writes=True, layers=layers, squares=True)

  def render(self, rows: Sequence[Mapping[str, Any]], kind: str, title: str) -> str:
    """The page of all lines, or the picture of one. Raises UsageError where they would be too large."""
    if kind == 'svg':
      if len(rows) != 1:
        raise errors.UsageError(f'a picture of {len(rows)} lines: expected one line, or --output=PAGE.html for several')
      return pictures.attention(rows[0])
    return attention_page.render(title, rows)


class HiddenStates(_Inside):
  """What each layer reads and what the last returns, float32 `[layers + 1, T, D]`, by stack.

  See `modes.Mode`. Without targets there are those of an encoder alone. Layer 0 is what the first layer reads.
  """

  def __init__(self, model: Pretrained, options: Options):
    counts = {stack: count + 1 for stack, count in intermediates.num_layers(model.module).items()}
    layers = chosen_layers(counts, options.layers)
    super().__init__(model, intermediates.hidden_states, 'hidden_states', writes=False, layers=layers, squares=False)

  def _row(
    self, item: Item, batch: Mapping[str, np.ndarray], left: Mapping[str, np.ndarray], row: int
  ) -> dict[str, Any]:
    found = super()._row(item, batch, left, row)
    if self.reader.is_pair and not len(item.more.written):
      for name in ('tokens', 'layers', 'hidden_states'):
        found[name] = {side: value for side, value in found[name].items() if side == ENCODER}
    return found


def chosen_layers(counts: Mapping[str, int], asked: int | tuple[int, ...] | None) -> dict[str, tuple[int, ...]]:
  """The numbers of the layers that were asked for, by stack, of those that there are.

  Args:
    counts: how many each stack has.
    asked: one, several, or all.

  Raises:
    UsageError: no stack has so many.
  """
  if asked is None:
    return {stack: tuple(range(count)) for stack, count in counts.items()}
  wanted = (asked,) if isinstance(asked, int) else tuple(asked)
  most = max(counts.values())
  for layer in wanted:
    if not 0 <= layer < most:
      raise errors.UsageError(f'layers is {asked}: there is no layer {layer}, expected numbers from 0 to {most - 1}')
  if not wanted:
    raise errors.UsageError(f'layers is {asked}: expected at least one number from 0 to {most - 1}')
  return {stack: tuple(layer for layer in wanted if layer < count) for stack, count in counts.items()}
