"""Relative attention against its own definition, term by term and pair by pair."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.nn.relative_attention import (
  RelativeAttention,
  RelativeContext,
  relative_distances,
  relative_shift,
  relative_sinusoids,
)

B, T, M, N, H, D = 2, 5, 3, 2, 4, 8
S = M + T


def test_shift_looks_up_the_distance_of_every_pair():
  distances = relative_distances(T, S)
  assert distances.shape == (T + S,)
  shifted = relative_shift(jnp.broadcast_to(jnp.asarray(distances), (B, N, T, T + S)))
  # The queries are the last of the keys.
  expected = (np.arange(T)[:, None] + M) - np.arange(S)
  np.testing.assert_array_equal(shifted, np.broadcast_to(expected, (B, N, T, S)))


def test_shift_keeps_each_query_to_its_own_row():
  rows = jnp.broadcast_to(jnp.arange(T)[:, None], (T, T + S))
  np.testing.assert_array_equal(relative_shift(rows), np.broadcast_to(np.arange(T)[:, None], (T, S)))


def test_sinusoids_are_those_of_the_paper():
  distances = np.array([7, 1, 0, -3], np.int32)
  got = relative_sinusoids(distances, 6)
  for i, distance in enumerate(distances):
    for k in range(3):
      angle = distance / 10_000 ** (2 * k / 6)
      np.testing.assert_allclose(got[i, k], np.sin(angle), atol=1e-6)
      np.testing.assert_allclose(got[i, 3 + k], np.cos(angle), atol=1e-6)


def setup(rows=B, groups=1, **kwargs):
  """A module with parameters that are far from zero, and what it reads."""
  module = RelativeAttention(N, H, D, kernel_init=nn.initializers.normal(0.5), **kwargs)
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(rows, T, D)), jnp.float32)
  content = jnp.asarray(rng.normal(size=(rows, S, D)), jnp.float32)
  sinusoids = relative_sinusoids(np.stack([relative_distances(T, S) * sign for sign in (1, -1)[:groups]]), D)
  mask = jnp.asarray(rng.random((rows, 1, T, S)) < 0.7).at[..., 0].set(True)
  context = RelativeContext(sinusoids, mask, mask, jnp.asarray(rng.random((rows, T, S)) < 0.5))
  init = jax.jit(module.init, static_argnames='method')
  variables = nn.unbox(init(jax.random.key(0), x, content, context, method=attend))
  return module, variables, x, content, context


def attend(module, x, content, context, **kwargs):
  return module(x, module.keys_values(content), module.position_keys(context.sinusoids), context, **kwargs)


@functools.partial(jax.jit, static_argnames=('module', 'query_stream', 'deterministic'))
def apply(module, variables, x, content, context, **kwargs):
  return module.apply(variables, x, content, context, method=attend, **kwargs)


def by_definition(params, x, content, context, signs):
  """Transformer-XL's four terms and XLNet's fifth, one pair of positions after the other."""

  def project(name, each):
    return np.asarray(each @ params[name]['kernel'], np.float64).reshape(*each.shape[:-1], N, H)

  query, keys, values = project('query', x), project('key', content), project('value', content)
  w, r, s, embed = (np.asarray(params[name], np.float64) for name in ('r_w_bias', 'r_r_bias', 'r_s_bias', 'seg_embed'))
  by_distance = dict(
    zip(range(-S, S + 1), project('position', relative_sinusoids(np.arange(-S, S + 1), D)), strict=True)
  )
  attended = np.zeros(query.shape)
  for b, n, i in np.ndindex(x.shape[0], N, T):
    scores = np.full(S, -np.inf)
    for j in range(S):
      if context.content_mask[b, 0, i, j]:
        q, other = query[b, i, n], int(context.other_segment[b, i, j])
        terms = (
          (q + w[n]) @ keys[b, j, n]
          + (q + r[n]) @ by_distance[signs[b] * (M + i - j)][n]
          + (q + s[n]) @ embed[other, n]
        )
        scores[j] = terms / np.sqrt(H)
    weights = np.exp(scores - scores.max())
    attended[b, i, n] = (weights / weights.sum()) @ values[b, :, n]
  return attended.reshape(*x.shape[:2], N * H) @ np.asarray(params['out']['kernel'], np.float64)


@pytest.mark.parametrize(('groups', 'signs'), [(1, (1, 1, 1, 1)), (2, (1, 1, -1, -1))])
def test_is_the_sum_of_its_terms(groups, signs):
  module, variables, x, content, context = setup(rows=4, groups=groups)
  expected = by_definition(variables['params'], x, content, context, signs)
  np.testing.assert_allclose(apply(module, variables, x, content, context), expected, atol=1e-5)


def test_one_segment_is_as_good_as_none():
  module, variables, x, content, context = setup()
  same = context.replace(other_segment=jnp.zeros((B, T, S), bool))
  none = context.replace(other_segment=None)
  expected = apply(module, variables, x, content, none)
  np.testing.assert_allclose(apply(module, variables, x, content, same), expected, atol=1e-6)
  assert np.abs(apply(module, variables, x, content, context) - expected).max() > 1e-2


def test_target_mapping_chooses_positions():
  module, variables, _, content, context = setup()
  places = np.array([[4, 1], [0, 2]])
  one_hot = jnp.asarray(np.eye(T, dtype=np.float32)[places])
  queries = jax.random.normal(jax.random.key(3), (B, 2, D))
  few = apply(module, variables, queries, content, context.replace(target_mapping=one_hot), query_stream=True)
  everywhere = jnp.zeros((B, T, D)).at[np.arange(B)[:, None], places].set(queries)
  all_of_them = apply(module, variables, everywhere, content, context, query_stream=True)
  np.testing.assert_allclose(few, np.take_along_axis(np.asarray(all_of_them), places[..., None], 1), atol=1e-6)


def test_a_query_that_sees_nothing_is_given_nothing():
  module, variables, x, content, context = setup()
  blind = context.replace(query_mask=context.query_mask.at[:, :, 2].set(False))
  run = jax.jit(lambda content, context: apply(module, variables, x, content, context, query_stream=True))
  assert np.any(np.asarray(run(content, blind))[:, 2] != 0)  # softmax over nothing is a mean of everything
  informed = jnp.any(blind.query_mask[:, 0], axis=-1)
  got = run(content, blind.replace(informed=informed))
  assert np.all(np.asarray(got)[:, 2] == 0)
  np.testing.assert_allclose(np.delete(got, 2, 1), np.delete(run(content, blind), 2, 1))


def test_dropout_only_where_it_is_asked_for():
  module, variables, x, content, context = setup(dropout_rate=0.5)
  plain = apply(module, variables, x, content, context)
  dropped = [
    apply(module, variables, x, content, context, deterministic=False, rngs={'dropout': jax.random.key(seed)})
    for seed in (0, 0, 1)
  ]
  np.testing.assert_array_equal(dropped[0], dropped[1])
  assert np.abs(dropped[0] - dropped[2]).max() > 1e-3 and np.abs(dropped[0] - plain).max() > 1e-3
