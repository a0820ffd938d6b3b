"""TFRecord files: what is written is read, and no damage goes unseen."""

import pickle
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_lite.core import errors
from t5x_lite.data.formats import crc32c, span_index, tfrecord

RECORDS = st.lists(st.binary(max_size=300), max_size=20)


def crc_by_definition(data):
  """CRC-32C, a bit at a time."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
  return crc ^ 0xFFFFFFFF


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  return tmp_path_factory.mktemp('tfrecord') / 'set.tfrecord-00000-of-00001'


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_the_checksum_is_the_masked_crc32c(data):
  crc = crc_by_definition(data)
  assert crc32c.masked(data) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def test_the_layout_is_tensorflows(path):
  tfrecord.write_records(path, [b'foo'])
  length = struct.pack('<Q', 3)
  crcs = [struct.pack('<I', crc32c.masked(data)) for data in (length, b'foo')]
  assert path.read_bytes() == length + crcs[0] + b'foo' + crcs[1]


@settings(deadline=None)
@given(RECORDS)
def test_what_is_written_is_read(path, records):
  assert tfrecord.write_records(path, records) == len(records)
  file = tfrecord.TFRecordFile(path)
  assert len(file) == len(records)
  assert list(file) == records
  assert [file[i] for i in reversed(range(len(file)))] == records[::-1]


@settings(max_examples=200, deadline=None)
@given(RECORDS.filter(bool), st.data())
def test_every_changed_bit_is_seen(path, records, data):
  tfrecord.write_records(path, records)
  damaged = bytearray(path.read_bytes())
  damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
  path.write_bytes(damaged)
  with pytest.raises(errors.UsageError, match=r'set\.tfrecord-00000-of-00001: record \d+: (bad CRC|truncated)'):
    list(tfrecord.TFRecordFile(path))


@settings(deadline=None)
@given(RECORDS.filter(bool), st.data())
def test_a_file_that_breaks_off_within_a_record_is_refused(path, records, data):
  tfrecord.write_records(path, records)
  whole = path.read_bytes()
  kept = data.draw(st.integers(0, len(whole) - 1))
  path.write_bytes(whole[:kept])
  ends = [sum(16 + len(record) for record in records[:n]) for n in range(len(records))]
  if kept in ends:
    assert list(tfrecord.TFRecordFile(path)) == records[: ends.index(kept)]
  else:
    number = sum(end <= kept for end in ends) - 1
    with pytest.raises(errors.UsageError, match=f': record {number}: truncated'):
      tfrecord.TFRecordFile(path)


def test_the_index_of_a_large_file_is_kept(tmp_path, monkeypatch):
  monkeypatch.setattr(span_index, '_KEPT_FROM', 0)
  path = tmp_path / 'large.tfrecord'
  records = [bytes([n]) * n for n in range(50)]
  tfrecord.write_records(path, records)
  assert list(tfrecord.TFRecordFile(path)) == records
  monkeypatch.setattr(tfrecord, 'find_records', None)  # a second search would fail
  file = tfrecord.TFRecordFile(path)
  assert list(file) == records
  assert list(pickle.loads(pickle.dumps(file))) == records


def test_a_file_that_changes_is_searched_again(tmp_path, monkeypatch):
  monkeypatch.setattr(span_index, '_KEPT_FROM', 0)
  path = tmp_path / 'changing.tfrecord'
  for records in ([b'one'], [b'one', b'two']):
    tfrecord.write_records(path, records)
    assert list(tfrecord.TFRecordFile(path)) == records


def test_no_such_file(tmp_path):
  with pytest.raises(errors.UsageError, match=r'cannot read .*absent: No such file'):
    tfrecord.TFRecordFile(tmp_path / 'absent')
