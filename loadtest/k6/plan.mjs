// What a load run does: how many clients and publications each load has, when it begins, and what must hold. Pure:
// sizes in, the options of k6 out. `docs/load-testing.md` describes the loads.

import { REASONS } from './contract.mjs';

/** Everything is published here: no person's tasks are on it, and a node computes nothing from it. */
export const SUBSCRIPTION = 'project_index';
export const MESSAGE_TYPE = 'project_index_update';

/** Clients have this long to join before the first publication. */
const LEAD_S = 2;

/** After the last publication, for what is on its way and for the last questions and closes. */
const TAIL_S = 1;

/** How far behind its plan a load may be on a busy machine before its clients count what is missing. */
const GRACE_S = 15;

/** After that k6 cuts it off, and the clients that have not ended are missing from the count. */
const CUT_OFF_S = 15;

/** A soak shorter than this is no soak, one longer than a day is a monitoring system. */
const SOAK_S = { usual: 600, min: 120, max: 86_400 };

/** Of the time of a soak. */
const SHARES = {
  connect_ramp: 0.06,
  steady_fanout: 0.44,
  burst: 0.12,
  slow_readers: 0.12,
  reconnect_storm: 0.14,
  rate_limit_abuse: 0.12,
};

/** How long one abuser goes on, from its burst to its last question: the cooldown of 5 s twice, nearly. */
const ABUSE_S = 11;

/** Seconds for each load of the short run. */
const SMOKE_S = {
  connect_ramp: 5,
  steady_fanout: 8,
  burst: 6,
  slow_readers: 8,
  reconnect_storm: 9,
  rate_limit_abuse: 12,
};

/**
 * The loads by name. `vus` × `sockets` clients; `streams` publishers with so many publications each, at `rate` per
 * second, or in bursts of `burst` as fast as they are acknowledged with `pause` seconds in between.
 */
function loads(seconds, big) {
  const fed = (name) => Math.max(1, seconds[name] - LEAD_S - TAIL_S);
  const paced = (name, rate) => ({ streams: 1, rate, publications: Math.round(fed(name) * rate), bytes: 512, keys: 10 });
  const bursts = Math.max(1, Math.floor(fed('burst') / 2));
  const slowRate = 40;
  const storm = { first: LEAD_S + 1, every: 2.5 };
  const rounds = Math.max(1, Math.floor((fed('reconnect_storm') - 1) / storm.every));
  return {
    connect_ramp: { vus: 6, sockets: 10 * big, ramp: seconds.connect_ramp - 2, hold: 1 },
    steady_fanout: { vus: 8, sockets: 5 * big, ...paced('steady_fanout', 20) },
    burst: { vus: 4, sockets: 3 * big, streams: 4, burst: 20, pause: 1.5, publications: 20 * bursts, bytes: 512, keys: 10 },
    // Large, so that the kernel's buffers and those of a balancer fill up.
    slow_readers: {
      vus: 2, sockets: 2, slow: 2, streams: 1, rate: slowRate,
      publications: Math.round(fed('slow_readers') * slowRate), bytes: 60_000, keys: 4,
    },
    reconnect_storm: { vus: 8, sockets: 5 * big, ...paced('reconnect_storm', 20), storm: { ...storm, rounds } },
    rate_limit_abuse: {
      vus: 4, sockets: 5, ...paced('rate_limit_abuse', 20),
      abusers: 1, repeats: Math.max(1, Math.floor(seconds.rate_limit_abuse / ABUSE_S)),
    },
  };
}

/** `{mode, seconds, loads: {name: {…, start, seconds}}}`; `only` names the loads to run, all when it is empty. */
export function planOf({ mode, duration = '', only = '' }) {
  const seconds = mode === 'soak' ? soakSeconds(duration) : SMOKE_S;
  if (!['smoke', 'soak'].includes(mode)) throw new Error(`a load run is smoke or soak, not ${mode}`);
  const all = loads(seconds, mode === 'soak' ? 2 : 1);
  const wanted = only === '' ? Object.keys(all) : only.split(',');
  const unknown = wanted.filter((name) => all[name] === undefined);
  if (unknown.length > 0) throw new Error(`no such load: ${unknown.join(', ')}; there are ${Object.keys(all).join(', ')}`);
  const plan = { mode, seconds: 0, loads: {} };
  for (const name of Object.keys(all).filter((name) => wanted.includes(name))) {
    const start = plan.seconds;
    plan.loads[name] = { ...all[name], start, seconds: seconds[name], deadline: seconds[name] + GRACE_S };
    plan.seconds += seconds[name];
  }
  return plan;
}

function soakSeconds(duration) {
  const total = duration === '' ? SOAK_S.usual : secondsOf(duration);
  if (!(total >= SOAK_S.min && total <= SOAK_S.max)) {
    throw new Error(`DURATION=${duration}: a soak takes from ${SOAK_S.min} s to ${SOAK_S.max} s, such as 10m`);
  }
  return Object.fromEntries(Object.entries(SHARES).map(([name, share]) => [name, Math.round(total * share)]));
}

/** `90`, `90s`, `10m` or `2h`. */
function secondsOf(text) {
  const [, number, unit] = /^(\d{1,6})([smh]?)$/.exec(text) ?? [];
  return Number(number) * { s: 1, m: 60, h: 3_600 }[unit || 's'];
}

/** How many publications each of a load's streams will have, by name. */
export function streamsOf(name, { streams = 0, publications }) {
  return Object.fromEntries(Array.from({ length: streams }, (_, k) => [streamName(name, k), publications]));
}

export function streamName(load, k) {
  return `${load}.${k}`;
}

/** Every client of a load that has to end by itself, the odd ones included. */
export function clientsOf({ vus, sockets, slow = 0, abusers = 0, repeats = 1 }) {
  return vus * sockets + slow + abusers * repeats;
}

/** The scenarios of k6. */
export function scenariosOf({ loads }) {
  const scenarios = {};
  for (const [name, load] of Object.entries(loads)) {
    const add = (suffix, exec, vus, more = {}) => {
      scenarios[name + suffix] = {
        executor: 'per-vu-iterations',
        exec,
        vus,
        iterations: 1,
        startTime: `${load.start}s`,
        maxDuration: `${load.deadline + CUT_OFF_S}s`,
        gracefulStop: '5s',
        env: { LOAD: name },
        tags: { load: name },
        ...more,
      };
    };
    add('', 'clients', load.vus);
    if (load.streams) add('_publishers', 'publish', load.streams, { startTime: `${load.start + LEAD_S}s` });
    if (load.slow) add('_slow', 'slow', load.slow);
    if (load.abusers) add('_abusers', 'abuse', load.abusers, { iterations: load.repeats });
  }
  return scenarios;
}

/** How often a load's clients went on by replay. */
export function replaysOf(name) {
  return `load_resumed{load:${name},how:replay}`;
}

const SHOWN_COUNTS = ['load_explained', 'load_sent_off', 'load_rate_limited'];
const SHOWN_TRENDS = ['load_handshake_ms', 'load_resume_ms', 'load_publish_ms'];

/** `report` shows how long publications took and lets it be; anything else but `enforce` is a mistake. */
export function latencyOf(text) {
  const latency = text || 'enforce';
  if (!['enforce', 'report'].includes(latency)) throw new Error(`LATENCY=${text}: it is enforce or report`);
  return latency;
}

/** The thresholds of k6: the objectives, and that everything planned really happened. */
export function thresholdsOf({ loads }, objectives, latency = 'enforce') {
  const { percent, ms } = objectives.latency;
  const atOnce = [{ threshold: 'count==0', abortOnFail: true }];
  const thresholds = { load_violations: atOnce };
  for (const reason of Object.keys(REASONS)) thresholds[`load_violations{reason:${reason}}`] = atOnce;
  for (const [name, load] of Object.entries(loads)) {
    const of = (metric) => `${metric}{load:${name}}`;
    thresholds[of('load_handshake_ok')] = [`rate>=${objectives.handshake}`];
    thresholds[of('load_clients_done')] = [`count>=${clientsOf(load)}`];
    // These hold always. k6 sums up by load only what has a threshold by load.
    for (const metric of SHOWN_COUNTS) thresholds[of(metric)] = ['count>=0'];
    for (const metric of SHOWN_TRENDS) thresholds[of(metric)] = ['max>=0'];
    if (load.storm) thresholds[replaysOf(name)] = ['count>=0'];
    if (!load.streams) continue;
    thresholds[of('load_delivery_ok')] = [`rate>=${objectives.delivery}`];
    thresholds[of('load_publish_to_socket_ms')] = [latency === 'report' ? 'max>=0' : `p(${percent})<=${ms}`];
    thresholds[of('load_published')] = [`count>=${load.streams * load.publications}`];
    // Who comes when all is published has nothing due: half is enough to say that something was measured.
    thresholds[of('load_deliveries')] = [`count>=${Math.ceil((load.vus * load.sockets * load.streams * load.publications) / 2)}`];
  }
  return thresholds;
}
