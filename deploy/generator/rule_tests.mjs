// The cases of `promtool test rules` for every alert that is generated: it fires, it stays silent, it fires
// although a node began anew meanwhile, it does not fire because one did, and it ends when the fault does.
//
// The input is counters as nodes would export them, with a known share that is bad. It does not use the
// expressions of the rules, so that a wrong one is found.

import { anchor, budget, minutes } from './objectives.mjs';
import { alertName } from './rules.mjs';

/** Per step, on one node. */
const EVENTS = 10_000;
/** What counters show when a case begins: the node has run for a while, so that beginning anew is a step down. */
const BEFORE = 10_000_000;
/** Above and below the rate that an alert fires at. */
const [ABOVE, BELOW] = [1.2, 0.8];
/** So much above that the long window still burns when the short one has passed without a fault. */
const WELL_ABOVE = 1.35;
/** A look at a gauge is late or it is not, so that shares need many; between two of them at most, in seconds. */
const LOOK_SECONDS_MAX = 600;
/** How much of the short window has passed, at least, when an alert must have ended. */
const OVER = 1.2;

/** One file per objective and burn rate: each rate has its own step, and only what it needs is evaluated. */
export function ruleTests(file) {
  const burns = Object.entries(file.objectives).flatMap(([name, objective]) =>
    file.burn_rates.map((burn) => [`${name}.${burn.name}`, burnTests(file, name, objective, burn)]),
  );
  return Object.fromEntries([...burns, ['nodes', nodeTests(file)]]);
}

function burnTests(file, name, objective, burn) {
  const step = stepSeconds(objective.sli, burn);
  const tests = cases(burn, step).map((one) => test(file, name, objective, burn, step, one));
  return document(name, step, tests);
}

/**
 * Fine enough for the short window, coarse enough for days of it. Of looks a second less, so that no window ends on
 * one: Prometheus 3 does not count one that is as old as the window, its predecessors do.
 */
function stepSeconds({ kind }, { short }) {
  const step = Math.max(1, Math.floor(minutes(short) / 6)) * 60;
  return kind === 'freshness' ? Math.min(step, LOOK_SECONDS_MAX) - 1 : step;
}

const stepsIn = (window, step) => (minutes(window) * 60) / step;

const duration = (seconds) => (seconds % 60 === 0 ? `${seconds / 60}m` : `${seconds}s`);

/** What happens, step by step: how much is bad, as a multiple of the rate, and whether the node begins anew. */
function cases({ long, short }, step) {
  const [whole, brief] = [Math.ceil(stepsIn(long, step)) + 2, Math.ceil(stepsIn(short, step) * OVER) + 1];
  return [
    { title: 'fires', phases: [{ steps: whole, share: ABOVE }], fires: true },
    { title: 'is silent', phases: [{ steps: whole, share: BELOW }], fires: false },
    {
      title: 'fires although the node began anew',
      phases: [{ steps: whole - brief, share: ABOVE }, { steps: brief, share: ABOVE, anew: true }],
      fires: true,
    },
    {
      title: 'is silent although the node began anew',
      phases: [{ steps: whole - brief, share: BELOW }, { steps: brief, share: BELOW, anew: true }],
      fires: false,
    },
    {
      title: 'ends soon after the fault, while the long window still burns',
      phases: [{ steps: whole, share: WELL_ABOVE }, { steps: brief, share: 0 }],
      fires: false,
    },
  ];
}

function test(file, name, objective, burn, step, { title, phases, fires }) {
  const end = phases.reduce((sum, { steps }) => sum + steps, 0) * step;
  const looks = objective.sli.kind === 'freshness' ? new Looks(objective, burn, step, phases) : null;
  const fault = burn.rate * budget(objective);
  const labels = { severity: burn.severity, objective: name, burn: burn.name, job: file.job };
  const shown = looks === null ? burn.rate * ABOVE : looks.lateShare(burn.long) / budget(objective);
  const expected = {
    exp_labels: labels,
    exp_annotations: {
      summary: `${objective.title}: the error budget of ${file.window_days} days burns ${burn.rate} times as fast as it may`,
      description: `It burned ${shown.toFixed(1)} times as fast as it may over ${burn.long}, and still does over ${burn.short}. Promised is: ${objective.promise} (${Number((objective.target * 100).toPrecision(10))} %).`,
      runbook_url: `${file.runbook}#${anchor(objective.title)}`,
      dashboard_url: `${file.dashboard}?var-objective=${name}&var-job=${file.job}`,
    },
  };
  const longBurns = phases.at(-1).share === 0;
  const eval_time = duration(end - step);
  const written = {
    name: `${alertName(name, burn.name)} ${title}`,
    interval: duration(step),
    input_series: looks === null ? series(file, objective.sli, phases, fault) : looks.series(file),
    alert_rule_test: [{ eval_time, alertname: alertName(name, burn.name), exp_alerts: fires ? [expected] : [] }],
  };
  if (longBurns) {
    // Otherwise the silence would say nothing of the short window.
    written.promql_expr_test = [
      {
        expr: `hiveops:slo_burn:rate${burn.long}{objective="${name}"} > bool ${burn.rate}`,
        eval_time,
        exp_samples: [{ labels: `{job="${file.job}", objective="${name}"}`, value: 1 }],
      },
    ];
  }
  return written;
}

/**
 * Looks at the gauge of so many nodes that one look in each short window is the share that is to be late. All that are
 * come from one node: late every so often, and as old as it may be in between, as the others always are.
 */
class Looks {
  #sli;
  #step;
  #nodes;
  /** Whether the one node is late, look by look. */
  #late;

  constructor(objective, burn, step, phases) {
    const fault = burn.rate * budget(objective);
    this.#sli = objective.sli;
    this.#step = step;
    this.#nodes = Math.round(1 / (fault * ABOVE * this.#in(burn.short)));
    this.#late = phases.flatMap(({ steps, share }) => {
      const every = Math.round(1 / (fault * share * this.#nodes));
      return Array.from({ length: steps }, () => every);
    }).map((every, look) => look % every === 0);
  }

  /** The share that is late in the window that ends with the last look. */
  lateShare(window) {
    const looks = this.#late.slice(-this.#in(window));
    return looks.filter((late) => late).length / (looks.length * this.#nodes);
  }

  series(file) {
    const { gauge, limit_seconds: limit } = this.#sli;
    const of = (node, values) => ({ series: `${gauge}{job="${file.job}",instance="n${node}"}`, values });
    const one = this.#runs().map(({ late, looks }) => repeated(late ? limit + 1 : limit, looks)).join(' ');
    const fresh = repeated(limit, this.#late.length);
    return [of(1, one), ...Array.from({ length: this.#nodes - 1 }, (_, at) => of(at + 2, fresh))];
  }

  #in(window) {
    return Math.floor(stepsIn(window, this.#step)) + 1;
  }

  /** Looks that are alike and follow each other. */
  #runs() {
    const runs = [];
    for (const late of this.#late) {
      if (runs.at(-1)?.late === late) runs.at(-1).looks += 1;
      else runs.push({ late, looks: 1 });
    }
    return runs;
  }
}

/** Two nodes, of which the second is silent, so that an alert must add them up. */
function series(file, sli, phases, fault) {
  const labels = (more, node = 'n1') =>
    `{${Object.entries({ job: file.job, instance: node, ...more }).map(([label, value]) => `${label}="${value}"`).join(',')}}`;
  const both = (metric, more, values) => [
    { series: metric + labels(more), values },
    { series: metric + labels(more, 'n2'), values: constant(phases, 0) },
  ];
  const [bad, good] = [(share) => Math.round(EVENTS * fault * share), (share) => EVENTS - Math.round(EVENTS * fault * share)];
  switch (sli.kind) {
    case 'ratio': {
      const each = (selectors) =>
        selectors.flatMap(({ metric, label, values }) => (values ?? [undefined]).map((value) => ({ metric, more: value === undefined ? {} : { [label]: value } })));
      const all = [
        ...each(sli.bad).map((one, at) => ({ ...one, values: at === 0 ? counter(phases, bad) : constant(phases, 0) })),
        ...each(sli.good).map((one, at) => ({ ...one, values: at === 0 ? counter(phases, good) : constant(phases, 0) })),
        // What is not named is the client's own, however often it happens.
        ...each(sli.bad).filter(({ more }) => Object.keys(more).length > 0).map(({ metric, more }) => ({
          metric,
          more: Object.fromEntries(Object.keys(more).map((label) => [label, 'malformed'])),
          values: counter(phases, () => EVENTS),
        })).slice(0, 1),
      ];
      return all.flatMap(({ metric, more, values }) => both(metric, more, values));
    }
    case 'latency':
      return [
        ...both(`${sli.histogram}_count`, {}, counter(phases, () => EVENTS)),
        ...both(`${sli.histogram}_bucket`, { le: '+Inf' }, counter(phases, () => EVENTS)),
        ...both(`${sli.histogram}_bucket`, { le: String(sli.threshold_seconds) }, counter(phases, good)),
        // Faster ones are good as well, and in the bucket above already.
        ...both(`${sli.histogram}_bucket`, { le: '0.001' }, constant(phases, 0)),
      ];
  }
}

/** Grows by what each phase gives per step; begins anew where a phase says so. */
function counter(phases, perStep) {
  let value = BEFORE;
  return phases
    .map(({ steps, share, anew }) => {
      if (anew) value = 0;
      const slope = perStep(share);
      const written = `${value}+${slope}x${steps - 1}`;
      value += slope * steps;
      return written;
    })
    .join(' ');
}

function constant(phases, value) {
  return repeated(value, phases.reduce((sum, { steps }) => sum + steps, 0));
}

function repeated(value, steps) {
  return `${value}+0x${steps - 1}`;
}

function nodeTests(file) {
  const down = { severity: 'ticket', job: file.job, instance: 'n1' };
  const links = { runbook_url: `${file.runbook}#nodes`, dashboard_url: '/d/hiveops-cluster' };
  const isDown = {
    exp_labels: down,
    exp_annotations: {
      summary: 'A node cannot be scraped',
      description: 'Prometheus has had no metrics of n1 for 2 minutes.',
      ...links,
    },
  };
  const nobody = {
    exp_labels: { severity: 'page', job: file.job },
    exp_annotations: {
      summary: 'No node can be scraped',
      description: 'Prometheus has had no metrics of any node for 2 minutes. No objective can be judged, and no other alert fires.',
      ...links,
    },
  };
  const series = (metric, job, values) => ({ series: `${metric}{job="${job}",instance="n1"}`, values });
  const one = (name, alertname, metric, values, expected, others = []) => ({
    name: `${alertname} ${name}`,
    interval: '1m',
    input_series: [series(metric, file.job, values), ...others],
    alert_rule_test: [{ eval_time: '20m', alertname, exp_alerts: expected }],
  });
  const elsewhere = (metric, values) => [series(metric, `${file.job}-elsewhere`, values)];
  return document('nodes', 60, [
    one('fires', 'HiveOpsNodeDown', 'up', '1+0x15 0+0x5', [isDown]),
    one('is silent', 'HiveOpsNodeDown', 'up', '1+0x20', []),
    one('is silent although the node began anew', 'HiveOpsNodeDown', 'up', '1+0x18 0 1+0x2', []),
    one('fires', 'HiveOpsNoNodes', 'hiveops_ws_connections_active', '5+0x10 stale', [nobody]),
    one('fires although another job has nodes', 'HiveOpsNoNodes', 'hiveops_ws_connections_active', '5+0x10 stale', [nobody], elsewhere('hiveops_ws_connections_active', '5+0x20')),
    one('is silent without a session', 'HiveOpsNoNodes', 'hiveops_ws_connections_active', '0+0x20', []),
    one('is silent although the node began anew', 'HiveOpsNoNodes', 'hiveops_ws_connections_active', '5+0x17 stale 0+0x3', []),
  ]);
}

function document(rules, step, tests) {
  return { rule_files: [`../${rules}.yml`], evaluation_interval: duration(step), tests };
}
