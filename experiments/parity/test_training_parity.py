"""Training parity: same weights, same batches, same optimiser, here and in torch; the losses of 20 steps agree to 1e-4.

Runs where torch, transformers and this library are installed:

    python -m pytest experiments/parity

Without dropout, in float32. Adafactor is transformers', which factors all matrices, whatever their size: so ours is
told to. It runs on T5, whose own optimiser it is.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
import twins

from t5x_lite.training import optimizers
from t5x_lite.training.learner import Learner
from t5x_lite.training.state import TrainState
from t5x_lite.training.steps import train_step

STEPS = 20
BATCHES = 4  # read in turn
VOCAB = 60
LEARNING_RATE = {'adamw': 3e-3, 'adafactor': 3e-2}


def padded_text(rng: np.random.Generator, rows: int, length: int) -> dict[str, np.ndarray]:
  """Rows of several lengths, of ids that are not the padding id."""
  mask = (np.arange(length) < rng.integers(length // 2, length + 1, (rows, 1))).astype(np.int64)
  return {'input_ids': np.where(mask > 0, rng.integers(3, VOCAB, mask.shape), 0), 'attention_mask': mask}


def bert():
  config = transformers.BertConfig(
    vocab_size=VOCAB, hidden_size=24, num_attention_heads=3, num_hidden_layers=2, intermediate_size=40,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.1,
  )  # fmt: skip

  def batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    rows = padded_text(rng, 6, 14)
    masked = (rng.random(rows['input_ids'].shape) < 0.4) & (rows['attention_mask'] > 0)
    return {
      'input_ids': np.where(masked, 2, rows['input_ids']),
      'attention_mask': rows['attention_mask'],
      'token_type_ids': (np.arange(14) > 6).astype(np.int64) * np.ones((6, 1), np.int64),
      'labels': np.where(masked, rows['input_ids'], twins.IGNORED),
    }

  return transformers.BertForMaskedLM(config), batch


def gpt2():
  config = transformers.GPT2Config(
    vocab_size=VOCAB, n_embd=24, n_head=3, n_layer=2, n_positions=20, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    initializer_range=0.1, bos_token_id=0, eos_token_id=0,
  )  # fmt: skip

  def batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    rows = padded_text(rng, 6, 14)
    return {**rows, 'labels': np.where(rows['attention_mask'] > 0, rows['input_ids'], twins.IGNORED)}

  return transformers.GPT2LMHeadModel(config), batch


def t5(projection: str, tied: bool):
  config = transformers.T5Config(
    vocab_size=VOCAB, d_model=24, d_kv=5, num_heads=3, num_layers=2, d_ff=40, feed_forward_proj=projection,
    tie_word_embeddings=tied, dropout_rate=0.0,
  )  # fmt: skip
  model = transformers.T5ForConditionalGeneration(config)
  if not tied:
    model.lm_head.weight = torch.nn.Parameter(0.3 * torch.randn(model.lm_head.weight.shape))

  def batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    rows, targets = padded_text(rng, 6, 14), padded_text(rng, 6, 9)
    labels = np.where(targets['attention_mask'] > 0, targets['input_ids'], twins.IGNORED)
    shifted = np.pad(targets['input_ids'][:, :-1], ((0, 0), (1, 0)))
    return {**rows, 'decoder_input_ids': shifted, 'labels': labels}

  return model, batch


MODELS = {
  'bert': bert,
  'gpt2': gpt2,
  't5': lambda: t5('relu', tied=True),
  't5_1_1': lambda: t5('gated-gelu', tied=False),
}


def their_optimizer(name: str, model: torch.nn.Module) -> torch.optim.Optimizer:
  """AdamW that leaves biases and norms alone, or transformers' Adafactor with a rate relative to the parameters."""
  rate, parameters = LEARNING_RATE[name], list(model.parameters())
  if name == 'adafactor':
    return transformers.Adafactor(parameters, lr=rate, scale_parameter=True, relative_step=False, warmup_init=False)
  kernels, others = ([p for p in parameters if (p.ndim > 1) == is_kernel] for is_kernel in (True, False))
  groups = [{'params': kernels, 'weight_decay': 0.1}, {'params': others, 'weight_decay': 0.0}]
  return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-8)


def our_optimizer(name: str):
  """The same here."""
  if name == 'adafactor':
    return optimizers.adafactor(LEARNING_RATE[name], min_dim_size_to_factor=1)
  return optimizers.adamw(LEARNING_RATE[name], b1=0.9, b2=0.98, eps=1e-8, weight_decay=0.1)


def their_losses(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: list) -> list[float]:
  losses = []
  for step in range(STEPS):
    optimizer.zero_grad()
    loss = model(**twins.to_torch(batches[step % BATCHES])).loss
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
  return losses


def our_losses(pair: twins.Twins, optimizer, batches: list) -> list[float]:
  learner = Learner(
    module=pair.ours, optimizer=optimizer, learning_rate=0.0, loss_normalizing_factor='NUM_REAL_TARGET_TOKENS'
  )
  key = jax.random.key_data(jax.random.key(0))
  state = TrainState(jnp.zeros((), jnp.int32), pair.params, optimizer.init(pair.params), key)
  step_fn = jax.jit(lambda state, batch: train_step(learner, state, batch))
  losses = []
  for step in range(STEPS):
    state, metrics = step_fn(state, pair.training_batch(batches[step % BATCHES]))
    losses.append(float(metrics['loss']))
  return losses


@pytest.mark.parametrize('scan', [True, False], ids=['scanned', 'unrolled'])
@pytest.mark.parametrize(
  ('name', 'optimizer'),
  [(name, 'adamw') for name in MODELS] + [('t5', 'adafactor'), ('t5_1_1', 'adafactor')],
)
def test_losses_of_twenty_steps_follow_each_other(name, optimizer, scan):
  torch.manual_seed(0)
  rng = np.random.default_rng(0)
  model, batch = MODELS[name]()
  pair = twins.make(model, scan_layers=scan)
  assert dataclasses.asdict(pair.ours.config)['dropout_rate'] == 0.0
  batches = [batch(rng) for _ in range(BATCHES)]
  ours = our_losses(pair, our_optimizer(optimizer), batches)
  theirs = their_losses(model, their_optimizer(optimizer, model), batches)
  print(
    f'{name} {optimizer}: {theirs[0]:.4f} to {theirs[-1]:.4f}, apart by {np.max(np.abs(np.subtract(ours, theirs))):.1e}'
  )
  assert theirs[-1] < theirs[0] - 0.2, 'nothing was learned'
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
