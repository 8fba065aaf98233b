// One client of a load run, on one socket after the other: it joins, follows, comes back when it is told to, asks for
// the heads at the end, and leaves. What it sees is judged by `contract.mjs` and `model.mjs`; this holds the socket and
// the clock.

import { clearTimeout, setTimeout } from 'k6/timers';
import { Policy } from '../../node/assets/reconnect.mjs';
import { violation } from './contract.mjs';
import * as metrics from './metrics.mjs';
import { WebSocket } from './sockets.cjs';
import { headers, socketUrl } from './target.mjs';

/** A handshake that takes longer has failed. */
const HANDSHAKE_MAX_MS = 5_000;

/** A `ping` or a close that is not answered by then is not answered. */
const ANSWER_MAX_MS = 5_000;

/** Shows a lost tail early, and keeps a long run from counting as idle. */
const PING_EVERY_MS = 20_000;

/** A `readyState`. */
const CONNECTING = 0;

/** Before a close that is wrong is reported. */
const BROKEN_AFTER_MS = 200;

/** What stands in an error of k6 about a close; 1.1 tells the code nowhere else. */
const CLOSE_CODE = /websocket: close (\d{4})/;

export class Client {
  #name;
  #contract;
  #model;
  #hooks;
  #deadlineMs;
  #stays;
  #policy = new Policy();
  #socket = null;
  #timers = new Map();
  /** 'connecting', 'open', then while it is closed by us 'bouncing' or 'leaving', 'waiting' in between, 'ended'. */
  #state = 'waiting';
  #error = null;
  #times = { connect: 0, open: 0, bounce: null };

  /**
   * `name` is unique within the run. `hooks` may have `onOpen(client, established)`, `onFrame(frame)` and
   * `onEnd()`. The client leaves when nothing is missing, unless `stays`, and has ended `deadlineMs` from its start.
   */
  constructor({ name, contract, model, deadlineMs, stays = false, hooks = {} }) {
    this.#stays = stays;
    this.#name = name;
    this.#contract = contract;
    this.#model = model;
    this.#deadlineMs = deadlineMs;
    this.#hooks = hooks;
  }

  start() {
    this.after('deadline', this.#deadlineMs, () => (this.#state === 'open' ? this.leave() : this.#end()));
    this.#connect();
  }

  /** Closes and comes back at once, with the position it stands at. */
  bounce() {
    if (this.#state !== 'open') return;
    this.#times.bounce = Date.now();
    this.#close('bouncing');
  }

  /** Asks for the heads, which show a lost tail, and closes after the answer. */
  leave() {
    if (this.#state !== 'open' || this.#timers.has('leave')) return;
    this.send({ type: 'ping', correlation_id: this.#lastPing });
    this.after('leave', ANSWER_MAX_MS, () => {
      metrics.report([violation('no_answer', `${this.#lastPing} after ${ANSWER_MAX_MS} ms`)]);
      this.#close('leaving');
    });
  }

  send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  /** A timer of this client's; one of the same name is replaced, and all end with the client. */
  after(name, ms, act) {
    this.#stop(name);
    const handle = setTimeout(() => {
      this.#timers.delete(name);
      act();
    }, Math.max(1, ms));
    this.#timers.set(name, handle);
  }

  get #lastPing() {
    return `${this.#name}.last`;
  }

  #connect() {
    this.#state = 'connecting';
    this.#error = null;
    this.#times.connect = Date.now();
    this.#contract.begin();
    // k6 would make a time series of its own for each address, which has the position in it.
    const socket = new WebSocket(socketUrl(this.#model.begin()), null, { headers, tags: { name: 'dashboard' } });
    const mine = (handle) => (event) => (this.#socket === socket ? handle(event) : undefined);
    socket.onmessage = mine(({ data }) => this.#take(data));
    socket.onerror = mine(({ error }) => (this.#error = String(error)));
    socket.onclose = mine(({ code }) => this.#closed(this.#codeOf(code)));
    this.#socket = socket;
    this.after('handshake', HANDSHAKE_MAX_MS, () => {
      this.#socket = null;
      abandon(socket);
      this.#refused(`no session within ${HANDSHAKE_MAX_MS} ms`);
    });
  }

  #take(text) {
    const now = Date.now();
    const { frame, violations } = this.#contract.read(text);
    metrics.report(violations);
    if (frame === null) return;
    const verdict = this.#model.take(frame, now);
    metrics.count(verdict);
    if (verdict.since !== null) this.send({ type: 'subscribe', subscriptions: Object.keys(verdict.since), since: verdict.since });
    if (frame.type === 'dashboard_initialized') this.#opened(frame, now);
    if (frame.type === 'disconnect_notice') this.#policy.onNotice(frame.retry_after_ms);
    this.#hooks.onFrame?.(frame);
    if (frame.type === 'pong' && frame.correlation_id === this.#lastPing && this.#stop('leave')) this.#close('leaving');
    else if (!this.#stays && this.#state === 'open' && this.#model.missing === 0) this.leave();
  }

  #opened({ recovered }, now) {
    this.#stop('handshake');
    this.#state = 'open';
    this.#times.open = now;
    metrics.handshakeOk.add(true);
    metrics.handshakeMs.add(now - this.#times.connect);
    if (this.#times.bounce !== null) {
      metrics.resumeMs.add(now - this.#times.bounce);
      for (const how of Object.values(recovered)) metrics.resumed.add(1, { how: how ? 'replay' : 'snapshot' });
      this.#times.bounce = null;
    }
    this.#ping();
    this.#hooks.onOpen?.(this);
  }

  #ping() {
    this.after('ping', PING_EVERY_MS, () => {
      if (this.#state === 'open') this.send({ type: 'ping' });
      this.#ping();
    });
  }

  #close(state) {
    this.#state = state;
    this.#stop('ping');
    this.after('close', ANSWER_MAX_MS, () => {
      metrics.report([violation('no_answer', `a close was not answered within ${ANSWER_MAX_MS} ms`)]);
      this.#end();
    });
    this.#socket.close(1000);
  }

  #codeOf(code) {
    if (this.#error === null) return code;
    const [, told] = CLOSE_CODE.exec(this.#error) ?? [];
    return told === undefined ? 1006 : Number(told);
  }

  /** The connection is gone, for whatever reason. */
  #closed(code) {
    if (this.#state === 'ended') return;
    if (this.#state === 'connecting') return this.#refused(this.#error ?? `closed with ${code}`, code);
    const asked = this.#state !== 'open';
    const wrong = this.#contract.ended(code, asked);
    this.#stop('close');
    if (wrong !== null) return this.#broken(wrong);
    if (this.#state === 'bouncing') return this.#connect();
    if (this.#state === 'leaving') return this.#end();
    metrics.sentOff.add(1);
    this.#wait(this.#policy.next({ code }, Date.now() - this.#times.open, Math.random()));
  }

  /** When k6 ends a run it closes the sockets by itself, and the timers with them: that is nobody's fault. */
  #broken(wrong) {
    this.#state = 'waiting';
    this.after('broken', BROKEN_AFTER_MS, () => {
      metrics.report([wrong]);
      this.#end();
    });
  }

  /** There was no session. That counts against the handshakes; the client does what every client does then. */
  #refused(why, code) {
    metrics.refused(why);
    this.#wait(this.#policy.next({ code }, 0, Math.random()));
  }

  #wait({ wait_ms: ms }) {
    this.#state = 'waiting';
    for (const name of ['handshake', 'leave', 'ping']) this.#stop(name);
    if (ms === undefined) return this.#end();
    this.after('connect', ms, () => this.#connect());
  }

  #end() {
    if (this.#state === 'ended') return;
    const socket = this.#socket;
    this.#state = 'ended';
    this.#socket = null;
    for (const name of [...this.#timers.keys()]) this.#stop(name);
    metrics.countEnd(this.#model.missing);
    this.#hooks.onEnd?.();
    if (socket !== null) abandon(socket);
  }

  /** Whether there was such a timer. */
  #stop(name) {
    const handle = this.#timers.get(name);
    if (handle === undefined) return false;
    clearTimeout(handle);
    return this.#timers.delete(name);
  }
}

/** Closes a socket that nobody waits for. k6 cannot close one that is still being opened; nothing happens to a closed one. */
function abandon(socket) {
  if (socket.readyState === CONNECTING) socket.onopen = () => socket.close();
  else socket.close();
}
