// What the page shows, and what its reader has chosen.

let report = null;
const state = {
  axis: 'steps', logX: false, logY: false, smoothing: 0, curves: 'bands', spread: 'range', zoom: null,
  hidden: new Set(), find: '', tables: {}, samples: { run: 0, task: '', step: -1 },
  attention: { file: 0, text: 0, stack: 0, layer: 0, head: 0 }, configuration: 'differs',
  configurationFind: '', armFind: '', open: {},
};

const AXES = {
  steps: { label: 'step' },
  tokens: { label: 'tokens' },
  flops: { label: 'FLOPs' },
  seconds: { label: 'training time' },
};

function decode(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Kind(bytes.buffer);
}

// The arrays of an object of base64 texts, decoded when they are first asked for.
function lazily(object, kinds) {
  const found = {};
  for (const [name, Kind] of Object.entries(kinds)) {
    let array = null;
    Object.defineProperty(found, name, { get: () => (array ??= decode(object[name], Kind)) });
  }
  return found;
}

function load(value) {
  report = value;
  report.runs.forEach((run, place) => {
    run.place = place;
    for (const name of Object.keys(run.curves)) {
      run.curves[name] = Object.assign(lazily(run.curves[name], { steps: Uint32Array, values: Float32Array }), {
        of: run.curves[name].of,
      });
    }
    const own = run.progress;
    run.progress = { flops: own.flops_per_step, steps: decode(own.steps, Uint32Array) };
    for (const name of ['tokens', 'seconds']) run.progress[name] = own[name] && decode(own[name], Float32Array);
  });
  report.arms.forEach((arm, place) => {
    arm.place = place;
    for (const run of arm.runs) report.runs[run].arm = place;
    for (const name of Object.keys(arm.bands)) {
      const kinds = { steps: Uint32Array };
      for (const column of ['mean', 'low', 'high', 'deviation', 'counts']) kinds[column] = Float32Array;
      arm.bands[name] = lazily(arm.bands[name], kinds);
    }
  });
}

function interpolate(steps, values, step) {
  let low = 0, high = steps.length - 1;
  if (step <= steps[0]) return values[0];
  if (step >= steps[high]) return values[high];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) low = middle; else high = middle;
  }
  return values[low] + ((values[high] - values[low]) * (step - steps[low])) / (steps[high] - steps[low]);
}

// Where the steps of a run lie on the chosen axis; null where the run does not say.
function positions(run, steps) {
  const { axis } = state, own = run.progress;
  if (axis === 'steps') return Float64Array.from(steps);
  if (axis === 'flops') return own.flops ? Float64Array.from(steps, (step) => step * own.flops) : null;
  return own[axis] ? Float64Array.from(steps, (step) => interpolate(own.steps, own[axis], step)) : null;
}

function visibleArms() {
  return report.arms.filter((arm) => !state.hidden.has(arm.name));
}

function longest(arm) {
  return arm.runs.map((place) => report.runs[place]).reduce((best, run) =>
    (run.progress.steps.at(-1) > best.progress.steps.at(-1) ? run : best));
}

// Exponential smoothing whose memory is a length along the axis, not a number of points, since these are unevenly apart.
function smooth(x, y, weight) {
  if (!weight || x.length < 3) return y;
  const typical = (x[x.length - 1] - x[0]) / Math.min(x.length - 1, 500) || 1;
  const out = new Float64Array(y.length);
  let sum = 0, total = 0, last = x[0];
  for (let i = 0; i < y.length; i++) {
    if (!Number.isFinite(y[i])) { out[i] = NaN; continue; }
    const kept = Math.pow(weight, (x[i] - last) / typical);
    last = x[i];
    sum = sum * kept + y[i] * (1 - weight);
    total = total * kept + (1 - weight);
    out[i] = sum / total;
  }
  return out;
}

// The lines of a metric: of arms with several runs the mean and its band, else a line for each run.
function linesOf(metric) {
  const lines = [];
  for (const arm of visibleArms()) {
    const band = state.curves === 'bands' ? arm.bands[metric] : null;
    if (band) {
      const x = positions(longest(arm), band.steps);
      if (!x) continue;
      const spread = state.spread === 'range'
        ? [band.low, band.high]
        : [band.mean.map((mean, i) => mean - band.deviation[i]), band.mean.map((mean, i) => mean + band.deviation[i])];
      const [y, low, high] = [band.mean, ...spread].map((values) => smooth(x, values, state.smoothing));
      lines.push({ arm, x, y, low, high, counts: band.counts, name: arm.name });
      continue;
    }
    for (const place of arm.runs) {
      const run = report.runs[place], curve = run.curves[metric];
      const x = curve && positions(run, curve.steps);
      if (!x) continue;
      const y = smooth(x, curve.values, state.smoothing);
      lines.push({ arm, x, y, raw: state.smoothing ? curve.values : null, name: run.name });
    }
  }
  return lines;
}

function metrics() {
  const names = new Set();
  for (const run of report.runs) for (const name of Object.keys(run.curves)) names.add(name);
  return [...names];
}
