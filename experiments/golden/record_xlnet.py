"""Records what transformers' XLNets compute, for the tests: `python experiments/golden/record_xlnet.py TARGET.npz`.

Needs torch and transformers, and none of our own code. All cases share the weights of one tiny body; each head has its
own. The file holds

    transformers_version
    cases                   JSON: by name, the class and the config.json of each case
    state/NAME              the weights of the body, under the names of a language model
    state@CASE/NAME         those of the head of a case
    CASE/in/NAME            what the case was called with, int64 or float32
    CASE/out/NAME           what it returned, float32
    CASE/second/...         the same for a second segment of text; it returns `mems` `[Y, B, M, D]`, too
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
import transformers
from transformers import XLNetConfig

TINY = {
  'vocab_size': 20,
  'd_model': 12,
  'n_layer': 2,
  'n_head': 3,
  'd_inner': 20,
  'mem_len': None,
  'initializer_range': 0.3,  # far from the linear range, so that every term shows in the outputs
}
PREFIX = 'transformer.'


def draw(seed: int, shape: tuple[int, ...], high: int = 20) -> torch.Tensor:
  """Integers below `high`."""
  return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def permutation(seed: int, length: int, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
  """`perm_mask`, `target_mapping` and the targets: the first, fourth and last position of an order of each row."""
  generator = torch.Generator().manual_seed(seed)
  places = torch.stack([torch.randperm(length, generator=generator) for _ in range(rows)])
  perm_mask = (places[:, :, None] <= places[:, None, :]).float()
  targets = places.argsort(dim=1)[:, [0, 3, -1]]
  return perm_mask, torch.nn.functional.one_hot(targets, length).float(), targets


def cases() -> dict[str, tuple[str, dict, list[dict]]]:
  """By name: the class, what its config adds to `TINY`, and the arguments of each segment of text."""
  tokens, more, types = draw(1, (2, 7)), draw(2, (2, 6)), draw(3, (2, 7), 2)
  left_padded = torch.tensor([[1.0] * 7, [0.0] * 2 + [1.0] * 5])
  perm_mask, mapping, targets = permutation(4, 7, 2)
  labels = tokens.gather(1, targets)
  padded = {'input_ids': tokens, 'attention_mask': left_padded, 'token_type_ids': types}
  permuted = {'input_ids': tokens, 'perm_mask': perm_mask, 'target_mapping': mapping}
  choices = {'input_ids': draw(5, (2, 3, 6)), 'token_type_ids': draw(6, (2, 3, 6), 2)}
  choices['attention_mask'] = torch.ones(2, 3, 6)
  choices['attention_mask'][1, 0, :3] = 0
  segments = [{'input_ids': tokens, 'token_type_ids': types}, {'input_ids': more, 'token_type_ids': types[:, :6]}]
  permuted_more = {'perm_mask': perm_mask[:, :6, :6], 'target_mapping': mapping[:, :2, :6]}
  lm = 'XLNetLMHeadModel'
  return {
    'plain': (lm, {}, [{'input_ids': tokens}]),
    'padded': (lm, {}, [padded]),
    'permuted': (lm, {}, [{**permuted, 'labels': labels}]),
    'permuted_padded': (lm, {'ff_activation': 'gelu_new'}, [{**padded, **permuted}]),
    'mapped': (lm, {}, [{'input_ids': tokens, 'target_mapping': mapping}]),
    'masked': (lm, {}, [{'input_ids': tokens, 'perm_mask': perm_mask}]),
    'memory': (lm, {'mem_len': 5, 'reuse_len': 4}, segments),
    'memory_permuted': (lm, {}, [segments[0], {**segments[1], **permuted_more}]),
    'uni': (lm, {'attn_type': 'uni', 'mem_len': 5, 'clamp_len': 3}, segments),
    'same_length': (lm, {'attn_type': 'uni', 'same_length': True}, segments),
    'both_ways': (lm, {'bi_data': True, 'clamp_len': 4}, segments),
    'model': ('XLNetModel', {}, [padded]),
    'classification': ('XLNetForSequenceClassification', {'num_labels': 3}, [padded]),
    'multiple_choice': ('XLNetForMultipleChoice', {}, [choices]),
    'span': ('XLNetForQuestionAnsweringSimple', {}, [padded]),
    'tagging': ('XLNetForTokenClassification', {'num_labels': 5}, [padded]),
  }


def randomise(model: torch.nn.Module) -> None:
  """Gives what starts as zeros or ones, norms and biases, values that show."""
  generator = torch.Generator().manual_seed(7)
  with torch.no_grad():
    for name, parameter in sorted(model.named_parameters()):
      if name.endswith('bias') or 'layer_norm' in name:
        parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def run(model: torch.nn.Module, segments: list[dict]) -> dict[str, np.ndarray]:
  """Inputs and outputs of one case; the memory of each segment is that of the one before."""
  arrays, mems = {}, None
  for where, arguments in zip(('', 'second/'), segments, strict=False):
    with torch.no_grad():
      outputs = model(**arguments, mems=mems, use_mems=True)
    mems = outputs.mems
    found = {name: value for name, value in outputs.items() if name != 'mems'}
    if where:
      found['mems'] = torch.stack([each.transpose(0, 1) for each in mems])
    arrays |= {f'{where}in/{name}': value.numpy() for name, value in arguments.items()}
    arrays |= {f'{where}out/{name}': value.numpy() for name, value in found.items()}
  return arrays


def main(target: str) -> None:
  """Records all cases."""
  torch.manual_seed(0)
  arrays, configs = {}, {}
  body: dict[str, torch.Tensor] = {}
  for name, (class_name, changes, segments) in cases().items():
    config = XLNetConfig(**{**TINY, **changes}, architectures=[class_name])
    model = getattr(transformers, class_name)(config).eval()
    randomise(model)
    state = model.state_dict()
    prefix = '' if class_name == 'XLNetModel' else PREFIX
    if not body:
      body = {key: value.clone() for key, value in state.items() if key.startswith(PREFIX) or key == 'lm_loss.bias'}
      arrays |= {f'state/{key}': value.numpy() for key, value in body.items()}
    shared = {key.removeprefix(PREFIX) if not prefix else key: value for key, value in body.items()}
    model.load_state_dict({**state, **{key: value for key, value in shared.items() if key in state}})
    model.tie_weights()
    heads = {key: value for key, value in state.items() if key not in shared and key != 'lm_loss.weight'}
    arrays |= {f'state@{name}/{key}': value.numpy() for key, value in heads.items()}
    arrays |= {f'{name}/{key}': value for key, value in run(model, segments).items()}
    configs[name] = {'class': class_name, 'config': config.to_dict()}
  arrays['transformers_version'] = np.asarray(transformers.__version__)
  arrays['cases'] = np.asarray(json.dumps(configs, default=str))
  np.savez_compressed(target, **arrays)


if __name__ == '__main__':
  main(*sys.argv[1:])
