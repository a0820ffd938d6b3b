"""The pipeline: from a configuration to an iterator over batches whose position is a small JSON-able state.

The global batch stream follows from the configuration alone. It is cut into a fixed number V of virtual shards (see
`virtual_shards`); shard s fills the rows [s * B / V, (s + 1) * B / V) of every batch, and a process reads the shards
whose rows it supplies. A finite pass (`repeat=False`) is short, so there every process reads all shards and takes its
rows: all of them see the end after the same batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import (
  dataset_config,
  example_streams,
  features,
  filling,
  opened,
  packing,
  prefetch,
  row_predictions,
  virtual_shards,
)
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.opened import OpenedDataset
from t5x_lite.data.part_choice import PartChoice

STATE_VERSION = 2

_OPEN_ROWS = 4  # more would pack little better, and hold back the short examples of a mixture for longer

Batch = dict[str, np.ndarray]
State = dict[str, Any]


def build(config: DatasetConfig, *, rows: np.ndarray | None = None) -> BatchIterator:
  """Opens the data of `config`.

  Args:
    config: what to read.
    rows: which rows of the global batch this process supplies, ascending ints in [0, batch size); None: all of them.

  Raises:
    UsageError: the configuration is impossible, or the data is not there.
  """
  data = opened.open_dataset(config)
  rows = np.arange(config.batch_size) if rows is None else np.asarray(rows, np.int64)
  assert len(rows) and np.all(np.diff(rows) > 0) and rows[0] >= 0 and rows[-1] < config.batch_size, rows
  for part in range(len(data.parts)):
    # Tells what is impossible now, not in the thread that makes the batches.
    example_streams.example_stream(data, 0, part)
  _try_objective(data)
  return BatchIterator(data, rows)


def _try_objective(data: OpenedDataset) -> None:
  """Raises UsageError where the tokenizer has not what the objective needs, such as sentinels."""
  objective: Any = data.config.objective
  if data.raw_length and not hasattr(objective, 'pair'):
    objective(np.zeros(data.raw_length, np.int32), np.random.default_rng(0), data.tokenizer)


def merge_states(states: Sequence[State]) -> State:
  """One state of the states that several processes returned after the same batch."""
  first = states[0]
  for state in states[1:]:
    assert state['fingerprint'] == first['fingerprint'] and state['batches'] == first['batches']
  shards = {shard: position for state in states for shard, position in state['shards'].items()}
  return {**first, 'shards': dict(sorted(shards.items(), key=lambda item: int(item[0])))}


class BatchIterator(Iterator[Batch]):
  """Batches of this process's rows: `{batch key: [rows, length]}`, see `core/batch.py`.

  Made by `build`. Ends only if the configuration says `repeat=False`; the last batch is then filled up with empty rows.
  Batches are made in a background thread, which starts with the first `next`; `close` ends it.
  """

  def __init__(self, data: OpenedDataset, rows: np.ndarray):
    self._data = data
    self._rows = rows
    config = data.config
    self._rows_per_shard = config.batch_size // data.num_virtual_shards
    read = np.unique(rows // self._rows_per_shard) if config.repeat else range(data.num_virtual_shards)
    self._read = tuple(int(shard) for shard in read)
    self._prefetcher: prefetch.Prefetcher[tuple[Batch, State]] | None = None
    self._batches: Iterator[tuple[Batch, State]] | None = None
    self.spec: dict[str, jax.ShapeDtypeStruct] = features.batch_spec(
      config.features, config.task_feature_lengths, config.batch_size
    )
    initial = virtual_shards.initial_state(tuple(data.side_lengths), len(data.parts))
    self._state = self._state_of(dict.fromkeys(self._read, initial), 0)

  @property
  def data(self) -> OpenedDataset:
    """The data set that is read."""
    return self._data

  @property
  def rows(self) -> np.ndarray:
    """Which rows of the global batch this process supplies, ascending."""
    return self._rows

  def __next__(self) -> Batch:
    if self._batches is None:
      self._batches = self._start()
    try:
      batch, self._state = next(self._batches)
    except StopIteration:
      raise
    except BaseException:  # an interrupted generator is dead: the next call starts another at the same position
      self.close()
      raise
    return batch

  def get_state(self) -> State:
    """The position after the last batch returned, as JSON-able values. What is made ahead is no part of it."""
    return self._state

  def set_state(self, state: State) -> None:
    """Goes to a position that `get_state` (or `merge_states`) returned, in this process or another.

    Raises:
      UsageError: the state is of other data, and the line names what differs; or it lacks shards that are read here.
    """
    if state.get('version') != STATE_VERSION:
      raise errors.UsageError(f'data state of version {state.get("version")!r}: expected version {STATE_VERSION}')
    opened.check_fingerprint(state['fingerprint'], self._data.fingerprint)
    missing = [str(index) for index in self._read if str(index) not in state['shards']]
    if missing:
      raise errors.UsageError(f'data state lacks the virtual shards {", ".join(missing)}, which this process reads')
    self.close()
    shards = {str(index): state['shards'][str(index)] for index in self._read}
    self._state = {**state, 'shards': shards}

  def counts(self) -> dict[str, np.ndarray]:
    """What this process adds to the counts of all: those of the shards whose first row it supplies, int64 `[tasks]`.

    Over all processes together they are `statistics` of one process that reads everything: `examples`, `tokens`,
    `truncated` and `dropped`, each in the order of `task_names`.
    """
    own = set(self._rows[self._rows % self._rows_per_shard == 0] // self._rows_per_shard)
    sums = self._sums(name for name in self._state['shards'] if int(name) in own)
    found = {
      'examples': sums.examples,
      'tokens': sums.part_tokens,
      'truncated': sums.truncated,
      'dropped': sums.dropped,
    }
    return {name: np.asarray(values, np.int64) for name, values in found.items()}

  @property
  def task_names(self) -> tuple[str, ...]:
    """The names of the tasks of the mixture."""
    return tuple(part.task.name for part in self._data.parts)

  def _sums(self, shards: Iterable[str]) -> virtual_shards.Sums:
    sums = virtual_shards.Sums.zeros(tuple(self._data.side_lengths), len(self._data.parts))
    for shard in shards:
      sums.add(virtual_shards.Sums(**self._state['shards'][shard]['sums']))
    return sums

  def statistics(self) -> dict[str, Any]:
    """What the shards read here have returned since the start of the stream, resumed or not.

    Returns:
      By task name `examples_per_task`, `share_per_task`, `tokens_per_task`, `token_share_per_task`,
      `truncated_per_task`, `dropped_per_task`, and `skipped_per_task` (bad records that the source leaves out, by
      reason).
      Over all `useful_tokens` and `total_tokens` (positions of all sides without and with padding), `useful_fraction`,
      and `useful_fraction_per_side`.
    """
    names = self.task_names
    lengths = self._data.side_lengths
    sums = self._sums(self._state['shards'])
    total_examples = max(sum(sums.examples), 1)
    useful, total = sum(sums.tokens.values()), sums.rows * sum(lengths.values())
    return {
      'examples_per_task': dict(zip(names, sums.examples, strict=True)),
      'share_per_task': {name: count / total_examples for name, count in zip(names, sums.examples, strict=True)},
      'tokens_per_task': dict(zip(names, sums.part_tokens, strict=True)),
      'token_share_per_task': {name: n / max(useful, 1) for name, n in zip(names, sums.part_tokens, strict=True)},
      'truncated_per_task': dict(zip(names, sums.truncated, strict=True)),
      'dropped_per_task': dict(zip(names, sums.dropped, strict=True)),
      'skipped_per_task': {part.task.name: dict(getattr(part.records, 'skipped', {})) for part in self._data.parts},
      'useful_tokens': useful,
      'total_tokens': total,
      'useful_fraction': useful / max(total, 1),
      'useful_fraction_per_side': {
        side: count / max(sums.rows * lengths[side], 1) for side, count in sums.tokens.items()
      },
    }

  def close(self) -> None:
    """Ends the background thread. The position stays; the next `next` starts a new one."""
    if self._prefetcher is not None:
      self._prefetcher.close()
    self._prefetcher = self._batches = None

  def _start(self) -> Iterator[tuple[Batch, State]]:
    batches = self._generate(self._state)
    if not self._data.config.prefetch:
      return batches
    self._prefetcher = prefetch.Prefetcher(batches, self._data.config.prefetch)
    return self._prefetcher

  def _generate(self, state: State) -> Iterator[tuple[Batch, State]]:
    """Batches from `state` on, each with the state after it."""
    shards = {index: _virtual_shard(self._data, index) for index in self._read}
    for index, shard in shards.items():
      shard.restore(state['shards'][str(index)])
    batches = state['batches']
    while True:
      batch = {name: np.zeros((len(self._rows), leaf.shape[1]), leaf.dtype) for name, leaf in self.spec.items()}
      if not self._fill(batch, shards):
        if batches == 0:
          config = self._data.config
          raise errors.UsageError(f'{config.name!r} has no examples in its split {config.split!r}')
        return
      batches += 1
      yield batch, self._state_of({index: shard.state() for index, shard in shards.items()}, batches)

  def _fill(self, batch: Batch, shards: Mapping[int, virtual_shards.VirtualShard]) -> bool:
    """Takes every shard's next rows, writes those that are asked for; whether any shard had a row."""
    place = {int(row): at for at, row in enumerate(self._rows)}
    converter = self._data.config.features
    filled = False
    for index, shard in shards.items():
      for global_row in range(index * self._rows_per_shard, (index + 1) * self._rows_per_shard):
        row = shard.next_row()
        filled = filled or row is not None
        if row is not None and global_row in place:
          packing.write_row(row, batch, place[global_row], converter)
      shard.see_the_end()
    return filled

  def _state_of(self, positions: Mapping[int, State], batches: int) -> State:
    return {
      'version': STATE_VERSION,
      'fingerprint': self._data.fingerprint,
      'batches': batches,
      'shards': {str(index): position for index, position in positions.items()},
    }


def _virtual_shard(data: OpenedDataset, shard: int) -> virtual_shards.VirtualShard:
  """Virtual shard number `shard` at its start."""
  config = data.config
  choice = PartChoice(data.blend, config.seed, shard) if config.repeat else None
  packer: packing.Packer
  if config.pack == packing.SPLIT:
    packer = packing.SplitPacker(data.side_lengths)
  elif dataset_config.cuts(config):
    packer = filling.FillingPacker(data.side_lengths, filling.OPEN_ROWS if config.pack else 0)
  else:
    most = row_predictions.most_predictions(config)
    packer = packing.FirstFitPacker(data.side_lengths, _OPEN_ROWS if config.pack else 0, most)
  return virtual_shards.VirtualShard(
    parts=[example_streams.example_stream(data, shard, part) for part in range(len(data.parts))],
    choice=choice,
    converter=data.converter,
    side_lengths=data.side_lengths,
    packer=packer,
    rows_per_batch=config.batch_size // data.num_virtual_shards,
    pack_across_tasks=config.pack_across_tasks,
  )
