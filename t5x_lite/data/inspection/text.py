"""The facts about a data set as text for a terminal."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Sequence

import numpy as np

from t5x_lite.core.batch import LOSS_WEIGHTS, POSITIONS, SEGMENT_IDS
from t5x_lite.data.inspection.examples import TEXTS, Example
from t5x_lite.data.inspection.facts import Facts, TaskFacts
from t5x_lite.data.inspection.rows import Row, Side

WIDTH = 100  # columns

_SHOWN_IDS = 5  # at either end of a sequence
_SHOWN_RUNS = 6  # of equal numbers
_SHOWN_SEGMENTS = 4
_SHOWN_DOCUMENTS = 3
_SHOWN_CHARACTERS = 400  # of a document
_BREAKS = re.compile(r'(\s+|<extra_id_\d+>)')  # lines may break at sentinels too: words may be joined by them


def render(facts: Facts) -> str:
  """All of it, in lines of at most 100 columns, unless a single word is longer."""
  examples = [_example(number, example) for number, example in enumerate(facts.examples, 1)]
  sample = facts.sample
  sections = [
    _heading(facts),
    *examples,
    _row(sample.rows[0], f'batch {sample.batches}'),
    _measured(facts),
    _documents(facts.tasks),
    _hashes(facts),
  ]
  return '\n\n'.join('\n'.join(section) for section in sections)


def _heading(facts: Facts) -> list[str]:
  made = facts.configuration
  lengths = ', '.join(f'{name} {length}' for name, length in made['task_feature_lengths'].items())
  stages = [f'{" / ".join(f"{share:.0%}" for share in shares)} from step {step}' for step, *shares in made['schedule']]
  lines = {
    'data set': f'{facts.name}, split {made["split"]}',
    'tasks': ', '.join(f'{task.name} ({task.records:,} records)' for task in facts.tasks),
    'batches': (
      f'{made["batch_size"]} rows of {lengths}; {made["num_virtual_shards"]} virtual shards, seed {made["seed"]}'
    ),
    'objective': f'{made["objective"]}, {facts.raw_length} raw tokens' if facts.raw_length else 'none: all supervised',
    'tokenizer': f'{facts.vocabulary["ids"]:,} ids, {facts.vocabulary["sentinels"]} of them sentinels',
    'schedule': ', '.join(stages),
  }
  return [line for name, fact in lines.items() if fact for line in _paragraph(name, fact, indent='')]


def _example(number: int, example: Example) -> list[str]:
  """The text before and after, and the ids."""
  sizes = ', '.join(f'{len(example.features[name])} {name}' for name in example.texts)
  notes = (', truncated' if example.truncated else '') + (f', {example.dropped} dropped before' * bool(example.dropped))
  lines = [_rule(f'example {number}: {example.task}, {sizes}{notes}')]
  for document in example.documents[:_SHOWN_DOCUMENTS]:
    name = f'record {document.record}'
    for text in itertools.chain.from_iterable(texts.items() for texts in document.texts):
      lines += _paragraph(name, f'{text[0]}: {_cut(text[1])}')
      name = ''
  if example.num_documents > _SHOWN_DOCUMENTS:
    lines.append(f'  ... and {example.num_documents - _SHOWN_DOCUMENTS} more records')
  if example.raw is not None:
    begins = f' (from token {example.offset} of the record)' if example.offset else ''
    lines += _paragraph('before', f'{example.raw_tokens} tokens{begins}: {example.raw}')
  for name, ids in example.features.items():
    if name in TEXTS:
      lines += _paragraph(name, example.texts[name])
      lines += _paragraph('', f'ids {_ids(ids)}')
    else:
      numbers = np.ravel(ids).tolist()
      lines += _paragraph(name, _runs(numbers) if len(set(numbers)) <= 2 else _ids(numbers))
  return lines


def _row(row: Row, name: str) -> list[str]:
  """For each side its first segments, each with its keys."""
  lines = [_rule(f'row {row.index} of {name}')]
  for name, side in row.sides.items():
    several = 's' if side.segments > 1 else ''
    lines.append(f'  {name}: {side.segments} segment{several}, {side.used} of {side.length} positions in use')
    lines += [line for segment in range(1, min(side.segments, _SHOWN_SEGMENTS) + 1) for line in _segment(side, segment)]
    if side.segments > _SHOWN_SEGMENTS:
      lines.append(f'    ... and {side.segments - _SHOWN_SEGMENTS} more')
  return lines


def _segment(side: Side, segment: int) -> list[str]:
  at = [place for place, number in enumerate(side.columns[SEGMENT_IDS]) if number == segment]
  columns = {name: [values[place] for place in at] for name, values in side.columns.items()}
  positions = columns.pop(POSITIONS)
  head = f'segment {segment}  columns {at[0]}-{at[-1]}  positions {positions[0]:g}-{positions[-1]:g}'
  if LOSS_WEIGHTS in columns:
    head += f'  loss weight {sum(columns[LOSS_WEIGHTS]):g}'
  lines = [f'    {head}']
  for name, values in columns.items():
    if name != SEGMENT_IDS:
      lines.append(f'      {name:13}  {_ids(values) if name.endswith("tokens") else _runs(values)}')
  return lines


def _measured(facts: Facts) -> list[str]:
  sample = facts.sample
  sides = ', '.join(f'{side} {1 - useful:.1%}' for side, useful in sample.useful_fraction_per_side.items())
  if sample.tokens_per_second is None or sample.useful_tokens_per_second is None:
    speed = 'one batch only'
  else:
    useful = f'{sample.useful_tokens_per_second:,.0f} without padding'
    speed = f'{sample.tokens_per_second:,.0f} tokens/s, padding included, {useful}; nothing made ahead'
  return [
    _rule(f'over {sample.batches} batches'),
    *_shares(facts.tasks, facts.configuration['unit']),
    '',
    *_paragraph('fill', ', '.join(f'{side} {useful:.1%}' for side, useful in sample.useful_fraction_per_side.items())),
    *_paragraph('padding', f'{1 - sample.useful_fraction:.1%} ({sides})'),
    *_paragraph('speed', speed),
  ]


def _shares(tasks: Sequence[TaskFacts], unit: str) -> list[str]:
  """A table of the tasks: the share asked for, the shares realised, and what was lost."""
  head = {'rate': 8, 'examples': 10, 'share': 8, 'tokens': 12, ' share': 8, 'truncated': 9, 'dropped': 8}
  width = max(len('task'), *(len(task.name) for task in tasks))
  lines = [f'  {"task":{width}}  ' + '  '.join(f'{name:>{columns}}' for name, columns in head.items())]
  for task in tasks:
    lines.append(
      f'  {task.name:{width}}  {task.rate:8.2%}  {task.examples:10,}  {task.share:8.2%}  {task.tokens:12,}  '
      f'{task.token_share:8.2%}  {task.truncated:9,}  {task.dropped:8,}'
    )
  return [*lines, f'  (the rate is of the {unit})'] if len(tasks) > 1 else lines


def _documents(tasks: Sequence[TaskFacts]) -> list[str]:
  lines = [_rule('the first records of the split')]
  for task in tasks:
    found = task.documents
    skipped = ''.join(f', {count:,} skipped ({reason})' for reason, count in found.skipped.items())
    lines += _paragraph(
      task.name,
      f'{found.read:,} of {task.records:,} read: {found.empty:,} empty, {found.duplicates:,} duplicates of an earlier '
      f'one, {found.characters / max(found.read, 1):,.0f} characters on average{skipped}',
    )
  return lines


def _hashes(facts: Facts) -> list[str]:
  lines = [_rule('hashes'), *_paragraph('document order', facts.document_order_hash)]
  if facts.batch_hashes is not None:
    found = facts.batch_hashes
    hosts = f'{found.hosts} host' + 's' * (found.hosts > 1)
    lines += _paragraph(f'first {found.batches} batches, {hosts}', found.hash)
  return lines


def _cut(text: str) -> str:
  """The beginning of a text."""
  return text if len(text) <= _SHOWN_CHARACTERS else f'{text[:_SHOWN_CHARACTERS]} ...'


def _ids(ids: Sequence[float]) -> str:
  """Ids, with the middle left out of long sequences."""
  if len(ids) <= 2 * _SHOWN_IDS:
    return ' '.join(f'{token:g}' for token in ids)
  return ' '.join([*(f'{i:g}' for i in ids[:_SHOWN_IDS]), '...', *(f'{i:g}' for i in ids[-_SHOWN_IDS:])])


def _runs(numbers: Sequence[float]) -> str:
  """Numbers, equal neighbours counted: `12 x 0, 5 x 1`."""
  runs = [f'{sum(1 for _ in run)} x {number:g}' for number, run in itertools.groupby(numbers)]
  return ', '.join(runs if len(runs) <= _SHOWN_RUNS else [*runs[:_SHOWN_RUNS], '...'])


def _rule(title: str) -> str:
  return f'{title} '.ljust(WIDTH, '-')


def _paragraph(name: str, text: str, indent: str = '  ') -> list[str]:
  """`name`, and `text` wrapped beside it."""
  start = f'{indent}{name:9}  '
  if not text.strip():
    return [start + '(empty)']
  wrapper = textwrap.TextWrapper(WIDTH, start, ' ' * len(start), break_on_hyphens=False)
  wrapper.wordsep_simple_re = _BREAKS
  return wrapper.wrap(text)
