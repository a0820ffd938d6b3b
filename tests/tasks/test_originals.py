"""Tasks over the authors' own files: the same tasks, and clear errors for what is missing or malformed."""

import gzip
import importlib.util
import json
import os
import pathlib

import pytest

from t5x_lite.core import errors
from t5x_lite.data import task
from t5x_lite.tasks import glue, originals, race, squad, super_glue  # noqa: F401

_SPEC = importlib.util.spec_from_file_location(
  'original_folders', pathlib.Path(__file__).with_name('original_folders.py')
)
folders = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(folders)


def test_files_may_be_gzipped(tmp_path):
  (tmp_path / 'train.tsv.gz').write_bytes(gzip.compress(folders.GLUE['sst2']['train.tsv'].encode()))
  (tmp_path / 'train-v1.1.json.gz').write_bytes(gzip.compress(json.dumps(folders.SQUAD).encode()))
  assert [row['sentence'] for row in folders.records('glue_sst2', tmp_path)] == ['fine ', 'bad']
  assert len(folders.records('squad', tmp_path)) == 2


def test_a_task_over_its_files_is_the_task_else(tmp_path):
  folder = folders.write(tmp_path, folders.GLUE['sst2'])
  known, entry = task.get('glue_sst2'), originals.original('glue_sst2', folder)
  assert entry.name == known.name and entry.metrics == known.metrics and entry.splits == known.splits
  assert [list(entry.examples(row)) for row in folders.records('glue_sst2', folder)] == [
    [{'inputs': 'sst2 sentence: fine ', 'targets': 'positive'}],
    [{'inputs': 'sst2 sentence: bad', 'targets': 'negative'}],
  ]
  assert set(entry.source.splits) == {'train', 'validation', 'test'}


def test_the_fingerprint_is_that_of_the_records(tmp_path):
  first, same, other = (tmp_path / name for name in ('first', 'same', 'other'))
  folders.write(first, folders.GLUE['rte'])
  folders.write(same, {**folders.GLUE['rte'], 'notes.txt': 'x'})
  folders.write(other, {**folders.GLUE['rte'], 'dev.tsv': folders.PAIRS.replace('A b.', 'A c.')})
  prints = [originals.original('glue_rte', str(folder)).source for folder in (first, same, other)]
  assert prints[0].fingerprint() == prints[1].fingerprint() != prints[2].fingerprint()
  assert prints[0].fingerprint('train') == prints[2].fingerprint('train') != prints[2].fingerprint('validation')


def test_what_is_not_there_is_told(tmp_path):
  assert f'{tmp_path} has no test.tsv (nor .gz)' in folders.message(folders.records, 'glue_cola', tmp_path, 'test')
  assert 'has no train.tsv or msr_paraphrase_train.txt' in folders.message(folders.records, 'glue_mrpc', tmp_path)
  assert 'does not exist' in folders.message(folders.records, 'glue_cola', tmp_path / 'nowhere')
  assert 'has no dev/high/*.txt, nor a tar.gz' in folders.message(folders.records, 'race_high', tmp_path, 'dev')
  assert "did you mean 'glue_cola'?" in folders.message(originals.original, 'glue_colla', str(tmp_path))
  assert "did you mean 'validation'?" in folders.message(folders.records, 'glue_cola', tmp_path, 'validatoin')
  assert 'unknown task with original files' in folders.message(
    originals.original, 'glue_v002_proportional', str(tmp_path)
  )


@pytest.mark.parametrize(
  ('name', 'file', 'content', 'expected'),
  [
    ('glue_rte', 'train.tsv', folders.PAIRS + '2\tE\tF\n', 'line 4 has 3 columns, expected 4'),
    (
      'glue_rte',
      'train.tsv',
      folders.PAIRS.replace('not_entailment', 'maybe'),
      "line 3 has the label 'maybe': expected one of",
    ),
    ('glue_wnli', 'train.tsv', folders.PAIRS.replace('not_entailment', '2'), "line 3 has the label '2'"),
    ('glue_stsb', 'train.tsv', folders.GLUE['stsb']['train.tsv'].replace('3.250', 'x'), "label 'x': expected a number"),
    ('glue_sst2', 'train.tsv', 'text\tlabel\na\t1\n', "line 2 has no 'sentence': found text, label"),
    ('super_glue_cb', 'train.jsonl', '\n{"premise": "a"', 'line 2 is not JSON'),
    ('super_glue_cb', 'train.jsonl', '{"premise": "a", "idx": 0}', "line 1 lacks 'hypothesis'"),
    ('super_glue_cb', 'train.jsonl', '[1]', 'line 1 holds a JSON list, expected an object'),
    (
      'super_glue_copa',
      'train.jsonl',
      folders.json_lines([{**folders.SUPER_GLUE['copa'][0], 'label': 2}]),
      'label 2, expected one of',
    ),
    ('super_glue_record', 'train.jsonl', '{"idx": 1, "passage": "text", "qas": []}', 'line 1 is malformed'),
    ('squad', 'train-v1.1.json', '{"data": [\n', 'is not JSON'),
    ('squad', 'train-v1.1.json', '{"version": 1}', "at its top lacks 'data'"),
    ('squad', 'train-v1.1.json', json.dumps(folders.SQUAD).replace('"question"', '"q"'), 'article 0, paragraph 0'),
    ('race_high', 'train/high/1.txt', '{', '1.txt is malformed'),
    ('race_high', 'train/high/1.txt', '{"article": ""}', "1.txt lacks 'questions'"),
    ('race_high', 'train/high/1.txt', json.dumps({**folders.RACE, 'answers': [], 'id': ''}), '1.txt is malformed'),
  ],
)
def test_malformed_files_are_told_with_their_place(name, file, content, expected, tmp_path):
  folders.write(tmp_path, {file: content})
  text = folders.message(folders.records, name, tmp_path)
  assert expected in text and str(tmp_path / file) in text


def test_another_layout_than_the_authors_is_one_line(tmp_path):
  def reader(folder, split):
    yield {'text': {}[split]}

  source = originals.OriginalSource(reader, str(tmp_path), ('train',))
  with pytest.raises(errors.UsageError, match=r"split 'train': the files are malformed \(KeyError 'train'\)"):
    source.random_access('train')


def test_bytes_that_are_no_text_and_cut_archives_are_told(tmp_path):
  (tmp_path / 'train.tsv').write_bytes(b'sentence\tlabel\nfine\t1\n\xff\xfe\t0\n')
  assert 'train.tsv, line 3 is not UTF-8' in folders.message(folders.records, 'glue_sst2', tmp_path)
  other = tmp_path / 'cut'
  other.mkdir()
  (other / 'train.tsv.gz').write_bytes(gzip.compress(b'sentence\tlabel\n' + b'fine\t1\n' * 1000)[:-12])
  assert f'cannot read {other}/train.tsv.gz' in folders.message(folders.records, 'glue_sst2', other)
  whole = bytearray(gzip.compress(b'sentence\tlabel\n' + b''.join(b'fine %d\t1\n' % n for n in range(5000))))
  whole[len(whole) // 2 : len(whole) // 2 + 40] = b'\xff' * 40
  (other / 'train.tsv.gz').write_bytes(whole)
  assert f'cannot read {other}/train.tsv.gz' in folders.message(folders.records, 'glue_sst2', other)
  (other / 'RACE.tar.gz').write_bytes(b'no archive')
  assert f'cannot read {other}/RACE.tar.gz' in folders.message(folders.records, 'race_high', other)


# The folder T5X_LITE_REAL_DATA: for each task its folder there, the names that its files should have, and how many
# records they hold.
REAL = {
  'glue_cola': ('glue/CoLA', {}, {'train': 2500}),
  'glue_mnli': ('glue/MNLI', {}, {'train': 48}),
  'glue_mrpc': ('glue/MRPC', {}, {'train': 1500}),
  'glue_qnli': ('glue/QNLI', {}, {'train': 1500}),
  'glue_qqp': ('glue/QQP', {}, {'train': 30}),
  'glue_rte': ('glue/RTE', {}, {'train': 1200}),
  'glue_sst2': ('glue/SST-2', {}, {'train': 3000}),
  'glue_stsb': ('glue/STS-B', {}, {'train': 2000}),
  'glue_wnli': ('glue/WNLI', {}, {'train': 518}),
  'super_glue_boolq': ('superglue/BoolQ', {'val_part.jsonl': 'val.jsonl'}, {'train': 32, 'validation': 600}),
  'super_glue_cb': ('superglue/CB', {}, {'train': 32}),
  'super_glue_copa': ('superglue/COPA', {}, {'train': 24}),
  'super_glue_multirc': ('superglue/MultiRC', {}, {'train': 111}),
  'super_glue_record': ('superglue/ReCoRD', {}, {'train': 24}),
  'super_glue_rte': ('superglue/RTE', {}, {'train': 400}),
  'super_glue_wic': ('superglue/WiC', {'val_part.jsonl': 'val.jsonl'}, {'train': 32, 'validation': 200}),
  'super_glue_wsc': ('superglue/WSC', {}, {'train': 554}),
  'squad': ('squad', {}, {'train': 994}),
  'squad_v2': ('squad', {}, {'train': 2003}),
  'race_middle': ('race', {}, {'train': 160}),
}
REAL_EXAMPLES = {'super_glue_record': 34, 'super_glue_wsc': 259, 'race_middle': 612}  # else one to a record


@pytest.mark.real_data
@pytest.mark.skipif('T5X_LITE_REAL_DATA' not in os.environ, reason='T5X_LITE_REAL_DATA is not set')
@pytest.mark.parametrize('name', REAL)
def test_published_files_are_read_by_their_tasks(name, tmp_path):
  folder, renamed, counts = REAL[name]
  for path in pathlib.Path(os.environ['T5X_LITE_REAL_DATA'], folder).iterdir():
    (tmp_path / renamed.get(path.name, path.name)).symlink_to(path.resolve())
  entry = originals.original(name, str(tmp_path))
  for split, count in counts.items():
    rows = folders.records(name, tmp_path, split)
    assert len(rows) == count
    examples = [example for row in rows for example in entry.examples(row)]
    assert len(examples) == (REAL_EXAMPLES.get(name, count) if split == 'train' else count)
    assert all(example['inputs'].strip() and example['targets'].strip() for example in examples)
    assert '<unk>' not in {example['targets'] for example in examples}
    for row in rows:
      for example in entry.encoder_examples(row):
        assert_is_answered(entry.encoder, example)
    if entry.encoder.head == 'classification' and entry.name != 'super_glue_wsc':
      assert {example['targets'] for example in examples} == set(entry.encoder.labels)


def assert_is_answered(encoder, example):
  assert example['text'].strip() and example.get('pair', 'x').strip()
  if encoder.head == 'span':
    for answer, start in zip(example['answers'], example['starts'], strict=True):
      assert answer and example['pair'][start:].startswith(answer)
  elif encoder.head == 'multiple_choice':
    assert 0 <= example['label'] < len(example['choices']) and all(choice.strip() for choice in example['choices'])
  elif encoder.head == 'classification':
    assert 0 <= example['label'] < len(encoder.labels)
  else:
    assert 0.0 <= example['label'] <= 5.0
