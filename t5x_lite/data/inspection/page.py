"""The facts about a data set as one HTML page that needs nothing else: tokens coloured by segment and loss weight."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence

from t5x_lite.core import pages
from t5x_lite.core.batch import (
  DECODER,
  INPUT_TOKENS,
  LABEL,
  LABEL_VALUE,
  LABEL_WEIGHTS,
  LOSS_WEIGHTS,
  POSITIONS,
  SEGMENT_IDS,
  SPAN_END,
  SPAN_START,
  TARGET_TOKENS,
)
from t5x_lite.data.inspection.examples import TEXTS, Example
from t5x_lite.data.inspection.facts import Facts
from t5x_lite.data.inspection.rows import Row, Side

_COLOURS = ('#cfe3ff', '#ffe0b8', '#cdeecb', '#f6cfe3', '#e2d6fa', '#fdf0a8', '#c9efef', '#e4dccf')  # of segments
_WEIGHTS = (LOSS_WEIGHTS, LABEL_WEIGHTS, SPAN_START, SPAN_END)
_STYLE = """
.row { line-height: 2.05; margin: .2rem 0 1rem }
.row span { padding: .1rem .22rem; margin: 0 .07rem; border-radius: 3px; white-space: nowrap;
  border-bottom: 2px solid transparent }
.row .loss { border-bottom-color: #1c1c1c } .row .idle { color: #6b6b6b } .row i { font-style: normal; color: #a3192d }
.row .padding { color: #777; background: #f0f0f0 }
"""


def render(facts: Facts) -> str:
  """The page."""
  title = f'{facts.name}, split {facts.configuration["split"]}'
  examples = ''.join(_example(number, example) for number, example in enumerate(facts.examples, 1))
  rows = ''.join(_row(row) for row in facts.sample.rows)
  colours = ''.join(f'.s{n} {{ background: {colour} }}\n' for n, colour in enumerate(_COLOURS))
  body = (
    f'{_configuration(facts)}\n<h2>Tasks, over {facts.sample.batches} batches</h2>\n{_tasks(facts)}\n'
    f'<h2>Examples</h2>\n{examples}\n<h2>Rows of batch {facts.sample.batches}</h2>\n'
    '<p class="note">Colours tell segments apart. Underlined tokens weigh in the loss, grey ones do not. Of a decoder '
    'the targets are shown; of an encoder what it reads and, in red, what it should predict instead. Hover over a '
    f'token for ids, position, segment and weight.</p>\n{rows}'
  )
  return pages.page(title, body, _STYLE + colours)


def _configuration(facts: Facts) -> str:
  made, sample = facts.configuration, facts.sample
  lengths = ', '.join(f'{name} {length}' for name, length in made['task_feature_lengths'].items())
  sides = ', '.join(f'{side} {useful:.1%}' for side, useful in sample.useful_fraction_per_side.items())
  lines = {
    'batches': (
      f'{made["batch_size"]} rows of {lengths}; {made["num_virtual_shards"]} virtual shards, seed {made["seed"]}'
    ),
    'objective': f'{made["objective"]}, {facts.raw_length} raw tokens' if facts.raw_length else 'none: all supervised',
    'features': made['features'],
    'tokenizer': f'{facts.vocabulary["ids"]:,} ids, {facts.vocabulary["sentinels"]} of them sentinels',
    'fill': f'{sample.useful_fraction:.1%} ({sides})',
    'document order': facts.document_order_hash,
  }
  if sample.tokens_per_second is not None:
    lines['speed'] = f'{sample.tokens_per_second:,.0f} tokens/s, padding included, nothing made ahead'
  if facts.batch_hashes is not None:
    found = facts.batch_hashes
    hosts = f'{found.hosts} host' + 's' * (found.hosts > 1)
    lines['batch hash'] = f'{found.hash} (of the first {found.batches}, as {hosts} read them)'
  rows = ''.join(f'<tr><th>{name}</th><td><code>{html.escape(text)}</code></td></tr>\n' for name, text in lines.items())
  return f'<table>\n{rows}</table>'


def _tasks(facts: Facts) -> str:
  unit = facts.configuration['unit']
  head = (
    *('task', 'records', f'rate of {unit}', 'share of examples', 'share of tokens', 'examples', 'truncated', 'dropped'),
    *('records looked at', 'empty', 'duplicates'),
  )
  rows = [
    (
      *(task.name, f'{task.records:,}', f'{task.rate:.2%}', f'{task.share:.2%}', f'{task.token_share:.2%}'),
      *(f'{task.examples:,}', f'{task.truncated:,}', f'{task.dropped:,}'),
      *(f'{task.documents.read:,}', f'{task.documents.empty:,}', f'{task.documents.duplicates:,}'),
    )
    for task in facts.tasks
  ]
  return pages.table(head, rows)


def _example(number: int, example: Example) -> str:
  notes = (', truncated' if example.truncated else '') + (f', {example.dropped} dropped before' * bool(example.dropped))
  parts = [f'<h3>{number}: {html.escape(example.task)}{notes}</h3>\n']
  for document in example.documents:
    for texts in document.texts:
      parts += [pages.text(f'record {document.record:,}, {name}', text) for name, text in texts.items()]
  if example.num_documents > len(example.documents):
    parts.append(f'<p class="note">and {example.num_documents - len(example.documents)} more records</p>\n')
  if example.raw is not None:
    parts.append(pages.text(f'before the objective, {example.raw_tokens} tokens', example.raw))
  parts += [pages.text(f'{name}, {len(example.features[name])} ids', text) for name, text in example.texts.items()]
  for name, numbers in example.features.items():
    if name not in TEXTS:
      parts.append(pages.text(name, ' '.join(map(str, numbers))))
  return ''.join(parts)


def _row(row: Row) -> str:
  parts = [f'<h3>row {row.index}</h3>\n']
  for name, side in row.sides.items():
    segments = f'{side.segments} segment' + 's' * (side.segments != 1)
    parts.append(f'<div class="label">{name}: {segments}, {side.used} of {side.length} positions in use</div>\n')
    parts.append(f'<div class="row">{_tokens(name, side)}</div>\n')
  return ''.join(parts)


def _tokens(name: str, side: Side) -> str:
  """The tokens of a side, each with a title; padding, which is at the end, as one."""
  weights = [side.columns[column] for column in _WEIGHTS if column in side.columns]
  shown = side.pieces[TARGET_TOKENS if name == DECODER and weights else INPUT_TOKENS]
  spans = []
  for place, (piece, segment) in enumerate(zip(shown, side.columns[SEGMENT_IDS], strict=True)):
    if not segment:
      continue
    classes, text = [f's{(int(segment) - 1) % len(_COLOURS)}'], html.escape(piece)
    if weights:
      weighs = any(column[place] > 0 for column in weights)
      classes.append('loss' if weighs else 'idle')
      asked = ' '.join(told for told in _asked(side, place) if told != piece) if weighs and name != DECODER else ''
      text += f' <i>{html.escape(asked)}</i>' if asked else ''
    spans.append(f'<span class="{" ".join(classes)}" title="{_title(side, place)}">{text}</span>')
  if side.used < side.length:
    spans.append(f'<span class="padding">{side.length - side.used} of padding</span>')
  return '\n'.join(spans)


def _asked(side: Side, place: int) -> Iterator[str]:
  """What an encoder is to say at a position: a token, a label, the start or end of an answer."""
  at = {name: column[place] for name, column in side.columns.items()}
  if at.get(LOSS_WEIGHTS):
    yield side.pieces[TARGET_TOKENS][place]
  if at.get(LABEL_WEIGHTS):
    yield f'label {at[LABEL] if LABEL in at else at[LABEL_VALUE]:g}'
  yield from (name for name in (SPAN_START, SPAN_END) if at.get(name))


def _title(side: Side, place: int) -> str:
  """What hovering over a token shows: a line for each of its columns."""
  lines = [f'column {place}']
  for name in _ordered(side.columns):
    piece = f' {side.pieces[name][place]}' if name in side.pieces else ''
    lines.append(f'{name} {side.columns[name][place]:g}{piece}')
  return html.escape('\n'.join(lines)).replace('\n', '&#10;')


def _ordered(columns: Iterable[str]) -> Sequence[str]:
  """Names of columns, those that most wants to know first."""
  first = (INPUT_TOKENS, TARGET_TOKENS, POSITIONS, SEGMENT_IDS, *_WEIGHTS)
  return sorted(columns, key=lambda name: first.index(name) if name in first else len(first))
