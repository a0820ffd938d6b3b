"""GLUE: T5's wording, the classes that BERT learns, and the schema and the names of TFDS."""

import importlib.util
import pathlib
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_lite.data import dataset_config, mixtures, prepared, task
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.metrics import registry
from t5x_lite.tasks import glue

_SPEC = importlib.util.spec_from_file_location('tfds_sets', pathlib.Path(__file__).with_name('tfds_sets.py'))
tfds_sets = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tfds_sets)

# A record of each task, and the example that T5 makes of it: appendix D of the paper, or its published code where the
# paper has none.
EXAMPLES = {
  'glue_cola': (
    {'sentence': 'John made Bill master of himself.', 'label': 1, 'idx': 0},
    ('cola sentence: John made Bill master of himself.', 'acceptable'),
    {'text': 'John made Bill master of himself.', 'label': 1},
  ),
  'glue_sst2': (
    {'sentence': "it confirms fincher 's status as a film maker", 'label': 1, 'idx': 0},
    ("sst2 sentence: it confirms fincher 's status as a film maker", 'positive'),
    {'text': "it confirms fincher 's status as a film maker", 'label': 1},
  ),
  'glue_mrpc': (
    {'sentence1': 'We acted.', 'sentence2': 'We did not act.', 'label': 0, 'idx': 0},
    ('mrpc sentence1: We acted. sentence2: We did not act.', 'not_equivalent'),
    {'text': 'We acted.', 'pair': 'We did not act.', 'label': 0},
  ),
  'glue_qqp': (
    {'question1': 'Why bored?', 'question2': 'Why get bored?', 'label': 1, 'idx': 10},
    ('qqp question1: Why bored? question2: Why get bored?', 'duplicate'),
    {'text': 'Why bored?', 'pair': 'Why get bored?', 'label': 1},
  ),
  'glue_stsb': (
    {'sentence1': 'A plane.', 'sentence2': 'An air plane.', 'label': np.float32(3.25), 'idx': 0},
    ('stsb sentence1: A plane. sentence2: An air plane.', '3.2'),
    {'text': 'A plane.', 'pair': 'An air plane.', 'label': 3.25},
  ),
  'glue_mnli': (
    {'premise': 'yeah well losing is', 'hypothesis': 'They always won.', 'label': 2, 'idx': 0},
    ('mnli hypothesis: They always won. premise: yeah well losing is', 'contradiction'),
    {'text': 'yeah well losing is', 'pair': 'They always won.', 'label': 2},
  ),
  'glue_qnli': (
    {'question': 'Where did it arrive?', 'sentence': 'It came from London.', 'label': 1, 'idx': 0},
    ('qnli question: Where did it arrive? sentence: It came from London.', 'not_entailment'),
    {'text': 'Where did it arrive?', 'pair': 'It came from London.', 'label': 1},
  ),
  'glue_rte': (
    {'sentence1': 'A smaller part.', 'sentence2': 'A part.', 'label': 0, 'idx': 0},
    ('rte sentence1: A smaller part. sentence2: A part.', 'entailment'),
    {'text': 'A smaller part.', 'pair': 'A part.', 'label': 0},
  ),
  'glue_wnli': (
    {'sentence1': 'He is tall.', 'sentence2': 'Bob is tall.', 'label': 0, 'idx': 0},
    ('wnli sentence1: He is tall. sentence2: Bob is tall.', 'not_entailment'),
    {'text': 'He is tall.', 'pair': 'Bob is tall.', 'label': 0},
  ),
}
NAMES = (*EXAMPLES, 'glue_mnli_matched', 'glue_mnli_mismatched', 'glue_ax')


def known(name):
  return EXAMPLES[name if name in EXAMPLES else 'glue_mnli']


@pytest.mark.parametrize('name', NAMES)
def test_the_wording_is_that_of_t5(name):
  record, (inputs, targets), _ = known(name)
  assert list(task.get(name).examples(record)) == [{'inputs': inputs, 'targets': targets}]


@pytest.mark.parametrize('name', NAMES)
def test_heads_read_the_texts_in_the_order_of_bert(name):
  record, _, expected = known(name)
  assert list(task.get(name).encoder_examples(record)) == [expected]


@pytest.mark.parametrize('name', [name for name in NAMES if name != 'glue_stsb'])
def test_what_is_written_right_is_the_reference_and_what_is_no_label_is_never(name):
  entry, record = task.get(name), known(name)[0]
  for label, text in enumerate(entry.encoder.labels):
    labelled = {**record, 'label': np.int64(label)}
    assert [example['targets'] for example in entry.examples(labelled)] == [text]
    assert entry.postprocess(text) == entry.postprocess(f' {text}') == entry.reference(labelled) == label
  assert entry.postprocess('') == entry.postprocess('<unk>') == entry.postprocess('entail') == -1
  assert [example['targets'] for example in entry.examples({**record, 'label': -1})] == ['<unk>']


@pytest.mark.parametrize('name', NAMES)
def test_metrics_exist_and_all_right_is_a_hundred(name):
  entry, record = task.get(name), known(name)[0]
  if name == 'glue_stsb':
    references = [0.0, 2.5, 5.0]
  else:
    references = [entry.reference({**record, 'label': label}) for label in range(len(entry.encoder.labels))]
  for metric in entry.metrics:
    assert all(value == pytest.approx(100) for value in registry.get(metric)(references, references).values())


def test_metrics_are_those_of_the_benchmark():
  found = {name.removeprefix('glue_'): task.get(name).metrics for name in NAMES}
  assert found == {
    'cola': ('matthews_corrcoef',),
    'mrpc': ('f1', 'accuracy'),
    'qqp': ('f1', 'accuracy'),
    'stsb': ('pearson_corrcoef', 'spearman_corrcoef'),
    'ax': (),  # there are no labels
    **dict.fromkeys(('sst2', 'mnli', 'mnli_matched', 'mnli_mismatched', 'qnli', 'rte', 'wnli'), ('accuracy',)),
  }


@settings(deadline=None)
@given(st.floats(0, 5, width=32))
def test_grades_are_written_in_steps_of_a_fifth(grade):
  written = glue.stsb({'sentence1': '', 'sentence2': '', 'label': grade})['targets']
  assert abs(glue.grade(written) - grade) <= 0.1 + 1e-6
  assert float(written) * 5 == pytest.approx(round(float(written) * 5)) and len(written) == 3


@pytest.mark.parametrize('text', ['', 'five', 'nan', 'inf', '1.8.'])
def test_what_is_no_grade_is_minus_one(text):
  assert glue.grade(text) == -1.0


@pytest.mark.parametrize('name', NAMES)
def test_tasks_go_to_other_processes(name):
  record, (inputs, targets), expected = known(name)
  arrived = pickle.loads(pickle.dumps(task.get(name)))
  assert list(arrived.examples(record)) == [{'inputs': inputs, 'targets': targets}]
  assert list(arrived.encoder_examples(record)) == [expected]


@pytest.mark.parametrize('name', NAMES)
def test_records_are_those_that_tfds_prepares(name, tmp_path, monkeypatch):
  monkeypatch.setenv(prepared.DATA_DIR_VARIABLE, str(tmp_path))
  entry, record = task.get(name), known(name)[0]
  splits = tuple(dict.fromkeys(entry.splits.values()))
  tfds_sets.prepare(tmp_path, entry.source.name, {split: [record] * 3 for split in splits})
  assert set(entry.source.splits) == set(splits)
  for split in entry.splits:
    records = entry.source.random_access(entry.source_split(split))
    assert list(entry.examples(records[2])) == list(entry.examples(record))
    assert list(entry.encoder_examples(records[2])) == list(entry.encoder_examples(record))
    assert entry.reference(records[2]) == entry.reference(record)


def test_labels_are_in_the_order_of_tfds():
  from tensorflow_datasets.text import glue as tfds_glue

  for config in tfds_glue.Glue.BUILDER_CONFIGS:
    assert task.get(f'glue_{config.name}').encoder.labels == tuple(config.label_classes or ())
    prepared_as = 'mnli' if config.name.startswith('mnli') else config.name
    assert task.get(f'glue_{config.name}').source.name == f'glue/{prepared_as}:{config.version}'


def test_the_mixture_has_the_rates_of_t5():
  blend = mixtures.blend('glue_v002_proportional')
  assert {member.name for member in blend.tasks} == {name for name in EXAMPLES if name != 'glue_wnli'}
  shares = dict(zip((member.name for member in blend.tasks), blend.stages[0][1], strict=True))
  assert shares['glue_mnli'] / shares['glue_rte'] == pytest.approx(392_702 / 2_490)
  assert all('validation' in member.splits for member in blend.tasks)


def test_both_kinds_of_mnli_are_evaluated_and_the_diagnostics_where_there_are_no_labels():
  """As T5 does by tasks of rate 0: by default, that is on validation splits, and on test splits."""
  mixture = 'glue_v002_proportional'
  trained = {member.name for member in task.tasks(mixture)}
  for split, besides in (('validation', {'glue_mnli_mismatched'}), ('test', {'glue_mnli_mismatched', 'glue_ax'})):
    config = DatasetConfig(mixture_or_task_name=mixture, task_feature_lengths={'inputs': 8, 'targets': 8}, split=split)
    each = dataset_config.of_each_task(config)
    assert set(each) == trained | besides
    found = {name: own.mixture_or_task_name for name, own in each.items()}
    assert found['glue_mnli'].source_split(split) == f'{split}_matched'
    assert found['glue_mnli_mismatched'].source_split(split) == f'{split}_mismatched'
    assert found['glue_mnli_mismatched'].source == found['glue_mnli'].source
