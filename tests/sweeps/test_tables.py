import csv
import dataclasses
import html.parser
import json
import re
import shutil
import subprocess

import pytest

from t5x_lite.sweeps import latex_table, outcomes, sections, tables, verdicts
from t5x_lite.sweeps.outcomes import COMPLETE, DIVERGED, Outcome

_ARMS = ('base_line', 'span<5> & 50%', '{x}|*y*', 'ends $#~^\\')


@pytest.fixture
def folder(tmp_path):
  plan = {
    'name': 'a <b> & c_d',
    'arms': [{'name': arm} for arm in _ARMS],
    'baseline': 'base_line',
    'seeds': [0, 1, 2],
    'budget': {'kind': 'tokens', 'amount': 1000},
    'metrics': ['loss', 'task/accuracy'],
    'fingerprints': dict.fromkeys(_ARMS, 'abc'),
  }
  (tmp_path / outcomes.SWEEP).write_text(json.dumps(plan))
  rows = []
  for index, arm in enumerate(_ARMS):
    for seed in range(3):
      metrics = {'loss': 3.0 - index + 0.1 * seed + 0.01 * index * seed**2, 'task/accuracy': 0.5 + 0.1 * seed}
      costs = {'steps': 10.0, 'tokens': 1000.0 + 500 * (index == 3), 'flops': 3.25e13, 'seconds': 1.5}
      status = DIVERGED if (index, seed) == (2, 2) else COMPLETE
      rows.append(Outcome(arm, seed, status, metrics, costs))
  outcomes.write(tmp_path, rows)
  return tmp_path


def test_the_terminal_says_all_that_matters(folder):
  text = tables.render(folder)
  for expected in (
    '* base_line',
    'loss (less is better)',
    'task/accuracy (more is better)',
    'better; 1 of 3 diverged',
    '12 of 12 runs have ended: 11 complete, 1 diverged.',
    'Held equal: tokens, 1,000.',
    'NOT equal, by more than 1 %: ends $#~^\\ 1,500, where others spent 1,000 tokens.',
    'All arms read the same data, abc.',
    '3.25e+13',
  ):
    assert expected in text
  assert text.isascii()


def _changed(folder, **values):
  path = folder / outcomes.SWEEP
  path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_data_that_the_planning_machine_did_not_have_are_no_data_to_tell_of(folder):
  _changed(folder, fingerprints={**dict.fromkeys(_ARMS, 'abc'), 'base_line': None})
  told = 'The data are not on the machine that planned: '
  assert told + 'a run that noted other data than the baseline counts as failed.' in tables.render(folder)
  _changed(folder, fingerprints=dict.fromkeys(_ARMS), same_data=False)
  assert told + 'not compared.' in tables.render(folder)
  tables.write(folder)


def test_a_budget_of_seconds_is_that_of_training(folder):
  _changed(folder, budget={'kind': 'seconds', 'amount': 60})
  rows = [
    dataclasses.replace(row, costs={'seconds': 90.0 + number, 'train_seconds': 60.1 + 5 * (row.arm == _ARMS[1])})
    for number, row in enumerate(outcomes.read(folder))
  ]
  outcomes.write(folder, rows)
  text = tables.render(folder)
  assert 'Held equal: seconds, 60.' in text
  assert f'NOT equal, by more than 1 %: {_ARMS[1]} 65.1, where others spent 60.1 train_seconds.' in text


def test_an_arm_that_always_diverged_has_the_costs_of_what_it_did(folder):
  rows = [
    dataclasses.replace(row, status=DIVERGED, costs={'steps': 4.0}) if row.arm == _ARMS[3] else row
    for row in outcomes.read(folder)
  ]
  spent = sections.costs(verdicts.read_plan(folder), rows)
  assert spent[_ARMS[3]] == {'steps': 4.0} and spent[_ARMS[2]]['steps'] == 10.0


def test_files_are_written_and_nothing_else(folder):
  written = tables.write(folder)
  assert [path.name for path in written] == ['results.md', 'results.tex', 'results.csv', 'results.html']
  first = [path.read_text() for path in written]
  assert {path.name for path in folder.iterdir()} == {'sweep.json', 'outcomes.jsonl', *(path.name for path in written)}
  assert [path.read_text() for path in tables.write(folder)] == first  # to the byte


def test_csv_holds_every_number_in_full(folder):
  tables.write(folder)
  rows = list(csv.DictReader((folder / 'results.csv').read_text().splitlines()))
  assert [(row['metric'], row['arm']) for row in rows] == [(m, a) for m in ('loss', 'task/accuracy') for a in _ARMS]
  assert float(rows[0]['mean']) == pytest.approx(3.1, rel=1e-15)
  assert (rows[2]['diverged'], rows[2]['runs'], rows[2]['complete']) == ('1', '2', '2')
  assert rows[1]['verdict'] == 'better'
  assert float(rows[1]['interval_low']) < float(rows[1]['difference']) < float(rows[1]['interval_high'])
  assert rows[0]['verdict'] == rows[0]['p'] == ''
  assert rows[3]['cost_tokens'] == '1500.0'


def test_latex_is_well_formed(folder):
  tables.write(folder)
  text = (folder / 'results.tex').read_text()
  body = text[text.index('\n') :]
  assert len(re.findall(r'(?<!\\)\{', body)) == len(re.findall(r'(?<!\\)\}', body))
  assert len(re.findall(r'(?<!\\)\$', body)) % 2 == 0
  columns = len(re.search(r'\\begin\{tabular\}\{(\w+)\}', body)[1])
  lines = [line for line in body.splitlines() if line.endswith('\\\\')]
  assert len(lines) == 1 + len(_ARMS)
  assert {len(re.findall(r'(?<!\\)&', line)) + 1 for line in lines} == {columns}
  assert not re.search(r'(?<!\\)[%#]', body)
  assert body.count(r'\begin{table}') == body.count(r'\end{table}') == 1
  assert lines[1].startswith('$\\bigstar$ base\\_line & ')
  assert lines[4].count('\\mathbf') == 2  # the best by loss, and equal to the best by accuracy
  assert '1 of 3' in body and '$^{\\dagger}$' in lines[3]
  assert 'In all arms: steps $10$, flops $3.25 \\cdot 10^{13}$, seconds $1.5$.' in body
  assert lines[0].endswith('& tokens \\\\') and r'\shortstack[r]{task/ \\ accuracy $\uparrow$}' in lines[0]


@pytest.mark.skipif(shutil.which('pdflatex') is None, reason='no TeX here')
def test_latex_is_printed_within_the_width_of_the_text(folder, tmp_path):
  tables.write(folder)
  packages = '\\usepackage[T1]{fontenc}\\usepackage{amssymb, booktabs, graphicx}'
  text = f'\\documentclass{{article}}{packages}\\begin{{document}}\\input{{results.tex}}\\end{{document}}'
  (folder / 'page.tex').write_text(text)
  argv = ['pdflatex', '-interaction=nonstopmode', '-halt-on-error', 'page.tex']
  made = subprocess.run(argv, cwd=folder, capture_output=True, text=True, errors='replace', check=False)
  assert made.returncode == 0 and 'Output written on page.pdf (1 page' in made.stdout, made.stdout
  assert 'Overfull' not in made.stdout and 'Missing character' not in made.stdout


def test_what_latex_reads_as_code_is_escaped():
  assert latex_table.escape('50% of a_b & {c}#$ \\x~^') == (
    r'50\% of a\_b \& \{c\}\#\$ \textbackslash{}x\textasciitilde{}\textasciicircum{}'
  )


def test_markdown_has_as_many_cells_in_every_row(folder):
  tables.write(folder)
  text = (folder / 'results.md').read_text()
  for table in re.findall(r'(?:^\|.*\n)+', text, re.MULTILINE):
    assert len({len(re.findall(r'(?<!\\)\|', line)) for line in table.splitlines()}) == 1
  assert '★ base\\_line' in text
  assert '\\{x' not in text and '{x}\\|\\*y\\*' in text
  assert '**' in text


class _Reader(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.open, self.text, self.links = [], [], []

  def handle_starttag(self, tag, attributes):
    if tag not in ('meta',):
      self.open.append(tag)
    self.links += [value for name, value in attributes if name in ('src', 'href')]

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)


def test_the_page_is_whole_escaped_and_needs_nothing_else(folder):
  tables.write(folder)
  reader = _Reader()
  reader.feed((folder / 'results.html').read_text())
  assert (reader.open, reader.links) == ([], [])
  assert {'span<5> & 50%', '★ base_line', '{x}|*y*'} <= set(reader.text)


def test_a_sweep_that_has_not_begun(folder):
  (folder / outcomes.OUTCOMES).unlink()
  assert '0 of 12 runs have ended' in tables.render(folder)
  assert len(tables.write(folder)) == 4
