"""The page in Chromium: it renders, zooms, sorts and filters, reads on a phone and on paper, and nothing complains."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import pathlib
import threading

import pytest

from t5x_lite.cli.record import may_change
from t5x_lite.reporting import folders, page, payload, server


def load(name):
  path = pathlib.Path(__file__).with_name(f'{name}.py')
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


fakes, webdriver = load('folder_fakes'), load('webdriver')
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(not webdriver.installed(), reason='no Chromium here (Debian: chromium, chromium-driver)'),
]

BAD = '</script><script>document.title="bad"</script><img src=x onerror="document.title=\'bad\'">'


@pytest.fixture(scope='module')
def window():
  with webdriver.browser() as opened:
    yield opened


@pytest.fixture(scope='module')
def sweep(tmp_path_factory):
  """Three arms of two seeds, of which one has a name, samples and a task that try to be HTML."""
  folder = fakes.write_sweep(tmp_path_factory.mktemp('browser') / 'sweep', {'low': 1.0, 'middle': 2.0, 'high': 3.0})
  samples = [{'step': step, 'task': BAD, 'input': BAD, 'target': f'at {step}', 'prediction': BAD} for step in (10, 20)]
  evals = [(BAD, step, {'loss': 5.0 - step / 10, 'score': step}) for step in range(10, 110, 10)]
  run = folder / 'arms' / 'high' / '2'
  fakes.write_run(
    run, [4.0 - n / 10 for n in range(10)], values={'A.x': repr(BAD)}, samples=samples, evals=evals, seed=2
  )
  older = {'parent': BAD, 'step': 7, 'changes': [BAD], 'data': 'continue'}
  info = {'lineage': {'parent': '/runs/between', 'step': 9, 'changes': ['Learner.z_loss'], 'ancestors': [older]}}
  (run / 'run-info.json').write_text(json.dumps(info))
  rows = (fakes.attention_row(BAD, length, length) for length in (6, 150))
  (run / 'attention.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return folder


@pytest.fixture
def opened(window, sweep, tmp_path):
  value = payload.FolderReader(folders.find([str(sweep)]), may_change, BAD).read()
  page.write(tmp_path / 'report.html', page.render(value))
  window.resize(1280, 3000)  # charts out of sight wait until they are scrolled to
  window.open((tmp_path / 'report.html').as_uri())
  window.wait("document.querySelector('[data-metric=loss] .line')")
  yield window
  assert window.run('return document.title') == BAD
  assert window.complaints() == []


def lines(window, metric='loss', kind='line'):
  return window.run(
    'return [...document.querySelectorAll(`[data-metric="${arguments[0]}"] path.${arguments[1]}`)]'
    '.map(e => e.getAttribute("d"))',
    metric,
    kind,
  )


def choose(window, name, value):
  window.run(
    'const s = document.getElementById(`choose-${arguments[0]}`); s.value = arguments[1]; '
    's.dispatchEvent(new Event("change"))',
    name,
    value,
  )


def ticks(window, metric='loss'):
  """What stands below the axis."""
  return window.run(
    'return [...document.querySelectorAll(`[data-metric="${arguments[0]}"] .axes text[text-anchor=middle]`)]'
    '.map(e => e.textContent)',
    metric,
  )


def cells(window, table, column):
  return window.run(
    'return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].map(e => e.children[arguments[1]].textContent)',
    table,
    column,
  )


def test_arms_are_lines_with_bands(opened):
  assert len(lines(opened)) == 3 and len(lines(opened, kind='band')) == 3
  assert all(path.startswith('M') and 'NaN' not in path for path in lines(opened) + lines(opened, kind='band'))
  choose(opened, 'curves', 'runs')
  assert len(lines(opened)) == 7 and not lines(opened, kind='band')


def test_a_drag_zooms_all_charts_and_a_double_click_shows_everything(opened):
  whole = ticks(opened), ticks(opened, 'grad_norm')
  assert whole[0] == whole[1] and '100' in whole[0]
  opened.run('document.querySelector("[data-metric=loss]").scrollIntoView()')
  opened.drag('[data-metric=loss] svg', -120, -40)
  zoomed = ticks(opened)
  assert zoomed != whole[0] and '100' not in zoomed
  assert ticks(opened, 'grad_norm') == zoomed
  assert opened.run('return document.getElementById("reset").disabled') is False
  twice = [{'type': 'pointerDown', 'button': 0}, {'type': 'pointerUp', 'button': 0}] * 2
  opened.pointer('[data-metric=loss] svg', {'type': 'pointerMove', 'x': 0, 'y': 0}, *twice)
  assert (ticks(opened), ticks(opened, 'grad_norm')) == whole


def test_keys_zoom_and_move(opened):
  whole = ticks(opened)
  opened.write('[data-metric=loss] svg.chart', '+')
  assert ticks(opened) != whole
  opened.write('[data-metric=loss] svg.chart', '\ue00c')  # Escape
  assert ticks(opened) == whole


def test_axes_can_be_others(opened):
  for name, shown in (('tokens', 'k'), ('flops', 'M'), ('seconds', 's')):
    choose(opened, 'axis', name)
    assert any(tick.endswith(shown) for tick in ticks(opened)), ticks(opened)
  before = lines(opened)
  opened.click('#logY')
  assert lines(opened) != before
  opened.click('#logX')
  assert all('NaN' not in path and 'Infinity' not in path for path in lines(opened))


def test_smoothing_changes_the_lines(opened):
  before = lines(opened)
  opened.run('const s = document.getElementById("smoothing"); s.value = 0.9; s.dispatchEvent(new Event("input"))')
  assert lines(opened) != before


def test_the_legend_filters_curves_and_tables(opened):
  assert len(cells(opened, 'runs', 0)) == 7
  opened.click('[data-arm=middle]')
  assert len(lines(opened)) == 2 and len(cells(opened, 'runs', 0)) == 5
  assert opened.run('return document.querySelector("[data-arm=middle]").getAttribute("aria-pressed")') == 'false'
  opened.click('[data-arm=middle]')
  assert len(lines(opened)) == 3


def test_tables_sort_and_filter(opened):
  heads = opened.run('return [...document.querySelectorAll("#runs thead th")].map(e => e.textContent)')
  column = heads.index('loss')
  for order in ('ascending', 'descending'):
    opened.click(f'#runs thead th:nth-child({column + 1}) button')
    found = [float(text) for text in cells(opened, 'runs', column)]
    assert found == sorted(found, reverse=order == 'descending')
    assert opened.run('return document.querySelectorAll("#runs th")[arguments[0]].ariaSort', column) == order
  opened.write('#runs-find', 'middle')
  assert [text.split()[-1] for text in cells(opened, 'runs', 0)] == ['middle', 'middle']


def test_curves_are_found_by_name(opened):
  opened.write('#find', 'grad')
  assert opened.run('return [...document.querySelectorAll("figure:not([hidden]) b")].map(e => e.textContent)') == [
    'grad_norm'
  ]


def test_samples_go_by_steps(opened):
  target = 'return document.querySelectorAll("#samples dd")[1].textContent'
  assert opened.run(target) == 'at 20'
  opened.run('const s = document.getElementById("samples-step"); s.value = 0; s.dispatchEvent(new Event("input"))')
  assert opened.run(target) == 'at 10'
  assert opened.run('return document.querySelectorAll("#samples dd")[0].textContent') == BAD


def test_attention_maps_are_small_multiples_and_one_of_them_large(opened):
  assert opened.run('return document.querySelectorAll("#attention .maps canvas").length') == 4
  large = 'return document.getElementById("attention-large").toDataURL()'
  told = 'return document.querySelector("#attention .told").textContent'
  before = opened.run(large), opened.run(told)
  assert before[1].startswith('“ in5” sees “ in0”: ')
  opened.click('#attention-1-1')
  assert opened.run(large) != before[0]
  assert opened.run('return document.getElementById("attention-1-1").ariaPressed') == 'true'
  opened.write('#attention-large', '\ue012\ue013\ue014')  # left, up, right
  assert opened.run(told).startswith('“ in4” sees “ in1”: ')
  value = fakes.attention_row(BAD, 6, 6)['attention']['encoder'][1][1][4][1]
  assert abs(float(opened.run(told).rpartition(' ')[2]) - value) < 0.01
  opened.run('const s = document.getElementById("attention-stack"); s.value = 1; s.dispatchEvent(new Event("change"))')
  assert 'out2' in opened.run(told)
  opened.run('const s = document.getElementById("attention-text"); s.value = 1; s.dispatchEvent(new Event("change"))')
  assert '“ out74” sees “ in0 in1”' in opened.run(told)
  assert 'up to 1 by 2 tokens' in opened.run('return document.querySelector("#attention .large").textContent')


def test_the_ancestors_of_a_branch_are_listed_the_oldest_first(opened):
  found = opened.run('return [...document.querySelectorAll(".ancestors b")].map((e) => e.textContent)')
  assert found == [f'{BAD} @ 7', '/runs/between @ 9', 'high/2']


def test_what_differs_is_listed_and_everything_on_demand(opened):
  assert 'Learner.z_loss' in cells(opened, 'config', 0) and 'LoopConfig.total_steps' in cells(opened, 'config', 0)
  before = len(cells(opened, 'config', 0))
  choose(opened, 'configuration', 'all')
  assert len(cells(opened, 'config', 0)) >= before


def test_a_pointer_is_told_the_values_below_it(opened):
  opened.pointer('[data-metric=loss] svg', {'type': 'pointerMove', 'x': -60, 'y': 0})
  assert 'C 3.' in opened.run('return document.querySelector("[data-metric=loss] .tip:not([hidden])").textContent')


@pytest.mark.parametrize('width', [390, 1280])
def test_the_page_is_no_wider_than_its_window(opened, width):
  opened.resize(width, 844)
  assert opened.run('return document.documentElement.scrollWidth <= window.innerWidth'), width
  small = opened.run(
    'return [...document.querySelectorAll("button, select, input")]'
    '.filter(e => e.offsetParent && e.offsetHeight < 16).map(e => e.outerHTML)'
  )
  assert small == []


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_texts_and_lines_stand_out(opened, scheme):
  """WCAG 2.2: 4.5 to 1 for texts, 3 to 1 for lines."""
  opened.emulate(scheme)
  found = opened.run("""
    const light = (text) => {
      const parts = text.match(/[\\d.]+/g).slice(0, 3).map((part) => {
        const c = part / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4 });
      return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] };
    const paper = light(getComputedStyle(document.body).backgroundColor), out = {};
    const ratio = (color) => {
      const [a, b] = [light(color), paper].sort((x, y) => y - x); return (a + 0.05) / (b + 0.05) };
    out.text = ratio(getComputedStyle(document.body).color);
    out.note = ratio(getComputedStyle(document.querySelector('.note')).color);
    out.link = ratio(getComputedStyle(document.querySelector('a')).color);
    for (let i = 0; i < 7; i++) {
      const probe = document.createElement('i'); probe.className = `colour-${i}`; document.body.append(probe);
      out[`line ${i}`] = ratio(getComputedStyle(probe).color); probe.remove();
    }
    return out;""")
  opened.emulate('light')
  for name, ratio in found.items():
    assert ratio >= (3 if name.startswith('line') else 4.5), (name, ratio)


def test_everything_to_be_used_has_a_name_and_ids_are_unique(opened):
  nameless = opened.run("""
    return [...document.querySelectorAll('button, select, input, svg[tabindex], [role=region]')].filter((e) =>
      !(e.textContent.trim() || e.ariaLabel || e.labels?.[0]?.textContent.trim())).map((e) => e.outerHTML)""")
  assert nameless == []
  ids = opened.run("return [...document.querySelectorAll('[id]')].map(e => e.id)")
  assert len(ids) == len(set(ids))


def test_it_prints(opened):
  assert opened.pdf().startswith(b'%PDF')


def test_a_served_page_follows_the_run(window, tmp_path):
  folder = fakes.write_run(tmp_path / 'run', [3.0, 2.0])
  made = server.make(payload.FolderReader(folders.find([str(folder)]), may_change), 0)
  with contextlib.ExitStack() as stack:
    stack.callback(made.server_close)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    stack.callback(thread.join)
    stack.callback(made.shutdown)
    window.open(f'http://127.0.0.1:{made.server_address[1]}/')
    window.wait("document.querySelector('[data-metric=loss] .line')")
    window.write('#find', 'lo')
    with (folder / 'metrics.jsonl').open('a') as file:
      file.write(json.dumps({'split': 'train', 'step': 5000, 'loss': 1.0}) + '\n')
    window.wait("document.querySelector('#runs').textContent.includes('5,000')")
    assert window.run('return document.getElementById("find").value') == 'lo'
    assert window.run('return document.activeElement.id') == 'find'
    assert window.complaints() == []
  window.wait("document.getElementById('live').textContent === 'the server has ended'")
  window.complaints()


def test_attention_of_long_texts_fits_a_phone(window, tmp_path):
  run = fakes.write_run(tmp_path / 'run', [1.0])
  rows = [fakes.attention_row('a long text ' * 20, 90, seed) for seed in range(2)]
  (run / 'attention.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  page.write(tmp_path / 'report.html', page.render(payload.FolderReader(folders.find([str(run)]), may_change).read()))
  window.resize(390, 844)
  window.open((tmp_path / 'report.html').as_uri())
  window.wait("document.getElementById('attention-large')")
  assert window.run('return document.documentElement.scrollWidth <= window.innerWidth')
  assert window.complaints() == []
