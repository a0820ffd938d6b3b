// The sections of the page besides the curves.

function section(name, title, ...children) {
  return element('section', { id: name, 'aria-labelledby': `${name}-title` }, element('h2', { id: `${name}-title` }, title), children);
}

function last(run, metric) {
  const curve = run.curves[metric];
  if (!curve || !curve.values.length) return null;
  for (let i = curve.values.length - 1; i >= 0; i--) if (Number.isFinite(curve.values[i])) return curve.values[i];
  return null;
}

function leastHeldOut(run) {
  let least = null;
  for (const [name, curve] of Object.entries(run.curves)) {
    if (name.endsWith('/loss')) for (const value of curve.values) if (Number.isFinite(value) && (least === null || value < least)) least = value;
  }
  return least;
}

const told = (metric, value) => ({ text: amount(metric, value), order: value });

function stepsOf(run) {
  const taken = run.spent.steps, total = run.total_steps;
  return { text: total && taken < total ? `${taken.toLocaleString('en')} of ${total.toLocaleString('en')}` : taken.toLocaleString('en'), order: taken };
}

function overview() {
  const alone = report.runs.length === report.arms.length;
  // A run of a sweep is named by its arm and seed, which stand there.
  const named = report.runs.some((run) => run.name !== `${report.arms[run.arm].name}/${run.seed}`);
  const columns = [{ name: 'arm' }, ...(alone || !named ? [] : [{ name: 'run' }]), ...(alone ? [] : [{ name: 'seed', number: true }]), { name: 'steps', number: true },
    { name: 'loss', number: true }, { name: 'least held-out loss', number: true }, { name: 'tokens', number: true }, { name: 'FLOPs', number: true },
    { name: 'training time', number: true }, { name: 'tokens/s', number: true }, { name: 'MFU', number: true },
    { name: 'parameters', number: true }, { name: 'devices' }, { name: 'written' }];
  const rows = report.runs.map((run) => ({ arm: run.arm, cells: [armCell(report.arms[run.arm]),
    ...(alone || !named ? [] : [run.name]), ...(alone ? [] : [{ text: run.seed ?? '', order: run.seed }]), stepsOf(run), told('loss', last(run, 'loss')),
    told('loss', leastHeldOut(run)), told('tokens', run.spent.tokens), told('flops', run.spent.flops), told('seconds', run.spent.seconds),
    told('per_second', last(run, 'tokens_per_second')), told('mfu', last(run, 'mfu')), told('parameters', run.parameters),
    run.info.devices ?? '', { text: run.written ? ago(run.written) : '', order: run.written }] }));
  return section('overview', 'Runs', table('runs', columns, rows, { label: 'runs' }));
}

function sweeps() {
  if (!report.sweeps.length) return null;
  return section('sweeps', 'Results of the sweep', report.sweeps.map((sweep, i) => [
    report.sweeps.length > 1 ? element('h3', {}, sweep.name) : null,
    sweep.sections.map((part, j) => [element('h3', {}, part.title), table(`sweep-${i}-${j}`,
      part.head.map((name, place) => ({ name, number: place > 0 && !['verdict', 'notes'].includes(name) })),
      part.rows.map((row) => ({ mark: row.baseline ? 'baseline' : '', cells: row.cells.map((text, place) => ({
        text: place === 0 && row.baseline ? `★ ${text}` : text, order: Number.isFinite(parseFloat(text)) ? parseFloat(text.replaceAll(',', '')) : text,
        mark: row.best && place === part.bold ? 'best' : '' })) })), { label: part.title })]),
    element('ul', { class: 'note' }, sweep.remarks.map((text) => element('li', {}, text)))]));
}

function evaluations() {
  const { rows, metrics: names } = report.evaluations;
  if (!rows.length) return null;
  const newest = new Map();
  for (const row of rows) newest.set(row.slice(0, 3).join('\n'), row);
  const chosen = state.evaluations === 'all' ? rows : [...newest.values()];
  const one = (place) => new Set(rows.map((row) => row[place])).size < 2;
  const columns = [{ name: report.runs.length > 1 ? 'run' : 'task' }, ...(report.runs.length > 1 ? [{ name: 'task' }] : []),
    ...(one(1) ? [] : [{ name: 'split' }]), { name: 'step', number: true, down: true },
    ...names.map((name, i) => ({ name, number: true, down: !report.evaluations.less_is_better[i] }))];
  const lines = chosen.map(([place, split, task, step, values]) => {
    const run = report.runs[place], arm = report.arms[run.arm];
    const label = { text: run.name, order: run.name, node: element('span', { class: 'arm' }, report.arms.length > 1 ? [key(arm), element('b', {}, letter(arm.place)), ' '] : null, run.name) };
    return { arm: run.arm, cells: [...(report.runs.length > 1 ? [label] : []), task, ...(one(1) ? [] : [split]),
      { text: step.toLocaleString('en'), order: step }, ...names.map((name, i) => told(name, values[i] ?? null))] };
  });
  const select = choice('evaluations', 'show', { newest: 'the newest of each run', all: 'all evaluations' }, () => rebuild('evaluations', evaluations));
  return section('evaluations', 'Evaluations', element('div', { class: 'controls' }, select),
    table('evals', columns, lines, { label: 'evaluations' }));
}

function samples() {
  if (!report.samples.length) return null;
  const own = state.samples, change = () => rebuild('samples', samples);
  if (!report.samples.some((each) => each.run === own.run)) own.run = report.samples[0].run;
  const tasks = report.samples.filter((each) => each.run === own.run);
  const found = tasks.find((each) => each.task === own.task) ?? tasks[0];
  own.task = found.task;
  const place = own.step < 0 || own.step >= found.steps.length ? found.steps.length - 1 : own.step;
  const option = (value, text, selected) => element('option', { value: String(value), selected }, text);
  const runs = [...new Set(report.samples.map((each) => each.run))];
  const controls = element('div', { class: 'controls' },
    runs.length > 1 ? element('label', {}, 'run ', element('select', { id: 'samples-run', onchange: (event) => { own.run = Number(event.target.value); change(); } },
      runs.map((run) => option(run, report.runs[run].name, run === own.run)))) : null,
    tasks.length > 1 ? element('label', {}, 'task ', element('select', { id: 'samples-task', onchange: (event) => { own.task = event.target.value; change(); } },
      tasks.map((each) => option(each.task, each.task, each === found)))) : null,
    element('label', {}, 'step ', element('input', { id: 'samples-step', type: 'range', min: '0', max: String(found.steps.length - 1), value: String(place),
      'aria-valuetext': `step ${found.steps[place]}`, disabled: found.steps.length < 2,
      oninput: (event) => { own.step = Number(event.target.value); change(); } }),
    element('output', {}, ` ${found.steps[place].toLocaleString('en')}`)));
  const names = ['input', 'target', 'prediction'];
  return section('samples', 'Samples', controls, found.texts[place].map((texts, i) => element('div', { class: 'sample' },
    element('h3', {}, `${found.task} ${i + 1}`), element('dl', {}, names.map((name, j) => [element('dt', {}, name),
      element('dd', { class: 'text' }, texts[j] || '(empty)')])))));
}

const KINDS = { differs: 'differs', inert: 'inert', how: 'how it runs', seed: 'seed', same: '' };

function configuration() {
  const { lines, files } = report.configuration;
  if (!lines.length && !files.length) return null;
  const arms = report.arms, several = report.runs.length > 1;
  const chosen = lines.filter((line) => !several || state.configuration === 'all' || line.kind !== 'same');
  const columns = [{ name: 'parameter' }, ...(several ? [{ name: 'what it is' }] : []), ...arms.map((arm) => ({ name: arms.length > 1 ? `${letter(arm.place)} ${arm.name}` : arm.name }))];
  const rows = chosen.map((line) => {
    const placesOf = (arm) => [...new Set(arm.runs.map((run) => line.of[run]))];
    const first = placesOf(arms[0]).join();
    const cells = arms.map((arm) => {
      const places = placesOf(arm);
      const text = places.map((place) => line.values[place] ?? (report.runs.length > 1 ? 'not set' : '')).join(' | ');
      return { text, order: text, mark: places.join() !== first ? 'other' : '' };
    });
    const note = [KINDS[line.kind], line.kind === 'same' && line.reason ? 'inert' : '', line.reason ? `(${line.reason})` : ''].filter(Boolean).join(' ');
    return { mark: line.kind, cells: [line.name, ...(several ? [{ text: note, order: Object.keys(KINDS).indexOf(line.kind) }] : []), ...cells] };
  });
  const differing = lines.filter((line) => line.kind === 'differs').length;
  const summary = several ? element('p', {}, differing
    ? `${differing} resolved value${differing > 1 ? 's' : ''} of ${lines.length} differ${differing > 1 ? '' : 's'} in what the runs compute. `
    : 'No resolved value differs in what the runs compute. ',
  element('span', { class: 'note' }, 'Values are compared after all files, flags and macros are resolved. Inert: it has no effect in any of these runs.')) : null;
  const unknown = report.runs.filter((run) => !lines.some((line) => line.values[line.of[run.place]] !== null));
  return section('configuration', 'Configuration', summary,
    unknown.length ? element('p', { class: 'note' }, `Not known before the first checkpoint: ${unknown.map((run) => run.name).join(', ')}.`) : null,
    several ? element('div', { class: 'controls' }, choice('configuration', 'show', { differs: 'what differs', all: 'everything' }, () => rebuild('configuration', configuration))) : null,
    rows.length ? (several ? table('config', columns, rows, { label: 'configuration' })
      : folded('values', `${rows.length} resolved values`, table('config', columns, rows, { label: 'configuration' }))) : null,
    files.map((file) => folded(`gin-${file.arm}`, `config.gin of ${arms[file.arm].name}`, element('pre', { class: 'text' }, file.text))));
}

function data() {
  const rows = [];
  for (const run of report.runs) {
    const total = Object.values(run.consumed).reduce((sum, own) => ({ examples: sum.examples + (own.examples ?? 0), tokens: sum.tokens + (own.tokens ?? 0) }), { examples: 0, tokens: 0 });
    for (const [task, share] of Object.entries(run.shares)) {
      const own = run.consumed[task] ?? {}, seen = total.tokens ? (own.tokens ?? 0) / total.tokens : null;
      const bar = (part) => (part === null ? '' : element('span', { class: 'share' }, element('meter', { min: '0', max: '1', value: String(part), 'aria-hidden': 'true' }), ` ${amount('share', part)}`));
      rows.push({ arm: run.arm, cells: [{ text: run.name, order: run.name }, task, { text: amount('share', share), order: share, node: bar(share) },
        { text: amount('share', seen), order: seen, node: bar(seen) || null }, told('tokens', own.tokens ?? null), { text: own.examples === undefined ? '' : own.examples.toLocaleString('en'), order: own.examples }] });
    }
  }
  if (!rows.length) return null;
  const columns = [{ name: 'run' }, { name: 'task' }, { name: 'planned share', number: true }, { name: 'share of tokens read', number: true },
    { name: 'tokens read', number: true }, { name: 'examples read', number: true }];
  return section('data', 'Data', element('p', { class: 'note' }, 'What has been read is told by the newest checkpoint.'), table('shares', columns, rows, { label: 'data' }));
}
