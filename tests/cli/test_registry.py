"""Names in gin files: endings of dotted paths, objects made once, scopes as gin has them."""

from __future__ import annotations

import importlib
import sys

import pytest

from t5x_lite.cli.registry import Registry
from t5x_lite.core import errors

ADAFACTOR = 't5x_lite.training.optimizers.adafactor'


@pytest.mark.parametrize('selector', ['adafactor', 'optimizers.adafactor', 'training.optimizers.adafactor', ADAFACTOR])
def test_any_unique_ending_of_the_path_is_a_name(selector):
  names = Registry()
  assert names.resolve(selector, '') == ADAFACTOR
  assert names.load(ADAFACTOR) is importlib.import_module('t5x_lite.training.optimizers').adafactor


def test_every_name_resolves_from_its_own_short_name():
  names = Registry()
  everything = [name for group in names._by_last_name.values() for name in group]
  assert len(everything) > 100
  for name in everything:
    assert names.resolve(names.short_name(name), '') == name


def test_an_ending_that_is_no_whole_name_is_unknown():
  with pytest.raises(errors.UsageError, match="'factor'"):
    Registry().resolve('factor', 'here')


def test_a_name_that_several_have_needs_more_of_the_path(tmp_path, monkeypatch):
  (tmp_path / 'mine_too.py').write_text('def adafactor(): pass\n')
  monkeypatch.syspath_prepend(tmp_path)
  names = Registry()
  names.add_module('mine_too', None, 'here')
  with pytest.raises(errors.UsageError, match=f'may be any of mine_too.adafactor, {ADAFACTOR}'):
    names.resolve('adafactor', 'here')
  assert names.resolve('mine_too.adafactor', '') == 'mine_too.adafactor'
  assert names.short_name(ADAFACTOR) == 'optimizers.adafactor'


def test_an_alias_names_what_it_stands_for(tmp_path, monkeypatch):
  (tmp_path / 'mine_aliased.py').write_text('def special(): return 5\n')
  monkeypatch.syspath_prepend(tmp_path)
  names = Registry()
  names.add_module('mine_aliased', 'other', 'here')
  assert names.load(names.resolve('other.special', ''))() == 5


def test_an_import_inside_the_users_module_that_fails_is_not_hidden(tmp_path, monkeypatch):
  (tmp_path / 'mine_broken.py').write_text('import surely_not_there\n')
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ModuleNotFoundError, match='surely_not_there'):
    Registry().add_module('mine_broken', None, 'here')


def test_looking_names_up_imports_nothing(run):
  before = set(sys.modules)
  Registry().resolve(ADAFACTOR, '')
  assert not {name for name in set(sys.modules) - before if name.startswith('t5x_lite.')}


def test_a_macro_stands_for_one_object_and_a_reference_for_a_new_one(run, folder):
  (folder / 'shared.gin').write_text(
    'READER = @Reader()\nReader.split = 1\nReader.split = "x"\ngo.train = %READER\ngo.test = %READER\n'
  )
  got = run('--gin_file=toy.gin', '--gin_file=shared.gin').got
  assert got['train'] is got['test']
  assert run().got['train'] is not run().got['test']


def test_a_longer_scope_wins_over_a_shorter_one(run):
  got = run(
    '--gin.go.train=@outer/inner/Reader()', '--gin.outer/Reader.split=o', '--gin.outer/inner/Reader.batch=7'
  ).got
  assert (got['train'].split, got['train'].batch) == ('o', 7)


def test_a_reference_without_a_scope_is_called_in_the_scope_around_it(run, folder):
  (folder / 'nested.py').write_text('def outer(*, reader): return reader\n')
  (folder / 'nested.gin').write_text(
    'import nested\ngo.train = @train/nested.outer()\nouter.reader = @Reader()\nReader.split = "none"\n'
  )
  outcome = run('--gin_file=toy.gin', '--gin_file=nested.gin')
  assert outcome.code == 0 and outcome.got['train'].split == 'a', outcome


def test_a_reference_that_is_not_called_is_the_callable_with_its_arguments(run, folder):
  (folder / 'callbacks.py').write_text(
    'from __future__ import annotations\nfrom typing import Callable\n'
    'def scaled(x: float, *, by: float = 2.0): return x * by\n'
    'def take(*, function: Callable[[float], float]): return function\n'
  )
  (folder / 'callbacks.gin').write_text('import callbacks\ngo.train = @take()\ntake.function = @scaled\n')
  files = ('--gin_file=toy.gin', '--gin_file=callbacks.gin')
  assert run(*files).got['train'](3.0) == 6.0
  assert run(*files, '--gin.scaled.by=5').got['train'](3.0) == 15.0
