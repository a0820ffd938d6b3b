import numpy as np
import pytest

from t5x_lite.data import virtual_shards

SHARES = [0.1, 0.6, 0.3]


@pytest.mark.parametrize('shard', [0, 5])
def test_parts_are_drawn_by_their_shares(shard):
  choice = virtual_shards.PartChoice(SHARES, seed=1, shard=shard)
  counts = np.bincount([choice[draw] for draw in range(20000)], minlength=3)
  np.testing.assert_allclose(counts / 20000, SHARES, atol=5 * np.sqrt(0.25 / 20000))


def test_any_draw_can_be_repeated():
  choice = virtual_shards.PartChoice(SHARES, seed=1, shard=2)
  draws = [choice[draw] for draw in range(3000)]
  for draw in (2999, 0, 1024, 511, 512, 3):
    assert virtual_shards.PartChoice(SHARES, seed=1, shard=2)[draw] == choice[draw] == draws[draw]


def test_draws_never_repeat_themselves():
  def draws(seed, shard, start=0):
    choice = virtual_shards.PartChoice(SHARES, seed, shard)
    return tuple(choice[draw] for draw in range(start, start + 256))

  shown = [draws(0, 0, start) for start in range(0, 4096, 256)] + [draws(1, 0), draws(0, 1), draws(1, 1)]
  assert len(set(shown)) == len(shown)


def test_one_part_is_always_drawn():
  assert {virtual_shards.PartChoice([1.0], 0, 0)[draw] for draw in range(100)} == {0}


def test_sums_add_up():
  sums = virtual_shards.Sums.zeros(['encoder'], 2)
  for _ in range(2):
    sums.add(virtual_shards.Sums(3, {'encoder': 5}, [1, 2], [0, 1]))
  assert sums == virtual_shards.Sums(6, {'encoder': 10}, [2, 4], [0, 2])
  copy = virtual_shards.Sums(**sums.as_dict())
  copy.add(sums)
  assert sums.examples == [2, 4] and copy.examples == [4, 8]
