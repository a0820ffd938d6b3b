"""transformers' side of `finetune_heads.py`: its Trainer, with features and answers as its examples make them.

Texts and pairs as in `run_glue.py`, the tag of a word at its first piece as in `run_ner.py`, windows of a context and
the best span over all of them as in `run_qa.py`; all padded to one length, which is the default there.
"""

from __future__ import annotations

import pathlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import finetune_tasks
import numpy as np
import torch
import transformers
from finetune_data import Example, Split
from finetune_tasks import Work

from t5x_lite.metrics import registry

_IGNORED = -100  # no label, to torch's cross entropy
_N_BEST, _MAX_ANSWER_LENGTH = 20, 30

Row = dict[str, Any]


class Clock(transformers.TrainerCallback):
  """Notes wall and processor seconds at the end of every step.

  Attributes:
    times: of all steps.
  """

  def __init__(self) -> None:
    self.times: list[tuple[float, float]] = []

  def on_step_end(self, *args: Any, **kwargs: Any) -> None:
    """A step is done."""
    self.times.append((time.perf_counter(), time.process_time()))


def run(work: Work, split: Split, model_folder: pathlib.Path, seed: int, kind: type = transformers.Trainer) -> Row:
  """Trains and answers: metrics by name, `seconds` and `processor_seconds` of a step, and the number of `steps`."""
  tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
  held_out, clock = encode(work, split[1], tokenizer), Clock()
  with tempfile.TemporaryDirectory() as folder:
    transformers.set_seed(seed)
    rows = [_learned(row) for row in encode(work, split[0], tokenizer)]
    trained = kind(_model(work, model_folder), _arguments(work, folder, seed), train_dataset=rows)
    trained.add_callback(clock)
    trained.train()
    logits = trained.predict([_learned(row) for row in held_out]).predictions
  answers = _ANSWERERS[work.head](work, split[1], held_out, logits)
  right = [example.answer[0] if work.head == finetune_tasks.SPAN else example.answer for example in split[1]]
  scores: dict[str, float] = {}
  for name in work.scorers:
    scores |= registry.get(name)(right, answers)
  return {name: scores[name] for name in work.metrics} | finetune_tasks.times_of(clock.times, trained.state.global_step)


def encode(work: Work, examples: Sequence[Example], tokenizer: Any) -> list[Row]:
  """The rows that examples make: those of a context several, the others one."""
  return _ENCODERS[work.head](work, examples, tokenizer)


def versions() -> str:
  """Of what runs here."""
  threads = torch.get_num_threads()
  return f'transformers {transformers.__version__}, torch {torch.__version__} with {threads} thread{"s"[: threads > 1]}'


def _model(work: Work, folder: pathlib.Path) -> Any:
  kind = {
    finetune_tasks.CLASSES: transformers.AutoModelForSequenceClassification,
    finetune_tasks.TAGS: transformers.AutoModelForTokenClassification,
    finetune_tasks.SPAN: transformers.AutoModelForQuestionAnswering,
  }[work.head]
  return kind.from_pretrained(folder, num_labels=len(work.labels))


def _arguments(work: Work, folder: str, seed: int) -> Any:
  return transformers.TrainingArguments(
    folder,
    per_device_train_batch_size=work.batch,
    per_device_eval_batch_size=32,
    num_train_epochs=work.epochs,
    learning_rate=work.rate,
    lr_scheduler_type='linear',
    weight_decay=finetune_tasks.DECAY,
    adam_epsilon=finetune_tasks.EPSILON,
    warmup_steps=finetune_tasks.WARMUP,  # a share
    max_grad_norm=finetune_tasks.MAX_NORM,
    seed=seed,
    save_strategy='no',
    logging_steps=20,
    report_to=[],
    disable_tqdm=True,
    use_cpu=True,
  )


def _learned(row: Row) -> Row:
  """A row without what only its answer needs."""
  return {name: value for name, value in row.items() if not name.startswith('_')}


# --- Rows: `input_ids` and so on, labels, and under names with `_` what answers are made of ---------------------------


def _classes(work: Work, examples: Sequence[Example], tokenizer: Any) -> list[Row]:
  columns = list(zip(*(example.texts for example in examples), strict=True))
  encoded = tokenizer(*map(list, columns), truncation=True, max_length=work.length, padding='max_length')
  return [row | {'labels': example.answer} for row, example in zip(_rows(encoded), examples, strict=True)]


def _tags(work: Work, examples: Sequence[Example], tokenizer: Any) -> list[Row]:
  words = [list(example.texts) for example in examples]
  encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=work.length, padding='max_length')
  made = []
  for index, (row, example) in enumerate(zip(_rows(encoded), examples, strict=True)):
    row |= {'labels': [_IGNORED] * work.length, '_words': [None] * work.length}
    before = None
    for place, word in enumerate(encoded.word_ids(index)):
      if word is not None and word != before:
        row['labels'][place], row['_words'][place] = work.labels.index(example.answer[word]), word
      before = word
    made.append(row)
  return made


def _windows(work: Work, examples: Sequence[Example], tokenizer: Any) -> list[Row]:
  encoded = tokenizer(
    [example.texts[0].lstrip() for example in examples],
    [example.texts[1] for example in examples],
    truncation='only_second',
    max_length=work.length,
    stride=finetune_tasks.STRIDE,
    return_overflowing_tokens=True,
    return_offsets_mapping=True,
    padding='max_length',
  )
  made = []
  samples, offsets = encoded.pop('overflow_to_sample_mapping'), encoded.pop('offset_mapping')
  for index, row in enumerate(_rows(encoded)):
    example = examples[samples[index]]
    sides = encoded.sequence_ids(index)
    row['_offsets'] = [place if side == 1 else None for place, side in zip(offsets[index], sides, strict=True)]
    row['_example'] = samples[index]
    first, last = _span(row, example)
    made.append(row | {'start_positions': first, 'end_positions': last})
  return made


def _span(row: Row, example: Example) -> tuple[int, int]:
  """The first and last token of the answer; [CLS] twice where the window does not hold all of it."""
  answers, start = example.answer
  end = start + len(answers[0])
  inside = [index for index, place in enumerate(row['_offsets']) if place is not None]
  if not inside or row['_offsets'][inside[0]][0] > start or row['_offsets'][inside[-1]][1] < end:
    return 0, 0
  first = max(index for index in inside if row['_offsets'][index][0] <= start)
  last = min(index for index in inside if row['_offsets'][index][1] >= end)
  return first, last


def _rows(encoded: Mapping[str, Sequence[Any]]) -> list[Row]:
  names = list(encoded)
  return [dict(zip(names, values, strict=True)) for values in zip(*(encoded[name] for name in names), strict=True)]


# --- Answers ----------------------------------------------------------------------------------------------------------


def _class_of(work: Work, examples: Sequence[Example], rows: Sequence[Row], logits: Any) -> list[int]:
  del work, examples, rows
  return [int(index) for index in np.argmax(logits, axis=-1)]


def _tags_of(work: Work, examples: Sequence[Example], rows: Sequence[Row], logits: Any) -> list[list[str]]:
  """A tag for each word; 'O' of those that the length cut off."""
  made = []
  for example, row, own in zip(examples, rows, logits, strict=True):
    tags = ['O'] * len(example.texts)
    for place, word in enumerate(row['_words']):
      if word is not None:
        tags[word] = work.labels[int(np.argmax(own[place]))]
    made.append(tags)
  return made


def _spans_of(work: Work, examples: Sequence[Example], rows: Sequence[Row], logits: Any) -> list[str]:
  """The span with the highest sum of the logits of its ends, over all windows of a question."""
  del work
  best: dict[int, tuple[float, str]] = {}
  for row, starts, ends in zip(rows, *logits, strict=True):
    context = examples[row['_example']].texts[1]
    for first in np.argsort(starts)[-1 : -_N_BEST - 1 : -1]:
      for last in np.argsort(ends)[-1 : -_N_BEST - 1 : -1]:
        places = row['_offsets'][first], row['_offsets'][last]
        if None in places or not first <= last < first + _MAX_ANSWER_LENGTH:
          continue
        score = float(starts[first] + ends[last])
        if score > best.get(row['_example'], (-np.inf, ''))[0]:
          best[row['_example']] = score, context[places[0][0] : places[1][1]]
  return [best.get(index, (0.0, ''))[1] for index in range(len(examples))]


_ENCODERS = {finetune_tasks.CLASSES: _classes, finetune_tasks.TAGS: _tags, finetune_tasks.SPAN: _windows}
_ANSWERERS = {finetune_tasks.CLASSES: _class_of, finetune_tasks.TAGS: _tags_of, finetune_tasks.SPAN: _spans_of}
