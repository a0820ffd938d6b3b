"""What tasks and data sets may choose: how documents are cut, what is packed how, and how mixtures are counted."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.data import documents, features, mixtures, pipeline
from t5x_lite.data import task as task_lib
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.objectives.causal_lm import CausalLM

SEGMENTS, TOKENS = 'decoder_segment_ids', 'decoder_target_tokens'


def causal(config, name, length=16, **changes):
  return dataclasses.replace(
    config,
    mixture_or_task_name=name,
    objective=CausalLM(),
    features=features.DecoderOnlyFeatures(),
    task_feature_lengths={'targets': length},
    **changes,
  )


def registered(name, **changes):
  """A task of the registry with other options."""
  return dataclasses.replace(task_lib.get(name), **changes)


def examples(config):
  """The target tokens of every example of a finite pass, unpacked, and the statistics."""
  batches = pipeline.build(dataclasses.replace(config, pack=False, repeat=False, shuffle=False, num_virtual_shards=1))
  rows = [
    row[row_segments > 0] for batch in batches for row, row_segments in zip(batch[TOKENS], batch[SEGMENTS], strict=True)
  ]
  return [row.tolist() for row in rows if len(row)], batches.statistics()


def test_documents_are_split_by_themselves_with_overlap(config, add_text_task):
  docs = [range(100, 110), range(200, 203), [], range(300, 318)]
  add_text_task('cut', docs)
  task = registered('cut', documents='split', stride=3)
  found, statistics = examples(causal(config, task, length=8))
  ended = [[*doc, 1] for doc in docs if len(doc)]
  assert found == [doc[start : start + 8] for doc in ended for start in range(0, max(len(doc) - 3, 1), 5)]
  assert statistics['dropped_per_task'] == {'cut': 1} and statistics['truncated_per_task'] == {'cut': 0}


def test_documents_are_truncated_and_counted(config, add_text_task):
  add_text_task('cut', [range(100, 110), range(200, 203), range(300, 307), []])
  found, statistics = examples(causal(config, registered('cut', documents='truncated'), length=8))
  assert found == [[*range(100, 108)], [200, 201, 202, 1], [*range(300, 307), 1]]
  assert statistics['truncated_per_task'] == {'cut': 1}


def test_long_pairs_are_split_or_dropped_and_counted(config, add_pair_task):
  pairs = [(range(100, 112), [7, 8]), ([5], [6]), (range(200, 205), range(300, 330))]
  add_pair_task('long', pairs)

  def inputs_and_targets(task):
    changed = dataclasses.replace(
      config,
      mixture_or_task_name=task,
      task_feature_lengths={'inputs': 6, 'targets': 12},
      pack=False,
      repeat=False,
      shuffle=False,
      num_virtual_shards=1,
    )
    batches = pipeline.build(changed)
    rows = [
      tuple(
        batch[f'{side}_tokens'][row][batch[f'{side.split("_")[0]}_segment_ids'][row] > 0].tolist()
        for side in ('encoder_input', 'decoder_target')
      )
      for batch in batches
      for row in range(8)
    ]
    return [row for row in rows if row[0]], batches.statistics()

  found, statistics = inputs_and_targets(registered('long', long_examples='split', stride=1))
  windows = [[*range(start, min(start + 5, 112)), 1] for start in (100, 104, 108)]
  assert found == [
    *((window, [7, 8, 1]) for window in windows),
    ([5, 1], [6, 1]),
    ([*range(200, 205), 1], [*range(300, 311), 1]),
  ]
  assert statistics['truncated_per_task'] == {'long': 1}
  found, statistics = inputs_and_targets(registered('long', long_examples='drop'))
  assert found == [([5, 1], [6, 1])] and statistics['truncated_per_task'] == {'long': 0}
  assert statistics['dropped_per_task'] == {'long': 2}  # that after the last example too


@pytest.mark.parametrize(('length', 'size', 'stride'), [(0, 5, 2), (5, 5, 2), (6, 5, 2), (23, 7, 3), (100, 9, 0)])
def test_spans_cover_everything_and_none_is_part_of_another(length, size, stride):
  found = documents.spans(length, size, stride)
  assert found[0][0] == 0 and found[-1][1] == length
  for (start, stop), (following, end) in itertools.pairwise(found):
    assert following == stop - stride and end > stop and stop - start == size


def test_a_stride_as_long_as_a_part_is_refused(config, add_text_task):
  add_text_task('cut', [range(100, 110)])
  with pytest.raises(errors.UsageError, match="task 'cut': got stride 8, expected less than the 8 tokens of a part"):
    pipeline.build(causal(config, registered('cut', documents='split', stride=8), length=8))


def test_split_packing_leaves_no_padding_and_loses_nothing(config, add_text_task):
  docs = [range(100 * n, 100 * n + size) for n, size in enumerate((3, 9, 1, 14, 5, 30, 2), 1)]
  add_text_task('cut', docs)
  task = registered('cut', documents='split')
  config = causal(config, task, pack='split', repeat=False, shuffle=False, num_virtual_shards=1)
  batches = list(pipeline.build(config))
  rows = [
    (row, segments)
    for batch in batches
    for row, segments in zip(batch[TOKENS], batch[SEGMENTS], strict=True)
    if segments.any()
  ]
  assert all(segments.all() for _, segments in rows[:-1])
  assert np.concatenate([row[segments > 0] for row, segments in rows]).tolist() == [
    token for doc in docs for token in (*doc, 1)
  ]
  for batch in batches:  # positions count within a segment, and segments are consecutive
    starts = np.diff(batch[SEGMENTS], axis=1, prepend=0) != 0
    assert (batch['decoder_positions'][starts] == 0).all()


def test_split_packing_needs_one_side(config):
  with pytest.raises(errors.UsageError, match="pack='split' with EncoderDecoderFeatures, whose examples cannot be cut"):
    pipeline.build(dataclasses.replace(config, pack='split'))
  with pytest.raises(errors.UsageError, match="'first-fit': did you mean 'first_fit'"):
    pipeline.build(dataclasses.replace(config, pack='first-fit'))


def test_rows_of_one_task_alone(config):
  batches = pipeline.build(dataclasses.replace(config, pack_across_tasks=False))
  for batch in itertools.islice(batches, 12):
    for inputs, segments in zip(batch['encoder_input_tokens'], batch['encoder_segment_ids'], strict=True):
      sentinels = [(inputs[segments == segment] >= 4900).any() for segment in range(1, segments.max() + 1)]
      assert all(sentinels) or not any(sentinels)


def options(config):
  """Configurations whose streams are made in every way there is."""
  staged = mixtures.Mixture(
    'staged', (('docs', 1.0),), schedule=((3, (('pairs', 1.0),)), (6, mixtures.equal(('docs', 'pairs'))))
  )
  even = mixtures.Mixture('even', (('docs', 1), ('pairs', 1)), 'tokens')
  cut = registered('pairs', long_examples='split', stride=4)
  return {
    'tokens': dataclasses.replace(config, mixture_or_task_name=even),
    'staged': dataclasses.replace(config, mixture_or_task_name=staged),
    'staged tokens': dataclasses.replace(config, mixture_or_task_name=dataclasses.replace(staged, unit='tokens')),
    'apart': dataclasses.replace(config, pack_across_tasks=False),
    'split packing': causal(config, registered('docs', documents='split', stride=2), pack='split'),
    'truncated': causal(config, registered('docs', documents='truncated')),
    'split pairs': dataclasses.replace(config, mixture_or_task_name=cut),
    'dropped pairs': dataclasses.replace(config, mixture_or_task_name=registered('pairs', long_examples='drop')),
  }


@pytest.mark.parametrize(
  'option', ['tokens', 'staged', 'staged tokens', 'apart', 'split packing', 'truncated', 'split pairs', 'dropped pairs']
)
def test_every_stream_resumes_exactly_and_is_the_same_on_any_number_of_hosts(config, option):
  chosen = options(config)[option]
  alone = pipeline.build(chosen)
  expected, states = [], []
  for batch in itertools.islice(alone, 10):
    expected.append(batch)
    states.append(json.loads(json.dumps(alone.get_state())))
  for step in (0, 2, 4, 7):
    resumed = pipeline.build(chosen)
    resumed.set_state(states[step])
    assert_same(list(itertools.islice(resumed, 9 - step)), expected[step + 1 :])
    assert resumed.statistics() == alone.statistics()
  for hosts in (2, 4, 8):
    parts = [pipeline.build(chosen, rows=rows) for rows in np.array_split(np.arange(8), hosts)]
    for step in range(4):
      batches = [next(part) for part in parts]
      joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
      assert_same([joined], [expected[step]])
    merged = pipeline.merge_states([part.get_state() for part in parts])
    again = pipeline.build(chosen)
    again.set_state(merged)
    assert_same(list(itertools.islice(again, 6)), expected[4:])


def assert_same(batches, expected):
  assert len(batches) == len(expected)
  for batch, other in zip(batches, expected, strict=True):
    for name in other:
      np.testing.assert_array_equal(batch[name], other[name], err_msg=name)


def test_shares_of_tokens_are_kept(config):
  mixture = mixtures.Mixture('even', (('docs', 1), ('pairs', 3)), 'tokens')
  batches = pipeline.build(dataclasses.replace(config, mixture_or_task_name=mixture))
  for _ in itertools.islice(batches, 60):
    pass
  statistics = batches.statistics()
  assert statistics['token_share_per_task'] == pytest.approx({'docs': 0.25, 'pairs': 0.75}, abs=0.02)
  assert statistics['share_per_task']['docs'] < 0.2  # whose examples are longer
  assert sum(statistics['tokens_per_task'].values()) == statistics['useful_tokens']


def test_stages_begin_at_their_steps(config):
  batches = pipeline.build(options(config)['staged'])
  drawn = []
  for _ in itertools.islice(batches, 12):
    drawn.append(tuple(batches.statistics()['examples_per_task'].values()))
  docs, pairs = np.diff(np.array(drawn), axis=0, prepend=[(0, 0)]).T
  assert not pairs[:3].any() and docs[:3].all()
  assert pairs[4:6].sum() > docs[4:6].sum() and docs[8:].any() and pairs[8:].any()


def test_a_task_object_needs_no_registry(config, add_text_task):
  task = add_text_task('loose', [range(100, 200)])
  task_lib._registry.clear()
  batch = next(pipeline.build(causal(config, task)))
  assert batch[TOKENS].any()


@pytest.fixture
def labelled(config, add_text_task, number_tokenizer):
  """A set of pairs of texts with three classes."""
  rng = np.random.default_rng(0)
  task = add_text_task('labelled', [])
  numbers = lambda: ' '.join(map(str, rng.integers(100, 900, rng.integers(1, 9))))  # noqa: E731
  records = [{'a': numbers(), 'b': numbers(), 'y': int(rng.integers(-1, 3))} for _ in range(30)]
  encoder = task_lib.EncoderTask(
    'classification', lambda record: {'text': record['a'], 'pair': record['b'], 'label': record['y']}, ('x', 'y', 'z')
  )
  source = dataclasses.replace(task.source, records={'train': records})

  def framed(self, ids, pair=None, max_length=None):
    return [3, *ids, 4, *(pair or ()), 4], [0] * (len(ids) + 2) + [1] * (len(pair or ()) + 1)

  tokenizer = type('Framing', (type(number_tokenizer),), {'with_special_tokens': framed, 'cls_id': 3, 'sep_id': 4})()
  return dataclasses.replace(
    config,
    mixture_or_task_name=dataclasses.replace(task, source=source, encoder=encoder),
    objective=None,
    features=EncoderTaskFeatures('classification'),
    task_feature_lengths={'inputs': 40},
    tokenizer=tokenizer,
  )


def test_labelled_examples_share_rows_and_keep_their_labels(labelled):
  known = {tuple(map(int, r['a'].split())): r['y'] for r in labelled.mixture_or_task_name.source.records['train']}
  seen = 0
  for batch in itertools.islice(pipeline.build(labelled), 10):
    assert batch['encoder_label'].dtype == np.int32 and batch['encoder_label_weights'].dtype == np.float32
    for row in range(8):
      segments = batch['encoder_segment_ids'][row]
      for segment in range(1, segments.max() + 1):
        at = np.flatnonzero(segments == segment)
        tokens = batch['encoder_input_tokens'][row, at].tolist()
        label = known[tuple(tokens[1 : tokens.index(4)])]
        assert batch['encoder_label_weights'][row, at].tolist() == [float(label >= 0)] + [0.0] * (len(at) - 1)
        assert label < 0 or batch['encoder_label'][row, at[0]] == label
        seen += 1
  assert seen > 100


def test_tasks_must_have_examples_for_the_head(labelled, add_text_task):
  for task, message in (
    (labelled.mixture_or_task_name, "has examples for the head 'classification': expected 'tagging'"),
    (add_text_task('plain', [range(5)]), "task 'plain' has no examples for a head: expected 'tagging'"),
  ):
    with pytest.raises(errors.UsageError, match=message):
      pipeline.build(dataclasses.replace(labelled, mixture_or_task_name=task, features=EncoderTaskFeatures('tagging')))
