"""Tokenised tasks: the very batches of the text, read without a tokenizer; ids of another vocabulary are refused."""

import dataclasses
import functools
import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from t5x_lite.core import errors
from t5x_lite.data import dataset_config, documents, hashes, mixtures, pipeline, token_ids, tokenised
from t5x_lite.data import task as tasks
from t5x_lite.data.features import DecoderOnlyFeatures
from t5x_lite.data.preparation import tokenisation
from t5x_lite.objectives.causal_lm import CausalLM


def tokenise(config, folder, **options):
  """The configuration with its mixture or task tokenised."""
  options = {'num_shards': 3, 'workers': 1, 'objective': config.objective, **options}
  tokenisation.tokenise(config.mixture_or_task_name, config.tokenizer, str(folder), **options)
  return dataclasses.replace(config, mixture_or_task_name=tokenised.tokenised(str(folder)))


def batches(config, count):
  return list(itertools.islice(pipeline.build(config), count))


def assert_same(one, other):
  assert len(one) == len(other) > 0
  for a, b in zip(one, other, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])
      assert a[name].dtype == b[name].dtype


@pytest.mark.parametrize('name', ['docs', 'pairs', 'both'])
@pytest.mark.parametrize('options', [{}, {'repeat': False}, {'pack': False, 'split': 'validation', 'shuffle': False}])
def test_the_same_stream_as_from_text(config, tmp_path, name, options, monkeypatch):
  text = dataclasses.replace(config, mixture_or_task_name=name, **options)
  if not text.repeat:
    text = dataclasses.replace(text, num_virtual_shards=None)
  ids = tokenise(text, tmp_path)
  expected = batches(text, 12)
  one, other = pipeline.build(text), pipeline.build(ids)
  assert other.data.fingerprint == one.data.fingerprint
  assert hashes.order_hash(other.data) == hashes.order_hash(one.data)

  def refuse(self, texts):
    raise AssertionError('tokenised again')

  monkeypatch.setattr(type(config.tokenizer), 'encode_batch', refuse)
  assert_same(batches(ids, 12), expected)


def test_with_a_separator_after_every_document(config, tmp_path):
  text = dataclasses.replace(
    config,
    mixture_or_task_name='docs',
    objective=CausalLM(),
    features=DecoderOnlyFeatures(),
    task_feature_lengths={'targets': 16},
  )
  assert CausalLM().separator(config.tokenizer) is not None
  assert_same(batches(tokenise(text, tmp_path), 9), batches(text, 9))


@pytest.mark.parametrize('long_examples', tasks.LONG_EXAMPLES)
def test_long_pairs_are_treated_as_the_task_says(config, tmp_path, long_examples):
  task = dataclasses.replace(tasks.get('pairs'), long_examples=long_examples, stride=2)
  text = dataclasses.replace(config, mixture_or_task_name=task)
  ids = tokenise(text, tmp_path)
  one, other = pipeline.build(text), pipeline.build(ids)
  assert_same([next(other) for _ in range(5)], [next(one) for _ in range(5)])
  assert other.statistics() == one.statistics()
  counted = {'truncate': 'truncated_per_task', 'split': 'examples_per_task', 'drop': 'dropped_per_task'}[long_examples]
  assert sum(one.statistics()[counted].values()) > 0


def test_a_run_changes_from_text_to_ids_in_the_middle(config, tmp_path):
  ids = pipeline.build(tokenise(config, tmp_path))
  text = pipeline.build(config)
  for _ in range(4):
    next(text)
  ids.set_state(text.get_state())
  assert_same([next(ids) for _ in range(4)], [next(text) for _ in range(4)])


def test_tasks_that_are_only_evaluated_come_along(config, registry, add_pair_task, tmp_path):
  besides = add_pair_task('besides', [([7], [8])], [([5], [6])] * 3)
  registry.register(dataclasses.replace(besides, name='only', splits={'validation': 'validation'}))
  inner = registry.register(mixtures.Mixture('inner', (('docs', 1.0), ('pairs', 1.0)), evaluated=('only', 'pairs')))
  outer = registry.register(mixtures.Mixture('outer', ((inner.name, 1.0),)))
  text = dataclasses.replace(config, mixture_or_task_name='outer')
  assert [each.name for each in registry.tasks(outer)] == ['docs', 'pairs']  # what is trained on stays
  ids = tokenise(text, tmp_path)
  for data in (text, ids):
    assert set(dataset_config.of_each_task(data)) == {'docs', 'pairs'}  # it has no train
    held_out = dataset_config.of_each_task(dataclasses.replace(data, split='validation', repeat=False))
    assert set(held_out) == {'docs', 'pairs', 'only'}
    batch = next(pipeline.build(held_out['only']))
    assert sum((batch['decoder_target_tokens'] == 6).sum(axis=1)) == 3


def test_sentences_stay_apart(registry, add_text_task, number_tokenizer, tmp_path):
  class PairObjective:
    pair = None

  task = add_text_task('docs', [[5, 6]])
  records = {'train': [{'doc': text} for text in ('1 2\n3 4 5\n\n6', '', '7')]}
  task = dataclasses.replace(task, source=dataclasses.replace(task.source, records=records))
  tokenisation.tokenise(task, number_tokenizer, str(tmp_path), objective=PairObjective(), workers=1)
  ids = tokenised.tokenised(str(tmp_path))
  found, expected = (
    documents.tokenise_sentences(one, number_tokenizer, 8)(one.source.random_access('train').__getitems__([2, 0, 1]))
    for one in (ids, task)
  )
  assert [[own.tolist() for own in document] for document in found] == [
    [own.tolist() for own in document] for document in expected
  ]
  assert len(found[1]) > 1
  token_ids.check(ids, number_tokenizer, PairObjective())
  with pytest.raises(errors.UsageError, match='holds sentences, but CausalLM reads text'):
    token_ids.check(ids, number_tokenizer, CausalLM())


def test_another_vocabulary_is_refused(config, tmp_path):
  ids = tokenise(dataclasses.replace(config, mixture_or_task_name='docs'), tmp_path)

  class Other(type(config.tokenizer)):
    fingerprint = 'other'

  with pytest.raises(errors.UsageError, match='its ids are of the vocabulary numbers, got other') as caught:
    pipeline.build(dataclasses.replace(ids, tokenizer=Other()))
  assert str(tmp_path) in str(caught.value)
  with pytest.raises(errors.UsageError, match='differs in tokenizer'):
    tokenise(dataclasses.replace(config, mixture_or_task_name='docs', tokenizer=Other()), tmp_path)
  with pytest.raises(errors.UsageError, match='is tokenised already'):
    tokenise(ids, tmp_path / 'again')


def test_dropped_records_keep_their_places(registry, add_text_task, number_tokenizer, tmp_path):
  def preprocess(record):
    return None if record['doc'].startswith('9') else [{'text': record['doc']}] * 2

  task = dataclasses.replace(add_text_task('docs', [[9], [1, 2], [9, 9], [], [3]]), preprocess=preprocess)
  tokenisation.tokenise(task, number_tokenizer, str(tmp_path), workers=1, num_shards=2)
  ids = tokenised.tokenised(str(tmp_path))
  records = ids.source.random_access('train')
  assert [record['text'].tolist() for record in records.__getitems__([4, 3, 2, 1, 0])] == [
    [3, 3],
    [],
    [],
    [1, 2] * 2,
    [],
  ]
  assert [example['text'] for example in ids.examples(records[1])] == ['1 2 1 2'], 'for who looks at it'


def test_interrupted_it_goes_on(config, tmp_path, monkeypatch, capsys):
  text = dataclasses.replace(config, mixture_or_task_name='docs')
  encode, calls = type(config.tokenizer).encode_batch, itertools.count()

  def interrupted(self, texts):
    if next(calls) == 2:
      raise KeyboardInterrupt
    return encode(self, texts)

  with monkeypatch.context() as patch:
    patch.setattr(type(config.tokenizer), 'encode_arrays', interrupted)
    with pytest.raises(KeyboardInterrupt):
      tokenise(text, tmp_path, num_shards=4)
  there = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob('*.array_record')}
  assert len(there) == 2
  with pytest.raises(errors.UsageError, match='prepare tokenise'):
    tokenised.tokenised(str(tmp_path))
  with pytest.raises(errors.UsageError, match='differs in splits'):
    tokenise(text, tmp_path, num_shards=5)
  capsys.readouterr()
  ids = tokenise(text, tmp_path, num_shards=4)
  assert '2 of 8 shards are there already' in capsys.readouterr().out
  assert there == {name: (tmp_path / name).stat().st_mtime_ns for name in there}
  assert_same(batches(ids, 5), batches(text, 5))
  tokenise(text, tmp_path, num_shards=4)
  assert not capsys.readouterr().out, 'nothing left to do'
  info = tokenised.read_info(str(tmp_path))
  assert info['splits']['train']['records'] == 40 and info['task'] == 'docs'
  expected = sum(len(record['doc'].split()) for record in tasks.get('docs').source.random_access('train'))
  assert info['splits']['train']['tokens'] == expected


def test_what_is_missing_or_damaged_is_named(config, tmp_path):
  ids = tokenise(dataclasses.replace(config, mixture_or_task_name='docs'), tmp_path)
  shard = tmp_path / 'train-00001-of-00003.array_record'
  whole = shard.read_bytes()
  records = ids.mixture_or_task_name.source.random_access('train')
  shard.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(errors.UsageError, match='train-00001-of-00003'):
    records.__getitems__(range(len(records)))
  shard.unlink()
  with pytest.raises(errors.UsageError, match=r'train-00001-of-00003.array_record is missing'):
    pipeline.build(ids)
  with pytest.raises(errors.UsageError, match="unknown split of task 'docs' 'test'"):
    pipeline.build(dataclasses.replace(ids, split='test'))
  with pytest.raises(errors.UsageError, match=r'no tokens.json'):
    tokenised.tokenised(str(tmp_path / 'nowhere'))
  with pytest.raises(errors.UsageError, match='holds a task'):
    tokenise(config, tmp_path)


@hypothesis.given(
  st.sampled_from(['<u2', '<u4']), st.lists(st.lists(st.integers(0, 2**16 - 1), max_size=30), max_size=8)
)
def test_records_come_back(dtype, arrays):
  record = token_ids.pack(arrays, dtype)
  assert [own.tolist() for own in token_ids.unpack(record, dtype)] == arrays
  joined = token_ids.unpack_joined(record, dtype)
  assert joined.tolist() == [token for own in arrays for token in own] and joined.dtype == np.int32
  assert len(record) == 4 * (1 + len(arrays)) + len(joined) * np.dtype(dtype).itemsize


def test_the_type_of_ids_holds_the_largest():
  assert [token_ids.dtype_for(size) for size in (1, 2**16, 2**16 + 1)] == ['<u2', '<u2', '<u4']


def test_identity_of_a_preprocessor():
  def one(record, key):
    return {'text': record[key]}

  def other(record, key):
    return {'text': record[key].strip()}

  bound = [functools.partial(function, key=key) for function in (one, other) for key in ('a', 'b')]
  found = [repr(tokenisation.identity(function)) for function in (one, *bound)]
  assert len(set(found)) == len(found)
  assert repr(tokenisation.identity(functools.partial(one, key='a'))) == found[1]
