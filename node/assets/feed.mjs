// The connection of the plain page: makes it, keeps it, mends it. Decisions are `continuity.mjs`'s and
// `reconnect.mjs`'s; this holds the socket, the clock and the credential, and knows no DOM.

import { Continuity } from './continuity.mjs';
import { Policy } from './reconnect.mjs';

/** What this page was written for. */
const CONTRACT_VERSION = '1.0.0';

/** Shows that the node is there and whether its bus is, and keeps the session from counting as idle. */
const PING_EVERY_MS = 20_000;

/** A node is never this silent: it answers pings, and speaks by itself after 25 s. */
const SILENCE_MAX_MS = 35_000;

/** A handshake that takes longer has failed. */
const CONNECT_MAX_MS = 10_000;

/** A question that is not answered by then got lost. */
const ANSWER_MAX_MS = 5_000;

const TICK_MS = 1_000;

/** After these the node did not join all that was asked for. */
const REFUSALS = ['forbidden', 'too_many_subscriptions', 'unknown_subscription'];

export class Feed {
  continuity = new Continuity();
  /** `{is: 'connecting'}`, `{is: 'live'}`, `{is: 'waiting', until, …end}` or `{is: 'closed', stop, …end}`. */
  state = { is: 'connecting' };
  /** The last `connection_established`, and whether publications are proven to reach that node. */
  session = null;
  isBusLive = null;
  /** The names to join; `null` leaves the choice to the node. */
  wanted = null;

  #url;
  #onState;
  #onFrame;
  #policy = new Policy();
  #socket = null;
  #token = '';
  #timer;
  #refused = false;
  #times = { opened: 0, live: null, heard: 0, pinged: 0, progressed: 0 };
  #progress = 0;

  /** `onState()` when the state changed, `onFrame(frame, text, effects)` for every frame. */
  constructor({ url, onState, onFrame }) {
    this.#url = url;
    this.#onState = onState;
    this.#onFrame = onFrame;
  }

  get hasToken() {
    return this.#token !== '';
  }

  /** Connects now, whatever was planned. A token, if given, is used from here on and kept nowhere else. */
  connect(token = this.#token) {
    this.#token = token;
    this.#discard();
    const now = Date.now();
    this.#times = { opened: now, live: null, heard: now, pinged: 0, progressed: now };
    const socket = new WebSocket(this.#address(), this.#protocols());
    socket.onmessage = ({ data }) => this.#take(data);
    socket.onclose = ({ code, reason }) => this.#ended({ code, reason });
    this.#socket = socket;
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#enter({ is: 'connecting' });
  }

  /** Joins or leaves a subscription, now and in the connections to come. */
  join(name, isWanted) {
    this.wanted ??= new Set(this.continuity.names());
    if (isWanted) this.wanted.add(name);
    else this.wanted.delete(name);
    if (this.state.is === 'live') this.#send({ type: isWanted ? 'subscribe' : 'unsubscribe', subscriptions: [name] });
  }

  #address() {
    const query = new URLSearchParams({ contract_version: CONTRACT_VERSION });
    if (this.wanted !== null) query.set('subscriptions', [...this.wanted].join(','));
    const since = Object.entries(this.continuity.begin()).filter(([name]) => this.wanted?.has(name) ?? true);
    if (since.length > 0) query.set('since', since.map(([name, at]) => `${name}:${at.epoch}:${at.seq}`).join(','));
    const url = new URL(this.#url);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    url.search = query;
    return url;
  }

  /** A page can set no header: the credential travels as a second subprotocol. */
  #protocols() {
    if (!this.hasToken) return ['hiveops.v1'];
    const bytes = String.fromCharCode(...new TextEncoder().encode(this.#token));
    const encoded = btoa(bytes).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
    return ['hiveops.v1', `hiveops.bearer.${encoded}`];
  }

  #take(text) {
    this.#times.heard = Date.now();
    let frame, effects;
    try {
      frame = JSON.parse(text);
      effects = this.continuity.handle(frame);
    } catch {
      // A node that sends what is no frame cannot be followed; another connection may be better.
      return this.#drop('unreadable');
    }
    this.#notice(frame);
    for (const effect of effects) {
      if (effect.do === 'resubscribe') this.#resubscribe(effect.since);
    }
    this.#onFrame(frame, text, effects);
  }

  #notice(frame) {
    switch (frame.type) {
      case 'connection_established':
        this.session = frame;
        break;
      case 'dashboard_initialized':
        this.#begin(frame.subscriptions);
        break;
      case 'subscription_updated':
        if (this.#refused) this.wanted = new Set(frame.subscriptions);
        this.#refused = false;
        break;
      case 'heartbeat':
      case 'pong':
        this.isBusLive = frame.live;
        break;
      case 'error':
        this.#refused ||= REFUSALS.includes(frame.code);
        break;
      case 'disconnect_notice':
        this.#policy.onNotice(frame.retry_after_ms);
        break;
    }
  }

  /** The session stands. The wishes may have changed while it was being made. */
  #begin(joined) {
    this.#times.live = Date.now();
    if (this.#refused) this.wanted = new Set(joined);
    this.#refused = false;
    this.wanted ??= new Set(joined);
    const missing = [...this.wanted].filter((name) => !joined.includes(name));
    const unwanted = joined.filter((name) => !this.wanted.has(name));
    if (missing.length > 0) this.#send({ type: 'subscribe', subscriptions: missing });
    if (unwanted.length > 0) this.#send({ type: 'unsubscribe', subscriptions: unwanted });
    this.#ping();
    this.#enter({ is: 'live' });
  }

  #resubscribe(since) {
    this.#send({ type: 'subscribe', subscriptions: Object.keys(since), since });
  }

  #ping() {
    this.#times.pinged = Date.now();
    this.#send({ type: 'ping' });
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** What time alone brings about. A page in the background is called less often, which does no harm. */
  #tick() {
    const now = Date.now();
    const times = this.#times;
    if (times.live === null) {
      if (now - times.opened > CONNECT_MAX_MS) this.#drop('connect_timeout');
      return;
    }
    if (now - times.heard > SILENCE_MAX_MS) return this.#drop('silence');
    if (now - times.pinged >= PING_EVERY_MS) this.#ping();
    if (!this.continuity.isPending || this.continuity.progress !== this.#progress) {
      this.#progress = this.continuity.progress;
      times.progressed = now;
    } else if (now - times.progressed >= ANSWER_MAX_MS) {
      for (const { since } of this.continuity.overdue()) this.#resubscribe(since);
    }
  }

  /** Gives a connection up that is of no use any more. */
  #drop(reason) {
    this.#ended({ reason });
  }

  #ended({ code, reason }) {
    const { live } = this.#times;
    this.#discard();
    const next = this.#policy.next({ code }, live === null ? 0 : Date.now() - live, Math.random());
    if (next.stop !== undefined) return this.#enter({ is: 'closed', stop: next.stop, code, reason });
    this.#timer = setTimeout(() => this.connect(), next.wait_ms);
    this.#enter({ is: 'waiting', until: Date.now() + next.wait_ms, code, reason });
  }

  #discard() {
    clearTimeout(this.#timer);
    clearInterval(this.#timer);
    this.isBusLive = null;
    if (this.#socket === null) return;
    this.#socket.onmessage = null;
    this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  #enter(state) {
    this.state = state;
    this.#onState();
  }
}
