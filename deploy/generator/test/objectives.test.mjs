// The file with the objectives, and what stands beside it, fit together.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { load } from 'js-yaml';
import { budget, checkFile, minutes, path, readObjectives, selector, windows } from '../objectives.mjs';

const file = await readObjectives();

test('a mistake in the file is refused with its place', () => {
  const changed = (change) => {
    const copy = structuredClone(file);
    change(copy);
    return () => checkFile(copy);
  };
  assert.doesNotThrow(changed(() => {}));
  for (const [change, problem] of [
    [(copy) => (copy.version = 2), /version 2/],
    [(copy) => (copy.runbook = ''), /`runbook`/],
    [(copy) => (copy.min_bad_events = 0.5), /`min_bad_events`/],
    [(copy) => (copy.burn_rates[0].long = '1w'), /burn rate `fast`: windows/],
    [(copy) => (copy.burn_rates[0].short = '1h'), /short window is not the shorter/],
    [(copy) => (copy.burn_rates[1].severity = 'panic'), /severity/],
    [(copy) => (copy.objectives.delivery.target = 1), /objective `delivery`: target/],
    [(copy) => (copy.objectives.latency.target = 0.9), /nothing burns 14.4 times/],
    [(copy) => (copy.objectives.latency.sli.kind = 'speed'), /objective `latency`: `speed`/],
    [(copy) => (copy.objectives.handshake.sli.bad = []), /needs `bad`/],
    [(copy) => delete copy.objectives.handshake.sli.bad[0].label, /come together/],
    [(copy) => (copy.objectives = {}), /no `objectives`/],
  ]) {
    assert.throws(changed(change), problem);
  }
});

test('budgets, windows and selectors are written without noise', () => {
  assert.equal(budget({ target: 0.999 }), 0.001);
  assert.equal(minutes('3d'), 4_320);
  assert.deepEqual(windows(file), ['5m', '30m', '1h', '2h', '6h', '1d', '3d']);
  assert.equal(selector({ metric: 'm' }), 'm');
  assert.equal(selector({ metric: 'm', label: 'r', values: ['a'] }), 'm{r="a"}');
  assert.equal(selector({ metric: 'm', label: 'r', values: ['a', 'b'] }), 'm{r=~"a|b"}');
});

test('the example of a Prometheus scrapes the job that the file names, as often as it says', async () => {
  const config = load(await readFile(path('deploy/prometheus/prometheus.yml'), 'utf8'));
  assert.ok(config.scrape_configs.some(({ job_name }) => job_name === file.job));
  assert.equal(config.global.scrape_interval, `${file.scrape_interval_seconds}s`);
  assert.equal(config.global.evaluation_interval, `${file.scrape_interval_seconds}s`);
  assert.deepEqual(config.rule_files, ['rules/*.yml']);
});
