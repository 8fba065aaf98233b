// The tail of the plain page: the last frames, newest first, to be paused, filtered and opened.

import { bytes, cut, el, setText, timeOfDay } from './dom.mjs';

/** How many frames are kept and shown. */
const FRAMES_MAX = 200;

/** What is kept of one frame's text; a part of a snapshot can have 256 KiB. */
const TEXT_MAX = 16_384;

/** Up to here the data is shown in the line itself. */
const INLINE_MAX = 4_096;

const SHORT_MAX = 160;

/** What every frame has, which the line shows elsewhere or not at all. */
const COMMON = ['type', 'correlation_id', 'timestamp', 'subscription', 'epoch', 'seq', 'prev_seq', 'replayed'];

/** Effects worth a word beside the frame. */
const NOTES = {
  duplicate: 'duplicate',
  withheld: 'held back until its subscription is mended',
  stray: 'not joined',
  gap: 'a gap: asked for what is missing',
  epoch_changed: 'the log began anew',
  omitted: 'overwritten values left out',
};

export class Log {
  #ring = [];
  /** `{entry, row}` of each line; while paused, its frame may have left the ring already. */
  #rows = new Map();
  #count = 0;
  #isPaused = false;
  #pausedAt = 0;
  #filter = '';
  #parts;

  /** `parts`: the elements `list`, `pause`, `clear`, `filter`, `summary`. `onChange()` asks for a draw. */
  constructor(parts, onChange) {
    this.#parts = parts;
    parts.pause.addEventListener('click', () => this.#pause(!this.#isPaused, onChange));
    parts.clear.addEventListener('click', () => {
      this.#ring = [];
      this.#forget();
      onChange();
    });
    parts.filter.addEventListener('input', () => {
      this.#filter = parts.filter.value.trim().toLowerCase();
      this.#forget();
      onChange();
    });
    // A frame that somebody reads must not wander off. `toggle` does not bubble, so it is caught on its way.
    const onToggle = ({ target }) => {
      if (!target.open) return;
      this.#fill(target);
      this.#pause(true, onChange);
    };
    parts.list.addEventListener('toggle', onToggle, true);
  }

  get count() {
    return this.#count;
  }

  add(frame, text, effects) {
    this.#count += 1;
    const notes = effects.map((effect) => NOTES[effect.do]).filter((note) => note !== undefined);
    if (frame.replayed === true) notes.unshift('replayed');
    const isCut = text.length > TEXT_MAX;
    const entry = { n: this.#count, at: new Date(), frame: digest(frame, text), notes, isCut };
    entry.text = isCut ? text.slice(0, TEXT_MAX) : text;
    this.#ring.push(entry);
    if (this.#ring.length > FRAMES_MAX) this.#ring.shift();
  }

  draw() {
    const { list, summary } = this.#parts;
    const missed = this.#count - this.#pausedAt;
    if (!this.#isPaused || this.#rows.size === 0) this.#drawRows(list);
    const shown = this.#filter === '' ? `${this.#rows.size}` : `${this.#rows.size} matching`;
    const paused = this.#isPaused ? `, paused, ${missed} new` : '';
    setText(summary, `${this.#count} received, ${shown} shown${paused}`);
  }

  #drawRows(list) {
    const shown = this.#ring.filter((entry) => this.#matches(entry));
    const kept = new Set(shown.map((entry) => entry.n));
    for (const [n, { row }] of this.#rows) {
      if (kept.has(n)) continue;
      row.remove();
      this.#rows.delete(n);
    }
    const fresh = shown.filter((entry) => !this.#rows.has(entry.n)).map((entry) => {
      const row = line(entry);
      this.#rows.set(entry.n, { entry, row });
      return row;
    });
    list.prepend(...fresh.reverse());
  }

  #matches(entry) {
    return this.#filter === '' || entry.text.toLowerCase().includes(this.#filter);
  }

  #forget() {
    for (const { row } of this.#rows.values()) row.remove();
    this.#rows.clear();
  }

  #pause(isPaused, onChange) {
    if (isPaused && !this.#isPaused) this.#pausedAt = this.#count;
    this.#isPaused = isPaused;
    setText(this.#parts.pause, isPaused ? 'Resume' : 'Pause');
    onChange();
  }

  /** The whole frame, when somebody opens its line. */
  #fill(details) {
    const { entry } = this.#rows.get(Number(details.dataset.n));
    const pre = details.querySelector('pre');
    pre.textContent = entry.isCut
      ? `${entry.text}…\n\n(only the first ${bytes(TEXT_MAX)} are kept)`
      : JSON.stringify(JSON.parse(entry.text), null, 2);
  }
}

/** What the line shows, so that the frame itself need not be kept. */
function digest(frame, text) {
  const rest = Object.entries(frame).filter(([name]) => !COMMON.includes(name));
  const data = frame.data ?? Object.fromEntries(rest);
  const short = text.length > INLINE_MAX
    ? `${bytes(text.length)}: ${Object.keys(data).join(', ')}`
    : JSON.stringify(data);
  return {
    type: cut(String(frame.type), 64),
    subscription: typeof frame.subscription === 'string' ? cut(frame.subscription, 64) : '',
    seq: Number.isFinite(frame.seq) ? frame.seq : null,
    correlationId: cut(String(frame.correlation_id ?? ''), 128),
    short: cut(short, SHORT_MAX),
  };
}

/** The end of an identifier tells two apart; its beginning is the time. The opened line has all of it. */
const tail = (id) => (id.length > 9 ? `…${id.slice(-8)}` : id);

function line({ n, at, frame, notes }) {
  const place = frame.subscription === '' ? 'connection' : frame.subscription;
  const summary = el(
    'summary',
    {},
    el('time', { datetime: at.toISOString() }, timeOfDay(at)),
    el('span', { class: 'place' }, frame.seq === null ? place : `${place} ${frame.seq}`),
    el('span', { class: 'type' }, frame.type),
    el('span', { class: 'id', title: `correlation id ${frame.correlationId}` }, tail(frame.correlationId)),
    el('span', { class: 'short' }, ...notes.map((note) => el('em', {}, note)), frame.short),
  );
  return el('li', {}, el('details', { 'data-n': n }, summary, el('pre', { tabindex: '0', 'aria-label': 'The whole frame' })));
}
