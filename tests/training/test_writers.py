import json
import math
import pathlib
import struct

import pytest

from t5x_lite.training import writers


def rows_of(path: pathlib.Path):
  def refuse(name):
    raise AssertionError(f'{name} is not JSON')

  return [json.loads(line, parse_constant=refuse) for line in path.read_text().rstrip('\n').split('\n')]


def events_of(folder: pathlib.Path):
  """The events in a folder of event files: TFRecords of 8 bytes length, 4 CRC, data, 4 CRC."""
  from tensorboardX.proto import event_pb2

  found = []
  for path in sorted(folder.iterdir()):
    data, at = path.read_bytes(), 0
    while at < len(data):
      (length,) = struct.unpack_from('<Q', data, at)
      event = event_pb2.Event()
      event.ParseFromString(data[at + 12 : at + 12 + length])
      found.append(event)
      at += 16 + length
  return found


def train_row(step, loss):
  return {'split': 'train', 'step': step, 'loss': loss, 'mfu': None}


def test_a_row_is_on_disk_when_write_returns_and_is_standard_json(tmp_path):
  writer = writers.MetricWriter(tmp_path)
  writer.start(0)
  writer.write(train_row(10, 1.5))
  writer.write(train_row(20, math.nan) | {'perplexity': math.inf})
  assert rows_of(tmp_path / 'metrics.jsonl') == [train_row(10, 1.5), train_row(20, None) | {'perplexity': None}]
  writer.close()


def test_resuming_drops_later_rows_and_half_written_ones_and_keeps_the_rest_byte_by_byte(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  writer = writers.MetricWriter(tmp_path)
  writer.start(0)
  for step in (10, 20, 30):
    writer.write(train_row(step, 0.1 * step))
    writer.write({'split': 'validation', 'task': 'a', 'step': step, 'loss': 1.0})
    writer.write_sample(
      {'step': step, 'task': 'a', 'input': 'ä <extra_id_0>\u2028\x85', 'target': 't', 'prediction': 'p'}
    )
  writer.close()
  before = path.read_bytes().splitlines(keepends=True)
  with path.open('a') as file:
    file.write('{"split": "train", "step": 2')  # What kill -9 in mid-write leaves.
  again = writers.MetricWriter(tmp_path)
  again.start(20)
  assert path.read_bytes().splitlines(keepends=True) == before[:4]
  assert [row['step'] for row in rows_of(tmp_path / 'samples.jsonl')] == [10, 20]
  again.write(train_row(30, 9.0))
  again.close()
  rows = rows_of(path)
  keys = [(row['split'], row['step']) for row in rows]
  assert len(set(keys)) == len(keys) == 5
  assert rows[-1] == train_row(30, 9.0)


def test_nothing_is_rewritten_where_nothing_is_to_be_dropped(tmp_path):
  writer = writers.MetricWriter(tmp_path)
  writer.start(0)
  writer.write(train_row(10, 1.0))
  writer.close()
  inode = (tmp_path / 'metrics.jsonl').stat().st_ino
  writers.MetricWriter(tmp_path).start(10)
  assert (tmp_path / 'metrics.jsonl').stat().st_ino == inode


def test_tensorboard_has_t5x_folders_every_scalar_and_a_purge_on_resuming(tmp_path):
  writer = writers.MetricWriter(tmp_path)
  writer.start(0)
  writer.write(train_row(10, 1.5))
  writer.write({'split': 'validation', 'task': 'glue/mnli', 'step': 10, 'loss': 2.5})
  writer.write_text('glue/mnli', 'samples', 'some *text*', 10)
  writer.close()
  scalars = [(v.tag, e.step, v.simple_value) for e in events_of(tmp_path / 'train') for v in e.summary.value]
  assert scalars == [('loss', 10, 1.5)]
  evaluated = [(v.tag, e.step) for e in events_of(tmp_path / 'glue_mnli_eval') for v in e.summary.value]
  assert ('loss', 10) in evaluated
  assert any('samples' in tag for tag, _ in evaluated)
  resumed = writers.MetricWriter(tmp_path)
  resumed.start(7)
  resumed.write(train_row(8, 1.0))
  resumed.close()
  starts = [e.step for e in events_of(tmp_path / 'train') if e.HasField('session_log') and e.session_log.status == 1]
  assert starts[-1] == 8


def test_only_the_primary_process_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(writers.processes, 'is_primary', lambda: False)
  writer = writers.MetricWriter(tmp_path / 'run')
  writer.start(0)
  writer.write(train_row(1, 1.0))
  writer.write_sample({'step': 1})
  writer.write_text('a', 'samples', 'text', 1)
  writer.close()
  assert not (tmp_path / 'run').exists()


def test_numbers_that_json_lacks_are_null_wherever_they_stand():
  row = {'a': [1.0, math.nan], 'b': {'c': (math.inf, 2)}}
  assert json.loads(writers.to_json(row)) == {'a': [1.0, None], 'b': {'c': [None, 2]}}


@pytest.mark.parametrize('value', [1, 1.5, 'text', None, {'a': 1}, 'ünï'])
def test_what_json_can_hold_is_left_alone(value):
  assert json.loads(writers.to_json({'step': 1, 'x': value}))['x'] == value
