"""Speculative decoding: the ids of greedy decoding, and the distribution of the model that judges."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import struct
from markov import decoding_of, random_table, write

from t5x_lite import stored_models
from t5x_lite.core import errors
from t5x_lite.decoding.engine import Start
from t5x_lite.decoding.generate import decode, row_keys
from t5x_lite.decoding.speculative import Draft
from t5x_lite.decoding.stopping import stop_table
from t5x_lite.interop.loading import Report
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.models.xlnet import Xlnet, XlnetConfig
from t5x_lite.pretrained import Pretrained

PROMPTS = np.array([[1, 2], [3, 4], [2, 2], [0, 5], [8, 6]], np.int32)


class Counting(struct.PyTreeNode):
  """A cache that knows how many tokens were read."""

  index: jax.Array

  def rewound(self, index):
    return Counting(jnp.asarray(index, jnp.int32))


@functools.lru_cache
def program(decoding):
  """One compiled program for all tables and prompts of a shape."""

  @jax.jit
  def run(table, drafts, prompts, key, rows, stop):
    def step_of(table):
      return lambda tokens, cache: (table[tokens], Counting(cache.index + tokens.shape[1]))

    cache = Counting(jnp.full((), prompts.shape[1], jnp.int32))
    start = Start(table[prompts[:, -1]], prompts, cache, stop=stop)
    return decode(step_of(table), start, decoding, row_keys(key, rows), Draft(step_of(drafts), cache))

  return run


def assisted(table, drafts, prompts, decoding, *, seed=0, stop=None, rows=None):
  """What is written by logits `[V, V]` where another table drafts."""
  rows = jnp.arange(len(prompts)) if rows is None else jnp.asarray(rows)
  return jax.tree.map(np.asarray, program(decoding)(table, drafts, prompts, jax.random.key(seed), rows, stop))


@pytest.mark.parametrize('drafted', [1, 3, 40])
def test_greedy_ids_and_scores_are_those_without_a_draft(drafted):
  table = random_table(0)
  options = {'eos': (5, 7), 'pad': 8, 'max_new_tokens': 9, 'output_scores': True, 'repetition_penalty': 1.7}
  options |= {'no_repeat_ngram_size': 2, 'min_new_tokens': 2}
  prompts = np.stack([np.arange(9), np.arange(9)[::-1]], 1).astype(np.int32)
  stop = stop_table(['ab'], [b'x', b'a', b'b', b'ab', *[b'y'] * 5])
  expected = write(table, prompts, decoding_of(**options), stop=stop)
  assert len(set(expected.lengths.ravel().tolist())) > 1
  for off in (0.0, 1.0, 9.0):  # drafts that are all right, some, hardly any
    drafts = (table + off * random_table(1)).astype(np.float32)
    got = assisted(table, drafts, prompts, decoding_of(**options, num_assistant_tokens=drafted), stop=stop)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, expected)
    np.testing.assert_array_equal(got.tokens, expected.tokens)


@pytest.mark.parametrize(
  'options',
  [{'top_k': 0}, {'top_k': 3, 'temperature': 1.4}, {'top_k': 0, 'top_p': 0.8, 'repetition_penalty': 1.5}],
  ids=str,
)
def test_sampled_paths_have_the_distribution_of_the_model_that_judges(options):
  """By chi-square over all paths of three tokens, whose first is never drafted."""
  count, table, drafts = 6000, random_table(4, size=4, scale=1.0), random_table(5, size=4, scale=1.5)
  common = {'max_new_tokens': 3, 'do_sample': True, 'output_scores': True, **options}
  decoding = decoding_of(**common, num_assistant_tokens=2)
  got = assisted(table, drafts, np.full((count, 1), 3, np.int32), decoding)
  # Each path has the probability that its scores say, which are those of the definition (tested without drafts, too).
  paths = got.tokens[:, 0] @ np.array([16, 4, 1])
  log_probs = got.token_scores[:, 0].sum(-1)
  found = np.bincount(paths, minlength=64)
  expected = np.zeros(64)
  expected[paths] = count * np.exp(log_probs.astype(np.float64))
  assert expected.sum() > 0.98 * count  # hardly a path is likely and was never drawn
  kept = expected > 0
  statistic = (np.square(found - expected)[kept] / expected[kept]).sum()
  freedom = kept.sum() - 1
  assert freedom > 10 and statistic < freedom + 5 * np.sqrt(2 * freedom)
  # The scores are those that plain sampling gives the same paths.
  plain = write(table, np.full((count, 1), 3, np.int32), decoding_of(**common))
  of_path = dict(zip((plain.tokens[:, 0] @ np.array([16, 4, 1])).tolist(), plain.token_scores[:, 0], strict=True))
  shared = [
    (of_path[path], own) for path, own in zip(paths.tolist(), got.token_scores[:, 0], strict=True) if path in of_path
  ]
  assert len(shared) > 0.9 * count
  np.testing.assert_allclose(*map(np.stack, zip(*shared, strict=True)), atol=1e-5)


def test_a_row_draws_alike_in_any_batch_and_for_any_number_of_drafted_tokens():
  table, drafts = random_table(6, scale=1.0), random_table(7, scale=1.0)
  options = {'max_new_tokens': 8, 'do_sample': True, 'top_k': 0, 'eos': (5,)}
  all_rows = assisted(table, drafts, PROMPTS, decoding_of(**options, num_assistant_tokens=3)).tokens
  for row in range(len(PROMPTS)):
    drafted = 1 + 4 * (row % 2)
    alone = assisted(
      table, drafts, PROMPTS[row : row + 1], decoding_of(**options, num_assistant_tokens=drafted), rows=[row]
    )
    np.testing.assert_array_equal(alone.tokens[0], all_rows[row])


SIZES = {'vocab_size': 24, 'emb_dim': 16, 'num_heads': 2, 'head_dim': 8, 'mlp_dim': 32, 'scan_layers': False}


def loaded(module, seed):
  """A model of random weights, far from uniform."""
  rng = np.random.default_rng(seed)
  shapes = nn.meta.unbox(stored_models.abstract_params(module))
  params = jax.tree.map(lambda leaf: rng.normal(scale=0.5, size=leaf.shape).astype(np.float32), shapes)
  ids = {'eos_token_id': 5, 'pad_token_id': 0, 'bos_token_id': 1, 'decoder_start_token_id': 0}
  stored = stored_models.StoredModel('here', module, ids, None, lambda: None)
  return Pretrained(module, params, stored, Report())


def noisy(model, scale):
  """The same model with other weights: sometimes it says the same."""
  rng = np.random.default_rng(9)
  params = jax.tree.map(lambda leaf: leaf + scale * rng.normal(size=leaf.shape).astype(np.float32), model.params)
  return Pretrained(model.module, params, model._stored, Report())


MODELS = {
  'gpt': Gpt(GptConfig(**SIZES, num_layers=2, max_length=40)),
  'gpt_local': Gpt(
    GptConfig(**SIZES, num_layers=2, max_length=80, layer_pattern=('dense', 'local'), attention_window=3)
  ),
  't5': T5(T5Config(**SIZES, num_encoder_layers=1, num_decoder_layers=2)),
}


@pytest.mark.parametrize('name', ['gpt', *(pytest.param(name, marks=pytest.mark.slow) for name in ('gpt_local', 't5'))])
def test_models_write_the_ids_of_greedy_decoding(name):
  model = loaded(MODELS[name], 0)
  rows = [[7, 3, 9, 2], [11], [4, 8, 15, 16, 17, 21]]
  expected = model.generate(rows, max_new_tokens=12)
  for drafts in (model, noisy(model, 0.3), loaded(MODELS[name], 3)):
    got = model.generate(rows, max_new_tokens=12, assistant_model=drafts, num_assistant_tokens=4)
    np.testing.assert_array_equal(got.ids, expected.ids)


@pytest.mark.slow
def test_several_samples_of_a_row_differ_and_a_row_draws_alike_in_another_batch():
  model, rows = loaded(MODELS['gpt'], 0), [[7, 3, 9, 2], [11], [4, 8, 15, 16, 17, 21]]
  options = {'do_sample': True, 'num_return_sequences': 3, 'max_new_tokens': 6, 'assistant_model': noisy(model, 0.3)}
  together = model.generate(rows, **options)
  alone = model.generate(rows[1:2], rows=[1], **options)
  assert len({tuple(ids) for ids in together.new_ids[3:6]}) > 1
  for one, other in zip(alone.new_ids, together.new_ids[3:6], strict=True):
    np.testing.assert_array_equal(one, other)


def test_what_cannot_draft_is_refused_in_one_line():
  model, t5 = loaded(MODELS['gpt'], 0), loaded(MODELS['t5'], 0)
  wider = loaded(Gpt(GptConfig(**{**SIZES, 'vocab_size': 32}, num_layers=1, max_length=40)), 0)
  xlnet = loaded(Xlnet(XlnetConfig(**SIZES, num_layers=1)), 0)
  for one, other, more, told in [
    (model, t5, {}, 'assistant_model is a T5, and the model a Gpt'),
    (model, wider, {}, 'assistant_model has 32 tokens, and the model 24: expected the same vocabulary'),
    (xlnet, xlnet, {}, 'expected two T5 or two GPT'),
    (model, model, {'num_beams': 2}, 'num_beams is 2 with an assistant_model: expected greedy or sampling'),
    (model, model, {'num_assistant_tokens': 0}, 'num_assistant_tokens is 0: expected at least 1'),
    (model, 'gpt2', {}, "assistant_model is 'gpt2': expected what load_pretrained returns"),
  ]:
    with pytest.raises(errors.UsageError, match=told):
      one.generate([[1, 2]], assistant_model=other, max_new_tokens=2, **more)
