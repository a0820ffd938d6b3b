"""What an installation holds: all packages and gin files, every dependency, commands that start from any folder."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv

import pytest

from t5x_lite.cli import ginfiles

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
ENTRY_POINTS = ('train', 'infer', 'inspect_data', 'convert', 'prepare', 'plan', 'report', 'sweep', 'harness')


def test_every_package_is_listed():
  on_disk = {'.'.join(path.parent.relative_to(ROOT).parts) for path in (ROOT / 't5x_lite').rglob('__init__.py')}
  assert set(PROJECT['tool']['setuptools']['packages']) == on_disk | {'t5x_lite.gin_configs'}


def test_packages_have_a_docstring_and_import_nothing():
  for path in (ROOT / 't5x_lite').rglob('__init__.py'):
    module = ast.parse(path.read_text())
    assert ast.get_docstring(module), path
    if path.parent.name not in ('t5x_lite', 'tasks'):  # tasks says how its catalogue is loaded
      assert len(module.body) == 1, path


def _imported() -> set[str]:
  """The top-level modules that the library imports, anywhere in its code."""
  names = set()
  for path in (ROOT / 't5x_lite').rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        names.update(alias.name.partition('.')[0] for alias in node.names)
      elif isinstance(node, ast.ImportFrom):
        names.add((node.module or '').partition('.')[0])
  return names - set(sys.stdlib_module_names) - {'t5x_lite'}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
  def plain(name: str) -> str:
    return name.lower().replace('_', '-')

  distributions = importlib.metadata.packages_distributions()
  # The namespace `orbax` belongs to several distributions, of which one is enough.
  # Those of extras which the tests do without need not be there.
  absent = {'lm_eval', 'optuna', 'submitit'}
  imported = {name: {plain(each) for each in distributions[name]} for name in _imported() - absent}
  optional = PROJECT['project']['optional-dependencies']['hf']
  declared, extra = (
    {plain(re.match(r'[\w-]+', entry)[0]) for entry in entries}
    for entries in (PROJECT['project']['dependencies'], optional)
  )
  assert {name for name, owners in imported.items() if not owners & (declared | extra)} == set()
  assert extra - set().union(*imported.values()) == set()
  assert declared - set().union(*imported.values()) == set()


def test_extras_are_those_that_the_readme_offers():
  extras = PROJECT['project']['optional-dependencies']
  assert set(extras) == {
    'beam',
    'cuda12',
    'cuda13',
    'tpu',
    'hf',
    'metrics',
    'lm_eval',
    'sweep',
    'postgresql',
    'test',
    'dev',
  }
  for extra in re.findall(r"'\.\[(\w+)\]'", (ROOT / 'README.md').read_text()):
    assert extra in extras


def test_ci_runs_the_test_command_of_the_readme():
  command = "pip install '.[test]' && python -m pytest -n 2 -m 'not slow'"
  assert (ROOT / 'README.md').read_text().count(f'\n{command}\n') == 1
  assert f'\n  {command}\n' in (ROOT / '.ci' / 'run').read_text()
  assert os.access(ROOT / '.ci' / 'run', os.X_OK)


@pytest.mark.parametrize('name', ['README.md', 'CONTRIBUTING.md'])
def test_documents_name_gin_files_and_paths_that_exist(name):
  text = (ROOT / name).read_text()
  for file in re.findall(r'--gin_file=([\w/]+\.gin)', text):
    known = any((folder / file).is_file() for folder in (ginfiles.packaged_folder(), ROOT))
    assert known or file.endswith('/config.gin'), file
  for folder, files in re.findall(r'^\| `(\w+/)`.*?\| (.*) \|$', text, re.MULTILINE):
    for file in re.findall(r'`([\w/]+\.gin)`', files):
      assert list(ginfiles.packaged_folder().rglob(file)), (folder, file)
  for path in re.findall(r'`((?:t5x_lite|tests|gin_configs)/[\w/.]+)`', text):
    assert 'NAME' in path or (ROOT / path).exists(), path


def test_entry_points_are_short_and_start_without_jax():
  for name in ENTRY_POINTS:
    assert len((ROOT / 't5x_lite' / f'{name}.py').read_text().splitlines()) <= 80
  modules = ', '.join(f't5x_lite.{name}' for name in ENTRY_POINTS)
  code = f'import sys, {modules}; print([name for name in ("jax", "flax", "numpy", "grain") if name in sys.modules])'
  found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT)
  assert found.stdout.strip() == '[]'


def _environment(folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, str]]:
  """A virtual environment that borrows all packages of this one but the library, and the variables to run it with."""
  venv.create(folder, with_pip=False)
  borrowed = folder / 'borrowed'
  borrowed.mkdir()
  for path in pathlib.Path(sysconfig.get_path('purelib')).iterdir():
    if 't5x_lite' not in path.name and path.suffix != '.pth':
      (borrowed / path.name).symlink_to(path)
  (own,) = folder.glob('lib/python*/site-packages')
  (own / 'borrowed.pth').write_text(f'{borrowed}\n')
  variables = {name: value for name, value in os.environ.items() if not name.startswith(('PYTHON', 'JAX_'))}
  return folder / 'bin' / 'python', variables


def _copy_of_the_sources(folder: pathlib.Path) -> pathlib.Path:
  """What is needed to build, in a folder of its own: building leaves files in the source tree."""
  for path in (*ROOT.glob('*.md'), ROOT / 'LICENSE', ROOT / 'pyproject.toml'):
    folder.mkdir(exist_ok=True)
    (folder / path.name).write_bytes(path.read_bytes())
  for pattern in ('t5x_lite/**/*.py', 'gin_configs/**/*.gin'):
    for path in ROOT.glob(pattern):
      target = folder / path.relative_to(ROOT)
      target.parent.mkdir(parents=True, exist_ok=True)
      target.write_bytes(path.read_bytes())
  return folder


@pytest.mark.slow
@pytest.mark.parametrize('editable', [False, True], ids=['wheel', 'editable'])
def test_an_installation_finds_its_gin_files_from_any_folder(tmp_path, editable):
  python, variables = _environment(tmp_path / 'environment')
  source = _copy_of_the_sources(tmp_path / 'source')
  install = [python, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-build-isolation', '--no-index']
  subprocess.run([*install, *(['--editable'] if editable else []), source], check=True, env=variables)
  elsewhere = tmp_path / 'elsewhere'
  elsewhere.mkdir()

  def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, *arguments], capture_output=True, text=True, cwd=elsewhere, env=variables)

  where = run('-c', 'import t5x_lite.cli.ginfiles as g; print(g.packaged_folder())')
  folder = pathlib.Path(where.stdout.strip())
  assert folder.is_relative_to(source if editable else tmp_path / 'environment'), where
  packaged = {path.relative_to(folder).as_posix() for path in folder.rglob('*.gin')}
  assert packaged == {path.relative_to(ROOT / 'gin_configs').as_posix() for path in ROOT.glob('gin_configs/**/*.gin')}
  misspelt = run('-m', 't5x_lite.train', '--gin_file=t5_tiny.gin', '--gin.TRIAN_STEPS=1')
  assert misspelt.returncode == 2 and misspelt.stdout == ''
  assert misspelt.stderr == "error: --gin.TRIAN_STEPS: unknown macro 'TRIAN_STEPS': did you mean 'TRAIN_STEPS'?\n"
  dry = run('-m', 't5x_lite.train', '--gin_file=t5_tiny.gin', '--dry_run')
  assert dry.returncode == 0, dry.stderr
  assert "train.model_dir = 'runs/t5_tiny'" in dry.stdout and 'parameters' in dry.stdout
  assert list(elsewhere.iterdir()) == []
