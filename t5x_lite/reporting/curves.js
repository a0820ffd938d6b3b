// All charts, what chooses among them, and the legend.

const charts = { all: [], extent: null, watcher: null };
// What is shown at once, in this order; everything else is one click away.
const FIRST = [/^loss$/, /\/loss$/, /\/score$/, /^grad_norm$/, /^learning_rate$/, /^tokens_per_second$/, /^mfu$/,
  /^peak_\w+_bytes$/];
const MOST_FIRST = 24;

function ordered(names) {
  const rank = (name) => {
    const place = FIRST.findIndex((pattern) => pattern.test(name));
    return place < 0 ? FIRST.length : place;
  };
  return names.map((name, i) => [rank(name), i, name]).sort((one, other) => one[0] - other[0] || one[1] - other[1]);
}

function zoom(span) {
  state.zoom = span;
  redraw();
}

function redraw() {
  charts.extent = extent();
  for (const own of charts.all) {
    own.drawn = false;
    if (own.near) own.draw();
  }
  const reset = document.getElementById('reset');
  if (reset) reset.disabled = !state.zoom;
}

function countsOf(metric) {
  let shown = 0, all = 0;
  for (const run of report.runs) {
    const curve = run.curves[metric];
    if (curve) { shown += curve.steps.length; all += curve.of; }
  }
  return shown < all ? `${short(all)} points, extremes of ${short(shown)}` : '';
}

function curves() {
  charts.watcher?.disconnect();
  charts.watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const own = charts.all.find((each) => each.node === entry.target);
      own.near = entry.isIntersecting;
      if (own.near && !own.drawn) own.draw();
    }
  }, { rootMargin: '300px' });
  charts.extent = extent();
  const names = ordered(metrics());
  const first = names.filter(([rank], i) => rank < FIRST.length && i < MOST_FIRST).map(([, , name]) => name);
  const rest = names.map(([, , name]) => name).filter((name) => !first.includes(name));
  charts.all = [...first, ...rest].map((name) => chart(name, countsOf(name)));
  for (const own of charts.all) charts.watcher.observe(own.node);
  const nodes = charts.all.map((own) => own.node);
  const grids = [element('div', { class: 'grid' }, nodes.slice(0, first.length))];
  if (rest.length) {
    grids.push(folded('more', `${rest.length} more curves`, element('div', { class: 'grid' }, nodes.slice(first.length))));
  }
  const node = section('curves', 'Curves', controls(), legend(), ...grids);
  find();
  return node;
}

// Something that is folded away, and stays as its reader left it.
function folded(name, title, ...children) {
  return element('details', { id: name, open: state.open[name] ?? false,
    ontoggle: (event) => { state.open[name] = event.target.open; } }, element('summary', {}, title), children);
}

function choice(name, label, options, change) {
  const select = element('select', { id: `choose-${name}`, onchange: (event) => { state[name] = event.target.value; change(); } },
    Object.entries(options).map(([value, text]) => element('option', { value, selected: state[name] === value }, text)));
  return element('label', {}, `${label} `, select);
}

function check(name, label) {
  return element('label', {}, element('input', { id: name, type: 'checkbox', checked: state[name],
    onchange: (event) => { state[name] = event.target.checked; state.zoom = name === 'logX' ? null : state.zoom; redraw(); } }),
  ` ${label}`);
}

// Whether a name has all the words of a filter.
function matches(text, words) {
  const name = text.toLowerCase();
  return words.toLowerCase().split(/\s+/).every((word) => name.includes(word));
}

function find() {
  for (const own of charts.all) own.node.hidden = !matches(own.metric, state.find);
  const more = document.getElementById('more');
  if (more && state.find) more.open = true;
}

function controls() {
  const axisOptions = Object.fromEntries(Object.entries(AXES).map(([name, { label }]) => [name, label]));
  const known = (name) => name === 'steps' || report.runs.some((run) => run.progress[name]);
  for (const name of Object.keys(axisOptions)) if (!known(name)) delete axisOptions[name];
  if (!axisOptions[state.axis]) state.axis = 'steps';
  const bands = report.arms.some((arm) => arm.runs.length > 1);
  return element('div', { class: 'controls', role: 'group', 'aria-label': 'how curves are drawn' },
    choice('axis', 'by', axisOptions, () => zoom(null)),
    element('label', {}, 'smoothing ', element('input', { id: 'smoothing', type: 'range', min: '0', max: '0.99', step: '0.01',
      value: String(state.smoothing), oninput: (event) => { state.smoothing = Number(event.target.value); redraw(); } })),
    check('logX', 'log x'), check('logY', 'log y'),
    bands ? choice('curves', 'of arms', { bands: 'mean and band', runs: 'every run' }, redraw) : null,
    bands ? choice('spread', 'band', { range: 'least to most', deviation: '± std. deviation' }, redraw) : null,
    element('label', {}, 'find ', element('input', { id: 'find', type: 'search', size: '12', value: state.find,
      placeholder: 'metric', oninput: (event) => { state.find = event.target.value; find(); } })),
    element('button', { id: 'reset', type: 'button', disabled: !state.zoom, onclick: () => zoom(null) }, 'whole range'),
    element('span', { class: 'note hint' }, 'Drag to zoom, double click for the whole range; keys + − ← → Esc.'));
}

function legend() {
  if (report.arms.length < 2 && report.arms[0].runs.length < 2) return null;
  const buttons = report.arms.map((arm) => element('button', { type: 'button', 'aria-pressed': String(!state.hidden.has(arm.name)),
    title: arm.description || null, 'data-arm': arm.name,
    onclick: () => { if (!state.hidden.delete(arm.name)) state.hidden.add(arm.name); pressed(); } },
  key(arm), element('b', {}, letter(arm.place)), ` ${arm.name}`, arm.baseline ? ' ★ baseline' : '',
  arm.runs.length > 1 ? element('span', { class: 'note' }, ` ${arm.runs.length} seeds`) : ''));
  const pressed = () => {
    for (const button of buttons) button.setAttribute('aria-pressed', String(!state.hidden.has(button.dataset.arm)));
    redraw();
    for (const update of Object.values(refilters)) update();
  };
  const all = (shown) => {
    for (const [i, arm] of report.arms.entries()) {
      if (buttons[i].hidden) continue;
      if (shown) state.hidden.delete(arm.name); else state.hidden.add(arm.name);
    }
    pressed();
  };
  const filter = () => {
    for (const [i, arm] of report.arms.entries()) buttons[i].hidden = !matches(`${arm.name} ${arm.description}`, state.armFind);
  };
  filter();
  const tools = report.arms.length < 4 ? [] : [
    element('input', { id: 'armFind', type: 'search', size: '10', placeholder: 'find arms', 'aria-label': 'find arms', value: state.armFind,
      oninput: (event) => { state.armFind = event.target.value; filter(); } }),
    element('button', { type: 'button', id: 'all', onclick: () => all(true) }, 'all'),
    element('button', { type: 'button', id: 'none', onclick: () => all(false) }, 'none')];
  return element('div', { class: 'legend', role: 'group', 'aria-label': 'arms that are shown' }, tools, buttons);
}
