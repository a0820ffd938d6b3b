"""The pipeline for models with one stack: what a row holds, and which parts go together."""

import contextlib
import dataclasses
import itertools
import json

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.data import dataset_checks, pipeline, row_predictions
from t5x_lite.data.features import (
  DecoderOnlyFeatures,
  EncoderDecoderFeatures,
  EncoderOnlyFeatures,
  PermutationFeatures,
)
from t5x_lite.data.inspection import report as inspection
from t5x_lite.data.inspection import text as inspection_text
from t5x_lite.objectives.causal_lm import CausalLM
from t5x_lite.objectives.masked_lm import MaskedLM
from t5x_lite.objectives.permutation_lm import PermutationLM
from t5x_lite.objectives.prefix_lm import PrefixLM
from t5x_lite.objectives.span_corruption import SpanCorruption

EOS, CLS, SEP, MASK = 1, 5, 6, 7

FAMILIES = {
  'causal': (CausalLM(), DecoderOnlyFeatures(), {'targets': 24}, 'docs'),
  'prefix': (PrefixLM(), DecoderOnlyFeatures(bidirectional_prefix=True), {'targets': 24}, 'docs'),
  'spans in one row': (SpanCorruption(0.25), DecoderOnlyFeatures(), {'inputs': 20, 'targets': 12}, 'docs'),
  'prefix in two stacks': (PrefixLM(), EncoderDecoderFeatures(), {'inputs': 20, 'targets': 20}, 'both'),
  'causal and pairs': (CausalLM(), DecoderOnlyFeatures(), {'inputs': 20, 'targets': 12}, 'both'),
  'masked': (MaskedLM(), EncoderOnlyFeatures(), {'inputs': 24}, 'docs'),
  'permuted': (PermutationLM(), PermutationFeatures(), {'targets': 24}, 'docs'),
}


@pytest.fixture
def special_tokenizer(number_tokenizer):
  number_tokenizer.cls_id, number_tokenizer.sep_id, number_tokenizer.mask_id = CLS, SEP, MASK
  return number_tokenizer


@pytest.fixture
def family(config, special_tokenizer):
  """The configuration of a family, by its name above."""

  def family(name, **changes):
    objective, features, lengths, task = FAMILIES[name]
    return dataclasses.replace(
      config,
      objective=objective,
      features=features,
      task_feature_lengths=lengths,
      mixture_or_task_name=task,
      tokenizer=special_tokenizer,
      **changes,
    )

  return family


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def assert_same(got, expected):
  for ours, theirs in zip(got, expected, strict=True):
    assert ours.keys() == theirs.keys()
    for name in theirs:
      np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.mark.parametrize('name', FAMILIES)
def test_batches_are_those_of_the_spec_and_resume_exactly(family, name):
  iterator = pipeline.build(family(name))
  first = take(iterator, 3)
  state = json.loads(json.dumps(iterator.get_state()))
  rest = take(iterator, 2)
  resumed = pipeline.build(family(name))
  resumed.set_state(state)
  assert_same(take(resumed, 2), rest)
  for batch in first:
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
      k: (v.shape, v.dtype) for k, v in iterator.spec.items()
    }
  hosts = [pipeline.build(family(name), rows=np.arange(8)[part]) for part in (slice(0, 3), slice(3, 8))]
  parts = [take(host, 3) for host in hosts]
  assert_same([{k: np.concatenate([a[k], b[k]]) for k in a} for a, b in zip(*parts, strict=True)], first)


@pytest.mark.parametrize('name', FAMILIES)
def test_every_pass_draws_anew(family, name):
  batches = [pipeline.build(family(name, seed=seed)) for seed in (0, 0, 1)]
  same, again, other = (next(batch) for batch in batches)
  assert_same([same], [again])
  assert any(not np.array_equal(same[key], other[key]) for key in same if key.endswith('target_tokens'))


def test_documents_are_joined_by_eos_and_cut_where_the_row_is_full(family):
  config = family('causal', shuffle=False, repeat=False, num_virtual_shards=1)
  tokens, weights, inputs = [], [], []
  for batch in pipeline.build(config):
    used = batch['decoder_segment_ids'] > 0
    tokens += batch['decoder_target_tokens'][used].tolist()
    weights += batch['decoder_loss_weights'][used].tolist()
    inputs += [row[row_used].tolist() for row, row_used in zip(batch['decoder_input_tokens'], used, strict=True)]
    assert np.all(batch['decoder_loss_weights'][~used] == 0)
  expected = [list(map(int, record['doc'].split())) for record in _records('docs')]
  assert tokens == [token for document in expected if document for token in (*document, EOS)]
  assert set(weights) == {1.0}
  assert all(row[0] == EOS for row in inputs if row)
  assert all(len(row) == 24 for row in inputs[:-8] if row)


def _records(name):
  from t5x_lite.data import task

  return task.get(name).source.records['train']


def test_pairs_share_a_row_and_only_targets_count(family):
  batch = next(pipeline.build(family('causal and pairs', pack=False)))
  rows = np.flatnonzero((batch['decoder_loss_weights'] == 0).any(axis=1) & (batch['decoder_loss_weights'][:, 0] == 0))
  assert len(rows)
  for row in rows:
    used = batch['decoder_segment_ids'][row] > 0
    weights, tokens = batch['decoder_loss_weights'][row][used], batch['decoder_target_tokens'][row][used]
    first = int(np.argmax(weights > 0))
    assert np.all(weights[:first] == 0) and np.all(weights[first:] == 1)
    assert tokens[first - 1] == EOS and tokens[-1] == EOS


def test_masked_rows_are_framed_and_no_row_says_what_it_hides(family):
  batch = next(pipeline.build(family('masked')))
  for row, segments in enumerate(batch['encoder_segment_ids']):
    inputs, targets = batch['encoder_input_tokens'][row], batch['encoder_target_tokens'][row]
    weights = batch['encoder_loss_weights'][row]
    used = segments > 0
    assert targets[0] == CLS and targets[used][-1] == SEP
    np.testing.assert_array_equal(inputs[weights == 0], targets[weights == 0])
    assert weights.sum() == max(1, round(used.sum() * 0.15))


@pytest.mark.parametrize(
  'objective, features, lengths, message',
  [
    (
      MaskedLM(),
      EncoderDecoderFeatures(),
      {'inputs': 20, 'targets': 20},
      'objective MaskedLM makes examples that EncoderDecoderFeatures cannot read: expected SpanCorruption or '
      'PrefixLM or Denoising or TextInfilling or UL2; '
      'MaskedLM goes with EncoderOnlyFeatures',
    ),
    (
      SpanCorruption(),
      EncoderOnlyFeatures(),
      {'inputs': 20, 'targets': 20},  # lengths that would not do either
      'EncoderOnlyFeatures cannot read: expected MaskedLM (with EncoderOnlyFeatures.sentence_pairs = True: '
      'NextSentence or SentenceOrder); ',
    ),
    (CausalLM(), PermutationFeatures(), {'targets': 20}, 'CausalLM goes with DecoderOnlyFeatures'),
    (PermutationLM(), DecoderOnlyFeatures(), {'targets': 20}, 'expected CausalLM or PrefixLM or SpanCorruption'),
    (CausalLM(), DecoderOnlyFeatures(), {'inputs': 20}, "expected exactly ['targets'] or ['inputs', 'targets'] (Dec"),
    (
      MaskedLM(),
      EncoderOnlyFeatures(),
      {'inputs': 8, 'targets': 8},
      "['inputs', 'targets'], expected exactly ['inputs']",
    ),
    (PermutationLM(), PermutationFeatures(), {'inputs': 8}, "expected exactly ['targets'] (PermutationFeatures)"),
    (
      SpanCorruption(),
      DecoderOnlyFeatures(),
      {'targets': 5},
      "span corruption: got task_feature_lengths {'targets': 5}, expected targets of at least 6",
    ),
  ],
)
def test_parts_that_do_not_go_together_are_refused_without_data(config, objective, features, lengths, message):
  changes = {'objective': objective, 'features': features, 'task_feature_lengths': lengths}
  impossible = dataclasses.replace(config, mixture_or_task_name='docs', tokenizer=None, **changes)
  with pytest.raises(errors.UsageError) as raised:
    dataset_checks.check_values(impossible)
  assert message in str(raised.value) and '\n' not in str(raised.value)


@pytest.mark.parametrize(
  'name, message',
  [
    ('masked', 'got EncoderOnlyFeatures, expected EncoderDecoderFeatures or DecoderOnlyFeatures'),
    ('permuted', 'got PermutationFeatures, expected EncoderDecoderFeatures or DecoderOnlyFeatures'),
    ('causal', "got task_feature_lengths {'targets': 24}, expected a length of inputs too"),
  ],
)
def test_supervised_tasks_need_features_that_have_pairs(family, name, message):
  with pytest.raises(errors.UsageError, match="task 'pairs' is supervised") as raised:
    dataset_checks.check_values(dataclasses.replace(family(name), mixture_or_task_name='both'))
  assert message in str(raised.value)


@pytest.mark.parametrize('name', FAMILIES)
def test_inspection_shows_every_family(family, name, capsys):
  inspection.inspect(family(name), 2, sample_batches=2)
  shown = capsys.readouterr().out
  assert 'example 2' in shown and 'target_tokens' in shown
  assert ('      order' in shown) == (name == 'permuted') and ('prefix' in shown) == (name == 'prefix')
  assert max(map(len, shown.splitlines())) <= inspection_text.WIDTH


@pytest.mark.parametrize('name', ['causal', 'masked', 'permuted'])
def test_the_fingerprint_tells_objectives_and_features_apart(family, name):
  fingerprint = pipeline.build(family(name)).get_state()['fingerprint']
  assert json.loads(json.dumps(fingerprint)) == fingerprint
  assert fingerprint['objective'] == repr(FAMILIES[name][0]) and fingerprint['features'] == repr(FAMILIES[name][1])


@pytest.mark.parametrize('pack', [True, False])
@pytest.mark.parametrize('name', ['masked', 'permuted'])
def test_no_row_predicts_more_than_the_bound(family, name, pack):
  given = family(name, pack=pack)
  most = row_predictions.most_predictions(given)
  side = 'encoder' if name == 'masked' else 'decoder'
  with contextlib.closing(pipeline.build(given)) as stream:
    rows = [next(stream)[f'{side}_loss_weights'] for _ in range(10)]
  counts = [int(np.count_nonzero(row)) for batch in rows for row in batch]
  assert 0 < max(counts) <= most < 24


def test_the_bound_is_that_of_one_long_example_or_of_the_worst_ones_that_fit_together(family):
  # [CLS] token [SEP] three times would fill nine positions with three predictions; one example of nine has one.
  masked = family('masked')
  bounds = [
    row_predictions.most_predictions(dataclasses.replace(masked, task_feature_lengths={'inputs': 9}, pack=pack))
    for pack in (True, False, 'fill')
  ]
  assert bounds == [1, 1, 3]


def test_no_bound_is_claimed_where_none_is_known(family):
  masked = family('masked')
  for unknown in (dataclasses.replace(masked, pack='split'), family('causal'), family('causal and pairs')):
    assert row_predictions.most_predictions(unknown) is None
  with_supervised = dataclasses.replace(masked, mixture_or_task_name='both')
  assert row_predictions.most_predictions(with_supervised) is None
