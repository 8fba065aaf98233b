// The plan is bounded, and what it says in the end names everything.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { objectivesOf } from '../objectives.mjs';
import { latencyOf, planOf, scenariosOf, thresholdsOf } from '../plan.mjs';
import { resultOf, textOf } from '../summary.mjs';

const file = JSON.parse(readFileSync(new URL('../../../deploy/slo/objectives.json', import.meta.url), 'utf8'));
const objectives = objectivesOf(file);

test('the short run takes less than a minute, a soak as long as it is told', () => {
  assert.ok(planOf({ mode: 'smoke' }).seconds < 60);
  for (const [duration, seconds] of [['', 600], ['120', 120], ['30m', 1_800], ['2h', 7_200]]) {
    const plan = planOf({ mode: 'soak', duration });
    assert.ok(Math.abs(plan.seconds - seconds) <= 3, `${duration}: ${plan.seconds}`);
    for (const load of Object.values(plan.loads)) assert.ok(!load.streams || load.publications > 0);
  }
  for (const duration of ['1m', '25h', 'long', '-5', '10x']) {
    assert.throws(() => planOf({ mode: 'soak', duration }), /a soak takes from/, duration);
  }
});

test('loads run one after the other, and some may be chosen', () => {
  const plan = planOf({ mode: 'smoke', only: 'burst,connect_ramp' });
  assert.deepEqual(Object.keys(plan.loads), ['connect_ramp', 'burst']);
  assert.equal(plan.loads.burst.start, plan.loads.connect_ramp.seconds);
  assert.throws(() => planOf({ mode: 'smoke', only: 'nonsense' }), /no such load: nonsense/);
  assert.throws(() => planOf({ mode: 'other' }), /smoke or soak/);
});

test('the thresholds are the objectives of the file', () => {
  const thresholds = thresholdsOf(planOf({ mode: 'smoke' }), objectives);
  assert.deepEqual(thresholds['load_delivery_ok{load:burst}'], [`rate>=${file.objectives.delivery.target}`]);
  assert.deepEqual(thresholds['load_publish_to_socket_ms{load:burst}'], ['p(95)<=250']);
  assert.deepEqual(thresholds['load_handshake_ok{load:connect_ramp}'], [`rate>=${file.objectives.handshake.target}`]);
  assert.deepEqual(thresholds['load_violations{reason:silent_gap}'], [{ threshold: 'count==0', abortOnFail: true }]);
  const broken = structuredClone(file);
  delete broken.objectives.delivery.target;
  assert.throws(() => objectivesOf(broken), /an objective is missing/);
});

test('where latency is only reported, everything else is held to its threshold', () => {
  const plan = planOf({ mode: 'smoke' });
  const enforced = thresholdsOf(plan, objectives, latencyOf(''));
  const reported = thresholdsOf(plan, objectives, latencyOf('report'));
  const isLatency = (key) => key.startsWith('load_publish_to_socket_ms');
  assert.deepEqual(Object.keys(reported), Object.keys(enforced), 'k6 sums up what has a threshold');
  for (const [key, thresholds] of Object.entries(reported)) {
    assert.deepEqual(thresholds, isLatency(key) ? ['max>=0'] : enforced[key], key);
  }
  assert.throws(() => latencyOf('ignore'), /enforce or report/);
  const state = { testRunDurationMs: 8_040 };
  assert.match(textOf(resultOf({ metrics: {}, state }, plan, objectives, 'report')), /250 ms \(reported, not enforced\)/);
});

test('every load has its scenarios', () => {
  const scenarios = scenariosOf(planOf({ mode: 'smoke' }));
  for (const name of ['connect_ramp', 'steady_fanout_publishers', 'slow_readers_slow', 'rate_limit_abuse_abusers']) {
    assert.ok(scenarios[name], name);
  }
});

test('a violation and a missed objective are named with what was measured', () => {
  const plan = planOf({ mode: 'smoke', only: 'steady_fanout' });
  const metric = (values, threshold, ok) => ({ values, thresholds: { [threshold]: { ok } } });
  const late = { 'load_publish_to_socket_ms{load:steady_fanout}': metric({ count: 3, med: 1, 'p(95)': 402.5, 'p(99)': 500, max: 600 }, 'p(95)<=250', false) };
  const state = { testRunDurationMs: 8_040 };
  const slow = resultOf({ metrics: late, state }, plan, objectives);
  assert.deepEqual([slow.ok, slow.failed[0].reason, slow.failed[0].measured], [false, 'latency', 402.5]);
  assert.match(textOf(slow), /FAILED latency in steady_fanout: .*\(p\(95\)<=250, measured 402\.5\)/);
  const gap = { ...late, 'load_violations{reason:silent_gap}': metric({ count: 2 }, 'count==0', false) };
  const broken = resultOf({ metrics: gap, state }, plan, objectives);
  assert.deepEqual(broken.violations, { silent_gap: 2 });
  assert.match(textOf(broken), /FAILED silent_gap: .*\nobjectives.*\nload run smoke: FAILED and ended after 8 s/);
  assert.match(textOf(resultOf({ metrics: {}, state }, plan, objectives)), /load run smoke: passed/);
});
