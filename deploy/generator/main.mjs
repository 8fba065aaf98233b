// Writes what comes from deploy/slo/objectives.json and from the dashboards here, or checks that the committed
// files are what would be written.
//
//   deploy/prometheus/rules/*.yml                 recording rules and alerts
//   deploy/prometheus/rules/tests/*.yml           their cases for `promtool test rules`
//   deploy/grafana/dashboards/*.json              dashboards
//
// Called by `npm -w deploy run generate` and `npm -w deploy run check`; scripts/ops does both.

import { readdir, readFile, writeFile } from 'node:fs/promises';
import { dump } from 'js-yaml';
import { dashboards } from './dashboards/all.mjs';
import { path, readObjectives } from './objectives.mjs';
import { ruleTests } from './rule_tests.mjs';
import { rules } from './rules.mjs';

const [RULES, TESTS, DASHBOARDS] = ['deploy/prometheus/rules', 'deploy/prometheus/rules/tests', 'deploy/grafana/dashboards'];
const BANNER = '# Generated from deploy/slo/objectives.json by `make ops`. Do not edit.\n';

const yaml = (value) => BANNER + dump(value, { lineWidth: -1, noRefs: true });

async function generated() {
  const file = await readObjectives();
  const tests = Object.entries(ruleTests(file)).map(([name, test]) => [`${TESTS}/${name}.yml`, yaml(test)]);
  const drawn = dashboards(file).map((one) => [`${DASHBOARDS}/${one.uid}.json`, `${JSON.stringify(one, null, 2)}\n`]);
  const written = Object.entries(rules(file)).map(([name, groups]) => [`${RULES}/${name}.yml`, yaml(groups)]);
  return new Map([...written, ...tests, ...drawn]);
}

/** Files that nothing generates any more are as wrong as those that are out of date. */
async function left(wanted) {
  const names = await Promise.all(
    [RULES, TESTS, DASHBOARDS].map(async (place) => (await readdir(path(place))).map((name) => `${place}/${name}`)),
  );
  return names.flat().filter((name) => name !== TESTS && !wanted.has(name));
}

const mode = process.argv[2];
if (mode !== 'write' && mode !== 'check') {
  console.error('usage: node generator/main.mjs write|check');
  process.exit(2);
}

const files = await generated();
const stale = [];
for (const [name, text] of files) {
  if (mode === 'write') {
    await writeFile(path(name), text);
    console.log(`wrote ${name}`);
  } else if ((await readFile(path(name), 'utf8').catch(() => '')) !== text) {
    stale.push(name);
  }
}
const extra = await left(files);
if (extra.length > 0) {
  console.error(`nothing writes these any more, delete them: ${extra.join(', ')}`);
  process.exit(1);
}
if (stale.length > 0) {
  console.error(`not what the objectives and the generator say: ${stale.join(', ')}`);
  console.error('run `make ops` and commit what it writes');
  process.exit(1);
}
