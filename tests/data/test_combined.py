"""Several sources in one, and the folders of Hugging Face's library."""

import json

import pyarrow as pa
import pytest

from t5x_lite import inspect_data
from t5x_lite.core import errors
from t5x_lite.data import combined, files, huggingface_datasets


def message(function, *args, **options):
  with pytest.raises(errors.UsageError) as caught:
    function(*args, **options)
  assert '\n' not in str(caught.value)
  return str(caught.value)


@pytest.fixture
def parts(tmp_path):
  """Two sources: `a` with train and validation, `b` with train alone."""
  for name, count in {'a': 3, 'held': 2, 'b': 4}.items():
    (tmp_path / f'{name}.txt').write_text(''.join(f'{name}{i}\n' for i in range(count)))
  first = files.FilesSource({'train': f'{tmp_path}/a.txt', 'validation': f'{tmp_path}/held.txt'})
  return first, files.FilesSource(f'{tmp_path}/b.txt')


def test_one_after_the_other(parts):
  source = combined.CombinedSource(parts)
  records = source.random_access('train')
  expected = ['a0', 'a1', 'a2', 'b0', 'b1', 'b2', 'b3']
  assert source.splits == ('train',)
  assert source.num_examples('train') == len(records) == 7
  assert [records[i]['text'] for i in range(7)] == expected
  assert [record['text'] for record in records.__getitems__([6, 0, 3, 3, 2])] == [expected[i] for i in (6, 0, 3, 3, 2)]
  with pytest.raises(IndexError):
    records[7]
  assert 'unknown split of the files' in message(source.random_access, 'validation')


def test_named_splits(parts):
  source = combined.CombinedSource(parts, {'train': ('train', 'train'), 'test': ('validation', None)})
  assert source.splits == ('train', 'test') and source.num_examples('test') == 2
  assert "did you mean 'test'" in message(source.num_examples, 'tests')
  assert 'expected what each of them calls it' in message(combined.CombinedSource, parts, {'train': ('train',)})
  assert 'got no sources' in message(combined.CombinedSource, ())


def test_what_is_skipped_adds_up(parts, tmp_path):
  (tmp_path / 'bad.jsonl').write_bytes(b'{"text": "x"}\n{\n')
  bad = files.FilesSource(f'{tmp_path}/bad.jsonl', skip_bad=True)
  assert combined.CombinedSource((bad, parts[0], bad)).random_access('train').skipped == {'not JSON': 2}


def test_the_fingerprint_follows_the_parts_and_their_order(parts):
  one, other = (combined.CombinedSource(order) for order in (parts, parts[::-1]))
  assert one.fingerprint('train') == combined.CombinedSource(parts).fingerprint('train') != other.fingerprint('train')


ROWS = [
  {'text': f'Ünï {i}', 'label': i % 3, 'translation': {'de': 'a', 'en': f'{i}'}, 'tags': ['x'] * i} for i in range(7)
]


def write_arrow(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  table = pa.Table.from_pylist(rows)
  with pa.OSFile(str(path), 'wb') as out, pa.ipc.new_stream(out, table.schema) as stream:
    stream.write_table(table, max_chunksize=2)


def save(folder, split, rows):
  """One split as `Dataset.save_to_disk` lays it out, in two shards."""
  names = [f'data-{i:05}-of-00002.arrow' for i in range(2)]
  for name, part in zip(names, (rows[:3], rows[3:]), strict=True):
    write_arrow(folder / name, part)
  state = {'_data_files': [{'filename': name} for name in names], '_split': split, '_fingerprint': '0'}
  (folder / 'state.json').write_text(json.dumps(state))
  (folder / 'dataset_info.json').write_text('{}')


def test_save_to_disk(tmp_path):
  folder = tmp_path / 'dict'
  for split in ('train', 'validation'):
    save(folder / split, split, ROWS)
  (folder / 'dataset_dict.json').write_text('{"splits": ["train", "validation"]}')
  source = huggingface_datasets.HuggingFaceSource(str(folder))
  assert source.splits == ('train', 'validation') and source.num_examples('validation') == 7
  records = source.random_access('validation')
  assert list(records) == ROWS and records.__getitems__([6, 2]) == [ROWS[6], ROWS[2]]
  single = huggingface_datasets.HuggingFaceSource(str(folder / 'train'))
  assert single.splits == ('train',) and list(single.random_access('train')) == ROWS
  assert single.fingerprint('train') == source.fingerprint('train')
  assert "did you mean 'train'" in message(source.random_access, 'trains')
  (folder / 'train' / 'data-00001-of-00002.arrow').unlink()
  assert 'data-00001-of-00002.arrow is missing' in message(source.num_examples, 'train')


def test_the_cache_of_datasets(tmp_path):
  folder = tmp_path / 'glue/sst2/0.0.0/abc'
  write_arrow(folder / 'glue-train-00000-of-00002.arrow', ROWS[:3])
  write_arrow(folder / 'glue-train-00001-of-00002.arrow', ROWS[3:])
  write_arrow(folder / 'glue-validation_matched.arrow', ROWS)
  write_arrow(folder / 'cache-0123456789abcdef.arrow', ROWS)
  source = huggingface_datasets.HuggingFaceSource(str(folder))
  assert source.splits == ('train', 'validation_matched')
  assert list(source.random_access('train')) == list(source.random_access('validation_matched')) == ROWS
  (folder / 'glue-train-00001-of-00002.arrow').unlink()
  assert 'got 1 Arrow files, expected 2' in message(source.num_examples, 'train')


def test_other_folders(tmp_path):
  assert 'no data set of Hugging Face in' in message(
    lambda: huggingface_datasets.HuggingFaceSource(str(tmp_path)).splits
  )
  save(tmp_path, 'train', ROWS)
  state = json.loads((tmp_path / 'state.json').read_text())
  (tmp_path / 'state.json').write_text(json.dumps({**state, '_indices_data_files': [{'filename': 'indices.arrow'}]}))
  assert 'flatten_indices()' in message(lambda: huggingface_datasets.HuggingFaceSource(str(tmp_path)).splits)


def test_a_gin_file_reads_a_data_set(tmp_path, capsys):
  """With a vocabulary and a model; the splits may have other names, and the fields too."""
  save(tmp_path / 'set', 'train_sft', ROWS)

  def shown(*flags):
    arguments = ['--gin_file=t5_tiny.gin', '--gin_file=data/huggingface.gin', f'--gin.HF_DIRECTORY={tmp_path}/set']
    arguments += ["--gin.huggingface.splits={'train': 'train_sft'}", '--gin.BATCH_SIZE=2', '--num=1', '--json', *flags]
    code = inspect_data.main(['inspect_data', *arguments])
    out, err = capsys.readouterr()
    return json.loads(out) if code == 0 else (code, err)

  (example,) = shown('--gin.huggingface.inputs_field=text', '--gin.huggingface.targets_field=label')['examples']
  (document,) = example['documents']
  row = ROWS[document['record']]
  assert document['texts'] == [{'inputs': row['text'], 'targets': str(row['label'])}]
  assert shown()['tasks'][0]['records'] == len(ROWS)
  code, told = shown('--gin.huggingface.text_field=tekst')
  assert code == 2 and "did you mean 'text'?" in told and told.count('\n') == 1
  code, told = shown('--gin.huggingface.inputs_field=text')
  assert code == 2 and 'expected both or neither' in told


def test_a_share_of_a_data_set_is_held_out(tmp_path):
  save(tmp_path, 'train', ROWS)
  task = huggingface_datasets.huggingface(str(tmp_path), validation_share=0.5)
  found = [list(task.source.random_access(split)) for split in ('train', 'validation')]
  assert sorted(row['text'] for rows in found for row in rows) == sorted(row['text'] for row in ROWS)
  assert all(found) and not task.supervised
