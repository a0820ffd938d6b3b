import numpy as np
import pytest

from t5x_lite.data import features, packing

LENGTHS = {'encoder': 24, 'decoder': 10}
CONVERTER = features.EncoderDecoderFeatures()


def make_entries(seed, count=200):
  """Entries with tokens that tell example and place: no two tokens of a side are equal."""
  rng = np.random.default_rng(seed)
  entries = []
  for index in range(count):
    inputs = 1000 * (index + 1) + np.arange(rng.integers(1, 25), dtype=np.int32)
    targets = 1000 * (index + 1) + np.arange(rng.integers(1, 11), dtype=np.int32)
    entries.append(packing.Entry(CONVERTER({'inputs': inputs, 'targets': targets}), index))
  return entries


def pack(entries, open_rows):
  packer = packing.FirstFitPacker(LENGTHS, open_rows)
  rows = []
  for entry in entries:
    rows.append(packer.add(entry))
    assert len(packer.open) <= open_rows
  while packer.open:
    rows.append(packer.pop_fullest())
  return [row for row in rows if row is not None]


def write(rows):
  spec = features.batch_spec(CONVERTER, {'inputs': 24, 'targets': 10}, len(rows))
  batch = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in spec.items()}
  for index, row in enumerate(rows):
    packing.write_row(row, batch, index, CONVERTER)
  return batch


@pytest.mark.parametrize('open_rows', [0, 1, 4, 16])
@pytest.mark.parametrize('seed', range(3))
def test_every_example_is_whole_and_there_once(seed, open_rows):
  entries = make_entries(seed)
  batch = write(pack(entries, open_rows))
  found = []
  for row in range(len(batch['encoder_segment_ids'])):
    of_side = {side: batch[f'{side}_segment_ids'][row] for side in LENGTHS}
    assert of_side['encoder'].max() == of_side['decoder'].max()
    for segment in range(1, of_side['encoder'].max() + 1):
      columns = {side: np.flatnonzero(ids == segment) for side, ids in of_side.items()}
      index = batch['encoder_input_tokens'][row, columns['encoder'][0]] // 1000 - 1
      for side, at in columns.items():
        assert np.all(np.diff(at) == 1)
        for name in CONVERTER.keys(side):
          if not name.endswith('segment_ids'):
            np.testing.assert_array_equal(batch[name][row, at], entries[index].example[name])
      found.append(index)
    for side, ids in of_side.items():  # nothing but zeros behind the segments
      assert np.all(np.diff((ids > 0).astype(int)) <= 0)
      assert all(not batch[name][row, ids == 0].any() for name in CONVERTER.keys(side))
  assert sorted(found) == list(range(len(entries)))


def test_no_open_rows_means_one_example_a_row():
  rows = pack(make_entries(0), 0)
  assert [entry.address for row in rows for entry in row.entries] == list(range(200))
  assert all(len(row.entries) == 1 for row in rows)


def test_more_open_rows_pack_tighter():
  counts = [len(pack(make_entries(5), open_rows)) for open_rows in (0, 1, 4)]
  assert counts[0] > counts[1] > counts[2]


def test_first_fit_takes_the_oldest_row_with_room_on_both_sides():
  def entry(inputs, targets, address):
    arrays = {
      'inputs': np.ones(inputs, np.int32),
      'targets': np.ones(targets, np.int32),
    }
    return packing.Entry(CONVERTER(arrays), address)

  def addresses(row):
    return row and [packed.address for packed in row.entries]

  packer = packing.FirstFitPacker(LENGTHS, 2)
  assert packer.add(entry(10, 8, 'a')) is None
  assert packer.add(entry(20, 2, 'b')) is None
  assert packer.add(entry(4, 1, 'c')) is None  # both have room: it joins a
  assert addresses(packer.add(entry(4, 3, 'd'))) == [
    'b',
    'd',
  ]  # a has no room among the targets; b is full now
  assert packer.add(entry(11, 1, 'e')) is None
  assert addresses(packer.add(entry(24, 1, 'f'))) == ['f']  # fills a row by itself: no other has to go
  assert addresses(packer.add(entry(20, 1, 'g'))) == [
    'a',
    'c',
  ]  # the fullest: 9 of 10 targets
  assert [addresses(row) for row in packer.open] == [['e'], ['g']]
