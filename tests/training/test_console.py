import io
import logging
import os
import re
import signal
import sys

import pytest

from t5x_lite.training import console as console_lib
from t5x_lite.training import samples, signals

ROW = {'step': 20, 'loss': 5.4321, 'tokens_per_second': 12345.6, 'mfu': 0.4567, 'useful_token_fraction': 0.97}
CONTROL = re.compile(r'\x1b\[[0-9;?]*[A-Za-z]')


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.mark.parametrize('value', [0.0, 1.0, 9.99, 99.9, 999.4, 999.6, 1234.0, 56789.0, 999600.0, 1.5e6, 2.5e9, 7e12])
def test_counts_are_short_and_right_to_three_figures(value):
  text = console_lib.count(value)
  unit = {'': 1.0, 'k': 1e3, 'M': 1e6, 'G': 1e9, 'T': 1e12}[text.lstrip('0123456789.')]
  assert len(text) <= 5
  assert float(text.rstrip('kMGT')) * unit == pytest.approx(value, rel=5e-3, abs=0.5)


def test_unknown_figures_are_dashes():
  assert (console_lib.count(None), console_lib.percent(None), console_lib.duration(float('nan'))) == ('-', '-', '-')


def test_plain_lines_align_and_have_one_line_per_period():
  stream = io.StringIO()
  console = console_lib.Console(stream)
  console.start(0, 10000)
  console.step(1, 9.0)
  for step, loss, mfu in ((20, 5.4321, 0.4567), (10000, None, None)):
    console.train(ROW | {'step': step, 'loss': loss, 'mfu': mfu}, 3661.0)
  console.stop()
  first, second = stream.getvalue().splitlines()
  assert first == 'step    20/10000  loss  5.4321  12.3k tok/s  MFU 45.7%  useful  97.0%  ETA 1:01:01'
  assert [first.index(word) for word in ('loss', 'tok/s', 'MFU')] == [second.index(w) for w in ('loss', 'tok/s', 'MFU')]


@pytest.mark.parametrize('columns', [30, 60, 80, 120])
def test_the_live_line_fits_the_terminal_and_stays_below_notes_and_logs(monkeypatch, columns):
  monkeypatch.setenv('COLUMNS', str(columns))
  stream = Terminal()
  handler = logging.StreamHandler(sys.__stderr__)
  logger = logging.getLogger('test_console')
  logger.addHandler(handler)
  console = console_lib.Console(stream)
  console.start(0, 100)
  console.step(20, 5.0)
  console.train(ROW, 60.0)
  console.note('a note')
  logger.warning('a warning')
  print('a print')
  console.stop()
  logger.removeHandler(handler)
  lines = [part for part in re.split(r'[\r\n]+', CONTROL.sub('', stream.getvalue())) if part]
  for text in ('a note', 'a warning', 'a print'):
    assert text in lines  # On a line of their own.
  progress = [line for line in lines if line.startswith('step')]
  assert all(len(line) < columns for line in progress[:-1])
  assert any('ETA 0:01:00' in line for line in progress) or columns == 30
  assert handler.stream is sys.__stderr__
  assert stream.getvalue().rstrip().endswith('ETA 0:01:00')  # What it said last stays on the screen.


def screen(text, columns):
  """The lines that a terminal shows after `text`; of its control codes those that rich and we use."""
  rows, row, column = [''], 0, 0
  for code, character in re.findall(r'\x1b\[([0-9;?]*[A-Za-z])|([^\x1b])', text):
    if code == '2K':
      rows[row] = ''
    elif code.endswith('A'):
      row -= int(code[:-1])
    elif character == '\r':
      column = 0
    elif character:
      if character == '\n' or column == columns:
        row, column = row + 1, 0
        rows += [''] * (row == len(rows))
      if character != '\n':
        rows[row] = rows[row][:column].ljust(column) + character + rows[row][column + 1 :]
        column += 1
  return [line for line in rows if line]


@pytest.mark.parametrize('columns', [80, 101, 120])
def test_ctrl_c_leaves_no_copy_of_the_live_line_behind(monkeypatch, columns):
  monkeypatch.setenv('COLUMNS', str(columns))
  stream = Terminal()
  monkeypatch.setattr(signals, '_write', lambda text: stream.write(text.decode()))
  monkeypatch.setattr(signals.os, 'isatty', lambda descriptor: True)
  console = console_lib.Console(stream)
  with signals.StopRequest() as stop:
    console.start(0, 100)
    console.train(ROW, 60.0)
    console.note('before')
    stream.write('^C')  # The terminal's own echo.
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.reached(20)
    console.note('saved')
    console.stop()
  shown = [re.split(r'[: ]', line)[0] for line in screen(stream.getvalue(), columns) if 'ETA' not in line]
  assert shown[:3] == ['before', 'Ctrl-C', 'saved']
  assert len([line for line in screen(stream.getvalue(), columns) if line.startswith('step')]) == 1


def test_only_the_primary_process_prints(monkeypatch, capsys):
  monkeypatch.setattr(console_lib.processes, 'is_primary', lambda: False)
  console = console_lib.Console()
  console.start(0, 10)
  console.train(ROW, None)
  console.note('something')
  console.stop()
  assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize('width', [60, 80, 120])
def test_samples_are_wrapped_without_breaking_sentinels(width):
  words = ' '.join(f'word{i} <extra_id_{i}>' for i in range(100))
  text = samples.render(samples.Sample(words, 'a\nb  c', ''), width)
  assert max(map(len, text.splitlines())) <= width
  shown = ' '.join(text.split())
  assert set(re.findall(r'<extra_id_\w*>?', shown)) <= {f'<extra_id_{i}>' for i in range(100)}
  assert 'word0 <extra_id_0> word1' in shown
  assert 'target a b c' in shown
  assert 'prediction (nothing)' in shown
