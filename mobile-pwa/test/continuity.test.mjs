// The plain page of a node decides as `schemas/vectors/client.json` says, like clients in every language.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Continuity } from '../../node/assets/continuity.mjs';
import { Policy } from '../../node/assets/reconnect.mjs';

const { defaults, cases } = JSON.parse(
  readFileSync(new URL('../../schemas/vectors/client.json', import.meta.url), 'utf8'),
);

class Runner {
  #continuity;
  #policy = new Policy();

  constructor({ since = {}, live = {} }) {
    this.#continuity = new Continuity(since);
    const names = Object.keys(live);
    if (names.length === 0) return;
    this.#continuity.begin();
    const heads = names.map((name) => [name, { epoch: live[name].epoch, seq: live[name].seq }]);
    this.#take({
      type: 'dashboard_initialized',
      subscriptions: names,
      positions: Object.fromEntries(heads),
      recovered: Object.fromEntries(names.map((name) => [name, false])),
    });
    for (const name of names) this.#take({ type: 'snapshot', subscription: name, part: 1, parts: 1, ...live[name] });
  }

  run(step) {
    if (step.frame) assert.deepEqual(this.#take(step.frame), step.expect);
    else if (step.overdue) assert.deepEqual(this.#continuity.overdue(), step.expect);
    else if (step.connect) assert.deepEqual(this.#continuity.begin(), step.since);
    else assert.deepEqual(this.#next(step), step.next);
    if (step.positions) assert.deepEqual(this.#continuity.positions(), step.positions);
    for (const [name, items] of Object.entries(step.state ?? {})) assert.deepEqual(this.#state(name), items);
  }

  #take(frame) {
    const whole = { ...defaults['*'], ...defaults[frame.type], ...frame };
    if (whole.type === 'disconnect_notice') this.#policy.onNotice(whole.retry_after_ms);
    return this.#continuity.handle(whole);
  }

  #next(step) {
    assert.ok(step.lost || step.close || step.refused, 'a step says what happens');
    const refused = step.refused && { status: step.refused, retryAfterMs: step.retry_after_ms };
    return this.#policy.next(refused ?? { code: step.close }, step.lived_ms, step.random);
  }

  #state(name) {
    const order = ({ type, key }) => `${type}\n${key}`;
    return [...this.#continuity.track(name).state.values()].sort((a, b) => (order(a) < order(b) ? -1 : 1));
  }
}

test('there are cases', () => assert.ok(cases.length > 0));

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
  });
}
