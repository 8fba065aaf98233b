// The latest values on the plain page, one panel per joined subscription, drawn from the states that
// `continuity.mjs` keeps. A panel shows the most recent keys and counts the rest.

import { badge, cut, el, figure, label, setText, timeOfDay, words } from './dom.mjs';

/** Keys shown in one panel; a subscription may have 10,000. */
const ROWS_MAX = 8;

/** Members shown of one value. */
const FIGURES_MAX = 16;

/** Statuses told apart in one panel; they come from outside and may be anything. */
const STATUSES_MAX = 8;

/** Occurrences are no part of a state; the last ones are kept here. */
const OCCURRENCES_MAX = 5;

const PHASES = { asked: 'asking', snapshot: 'loading', replay: 'catching up', live: '' };

const EMPTY = {
  agents: 'No agent has reported in yet.',
  alerts: 'No alert since this page was opened.',
  tasks: 'No task yet. The command under “Publish something” makes one.',
};

export class Panels {
  #feed;
  #root;
  #panels = new Map();
  #touched = new Set();
  #occurrences = new Map();

  constructor(root, feed) {
    this.#root = root;
    this.#feed = feed;
  }

  /** Takes note of a frame; nothing is drawn here. */
  add(frame, effects) {
    if (frame.subscription !== undefined) this.#touched.add(frame.subscription);
    else this.touchAll();
    const isDelivered = effects.some((effect) => effect.do === 'deliver');
    if (!isDelivered || typeof frame.prev_seq !== 'number' || frame.type.endsWith('_update')) return;
    const { subscription, type, data, timestamp } = frame;
    const before = this.#occurrences.get(subscription) ?? [];
    this.#occurrences.set(subscription, [{ type, data, timestamp }, ...before].slice(0, OCCURRENCES_MAX));
  }

  touchAll() {
    for (const name of [...this.#feed.continuity.names(), ...this.#panels.keys()]) this.#touched.add(name);
  }

  draw() {
    for (const name of this.#touched) {
      const track = this.#feed.continuity.track(name);
      if (track === undefined) this.#remove(name);
      else this.#drawPanel(name, track);
    }
    this.#touched.clear();
  }

  #remove(name) {
    this.#panels.get(name)?.section.remove();
    this.#panels.delete(name);
    this.#occurrences.delete(name);
  }

  #drawPanel(name, track) {
    const panel = this.#panels.get(name) ?? this.#make(name);
    const phase = this.#feed.state.is === 'live' ? PHASES[track.phase] : 'as last seen';
    const { position } = track;
    setText(panel.where, [phase, position && `seq ${position.seq}`].filter(Boolean).join(', '));
    panel.where.title = position ? `epoch ${position.epoch}` : '';
    panel.section.classList.toggle('old', this.#feed.state.is !== 'live');
    const occurrences = this.#occurrences.get(name) ?? [];
    const items = [...track.state.values()].sort((a, b) => b.seq - a.seq);
    const children = [...content(name, items), ...occurrences.map(occurrence)];
    if (children.length === 0 && track.phase === 'live') children.push(el('p', { class: 'empty' }, EMPTY[name] ?? 'Nothing yet.'));
    panel.body.replaceChildren(...children);
  }

  #make(name) {
    const id = `panel-${name}`;
    const where = el('span', { class: 'where' });
    const body = el('div');
    const heading = el('h3', { id }, words(name));
    const section = el('section', { class: 'panel', 'aria-labelledby': id, 'data-subscription': name }, el('header', {}, heading, where), body);
    this.#panels.set(name, { section, where, body });
    // In the order of the alphabet, as the node lists them.
    const after = [...this.#root.children].find((other) => other.dataset.subscription > name);
    this.#root.insertBefore(section, after ?? null);
    return this.#panels.get(name);
  }
}

function content(name, items) {
  if (items.length === 0) return [];
  if (name === 'system' || name === 'coordination') return limited(items, figures);
  const hasStatus = items.some(({ data }) => data.status !== undefined);
  return [...(hasStatus ? [shares(items)] : []), list(items)];
}

function limited(items, draw) {
  const drawn = items.slice(0, ROWS_MAX).map(draw);
  if (items.length > ROWS_MAX) drawn.push(el('p', { class: 'more' }, `and ${items.length - ROWS_MAX} more`));
  return drawn;
}

/** How many there are of each status, with a bar that is there for the eye only. */
function shares(items) {
  const counts = new Map();
  for (const { data } of items) {
    const status = typeof data.status === 'string' ? data.status : 'unknown';
    const name = counts.has(status) || counts.size < STATUSES_MAX ? status : 'other';
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const rows = [...counts].sort((a, b) => b[1] - a[1]).map(([status, count]) => {
    const bar = el('span', { class: 'bar', 'aria-hidden': 'true' });
    bar.style.setProperty('--share', count / items.length);
    return el('li', {}, badge(status), bar, el('b', {}, String(count)));
  });
  return el('ul', { class: 'shares', 'aria-label': 'by status' }, ...rows);
}

function list(items) {
  const rows = limited(items, ({ key, data }) => {
    const name = [data.title, data.name].find((text) => typeof text === 'string' && text !== '') ?? key;
    const about = [data.agent_type, data.assigned_agent, data.current_task].filter((text) => typeof text === 'string');
    const rest = about.length > 0 || data.status !== undefined ? about.map((text) => cut(text, 60)).join(' · ') : cut(JSON.stringify(data), 80);
    const what = el('span', { class: 'what' }, el('span', { title: cut(key, 200) }, cut(name, 120)), el('small', {}, rest));
    return el('li', {}, what, ...(data.status === undefined ? [] : [badge(data.status)]));
  });
  return el('ul', { class: 'values' }, ...rows.map((row) => (row.tagName === 'LI' ? row : el('li', {}, row))));
}

function figures({ key, data }) {
  const rows = [];
  for (const [name, value] of Object.entries(data)) {
    if (rows.length >= FIGURES_MAX) break;
    if (name === 'id' || name === 'status') continue;
    rows.push(el('div', {}, el('dt', {}, cut(label(name), 40)), el('dd', {}, isObject(value) ? inner(value) : figure(name, value))));
  }
  const title = el('h4', {}, el('span', {}, cut(key, 80)), ...(data.status === undefined ? [] : [badge(data.status)]));
  return el('div', { class: 'figures' }, title, el('dl', {}, ...rows));
}

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/** An object inside a value on one line; counts that are zero are left out. */
function inner(object) {
  const entries = Object.entries(object).filter(([, value]) => value !== 0 && !isObject(value));
  const text = entries.slice(0, STATUSES_MAX).map(([name, value]) => member(name, value)).join(', ');
  return text === '' ? 'none' : cut(text, 120);
}

function member(name, value) {
  if (typeof value === 'boolean') return `${value ? '' : 'not '}${words(name)}`;
  return `${label(name)} ${figure(name, value)}`;
}

function occurrence({ type, data, timestamp }) {
  const alerts = Array.isArray(data.alerts) ? data.alerts : [data];
  const text = alerts.map((alert) => alert?.message ?? alert?.title ?? JSON.stringify(alert)).join('; ');
  const time = el('time', {}, timeOfDay(new Date(timestamp)));
  return el('p', { class: type === 'critical_alert' ? 'occurrence alert' : 'occurrence' }, time, ' ', cut(String(text), 200));
}
