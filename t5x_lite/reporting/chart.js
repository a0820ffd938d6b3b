// One chart: a metric over the chosen axis. A drag zooms all charts, a double click shows everything again.

const HEIGHT = 232, MARGIN = { left: 58, right: 26, top: 8, bottom: 34 };
let dragging = false;

// The points of a line as a path, broken where a value is missing.
function path(x, y, across, up) {
  let text = '', pen = 'M';
  for (let i = 0; i < x.length; i++) {
    if (i + 1 < x.length && x[i + 1] < across.low) continue;
    const place = Number.isFinite(y[i]) && !(state.logY && y[i] <= 0) && !(state.logX && x[i] <= 0);
    if (!place) { pen = 'M'; continue; }
    text += `${pen}${across.at(x[i]).toFixed(1)} ${up.at(y[i]).toFixed(1)}`;
    pen = 'L';
    if (x[i] > across.high) break;
  }
  return text;
}

// The area between two lines, piece by piece.
function area(line, across, up) {
  let text = '', top = [], bottom = [];
  const flush = () => {
    if (top.length > 1) text += `M${top.join('L')}L${bottom.reverse().join('L')}Z`;
    [top, bottom] = [[], []];
  };
  const least = state.logY ? up.low : -Infinity;
  for (let i = 0; i < line.x.length; i++) {
    if (!Number.isFinite(line.low[i]) || !Number.isFinite(line.high[i]) || (state.logX && line.x[i] <= 0)
      || (state.logY && line.high[i] <= 0)) { flush(); continue; }
    const place = across.at(line.x[i]).toFixed(1);
    top.push(`${place} ${up.at(Math.max(line.high[i], least)).toFixed(1)}`);
    bottom.push(`${place} ${up.at(Math.max(line.low[i], least)).toFixed(1)}`);
  }
  flush();
  return text;
}

function nearest(x, value) {
  let low = 0, high = x.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle] <= value) low = middle; else high = middle;
  }
  return high >= 0 && Math.abs(x[high] - value) < Math.abs(x[low] - value) ? high : low;
}

function axisText(value) {
  if (state.axis === 'seconds') return duration(value);
  return short(state.axis === 'steps' && value >= 10 ? Math.round(value) : value, 4);
}

// A tick with as many digits as tell it from its neighbours.
function tickText(metric, value, step) {
  const digits = Math.max(3, Math.ceil(Math.log10((Math.abs(value) / step) || 1) + 1e-9) + 1);
  if (metric.endsWith('_bytes') || /(mfu|fraction)$/.test(metric)) return amount(metric, value, digits);
  return Math.abs(value) >= 1e4 ? short(value, digits) : plain(value, digits);
}

function axes(metric, across, up, width) {
  const group = drawing('g', { class: 'axes' });
  const floor = HEIGHT - MARGIN.bottom;
  const ticks = up.ticks(5), step = state.logY || ticks.length < 2 ? Infinity : ticks[1] - ticks[0];
  for (const tick of ticks) {
    const y = up.at(tick);
    group.append(drawing('line', { x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }),
      drawing('text', { x: MARGIN.left - 6, y: y + 4, 'text-anchor': 'end' }, tickText(metric, tick, step)));
  }
  for (const tick of across.ticks(Math.max(2, Math.floor(width / 110)))) {
    const x = across.at(tick);
    group.append(drawing('line', { x1: x, x2: x, y1: floor, y2: floor + 4 }),
      drawing('text', { x, y: floor + 16, 'text-anchor': 'middle' }, axisText(tick)));
  }
  group.append(drawing('text', { x: width - MARGIN.right, y: HEIGHT - 3, 'text-anchor': 'end', class: 'name' },
    AXES[state.axis].label));
  return group;
}

// Letters at the ends of the lines, moved apart.
function letters(ends, right) {
  ends.sort((one, other) => one.y - other.y);
  for (let i = 1; i < ends.length; i++) ends[i].y = Math.max(ends[i].y, ends[i - 1].y + 11);
  for (let i = ends.length - 1, most = HEIGHT - MARGIN.bottom + 2; i >= 0; i--) {
    ends[i].y = Math.min(ends[i].y, most);
    most = ends[i].y - 11;
  }
  return ends.filter((end) => end.y > 0).map((end) =>
    drawing('text', { x: right + 5, y: end.y + 4, class: `letter ${end.colour}` }, end.text));
}

function chart(metric, counts) {
  const svg = drawing('svg', { class: 'chart', height: HEIGHT, tabindex: '0', role: 'img', 'aria-label': metric });
  const tip = element('div', { class: 'tip', hidden: true });
  const caption = element('figcaption', {}, element('b', {}, metric), element('span', { class: 'note' }, counts));
  const figure = element('figure', { 'data-metric': metric }, caption, svg, tip);
  const own = { node: figure, metric, drawn: false, across: null, lines: [] };

  own.draw = () => {
    own.drawn = true;
    const width = Math.max(240, Math.floor(figure.clientWidth));
    const lines = (own.lines = linesOf(metric)), domain = state.zoom ?? charts.extent;
    svg.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    svg.setAttribute('width', width);
    const range = domain && heights(lines, ...domain);
    if (!range) {
      own.across = null;
      svg.setAttribute('aria-label', `${metric}: nothing to show`);
      svg.replaceChildren(drawing('text', { x: width / 2, y: HEIGHT / 2, 'text-anchor': 'middle', class: 'name' },
        lines.length ? 'no value in this part' : `not known by ${AXES[state.axis].label}`));
      return;
    }
    const across = scale(...domain, MARGIN.left, width - MARGIN.right, state.logX);
    const up = scale(...range, HEIGHT - MARGIN.bottom, MARGIN.top, state.logY);
    own.across = across;
    const clip = `clip-${identifier(metric)}`;
    const body = drawing('g', { 'clip-path': `url(#${clip})` }), ends = [], lettered = new Set();
    for (const line of lines) {
      const { class: colour, dash } = styleOf(line.arm);
      if (line.low) body.append(drawing('path', { class: `band ${colour}`, d: area(line, across, up) }));
      if (line.raw) body.append(drawing('path', { class: `raw ${colour}`, d: path(line.x, line.raw, across, up) }));
      body.append(drawing('path', { class: `line ${colour}`, d: path(line.x, line.y, across, up), 'stroke-dasharray': dash }));
      if (line.x.length === 1) body.append(drawing('circle', { class: `dot ${colour}`, r: 3, cx: across.at(line.x[0]), cy: up.at(line.y[0]) }));
      let last = line.y.length - 1;
      while (last > 0 && (line.x[last] > across.high || !Number.isFinite(line.y[last]))) last--;
      const y = up.at(line.y[last]);
      if (!lettered.has(line.arm) && y >= MARGIN.top - 1 && y <= HEIGHT) {
        lettered.add(line.arm);
        ends.push({ y, colour, text: letter(line.arm.place) });
      }
    }
    own.cross = drawing('line', { class: 'cross', y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: 'hidden' });
    own.part = drawing('rect', { class: 'part', y: MARGIN.top, height: HEIGHT - MARGIN.bottom - MARGIN.top, width: 0 });
    svg.replaceChildren(
      drawing('clipPath', { id: clip }, drawing('rect', { x: MARGIN.left, y: 0, width: width - MARGIN.left - MARGIN.right,
        height: HEIGHT - MARGIN.bottom + 1 })),
      axes(metric, across, up, width), body, own.part, own.cross, ...(ends.length > 1 ? letters(ends, width - MARGIN.right) : []));
    svg.setAttribute('aria-label', described(metric, lines));
  };
  listen(own, svg, tip);
  return own;
}

function described(metric, lines) {
  const ends = lines.slice(0, 8).map((line) => `${line.name} ends at ${amount(metric, line.y.at(-1))}`);
  const more = lines.length > 8 ? ` and ${lines.length - 8} more lines` : '';
  return `${metric} by ${AXES[state.axis].label}: ${ends.join('; ')}${more}`;
}

function showTip(own, tip, place) {
  const value = own.across.inverse(place);
  const found = own.lines.map((line) => ({ line, i: nearest(line.x, value) }))
    .filter(({ line, i }) => line.x.length && value <= line.x.at(-1) * 1.02 + 1e-9 && Number.isFinite(line.y[i]))
    .sort((one, other) => other.line.y[other.i] - one.line.y[one.i]);
  const shown = found.slice(0, 10).map(({ line, i }) => element('div', {}, key(line.arm),
    `${letter(line.arm.place)} `, element('b', {}, amount(own.metric, line.y[i])),
    line.low ? ` (${amount(own.metric, line.low[i])} to ${amount(own.metric, line.high[i])}, ${line.counts[i]} ${line.counts[i] === 1 ? 'run' : 'runs'})` : '',
    ` ${line.name}`));
  const more = found.length > 10 ? element('div', {}, `and ${found.length - 10} more`) : null;
  tip.replaceChildren(element('div', { class: 'at' }, `${AXES[state.axis].label} ${axisText(value)}`), ...shown, more ?? '');
  tip.hidden = false;
  tip.classList.toggle('left', place > own.node.clientWidth / 2);
  own.cross.setAttribute('x1', place);
  own.cross.setAttribute('x2', place);
  own.cross.setAttribute('visibility', 'visible');
}

function listen(own, svg, tip) {
  let start = null;
  const placeOf = (event) => {
    const place = event.clientX - svg.getBoundingClientRect().left;
    return Math.min(Math.max(place, MARGIN.left), Number(svg.getAttribute('width')) - MARGIN.right);
  };
  const leave = () => { tip.hidden = true; own.cross?.setAttribute('visibility', 'hidden'); };
  svg.addEventListener('pointerdown', (event) => {
    if (!own.across || event.button) return;
    start = placeOf(event);
    dragging = true;
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener('pointermove', (event) => {
    if (!own.across) return;
    const place = placeOf(event);
    if (start !== null) {
      own.part.setAttribute('x', Math.min(start, place));
      own.part.setAttribute('width', Math.abs(place - start));
    }
    showTip(own, tip, place);
  });
  const end = (event) => {
    if (start === null) return;
    const [from, to] = [start, placeOf(event)].sort((one, other) => one - other);
    [start, dragging] = [null, false];
    own.part.setAttribute('width', 0);
    if (event.type === 'pointerup' && to - from > 5) zoom([own.across.inverse(from), own.across.inverse(to)]);
  };
  svg.addEventListener('pointerup', end);
  svg.addEventListener('pointercancel', end);
  svg.addEventListener('pointerleave', leave);
  svg.addEventListener('dblclick', () => zoom(null));
  svg.addEventListener('keydown', (event) => { if (own.across && moved(event.key, own.across)) event.preventDefault(); });
}

// Keys move and zoom all charts.
function moved(name, across) {
  const between = (part) => across.inverse(across.at(across.low) + part * (across.at(across.high) - across.at(across.low)));
  const parts = { '+': [0.25, 0.75], '=': [0.25, 0.75], '-': [-0.5, 1.5], ArrowLeft: [-0.2, 0.8], ArrowRight: [0.2, 1.2] };
  if (name === 'Escape') zoom(null);
  else if (parts[name] && charts.extent) {
    const [from, to] = parts[name].map(between), [low, high] = charts.extent;
    const span = [Math.max(from, low), Math.min(to, high)];
    if (span[1] > span[0]) zoom(span[0] <= low && span[1] >= high ? null : span);
  } else return false;
  return true;
}
