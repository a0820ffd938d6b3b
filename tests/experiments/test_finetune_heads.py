"""What `experiments/parity/finetune_heads.py` does without torch: it reads and writes sets, and makes tables."""

import csv
import gzip
import importlib
import json
import pathlib
import statistics

import pytest

from t5x_lite.tasks import entities, glue, intent_labels, intents, originals, squad  # noqa: F401 (they register tasks)

FOLDER = pathlib.Path(__file__).parents[2] / 'experiments' / 'parity'
SIZES = {'banking77': (77, 77), 'squad': (3, 3)}
CONTEXT = 'Ada Lovelace wrote it in 1843, and "it" had\na second line.'


@pytest.fixture
def load(monkeypatch):
  """Imports a module of that folder by its name."""
  monkeypatch.syspath_prepend(str(FOLDER))
  return importlib.import_module


@pytest.fixture
def data(tmp_path):
  """A folder with a few made-up examples of every set, in its format."""
  files = {
    'glue/SST-2/train.tsv': 'sentence\tlabel\n' + ''.join(f'film "{n}\t{n % 2}\n' for n in range(8)),
    'glue/MRPC/msr_paraphrase_train.txt': 'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n'
    + ''.join(f'{n % 2}\t{n}\t{n}0\tone {n}\ttwo {n}\n' for n in range(8)),
    'glue/CoLA/train.tsv': ''.join(f'gj04\t{n % 2}\t\tSentence {n}.\n' for n in range(8)),
    'glue/RTE/train.tsv': 'index\tsentence1\tsentence2\tlabel\n'
    + ''.join(f'{n}\tone {n}\ttwo {n}\t{("not_", "")[n % 2]}entailment\n' for n in range(8)),
    'wnut17/emerging.dev.conll': ''.join(f'In\tO\nLa{n}\tB-location\n\t\n' for n in range(8)),
  }
  for name, text in files.items():
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text, encoding='utf-8')
  questions = [
    {'id': f'{n}', 'question': f'who {n} ?', 'answers': [{'text': 'Ada Lovelace', 'answer_start': 0}]} for n in range(3)
  ]
  paragraphs = [{'context': CONTEXT, 'qas': questions}] * 2
  zipped = {
    'wnut17/wnut17train.conll.gz': 'Ada\tB-person\nLovelace\tI-person\n\nno\tO\n\n' * 8,
    'squad/train-v1.1.json.gz': json.dumps({'version': '1.1', 'data': [{'title': 'a', 'paragraphs': paragraphs}]}),
  }
  for name, text in zipped.items():
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
  (tmp_path / 'banking77').mkdir()
  with gzip.open(tmp_path / 'banking77' / 'train.csv.gz', 'wt', encoding='utf-8', newline='') as file:
    rows = [(f'my, "{n}"\ncard', label) for label in intent_labels.BANKING77 for n in range(2)]
    csv.writer(file).writerows([('text', 'category'), *rows])
  return tmp_path


@pytest.mark.parametrize('name', ['sst2', 'mrpc', 'cola', 'rte', 'banking77', 'wnut17', 'squad'])
def test_what_is_written_is_read_by_the_task_as_it_was(name, load, data, tmp_path):
  work = load('finetune_tasks').WORKS[name]
  split = work.files.read(data, SIZES.get(name, (4, 3)))
  assert not {id(example) for example in split[0]} & {id(example) for example in split[1]}
  folder = tmp_path / 'written'
  folder.mkdir()
  work.files.write(data, folder, split)
  task = originals.original(work.task, str(folder))
  for examples, part in zip(split, ('train', work.split), strict=True):
    records = task.source.random_access(task.source_split(part))
    read = [found for n in range(len(records)) for found in task.encoder_examples(records[n])]
    assert [_seen(found, work) for found in read] == [(example.texts, example.answer) for example in examples]


def _seen(found, work):
  if work.head == 'tagging':
    return tuple(found['words']), tuple(work.labels[tag] for tag in found['tags'])
  texts = (found['text'], found['pair']) if 'pair' in found else (found['text'],)
  return texts, (tuple(found['answers']), found['starts'][0]) if work.head == 'span' else found['label']


def test_a_set_that_is_too_small_is_refused(load, data):
  with pytest.raises(SystemExit, match='got 8 and 0 examples, expected 8 and 4'):
    load('finetune_tasks').WORKS['sst2'].files.read(data, (8, 4))


def test_differences_are_counted_in_pooled_standard_errors(load):
  table = load('finetune_table')
  theirs, ours = [70.0, 72.0, 74.0], [73.0, 75.0, 80.0]
  error = ((statistics.variance(theirs) + statistics.variance(ours)) / 3) ** 0.5
  assert table.in_errors(theirs, ours) == pytest.approx(4.0 / error)
  assert table.in_errors([1.0, 1.0], [1.0, 1.0]) == 0.0
  assert table.in_errors([1.0, 1.0], [2.0, 2.0]) == float('inf')


def test_rows_make_tables_and_others_do_not_count(load, tmp_path):
  heads = load('finetune_heads')
  work = heads.WORKS['sst2']
  rows = [
    {
      'task': 'sst2',
      'timed': timed,
      'recipe': heads.recipe(work),
      'seed': seed,
      'system': system,
      'accuracy': 80.0 + seed,
      'seconds': 0.4 if system == 'transformers' else 0.2,
      'processor_seconds': 0.6,
      'steps': 10,
      'commonest': 52.5,
      'versions': system,
    }
    for timed, work in ((False, work), (True, load('finetune_tasks').shortened(work)))
    for seed in range(3)
    for system in ('transformers', 't5x_lite')
  ]
  path = tmp_path / 'rows.jsonl'
  old = rows[0] | {'recipe': 'of before', 'accuracy': 0.0}
  for row in [old, *rows[:-1]]:
    heads.keep(path, row)
  with path.open('a') as file:
    file.write('{"task": "ss')  # and the process was killed
  heads.keep(path, rows[-1])
  read = heads.current(heads.read_rows(path))
  assert read == rows
  text = heads.finetune_table.tables(read)
  assert '| SST-2 | accuracy | 3 | 81.00 ± 1.00 | 81.00 ± 1.00 | +0.00 | +0.0 |' in text
  assert '| SST-2 | 3 | 400 | 200 | 2.00 | 600 | 600 | 1.00 |' in text
  assert '| SST-2 | 400 | 400 | 52.5% | 32 | 16 | 3 | 10 | 0.0002 |' in text
  assert 'MRPC' not in text
