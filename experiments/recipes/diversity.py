"""How diverse texts are that `python -m t5x_lite.infer` wrote, a row of a table for each of its JSONL files.

    echo 'Return' | python -m t5x_lite.infer --checkpoint=runs/gpt2_tiny --do_sample --num_return_sequences=20 \
      --output_scores --output=sample.jsonl
    python experiments/recipes/diversity.py sample.jsonl greedy.jsonl

Words are what stands between spaces. Of all texts of a file together:

- distinct-1, distinct-2: different words, and pairs of neighbours, in percent of all there are (Li et al. 2016).
- repeated-2: of each text by itself, the share of pairs that stood in it before (seq-rep-n, Welleck et al. 2020).
- texts: different texts, in percent of all.
- log p: mean log-probability of a token, in nats, where `--output_scores` was set: what the model thinks of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

Text = Sequence[str]  # its words


def pairs(words: Text) -> list[tuple[str, str]]:
  """Neighbours, in their order."""
  return list(itertools.pairwise(words))


def distinct(parts: Iterable[Sequence[Any]]) -> float:
  """Different items in percent of all items of all texts; 0 where there is none."""
  items = [item for part in parts for item in part]
  return 100 * len(set(items)) / len(items) if items else 0.0


def repeated(words: Text) -> float:
  """Pairs that a text has had before, in percent of its pairs."""
  found = pairs(words)
  return 100 - distinct([found]) if found else 0.0


def measure(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
  """What the head of this file lists, of rows with `predictions` or `prediction`.

  Raises:
    SystemExit: no row has a text.
  """
  written = [text for row in rows for text in row.get('predictions', [row.get('prediction')]) if text]
  if not written:
    raise SystemExit('no texts: expected rows with "prediction" or "predictions"')
  texts = [text.split() for text in written]
  logs = [value for row in rows for value in _token_scores(row)]
  return {
    'distinct-1': distinct(texts),
    'distinct-2': distinct(pairs(words) for words in texts),
    'repeated-2': statistics.mean(repeated(words) for words in texts),
    'texts': 100 * len(set(written)) / len(written),
    'log p': statistics.mean(logs) if logs else None,
  }


def _token_scores(row: dict[str, Any]) -> list[float]:
  """Log-probabilities of all tokens of a row, whether it has one text or several."""
  scores = row.get('token_scores') or []
  return [value for part in scores for value in (part if isinstance(part, list) else [part])]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('files', nargs='+', type=pathlib.Path, help='of JSON lines')
  args = parser.parse_args()
  rows = {
    path.stem: measure([json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()])
    for path in args.files
  }
  names = list(next(iter(rows.values())))
  print('| |', ' | '.join(names), '|')
  print('|---' * (len(names) + 1) + '|')
  for name, values in rows.items():
    print(f'| {name} |', ' | '.join('' if value is None else f'{value:.1f}' for value in values.values()), '|')


if __name__ == '__main__':
  main()
