// Reads and checks deploy/slo/objectives.json, and writes its selectors as PromQL. docs/slo.md explains the
// members; `cli/src/command/slo/objectives.rs` reads the same file.

import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const FILE = 'deploy/slo/objectives.json';
const NAME = /^[a-z][a-z_]*$/;
const WINDOW = /^[1-9][0-9]*[mhd]$/;

export const root = new URL('../../', import.meta.url);
export const path = (name) => fileURLToPath(new URL(name, root));

export async function readObjectives() {
  const file = JSON.parse(await readFile(path(FILE), 'utf8'));
  checkFile(file);
  return file;
}

/** Throws with the first mistake; a generator that guesses would write alerts that never fire. */
export function checkFile(file) {
  const wrong = (problem) => {
    throw new Error(`${FILE}: ${problem}`);
  };
  if (file.version !== 1) wrong(`version ${file.version} is not known`);
  for (const member of ['service', 'runbook', 'dashboard', 'job']) {
    if (typeof file[member] !== 'string' || file[member] === '') wrong(`\`${member}\` is not a text`);
  }
  for (const member of ['window_days', 'scrape_interval_seconds', 'min_bad_events']) {
    if (!Number.isInteger(file[member]) || file[member] < 1) wrong(`\`${member}\` is not a whole number above 0`);
  }
  if (!Array.isArray(file.burn_rates) || file.burn_rates.length === 0) wrong('there are no `burn_rates`');
  for (const { name, long, short, rate, severity } of file.burn_rates) {
    if (!NAME.test(name)) wrong(`\`${name}\` is no name for a burn rate`);
    if (!WINDOW.test(long) || !WINDOW.test(short)) wrong(`burn rate \`${name}\`: windows are like 5m, 6h, 3d`);
    if (minutes(short) >= minutes(long)) wrong(`burn rate \`${name}\`: the short window is not the shorter one`);
    if (!(rate > 0)) wrong(`burn rate \`${name}\`: ${rate} is no rate`);
    if (severity !== 'page' && severity !== 'ticket') wrong(`burn rate \`${name}\`: severity is page or ticket`);
  }
  if (Object.keys(file.objectives ?? {}).length === 0) wrong('there are no `objectives`');
  for (const [name, objective] of Object.entries(file.objectives)) {
    if (!NAME.test(name)) wrong(`\`${name}\` is no name for an objective`);
    if (!(objective.target > 0 && objective.target < 1)) wrong(`objective \`${name}\`: target is between 0 and 1`);
    if (!objective.title || !objective.promise) wrong(`objective \`${name}\`: \`title\` or \`promise\` is missing`);
    const fastest = Math.max(...file.burn_rates.map(({ rate }) => rate));
    if (fastest * budget(objective) >= 1) {
      wrong(`objective \`${name}\`: with so large a budget nothing burns ${fastest} times as fast as it may`);
    }
    checkSli(objective.sli, (problem) => wrong(`objective \`${name}\`: ${problem}`));
  }
}

function checkSli(sli, wrong) {
  switch (sli?.kind) {
    case 'ratio':
      for (const side of ['bad', 'good']) {
        if (!Array.isArray(sli[side]) || sli[side].length === 0) wrong(`a ratio needs \`${side}\``);
        for (const { metric, label, values } of sli[side]) {
          if (typeof metric !== 'string') wrong('a selector without a `metric`');
          if ((label === undefined) !== (values === undefined)) wrong(`${metric}: \`label\` and \`values\` come together`);
          if (values?.length === 0) wrong(`${metric}: \`values\` is empty`);
        }
      }
      break;
    case 'latency':
      if (typeof sli.histogram !== 'string' || !(sli.threshold_seconds > 0)) wrong('a latency needs a histogram and a threshold');
      break;
    case 'freshness':
      if (typeof sli.gauge !== 'string' || !(sli.limit_seconds > 0)) wrong('a freshness needs a gauge and a limit');
      break;
    default:
      wrong(`\`${sli?.kind}\` is no kind of SLI`);
  }
}

/** 1 - target, without the noise of binary fractions. */
export function budget(objective) {
  return Number((1 - objective.target).toPrecision(10));
}

export function minutes(window) {
  return Number(window.slice(0, -1)) * { m: 1, h: 60, d: 1440 }[window.at(-1)];
}

/** Every window that a burn rate needs, the shortest first. */
export function windows(file) {
  const all = new Set(['5m', ...file.burn_rates.flatMap(({ long, short }) => [long, short])]);
  return [...all].sort((a, b) => minutes(a) - minutes(b));
}

/** Words of a name, each with a capital: `control_view` is `ControlView`. */
export function pascal(name) {
  return name.split('_').map((word) => word[0].toUpperCase() + word.slice(1)).join('');
}

/** Where in the runbook an objective is: the anchor of its heading. */
export function anchor(title) {
  return title.toLowerCase().replaceAll(' ', '-');
}

export function selector({ metric, label, values }) {
  if (label === undefined) return metric;
  return values.length === 1 ? `${metric}{${label}="${values[0]}"}` : `${metric}{${label}=~"${values.join('|')}"}`;
}
