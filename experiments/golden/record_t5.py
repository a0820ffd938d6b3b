"""Records what transformers' T5s compute, for the tests: `python experiments/golden/record_t5.py` where it is there.

Each file is a tiny model with random weights (norms included, so that none is idle), what it was asked and what it
said. The weights are those that `save_pretrained` writes: copies of tied tensors left out.
"""

from __future__ import annotations

import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from safetensors.torch import load_file

FOLDER = pathlib.Path(__file__).resolve().parents[2] / 'tests' / 'golden'

# d_kv * num_heads is 12, and d_model 8.
SIZES = {'vocab_size': 16, 'd_model': 8, 'num_heads': 3, 'd_kv': 4, 'd_ff': 10, 'num_layers': 2}
SIZES['num_decoder_layers'] = 1
T5 = {**SIZES, 'decoder_start_token_id': 0, 'relative_attention_num_buckets': 8, 'relative_attention_max_distance': 20}
T5_1_1 = {**SIZES, 'decoder_start_token_id': 0, 'feed_forward_proj': 'gated-gelu', 'tie_word_embeddings': False}


def fill(model: torch.nn.Module, seed: int) -> None:
  """Gives every parameter random values of a size at which nothing saturates."""
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      noise = torch.randn(parameter.shape, generator=generator)
      norm = 'layer_norm' in name
      parameter.copy_(1.0 + 0.2 * noise if norm else 0.35 * noise)


def padded(rng: np.random.Generator, rows: int, length: int, vocab: int, eos: bool = True) -> dict[str, np.ndarray]:
  """Ids and a mask of rows of different lengths, each with an end of sequence."""
  lengths = [length, *(int(n) for n in rng.integers(3, length, rows - 1))]
  ids = rng.integers(2, vocab, (rows, length))
  mask = np.arange(length)[None, :] < np.array(lengths)[:, None]
  ids = np.where(mask, ids, 0)
  if eos:
    ids[np.arange(rows), np.array(lengths) - 1] = 1
  return {'input_ids': ids, 'attention_mask': mask.astype(np.int64)}


def record(name: str, model: torch.nn.Module, cases: list[dict[str, np.ndarray]], *, gradients: bool = False) -> None:
  """Writes `tests/golden/NAME.npz`."""
  model.eval()
  arrays: dict[str, np.ndarray] = {'transformers_version': np.array(transformers.__version__)}
  with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    arrays['config'] = np.array((pathlib.Path(folder) / 'config.json').read_text())
    weights = load_file(str(pathlib.Path(folder) / 'model.safetensors'))
  arrays |= {f'state/{key}': value.numpy() for key, value in weights.items()}
  for number, case in enumerate(cases):
    out = model(**{key: torch.tensor(value) for key, value in case.items()})
    for key in ('logits', 'last_hidden_state', 'encoder_last_hidden_state', 'loss', 'start_logits', 'end_logits'):
      if out.get(key) is not None:
        arrays[f'case{number}/output/{key}'] = out[key].detach().numpy()
    arrays |= {f'case{number}/input/{key}': value for key, value in case.items()}
    if gradients and out.get('loss') is not None and number == 0:
      out.loss.backward()
      arrays |= {f'gradient/{key}': value.grad.numpy() for key, value in model.named_parameters() if key in weights}
  np.savez_compressed(FOLDER / f'{name}.npz', **arrays)
  print(name, f'{(FOLDER / f"{name}.npz").stat().st_size:,} bytes', json.dumps([sorted(case) for case in cases]))


def lm_cases(rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
  """Labels with what is not counted; masks on both sides; more positions than the bias tells apart."""
  labels = rng.integers(2, 16, (3, 6))
  labels[0, 4:] = labels[2, 0] = -100
  decoder = padded(rng, 2, 7, 16, eos=False)
  return [
    {**padded(rng, 3, 9, 16), 'labels': labels},
    {
      **padded(rng, 2, 8, 16),
      'decoder_input_ids': decoder['input_ids'],
      'decoder_attention_mask': decoder['attention_mask'],
    },
    {'input_ids': rng.integers(2, 16, (1, 150)), 'decoder_input_ids': rng.integers(2, 16, (1, 140))},
  ]


def main() -> None:
  """Records all of them."""
  classes = transformers
  rng = np.random.default_rng(0)
  models = {
    't5_lm': (classes.T5ForConditionalGeneration, classes.T5Config(**T5)),
    't5_1_1_lm': (classes.T5ForConditionalGeneration, classes.T5Config(**T5_1_1)),
    'mt5_lm': (classes.MT5ForConditionalGeneration, classes.MT5Config(**SIZES)),
    't5_bare': (classes.T5Model, classes.T5Config(**T5)),
    't5_encoder': (classes.T5EncoderModel, classes.T5Config(**T5_1_1)),
    't5_classification': (classes.T5ForSequenceClassification, classes.T5Config(**T5_1_1, num_labels=3)),
    't5_span': (classes.T5ForQuestionAnswering, classes.T5Config(**T5)),
    't5_tagging': (classes.T5ForTokenClassification, classes.T5Config(**T5, num_labels=4)),
  }
  for seed, (name, (make, config)) in enumerate(models.items()):
    model = make(config)
    if name == 't5_1_1_lm':  # transformers 5 ties them when it makes a model, and leaves apart what it loads apart
      model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    fill(model, seed)
    inputs = padded(rng, 3, 9, 16)
    cases = {
      't5_bare': lambda inputs=inputs: [{**inputs, 'decoder_input_ids': rng.integers(2, 16, (3, 5))}],
      't5_encoder': lambda inputs=inputs: [inputs],
      't5_classification': lambda inputs=inputs: [{**inputs, 'labels': np.array([2, 0, 1])}],
      't5_span': lambda inputs=inputs: [
        {**inputs, 'start_positions': np.array([1, 0, 20]), 'end_positions': np.array([2, 3, 4])}
      ],
      't5_tagging': lambda inputs=inputs: [
        {**inputs, 'labels': np.where(inputs['attention_mask'], rng.integers(0, 4, (3, 9)), -100)}
      ],
    }.get(name, lambda: lm_cases(rng))()
    cases = cases[: {'mt5_lm': 1, 't5_1_1_lm': 2}.get(name)]
    record(name, model, cases, gradients=name == 't5_lm')


if __name__ == '__main__':
  main()
