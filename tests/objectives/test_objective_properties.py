"""Every objective keeps or restores its text as its definition says, for any length, any rate and any seed."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_lite.core import errors
from t5x_lite.objectives import corruptions, sizes, span_corruption
from t5x_lite.objectives.causal_lm import CausalLM
from t5x_lite.objectives.denoising import Denoising
from t5x_lite.objectives.masked_lm import MaskedLM
from t5x_lite.objectives.permutation_lm import PermutationLM
from t5x_lite.objectives.prefix_lm import PrefixLM
from t5x_lite.objectives.sentence_pairs import NextSentence, SentenceOrder
from t5x_lite.objectives.span_corruption import SpanCorruption
from t5x_lite.objectives.text_infilling import TextInfilling
from t5x_lite.objectives.ul2 import PAPER, UL2

LENGTHS = st.one_of(st.integers(0, 20), st.integers(0, 10_000))
RATES = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 1e-9, 0.15, 0.5, 0.999, 1.0]))
SEEDS = st.integers(0, 2**32 - 1)
INSIDE = st.floats(0.001, 0.999)
SPANS = st.floats(1.0, 100.0)
LONG = 5000  # more than any pair of texts has
many = settings(max_examples=60, deadline=None)


def text(length):
  """Tokens that all differ, so that each tells its place."""
  return np.arange(100, 100 + length, dtype=np.int32)


def made_by(objective, length, seed, tokenizer):
  made = objective(text(length), np.random.default_rng(seed), tokenizer)
  assert set(made) == set(objective.features)
  assert all(array.dtype == np.int32 and array.ndim == 1 and len(array) for array in made.values())
  again = objective(text(length), np.random.default_rng(seed), tokenizer)
  assert all(np.array_equal(made[name], again[name]) for name in made)
  return made


def rng(seed):
  return np.random.default_rng(seed)


def bodies(made, tokenizer):
  """Inputs and targets without the EOS that both must have."""
  assert made['inputs'][-1] == made['targets'][-1] == tokenizer.eos_id
  return made['inputs'][:-1], made['targets'][:-1]


def runs(tokens, is_sentinel):
  """The text between sentinels, in order, without empty pieces."""
  pieces = np.split(tokens, np.flatnonzero(is_sentinel))
  pieces = [piece[1:] if number else piece for number, piece in enumerate(pieces)]
  return [piece.tolist() for piece in pieces if len(piece)]


@many
@given(length=LENGTHS, density=RATES, span=SPANS, seed=SEEDS)
def test_span_corruption_restores_the_text(t5, length, density, span, seed):
  objective = SpanCorruption(density, span)
  made = made_by(objective, length, seed, t5)
  seen, told = bodies(made, t5)
  np.testing.assert_array_equal(span_corruption.restore(made['inputs'], made['targets'], t5), text(length))
  if length > 1:
    assert (len(made['inputs']), len(made['targets'])) == objective.example_lengths(length)
  if density == 0.0:
    assert seen.tolist() == text(length).tolist() and not len(told)
  if density == 1.0:
    hidden = [t5.sentinel_id(0)] * bool(length)
    assert seen.tolist() == hidden and told.tolist() == [*hidden, *text(length)]
  if length > 1:
    both = objective.batch(np.stack([text(length)] * 2), np.stack([objective.draws(length, rng(seed))] * 2), t5)
    assert all(own[name].tolist() == made[name].tolist() for own in both for name in made)


@many
@given(
  length=LENGTHS,
  density=RATES,
  seed=SEEDS,
  mask=st.sampled_from(['iid', 'spans']),
  inputs=st.sampled_from(sorted(corruptions.INPUTS)),
  targets=st.sampled_from(sorted(corruptions.TARGETS)),
)
def test_denoising_has_all_of_the_text(t5, length, density, seed, mask, inputs, targets):
  objective = Denoising(mask, density, inputs=inputs, targets=targets)
  made = made_by(objective, length, seed, t5)
  seen, told = bodies(made, t5)
  longest = objective.example_lengths(length)
  assert len(made['inputs']) <= longest[0] and len(made['targets']) <= longest[1]
  first_sentinel = t5.vocab_size - t5.num_sentinels
  is_text = [tokens < first_sentinel for tokens in (seen, told)]
  if targets == 'whole':
    np.testing.assert_array_equal(told, text(length))
  else:  # told is what is noise, in order, and nothing else
    noise = told[is_text[1]]
    assert np.all(np.diff(noise) > 0)
    kept = np.setdiff1d(text(length), noise)
    if inputs in ('drop_noise_tokens', 'noise_span_to_sentinel', 'noise_span_to_unique_sentinel'):
      np.testing.assert_array_equal(seen[is_text[0]], kept)
    else:
      assert len(seen) == length
      np.testing.assert_array_equal(seen[kept - 100], kept)
  if density in (0.0, 1.0) and targets == 'drop_nonnoise_tokens':
    assert told.tolist() == (text(length).tolist() if density else [])
  if inputs == 'permute_noise_tokens':
    np.testing.assert_array_equal(np.sort(seen), text(length))
  if inputs == 'noise_token_to_gathered_token':
    assert set(seen.tolist()) <= set(range(100, 100 + length))


@many
@given(length=LENGTHS, density=RATES, seed=SEEDS)
def test_independent_noise_is_undone_by_taking_turns(t5, length, density, seed):
  seen, told = bodies(made_by(Denoising(noise_density=density), length, seed, t5), t5)
  first_sentinel = t5.vocab_size - t5.num_sentinels
  kept, noise = (runs(tokens, tokens >= first_sentinel) for tokens in (seen, told))
  for tokens in (seen, told):  # counted from the first sentinel on, on either side
    sentinels = tokens[tokens >= first_sentinel]
    np.testing.assert_array_equal(sentinels, t5.vocab_size - 1 - np.arange(len(sentinels)))
  order = (noise, kept) if length and len(seen) and seen[0] >= first_sentinel else (kept, noise)
  restored = [token for pair in itertools.zip_longest(*order, fillvalue=[]) for piece in pair for token in piece]
  assert restored == text(length).tolist()


@many
@given(length=LENGTHS, density=RATES, seed=SEEDS)
def test_a_prefix_and_the_rest_are_the_text(t5, length, density, seed):
  objective = PrefixLM(density)
  made = made_by(objective, length, seed, t5)
  prefix, rest = bodies(made, t5)
  np.testing.assert_array_equal(np.concatenate([prefix, rest]), text(length))
  if density in (0.0, 1.0):
    assert len(rest) == density * length
    return
  assert length == 0 or len(rest)
  if length > 1:
    longest = objective.example_lengths(length)
    assert 1 <= len(prefix) <= longest[0] - 1 and len(rest) <= longest[1] - 1
    assert len(rest) <= 2 * density * length + 1.5 and len(prefix) <= 2 * (1 - density) * length + 1.5


@many
@given(length=LENGTHS, seed=SEEDS)
def test_causal_and_permutation_models_have_the_text_as_targets(bert, length, seed):
  causal = made_by(CausalLM(), length, seed, bert)
  assert causal['targets'].tolist() == (text(length).tolist() or [bert.eos_id])
  permuted = made_by(PermutationLM(), length, seed, bert)
  np.testing.assert_array_equal(permuted['targets'], [*text(length), bert.sep_id, bert.cls_id])
  ordered = permuted['order'][permuted['order'] > 0]
  assert sorted(ordered) == list(range(1, len(ordered) + 1))
  assert (permuted['predicted'].sum() > 0) == (length > 0)


@many
@given(
  length=LENGTHS,
  probability=RATES,
  seed=SEEDS,
  unit=st.sampled_from(['token', 'word', 'ngram']),
  limit=st.one_of(st.none(), st.integers(1, 50)),
)
def test_masking_changes_only_what_is_predicted(bert, length, probability, seed, unit, limit):
  if probability == 0.0:  # nothing would be predicted: there is no loss of nothing
    with pytest.raises(errors.UsageError, match='expected 0 < p <= 1'):
      MaskedLM(probability)
    return
  objective = MaskedLM(probability, unit=unit, max_predictions=limit)
  made = made_by(objective, length, seed, bert)
  np.testing.assert_array_equal(made['targets'], [bert.cls_id, *text(length), bert.sep_id])
  chosen = made['predicted'] == 1
  assert not chosen[0] and not chosen[-1]
  assert np.all(chosen | (made['inputs'] == made['targets']))
  count = min(objective.num_predictions(length + 2), length)
  assert limit is None or chosen.sum() <= limit
  if unit == 'token':
    assert chosen.sum() == count
  else:  # words are pairs of an even id and an odd one; n-grams that meet leave words out
    assert (count - 1 if unit == 'word' else min(count - 1, 1)) <= chosen.sum() <= count
    np.testing.assert_array_equal(chosen[1 : 1 + length // 2 * 2 : 2], chosen[2 : 2 + length // 2 * 2 : 2])


@many
@given(length=LENGTHS, ratio=RATES, mean=st.floats(0.01, 50.0), seed=SEEDS)
def test_infilling_keeps_what_it_does_not_mask(t5, length, ratio, mean, seed):
  seen, told = bodies(made_by(TextInfilling(ratio, mean), length, seed, t5), t5)
  np.testing.assert_array_equal(told, text(length))
  is_mask = seen == t5.sentinel_id(0)
  kept = seen[~is_mask]
  assert np.all(np.diff(kept) > 0) and np.all((kept >= 100) & (kept < 100 + length))
  assert len(kept) == length - np.ceil(length * ratio)
  assert len(seen) <= length
  # Something stands for everything that is missing: between kept tokens, before the first and behind the last.
  gaps = np.diff(kept, prepend=99, append=100 + length) - 1
  masks = np.diff(np.flatnonzero(~is_mask), prepend=-1, append=len(seen)) - 1
  assert np.all((gaps == 0) | (masks > 0))


@many
@given(
  length=LENGTHS,
  seed=SEEDS,
  denoiser=st.one_of(
    st.sampled_from(PAPER), st.tuples(st.sampled_from(['', '[X]']), st.one_of(st.none(), SPANS), RATES, st.just(1.0))
  ),
)
def test_every_denoiser_of_ul2_restores_the_text(t5, length, seed, denoiser):
  mode, span, _, _ = denoiser
  made = made_by(UL2((denoiser,)), length, seed, t5)
  prefix = t5.encode(mode)
  assert made['inputs'][: len(prefix)].tolist() == prefix
  inputs = made['inputs'][len(prefix) :]
  if span is None:
    np.testing.assert_array_equal(np.concatenate([inputs[:-1], made['targets'][:-1]]), text(length))
  else:
    np.testing.assert_array_equal(span_corruption.restore(inputs, made['targets'], t5), text(length))


@many
@given(
  sizes=st.lists(st.integers(1, 60), min_size=1, max_size=30),
  others=st.lists(st.integers(1, 60), min_size=1, max_size=5),
  raw_length=st.one_of(st.integers(2, 120), st.just(LONG)),
  short=RATES,
  seed=SEEDS,
  kind=st.sampled_from([NextSentence, SentenceOrder]),
)
def test_pairs_use_up_a_document_in_order(bert, sizes, others, raw_length, short, seed, kind):
  objective, rng = kind(short_seq_prob=short), np.random.default_rng(seed)
  bounds = np.cumsum([0, *sizes])
  document = [text(bounds[-1])[start:end] for start, end in itertools.pairwise(bounds)]
  foreign = [np.arange(50_000, 50_000 + size, dtype=np.int32) + 100 * i for i, size in enumerate(others)]
  at, used = 0, np.zeros(0, np.int32)
  while at < len(document):
    made, consumed, truncated = objective.pair(document[at:], lambda rng: foreign, rng, bert, raw_length)
    assert set(made) == set(objective.features) and made['label'].shape == (1,)
    assert 1 <= consumed <= len(document) - at
    targets, label = made['targets'], int(made['label'][0])
    assert len(targets) <= raw_length + 3
    (middle, end) = np.flatnonzero(targets == bert.sep_id)
    assert targets[0] == bert.cls_id and end == len(targets) - 1
    np.testing.assert_array_equal(made['token_types'], np.arange(len(targets)) > middle)
    assert np.all((made['predicted'] == 1) | (made['inputs'] == targets))
    first, second = targets[1:middle], targets[middle + 1 : -1]
    assert len(first) and len(second)
    assert all(np.all(np.diff(part) == 1) for part in (first, second) if part[0] < 50_000)
    own = [part for part in (first, second) if part[0] < 50_000]
    if sum(map(len, own)) < sum(sizes[at : at + consumed]):
      assert truncated
    if truncated:
      assert len(targets) == raw_length + 3
    if kind is NextSentence:
      assert len(own) == 2 - label
    if len(own) == 2:
      assert (own[0][0] < own[1][0]) == (kind is NextSentence or label == 0)
      used = np.concatenate([used, *sorted(own, key=lambda part: part[0])])
    else:
      assert label == 1
      used = np.concatenate([used, *own])
    at += consumed
  assert np.all(np.diff(used) > 0)  # no token twice, none out of order
  if raw_length == LONG:  # where nothing is too long, nothing is lost
    np.testing.assert_array_equal(used, text(bounds[-1]))


@settings(max_examples=60, deadline=None)
@given(
  inputs=st.one_of(st.none(), st.integers(8, 300)),
  targets=st.integers(8, 300),
  objective=st.sampled_from(
    [
      SpanCorruption(),
      SpanCorruption(0.5, 3.0),
      SpanCorruption(0.0),
      SpanCorruption(1.0),
      PrefixLM(),
      PrefixLM(0.25),
      PrefixLM(0.9),
      PrefixLM(0.0),
      PrefixLM(1.0),
      Denoising('spans', 1.0, inputs='drop_noise_tokens', targets='drop_nonnoise_tokens'),
      Denoising(),
      Denoising(inputs='drop_noise_tokens', targets='drop_nonnoise_tokens'),
      Denoising(noise_density=0.5, inputs='noise_token_to_sentinel', targets='whole'),
      Denoising('spans', inputs='noise_span_to_sentinel', targets='drop_nonnoise_tokens'),
      TextInfilling(),
      UL2(),
    ]
  ),
  seed=SEEDS,
)
def test_what_the_lengths_allow_fits_and_so_does_all_that_is_shorter(t5, inputs, targets, objective, seed):
  lengths = {'targets': targets} if inputs is None else {'inputs': inputs, 'targets': targets}
  try:
    raw = objective.raw_length(lengths)
  except errors.UsageError as error:
    assert 'got' in str(error) and 'expected' in str(error)
    return
  rng = np.random.default_rng(seed)
  for length in range(raw + 1):
    made = objective(text(length), rng, t5)
    assert sizes.fits((len(made['inputs']), len(made['targets'])), lengths), length
    assert len(made['inputs']) >= 1 and len(made['targets']) >= 1


@many
@given(length=st.integers(0, 600), probability=INSIDE, unit=st.sampled_from(['token', 'word', 'ngram']), seed=SEEDS)
def test_masked_lm_predicts_no_more_than_it_says(bert, length, probability, unit, seed):
  objective = MaskedLM(mask_probability=probability, unit=unit)
  made = objective(text(length), np.random.default_rng(seed), bert)
  assert made['predicted'].sum() <= objective.most_predicted(len(made['targets']))


@many
@given(length=st.integers(0, 600), span=st.integers(1, 12), factor=st.integers(2, 9), seed=SEEDS)
def test_permutation_lm_predicts_no_more_than_it_says(bert, length, span, factor, seed):
  objective = PermutationLM(span, factor)
  made = objective(text(length), np.random.default_rng(seed), bert)
  assert made['predicted'].sum() <= objective.most_predicted(len(made['targets']))
