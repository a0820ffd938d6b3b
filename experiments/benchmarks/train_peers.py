"""The peers' side of `train_step.py`: one arm, in a process of its own.

    <python with torch, transformers> experiments/benchmarks/train_peers.py transformers --work=...
    PYTHONPATH=<t5x>:<seqio>:... <python with what T5X needs> experiments/benchmarks/train_peers.py T5X --work=t5_small

transformers: its own model and loss, with its own choice of attention; half precision is autocast on float32 weights;
torch's fused AdamW, the gradient clipped to norm 1. T5X: its own network, model, Adafactor and trainer, in one jitted
step on one device, without a partitioner. Dropout is 0.1 in both.
"""

from __future__ import annotations

import time

import train_works
from train_works import TRANSFORMERS, Work


def _transformers_batch(work: Work) -> tuple:
  """`(model, batch)` of random weights and random tokens."""
  import torch
  import transformers

  def tokens(vocabulary: int, length: int) -> torch.Tensor:
    return torch.randint(5, min(vocabulary, 30000), (work.rows, length))

  shape = work.shape
  if work.model == 't5':
    sizes = {'d_model': shape.emb_dim, 'd_ff': shape.mlp_dim, 'd_kv': 64, 'num_heads': shape.num_heads}
    sizes |= {'num_layers': shape.num_layers, 'num_decoder_layers': shape.num_layers}
    config = transformers.T5Config(vocab_size=train_works.T5_VOCABULARY, decoder_start_token_id=0, **sizes)
    inputs = tokens(train_works.T5_VOCABULARY, work.length)
    batch = {'input_ids': inputs, 'labels': tokens(train_works.T5_VOCABULARY, work.targets)}
    return transformers.T5ForConditionalGeneration(config), batch | {'attention_mask': torch.ones_like(inputs)}
  if work.model == 'bert':
    inputs = tokens(train_works.BERT_VOCABULARY, work.length)
    labels = torch.full_like(inputs, -100)
    labels[:, : work.predicted] = inputs[:, : work.predicted]
    batch = {'input_ids': inputs, 'attention_mask': torch.ones_like(inputs), 'labels': labels}
    batch |= {'token_type_ids': torch.zeros_like(inputs), 'next_sentence_label': torch.randint(0, 2, (work.rows,))}
    sizes = {'hidden_size': shape.emb_dim, 'intermediate_size': shape.mlp_dim}
    sizes |= {'num_attention_heads': shape.num_heads, 'num_hidden_layers': shape.num_layers}
    return transformers.BertForPreTraining(transformers.BertConfig(**sizes)), batch
  inputs = tokens(train_works.GPT2_VOCABULARY, work.length)
  config = transformers.GPT2Config(n_embd=shape.emb_dim, n_head=shape.num_heads, n_layer=shape.num_layers)
  return transformers.GPT2LMHeadModel(config), {'input_ids': inputs, 'labels': inputs}


def run_transformers(args) -> None:
  """Times transformers, eager or compiled by torch."""
  import torch
  import transformers

  torch.manual_seed(0)
  device = 'cuda' if args.platform == train_works.GPU else 'cpu'
  if device == 'cuda':
    torch.set_float32_matmul_precision('high')  # TF32, as XLA has it on a GPU by default
  model, batch = _transformers_batch(train_works.work_of(args))
  model, batch = model.to(device), {name: value.to(device) for name, value in batch.items()}
  model.train()
  call = torch.compile(model) if args.layers == train_works.COMPILED else model
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
  losses = []

  def step() -> None:
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16, enabled=args.dtype == 'bfloat16'):
      loss = call(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())

  found = train_works.time_steps(step, args.steps, args.limit)
  versions = f'torch {torch.__version__}, transformers {transformers.__version__}'
  device_bytes = torch.cuda.max_memory_allocated() if device == 'cuda' else None
  train_works.report(found, loss=round(losses[-1], 3), versions=versions, device_bytes=device_bytes)


def run_t5x(args) -> None:
  """Times T5X."""
  import jax
  import t5x_small

  work = train_works.work_of(args)
  update, state, batch = t5x_small.make_step(
    work.rows, work.length, work.targets, dtype=args.dtype, dropout_rate=train_works.DROPOUT
  )
  number, key = 0, jax.random.PRNGKey(0)
  start = time.perf_counter()
  compiled = jax.jit(update, donate_argnums=0).lower(state, batch, key).compile()
  compile_seconds = time.perf_counter() - start
  metrics = None

  def step() -> None:
    nonlocal state, metrics, number
    state, metrics = compiled(state, batch, jax.random.PRNGKey(number))
    number += 1
    jax.block_until_ready((state, metrics))

  found = train_works.time_steps(step, args.steps, args.limit)
  loss = float(metrics['loss'].total) / (work.rows * work.targets)
  versions = f'T5X on jax {jax.__version__}'
  train_works.report(found, compile=round(compile_seconds, 1), loss=round(loss, 3), versions=versions)


def main() -> None:
  parser = train_works.parser()
  parser.add_argument('peer', choices=(TRANSFORMERS, train_works.T5X))
  parser.add_argument('--layers', choices=(train_works.EAGER, train_works.COMPILED), help='of transformers')
  args = parser.parse_args()
  run_transformers(args) if args.peer == TRANSFORMERS else run_t5x(args)


if __name__ == '__main__':
  main()
