"""Attention maps as one HTML page that needs nothing else: choose text, layer and head, point at tokens."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors, pages
from t5x_lite.research import pictures

MOST_VALUES = 40_000_000  # a byte each
_SHADES = 255

_STYLE = """
h1 { overflow-wrap: anywhere }
.choice { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin: .8rem 0; align-items: center }
.choice label { color: #555; font-size: .87rem } select { font: inherit; padding: .25rem .4rem; max-width: 80vw }
.tokens { line-height: 2.1; margin: .3rem 0 1rem } .tokens span { border: 1px solid #ddd; border-radius: 4px;
  padding: .15rem .25rem; margin: .1rem; cursor: pointer; white-space: pre-wrap; overflow-wrap: anywhere;
  display: inline-block; line-height: 1.35 }
.tokens span.chosen { outline: 2px solid #d4380d; outline-offset: 1px }
.maps { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start }
canvas { image-rendering: pixelated; border: 1px solid #ccc } canvas#large { max-width: 100%; cursor: crosshair }
.grid { overflow-x: auto; max-width: 100% } .grid table { border-spacing: 3px; border-collapse: separate }
.grid td, .grid th { padding: 0; font-size: .75rem; text-align: center; font-weight: 400 }
.grid canvas { width: 44px; height: 44px; cursor: pointer; display: block } .grid th.row { padding-right: .3rem }
.grid canvas.chosen { outline: 2px solid #d4380d } #told { min-height: 1.6em; font-variant-numeric: tabular-nums }
.scale { display: inline-block; width: 9rem; height: .8rem; vertical-align: middle; border: 1px solid #ccc }
"""

_BODY = """
<noscript><p>This page needs JavaScript. Without it: <code>--output=maps.svg</code> makes a picture.</p></noscript>
<div class="choice">
<label>text <select id="text"></select></label> <label>attention <select id="name"></select></label>
<label>layer <select id="layer"></select></label> <label>head <select id="head"></select></label>
<label>show <select id="way"><option value="out">what the token sees</option>
<option value="in">who sees the token</option></select></label></div>
<h2 id="of"></h2>
<p class="note">Point at a token, or tap it, to see its probabilities; a click holds it. Darker is more:
0 <span class="scale" id="scale"></span> 1.</p>
<div class="label" id="query-label"></div><div class="tokens" id="queries"></div>
<div class="label" id="key-label"></div><div class="tokens" id="keys"></div>
<p id="told"></p>
<div class="maps"><div><h3>The map</h3><p class="note">Rows see, columns are seen.</p>
<canvas id="large"></canvas></div>
<div class="grid"><h3>All layers and heads</h3><table id="grid"></table></div></div>
"""

_SCRIPT = r"""
'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const at = id => document.getElementById(id);
const ramp = data.ramp, state = {text: 0, name: '', layer: 0, head: 0, held: null};
const colour = v => { const x = Math.sqrt(Math.max(0, Math.min(1, v))) * (ramp.length - 1);
  const i = Math.min(Math.floor(x), ramp.length - 2), s = x - i;
  return ramp[i].map((c, k) => Math.round(c * (1 - s) + ramp[i + 1][k] * s)); };
const shades = Array.from({length: 256}, (_, q) => colour((q / 255) ** 2));
const css = v => { const c = colour(v); return `rgb(${c.join(',')})`; };
const cache = new Map();
const maps = () => data.texts[state.text].maps[state.name];
function bytes() {
  const key = state.text + state.name;
  if (!cache.has(key)) { const raw = atob(maps().values), own = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) own[i] = raw.charCodeAt(i); cache.set(key, own); }
  return cache.get(key);
}
// The probability of one pair; head -1 is the mean of all.
function value(layer, head, query, key) {
  const own = maps(), [, heads, rows, columns] = own.shape, all = bytes();
  const one = h => { const q = all[((layer * heads + h) * rows + query) * columns + key]; return (q / 255) ** 2; };
  if (head >= 0) return one(head);
  let sum = 0; for (let h = 0; h < heads; h++) sum += one(h); return sum / heads;
}
// A map, or in small the largest probability of each of at most `most` x `most` patches.
function draw(canvas, layer, head, most) {
  const own = maps(), [, heads, rows, columns] = own.shape, all = bytes();
  const high = Math.min(rows, most), wide = Math.min(columns, most); canvas.width = wide; canvas.height = high;
  const found = new Uint8Array(high * wide), start = (layer * heads + Math.max(head, 0)) * rows * columns;
  for (let q = 0; q < rows; q++) { const line = Math.floor(q * high / rows) * wide;
    for (let k = 0; k < columns; k++) { const p = line + Math.floor(k * wide / columns);
      const v = head < 0 ? Math.round(Math.sqrt(value(layer, head, q, k)) * 255) : all[start + q * columns + k];
      if (v > found[p]) found[p] = v; } }
  const context = canvas.getContext('2d'), image = context.createImageData(wide, high);
  found.forEach((v, p) => { image.data.set(shades[v], 4 * p); image.data[4 * p + 3] = 255; });
  context.putImageData(image, 0, 0);
}
function options(select, names, chosen) {
  select.replaceChildren(...names.map(([value, text]) => { const option = document.createElement('option');
    option.value = value; option.textContent = text; option.selected = String(value) === String(chosen);
    return option; }));
}
const side = which => data.texts[state.text].tokens[maps()[which]];
const shown = token => token.trim() ? token.replace(/^ /, '') :
  token.replace(/ /g, '\u2423').replace(/\n/g, '\u21b5');
function spans(box, tokens, which) {
  box.replaceChildren(...tokens.map((token, place) => { const span = document.createElement('span');
    span.textContent = shown(token); span.tabIndex = 0;
    span.onmouseenter = () => { if (state.held === null) point(which, place); };
    span.onfocus = span.onmouseenter;
    span.onclick = () => { const same = state.held && state.held.which === which && state.held.place === place;
      state.held = same ? null : {which, place}; point(which, place); };
    return span; }));
}
// Shades the tokens of one side by what a token of the other sees, or is seen by.
function point(which, place) {
  const out = which === 'queries', from = at(which).children, to = at(out ? 'keys' : 'queries').children;
  const own = Array.from(to, (_, i) => value(state.layer, state.head, ...(out ? [place, i] : [i, place])));
  for (const span of from) { span.style.background = ''; span.style.color = ''; span.classList.remove('chosen'); }
  from[place].classList.add('chosen');
  own.forEach((v, i) => { to[i].style.background = css(v); to[i].style.color = v > .3 ? '#fff' : '#1c1c1c';
    to[i].title = v.toFixed(3); to[i].classList.remove('chosen'); });
  const most = own.map((v, i) => [v, i]).sort((a, b) => b[0] - a[0]).slice(0, 5);
  at('told').textContent = `${shown(side(which)[place])} ${out ? 'sees' : 'is seen by'}: ` + most.map(([v, i]) =>
    `${shown(side(out ? 'keys' : 'queries')[i])} ${v.toFixed(3)}`).join(',  ');
}
// The table of all maps, which only another text or another kind of attention changes.
let drawn = '';
function grid(own) {
  const table = at('grid'), heads = own.shape[1];
  if (drawn !== state.text + state.name) {
    drawn = state.text + state.name; table.replaceChildren();
    const top = table.insertRow(); top.appendChild(document.createElement('th'));
    for (let h = 0; h < heads; h++) { const th = document.createElement('th'); top.appendChild(th).textContent = h; }
    own.layers.forEach((number, layer) => { const line = table.insertRow(), th = document.createElement('th');
      th.textContent = number; th.className = 'row'; line.appendChild(th);
      for (let h = 0; h < heads; h++) { const canvas = document.createElement('canvas'); draw(canvas, layer, h, 44);
        canvas.title = `layer ${number}, head ${h}`;
        canvas.onclick = () => { state.layer = layer; state.head = h; again(); };
        line.insertCell().appendChild(canvas); } });
  }
  table.querySelectorAll('canvas').forEach((canvas, place) => { const h = place % heads;
    const chosen = (place - h) / heads === state.layer && (h === state.head || state.head < 0);
    canvas.className = chosen ? 'chosen' : ''; });
}
function again() {
  const text = data.texts[state.text], own = maps(), [layers, heads, rows, columns] = own.shape;
  state.layer = Math.min(state.layer, layers - 1); state.head = Math.min(state.head, heads - 1);
  options(at('name'), Object.entries(text.maps).map(([name, m]) => [name, m.title]), state.name);
  options(at('layer'), own.layers.map((number, place) => [place, number]), state.layer);
  options(at('head'), [[-1, 'mean of heads'], ...Array.from({length: heads}, (_, h) => [h, h])], state.head);
  at('of').textContent = own.title;
  at('query-label').textContent = 'these see'; at('key-label').textContent = 'these are seen';
  spans(at('queries'), side('queries'), 'queries'); spans(at('keys'), side('keys'), 'keys');
  const large = at('large'); draw(large, state.layer, state.head, 1024);
  const cell = Math.max(1, Math.min(24, Math.floor(480 / Math.max(rows, columns))));
  large.style.width = `${columns * cell}px`; large.style.aspectRatio = `${columns} / ${rows}`;
  grid(own);
  const way = at('way').value === 'out' ? 'queries' : 'keys';
  if (state.held && state.held.place < side(state.held.which).length) point(state.held.which, state.held.place);
  else { state.held = null; point(way, way === 'queries' ? side(way).length - 1 : 0); }
}
function first() { const names = Object.keys(data.texts[state.text].maps);
  if (!names.includes(state.name)) state.name = names[0]; again(); }
at('text').onchange = e => { state.text = +e.target.value; state.held = null; first(); };
at('name').onchange = e => { state.name = e.target.value; state.held = null; again(); };
at('layer').onchange = e => { state.layer = +e.target.value; again(); };
at('head').onchange = e => { state.head = +e.target.value; again(); };
at('way').onchange = () => { state.held = null; again(); };
at('large').onmousemove = e => { const [, , rows, columns] = maps().shape, box = at('large').getBoundingClientRect();
  const q = Math.min(rows - 1, Math.max(0, Math.floor((e.clientY - box.top) / box.height * rows)));
  const k = Math.min(columns - 1, Math.max(0, Math.floor((e.clientX - box.left) / box.width * columns)));
  point('queries', q); at('keys').children[k].classList.add('chosen');
  const own = value(state.layer, state.head, q, k).toFixed(3);
  at('told').textContent = `${shown(side('queries')[q])} sees ${shown(side('keys')[k])}: ${own}`; };
const steps = Array.from({length: 11}, (_, i) => css(i / 10));
at('scale').style.background = `linear-gradient(to right, ${steps.join(',')})`;
options(at('text'), data.texts.map((text, i) => [i, `${i + 1}: ${text.shown}`]), 0);
first();
"""


def render(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
  """The page.

  Args:
    title: text.
    rows: of `infer --mode=attention`, or `load_pretrained(source).attention(texts)`.

  Raises:
    UsageError: there is nothing to be seen, or it would be too much for a page.
  """
  if not rows:
    raise errors.UsageError('no texts for a page: expected at least one')
  size = sum(maps.size for row in rows for maps in row['attention'].values())
  if size > MOST_VALUES:
    raise errors.UsageError(
      f'a page of {size:,} probabilities: expected at most {MOST_VALUES:,}; choose layers, or fewer or shorter texts'
    )
  data = {'ramp': pictures.colours(np.linspace(0, 1, 17) ** 2).tolist(), 'texts': [_text(row) for row in rows]}
  # In a script element only "</" could end it, and JSON may spell "<" otherwise.
  text = json.dumps(data, ensure_ascii=False).replace('<', '\\u003c').replace('\u2028', '\\u2028')
  script = f'<script type="application/json" id="data">{text}</script>\n<script>{_SCRIPT}</script>'
  return pages.page(title, _BODY + script, _STYLE)


def _text(row: Mapping[str, Any]) -> dict[str, Any]:
  shown = ' / '.join(row[name] for name in ('text', 'pair', 'targets') if name in row)
  return {
    'shown': shown if len(shown) <= 60 else shown[:59] + '\u2026',
    'tokens': {side: list(tokens) for side, tokens in row['tokens'].items()},
    'maps': {name: _maps(row, name, maps) for name, maps in row['attention'].items()},
  }


def _maps(row: Mapping[str, Any], name: str, maps: np.ndarray) -> dict[str, Any]:
  # Bytes by the square root, so that small probabilities keep their digits: 1.5e-5 is told from 0.
  values = np.round(np.sqrt(np.clip(maps, 0.0, 1.0)) * _SHADES).astype(np.uint8)
  return {
    'title': pictures.title_of(name),
    'layers': list(row['layers'][name]),
    'shape': list(maps.shape),
    'queries': 'encoder' if name == 'encoder' else 'decoder',
    'keys': 'encoder' if name in ('encoder', 'cross') else 'decoder',
    'values': base64.b64encode(values.tobytes()).decode(),
  }
