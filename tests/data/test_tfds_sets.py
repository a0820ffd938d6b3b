"""The sets of the catalogue with their real names and features, small, as ArrayRecord and as TFRecord files."""

import json
import pickle
import socket
import subprocess
import sys

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.data import prepared, sources, tfds_records
from t5x_lite.data.formats import array_records, tfrecord

ANSWERS = [{'answer_start': 0, 'text': 'Überall'}, {'answer_start': 9, 'text': 'and “there”'}]
# A record of every set as TFDS's builders yield it, and what differs when it is read.
SETS = {
  'c4/en:3.1.0': {'text': 'A page.\nNaïve.', 'url': 'u', 'timestamp': 't', 'content-type': 'h', 'content-length': '9'},
  'wikipedia/20230601.en:1.0.0': {'title': 'T', 'text': 'Łódź'},
  'glue/sst2:2.0.0': {'sentence': 'fine', 'label': 1, 'idx': 7},
  'glue/stsb:2.0.0': {'sentence1': 'a', 'sentence2': 'b', 'label': 2.5, 'idx': 7},
  'super_glue/boolq:1.0.2': {'question': 'q', 'passage': 'p', 'idx': 3, 'label': -1},
  'squad/v2.0:3.0.0': {
    'id': 'x',
    'title': 't',
    'context': 'Überall, and “there”',
    'question': 'where',
    'answers': ANSWERS,
    'is_impossible': False,
    'plausible_answers': [],
  },
  'race/middle:2.0.0': {
    'article': 'a',
    'example_id': 'middle1.txt',
    'questions': ['q1', 'q2'],
    'answers': ['A', 'D'],
    'options': [['a', 'b', 'c', 'd'], ['ä', 'b', 'c', 'e']],
  },
  'wmt14_translate/de-en:1.0.0': {'de': 'Straße', 'en': 'street'},
  'cnn_dailymail:3.4.0': {'article': 'a', 'highlights': 'h\nh', 'id': 'i', 'publisher': 'CNN'},
}
READ = {
  'squad/v2.0:3.0.0': {
    'answers': {'answer_start': [0, 9], 'text': ['Überall', 'and “there”']},
    'plausible_answers': {'answer_start': [], 'text': []},
  }
}


def features_of(name):
  """The features of the real builder; TensorFlow is needed to build SuperGLUE's, so that they are written out."""
  import tensorflow_datasets as tfds
  import tensorflow_datasets.summarization
  import tensorflow_datasets.text
  import tensorflow_datasets.translate

  if name.startswith('super_glue'):
    return tfds.features.FeaturesDict(
      {
        'question': tfds.features.Text(),
        'passage': tfds.features.Text(),
        'idx': np.int32,
        'label': tfds.features.ClassLabel(names=['False', 'True']),
      }
    )
  return tfds.builder(name, data_dir='/nowhere').info.features


def serialized(features, row):
  """A `tf.train.Example`. TFDS serialises ragged text with TensorFlow only: RACE's options are put in as it does it."""
  from tensorflow_datasets.proto import tf_example_pb2

  if 'options' not in row:
    return features.serialize_example(row)
  example = tf_example_pb2.Example()
  feature = example.features.feature
  for key, value in row.items():
    if key != 'options':
      texts = [value] if isinstance(value, str) else value
      feature[key].bytes_list.value.extend(text.encode() for text in texts)
  texts = [text for options in row['options'] for text in options]
  feature['options/ragged_flat_values'].bytes_list.value.extend(text.encode() for text in texts)
  feature['options/ragged_row_lengths_0'].int64_list.value.extend(map(len, row['options']))
  return example.SerializeToString()


def write_shard(path, examples):
  from array_record.python import array_record_module

  if 'tfrecord' in path:
    tfrecord.write_records(path, examples)
    return
  writer = array_record_module.ArrayRecordWriter(path, 'group_size:1')
  for example in examples:
    writer.write(example)
  writer.close()


def prepare(data_dir, name, file_format, num_records=5):
  """Writes `num_records` records in shards of 2, laid out as TFDS does; returns them as they are to be read."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import dataset_info, naming

  path, version = name.split(':')
  folder = data_dir / path / version
  folder.mkdir(parents=True)
  set_name, _, config = path.partition('/')
  features = features_of(name)
  key = next(key for key, value in SETS[name].items() if isinstance(value, str))
  rows = [{**SETS[name], key: f'{SETS[name][key]} {i}'} for i in range(num_records)]
  examples = [serialized(features, row) for row in rows]
  shards = [examples[i : i + 2] for i in range(0, num_records, 2)]
  template = naming.ShardedFileTemplate(
    data_dir=folder, dataset_name=set_name, filetype_suffix=file_format, split='train'
  )
  for number, shard in enumerate(shards):
    write_shard(str(template.sharded_filepath(shard_index=number, num_shards=len(shards))), shard)
  identity = dataset_info.DatasetIdentity(
    name=set_name, config_name=config or None, version=version, data_dir=str(folder), module_name='tiny'
  )
  info = tfds.core.DatasetInfo(builder=identity, features=features)
  info.set_file_format(file_format)
  lengths, size = list(map(len, shards)), sum(map(len, examples))
  split = tfds.core.SplitInfo(name='train', shard_lengths=lengths, num_bytes=size, filename_template=template)
  info.set_splits(tfds.core.splits.SplitDict([split]))
  info.write_to_directory(folder)
  return [{**row, **READ.get(name, {})} for row in rows]


@pytest.fixture
def no_network(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))

  def refuse(*args, **kwargs):
    raise AssertionError('network')

  monkeypatch.setattr(socket.socket, 'connect', refuse)


def plain(value):
  """Arrays as lists, so that records can be compared."""
  if isinstance(value, dict):
    return {key: plain(item) for key, item in value.items()}
  return value.tolist() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize('file_format', prepared.FILE_FORMATS)
@pytest.mark.parametrize('name', SETS)
def test_records_have_the_schema_of_tfds(tmp_path, no_network, name, file_format):
  rows = prepare(tmp_path, name, file_format)
  source = sources.TfdsSource(name, data_dir=str(tmp_path))
  records = source.random_access('train')
  assert source.num_examples('train') == len(records) == 5
  assert [plain(records[i]) for i in range(5)] == rows
  assert [plain(record) for record in records.__getitems__([4, 0, 2])] == [rows[4], rows[0], rows[2]]
  with pytest.raises(IndexError):
    records[5]


@pytest.mark.parametrize('name', SETS)
def test_array_records_are_decoded_as_tfds_decodes_them(tmp_path, no_network, name):
  """To the last dtype, slices included; nothing is made text yet."""
  import tensorflow_datasets as tfds

  prepare(tmp_path, name, 'array_record', num_records=7)
  source = sources.TfdsSource(name, data_dir=str(tmp_path))
  for split in ('train', 'train[1:6]'):
    theirs = tfds.builder_from_directory(source.folder()).as_data_source(split=split)
    ours = source.random_access(split)._data_source
    assert len(ours) == len(theirs) > 0
    for index in range(len(ours)):
      assert_identical(ours[index], theirs[index])
    for one, other in zip(ours.__getitems__([3, 0]), theirs.__getitems__([3, 0]), strict=True):
      assert_identical(one, other)


def assert_identical(one, other):
  assert type(one) is type(other)
  if isinstance(one, dict):
    assert one.keys() == other.keys()
    for key in one:
      assert_identical(one[key], other[key])
  elif isinstance(one, list):
    for mine, their in zip(one, other, strict=True):
      assert_identical(mine, their)
  elif isinstance(one, np.ndarray):
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)
  else:
    assert one == other


def test_a_shard_with_fewer_records_than_noted_is_told(tmp_path, no_network):
  prepare(tmp_path, 'c4/en:3.1.0', 'array_record')
  source = sources.TfdsSource('c4/en:3.1.0', data_dir=str(tmp_path))
  shard = sorted(source.folder().glob('*.array_record*'))[1]
  array_records.write_records(shard, [b'only one'])
  with pytest.raises(errors.UsageError, match=f'{shard} holds 1 records, expected 2'):
    source.random_access('train')[3]


def test_slices_of_a_set_in_tfrecord_files(tmp_path, no_network):
  rows = prepare(tmp_path, 'wikipedia/20230601.en:1.0.0', 'tfrecord', num_records=9)
  source = sources.TfdsSource('wikipedia/20230601.en', data_dir=str(tmp_path))
  for splits in (
    ('train[:99%]', 'train[99%:]'),
    ('train[:3]', 'train[3:8]', 'train[8:]'),
    ('train[:50%]', 'train[50%:]'),
  ):
    parts = [source.random_access(split) for split in splits]
    assert [part[i] for part in parts for i in range(len(part))] == rows
    assert [len(part) for part in parts] == [source.num_examples(split) for split in splits]
  assert pickle.loads(pickle.dumps(parts[1]))[0] == parts[1][0]


def test_both_formats_have_one_fingerprint_and_array_record_is_preferred(tmp_path, no_network):
  name = 'cnn_dailymail:3.4.0'
  prepare(tmp_path / 'a', name, 'array_record')
  rows = prepare(tmp_path / 'b', name, 'tfrecord')
  array_record, both = (sources.TfdsSource(name, data_dir=str(tmp_path / x)) for x in 'ab')
  assert array_record.fingerprint('train') == both.fingerprint('train')
  info_path = both.folder() / 'dataset_info.json'
  info = json.loads(info_path.read_text())
  info_path.write_text(json.dumps({**info, 'alternativeFileFormats': ['array_record']}))
  for shard in array_record.folder().glob('*.array_record*'):
    (both.folder() / shard.name).write_bytes(shard.read_bytes())
  for shard in both.folder().glob('*.tfrecord*'):
    shard.unlink()
  assert prepared.file_format(both.folder()) == 'array_record'
  assert both.random_access('train')[4] == rows[4]


def test_damaged_shards_are_named(tmp_path, no_network):
  name = 'c4/en:3.1.0'
  prepare(tmp_path, name, 'tfrecord')
  source = sources.TfdsSource(name, data_dir=str(tmp_path))
  shards = sorted(source.folder().glob('*.tfrecord*'))

  def message(index):
    with pytest.raises(errors.UsageError) as caught:
      source.random_access('train').__getitems__([0, index])
    assert '\n' not in str(caught.value)
    return str(caught.value)

  data = bytearray(shards[1].read_bytes())
  data[20] ^= 4
  shards[1].write_bytes(data)
  assert f'{shards[1]}: record 0: bad CRC' in message(2)
  shards[1].write_bytes(data[:-1])
  tfds_records._shard.cache_clear()
  assert f'{shards[1]}: record 1: truncated' in message(3)
  tfrecord.write_records(shards[1], [b'only one'])
  tfds_records._shard.cache_clear()
  assert f'{shards[1]} holds 1 records, but {source.folder()}/dataset_info.json says 2' in message(3)
  tfrecord.write_records(shards[1], [b'no example', b'\xff'])
  tfds_records._shard.cache_clear()
  assert f'{shards[1]}: record 1: ' in message(3)
  shards[2].unlink()
  assert f'{shards[2].name} is missing' in message(0)


def test_text_that_is_not_utf8_names_file_and_record(tmp_path, no_network):
  name = 'wmt14_translate/de-en:1.0.0'
  prepare(tmp_path, name, 'tfrecord')
  source = sources.TfdsSource(name, data_dir=str(tmp_path))
  shard = sorted(source.folder().glob('*.tfrecord*'))[0]
  first, second = tfrecord.TFRecordFile(shard)
  tfrecord.write_records(shard, [first, second.replace('ß'.encode(), b'\xff\xff')])
  tfds_records._shard.cache_clear()
  with pytest.raises(errors.UsageError, match=f'{shard}: record 1: invalid UTF-8 at byte 4'):
    source.random_access('train')[1]


@pytest.mark.parametrize('name', [name for name in SETS if not name.startswith('super_glue')])
def test_mocked_builders_give_text(no_network, name):
  import tensorflow_datasets as tfds

  features_of(name)
  with tfds.testing.mock_data(num_examples=3):
    records = tfds_records.TfdsSplit(tfds.builder(name).as_data_source(split='train'))
    assert len(records) == 3
    for record in records.__getitems__([2, 0]):
      assert set(record) == set(SETS[name])
      for key, value in SETS[name].items():
        expected = dict if isinstance(value, list) and key.endswith('answers') and 'squad' in name else type(value)
        assert isinstance(record[key], expected), key


def test_no_tensorflow(tmp_path, no_network):
  prepare(tmp_path, 'c4/en:3.1.0', 'tfrecord')
  program = (
    'import sys; from t5x_lite.data import sources; '
    f'assert sources.TfdsSource("c4/en", {str(tmp_path)!r}).random_access("train")[1]["text"].endswith("Naïve. 1"); '
    'assert "tensorflow" not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', program], check=True, timeout=60)
