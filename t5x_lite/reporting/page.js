// Puts the page together, and asks for news where it is served.

state.evaluations = 'newest';
const main = element('main');
const PARTS = { overview, sweeps, curves, evaluations, samples, attention, configuration, data, lineage };

function build() {
  const focus = document.activeElement?.id, selection = focus ? document.activeElement.selectionStart : null;
  const top = window.scrollY;
  for (const name of Object.keys(refilters)) delete refilters[name];
  const nodes = Object.values(PARTS).map((part) => part()).filter(Boolean);
  const links = nodes.map((node) => element('a', { href: `#${node.id}` }, node.querySelector('h2').textContent));
  main.replaceChildren(element('nav', { 'aria-label': 'sections' }, links), ...nodes,
    element('footer', { class: 'note' }, `Read ${report.made.replace('T', ' ').replace('+00:00', ' UTC')}. Versions: ${versions()}.`));
  if (focus) again(focus, selection);
  window.scrollTo(0, top);
}

// Builds one section again, where it stands.
function rebuild(name, part) {
  const focus = document.activeElement?.id;
  document.getElementById(name).replaceWith(part());
  if (focus) again(focus, null);
}

function again(name, selection) {
  const node = document.getElementById(name);
  node?.focus({ preventScroll: true });
  if (node && selection !== null && node.type === 'search') node.setSelectionRange(selection, selection);
}

function versions() {
  const found = new Set(report.runs.map((run) => ['t5x_lite', 'jax', 'python'].filter((name) => run.info[name]).map((name) => `${name} ${run.info[name]}`).join(', ')));
  return [...found].filter(Boolean).join('; ') || 'not known';
}

const WAIT = 3000; // milliseconds between questions, and longer where an answer takes long
const live = element('span', { id: 'live', role: 'status' });

async function news() {
  const asked = performance.now();
  try {
    const answer = await fetch(`data?stamp=${report.stamp}`);
    if (answer.status === 200) {
      const value = await answer.json();
      while (dragging) await new Promise((resume) => setTimeout(resume, 100));
      load(value);
      build();
    }
    live.textContent = answer.ok ? 'live' : `no news (${answer.status})`;
  } catch {
    live.textContent = 'the server has ended';
  }
  setTimeout(news, Math.max(WAIT, 3 * (performance.now() - asked)));
}

load(JSON.parse(document.getElementById('data').textContent));
document.body.append(main);
build();
let width = window.innerWidth;
window.addEventListener('resize', () => { if (window.innerWidth !== width) { width = window.innerWidth; redraw(); } });
// Paper has another width, and takes what was never scrolled to.
const paper = window.matchMedia('print');
const forPaper = () => {
  for (const own of charts.all) if (!own.node.hidden && own.node.offsetParent) own.draw();
};
paper.addEventListener('change', forPaper);
window.addEventListener('beforeprint', forPaper);
if ('live' in document.body.dataset) {
  document.querySelector('header').append(live);
  live.textContent = 'live';
  setTimeout(news, WAIT);
}
