// Elements and texts. Whatever came from a file becomes a text node, never HTML.

const SVG = 'http://www.w3.org/2000/svg';

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function element(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function drawing(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function identifier(text) {
  return text.replace(/[^\w]+/g, '-');
}

// An arm is told by a letter as well as by colour and dashes.
function letter(place) {
  const round = Math.floor(place / 26);
  return String.fromCharCode(65 + (place % 26)) + (round ? round + 1 : '');
}

const COLOURS = 7;
const DASHES = ['', '7 3', '2 3', '9 3 2 3'];

function styleOf(arm) {
  return { class: `colour-${arm.place % COLOURS}`, dash: DASHES[Math.floor(arm.place / COLOURS) % DASHES.length] };
}

const PREFIXES = [[1e24, 'Y'], [1e21, 'Z'], [1e18, 'E'], [1e15, 'P'], [1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k']];

function plain(value, digits = 4) {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e15) return value.toExponential(Math.max(0, digits - 2)).replace(/\.?0+e/, 'e').replace('e+', 'e');
  const text = value.toPrecision(digits);
  return text.includes('e') ? String(Math.round(value)) : text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

function short(value, digits = 3) {
  const size = Math.abs(value);
  for (const [factor, prefix] of PREFIXES) {
    if (size >= factor * 0.99995) return `${plain(value / factor, digits)}${prefix}`;
  }
  return plain(value, digits);
}

function duration(seconds) {
  if (seconds < 60) return `${plain(seconds, 3)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 100 ? `${hours} h ${String(minutes % 60).padStart(2, '0')} min` : `${plain(minutes / 1440, 3)} days`;
}

// A number with what it counts, by the name of its metric.
function amount(metric, value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return '';
  if (metric.endsWith('_bytes')) {
    const power = value >= 2 ** 30 ? [2 ** 30, 'GiB'] : [2 ** 20, 'MiB'];
    return `${plain(value / power[0], digits)} ${power[1]}`;
  }
  if (metric === 'seconds') return duration(value);
  if (/(mfu|fraction|share)$/.test(metric)) return `${plain(value * 100, digits)} %`;
  if (/(^|_)(tokens|flops|parameters|per_second)$/.test(metric)) return short(value, digits);
  return plain(value, digits);
}

function ago(seconds) {
  const passed = Date.now() / 1000 - seconds;
  return passed < 90 ? 'just now' : passed < 172800 ? `${duration(passed)} ago` : new Date(seconds * 1000).toISOString().slice(0, 10);
}

function key(arm) {
  const { class: colour, dash } = styleOf(arm);
  return drawing('svg', { class: `key ${colour}`, width: '26', height: '12', 'aria-hidden': 'true' },
    drawing('line', { x1: '0', x2: '26', y1: '6', y2: '6', 'stroke-dasharray': dash, class: 'line' }));
}
