"""Folders that are whole or not there, and what they may replace."""

from __future__ import annotations

import os
import pathlib

import pytest

from t5x_lite.core import errors
from t5x_lite.interop import folders


def model_at(path: pathlib.Path, *, holding: str = 'config.json') -> pathlib.Path:
  path.mkdir(parents=True)
  (path / holding).write_text('old')
  return path


def test_a_folder_is_there_when_the_block_ends_and_as_a_new_one_would_be(tmp_path):
  target = tmp_path / 'deep' / 'model'
  with folders.new_folder(target) as folder:
    (folder / 'x').write_text('1')
    assert not target.exists()
  assert (target / 'x').read_text() == '1' and [path.name for path in target.parent.iterdir()] == ['model']
  (tmp_path / 'other').mkdir()
  assert target.stat().st_mode == (tmp_path / 'other').stat().st_mode


def test_nothing_is_left_of_a_block_that_fails(tmp_path):
  target = model_at(tmp_path / 'model')
  with pytest.raises(KeyError), folders.new_folder(target, overwrite=True) as folder:
    (folder / 'x').write_text('1')
    raise KeyError
  with pytest.raises(errors.UsageError, match=r'cannot write .*: No space left'), folders.new_folder(tmp_path / 'new'):
    raise OSError(28, 'No space left on device')
  assert [path.name for path in tmp_path.iterdir()] == ['model'] and os.listdir(target) == ['config.json']


def test_what_is_there_is_replaced_on_request_only(tmp_path):
  target = tmp_path / 'model'
  target.mkdir()
  with folders.new_folder(target) as folder:  # an empty one may be there
    (folder / 'config.gin').write_text('1')
  with pytest.raises(errors.UsageError, match='is there and not empty'), folders.new_folder(target):
    pass
  with folders.new_folder(target, overwrite=True) as folder:
    (folder / 'new').write_text('1')
  assert os.listdir(target) == ['new'] and os.listdir(tmp_path) == ['model']


@pytest.mark.parametrize('kind', ['config.json', 'config.gin', 'checkpoint_5'])
def test_models_only_are_replaced(tmp_path, kind):
  folders.check_target(model_at(tmp_path / 'model', holding=kind), overwrite=True)
  work = model_at(tmp_path / 'work', holding='thesis.tex')
  with pytest.raises(errors.UsageError, match='work is no model'):
    folders.check_target(work, overwrite=True)
  folders.check_target(model_at(tmp_path / 'empty' / 'x').parent / 'new', overwrite=True)


def test_neither_where_one_stands_nor_what_is_read_is_replaced(tmp_path, monkeypatch):
  outer = model_at(tmp_path / 'outer')
  inner = model_at(outer / 'inner' / 'checkpoint_3')
  with pytest.raises(errors.UsageError, match='outer holds the source'):
    folders.check_target(outer, overwrite=True, source=inner)
  folders.check_target(outer, overwrite=True, source='google/t5')
  folders.check_target(inner, overwrite=True, source=inner)
  monkeypatch.chdir(inner.parent)
  for target in ('.', '..', outer):
    with pytest.raises(errors.UsageError, match='holds the current folder'):
      folders.check_target(target, overwrite=True)
  empty = tmp_path / 'empty'
  empty.mkdir()
  monkeypatch.chdir(empty)
  with pytest.raises(errors.UsageError, match='holds the current folder'):
    folders.check_target('.')


def test_a_link_is_followed(tmp_path):
  target, link = model_at(tmp_path / 'model'), tmp_path / 'link'
  link.symlink_to(target)
  with folders.new_folder(link, overwrite=True) as folder:
    (folder / 'new').write_text('1')
  assert link.is_symlink() and os.listdir(target) == ['new']
  (tmp_path / 'circle').symlink_to(tmp_path / 'circle')
  with pytest.raises(errors.UsageError, match='cannot write'):
    folders.check_target(tmp_path / 'circle')


def test_of_two_that_write_to_one_place_the_later_one_is_told(tmp_path, monkeypatch):
  target = tmp_path / 'model'
  with pytest.raises(errors.UsageError, match='is there and not empty'), folders.new_folder(target):
    model_at(target)
  # As late as can be: after the last look.
  monkeypatch.setattr(folders, 'check_target', lambda target, **options: target)
  with pytest.raises(errors.UsageError, match='has appeared meanwhile'), folders.new_folder(target):
    pass
  assert (target / 'config.json').read_text() == 'old' and os.listdir(tmp_path) == ['model']


def test_what_was_there_comes_back_when_it_cannot_be_replaced(tmp_path, monkeypatch):
  target, rename = model_at(tmp_path / 'model'), pathlib.Path.rename

  def fails(path, other):
    if path.name.endswith('.tmp'):
      raise OSError(5, 'Input/output error')
    return rename(path, other)

  monkeypatch.setattr(pathlib.Path, 'rename', fails)
  with pytest.raises(errors.UsageError, match='Input/output error'), folders.new_folder(target, overwrite=True):
    pass
  assert (target / 'config.json').read_text() == 'old' and os.listdir(tmp_path) == ['model']


def test_a_target_that_cannot_be_is_refused(tmp_path):
  (tmp_path / 'file').write_text('1')
  for target, told in (('file', 'is a file'), ('file/below', 'cannot write')):
    with pytest.raises(errors.UsageError, match=told), folders.new_folder(tmp_path / target):
      pass
