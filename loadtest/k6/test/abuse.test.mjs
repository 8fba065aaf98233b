// What a client that sends too much is to see, and what is wrong otherwise.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Abuse } from '../abuse.mjs';

const limits = { rate_limit_tokens_per_second: 20, rate_limit_burst_capacity: 40, rate_limit_notify_cooldown_seconds: 5 };
const error = { type: 'error', code: 'rate_limited', message: 'Rate limit exceeded', retry_after_ms: 50 };

/** Runs the whole of it against a node that answers `allows(sent, now)` and tells of excess every `cooldown` ms. */
function violations({ cooldown = 5_000, frame = error, factor = 1 } = {}) {
  const abuse = new Abuse({ limits, now: 0 });
  const found = [];
  let [tokens, told, at] = [40, -Infinity, 0];
  for (let now = 0; ; ) {
    const step = abuse.next(now);
    if (step === null) return [...found, ...abuse.judge(now + abuse.restMs)].map(({ detail }) => detail);
    tokens = Math.min(40, tokens + ((now - at) * 20) / 1_000);
    at = now;
    for (let i = 0; i < step.count; i += 1) {
      const isLet = tokens >= 1 / factor;
      if (isLet) tokens -= 1 / factor;
      if (isLet) found.push(...abuse.take({ type: 'pong' }));
      else if (now - told >= cooldown) {
        told = now;
        found.push(...abuse.take({ ...frame, timestamp: new Date(now).toISOString() }));
      }
    }
    now += step.ms;
  }
}

test('a node that keeps to the limits has nothing wrong', () => assert.deepEqual(violations(), []));

test('each fault is one', () => {
  assert.match(violations({ frame: { ...error, retry_after_ms: undefined } })[0], /retry_after_ms is undefined/);
  assert.match(violations({ frame: { ...error, message: 'Stop' } })[0], /the text is "Stop"/);
  assert.match(violations({ cooldown: 1_000 })[0], /another error after 1000 ms/);
  assert.match(violations({ cooldown: 60_000 })[0], /1 errors/);
  assert.match(violations({ factor: 1_000 }).join(), /all \d+ messages were answered/);
  assert.match(violations({ factor: 2 }).join(), /messages were answered, \d+ allowed/);
  assert.match(violations({ factor: 0.5 }).join(), /only \d+ messages were answered/);
});
