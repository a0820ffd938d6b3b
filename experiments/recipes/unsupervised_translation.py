"""Translation between two languages from text of each alone: denoising, then back-translation in rounds.

    python experiments/recipes/unsupervised_translation.py --directory=DATA --languages=en,fr --output=runs/en_fr
    python experiments/recipes/unsupervised_translation.py --cipher=sentences.txt --output=runs/cipher

DATA has `mono.en` and `mono.fr`, a sentence a line, which say different things, and `val.en` and `val.fr`, which say
the same line by line and are for measuring alone. `--cipher` makes such a folder of English sentences: those of the
first half stay, those of the second are written in a language of invented words, one for each word of English, but for
a share of words (`--cognates`), numbers and marks, which both have.

Method (Lample et al. 2018): one T5 for both, with the tag of the language wanted before the inputs. First it learns to
restore sentences from noise, in both languages: words left out, blanked, and moved by up to three places. Then, round
by round, it translates every sentence; the next round learns the way back, from its translation to the true sentence,
besides restoring. Each step is a command of the library, is skipped if it was done, and goes on if it was interrupted.

Prints after each round BLEU of both directions on `val`, beside that of copying the input.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import pathlib
import random
import re
import subprocess
import sys

from t5x_lite.metrics import registry

GIN_FILE = 'recipes/unsupervised_translation.gin'
DROP, BLANK, MOVE = 0.1, 0.1, 3  # shares of words, and places; Lample et al. 2018, section 3.1
_SYLLABLES = [first + second for first in 'bdfgklmnprstvz' for second in 'aeiou']
_CIPHER = 'xx'


def invented(word: str, cognates: float) -> str:
  """The word of the made-up language for one of English: itself for the share `cognates` of all words."""
  digest = hashlib.sha256(word.lower().encode()).digest()
  if not word.isalpha() or digest[0] < 256 * cognates:
    return word
  made = ''.join(_SYLLABLES[byte % len(_SYLLABLES)] for byte in digest[1 : 3 + len(word) // 4])
  return made.capitalize() if word[0].isupper() else made


def encipher(sentence: str, cognates: float) -> str:
  """A sentence in the made-up language."""
  return re.sub(r'[^\W\d_]+', lambda match: invented(match[0], cognates), sentence)


def make_cipher(sentences: list[str], folder: pathlib.Path, cognates: float) -> None:
  """Writes the data of English and the made-up language: a tenth of the sentences to measure, half of the rest each."""
  random.Random(0).shuffle(sentences)
  held = len(sentences) // 10
  val, mono = sentences[:held], sentences[held:]
  half = len(mono) // 2
  parts = {'val.en': val, f'val.{_CIPHER}': val, 'mono.en': mono[:half], f'mono.{_CIPHER}': mono[half:]}
  folder.mkdir(parents=True, exist_ok=True)
  for name, lines in parts.items():
    text = [encipher(line, cognates) if name.endswith(_CIPHER) else line for line in lines]
    (folder / name).write_text('\n'.join(text) + '\n', encoding='utf-8')


def noisy(sentence: str, draw: random.Random) -> str:
  """A sentence with words left out, blanked and moved."""
  words = [word for word in sentence.split() if draw.random() >= DROP]
  words = ['<extra_id_0>' if draw.random() < BLANK else word for word in words]
  places = [place + draw.uniform(0, MOVE + 1) for place in range(len(words))]
  return ' '.join(word for _, word in sorted(zip(places, words, strict=True)))


def lines_of(path: pathlib.Path) -> list[str]:
  return [line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]


def write_pairs(path: pathlib.Path, pairs: list[tuple[str, str]]) -> None:
  """Writes JSON lines of inputs and targets; none of either is empty."""
  rows = [json.dumps({'inputs': inputs, 'targets': targets}) for inputs, targets in pairs if inputs and targets]
  temporary = path.with_suffix('.tmp')
  temporary.write_text('\n'.join(rows) + '\n', encoding='utf-8')
  temporary.replace(path)


def call(module: str, *flags: str) -> None:
  """Runs a command of the library; ends with its exit code if that is not 0."""
  command = [sys.executable, '-m', f't5x_lite.{module}', *flags]
  print('$', ' '.join(['python', *command[1:]]), flush=True)
  code = subprocess.run(command, check=False).returncode
  if code:
    sys.exit(code)


class Translator:
  """The model of one round, and what it has translated."""

  def __init__(self, folder: pathlib.Path, batch_size: int):
    self._folder, self._batch_size = folder, batch_size

  def translate(self, name: str, sentences: list[str], target: str) -> list[str]:
    """The sentences in language `target`, greedily; kept in the round's folder under `name`."""
    given, made = (self._folder / f'{name}.to_{target}.{kind}.jsonl' for kind in ('inputs', 'outputs'))
    if not given.exists():
      write_pairs(given, [(f'<2{target}> {sentence}', '-') for sentence in sentences])
    longest = 2 * max(len(sentence.split()) for sentence in sentences) + 10
    call(
      'infer',
      f'--checkpoint={self._folder}',
      f'--input={given}',
      f'--output={made}',
      f'--batch_size={self._batch_size}',
      f'--max_new_tokens={min(longest, 96)}',
    )
    return [json.loads(line).get('prediction', '') for line in made.read_text(encoding='utf-8').splitlines()]


def bleu(references: list[str], predictions: list[str]) -> float:
  """BLEU of a corpus, from 0 to 100."""
  return registry.get('bleu')(references, predictions)['bleu']


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--directory', type=pathlib.Path, help='with mono.xx, mono.yy, val.xx and val.yy')
  parser.add_argument('--languages', default=f'en,{_CIPHER}', help='the endings of its files')
  parser.add_argument('--cipher', type=pathlib.Path, help='English sentences to make such a folder of, instead')
  parser.add_argument('--cognates', type=float, default=0.3, help='share of words that the made-up language shares')
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument('--vocabulary_size', type=int, default=2000)
  parser.add_argument('--first_steps', type=int, default=1000, help='of denoising alone')
  parser.add_argument('--steps', type=int, default=200, help='of each round after it')
  parser.add_argument('--rounds', type=int, default=10)
  parser.add_argument('--copies', type=int, default=4, help='of each sentence, with different noise, in a round')
  parser.add_argument('--batch_size', type=int, default=64, help='of translation')
  parser.add_argument('--gin', action='append', default=[], help='more bindings, such as TRAIN_STEPS=5')
  args = parser.parse_args()
  args.output.mkdir(parents=True, exist_ok=True)
  if args.cipher is not None:
    args.directory = args.output / 'data'
    if not args.directory.exists():
      make_cipher(lines_of(args.cipher), args.directory, args.cognates)
  if args.directory is None:
    parser.error('expected --directory or --cipher')
  codes = args.languages.split(',')
  mono, val = ({code: lines_of(args.directory / f'{part}.{code}') for code in codes} for part in ('mono', 'val'))
  ways = list(itertools.permutations(codes, 2))
  held_out = args.output / 'held_out.jsonl'
  write_pairs(held_out, [(f'<2{b}> {x}', y) for a, b in ways for x, y in zip(val[a], val[b], strict=True)])
  for a, b in ways:
    print(f'copying, {a} to {b}: BLEU {bleu(val[b], val[a]):.1f}')
  vocabulary = args.output / 'spiece.model'
  if not vocabulary.exists():
    write_pairs(args.output / 'text.jsonl', [(line, '-') for code in codes for line in mono[code]])
    call(
      'prepare',
      'vocabulary',
      '--gin_file=data/files.gin',
      f'--gin.files.path={args.output / "text.jsonl"}',
      '--gin.files.text_field=inputs',
      f'--symbols={",".join(f"<2{code}>" for code in codes)}',
      f'--size={args.vocabulary_size}',
      f'--target={vocabulary}',
    )
  back: list[tuple[str, str]] = []
  for number in range(args.rounds + 1):
    folder = args.output / f'round_{number}'
    folder.mkdir(exist_ok=True)
    pairs = folder / 'pairs.jsonl'
    if not pairs.exists():
      draw = random.Random(number)
      copies = args.copies if number == 0 else 1
      restored = [(f'<2{code}> {noisy(x, draw)}', x) for code in codes for x in mono[code] for _ in range(copies)]
      write_pairs(pairs, restored + back)
    started = [] if number == 0 else [f'--gin.INITIAL_CHECKPOINT_PATH={args.output / f"round_{number - 1}"}']
    call(
      'train',
      f'--gin_file={GIN_FILE}',
      f'--gin.FILES={pairs}',
      f'--gin.VALIDATION_FILES={held_out}',
      f'--gin.VOCABULARY_PATH={vocabulary}',
      f'--gin.MODEL_DIR={folder}',
      f'--gin.TRAIN_STEPS={args.first_steps + number * args.steps}',
      *started,
      *(f'--gin.{binding}' for binding in args.gin),
    )
    translator = Translator(folder, args.batch_size)
    for a, b in ways:
      print(f'round {number}, {a} to {b}: BLEU {bleu(val[b], translator.translate("val", val[a], b)):.1f}', flush=True)
    if number < args.rounds:
      back = [
        (f'<2{a}> {made}', sentence)
        for a, b in ways
        for sentence, made in zip(mono[a], translator.translate('mono', mono[a], b), strict=True)
      ]


if __name__ == '__main__':
  main()
