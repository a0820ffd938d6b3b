"""Every family trains on a mesh as it does on one device."""

import jax
import numpy as np
import pytest

from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.xlnet import Xlnet, XlnetConfig
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.training import optimizers
from t5x_lite.training.learner import Learner
from t5x_lite.training.steps import Trainer

SIZES = {'vocab_size': 32, 'emb_dim': 8, 'num_heads': 4, 'head_dim': 4, 'mlp_dim': 16, 'num_layers': 2}
MIXED = MeshShape(data=2, fsdp=2, tensor=2)
BERT = Bert(BertConfig(**SIZES, max_length=16, heads=('mlm',)))
LOCAL = Bert(BertConfig(**SIZES, max_length=16, heads=('mlm',), attention_window=2, num_kv_heads=2))
GPT3 = Gpt(GptConfig(**SIZES, max_length=16, layer_pattern=('dense', 'local'), attention_window=3))
LLAMA = {'norm': 'rms', 'positions': 'rotary', 'mlp_activations': ('silu', 'linear'), 'use_bias': False}
EXPERTS = Gpt(GptConfig(**SIZES, **LLAMA, num_kv_heads=2, num_experts=4, experts_per_token=2))
XLNET = Xlnet(XlnetConfig(**SIZES))


def train(module, mesh, batches, spec_of):
  learner = Learner(module, optimizers.sgd(0.1), 0.1, loss_normalizing_factor='NUM_REAL_TARGET_TOKENS')
  trainer = Trainer(learner, mesh, spec_of(batches[0]))
  state = trainer.init(0)
  for batch in batches:
    state, metrics = trainer.train_step(state, trainer.shard_batch(batch))
  return jax.tree.map(np.asarray, state.params), jax.tree.map(float, metrics)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('module', 'shape'),
  [
    (BERT, MIXED),
    (LOCAL, MIXED),
    (GPT3, MIXED),
    (GPT3, MeshShape(data=2, tensor=2, sequence=2)),
    (EXPERTS, MeshShape(data=2, expert=4)),
    (EXPERTS, MeshShape(data=1, fsdp=2, tensor=2, expert=2)),
    (XLNET, MIXED),
  ],
  ids=['bert', 'local', 'gpt3', 'gpt3-sequence', 'experts', 'experts-mixed', 'xlnet'],
)
def test_sharded_equals_unsharded(module, shape, packed_batch, spec_of):
  def make_batch(seed):
    batch = packed_batch(16, seed)
    if isinstance(module, Bert):
      return {name.replace('decoder', 'encoder'): rows for name, rows in batch.items()}
    if isinstance(module, Xlnet):
      return batch | {'decoder_order': np.random.default_rng(seed).permuted(batch['decoder_positions'], axis=1)}
    return batch

  batches = [make_batch(seed) for seed in range(2)]
  alone = train(module, make_mesh(None, jax.devices()[:1]), batches, spec_of)
  found = train(module, make_mesh(shape), batches, spec_of)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, alone)
  assert found[1]['grad_norm'] > 1e-3
