"""GLUE's own files: the same records as TFDS makes of them."""

import importlib.util
import pathlib
import warnings

import pytest

from t5x_lite.tasks import glue  # noqa: F401

_SPEC = importlib.util.spec_from_file_location(
  'original_folders', pathlib.Path(__file__).with_name('original_folders.py')
)
folders = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(folders)

TFDS_SPLITS = {
  'train.tsv': 'train',
  'dev.tsv': 'validation',
  'test.tsv': 'test',
  'dev_matched.tsv': 'validation_matched',
  'dev_mismatched.tsv': 'validation_mismatched',
}
MSR = 'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t10\t11\tHe "said.\tHe spoke.\n0\t20\t21\tA\tB\n'


def tfds_glue(config, path, split):
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    from tensorflow_datasets.text import glue as tfds_module

  builder = tfds_module.Glue(config=config, data_dir='/nonexistent')
  names = {'validation': 'dev', **({'validation_mismatched': 'dev'} if config == 'mnli_mismatched' else {})}
  made = [
    builder.info.features.encode_example(row) for _, row in builder._generate_examples(path, names.get(split, split))
  ]
  return [{field: value if field != 'label' else float(value) for field, value in row.items()} for row in made]


@pytest.mark.parametrize(
  ('config', 'file'), [(config, file) for config in folders.GLUE for file in folders.GLUE[config]]
)
def test_glue_is_read_as_tfds_reads_it(config, file, tmp_path):
  folder = folders.write(tmp_path, folders.GLUE[config])
  split = TFDS_SPLITS[file]
  got = folders.records(f'glue_{config}', folder, split)
  assert got and [{**row, 'label': float(row['label'])} for row in got] == tfds_glue(config, tmp_path / file, split)


def test_mrpc_comes_as_microsoft_or_as_glue_publishes_it(tmp_path):
  (tmp_path / 'msr').mkdir()
  (tmp_path / 'msr' / 'msr_paraphrase_train.txt').write_text('\ufeff' + MSR.replace('\n', '\r\n'), encoding='utf-8')
  assert [row['sentence1'] for row in folders.records('glue_mrpc', tmp_path / 'msr')] == ['He "said.', 'A']
  assert 'has no dev_ids.tsv' in folders.message(folders.records, 'glue_mrpc', tmp_path / 'msr', 'validation')
  both = folders.write(
    tmp_path / 'both', {'msr_paraphrase_train.txt': MSR, 'dev_ids.tsv': '20\t21\n', 'msr_paraphrase_test.txt': MSR}
  )
  first = {'sentence1': 'He "said.', 'sentence2': 'He spoke.', 'label': 1, 'idx': 0}
  second = {'sentence1': 'A', 'sentence2': 'B', 'label': 0, 'idx': 1}
  assert folders.records('glue_mrpc', both) == [first]
  assert folders.records('glue_mrpc', both, 'validation') == [second]
  assert folders.records('glue_mrpc', both, 'test') == [first, second]
  assert folders.records('glue_mrpc', folders.write(tmp_path / 'glue', {'dev.tsv': MSR}), 'validation') == [
    first,
    second,
  ]


def test_the_diagnostics_have_no_labels(tmp_path):
  folder = folders.write(tmp_path, {'diagnostic.tsv': 'index\tsentence1\tsentence2\n0\tA.\tB.\n'})
  assert folders.records('glue_ax', folder, 'test') == [{'premise': 'A.', 'hypothesis': 'B.', 'label': -1, 'idx': 0}]
