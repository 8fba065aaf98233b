// What a load run says at its end: an object for programs, and a text of the same for people. Pure: it reads what k6
// hands to `handleSummary`.

import { REASONS } from './contract.mjs';
import { clientsOf, replaysOf } from './plan.mjs';

/** What it means when the threshold of a metric is missed, in one word and in a sentence. */
const MEANINGS = {
  load_handshake_ok: ['handshake', 'too many handshakes did not lead to a session'],
  load_delivery_ok: ['delivery', 'too many publications neither came nor were explained'],
  load_publish_to_socket_ms: ['latency', 'publications took too long from the publisher to the socket'],
  load_clients_done: ['clients', 'clients were cut off or failed before their end'],
  load_published: ['published', 'not everything planned was published'],
  load_deliveries: ['measured', 'too little was delivered for the run to say anything'],
};

const NAME = /^([a-z_]+)(?:\{([a-z]+):([a-z_]+)\})?$/;

/** `{mode, ok, seconds, objectives, latency, failed, violations, loads}`. */
export function resultOf({ metrics, state }, plan, objectives, latency = 'enforce') {
  const failed = failuresOf(metrics, plan);
  const violations = {};
  for (const reason of Object.keys(REASONS)) {
    const count = metrics[`load_violations{reason:${reason}}`]?.values.count ?? 0;
    if (count > 0) violations[reason] = count;
  }
  const loads = Object.fromEntries(Object.entries(plan.loads).map(([name, load]) => [name, loadOf(metrics, name, load)]));
  const seconds = Math.round(state.testRunDurationMs / 100) / 10;
  return { mode: plan.mode, ok: failed.length === 0, seconds, objectives, latency, failed, violations, loads };
}

function failuresOf(metrics, plan) {
  const failed = [];
  for (const [key, { thresholds = {}, values }] of Object.entries(metrics)) {
    const [, metric, tag, value] = NAME.exec(key) ?? [];
    for (const [threshold, { ok }] of Object.entries(thresholds)) {
      if (ok) continue;
      // The sum of all reasons, which are named themselves.
      if (metric === 'load_violations' && tag === undefined) continue;
      const [reason, meaning] = tag === 'reason' ? [value, REASONS[value]] : MEANINGS[metric];
      failed.push({ reason, meaning, load: tag === 'load' ? value : null, threshold, measured: measured(threshold, values) });
    }
  }
  // In an order that is the same each time: what the contract forbids comes first.
  const order = [...Object.keys(REASONS), ...Object.values(MEANINGS).map(([reason]) => reason)];
  const loads = Object.keys(plan.loads);
  const place = ({ reason, load }) => order.indexOf(reason) * loads.length + loads.indexOf(load);
  return failed.sort((a, b) => place(a) - place(b));
}

/** The figure that a threshold such as `p(95)<=250` is about. */
function measured(threshold, values = {}) {
  const [name] = threshold.split(/[<>=]/);
  return values[name] ?? null;
}

function loadOf(metrics, name, load) {
  const of = (metric) => metrics[`${metric}{load:${name}}`]?.values ?? {};
  const latency = of('load_publish_to_socket_ms');
  const [handshakes, delivery] = [of('load_handshake_ok'), of('load_delivery_ok')];
  const tries = (handshakes.passes ?? 0) + (handshakes.fails ?? 0);
  const due = (delivery.passes ?? 0) + (delivery.fails ?? 0);
  const resumed = of('load_resume_ms');
  return {
    clients: { planned: clientsOf(load), ended: of('load_clients_done').count ?? 0 },
    handshakes: { tries, failed: handshakes.fails ?? 0 },
    published: of('load_published').count ?? 0,
    due,
    delivered: of('load_deliveries').count ?? 0,
    explained: of('load_explained').count ?? 0,
    missing: delivery.fails ?? 0,
    publish_to_socket_ms: trend(latency),
    handshake_ms: trend(of('load_handshake_ms')),
    resume_ms: trend(resumed),
    replays: metrics[replaysOf(name)]?.values.count ?? 0,
    sent_off: of('load_sent_off').count ?? 0,
    rate_limited: of('load_rate_limited').count ?? 0,
  };
}

function trend({ count = 0, med, max, ...values }) {
  return count === 0 ? null : { count, p50: med, p95: values['p(95)'], p99: values['p(99)'], max };
}

const COLUMNS = [
  ['load', (name) => name],
  ['clients', (_, { clients }) => (clients.ended === clients.planned ? clients.ended : `${clients.ended}/${clients.planned}`)],
  ['handshakes', (_, { handshakes }) => (handshakes.failed === 0 ? handshakes.tries : `${handshakes.tries - handshakes.failed}/${handshakes.tries}`)],
  ['published', (_, { published }) => published || '-'],
  ['delivered', (_, { delivered }) => delivered || '-'],
  ['explained', (_, { explained }) => explained || '-'],
  ['missing', (_, { missing, due }) => (due === 0 ? '-' : missing)],
  ['p50 ms', (_, { publish_to_socket_ms: ms }) => figure(ms?.p50)],
  ['p95 ms', (_, { publish_to_socket_ms: ms }) => figure(ms?.p95)],
  ['max ms', (_, { publish_to_socket_ms: ms }) => figure(ms?.max)],
];

/** The result as a table, what else happened, and everything that failed. */
export function textOf({ mode, ok, seconds, objectives, latency: enforced, failed, violations, loads }) {
  const rows = [COLUMNS.map(([title]) => title)];
  for (const [name, load] of Object.entries(loads)) rows.push(COLUMNS.map(([, cell]) => String(cell(name, load))));
  const widths = COLUMNS.map((_, at) => Math.max(...rows.map((row) => row[at].length)));
  const line = (row) => row.map((cell, at) => (at === 0 ? cell.padEnd(widths[at]) : cell.padStart(widths[at]))).join('  ');
  const lines = ['', ...rows.map(line), '', ...notesOf(loads)];
  const isAborted = Object.keys(violations).length > 0;
  for (const { reason, meaning, load, threshold, measured } of failed) {
    // A violation ends the run: what else is missing then is missing because of that.
    if (isAborted && REASONS[reason] === undefined) continue;
    lines.push(`FAILED ${reason}${load === null ? '' : ` in ${load}`}: ${meaning} (${threshold}, measured ${figure(measured)})`);
  }
  const { delivery, handshake, latency } = objectives;
  lines.push(
    `objectives: delivery ${percent(delivery)}, handshakes ${percent(handshake)}, p${latency.percent} within ${latency.ms} ms${enforced === 'report' ? ' (reported, not enforced)' : ''}`,
    `load run ${mode}: ${ok ? 'passed' : isAborted ? 'FAILED and ended' : 'FAILED'} after ${seconds} s`,
    '',
  );
  return lines.join('\n');
}

function notesOf(loads) {
  const notes = [];
  for (const [name, load] of Object.entries(loads)) {
    const { handshake_ms: handshake, resume_ms: resume, replays, sent_off: sentOff, rate_limited: limited } = load;
    if (name === 'connect_ramp' && handshake) notes.push(`${name}: a session stood after ${figure(handshake.p50)} ms (p50), ${figure(handshake.max)} ms at most`);
    if (resume) notes.push(`${name}: ${resume.count} times back after ${figure(resume.p50)} ms (p50), ${figure(resume.max)} ms at most, ${replays} by replay`);
    if (limited > 0) notes.push(`${name}: ${limited} times told of the rate limit, as documented`);
    if (sentOff > 0) notes.push(`${name}: ${sentOff} sent off with a notice`);
    if (name === 'slow_readers' && load.explained + sentOff === 0) {
      notes.push(`${name}: nobody was slow enough for the node to notice: the kernel, or what is in between, held it all`);
    }
  }
  return notes.length > 0 ? [...notes, ''] : notes;
}

function figure(number) {
  return typeof number === 'number' ? String(Math.round(number * 1_000) / 1_000) : '-';
}

function percent(ratio) {
  return `${figure(ratio * 100)} %`;
}
