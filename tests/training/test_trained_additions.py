"""Adapters and soft prompts are trained, and nothing else."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from t5x_lite.core import errors, tree
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.nn.adapter import is_addition
from t5x_lite.training import optimizers
from t5x_lite.training.learner import Learner

SIZES = {'vocab_size': 24, 'emb_dim': 16, 'num_heads': 2, 'head_dim': 8, 'mlp_dim': 32, 'dropout_rate': 0.0}
MODELS = {
  't5': T5(T5Config(**SIZES, num_encoder_layers=1, num_decoder_layers=1)),
  'bert': Bert(BertConfig(**SIZES, num_layers=1, max_length=16, heads=('mlm',))),
  'gpt': Gpt(GptConfig(**SIZES, num_layers=1, max_length=16)),
}
TRAINED = (r'_adapter/', r'^soft_prompt/', r'^heads/')


def batch_of(seed):
  """Rows of which each is a single token repeated, which is to be predicted in its second half."""
  rng = np.random.default_rng(seed)
  tokens = np.repeat(rng.integers(2, 24, (16, 1)), 6, axis=1).astype(np.int32)
  weights = np.broadcast_to(np.arange(6) > 2, tokens.shape).astype(np.float32)
  ones, positions = np.ones_like(tokens), np.broadcast_to(np.arange(6, dtype=np.int32), tokens.shape)
  shared = {'target_tokens': tokens, 'loss_weights': weights, 'segment_ids': ones, 'positions': positions}
  shared['input_tokens'] = np.where(weights > 0, 1, tokens).astype(np.int32)
  return {f'{side}_{name}': value for side in ('encoder', 'decoder') for name, value in shared.items()}


def only(batch, name):
  """What a model reads."""
  unused = {'t5': 'encoder_target|encoder_loss', 'bert': 'decoder', 'gpt': 'encoder'}[name].split('|')
  return {each: value for each, value in batch.items() if not any(each.startswith(prefix) for prefix in unused)}


@pytest.mark.parametrize(
  ('name', 'additions'),
  [
    ('gpt', {'adapter_dim': 8, 'prompt_length': 2}),
    pytest.param('t5', {'prompt_length': 4}, marks=pytest.mark.slow),
    pytest.param('bert', {'adapter_dim': 8}, marks=pytest.mark.slow),
  ],
)
def test_only_what_was_added_is_trained_and_the_loss_falls(name, additions):
  module = type(MODELS[name])(dataclasses.replace(MODELS[name].config, **additions))
  rate = 0.3 if name == 't5' else 0.03
  learner = Learner(
    module, optimizers.adamw(rate), rate, trained=TRAINED, loss_normalizing_factor='NUM_REAL_TARGET_TOKENS'
  )
  batch = only(batch_of(0), name)
  params = nn.meta.unbox(jax.jit(learner.init)(jax.random.key(0), batch))
  scale = 1.0 if name == 't5' else 20.0  # tables that are drawn near 0 can tell no tokens apart, and are frozen
  params = jax.tree_util.tree_map_with_path(
    lambda path, leaf: scale * leaf if tree.path_name(path).endswith('/embedding') else leaf, params
  )
  optimizer = learner.transformation

  @jax.jit
  def train(params):
    def step(carry, _):
      params, state = carry
      gradients, loss, _ = learner.gradients(params, batch, jax.random.key(1))
      updates, state = optimizer.update(gradients, state, params)
      return (optax.apply_updates(params, updates), state), loss

    return jax.lax.scan(step, (params, optimizer.init(params)), None, length=60)

  (after, state), losses = train(params)
  old, new = tree.named_leaves(params), tree.named_leaves(after)
  for each in old:
    assert np.array_equal(old[each], new[each]) != is_addition(each), each
  assert losses[-1] < 0.9 * losses[0], (losses[0], losses[-1])
  # Moments are kept of what is trained alone.
  sizes = sum(leaf.size for leaf in jax.tree.leaves(state))
  assert sizes <= 3 * sum(leaf.size for each, leaf in old.items() if is_addition(each))


def test_patterns_that_match_nothing_are_refused():
  learner = Learner(MODELS['gpt'], optimizers.adamw(0.1), 0.1, trained=TRAINED)
  with pytest.raises(errors.UsageError, match=r'match no parameter: there are blocks/'):
    jax.eval_shape(learner.init, jax.random.key(0), only(batch_of(0), 'gpt'))
  with pytest.raises(errors.UsageError, match=r"'\(' is no regular expression"):
    dataclasses.replace(learner, trained=('(',))
