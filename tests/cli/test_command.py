"""What a command does with good and bad input: values, one-line errors with the nearest match, exit codes."""

from __future__ import annotations

import gc
import sys
import threading
import warnings
from unittest import mock

import pytest

from t5x_lite.cli import arguments, command, environment
from t5x_lite.core import errors


def test_files_and_flags_become_arguments(run):
  got = run('--gin.STEPS=7').got
  assert got['steps'] == 7 and got['lengths'] == {'inputs': 5, 'targets': 7}
  assert type(got['optim']).__name__ == 'Optim' and got['optim'].rate == 1.0 and isinstance(got['optim'].rate, float)
  assert (got['train'].split, got['train'].batch) == ('a', 4)
  assert (got['test'].split, got['test'].batch) == ('b', 2)


@pytest.mark.parametrize('text', ['/a/b', "'/a/b'", '"/a/b"'])
def test_strings_need_no_inner_quotes(run, text):
  assert run(f'--gin.MODEL_DIR={text}').got['folder'] == '/a/b'


@pytest.mark.parametrize(
  'text', ['gs://bucket/x', '2024-01-01', 'with space', 'a,b', '~/x', 'x=y', './a', 'a/b/c', '007', 'a#b', 'C:\\x']
)
def test_a_flag_that_is_no_gin_value_is_the_string_as_it_stands(run, text):
  assert run(f'--gin.MODEL_DIR={text}').got['folder'] == text


@pytest.mark.parametrize('text', ['3', '-1', '1e5', '1_000', '007'])
@pytest.mark.parametrize('name', ['MODEL_DIR', 'go.folder'])
def test_a_number_is_taken_as_written_where_a_string_is_meant(run, folder, name, text):
  outcome = run(f'--gin.{name}={text}')
  assert outcome.got['folder'] == text
  assert outcome.record.values['go.folder'] == repr(text)
  (folder / 'again.gin').write_text(outcome.record.text)
  assert run('--gin_file=again.gin').got['folder'] == text


@pytest.mark.parametrize(
  ('flag', 'name', 'value'),
  [
    ('--gin.go.shuffle=False', 'shuffle', False),
    ("--gin.go.lengths={'a': 1, 'b': %STEPS}", 'lengths', {'a': 1, 'b': 10}),
    ('--gin.go.train=None', 'train', None),
    ('--gin.toy_run.go.steps=3', 'steps', 3),
    ('--gin_bindings=go.steps = 3', 'steps', 3),
  ],
)
def test_gin_values_on_the_command_line(run, flag, name, value):
  assert run(flag).got[name] == value


def test_scoped_parameters_and_containers(run):
  got = run('--gin.train/Reader.sizes=[1, 2]', '--gin.Reader.batch=9').got
  assert got['train'].sizes == (1, 2) and got['test'].sizes == (1,)
  assert got['train'].batch == 9 and got['test'].batch == 2


def test_later_files_and_bindings_win(run, folder):
  (folder / 'more.gin').write_text('STEPS = 20\nRATE = 0.5\n')
  got = run('--gin_file=toy.gin', '--gin_file=more.gin', '--gin.RATE=0.25').got
  assert got['steps'] == 20 and got['optim'].rate == 0.25
  assert run('--gin.STEPS=1', '--gin.STEPS=2').got['steps'] == 2


def test_model_dir_is_named_after_the_gin_file_below_the_current_folder(run, folder):
  (folder / 'more.gin').write_text('STEPS = 20\n')
  assert run().got['folder'] == 'runs/toy'
  assert run('--gin_file=toy.gin', '--gin_file=more.gin').got['folder'] == 'runs/toy-more'


BAD = {
  'misspelt macro': ('--gin.STPES=1', ["'STPES'", "did you mean 'STEPS'?"]),
  'misspelt parameter': ('--gin.go.step=1', ["no parameter 'step'", "did you mean 'steps'?"]),
  'misspelt configurable': ('--gin.Optm.rate=1', ["'Optm'", "did you mean 'Optim'?"]),
  'misspelt reference': ('--gin.OPTIM=@Optm()', ["'Optm'", "did you mean 'Optim'?"]),
  'misspelt macro in a value': ('--gin.STEPS=%RAET', ['%RAET has no value', 'did you mean %RATE?']),
  'misspelt scope': ('--gin.trian/Reader.batch=1', ["unknown scope 'trian'", "did you mean 'train'?"]),
  'misspelt flag': ('--dry_rum', ["'--dry_rum'", "did you mean '--dry_run'?"]),
  'macro as a flag': ('--STEPS=3', ["did you mean '--gin.STEPS'?"]),
  'string for int': ('--gin.STEPS=abc', ['--gin.STEPS', 'expected int', "'abc' (str)", 'go.steps']),
  'float for int': ('--gin.Reader.batch=1.5', ['expected int', '1.5 (float)']),
  'bool for int': ('--gin.STEPS=True', ['expected int', 'True (bool)']),
  'lower-case bool': ('--gin.go.shuffle=true', ['expected bool', 'did you mean True?']),
  'int in a container': ("--gin.go.lengths={'a': 'x'}", ['expected int', "'x' (str)"]),
  'tuple of str': ("--gin.train/Reader.sizes=('a',)", ['expected int', "'a' (str)"]),
  'literal for object': ('--gin.OPTIM=adam', ['expected toy_run.Optim', "'adam' (str)"]),
  'name for object': ('--gin.OPTIM=Optim', ["'Optim' (str): did you mean @Optim()?"]),
  'name for another object': ('--gin.go.train=Optim', ['expected toy_run.Reader', "got 'Optim' (str)\n"]),
  'None for a string': ('--gin.MODEL_DIR=None', ['expected str, got None']),
  'class for object': ('--gin.OPTIM=@Optim', ['did you mean @Optim()?']),
  'another object': ('--gin.OPTIM=@Unrelated()', ['expected toy_run.Optim', '@Unrelated()']),
  'broken value': ('--gin.OPTIM=@Optim(', ['cannot read the value']),
  'no value': ('--gin.STEPS', ['expected NAME=VALUE']),
  'empty value': ('--gin.STEPS=', ['expected NAME=VALUE']),
  'bad name': ('--gin.1X=3', ["'1X' is not a gin name"]),
  'needs itself': ('--gin.STEPS=%STEPS', ['needs itself', 'STEPS -> STEPS']),
  'object needs itself': ('--gin.Optim.rate=@Optim()', ['needs itself']),
  'stray word': ('toy.gin', ["unexpected argument 'toy.gin'"]),
  'bad flag value': ('--num_cpu_devices=x', ['num_cpu_devices']),
  'no folder': ('--gin_search_paths=/nowhere/at/all', ["no folder '/nowhere/at/all'"]),
  'no effect': ('--gin.Unrelated.x=1', ['Unrelated']),
}


@pytest.mark.parametrize(('flag', 'expected'), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(run, flag, expected):
  outcome = run(flag)
  assert outcome.code == 2 and outcome.got is None
  assert outcome.error.startswith('error: ') and outcome.error.count('\n') == 1
  for part in expected:
    assert part in outcome.error


def test_a_flag_for_what_the_run_does_not_use_is_refused_and_a_file_is_not(run, folder):
  (folder / 'other.gin').write_text('go.test = None\n')
  files = ('--gin_file=toy.gin', '--gin_file=other.gin')
  assert run(*files).got['test'] is None
  outcome = run(*files, '--gin.test/Reader.batch=3')
  assert outcome.code == 2 and 'has no effect' in outcome.error


def test_parameter_without_a_value(run, folder):
  (folder / 'toy.gin').write_text('import toy_run\ngo.steps = 1\n')
  outcome = run()
  assert outcome.code == 2 and "go needs a value for 'optim'" in outcome.error


def test_required_macro_names_itself_and_where_it_is_declared(run, folder):
  (folder / 'need.gin').write_text('\nSTEPS = %gin.REQUIRED\n')
  files = ('--gin_file=toy.gin', '--gin_file=need.gin')
  outcome = run(*files)
  assert outcome.code == 2 and '--gin.STEPS=VALUE' in outcome.error and 'need.gin:2' in outcome.error
  assert run(*files, '--gin.STEPS=4').got['steps'] == 4


def test_a_part_of_a_run_is_told_from_a_whole_one(run, folder):
  (folder / 'part.gin').write_text('import toy_run\nRATE = 1\nOptim.rate = %RATE\n')
  outcome = run('--gin_file=part.gin')
  assert outcome.code == 2 and 'no gin file says what go is made of' in outcome.error


def test_no_gin_file(run, monkeypatch):
  code = command.run(['prog'], 'toy_run.go', usage='', work=lambda session: 0)
  assert code == 2


def test_help_lists_the_flags(run, capsys):
  assert command.run(['prog', '--help'], 'toy_run.go', usage='Goes far.', work=lambda session: 0) == 0
  out = capsys.readouterr().out
  assert out.startswith('Goes far.') and '--gin_search_paths' in out and '--gin.NAME=VALUE' in out


@pytest.mark.parametrize(
  ('raised', 'code', 'line'),
  [
    (errors.UsageError('batch of 3\ndoes not fit'), 2, 'error: batch of 3 does not fit\n'),
    (PermissionError(13, 'Permission denied', '/root/x'), 2, 'error: /root/x: Permission denied\n'),
    (OSError(28, 'No space left on device'), 2, 'error: [Errno 28] No space left on device\n'),
    (KeyboardInterrupt(), 130, 'interrupted\n'),
    (environment.Terminated(), 143, 'stopped by SIGTERM\n'),
  ],
)
def test_errors_of_the_work_itself(folder, capsys, raised, code, line):
  def work(session):
    raise raised

  assert command.run(['prog', '--gin_file=toy.gin'], 'toy_run.go', usage='', given=('dry_run',), work=work) == code
  assert capsys.readouterr().err == line


def test_a_bug_keeps_its_traceback(folder):
  def work(session):
    raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError):
    command.run(['prog', '--gin_file=toy.gin'], 'toy_run.go', usage='', given=('dry_run',), work=work)


def test_exit_code_of_the_work_is_passed_on(folder):
  assert (
    command.run(['prog', '--gin_file=toy.gin'], 'toy_run.go', usage='', given=('dry_run',), work=lambda session: 7) == 7
  )


def test_a_module_that_is_not_there(run, folder):
  (folder / 'toy.gin').write_text('import toy_ran\n')
  outcome = run()
  assert outcome.code == 2 and "toy.gin:1: no module 'toy_ran'" in outcome.error


@pytest.mark.parametrize(
  ('flags', 'expected'),
  [
    (['--process_id=0'], r'missing --coordinator_address \(.*\), --num_processes \(JAX_NUM_PROCESSES\)'),
    (['--coordinator_address=h:1', '--num_processes=2', '--process_id=2'], 'expected less than num_processes=2'),
    (['--coordinator_address=h', '--num_processes=2', '--process_id=1'], 'expected HOST:PORT'),
  ],
)
def test_flags_for_several_processes_are_checked_before_anything_is_started(flags, expected):
  parsed = arguments.parse(['prog', *flags])
  with pytest.raises(errors.UsageError, match=expected):
    environment.start(parsed.flags)


def test_what_the_environment_says_stays(monkeypatch: pytest.MonkeyPatch):
  variables = {'JAX_COMPILATION_CACHE_DIR': '/mine', 'T5X_LITE_CACHE': '/cache'}
  monkeypatch.setattr(environment.os, 'environ', variables)
  monkeypatch.setattr(environment, 'logging', mock.Mock())
  monkeypatch.setattr(environment, 'warnings', mock.Mock())
  environment.prepare(arguments.parse(['prog']).flags)
  assert variables['JAX_COMPILATION_CACHE_DIR'] == '/mine'
  assert variables['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] == '0'
  del variables['JAX_COMPILATION_CACHE_DIR']
  environment.prepare(arguments.parse(['prog']).flags)
  assert variables['JAX_COMPILATION_CACHE_DIR'] == '/cache/xla'


def test_what_a_killed_run_left_half_written_in_the_cache_is_removed_when_it_is_found(tmp_path, monkeypatch):
  shown = []
  monkeypatch.setattr(warnings, 'showwarning', lambda message, *rest, **options: shown.append(str(message)))
  monkeypatch.setattr(environment.os, 'environ', {'JAX_COMPILATION_CACHE_DIR': str(tmp_path)})
  monkeypatch.setattr(environment, 'logging', mock.Mock())
  environment.prepare(arguments.parse(['prog']).flags)
  for name in ('jit_step-123-cache', 'jit_step_2-123-cache'):
    (tmp_path / name).write_bytes(b'half')
  warnings.showwarning(
    "Error reading persistent compilation cache entry for 'jit_step': error: truncated", UserWarning, 'f', 1
  )
  warnings.showwarning('something else', UserWarning, 'f', 1)
  assert [path.name for path in tmp_path.iterdir()] == ['jit_step_2-123-cache']
  assert shown == ['something else']


def test_an_interrupt_that_python_swallowed_is_sent_again(monkeypatch):
  reported = []
  monkeypatch.setattr(sys, 'unraisablehook', reported.append)
  monkeypatch.setattr(warnings, 'showwarning', warnings.showwarning)
  monkeypatch.setattr(environment.os, 'environ', {'JAX_COMPILATION_CACHE_DIR': '/mine'})
  monkeypatch.setattr(environment, 'logging', mock.Mock())
  environment.prepare(arguments.parse(['prog']).flags)

  def collecting(phase, info):
    gc.callbacks.remove(collecting)
    raise error

  received = threading.Event()
  monkeypatch.setattr(environment.os, 'kill', lambda *sent: received.set())
  for error, seconds in ((ValueError('a bug'), 0.2), (KeyboardInterrupt(), 5.0)):
    gc.callbacks.append(collecting)
    gc.collect()
    assert received.wait(seconds) == isinstance(error, KeyboardInterrupt)
  assert [type(each.exc_value) for each in reported] == [ValueError]


def test_a_mistake_in_the_files_is_told_before_anything_is_imported(folder):
  assert command.run(['prog', '--gin_file=toy.gin', '--gin.OPTIM=@Optim('], 'toy_run.go', usage='', work=bool) == 2
  assert 'toy_run' not in sys.modules
