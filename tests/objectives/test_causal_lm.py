import types

import numpy as np

from t5x_lite.objectives.causal_lm import CausalLM
from t5x_lite.objectives.prefix_lm import PrefixLM

TOKENIZER = types.SimpleNamespace(eos_id=1)


def test_the_text_is_the_target_and_fills_the_row():
  tokens = np.arange(10, 17, dtype=np.int32)
  made = CausalLM()(tokens, np.random.default_rng(0), TOKENIZER)
  assert made.keys() == set(CausalLM.features)
  np.testing.assert_array_equal(made['targets'], tokens)
  assert CausalLM().raw_length({'targets': 64}) == 64
  assert CausalLM().raw_length({'inputs': 40, 'targets': 24}) == 64  # inputs belong to the same row


def test_documents_end_with_eos_where_the_model_reads_on():
  assert CausalLM().separator(TOKENIZER) == 1
  assert PrefixLM().separator(TOKENIZER) is None
