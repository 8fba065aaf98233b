// The script that k6 runs; `scripts/ws-load` starts it and `docs/load-testing.md` explains it. Here the loads of
// `plan.mjs` become clients and publishers.

import exec from 'k6/execution';
import { sleep } from 'k6';
import { Abuse } from './abuse.mjs';
import { Client } from './client.mjs';
import { Contract } from './contract.mjs';
import { rateLimited, report } from './metrics.mjs';
import { Model } from './model.mjs';
import { objectivesOf } from './objectives.mjs';
import { latencyOf, planOf, scenariosOf, streamName, streamsOf, thresholdsOf } from './plan.mjs';
import { compileFrames } from './schema.mjs';
import { followSlowly } from './slow.mjs';
import { resultOf, textOf } from './summary.mjs';
import { mustBeReady, publish as publishOne, remove } from './target.mjs';

const objectives = objectivesOf(JSON.parse(open('../../deploy/slo/objectives.json')));
const checkFrame = compileFrames(JSON.parse(open('../../schemas/ws_messages.schema.json')), 'ServerFrame');
const plan = planOf({ mode: __ENV.LOAD_MODE || 'smoke', duration: __ENV.LOAD_DURATION, only: __ENV.LOAD_ONLY });
const latency = latencyOf(__ENV.LOAD_LATENCY);

/** What a name, JSON and the ids take of a publication. */
const OVERHEAD_BYTES = 150;

export const options = {
  scenarios: scenariosOf(plan),
  thresholds: thresholdsOf(plan, objectives, latency),
  summaryTrendStats: ['count', 'med', 'p(95)', 'p(99)', 'max'],
  setupTimeout: '20s',
  teardownTimeout: '30s',
};

export function setup() {
  mustBeReady();
  return { run: Date.now().toString(36) };
}

export function clients({ run }) {
  const name = __ENV.LOAD;
  const load = plan.loads[name];
  for (let i = 0; i < load.sockets; i += 1) {
    const index = exec.scenario.iterationInTest * load.sockets + i;
    const client = new Client({ ...watcher(run, name), name: `k6.${run}.${name}.client${index}`, ...lifeOf(load) });
    if (load.ramp) client.after('start', (load.ramp * 1_000 * index) / (load.vus * load.sockets), () => client.start());
    else client.start();
    for (let round = 0; round < (load.storm?.rounds ?? 0); round += 1) {
      const at = (load.storm.first + round * load.storm.every) * 1_000 - sinceStart();
      client.after(`storm${round}`, at, () => client.bounce());
    }
  }
}

export function publish({ run }) {
  const load = plan.loads[__ENV.LOAD];
  const stream = streamName(__ENV.LOAD, exec.scenario.iterationInTest);
  const pad = 'x'.repeat(Math.max(0, load.bytes - OVERHEAD_BYTES));
  const started = Date.now();
  for (let n = 1; n <= load.publications; n += 1) {
    if (load.rate) sleep(Math.max(0, started + ((n - 1) * 1_000) / load.rate - Date.now()) / 1_000);
    else if (n > 1 && n % load.burst === 1) sleep(load.pause);
    if (!publishOne({ run, stream, n, keys: load.keys, pad })) return;
  }
}

export function slow({ run }) {
  const load = plan.loads[__ENV.LOAD];
  const name = `k6.${run}.${__ENV.LOAD}.slow${exec.scenario.iterationInTest}`;
  const fed = (load.publications / load.rate) * 1_000;
  // It may be sent away for it.
  const watch = watcher(run, __ENV.LOAD, { closes: { 1013: 'backpressure' } });
  followSlowly({ name, ...watch, slowMs: fed, deadlineMs: load.deadline * 1_000 - sinceStart() });
}

export function abuse({ run }) {
  const load = plan.loads[__ENV.LOAD];
  const contract = new Contract(checkFrame, { errors: ['rate_limited'] });
  const model = new Model({ run, streams: {} });
  let limits;
  let watch = null;
  const act = (client) => {
    const now = Date.now();
    const step = watch.next(now);
    for (let i = 0; i < (step?.count ?? 0); i += 1) client.send({ type: 'ping' });
    if (step !== null) client.after('act', step.ms, () => act(client));
    else {
      client.after('rest', watch.restMs, () => {
        report(watch.judge(Date.now()));
        rateLimited.add(watch.errors);
        client.leave();
      });
    }
  };
  const hooks = {
    onFrame: (frame) => {
      if (frame.type === 'connection_established') limits = frame.limits;
      report(watch?.take(frame) ?? []);
    },
    onOpen: (client) => {
      watch = new Abuse({ limits, now: Date.now() });
      act(client);
    },
  };
  const name = `k6.${run}.${__ENV.LOAD}.abuser${exec.scenario.iterationInTest}`;
  new Client({ name, contract, model, hooks, stays: true, deadlineMs: load.deadline * 1_000 - sinceStart() }).start();
}

export function teardown({ run }) {
  for (const [name, load] of Object.entries(plan.loads)) {
    for (const stream of Object.keys(streamsOf(name, load))) remove(run, stream, load.keys);
  }
}

export function handleSummary(data) {
  const result = resultOf(data, plan, objectives, latency);
  const summary = { stdout: textOf(result) };
  if (__ENV.LOAD_RESULT) summary[__ENV.LOAD_RESULT] = `${JSON.stringify(result, null, 2)}\n`;
  return summary;
}

/** What judges a client of a load. */
function watcher(run, name, options = {}) {
  const model = new Model({ run, streams: streamsOf(name, plan.loads[name]) });
  return { model, contract: new Contract(checkFrame, options) };
}

/** How long a client lives: until it has everything, or as long as it holds. */
function lifeOf(load) {
  const deadlineMs = load.deadline * 1_000 - sinceStart();
  if (load.streams) return { deadlineMs };
  const hold = (load.ramp + load.hold) * 1_000 - sinceStart();
  return { deadlineMs, stays: true, hooks: { onOpen: (client) => client.after('hold', hold, () => client.leave()) } };
}

function sinceStart() {
  return Date.now() - exec.scenario.startTime;
}
