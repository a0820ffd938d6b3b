"""Perplexity and bits per byte of causal language models on the text of a task."""

from __future__ import annotations

import functools
import math
from typing import Any

from t5x_lite.data import pipeline
from t5x_lite.data import task as tasks
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.objectives.causal_lm import CausalLM
from t5x_lite.training import evaluate as evaluate_lib
from t5x_lite.training.steps import Trainer

_AT_ONCE = 256


def measure(trainer: Trainer, params: Any, config: DatasetConfig, max_steps: int | None = None) -> dict[str, float]:
  """The held-out loss of a task, its perplexity per token, and what does not depend on the tokenizer.

  Args:
    trainer: whose steps and mesh are used.
    params: of its model.
    config: of one task: one pass, not shuffled.
    max_steps: batches; None: all.

  Returns:
    As `training.evaluate`; of a causal language model on all of a split also `bits_per_byte`: the log2-likelihood of
    all tokens, ends of documents included, by the bytes of the texts in UTF-8 (Gao et al. 2020, section 3.1), and
    `byte_perplexity`, 2 to the power of it.
  """
  batches = pipeline.build(config, rows=trainer.process_rows(config.batch_size))
  shard = functools.partial(trainer.shard_batch, global_batch=config.batch_size)
  try:
    metrics = evaluate_lib.evaluate(trainer.eval_step, params, batches, shard, max_steps=max_steps)
  finally:
    batches.close()
  (member,) = tasks.tasks(config.mixture_or_task_name)
  if max_steps is None and 'nll' in metrics and reads_all(member, config):
    bits = metrics['nll'] * metrics['target_tokens'] / math.log(2.0)
    per_byte = bits / count_bytes(member, config)
    metrics |= {'bits_per_byte': per_byte, 'byte_perplexity': 2.0**per_byte}
  return metrics


def reads_all(member: tasks.Task, config: DatasetConfig) -> bool:
  """Whether every token of every text of a task is predicted once, from those before it."""
  whole = member.documents != tasks.TRUNCATED and not member.stride
  return isinstance(config.objective, CausalLM) and not member.supervised and whole


def count_bytes(member: tasks.Task, config: DatasetConfig) -> int:
  """The bytes of all texts of a split in UTF-8."""
  records = member.source.random_access(member.source_split(config.split))
  total = 0
  for start in range(0, len(records), _AT_ONCE):
    for record in records.__getitems__(list(range(start, min(start + _AT_ONCE, len(records))))):
      total += sum(len(example['text'].encode('utf-8')) for example in member.examples(record))
  return total
