// What to do with each frame of a node, so that nothing is missed silently (docs/protocol.md, "Positions
// and recovery"). Pure: frames in, effects out; no socket, no clock, no DOM. The page's feed calls it, and
// the vectors in `schemas/vectors/client.json`, which the Rust client keeps to as well, say what it does.

/** The epoch of no log: going on there is how a client asks for a snapshot. */
const NOWHERE = '0';

/** A gap that shows again this often with nothing delivered in between is not mended by replays. */
const FRUITLESS_MAX = 3;

/** A node refuses publications beyond this many keys; one that does not is not followed further. */
const KEYS_MAX = 10_000;

/** The member of `data` that is the key of an update (contract 1.0). */
const KEY_MEMBER = 'id';

/** The latest value of every key of one subscription. */
class State {
  #items = new Map();

  /** `{type, key, data, seq}` of every key, in no particular order. */
  values() {
    return this.#items.values();
  }

  get size() {
    return this.#items.size;
  }

  put(item) {
    const name = JSON.stringify([item.type, item.key]);
    if (this.#items.size < KEYS_MAX || this.#items.has(name)) this.#items.set(name, item);
  }

  /** Takes over an update or a removal; an occurrence is no part of the state. */
  apply({ type, data, seq }) {
    if (!type.endsWith('_update')) return;
    const id = data[KEY_MEMBER];
    const key = id === undefined ? type : String(id);
    if (data.deleted === true) this.#items.delete(JSON.stringify([type, key]));
    else this.put({ type, key, data, seq });
  }
}

/** One subscription: where the client stands in its log, and what it waits for. */
class Track {
  // 'asked': the node's word on how it goes on · 'snapshot': its parts · 'replay': up to `until` · 'live'
  phase = 'asked';
  position = null;
  state = new State();
  #name;
  #parts = null;
  #until = 0;
  #fruitless = 0;

  constructor(name) {
    this.#name = name;
  }

  get isPending() {
    return this.phase !== 'live';
  }

  /** A new connection: the node will say how it goes on. */
  begin() {
    this.phase = 'asked';
    this.#parts = null;
    this.#fruitless = 0;
  }

  /** The node goes on where we stand; up to `head` it is a replay. */
  continues(head, step) {
    // It cannot go on where we never were. Only a snapshot is sure to be right.
    if (head === undefined || this.position?.epoch !== head.epoch) return this.#askAnew(step);
    this.phase = 'replay';
    this.#until = head.seq;
    this.#settle();
  }

  /** A snapshot follows. */
  restarts() {
    this.phase = 'snapshot';
    this.#parts = null;
  }

  onPublication(frame, step) {
    if (!this.#follows) return step.add('withheld', this.#name);
    if (frame.epoch !== this.position.epoch) return this.ask(step);
    const at = this.position.seq;
    if (frame.seq <= at) return step.add('duplicate', this.#name);
    if (frame.prev_seq > at) {
      // A replay leaves out what was overwritten meanwhile: the later value is in it.
      if (frame.replayed !== true) return this.#gap(at + 1, frame.prev_seq, step);
      step.add('omitted', this.#name, { from: at + 1, to: frame.prev_seq });
    }
    this.state.apply(frame);
    this.#advance(frame.seq, step);
    step.deliver();
  }

  onCoalesced(frame, step) {
    if (!this.#follows) return step.add('withheld', this.#name);
    if (frame.epoch !== this.position.epoch) return this.ask(step);
    const at = this.position.seq;
    if (frame.to_seq <= at) return step.add('duplicate', this.#name);
    if (frame.from_seq > at + 1 && this.phase !== 'replay') return this.#gap(at + 1, frame.from_seq - 1, step);
    step.add('omitted', this.#name, { from: at + 1, to: frame.to_seq });
    this.#advance(frame.to_seq, step);
  }

  onSnapshot(frame, step) {
    if (this.phase === 'asked') return step.add('withheld', this.#name);
    const { epoch, seq, part, parts } = frame;
    // Nobody asked: a node may renew what it knows to be broken, but never turn back the clock.
    const isUnasked = this.phase !== 'snapshot';
    if (isUnasked && this.position?.epoch === epoch && seq < this.position.seq) {
      return step.add('duplicate', this.#name);
    }
    const before = part === 1 ? { epoch, seq, parts, last: 0, state: new State() } : this.#parts;
    const follows = before?.epoch === epoch && before.seq === seq && before.parts === parts;
    if (!follows || before.last + 1 !== part || part > parts) return this.#askAnew(step);
    for (const item of frame.items) before.state.put(item);
    step.progress = true;
    if (part < parts) {
      this.phase = 'snapshot';
      this.#parts = { ...before, last: part };
      return step.add('snapshot_part', this.#name, { part, parts });
    }
    if (this.position !== null && this.position.epoch !== epoch) {
      step.add('epoch_changed', this.#name, { from: this.position.epoch, to: epoch });
    }
    Object.assign(this, { state: before.state, position: { epoch, seq }, phase: 'live' });
    this.#parts = null;
    this.#fruitless = 0;
    step.add('snapshot', this.#name, { epoch, seq });
  }

  /** The node named the head. While a snapshot or a replay is on its way, that says nothing. */
  onHead(head, step) {
    if (this.isPending) return;
    if (head.epoch !== this.position.epoch) this.ask(step);
    else if (head.seq > this.position.seq) this.#gap(this.position.seq + 1, head.seq, step);
  }

  /** Asks the node to go on where we stand, or for a snapshot when that cannot help. */
  ask(step) {
    if (this.position === null || this.#fruitless >= FRUITLESS_MAX) return this.#askAnew(step);
    this.#askAt({ ...this.position }, step);
  }

  #askAnew(step) {
    this.#askAt({ epoch: NOWHERE, seq: 0 }, step);
  }

  #askAt(position, step) {
    this.phase = 'asked';
    this.#parts = null;
    this.#fruitless += 1;
    step.progress = true;
    step.since.set(this.#name, position);
  }

  #gap(from, to, step) {
    step.add('gap', this.#name, { from, to });
    this.ask(step);
  }

  get #follows() {
    return this.phase === 'replay' || this.phase === 'live';
  }

  #advance(seq, step) {
    step.progress ||= this.isPending;
    this.#fruitless = 0;
    this.position.seq = seq;
    this.#settle();
  }

  /** A replay that has reached its end is over. */
  #settle() {
    if (this.phase === 'replay' && this.position.seq >= this.#until) this.phase = 'live';
  }
}

/** What one frame leads to. */
class Step {
  effects = [];
  /** All subscriptions that one frame shows to be broken are asked for with one message. */
  since = new Map();
  progress = false;

  add(what, subscription, more = {}) {
    this.effects.push({ do: what, subscription, ...more });
  }

  deliver() {
    this.effects.push({ do: 'deliver' });
  }

  finish() {
    if (this.since.size > 0) this.effects.push({ do: 'resubscribe', since: Object.fromEntries(this.since) });
    return this.effects;
  }
}

/** The continuity of all subscriptions of a client, over all of its connections. */
export class Continuity {
  #tracks = new Map();
  #begun = false;
  /** Grows whenever something came that a pending subscription waits for. */
  progress = 0;

  constructor(since = {}) {
    for (const [name, position] of Object.entries(since)) {
      const track = new Track(name);
      track.position = { ...position };
      this.#tracks.set(name, track);
    }
  }

  /** A new connection is made: nothing counts until its `dashboard_initialized`. Returns its `since`. */
  begin() {
    this.#begun = false;
    for (const track of this.#tracks.values()) track.begin();
    return this.positions();
  }

  /** Takes in a frame; answers with the effects, in order. */
  handle(frame) {
    const step = new Step();
    if (frame.type === 'snapshot') this.#with(frame, step, (track) => track.onSnapshot(frame, step));
    else if (frame.type === 'coalesced') this.#with(frame, step, (track) => track.onCoalesced(frame, step));
    else if (typeof frame.prev_seq === 'number') {
      this.#with(frame, step, (track) => track.onPublication(frame, step));
    } else {
      step.deliver();
      if (frame.type === 'dashboard_initialized') this.#begun = true;
      if (frame.type === 'dashboard_initialized' || frame.type === 'subscription_updated') this.#start(frame, step);
      if (frame.type === 'heartbeat' || frame.type === 'pong') this.#onHeads(frame.positions, step);
    }
    this.progress += step.progress ? 1 : 0;
    return step.finish();
  }

  /** Nothing came for what is pending: the question or the answer got lost. Asks again. */
  overdue() {
    const step = new Step();
    for (const track of this.#tracks.values()) {
      if (this.#begun && track.isPending) track.ask(step);
    }
    this.progress += 1;
    return step.finish();
  }

  /** Whether a subscription waits for an answer, a snapshot or a replay. */
  get isPending() {
    return this.#begun && [...this.#tracks.values()].some((track) => track.isPending);
  }

  /** Where the client stands in each subscription that has begun. */
  positions() {
    const begun = [...this.#tracks].filter(([, track]) => track.position !== null);
    return Object.fromEntries(begun.map(([name, track]) => [name, { ...track.position }]));
  }

  /** The subscriptions that the node counts to this session, or did when there was one. */
  names() {
    return [...this.#tracks.keys()];
  }

  /** `{phase, position, state}` of a subscription, to be read only. */
  track(name) {
    return this.#tracks.get(name);
  }

  #with(frame, step, handle) {
    const track = this.#tracks.get(frame.subscription);
    if (track === undefined) step.add('stray', frame.subscription);
    else handle(track);
  }

  /** The node has said what is joined, and how what was newly joined begins. */
  #start({ subscriptions, recovered, positions }, step) {
    step.progress = true;
    for (const name of this.#tracks.keys()) {
      if (subscriptions.includes(name)) continue;
      this.#tracks.delete(name);
      step.add('left', name);
    }
    for (const name of subscriptions) {
      const isNew = !this.#tracks.has(name);
      if (isNew) this.#tracks.set(name, new Track(name));
      const track = this.#tracks.get(name);
      if (recovered[name] === true) track.continues(positions[name], step);
      else if (recovered[name] === false) track.restarts();
      // Joined without a word on how it begins: only asking can tell.
      else if (isNew) track.ask(step);
    }
  }

  /** Frames of one connection are in order, so a head beyond our position is a tail that got lost. */
  #onHeads(heads, step) {
    for (const [name, head] of Object.entries(heads)) this.#tracks.get(name)?.onHead(head, step);
  }
}
