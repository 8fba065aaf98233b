// What a client that sends too much must see (docs/protocol.md, "Limits"). Pure, without k6: pings and answers in, and
// when to send how many out.
//
// It sends twice the burst at once, then twice the allowed rate for longer than the cooldown, is quiet until the node
// has forgotten it, and asks once more.

import { violation } from './contract.mjs';

/** Between two rounds of pings. */
const STEP_MS = 200;

/** After the last excess the bucket is full again, and a bit. */
const REST_MS = 500;

/** What the node's clock and ours, or two looks of the node at its own, may differ by. */
const TOLERANCE_MS = 300;

/** Of what the limit lets through at least so much is answered, however unevenly a busy machine sends. */
const SERVED = 0.8;

export class Abuse {
  #limits;
  #start;
  #end = null;
  #sent = 0;
  #answered = 0;
  #errors = [];

  /** `limits` as the session's first frame has them. */
  constructor({ limits, now }) {
    this.#limits = {
      rate: limits.rate_limit_tokens_per_second,
      burst: limits.rate_limit_burst_capacity,
      cooldownMs: limits.rate_limit_notify_cooldown_seconds * 1_000,
    };
    this.#start = now;
  }

  /** `{count, ms}`: how many pings to send now, and when to ask again; `null` when the abuse is over. */
  next(now) {
    const { rate, burst, cooldownMs } = this.#limits;
    const isFirst = this.#sent === 0;
    if (!isFirst && now - this.#start > cooldownMs + 1_000) {
      this.#end = now;
      return null;
    }
    const count = isFirst ? 2 * burst : Math.ceil((2 * rate * STEP_MS) / 1_000);
    this.#sent += count;
    return { count, ms: STEP_MS };
  }

  /** How long to be quiet then. */
  get restMs() {
    return (this.#limits.burst / this.#limits.rate) * 1_000 + REST_MS;
  }

  /** A frame came. The times are the node's: a client that is behind with its reading sees errors closer together. */
  take(frame) {
    if (frame.type === 'pong') this.#answered += 1;
    if (frame.type !== 'error') return [];
    const [last, at] = [this.#errors.at(-1), Date.parse(frame.timestamp)];
    this.#errors.push(at);
    const wrong = [];
    if (!(frame.retry_after_ms > 0)) wrong.push(`retry_after_ms is ${frame.retry_after_ms}`);
    if (!/Rate limit exceeded/.test(frame.message)) wrong.push(`the text is "${frame.message}"`);
    if (last !== undefined && at - last < this.#limits.cooldownMs - TOLERANCE_MS) {
      wrong.push(`another error after ${at - last} ms, the cooldown is ${this.#limits.cooldownMs} ms`);
    }
    return wrong.map((detail) => violation('rate_limit', detail));
  }

  get errors() {
    return this.#errors.length;
  }

  /** After the rest, before the last question: what the whole of it shows. */
  judge(now) {
    const { rate, burst } = this.#limits;
    const allowed = burst + (rate * (now - this.#start + TOLERANCE_MS)) / 1_000;
    const due = SERVED * Math.min(this.#sent, burst + (rate * (this.#end - this.#start)) / 1_000);
    const wrong = [];
    if (this.#errors.length < 2) wrong.push(`${this.#errors.length} errors for excess that outlasted the cooldown`);
    if (this.#answered >= this.#sent) wrong.push(`all ${this.#sent} messages were answered`);
    if (this.#answered > allowed) wrong.push(`${this.#answered} messages were answered, ${Math.floor(allowed)} allowed`);
    if (this.#answered < due) wrong.push(`only ${this.#answered} messages were answered, ${Math.floor(due)} were due`);
    return wrong.map((detail) => violation('rate_limit', detail));
  }
}
