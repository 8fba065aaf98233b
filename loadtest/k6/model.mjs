// One client's view of what must reach it: the continuity rule of every client (`node/assets/continuity.mjs`, which
// the vectors in `schemas/vectors/client.json` hold), and the numbers that our publishers count within each stream.
// Pure, without k6; `test/model.test.mjs` holds it to the same vectors.
//
// A hole in the chain of `prev_seq` that nobody announced is a silent gap. A whole chain proves that the client has
// what the log has; that the log has what the publisher was told is proven by the streams' own numbers.

import { Continuity } from '../../node/assets/continuity.mjs';
import { violation } from './contract.mjs';

/** The name of a publication, under which it is found in logs, traces and frames. */
export function correlationId(run, stream, n) {
  return `k6.${run}.${stream}.${n}`;
}

/** The key under which a publication is kept; a later one of the same key takes its place. */
export function keyOf(run, stream, n, keys) {
  return `k6-${run}-${stream}-${n % keys}`;
}

export class Model {
  #run;
  #continuity = new Continuity();
  #streams = new Map();
  /** Whether the client asked to be mended: until the answer, frames may come that it cannot place. */
  #mending = false;
  /** How often something was announced as left out: what is missing since then is explained. */
  #omissions = 0;

  /** `streams` has, by name, how many publications each will have. */
  constructor({ run, streams }) {
    this.#run = run;
    for (const [name, total] of Object.entries(streams)) {
      this.#streams.set(name, { total, last: 0, omissions: 0, begun: false });
    }
  }

  /** A new connection is made; answers with its `since`. */
  begin() {
    this.#mending = false;
    return this.#continuity.begin();
  }

  /** Takes in a frame that has passed `Contract.read`. */
  take(frame, now) {
    const verdict = { violations: [], effects: this.#continuity.handle(frame), delivered: 0, explained: 0, latency: null, since: null };
    if (frame.type === 'subscription_updated') this.#mending = false;
    for (const effect of verdict.effects) this.#judge(effect, frame, now, verdict);
    return verdict;
  }

  /** An answer did not come: asks again. */
  overdue() {
    return this.#continuity.overdue();
  }

  /** What each subscription stands at. */
  positions() {
    return this.#continuity.positions();
  }

  /** Every value of a subscription. */
  values(subscription) {
    return [...(this.#continuity.track(subscription)?.state.values() ?? [])];
  }

  /** How many publications have neither come nor been explained. */
  get missing() {
    return [...this.#streams.values()].reduce((sum, { total, last }) => sum + total - last, 0);
  }

  #judge(effect, frame, now, verdict) {
    const where = `${effect.subscription} ${frame.type} ${frame.correlation_id}`;
    switch (effect.do) {
      case 'gap':
        verdict.violations.push(violation('silent_gap', `${effect.from} to ${effect.to} missing before ${where}`));
        break;
      case 'stray':
        verdict.violations.push(violation('bad_order', `not joined: ${where}`));
        break;
      case 'withheld':
        if (!this.#mending) verdict.violations.push(violation('bad_order', `before the snapshot or replay: ${where}`));
        break;
      case 'omitted':
        this.#omissions += 1;
        break;
      case 'snapshot':
        this.#omissions += 1;
        this.#onSnapshot(effect.subscription, verdict);
        break;
      case 'resubscribe':
        this.#mending = true;
        verdict.since = effect.since;
        break;
      case 'deliver':
        if (frame.prev_seq !== undefined) this.#onPublication(frame, now, verdict);
        break;
      case 'duplicate': {
        // A replay may begin before the client's position, and while it waits to be mended it cannot tell.
        const isLive = frame.prev_seq !== undefined && frame.replayed !== true;
        if (isLive && !this.#mending) verdict.violations.push(violation('bad_order', `twice: ${where}`));
        break;
      }
      case 'snapshot_part':
      case 'epoch_changed':
      case 'left':
        break;
      default:
        throw new Error(`the continuity rule has an effect that is not known here: ${effect.do}`);
    }
  }

  #onSnapshot(subscription, verdict) {
    for (const { data } of this.values(subscription)) {
      const stream = this.#streamOf(data);
      if (stream === undefined || data.n <= stream.last) continue;
      // What was published before the client first came is none of its business.
      if (stream.begun) verdict.explained += data.n - stream.last;
      stream.last = data.n;
    }
    // All streams are of the one subscription that a load joins, and it has the latest value of each: what comes next
    // of one has nothing before it that a snapshot could explain.
    for (const stream of this.#streams.values()) Object.assign(stream, { begun: true, omissions: this.#omissions });
  }

  #onPublication({ data, correlation_id, replayed }, now, verdict) {
    const stream = this.#streamOf(data);
    if (stream === undefined) return;
    const id = correlationId(this.#run, data.stream, data.n);
    if (correlation_id !== id) verdict.violations.push(violation('wrong_correlation_id', `${correlation_id} instead of ${id}`));
    const skipped = data.n - stream.last - 1;
    if (skipped < 0) {
      verdict.violations.push(violation('bad_order', `${id} after number ${stream.last}`));
      return;
    }
    if (skipped > 0 && stream.omissions === this.#omissions) {
      verdict.violations.push(violation('lost_publication', `${skipped} before ${id}`));
    } else {
      verdict.explained += skipped;
    }
    verdict.delivered += 1;
    // A replayed one waited for the client, which had been away.
    if (replayed !== true) verdict.latency = now - data.sent_at;
    Object.assign(stream, { last: data.n, omissions: this.#omissions });
  }

  #streamOf(data) {
    return data.run === this.#run ? this.#streams.get(data.stream) : undefined;
  }
}
