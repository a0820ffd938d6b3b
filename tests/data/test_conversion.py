"""TFRecord to ArrayRecord: the same records, a complete data set or none, no shard written twice."""

import json

import pytest

from t5x_lite.core import errors
from t5x_lite.data import prepared, sources
from t5x_lite.data.formats import array_records, tfrecord
from t5x_lite.data.preparation import conversion, shard_jobs

NAME = 'tiny/en:1.0.0'
TEXTS = [f'Document {i}: naïve café №{i}.' for i in range(7)]


@pytest.fixture
def original(tmp_path, monkeypatch):
  """The version folder of a set in three TFRecord files and, for another split, one; written by TFDS's own code."""
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import dataset_info, naming

  folder = tmp_path / 'old' / 'tiny' / 'en' / '1.0.0'
  folder.mkdir(parents=True)
  identity = dataset_info.DatasetIdentity(
    name='tiny', config_name='en', version='1.0.0', data_dir=str(folder), module_name='tiny'
  )
  features = tfds.features.FeaturesDict(
    {'text': tfds.features.Text(), 'label': tfds.features.ClassLabel(names=['no', 'yes'])}
  )
  info = tfds.core.DatasetInfo(builder=identity, features=features)
  info.set_file_format('tfrecord')
  splits = []
  for split, sizes in (('train', [3, 3, 1]), ('validation', [2])):
    template = naming.ShardedFileTemplate(data_dir=folder, dataset_name='tiny', filetype_suffix='tfrecord', split=split)
    examples = iter([features.serialize_example({'text': text, 'label': i % 2}) for i, text in enumerate(TEXTS)])
    for number, size in enumerate(sizes):
      path = template.sharded_filepath(shard_index=number, num_shards=len(sizes))
      tfrecord.write_records(path, [next(examples) for _ in range(size)])
    splits.append(tfds.core.SplitInfo(name=split, shard_lengths=sizes, num_bytes=100, filename_template=template))
  info.set_splits(tfds.core.splits.SplitDict(splits))
  info.write_to_directory(folder)
  return folder


def convert(tmp_path, **options):
  return conversion.to_array_record(NAME, str(tmp_path / 'new'), data_dir=str(tmp_path / 'old'), **options)


def read(data_dir, split='train'):
  records = sources.TfdsSource(NAME, data_dir=str(data_dir)).random_access(split)
  return records.__getitems__(range(len(records)))


@pytest.mark.parametrize('workers', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_same_records_in_array_record_files(tmp_path, original, workers, capsys):
  folder = convert(tmp_path, workers=workers)
  assert folder == tmp_path / 'new' / 'tiny' / 'en' / '1.0.0'
  assert prepared.file_format(folder) == 'array_record'
  for split in ('train', 'validation'):
    assert read(tmp_path / 'new', split) == read(tmp_path / 'old', split)
  assert [record['text'] for record in read(tmp_path / 'new')] == TEXTS
  names = {path.name for path in folder.iterdir()}
  assert {'dataset_info.json', 'features.json', 'label.labels.txt', 'tiny-train.array_record-00002-of-00003'} <= names
  assert not any('tfrecord' in name or name.startswith('.') for name in names)
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 4 and lines[-1].endswith('shard 4 of 4')
  old, new = (sources.TfdsSource(NAME, data_dir=str(tmp_path / side)).fingerprint() for side in ('old', 'new'))
  assert old == new, 'a run may go on with the converted set'


def test_a_damaged_shard_stops_it_and_the_finished_shards_stay(tmp_path, original, capsys):
  shard = original / 'tiny-train.tfrecord-00001-of-00003'
  whole = shard.read_bytes()
  shard.write_bytes(whole[:-9] + b'x' + whole[-8:])
  with pytest.raises(errors.UsageError, match=r'tiny-train.tfrecord-00001-of-00003: record 2: bad CRC'):
    convert(tmp_path, workers=1)
  folder = tmp_path / 'new' / 'tiny' / 'en' / '1.0.0'
  first = folder / 'tiny-train.array_record-00000-of-00003'
  written = first.stat()
  assert [path.name for path in folder.glob('tiny-*')] == [first.name], 'whole shards only'
  with pytest.raises(errors.UsageError, match='not prepared to the end'):
    sources.TfdsSource(NAME, data_dir=str(tmp_path / 'new')).folder()
  shard.write_bytes(whole)
  capsys.readouterr()
  convert(tmp_path, workers=1)
  assert '1 of 4 shards are there already' in capsys.readouterr().out
  assert (first.stat().st_ino, first.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
  assert read(tmp_path / 'new') == read(tmp_path / 'old')
  convert(tmp_path, workers=1)
  assert not capsys.readouterr().out, 'nothing left to do'


def test_a_shard_that_is_short_of_records(tmp_path, original):
  shard = original / 'tiny-train.tfrecord-00000-of-00003'
  tfrecord.write_records(shard, [tfrecord.TFRecordFile(shard)[0]])
  with pytest.raises(errors.UsageError, match=r'00000-of-00003 holds 1 records, but dataset_info.json says 3'):
    convert(tmp_path, workers=1)


def test_a_finished_set_is_verified_again(tmp_path, original):
  folder = convert(tmp_path, workers=1)
  array_records.write_records(folder / 'tiny-train.array_record-00000-of-00003', [b'one'])
  with pytest.raises(errors.UsageError, match='holds 1 records, expected 3'):
    convert(tmp_path, workers=1)


def test_what_cannot_be_converted(tmp_path, original):
  convert(tmp_path, workers=1)
  with pytest.raises(errors.UsageError, match='in array_record files already'):
    conversion.to_array_record(NAME, str(tmp_path / 'x'), data_dir=str(tmp_path / 'new'))
  with pytest.raises(errors.UsageError, match='another data dir'):
    conversion.to_array_record(NAME, str(tmp_path / 'old'), data_dir=str(tmp_path / 'old'))
  with pytest.raises(errors.UsageError, match='found tiny'):
    conversion.to_array_record('tinny/en', str(tmp_path / 'x'), data_dir=str(tmp_path / 'old'))


def write_job(job, path):
  path.write_text(job.file)
  return {'bytes': len(job.file)}


def test_shards_of_another_plan_are_not_mixed(tmp_path):
  jobs = [shard_jobs.Job('a', 1), shard_jobs.Job('b', 2)]

  def fail(job, path):
    write_job(job, path)
    if job.file == 'b':
      raise KeyboardInterrupt
    return {}

  with pytest.raises(KeyboardInterrupt):
    shard_jobs.run(tmp_path, {'of': 1, 'by': 2}, jobs, fail, lambda facts: None, workers=1)
  with pytest.raises(errors.UsageError, match='differs in by'):
    shard_jobs.run(tmp_path, {'of': 1, 'by': 3}, jobs, write_job, lambda facts: None, workers=1)
  found = []
  shard_jobs.run(tmp_path, {'of': 1, 'by': 2}, jobs, write_job, found.extend, workers=1)
  assert found == [{}, {'bytes': 1}] and sorted(path.name for path in tmp_path.iterdir()) == ['a', 'b']


def test_only_one_at_a_time(tmp_path):
  jobs = [shard_jobs.Job('a', 1)]

  def again(facts):
    shard_jobs.run(tmp_path, {}, jobs, write_job, json.dumps, workers=1)

  with pytest.raises(errors.UsageError, match='another process is preparing'):
    shard_jobs.run(tmp_path, {}, jobs, write_job, again, workers=1)
  with pytest.raises(errors.UsageError, match='got 0 workers'):
    shard_jobs.run(tmp_path, {}, jobs, write_job, json.dumps, workers=0)
