"""What a data set, and so a gin file, may say about long examples in place of its tasks."""

import dataclasses
import json

import pytest

from t5x_lite import inspect_data
from t5x_lite.core import errors
from t5x_lite.data import dataset_checks, dataset_config, mixtures, pipeline
from t5x_lite.data import task as tasks
from t5x_lite.data.encoder.features import EncoderTaskFeatures

DOCS = [range(100, 400), range(500, 503)]
PAIRS = [(range(100, 300), [7, 8]), ([5], [6])]


@pytest.fixture
def both(config, registry, add_text_task, add_pair_task):
  add_text_task('long_docs', DOCS, DOCS)
  add_pair_task('long_pairs', PAIRS, PAIRS)
  mixture = registry.register(mixtures.Mixture('long', (('long_docs', 1.0), ('long_pairs', 1.0))))
  once = {'pack': False, 'repeat': False, 'shuffle': False, 'num_virtual_shards': 1}
  return dataclasses.replace(config, mixture_or_task_name=mixture.name, **once)


def changed(config, **choices):
  """The members of the mixture, as they would be if they said themselves what the data set says."""
  fields = {'long_docs': ('documents', 'stride'), 'long_pairs': ('long_examples', 'stride')}
  return [
    dataclasses.replace(tasks.get(name), **{field: choices[field] for field in own if field in choices})
    for name, own in fields.items()
  ]


def statistics(config):
  batches = pipeline.build(config)
  list(batches)
  return batches.statistics()


@pytest.mark.parametrize(
  'choices',
  [
    {'long_examples': 'split'},
    {'long_examples': 'drop', 'documents': 'truncated'},
    {'long_examples': 'split', 'documents': 'split', 'stride': 5},
  ],
  ids=str,
)
def test_what_a_data_set_says_is_as_if_its_tasks_said_it(both, choices):
  found = statistics(dataclasses.replace(both, **choices))
  for task in changed(both, **choices):
    own = statistics(dataclasses.replace(both, mixture_or_task_name=task))
    for count in ('examples_per_task', 'tokens_per_task', 'truncated_per_task', 'dropped_per_task'):
      assert found[count][task.name] == own[count][task.name], (task.name, count)
  assert found['examples_per_task'] != statistics(both)['examples_per_task'] or 'truncated' in choices.values()


def test_evaluation_of_each_task_by_itself_keeps_what_the_data_set_says(both):
  config = dataclasses.replace(both, split='validation', long_examples='split', documents='split', stride=5)
  together = statistics(config)['examples_per_task']
  alone = {
    name: statistics(own)['examples_per_task'][name] for name, own in dataset_config.of_each_task(config).items()
  }
  assert alone == together


def test_the_position_belongs_to_the_choice(both):
  states = [
    pipeline.build(dataclasses.replace(both, **choices)).get_state()
    for choices in ({}, {'long_examples': 'split'}, {'documents': 'split', 'stride': 2})
  ]
  for state in states[1:]:
    with pytest.raises(errors.UsageError, match='long_examples was'):
      pipeline.build(both).set_state(state)


def test_examples_for_heads_are_split_too(both):
  encoder = tasks.EncoderTask('classification', None, ('a', 'b'), long_examples='truncate')
  task = dataclasses.replace(tasks.get('long_pairs'), encoder=encoder)
  config = dataclasses.replace(
    both,
    mixture_or_task_name=task,
    features=EncoderTaskFeatures('classification'),
    long_examples='split',
    stride=3,
  )
  (found,) = dataset_config.members_of(config)
  assert (found.encoder.long_examples, found.encoder.stride) == ('split', 3)


@pytest.mark.parametrize(
  ('name', 'choices', 'told'),
  [
    ('long', {'long_examples': 'spilt'}, "unknown long_examples of task 'long_docs' 'spilt': did you mean 'split'"),
    ('long', {'documents': 'page'}, "unknown documents of task 'long_docs' 'page'"),
    ('long', {'stride': 5}, 'got stride=5, and nothing is split'),
    ('long', {'stride': -1}, 'got stride -1, expected at least 0'),
    ('long_docs', {'long_examples': 'split'}, "got long_examples='split', which is for supervised tasks, and has none"),
    ('long_pairs', {'documents': 'split'}, "got documents='split', which is for unsupervised tasks, and has none"),
    ('long_pairs', {'long_examples': 'split', 'stride': 200}, 'got stride 200, expected less than'),
  ],
)
def test_choices_that_are_none(both, name, choices, told):
  with pytest.raises(errors.UsageError, match=told):
    dataset_checks.check_values(dataclasses.replace(both, mixture_or_task_name=name, **choices))


def test_gin_files_and_flags_make_the_choice(tmp_path, capsys):
  """Of local files with a text, and of local files with inputs and targets."""
  words = ' '.join(f'word{n}' for n in range(400))
  (tmp_path / 'long.jsonl').write_text(json.dumps({'text': words, 'inputs': words, 'targets': 'few'}) + '\n')

  def examples(*flags):
    arguments = ['--gin_file=t5_tiny.gin', '--gin_file=data/files.gin', f'--gin.files.path={tmp_path}/long.jsonl']
    arguments += ["--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 32}", '--num=1', '--json']
    arguments += ['--gin.DatasetConfig.repeat=False', '--gin.BATCH_SIZE=64', *flags]
    assert inspect_data.main(['inspect_data', *arguments]) == 0
    (task,) = json.loads(capsys.readouterr().out)['tasks']
    return task['examples'], task['truncated']

  pairs = ('--gin.files.inputs_field=inputs', '--gin.files.targets_field=targets')
  assert examples(*pairs) == (1, 1)
  split, truncated = examples(*pairs, '--gin.LONG_EXAMPLES=split')
  assert split > 10 and not truncated
  assert examples(*pairs, '--gin.LONG_EXAMPLES=split', '--gin.STRIDE=32')[0] > 1.5 * split
  split, truncated = examples('--gin.DOCUMENTS=split', '--gin.STRIDE=10')
  assert split > examples()[0] and not truncated
  assert examples('--gin.DOCUMENTS=truncated') == (1, 1)
