"""The page is whole or not there, and what stands in files stays text."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import re
import tomllib

import pytest

from t5x_lite.cli.record import may_change
from t5x_lite.reporting import encoding, folders, page, payload

_PATH = pathlib.Path(__file__).with_name('folder_fakes.py')
_SPEC = importlib.util.spec_from_file_location('folder_fakes', _PATH)
fakes = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fakes)

BAD = '</script><script>alert(1)</script><!-- & \u2028 "\'<img src=x onerror=alert(1)>'


def read(*paths, title=None):
  return payload.FolderReader(folders.find([str(path) for path in paths]), may_change, title).read()


def shown(text):
  """The data in a page."""
  return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_nothing_in_a_file_can_become_html(tmp_path):
  samples = [{'step': 10, 'task': BAD, 'input': BAD, 'target': BAD, 'prediction': BAD}]
  values = {'Learner.z_loss': repr(BAD)}
  evals = [(BAD, 10, {'loss': 1.0, BAD: 2.0})]
  run = fakes.write_run(
    tmp_path / 'run', [1.0], values=values, samples=samples, evals=evals, config=BAD, shares={BAD: 1}
  )
  value = read(run, title=BAD)
  text = page.render(value)
  assert len(re.findall(r'<script', text)) == len(re.findall(r'</script', text)) == 2
  assert not re.search(r'<img|<!--', text)
  assert shown(text) == json.loads(json.dumps(value))
  assert shown(text)['samples'][0]['texts'][0][0] == [BAD] * 3


@pytest.mark.parametrize('text', ['</script>', '<!--', ']]>', '&lt;', '\u2028\u2029', '\\', '"', '\x00', '\ud83d'])
def test_json_in_a_script_is_the_same_value_without_markup(text):
  written = encoding.script_json({text: [text]})
  assert json.loads(written.encode()) == {text: [text]}
  assert not set('<>&\u2028\u2029') & set(written)


def test_the_page_asks_nothing_of_a_network(tmp_path):
  text = page.render(read(fakes.write_run(tmp_path / 'run', [1.0])))
  assert 'default-src &#x27;none&#x27;' in text
  outside = set(re.findall(r'https?://[^\s\'"`)]+', text))
  assert outside == {'http://www.w3.org/2000/svg'}  # a name, not an address


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
  target = tmp_path / 'report.html'
  page.write(target, 'old')

  def fails(*_):
    raise OSError('disk full')

  monkeypatch.setattr(page.os, 'replace', fails)
  with pytest.raises(OSError, match='disk full'):
    page.write(target, 'new')
  assert [path.name for path in tmp_path.iterdir()] == ['report.html'] and target.read_text() == 'old'


def test_a_run_of_a_sweep_that_is_named_too_counts_once(tmp_path):
  sweep = fakes.write_sweep(tmp_path / 'sweep', {'low': 1.0, 'high': 2.0})
  run = sweep / 'arms' / 'high' / '1'
  assert len(read(sweep, run)['runs']) == len(read(sweep)['runs']) == 4
  assert len(read(run)['runs']) == 1


def test_arms_have_bands_over_their_seeds(tmp_path):
  value = read(fakes.write_sweep(tmp_path / 'sweep', {'low': 1.0, 'high': 2.0}))
  assert [(arm['name'], arm['baseline'], arm['runs']) for arm in value['arms']] == [
    ('low', True, [0, 1]),
    ('high', False, [2, 3]),
  ]
  assert set(value['arms'][0]['bands']) == set(value['runs'][0]['curves'])
  lines = {line['name']: line for line in value['configuration']['lines']}
  assert lines['Learner.z_loss']['kind'] == 'differs'
  assert lines['Learner.z_loss']['of'] == [0, 0, 1, 1]
  section = value['sweeps'][0]['sections'][0]
  assert 'loss' in section['title'] and section['rows'][0]['baseline']
  assert 'worse' in section['rows'][1]['cells'] or 'cannot tell' in section['rows'][1]['cells']


def test_runs_that_share_all_but_the_seed_are_an_arm(tmp_path):
  for name, seed, z_loss in (('a/0', 0, '1'), ('a/1', 1, '1'), ('b', 0, '2')):
    values = {'train.random_seed': str(seed), 'Learner.z_loss': z_loss}
    fakes.write_run(tmp_path / name, [1.0, 2.0], values=values, seed=seed)
  value = read(tmp_path / 'a' / '0', tmp_path / 'a' / '1', tmp_path / 'b')
  assert [len(arm['runs']) for arm in value['arms']] == [2, 1]


def test_data_lineage_and_costs_are_told(tmp_path):
  lineage = {'parent': '/runs/base', 'step': 50}
  run = fakes.write_run(tmp_path / 'run', [2.0, 1.0], values={'A.x': '1'}, shares={'a': 0.7, 'b': 0.3}, lineage=lineage)
  (described,) = read(run)['runs']
  assert described['consumed'] == {'a': {'examples': 6.0, 'tokens': 200.0}, 'b': {'examples': 6.0, 'tokens': 400.0}}
  assert described['parent'] == ('/runs/base', 50) and described['checkpoints'] == [[20, {'loss': 1.5}]]
  assert described['spent'] == {'steps': 20.0, 'tokens': 2000.0, 'seconds': 10.0, 'flops': 2e7}


def test_a_reader_reads_again_only_what_has_changed(tmp_path, monkeypatch):
  runs = [fakes.write_run(tmp_path / name, [1.0]) for name in 'ab']
  reader = payload.FolderReader(folders.find([str(run) for run in runs]), may_change)
  first = reader.read()
  assert reader.stamp() == first['stamp']
  with (runs[0] / 'metrics.jsonl').open('a') as file:
    file.write('{"split": "train", "step": 20, "loss": 0.5}\n')
  asked = []
  true = payload.rows.read_metrics
  monkeypatch.setattr(payload.rows, 'read_metrics', lambda folder: asked.append(folder) or true(folder))
  second = reader.read()
  assert asked == [runs[0]] and second['stamp'] != first['stamp'] and second['runs'][0]['curves']['loss']['of'] == 2


def test_long_runs_and_many_of_them_stay_small(tmp_path):
  losses = [float(n % 97) for n in range(20_000)]
  run = fakes.write_run(tmp_path / 'run', losses)
  value = read(run)
  assert value['runs'][0]['curves']['loss']['of'] == 20_000
  assert len(page.render(value)) < 1_000_000


def test_every_script_is_part_of_the_page_and_of_the_package():
  folder = pathlib.Path(page.__file__).parent
  assert {path.name for path in folder.glob('*.js')} == set(page.SCRIPTS)
  project = tomllib.loads((folder.parents[1] / 'pyproject.toml').read_text())
  assert {'*.js', '*.css'} <= set(project['tool']['setuptools']['package-data']['t5x_lite.reporting'])
