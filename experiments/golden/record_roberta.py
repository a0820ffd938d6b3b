"""Records what transformers' RoBERTas compute, for the tests.

    python experiments/golden/record_roberta.py tests/golden/roberta.npz

Its cases are those of BERT (`record_bert.py`), with RoBERTa's padding id and so with its positions.
"""

from __future__ import annotations

import sys

from record_bert import record, shared_cases


def main(target: str) -> None:
  """Records all cases of RoBERTa."""
  record('Roberta', shared_cases(pad=1, types=1), target, type_vocab_size=1, layer_norm_eps=1e-5)


if __name__ == '__main__':
  main(*sys.argv[1:])
