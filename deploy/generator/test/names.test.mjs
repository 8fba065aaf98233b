// What rules and dashboards name is there: metrics, recorded series, pages, dashboards.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { dashboards } from '../dashboards/all.mjs';
import { path, readObjectives } from '../objectives.mjs';
import { rules } from '../rules.mjs';

const file = await readObjectives();
const groups = Object.values(rules(file)).flatMap(({ groups }) => groups);
const everyRule = groups.flatMap(({ rules }) => rules);
const alerts = everyRule.filter(({ alert }) => alert !== undefined);
const drawn = dashboards(file);
const panels = drawn.flatMap(({ uid, panels }) =>
  panels.filter(({ targets }) => targets !== undefined).map((panel) => ({ place: `${uid}, ${panel.title}`, panel })),
);
const ruleText = everyRule.map(({ expr }) => expr).join('\n');
const panelText = panels.flatMap(({ panel }) => panel.targets.map(({ expr }) => expr)).join('\n');

const page = await readFile(path('docs/metrics.md'), 'utf8');
const rows = [...page.matchAll(/^\| `(hiveops_[a-z_]+)` \| (\w+) /gm)];
const documented = new Map(rows.map(([, name, type]) => [name, type]));

/** Metrics of the exporters; of a histogram the name without its ending. */
function metrics(text) {
  const names = [...text.matchAll(/(?<![a-z_:])hiveops_[a-z_]+/g)].map(([name]) => name);
  return new Set(
    names.map((name) => {
      const base = name.replace(/_(bucket|count|sum)$/, '');
      return documented.get(base) === 'histogram' ? base : name;
    }),
  );
}

test('the page with the metrics is found', () => {
  assert.ok(documented.size > 60, `${documented.size} metrics`);
});

test('every metric that a rule or a panel names is documented', () => {
  const unknown = [...metrics(`${ruleText}\n${panelText}`)].filter((name) => !documented.has(name));
  assert.deepEqual(unknown, []);
});

test('every metric that is documented is drawn', () => {
  const shown = metrics(panelText);
  const forgotten = [...documented.keys()].filter((name) => !shown.has(name));
  assert.deepEqual(forgotten, []);
});

test('every recorded series that is named is recorded', () => {
  const recorded = new Set(everyRule.map(({ record }) => record));
  const named = [...`${ruleText}\n${panelText}`.matchAll(/hiveops:[a-z_]+:[a-z0-9]+/g)].map(([name]) => name);
  assert.ok(named.length > 50);
  assert.deepEqual(named.filter((name) => !recorded.has(name)), []);
});

test('every value of a label that counts as bad is one that the metric has', () => {
  const rowOf = (metric) => page.split('\n').find((line) => line.startsWith(`| \`${metric}\``));
  const selectors = Object.values(file.objectives).flatMap(({ sli }) => [...(sli.bad ?? []), ...(sli.good ?? [])]);
  for (const { metric, label, values } of selectors.filter(({ label }) => label !== undefined)) {
    const set = rowOf(metric).match(new RegExp(`\`${label}\`: ([^|]+?) *\\|`))?.[1].split(', ');
    assert.deepEqual(values.filter((value) => !set?.includes(value)), [], metric);
  }
});

test('every alert leads to a section of the runbook and to a dashboard', async () => {
  const anchors = async (name) => {
    const text = await readFile(path(name), 'utf8');
    return [...text.matchAll(/^#+ (.+)$/gm)].map(([, title]) => title.toLowerCase().replaceAll(' ', '-'));
  };
  assert.ok(alerts.length >= Object.keys(file.objectives).length * file.burn_rates.length + 2);
  const headings = await anchors(file.runbook);
  for (const { alert, annotations } of alerts) {
    const [runbook, anchor] = annotations.runbook_url.split('#');
    assert.equal(runbook, file.runbook, alert);
    assert.ok(headings.includes(anchor), `${alert}: ${file.runbook} has no #${anchor}`);
    const uid = annotations.dashboard_url.match(/\/d\/([a-z-]+)/)?.[1];
    assert.ok(drawn.some((one) => one.uid === uid), `${alert}: there is no dashboard ${uid}`);
  }
});

test('an alert has one name, and a panel one title and one number on its dashboard', () => {
  const twice = (all) => all.filter((one, at) => all.indexOf(one) !== at);
  assert.deepEqual(twice(alerts.map(({ alert }) => alert)), []);
  assert.deepEqual(twice(panels.map(({ place }) => place)), []);
  for (const { panels } of drawn) assert.deepEqual(twice(panels.map(({ id }) => id)), []);
});
