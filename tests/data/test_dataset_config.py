import dataclasses

import pytest

from t5x_lite.core import errors
from t5x_lite.data import dataset_checks, mixtures, pipeline, sources
from t5x_lite.data.vocabularies import sentencepiece_tokenizer


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'batch_size': 0}, 'batch_size: got 0, expected an int of at least 1'),
    ({'batch_size': -4}, 'batch_size: got -4'),
    ({'batch_size': 8.0}, 'batch_size: got 8.0'),
    ({'batch_size': True}, 'batch_size: got True'),
    ({'batch_size': '8'}, "batch_size: got '8'"),
    ({'num_virtual_shards': 3}, 'got batch_size 8 and num_virtual_shards 3'),
    ({'num_virtual_shards': 0}, 'num_virtual_shards: got 0'),
    ({'seed': -1}, 'seed: got -1'),
    ({'prefetch': -1}, 'prefetch: got -1'),
    (
      {'task_feature_lengths': {'inputs': 20}},
      "got task_feature_lengths for ['inputs'], expected exactly",
    ),
    (
      {'task_feature_lengths': {'inputs': 20, 'target': 9}},
      "for ['inputs', 'target'], expected exactly",
    ),
    (
      {'task_feature_lengths': {'inputs': 20, 'targets': 0}},
      "task_feature_lengths['targets']: got 0",
    ),
    ({'task_feature_lengths': 512}, 'got task_feature_lengths for 512'),
    (
      {'task_feature_lengths': {'inputs': 20, 'targets': 3}},
      'got a feature length of 3 for targets',
    ),
    (
      {'split': 'validatoin'},
      "unknown split of task 'docs' 'validatoin': did you mean 'validation'",
    ),
    (
      {'mixture_or_task_name': 'boht'},
      "unknown mixture or task 'boht': did you mean 'both'",
    ),
    ({'objective': None}, "task 'docs' is unsupervised: got no objective"),
    ({'tokenizer': None}, 'got no tokenizer'),
  ],
)
def test_impossible_configurations(config, changes, message):
  with pytest.raises(errors.UsageError) as raised:
    pipeline.build(dataclasses.replace(config, **changes))
  assert message in str(raised.value)
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
  'changes', [{'mixture_or_task_name': 'boht'}, {'task_feature_lengths': {'inputs': 20, 'targets': 3}}]
)
def test_what_needs_no_data_is_checked_without_data(config, changes):
  dataset_checks.check_values(dataclasses.replace(config, tokenizer=None))
  with pytest.raises(errors.UsageError):
    dataset_checks.check_values(dataclasses.replace(config, tokenizer=None, **changes))


def test_a_supervised_task_needs_no_objective(config):
  batch = next(pipeline.build(dataclasses.replace(config, mixture_or_task_name='pairs', objective=None)))
  assert batch['decoder_loss_weights'].sum() > 0


def test_empty_splits(config, add_text_task):
  add_text_task('nothing', [])
  with pytest.raises(errors.UsageError, match="split 'train' of task 'nothing' is empty"):
    pipeline.build(dataclasses.replace(config, mixture_or_task_name='nothing'))
  add_text_task('blank', [[], [], []])
  with pytest.raises(errors.UsageError, match="'blank': 16384 documents in a row hold no text"):
    next(pipeline.build(dataclasses.replace(config, mixture_or_task_name='blank')))
  with pytest.raises(errors.UsageError, match="'blank' has no examples in its split 'train'"):
    next(pipeline.build(dataclasses.replace(config, mixture_or_task_name='blank', repeat=False)))


def test_everything_that_is_missing_is_told_in_one_line(config, registry, tmp_path):
  for name in ('one', 'two'):
    registry.register(registry.Task(name, sources.TfdsSource(f'set_{name}', str(tmp_path)), dict))
  registry.register(mixtures.Mixture('neither', (('one', 1.0), ('two', 1.0))))
  tokenizer = sentencepiece_tokenizer.SentencePieceTokenizer(str(tmp_path / 'spiece.model'))
  with pytest.raises(errors.UsageError) as raised:
    pipeline.build(dataclasses.replace(config, mixture_or_task_name='neither', tokenizer=tokenizer))
  for part in ("'set_one' is not prepared", "'set_two' is not prepared", 'spiece.model: No such file'):
    assert str(raised.value).count(part) == 1
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
  'batch_size, shards',
  [(1, 1), (7, 1), (16, 2), (37, 1), (48, 6), (72, 9), (128, 16), (2048, 64)],
)
def test_default_number_of_virtual_shards(config, batch_size, shards):
  state = pipeline.build(dataclasses.replace(config, batch_size=batch_size, num_virtual_shards=None)).get_state()
  assert len(state['shards']) == shards
