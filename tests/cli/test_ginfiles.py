"""Where gin files are found, what is said when they are not, and what their syntax means."""

from __future__ import annotations

import pytest

from t5x_lite.cli import ginfiles
from t5x_lite.cli.statements import Binding, Import, Macro, Reference
from t5x_lite.core import errors


@pytest.fixture
def read(tmp_path, monkeypatch):
  """Writes files, then reads one: `read('a.gin', {'a.gin': text}, search_paths=[...])`."""
  monkeypatch.chdir(tmp_path)

  def read(name, files, search_paths=()):
    for path, text in files.items():
      (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / path).write_text(text)
    return list(ginfiles.GinFiles(search_paths).read(name))

  return read


def values(statements):
  return {statement.name: statement.value for statement in statements if isinstance(statement, Binding)}


def test_statements_and_where_they_stand(read):
  text = 'from a import b as c\nfrom __gin__ import dynamic_registration\n#\nX = 1\n\ns/m.f:\n  p = %X\n  q = @t/g()\n'
  assert [
    (type(each), *((each.module, each.alias) if isinstance(each, Import) else (each.name, each.value)), each.origin)
    for each in read('a.gin', {'a.gin': text})
  ] == [
    (Import, 'a.b', 'c', 'a.gin:1'),
    (Binding, 'X', 1, 'a.gin:4'),
    (Binding, 's/m.f.p', Macro('X'), 'a.gin:7'),
    (Binding, 's/m.f.q', Reference('g', ('t',)), 'a.gin:8'),
  ]


def test_includes_are_read_where_they_stand(read):
  files = {'a.gin': "X = 1\ninclude 'sub/b.gin'\nY = 1\n", 'sub/b.gin': 'X = 2\nY = 2\n'}
  assert values(read('a.gin', files)) == {'X': 2, 'Y': 1}


def test_a_file_can_name_its_own_folder(read, tmp_path):
  files = {'a.gin': "include 'sub/b.gin'\nX = 1\n", 'sub/b.gin': 'f.x = {"deep": [%CONFIG_DIR]}\n'}
  assert values(read('a.gin', files))['CONFIG_DIR'] == str(tmp_path / 'sub')
  assert 'CONFIG_DIR' not in values(read('plain.gin', {'plain.gin': 'X = 1\n'}))
  # As the config.gin of a run has it, which was made from another's.
  assert values(read('run.gin', {'run.gin': "CONFIG_DIR = '/first'\nf.x = %CONFIG_DIR\n"}))['CONFIG_DIR'] == '/first'


def test_the_users_folders_come_before_the_packaged_ones(read):
  files = {'mine/models/t5_small.gin': 'X = 3\n', 'mine/run.gin': "include 'models/t5_small.gin'\n"}
  assert values(read('run.gin', files, ['mine'])) == {'X': 3}
  assert 'T5Config.emb_dim' in values(read('models/t5_small.gin', files))


def test_the_first_of_the_users_folders_wins_and_the_current_one_before_it(read):
  files = {'one/a.gin': 'X = 1\n', 'two/a.gin': 'X = 2\n'}
  assert values(read('a.gin', files, ['two', 'one'])) == {'X': 2}
  assert values(read('a.gin', {**files, 'a.gin': 'X = 0\n'}, ['two', 'one'])) == {'X': 0}


@pytest.mark.parametrize(
  ('name', 'files', 'expected'),
  [
    ('t5_smal.gin', {}, ["'t5_smal.gin'", "did you mean 't5_small.gin'?", 'looked in']),
    ('c4.gin', {}, ["did you mean 'data/c4.gin'?"]),
    ('mien.gin', {'mine.gin': ''}, ["did you mean 'mine.gin'?"]),
    ('/no/such.gin', {}, ['--gin_file=/no/such.gin: no such file']),
    ('a.gin', {'a.gin': "\ninclude 'modles/t5_small.gin'\n"}, ['a.gin:2', "did you mean 'models/t5_small.gin'?"]),
    ('a.gin', {'a.gin': "include 'b.gin'\n", 'b.gin': "include 'a.gin'\n"}, ['b.gin:1', "'a.gin' includes itself"]),
    ('a.gin', {'a.gin': 'X = 1\nY = = 2\n'}, ['a.gin:2: syntax error']),
    ('a.gin', {'a.gin': 'X = 1\nY = abc\n'}, ["a.gin:2: syntax error: 'abc' is no value (a string needs quotes)"]),
    ('a.gin', {'a.gin': 'X = (1,\n'}, ['a.gin:', 'syntax error']),
    ('a.gin', {'a.gin': "X = 'open\n"}, ['a.gin:1', 'syntax error']),
    ('a.gin', {'a.gin': 'X\n'}, ['a.gin:1', 'syntax error']),
    ('a.gin', {'a.gin': 'f:\np = 1\n'}, ['a.gin:2', 'syntax error']),
    ('a.gin', {'a.gin': 'f:\n    p = 1\n  q = 2\n'}, ['a.gin:3', 'syntax error']),
    ('a.gin', {'a.gin': "include 'b.gin'\n", 'b.gin': 'X = $\n'}, ['b.gin:1', 'syntax error']),
  ],
)
def test_errors_say_what_and_where_in_one_line(read, name, files, expected):
  with pytest.raises(errors.UsageError) as error:
    read(name, files)
  assert '\n' not in str(error.value)
  for part in expected:
    assert part in str(error.value)


def test_a_file_that_is_no_text(read, tmp_path):
  (tmp_path / 'a.gin').write_bytes(b'\xff\xfe\x00')
  with pytest.raises(errors.UsageError, match='cannot read'):
    read('a.gin', {})
