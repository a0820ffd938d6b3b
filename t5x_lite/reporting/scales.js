// From values to places on paper, and where the ticks are.

function niceStep(span, count) {
  const rough = span / Math.max(1, count), power = Math.pow(10, Math.floor(Math.log10(rough)));
  const ratio = rough / power;
  return (ratio > 5 ? 10 : ratio > 2 ? 5 : ratio > 1 ? 2 : 1) * power;
}

function linearTicks(low, high, count) {
  const step = niceStep(high - low, count), ticks = [];
  if (!(high - low > Math.max(Math.abs(low), Math.abs(high)) * 1e-12)) return [low]; // no steps that a number can take
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(i * step);
  return ticks;
}

function logTicks(low, high, count) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  if (last - first < 1) {
    const ticks = linearTicks(low, high, count);
    return ticks.filter((tick) => tick > 0);
  }
  const every = Math.max(1, Math.ceil((last - first + 1) / count)), ticks = [];
  for (let power = first; power <= last; power += every) ticks.push(Math.pow(10, power));
  return ticks;
}

// A scale from [low, high] to [from, to].
function scale(low, high, from, to, logarithmic) {
  const change = logarithmic ? Math.log10 : (value) => value;
  const start = change(low), span = change(high) - start || 1;
  const at = (value) => from + ((change(value) - start) / span) * (to - from);
  const inverse = (place) => {
    const value = start + ((place - from) / (to - from)) * span;
    return logarithmic ? Math.pow(10, value) : value;
  };
  return { low, high, at, inverse, ticks: (count) => (logarithmic ? logTicks : linearTicks)(low, high, count) };
}

// The extent of all lines along the axis, which all charts share.
function extent() {
  let low = Infinity, high = -Infinity;
  for (const arm of visibleArms()) {
    for (const place of arm.runs) {
      const run = report.runs[place];
      for (const curve of Object.values(run.curves)) {
        const ends = curve.steps.length ? positions(run, [curve.steps[0], curve.steps.at(-1)]) : null;
        if (!ends) continue;
        if (state.logX && ends[0] <= 0) {
          const second = positions(run, [curve.steps[Math.min(1, curve.steps.length - 1)]])[0];
          if (second > 0) low = Math.min(low, second);
        } else low = Math.min(low, ends[0]);
        high = Math.max(high, ends[1]);
      }
    }
  }
  if (low > high) return null;
  return low === high ? [state.logX ? low / 2 : low - 0.5, high + 0.5] : [low, high];
}

// The extent of the values of lines within [left, right].
function heights(lines, left, right) {
  let low = Infinity, high = -Infinity;
  for (const line of lines) {
    for (const values of [line.y, line.low, line.high, line.raw]) {
      if (!values) continue;
      for (let i = 0; i < values.length; i++) {
        const value = values[i];
        if (line.x[i] < left || line.x[i] > right || !Number.isFinite(value) || (state.logY && value <= 0)) continue;
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
  }
  if (low > high) return null;
  if (state.logY) return [low / 1.08, high * 1.08];
  const size = Math.max(Math.abs(low), Math.abs(high));
  if (high - low < size * 1e-6) [low, high] = [low - size * 0.05, high + size * 0.05]; // the same but for rounding
  const margin = (high - low) * 0.06 || Math.abs(high) * 0.06 || 0.5;
  return [low >= 0 && low - margin < 0 ? 0 : low - margin, high + margin];
}
