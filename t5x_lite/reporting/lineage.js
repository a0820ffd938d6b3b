// Checkpoints, and what runs came from.

const measured = (values) => Object.entries(values).map(([name, value]) => `${name} ${plain(value)}`).join(', ');
const stepOf = (path, step) => (step === null ? path : `${path} @ ${step.toLocaleString('en')}`);

function checkpoints() {
  const rows = [];
  for (const run of report.runs) {
    const parent = run.parent ? stepOf(...run.parent) : '';
    const kept = run.checkpoints.length ? run.checkpoints : [[null, {}]];
    for (const [step, values] of kept) {
      if (step === null && !parent) continue;
      rows.push({ arm: run.arm, cells: [{ text: run.name, order: run.name }, parent || 'initial values',
        { text: step === null ? 'none yet' : step.toLocaleString('en'), order: step }, measured(values), run.path] });
    }
  }
  const columns = [{ name: 'run' }, { name: 'began from' }, { name: 'checkpoint', number: true }, { name: 'evaluated' }, { name: 'folder' }];
  return rows.length ? table('checkpoints', columns, rows, { label: 'checkpoints' }) : null;
}

// Runs that came the same way, such as the seeds of an arm, are told once; the table says it of those that came from one
// checkpoint with nothing known of what changed.
function chains() {
  const found = new Map();
  for (const { run, ancestors } of report.lineage) {
    if (ancestors.length < 2 && ancestors[0].changes === null) continue;
    const key = JSON.stringify(ancestors);
    if (!found.has(key)) found.set(key, { ancestors, runs: [] });
    found.get(key).runs.push(report.runs[run]);
  }
  return [...found.values()];
}

function changed(ancestor) {
  const kept = Object.entries(ancestor.kept).map(([name, value]) => `${name} ${value}`).join(', ');
  const changes = ancestor.changes === null ? '' : ancestor.changes.join('; ') || 'nothing changed';
  return [changes, kept].filter(Boolean).join('; ');
}

function family({ ancestors, runs }) {
  const named = runs.map((run) => run.name).join(', ');
  const lines = ancestors.map((own) => element('li', {}, element('b', {}, stepOf(own.path, own.step)),
    changed(own) ? ` → ${changed(own)}` : '', measured(own.metrics) ? element('div', { class: 'note' }, `evaluated there: ${measured(own.metrics)}`) : null,
    own.is_there ? null : element('div', { class: 'note' }, 'its folder is not here')));
  return element('div', { class: 'family' }, element('h3', {}, `What ${named} came from`),
    element('ol', { class: 'ancestors' }, [...lines].reverse(), element('li', {}, element('b', {}, named))));
}

function lineage() {
  const parts = [checkpoints(), ...chains().map(family)].filter(Boolean);
  return parts.length ? section('lineage', 'Checkpoints and lineage', parts) : null;
}
