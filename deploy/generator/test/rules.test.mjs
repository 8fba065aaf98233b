// The cases of the rules notice when a rule is wrong: each mistake here is made on purpose, in a copy.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { dump } from 'js-yaml';
import { readObjectives } from '../objectives.mjs';
import { ruleTests } from '../rule_tests.mjs';
import { rules } from '../rules.mjs';

const file = await readObjectives();

/** Whether `promtool` is content with the cases of one file, after the rules were changed. */
function holds(objective, cases, change) {
  const place = mkdtempSync(join(tmpdir(), 'hiveops-rules-'));
  try {
    mkdirSync(join(place, 'tests'));
    const changed = structuredClone(rules(file)[objective]);
    changed.groups.flatMap(({ rules }) => rules).forEach(change);
    writeFileSync(join(place, `${objective}.yml`), dump(changed));
    writeFileSync(join(place, 'tests', 'cases.yml'), dump(ruleTests(file)[cases]));
    const run = spawnSync('promtool', ['test', 'rules', 'tests/cases.yml'], { cwd: place, encoding: 'utf8' });
    if (run.error) throw new Error('promtool is missing; install it with: scripts/install prometheus', { cause: run.error });
    return { holds: run.status === 0, said: run.stdout + run.stderr };
  } finally {
    rmSync(place, { recursive: true });
  }
}

const replace = (from, to) => (rule) => {
  rule.expr = rule.expr.replaceAll(from, to);
};
const inAlerts = (change) => (rule) => {
  if (rule.alert !== undefined) change(rule);
};

test('the rules as they are satisfy their cases', () => {
  const { holds: good, said } = holds('delivery', 'delivery.fast', () => {});
  assert.ok(good, said);
});

for (const [mistake, objective, cases, change] of [
  ['a restart that is not noticed', 'delivery', 'delivery.fast', replace('rate(', 'delta(')],
  ['only the long window', 'delivery', 'delivery.fast', inAlerts(replace(/and\nhiveops:slo_burn:rate5m.*\n/g, ''))],
  ['a rate that is too high', 'delivery', 'delivery.fast', inAlerts(replace('> 14.4', '> 18'))],
  ['a rate that is too low', 'delivery', 'delivery.fast', inAlerts(replace('> 14.4', '> 11'))],
  ['a budget of another size', 'handshake', 'handshake.fast', replace('/ 0.005', '/ 0.05')],
  ['the refusals that are the client\'s own', 'handshake', 'handshake.fast', replace(/\{reason=~"[^"]*"\}/g, '')],
  ['another bucket', 'latency', 'latency.fast', replace('le="0.25"', 'le="0.001"')],
  ['a limit that is not reached', 'control_view', 'control_view.fast', replace('> bool 5', '> bool 50')],
  ['a limit that is always reached', 'control_view', 'control_view.fast', replace('> bool 5', '>= bool 5')],
  ...file.burn_rates.flatMap(({ name, rate }) => [
    [`a rate of looks that is too high (${name})`, 'control_view', `control_view.${name}`, inAlerts(replace(`> ${rate}`, `> ${rate * 1.4}`))],
    [`a rate of looks that is too low (${name})`, 'control_view', `control_view.${name}`, inAlerts(replace(`> ${rate}`, `> ${rate * 0.75}`))],
  ]),
  ['the nodes of another job', 'nodes', 'nodes', replace(`active{job="${file.job}"}`, 'active')],
  ['too few events', 'delivery', 'delivery.fast', inAlerts(replace(`>= ${file.min_bad_events}`, '>= 1e9'))],
]) {
  test(`the cases notice ${mistake}`, () => {
    let changes = 0;
    const result = holds(objective, cases, (rule) => {
      const before = rule.expr;
      change(rule);
      changes += rule.expr === before ? 0 : 1;
    });
    assert.ok(changes > 0, 'nothing was changed');
    assert.ok(!result.holds, 'nobody noticed');
  });
}
