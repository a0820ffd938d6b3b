// Tables that sort by a click on a heading and filter by words.

const MOST_ROWS = 300;
const LONG = 36; // characters, beyond which a cell has several lines
const refilters = {};

function cellOf(value) {
  return value !== null && typeof value === 'object' && !(value instanceof Node) ? value : { text: value, order: value };
}

function compare(one, other) {
  const [a, b] = [one.order, other.order];
  const [noneA, noneB] = [a === null || a === undefined || a === '', b === null || b === undefined || b === ''];
  if (noneA || noneB) return noneA - noneB;
  return typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b), 'en', { numeric: true });
}

function filled(cell) {
  return Boolean(cell.node) || String(cell.text ?? '') !== '';
}

function classes(column, cell) {
  const long = !cell.node && String(cell.text ?? '').length > LONG;
  return [column.number ? 'number' : '', long ? 'long' : '', cell.mark].filter(Boolean).join(' ') || null;
}

// columns: [{name, number}]; rows: [{cells: [text | {text, order, node}], arm, mark}]
function table(name, allColumns, allRows, options = {}) {
  const kept = allColumns.map((_, place) => !allRows.length || allRows.some((row) => filled(cellOf(row.cells[place]))));
  const columns = allColumns.filter((_, place) => kept[place]); // without those in which nothing stands
  const rows = allRows.map((row) => ({ ...row, cells: row.cells.filter((_, place) => kept[place]) }));
  const own = (state.tables[name] ??= { by: options.by ?? null, down: options.down ?? false, find: '', all: false });
  const body = element('tbody'), note = element('p', { class: 'note', 'aria-live': 'polite' });
  const lines = rows.map((row) => ({ ...row, cells: row.cells.map(cellOf) }));
  const texts = lines.map((row) => row.cells.map((cell) => cell.text ?? '').join(' '));
  const heads = columns.map((column, place) => element('th', { class: column.number ? 'number' : null, scope: 'col' },
    element('button', { type: 'button', onclick: () => {
      own.down = own.by === place ? !own.down : Boolean(column.number && column.down);
      own.by = place;
      update();
    } }, column.name)));
  const update = () => {
    const chosen = lines.filter((row, i) => matches(texts[i], own.find)
      && !(row.arm !== undefined && state.hidden.has(report.arms[row.arm].name)));
    if (own.by !== null && own.by < columns.length) {
      const sign = own.down ? -1 : 1;
      chosen.sort((one, other) => {
        const [a, b] = [one.cells[own.by], other.cells[own.by]];
        const empty = [a, b].map((cell) => cell.order === null || cell.order === undefined || cell.order === '');
        return empty[0] || empty[1] ? empty[0] - empty[1] : sign * compare(a, b);
      });
    }
    heads.forEach((head, place) => head.setAttribute('aria-sort', own.by !== place ? 'none' : own.down ? 'descending' : 'ascending'));
    const shown = own.all ? chosen : chosen.slice(0, MOST_ROWS);
    body.replaceChildren(...shown.map((row) => element('tr', { class: row.mark || null }, row.cells.map((cell, place) =>
      element(place === 0 && !columns[0].number ? 'th' : 'td', { class: classes(columns[place], cell),
        scope: place === 0 && !columns[0].number ? 'row' : null }, cell.node ? [cell.node] : [cell.text ?? ''])))));
    const rest = chosen.length - shown.length;
    note.replaceChildren(chosen.length < lines.length || rest ? `${shown.length} of ${lines.length} rows ` : '',
      rest ? element('button', { type: 'button', onclick: () => { own.all = true; update(); } }, 'show all') : '');
  };
  update();
  refilters[name] = update;
  const search = rows.length > 6 ? element('label', { class: 'search' }, 'filter ', element('input', { id: `${name}-find`, type: 'search',
    value: own.find, placeholder: 'words in a row', oninput: (event) => { own.find = event.target.value; update(); } })) : null;
  return element('div', { class: 'table', id: name }, search,
    element('div', { class: 'wide', tabindex: '0', role: 'region', 'aria-label': options.label ?? name },
      element('table', {}, element('thead', {}, element('tr', {}, heads)), body)), note);
}

function armCell(arm) {
  const node = element('span', { class: 'arm' }, report.arms.length > 1 ? [key(arm), element('b', {}, letter(arm.place)), ' '] : null,
    arm.name, arm.baseline ? ' ★' : '');
  return { text: arm.name, order: arm.place, node };
}
