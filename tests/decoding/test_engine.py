"""Greedy decoding, sampling and beam search over a table: by their definitions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from markov import decoding_of, path_score, random_table, write

from t5x_lite.decoding.engine import Start
from t5x_lite.decoding.sampling import sample
from t5x_lite.decoding.stopping import stop_table

PROMPTS = np.array([[1, 2], [3, 4], [2, 2]], np.int32)


def greedy_by_hand(table, last, new, eos):
  path = []
  for _ in range(new):
    last = int(table[last].argmax())
    path.append(last)
    if last in eos:
      break
  return path


def test_greedy_takes_the_likeliest_ends_at_any_end_and_fills_up():
  table = random_table(0)
  table[table.argmax(1) == 5, 5] -= 0.1
  got = write(table, np.arange(9, dtype=np.int32)[:, None], decoding_of(eos=(5, 7), pad=8, max_new_tokens=6))
  ended = 0
  for last in range(9):
    path = greedy_by_hand(table, last, 6, (5, 7))
    assert got.lengths[last, 0] == len(path)
    assert got.tokens[last, 0].tolist() == path + [8] * (6 - len(path))
    ended += len(path) < 6
  assert ended


def test_one_beam_one_candidate_and_greedy_are_the_same():
  table = random_table(1)
  options = {'eos': (5,), 'max_new_tokens': 7}
  greedy = write(table, PROMPTS, decoding_of(**options))
  for more in ({'num_beams': 1}, {'do_sample': True, 'top_k': 1}, {'do_sample': True, 'temperature': 1e-4}):
    np.testing.assert_array_equal(write(table, PROMPTS, decoding_of(**options, **more)).tokens, greedy.tokens)


@pytest.mark.parametrize('penalty', [0.0, 1.0])
def test_a_beam_wide_enough_finds_the_best_of_all_paths(penalty):
  table, new, end = random_table(2, size=4), 3, 3
  paths = []
  for length in range(1, new + 1):
    for path in itertools.product(range(4), repeat=length):
      if end not in path[:-1] and (path[-1] == end or length == new):
        paths.append(path)
  decoding = decoding_of(
    eos=(end,), max_new_tokens=new, num_beams=40, num_return_sequences=3, length_penalty=penalty, early_stopping='never'
  )
  got = write(table, PROMPTS[:1], decoding)
  scored = sorted(((path_score(table, 2, p) / len(p) ** penalty, p) for p in paths), reverse=True)
  for place in range(3):
    score, path = scored[place]
    assert got.tokens[0, place, : got.lengths[0, place]].tolist() == list(path)
    assert got.scores[0, place] == pytest.approx(score, abs=1e-5)


def test_scores_are_the_log_probabilities_of_what_was_chosen():
  table = random_table(3)
  for more in ({}, {'num_beams': 3}, {'do_sample': True, 'top_k': 0}):
    got = write(table, PROMPTS, decoding_of(eos=(5,), max_new_tokens=5, output_scores=True, **more))
    for row, prompt in enumerate(PROMPTS):
      path = got.tokens[row, 0, : got.lengths[row, 0]]
      assert got.token_scores[row, 0].sum() == pytest.approx(path_score(table, prompt[-1], path), abs=1e-5)
      assert not got.token_scores[row, 0, len(path) :].any()


def probabilities(logits, options):
  """What is left of a distribution, by the definitions of the papers."""
  logits = logits.astype(np.float64) / options.get('temperature', 1.0)
  p = np.exp(logits - logits.max())
  p /= p.sum()
  if options.get('top_k'):
    p[np.argsort(-p)[options['top_k'] :]] = 0
    p /= p.sum()
  if 'top_p' in options:
    order = np.argsort(-p)
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= options['top_p']]] = 0
    p /= p.sum()
  if 'min_p' in options:
    p[p < options['min_p'] * p.max()] = 0
    p /= p.sum()
  if 'typical_p' in options:
    information = -np.log(np.where(p > 0, p, 1))
    off = np.where(p > 0, np.abs(information - (p * information).sum()), np.inf)
    order = np.argsort(off)
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= options['typical_p']]] = 0
    p /= p.sum()
  if 'epsilon_cutoff' in options:
    p[p < options['epsilon_cutoff']] = 0
    p /= p.sum()
  return p


@pytest.mark.parametrize(
  'options',
  [
    {'top_k': 0},
    {'temperature': 0.6, 'top_k': 0},
    {'top_k': 4},
    {'top_k': 0, 'top_p': 0.8},
    {'top_k': 6, 'top_p': 0.7, 'temperature': 1.5},
    {'top_k': 0, 'min_p': 0.2},
    {'top_k': 0, 'typical_p': 0.6},
    {'top_k': 0, 'epsilon_cutoff': 0.06},
  ],
  ids=str,
)
def test_samples_have_the_distribution_by_chi_square(options):
  count, table = 4000, random_table(4, scale=1.0)
  got = write(table, np.full((count, 1), 3, np.int32), decoding_of(max_new_tokens=1, do_sample=True, **options))
  expected = count * probabilities(table[3], options)
  found = np.bincount(got.tokens.reshape(-1), minlength=len(table))
  assert not found[expected == 0].any()
  kept = expected > 0
  statistic = (np.square(found - expected)[kept] / expected[kept]).sum()
  freedom = max(kept.sum() - 1, 1)
  assert statistic < freedom + 5 * np.sqrt(2 * freedom)  # five standard deviations of chi-square


def test_several_samples_of_a_row_differ_and_a_row_draws_alike_in_any_batch():
  table = random_table(5, scale=0.5)
  decoding = decoding_of(max_new_tokens=8, do_sample=True, num_return_sequences=3, top_k=0)
  all_rows = write(table, PROMPTS, decoding)
  assert len({tuple(path) for path in all_rows.tokens.reshape(-1, 8).tolist()}) == 9
  alone = write(table, PROMPTS[2:], decoding, rows=[2])
  np.testing.assert_array_equal(alone.tokens[0], all_rows.tokens[2])
  other = write(table, PROMPTS, decoding, seed=1)
  assert (other.tokens != all_rows.tokens).any()


def test_beams_are_sampled_without_replacement():
  table = random_table(6, scale=0.5)
  decoding = decoding_of(max_new_tokens=4, do_sample=True, num_beams=3, num_return_sequences=3, output_scores=True)
  got = write(table, PROMPTS, decoding)
  for row in range(3):
    paths = [tuple(path) for path in got.tokens[row].tolist()]
    assert len(set(paths)) == 3
    assert (np.diff(got.scores[row]) <= 0).all()
    assert got.scores[row, 0] == pytest.approx(path_score(table, PROMPTS[row, -1], paths[0]) / 4, abs=1e-5)


class Counter(struct.PyTreeNode):
  """A cache that knows how much was read."""

  count: jax.Array

  def branch(self, count, prompt_length):
    return self


TOKENS = [b'', b'a', b'b', b'ab', b'x', b' sto', b'p', b'\xc3', b'\xa9']


@pytest.mark.parametrize(
  ('path', 'stops', 'length'),
  [
    ([5, 6, 1, 1], [' stop'], 2),
    ([1, 2, 1, 1], ['ab'], 2),
    ([3, 1, 1, 1], ['ab'], 1),
    ([1, 3, 4, 1], ['aabx'], 3),
    ([4, 3, 2, 2], ['bb', 'never'], 3),
    ([7, 8, 1, 1], ['é'], 2),
    ([7, 1, 8, 1], ['é'], 4),
    ([3, 3, 4, 4], ['ba'], 2),
  ],
)
def test_a_text_that_is_spread_over_tokens_stops(path, stops, length):
  got = write_path(path, stops)
  assert got.lengths[0, 0] == length
  assert got.tokens[0, 0].tolist() == path[:length] + [0] * (4 - length)


def write_path(path, stops):
  """Writes a path whatever was written before, with a counter for a cache."""
  wanted = jax.nn.one_hot(jnp.asarray(path), 9)

  def tokens_to_logits(tokens, cache):
    return wanted[cache.count][None, None], Counter(cache.count + 1)

  start = Start(wanted[0][None], jnp.array([[0]]), Counter(jnp.asarray(1)), stop=stop_table(stops, TOKENS))
  decoding = decoding_of(max_new_tokens=4)
  return jax.jit(lambda: sample(tokens_to_logits, start, decoding, None))()


def test_a_text_begun_in_the_prompt_stops_too():
  table = np.zeros((9, 9), np.float32)
  table[:, 2] = 5.0
  stop = stop_table(['ab'], TOKENS)
  got = write(table, np.array([[4, 1], [4, 4], [1, 2]], np.int32), decoding_of(max_new_tokens=3), stop=stop)
  assert got.lengths[:, 0].tolist() == [1, 3, 3]
