import numpy as np
import pytest

from t5x_lite.data import mixtures, part_choice, virtual_shards

SHARES = (0.1, 0.6, 0.3)


def choose(seed=1, shard=2, stages=((0, SHARES),), unit='examples'):
  return part_choice.PartChoice(mixtures.Blend(('a', 'b', 'c'), stages, unit), seed, shard)


@pytest.mark.parametrize('shard', [0, 5])
def test_parts_are_drawn_by_their_shares(shard):
  choice = choose(shard=shard)
  counts = np.bincount([choice.at_random(draw, 0) for draw in range(20000)], minlength=3)
  np.testing.assert_allclose(counts / 20000, SHARES, atol=5 * np.sqrt(0.25 / 20000))


def test_any_draw_can_be_repeated():
  choice = choose()
  draws = [choice.at_random(draw, 0) for draw in range(3000)]
  for draw in (2999, 0, 1024, 511, 512, 3):
    assert choose().at_random(draw, 0) == choice.at_random(draw, 0) == draws[draw]


def test_draws_never_repeat_themselves():
  def draws(seed, shard, start=0):
    choice = choose(seed, shard)
    return tuple(choice.at_random(draw, 0) for draw in range(start, start + 256))

  shown = [draws(0, 0, start) for start in range(0, 4096, 256)] + [draws(1, 0), draws(0, 1), draws(1, 1)]
  assert len(set(shown)) == len(shown)


def test_one_part_is_always_drawn():
  alone = choose(stages=((0, (1.0,)),))
  assert {alone.at_random(draw, 0) for draw in range(100)} == {0}


def test_a_part_without_a_share_is_never_drawn():
  choice = choose(stages=((0, (0.3, 0.7, 0.0)), (5, (0.0, 0.1, 0.9))))
  assert [choice.stage(step) for step in (0, 4, 5, 99)] == [0, 0, 1, 1]
  assert {choice.at_random(draw, 0) for draw in range(2000)} == {0, 1}
  assert {choice.at_random(draw, 1) for draw in range(2000)} == {1, 2}


def test_the_part_that_lags_behind_its_share_is_next():
  choice = choose(stages=((0, (0.5, 0.5, 0.0)),), unit='tokens')
  tokens = [0, 0, 0]
  for _ in range(100):
    part = choice.lagging(tokens, 0)
    tokens[part] += (7, 100, 1)[part]
  assert tokens[2] == 0 and abs(tokens[0] - tokens[1]) <= 100


def test_sums_add_up():
  sums = virtual_shards.Sums.zeros(['encoder'], 2)
  for _ in range(2):
    sums.add(virtual_shards.Sums(3, {'encoder': 5}, [1, 2], [3, 2], [0, 1], [1, 0]))
  assert sums == virtual_shards.Sums(6, {'encoder': 10}, [2, 4], [6, 4], [0, 2], [2, 0])
  copy = virtual_shards.Sums(**sums.as_dict())
  copy.add(sums)
  assert sums.examples == [2, 4] and copy.examples == [4, 8]
