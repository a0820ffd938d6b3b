// Attention maps: small multiples of layers and heads, and one of them in large.

// The colour of each byte, which is the square root of a probability.
function shades(ramp) {
  return Array.from({ length: 256 }, (_, byte) => {
    const x = (byte / 255) * (ramp.length - 1), i = Math.min(Math.floor(x), ramp.length - 2);
    return ramp[i].map((part, k) => Math.round(part + (ramp[i + 1][k] - part) * (x - i)));
  });
}

function mapCanvas(own, layer, head, attributes) {
  const [height, width] = own.size, canvas = element('canvas', { width, height, ...attributes });
  own.bytes ??= decode(own.values, Uint8Array);
  report.attention.shades ??= shades(report.attention.ramp);
  const start = (layer * own.shape[1] + head) * height * width;
  const context = canvas.getContext('2d'), image = context.createImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    image.data.set(report.attention.shades[own.bytes[start + i]], 4 * i);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// The tokens that a pixel stands for: one, or all of a patch.
function patchOf(tokens, size, place) {
  const first = Math.ceil((place * tokens.length) / size), end = Math.max(Math.ceil(((place + 1) * tokens.length) / size), first + 1);
  return `“${tokens.slice(first, Math.min(end, first + 3)).join('')}${end > first + 3 ? '…' : ''}”`;
}

function seen(text, own, head, row, column) {
  const [height, width] = own.size, byte = own.bytes[(head * height + row) * width + column];
  return `${patchOf(text.tokens[own.queries], height, row)} sees ${patchOf(text.tokens[own.keys], width, column)}: ${((byte / 255) ** 2).toFixed(3)}`;
}

function largeMap(text, own, chosen) {
  const [height, width] = own.size, [, heads, queries, keys] = own.shape, number = chosen.layer * heads + chosen.head;
  const told = element('p', { class: 'told', role: 'status' });
  const canvas = mapCanvas(own, chosen.layer, chosen.head, { class: 'map', id: 'attention-large', role: 'img', tabindex: '0',
    'aria-label': `${own.title}, layer ${own.layers[chosen.layer]}, head ${chosen.head}; arrow keys move the point` });
  const side = 24 * Math.max(width, height) > 480 ? 480 / Math.max(width, height) : 24;
  canvas.style.width = `${width * side}px`;
  canvas.style.aspectRatio = `${width} / ${height}`;
  let row = height - 1, column = 0;
  const tell = () => { told.textContent = seen(text, own, number, row, column); };
  const inside = (value, most) => Math.max(0, Math.min(most - 1, value));
  canvas.addEventListener('pointermove', (event) => {
    const box = canvas.getBoundingClientRect();
    row = inside(Math.floor(((event.clientY - box.top) / box.height) * height), height);
    column = inside(Math.floor(((event.clientX - box.left) / box.width) * width), width);
    tell();
  });
  canvas.addEventListener('keydown', (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!moves) return;
    event.preventDefault();
    [row, column] = [inside(row + moves[0], height), inside(column + moves[1], width)];
    tell();
  });
  tell();
  const patches = queries > height || keys > width ? ` Each point is the largest of a patch of up to ${Math.ceil(queries / height)} by ${Math.ceil(keys / width)} tokens.` : '';
  return element('div', { class: 'large' }, element('h3', {}, `Layer ${own.layers[chosen.layer]}, head ${chosen.head}`), canvas, told,
    element('p', { class: 'note' }, `Rows see, columns are seen; darker is more.${patches}`));
}

function smallMaps(own, chosen, choose) {
  const [layers, heads] = own.shape, numbers = Array.from({ length: heads }, (_, head) => head);
  const head = element('tr', {}, element('td'), numbers.map((number) => element('th', { scope: 'col' }, number)));
  const rows = Array.from({ length: layers }, (_, layer) => element('tr', {}, element('th', { scope: 'row' }, own.layers[layer]),
    numbers.map((number) => element('td', {}, element('button', { type: 'button', id: `attention-${layer}-${number}`,
      'aria-pressed': String(layer === chosen.layer && number === chosen.head), 'aria-label': `layer ${own.layers[layer]}, head ${number}`,
      onclick: () => choose(layer, number) }, mapCanvas(own, layer, number, { class: 'map' }))))));
  return element('div', { class: 'wide', tabindex: '0', role: 'region', 'aria-label': 'all layers and heads' },
    element('table', { class: 'maps' }, element('caption', { class: 'note' }, 'rows: layers, columns: heads'),
      element('thead', {}, head), element('tbody', {}, rows)));
}

function attention() {
  const { files } = report.attention;
  if (!files.length) return null;
  const own = state.attention, change = (changes) => { Object.assign(own, changes); rebuild('attention', attention); };
  const within = (place, list) => Math.max(0, Math.min(place, list.length - 1));
  const file = files[(own.file = within(own.file, files))], text = file.texts[(own.text = within(own.text, file.texts))];
  const maps = text.maps[(own.stack = within(own.stack, text.maps))];
  const chosen = { layer: Math.min(own.layer, maps.shape[0] - 1), head: Math.min(own.head, maps.shape[1] - 1) };
  const choice = (name, label, key, texts) => (texts.length < 2 ? null : element('label', {}, `${label} `, element('select', { id: `attention-${name}`,
    onchange: (event) => change({ [key]: Number(event.target.value) }) },
  texts.map((each, place) => element('option', { value: String(place), selected: place === own[key] }, each)))));
  const named = ({ run, name }) => (run === null ? name : report.runs.length > 1 ? `${report.runs[run].name}: ${name}` : name);
  const more = file.more ? element('p', { class: 'note' }, `${file.more} more text${file.more > 1 ? 's are' : ' is'} in the file.`) : null;
  return section('attention', 'Attention', element('div', { class: 'controls' }, choice('file', 'maps', 'file', files.map(named)),
    choice('text', 'text', 'text', file.texts.map((each, place) => `${place + 1}: ${each.shown}`)), choice('stack', 'of', 'stack', text.maps.map((each) => each.title))),
  element('p', {}, files.length < 2 ? `${named(file)}. ` : '', `${maps.title}. `, file.texts.length < 2 ? text.shown : ''), more,
  element('div', { class: 'attention' }, smallMaps(maps, chosen, (layer, head) => change({ layer, head })), largeMap(text, maps, chosen)));
}
