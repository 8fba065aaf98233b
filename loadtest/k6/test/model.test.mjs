// The model of the k6 client decides as `schemas/vectors/client.json` says, like the clients in Rust and in the
// browser: what they call a gap is a violation here, and nothing else is.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Model, correlationId } from '../model.mjs';

const vectors = new URL('../../../schemas/vectors/client.json', import.meta.url);
const { defaults, cases } = JSON.parse(readFileSync(vectors, 'utf8'));

class Runner {
  #model = new Model({ run: 'r', streams: {} });
  gaps = 0;

  constructor({ since = {}, live = {} }) {
    // A client of k6 begins without a position, so that one is made as it would come by it.
    const places = Object.entries({ ...since, ...live });
    if (places.length === 0) return;
    this.#model.begin();
    const by = (what) => Object.fromEntries(places.map(([name, place]) => [name, what(place)]));
    const positions = by(({ epoch, seq }) => ({ epoch, seq }));
    this.#take({ type: 'dashboard_initialized', subscriptions: places.map(([name]) => name), positions, recovered: by(() => false) });
    for (const [name, place] of places) {
      this.#take({ type: 'snapshot', subscription: name, part: 1, parts: 1, items: [], ...place });
    }
    if (Object.keys(live).length === 0) this.#model.begin();
  }

  run(step) {
    if (step.frame) this.#expect(this.#take(step.frame), step.expect);
    else if (step.overdue) assert.deepEqual(this.#model.overdue(), step.expect);
    else if (step.connect) assert.deepEqual(this.#model.begin(), step.since);
    else return;
    if (step.positions) assert.deepEqual(this.#model.positions(), step.positions);
    for (const [name, items] of Object.entries(step.state ?? {})) assert.deepEqual(this.#state(name), items);
  }

  #expect(verdict, effects) {
    assert.deepEqual(verdict.effects, effects);
    const of = (name) => effects.filter((effect) => effect.do === name);
    const violations = verdict.violations.filter(({ reason }) => reason === 'silent_gap');
    assert.equal(violations.length, of('gap').length);
    const others = verdict.violations.length - violations.length;
    const explained = ['stray', 'withheld', 'duplicate'].reduce((sum, name) => sum + of(name).length, 0);
    assert.ok(others <= explained, JSON.stringify(verdict.violations));
    assert.deepEqual(verdict.since, of('resubscribe')[0]?.since ?? null);
    this.gaps += violations.length;
  }

  #take(frame) {
    return this.#model.take({ ...defaults['*'], ...defaults[frame.type], ...frame }, 0);
  }

  #state(name) {
    const order = ({ type, key }) => `${type}\n${key}`;
    return this.#model.values(name).sort((a, b) => (order(a) < order(b) ? -1 : 1));
  }
}

let gaps = 0;
for (const { name, start, steps } of cases) {
  test(name, () => {
    const runner = new Runner(start);
    steps.forEach((step, i) => {
      try {
        runner.run(step);
      } catch (error) {
        error.message = `step ${i + 1}: ${error.message}`;
        throw error;
      }
    });
    gaps += runner.gaps;
  });
}

test('the vectors have gaps, and they were violations', () => assert.ok(gaps > 5, `${gaps} gaps`));

/** A client that has joined `tasks` at its beginning and knows of one stream. */
function joined(total = 10) {
  const model = new Model({ run: 'r', streams: { s: total } });
  model.begin();
  const head = { epoch: 'e', seq: 0 };
  const take = (frame) => model.take({ correlation_id: 'c', ...frame }, 1_000);
  take({ type: 'dashboard_initialized', subscriptions: ['tasks'], positions: { tasks: head }, recovered: { tasks: false } });
  take({ type: 'snapshot', subscription: 'tasks', ...head, items: [], part: 1, parts: 1 });
  return { model, take };
}

function publication(seq, n, more = {}) {
  const data = { id: 'k', run: 'r', stream: 's', n, sent_at: 990 };
  const correlation_id = correlationId('r', 's', n);
  return { type: 'task_update', subscription: 'tasks', epoch: 'e', seq, prev_seq: seq - 1, correlation_id, data, ...more };
}

const reasons = (verdict) => verdict.violations.map(({ reason }) => reason);

test('a publication that comes counts, with its time on the way', () => {
  const { model, take } = joined();
  const verdict = take(publication(1, 1));
  assert.deepEqual([reasons(verdict), verdict.delivered, verdict.explained, verdict.latency], [[], 1, 0, 10]);
  assert.equal(model.missing, 9);
  assert.equal(take(publication(2, 2, { replayed: true })).latency, null, 'who was away has waited for itself');
});

test('an acknowledged publication that the log does not have is found although the chain is whole', () => {
  const { take } = joined();
  take(publication(1, 1));
  assert.deepEqual(reasons(take(publication(2, 3))), ['lost_publication']);
});

test('the first publications of a stream are missed like any others', () => {
  const { take } = joined();
  assert.deepEqual(reasons(take(publication(1, 3))), ['lost_publication']);
  // What was left out in between may have been them.
  const told = joined();
  told.take({ type: 'coalesced', subscription: 'tasks', epoch: 'e', from_seq: 1, to_seq: 2, count: 2 });
  const verdict = told.take(publication(3, 3));
  assert.deepEqual([reasons(verdict), verdict.explained], [[], 2]);
});

test('what was coalesced is explained, and only that', () => {
  const { model, take } = joined();
  take(publication(1, 1));
  take({ type: 'coalesced', subscription: 'tasks', epoch: 'e', from_seq: 2, to_seq: 3, count: 2 });
  const verdict = take(publication(4, 4));
  assert.deepEqual([reasons(verdict), verdict.delivered, verdict.explained], [[], 1, 2]);
  assert.deepEqual(reasons(take(publication(5, 6))), ['lost_publication']);
  assert.equal(model.missing, 4);
});

test('what a later snapshot holds is explained, what the first one holds was never due', () => {
  const late = joined();
  const item = (n) => ({ type: 'task_update', key: 'k', data: publication(n, n).data, seq: n });
  const snapshot = (n) => ({ type: 'snapshot', subscription: 'tasks', epoch: 'e', seq: n, items: [item(n)], part: 1, parts: 1 });
  assert.equal(late.take(snapshot(4)).explained, 4);
  assert.equal(late.model.missing, 6);
  const model = new Model({ run: 'r', streams: { s: 10 } });
  model.begin();
  const positions = { tasks: { epoch: 'e', seq: 4 } };
  model.take({ type: 'dashboard_initialized', subscriptions: ['tasks'], positions, recovered: { tasks: false } }, 0);
  assert.equal(model.take(snapshot(4), 0).explained, 0);
  assert.equal(model.missing, 6);
});

test('a publication twice, out of order, before its snapshot, or of what is not joined', () => {
  const { model, take } = joined();
  take(publication(1, 1));
  assert.deepEqual(reasons(take(publication(1, 1, { replayed: true }))), [], 'a replay may begin earlier');
  assert.deepEqual(reasons(take(publication(1, 1))), ['bad_order']);
  assert.deepEqual(reasons(take(publication(2, 1))), ['bad_order']);
  assert.deepEqual(reasons(take(publication(1, 1, { subscription: 'agents' }))), ['bad_order']);
  model.begin();
  assert.deepEqual(reasons(take(publication(3, 2))), ['bad_order']);
});

test('the id of the publisher is on its publication', () => {
  assert.deepEqual(reasons(joined().take(publication(1, 1, { correlation_id: 'other' }))), ['wrong_correlation_id']);
});

test('publications of others concern the chain only', () => {
  const { model, take } = joined();
  const other = publication(1, 1);
  assert.equal(take({ ...other, data: { ...other.data, run: 'another' } }).delivered, 0);
  assert.equal(model.missing, 10);
  assert.deepEqual(reasons(take(publication(3, 1))), ['silent_gap']);
});
