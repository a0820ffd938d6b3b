"""Pairs of requests with the same intent, from BANKING77, and how often the nearest request has the right intent.

    python experiments/recipes/embeddings.py pairs --file=DATA/train.csv.gz --output=pairs
    python experiments/recipes/embeddings.py score --directory=pairs --checkpoint=runs/embeddings

`pairs` leaves a fifth of the intents out altogether, and a fifth of the requests of the others. Each request that is
left is paired with another of its intent, drawn at random. `score` looks for the nearest neighbour, by the cosine, of

    seen     requests that were left out, among those of the pairs
    unseen   requests of the intents that were left out, among each other
"""

from __future__ import annotations

import argparse
import collections
import csv
import gzip
import io
import json
import pathlib
import random

import numpy as np

SHARE, SEED = 5, 0
TRAIN, SEEN, UNSEEN = 'pairs.jsonl', 'seen.jsonl', 'unseen.jsonl'


def write_pairs(file: pathlib.Path, output: pathlib.Path, most: int | None) -> None:
  """Writes the three files.

  Args:
    file: train.csv of BANKING77, gzipped or not, with the columns `text` and `category`.
    output: the folder for them.
    most: pairs at most; None: all.
  """
  by_intent = collections.defaultdict(list)
  content = file.read_bytes()
  text = (gzip.decompress(content) if file.suffix == '.gz' else content).decode('utf-8')
  for row in csv.DictReader(io.StringIO(text, newline='')):
    by_intent[row['category']].append(' '.join(row['text'].split()))
  rng = random.Random(SEED)
  intents = sorted(by_intent)
  left_out = set(rng.sample(intents, len(intents) // SHARE))
  rows = collections.defaultdict(list)
  for intent in intents:
    texts = rng.sample(by_intent[intent], len(by_intent[intent]))
    count = len(texts) if intent in left_out else len(texts) // SHARE
    rows[UNSEEN if intent in left_out else SEEN] += [{'text': text, 'intent': intent} for text in texts[:count]]
    kept = texts[count:]
    for index, text in enumerate(kept):
      other = kept[(index + rng.randrange(1, len(kept))) % len(kept)]
      rows[TRAIN].append({'text': text, 'pair': other, 'intent': intent})
  rng.shuffle(rows[TRAIN])
  rows[TRAIN] = rows[TRAIN][:most]
  output.mkdir(parents=True, exist_ok=True)
  for name, found in rows.items():
    (output / name).write_text(''.join(json.dumps(row) + '\n' for row in found), encoding='utf-8')
    print(f'{name}: {len(found)} rows, {len({row["intent"] for row in found})} intents')


def score(directory: pathlib.Path, checkpoint: str) -> None:
  """Prints how many percent of the nearest neighbours have the intent of the request, seen and unseen."""
  from t5x_lite import load_pretrained

  model = load_pretrained(checkpoint)

  def read(name: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [json.loads(line) for line in (directory / name).read_text(encoding='utf-8').splitlines()]
    return model.embed([row['text'] for row in rows], batch_size=64), np.array([row['intent'] for row in rows])

  known, of_known = read(TRAIN)
  for name in (SEEN, UNSEEN):
    vectors, intents = read(name)
    if name == SEEN:
      nearest = of_known[np.argmax(vectors @ known.T, axis=1)]
    else:
      cosines = vectors @ vectors.T
      np.fill_diagonal(cosines, -np.inf)
      nearest = intents[np.argmax(cosines, axis=1)]
    print(f'{name.removesuffix(".jsonl")}: {100 * np.mean(nearest == intents):.1f} % of {len(intents)}')


def main() -> None:
  """Reads the flags."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  commands = parser.add_subparsers(dest='command', required=True)
  pairs = commands.add_parser('pairs')
  pairs.add_argument('--file', type=pathlib.Path, required=True)
  pairs.add_argument('--output', type=pathlib.Path, required=True)
  pairs.add_argument('--most', type=int)
  scored = commands.add_parser('score')
  scored.add_argument('--directory', type=pathlib.Path, required=True)
  scored.add_argument('--checkpoint', required=True)
  given = parser.parse_args()
  if given.command == 'pairs':
    write_pairs(given.file, given.output, given.most)
  else:
    score(given.directory, given.checkpoint)


if __name__ == '__main__':
  main()
