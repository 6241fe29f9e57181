//<![CDATA[
// Tables are sorted and filtered, lines shown and hidden, values read off curves, and folds opened for the printer. The
// page says all of it without this script, too.
'use strict';
const make = (tag, attributes, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

// Tables: a button in every head sorts; long ones have a field to filter by.
const value = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = parseFloat(text);
  return Number.isNaN(number) ? text : number;
};
const order = (a, b) => {
  if (typeof a === typeof b) return typeof a === 'number' ? a - b : a.localeCompare(b);
  return typeof a === 'number' ? -1 : 1;
};
for (const table of document.querySelectorAll('table.sortable')) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make('button', { type: 'button' }, ...head.childNodes);
    head.append(button);
    button.addEventListener('click', () => {
      const up = head.getAttribute('aria-sort') !== 'ascending';
      for (const other of heads) other.removeAttribute('aria-sort');
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const rows = [...body.rows].sort((a, b) => order(value(a, column), value(b, column)));
      body.append(...(up ? rows : rows.reverse()));
    });
  });
  if (body.rows.length > 8) {
    const field = make('input', { type: 'search', placeholder: 'Filter rows', 'aria-label': 'Filter rows' });
    field.addEventListener('input', () => {
      const wanted = field.value.toLowerCase();
      for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
    table.parentElement.before(field);
  }
}

// Legends: a line's entry shows and hides it in all panels of its figure.
for (const entry of document.querySelectorAll('.legend [data-line]')) {
  const button = make('button', { type: 'button', 'aria-pressed': 'true' }, ...entry.childNodes);
  entry.append(button);
  button.addEventListener('click', () => {
    const shown = button.getAttribute('aria-pressed') !== 'true';
    button.setAttribute('aria-pressed', shown);
    for (const line of entry.closest('figure').querySelectorAll(`path[data-line="${entry.dataset.line}"]`)) {
      line.style.display = shown ? '' : 'none';
      const band = line.previousElementSibling;
      if (band?.hasAttribute('fill-opacity')) band.style.display = line.style.display;
    }
  });
}

// Curves: what the lines are worth where the pointer is.
const tip = make('div', { class: 'tip', hidden: '' });
document.body.append(tip);
const shortly = number => String(+number.toPrecision(4));
for (const chart of document.querySelectorAll('g[data-x]')) {
  const svg = chart.closest('svg');
  const area = chart.querySelector('clipPath rect');
  const lines = [...chart.querySelectorAll('path[data-name]')].map(path => {
    const numbers = path.getAttribute('d').match(/-?[\d.]+(e[-+]?\d+)?/g).map(Number);
    const points = numbers.flatMap((x, i) => (i % 2 ? [] : [[x, numbers[i + 1]]]));
    return { path, points };
  });
  if (!area || !lines.length) continue;
  const [left, top, width, height] = ['x', 'y', 'width', 'height'].map(name => +area.getAttribute(name));
  const log = chart.hasAttribute('data-log');
  const ends = name => chart.dataset[name].split(' ').map(Number);
  const scale = ([low, high], share, log) =>
    log ? Math.exp(Math.log(low) + share * Math.log(high / low)) : low + share * (high - low);
  svg.addEventListener('pointermove', event => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
    const inside = at.x >= left - 3 && at.x <= left + width + 3 && at.y >= top && at.y <= top + height;
    tip.hidden = !inside;
    if (!inside) return;
    const shown = lines.filter(({ path }) => path.style.display !== 'none');
    const near = shown.map(({ path, points }) => {
      const distance = point => Math.abs(point[0] - at.x);
      return { name: path.dataset.name, point: points.reduce((a, b) => (distance(b) < distance(a) ? b : a)) };
    });
    near.sort((a, b) => a.point[1] - b.point[1]);
    const rows = near.map(({ name, point: [, y] }) =>
      make('div', {}, `${name} ${shortly(scale(ends('y'), (top + height - y) / height, log))}`));
    const x = near.length ? near[0].point[0] : at.x;
    const where = shortly(scale(ends('x'), (x - left) / width, false));
    tip.replaceChildren(make('b', {}, `at ${where}`), ...rows);
    const space = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, space))}px`;
    tip.style.top = `${event.clientY + 14}px`;
  });
  svg.addEventListener('pointerleave', () => { tip.hidden = true; });
}

// Paper has no folds.
let opened = [];
addEventListener('beforeprint', () => {
  opened = [...document.querySelectorAll('details:not([open])')];
  for (const fold of opened) fold.open = true;
});
addEventListener('afterprint', () => { for (const fold of opened) fold.open = false; });
//]]>
