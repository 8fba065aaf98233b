// Recording rules and alerts from the objectives.
//
// A burn rate says how fast an error budget is used up: at 1 it lasts exactly for its window. An alert needs
// a long window, so that a short fault does not wake anybody, and a short one, so that it ends soon after
// the fault has (Google's SRE workbook, chapter 5).
//
// Everything is computed per `job`: what is scraped as one job is one deployment.

import { anchor, budget, pascal, selector, windows } from './objectives.mjs';

/** Whether a node's control view is older than it may be; the samples of this are what freshness counts. */
const LATE = 'hiveops:slo_late:bool';

/** A file per objective, and one for what no objective sees. */
export function rules(file) {
  const groups = Object.entries(file.objectives).map(([name, objective]) => [name, group(file, name, objective)]);
  return Object.fromEntries([...groups, ['nodes', nodes(file)]].map(([name, one]) => [name, { groups: [one] }]));
}

export function alertName(name, burn) {
  return `HiveOps${pascal(name)}Burn${pascal(burn)}`;
}

function group(file, name, objective) {
  const labels = { objective: name };
  const record = (record, expr) => ({ record, expr, labels });
  const share = budget(objective);
  const recorded = [];
  if (objective.sli.kind === 'freshness') {
    const { gauge, limit_seconds } = objective.sli;
    recorded.push(record(LATE, `${gauge} > bool ${limit_seconds}`));
  }
  recorded.push(
    record('hiveops:slo_target:ratio', `vector(${objective.target})`),
    record('hiveops:slo_bad:rate5m', bad(name, objective.sli, '5m')),
    record('hiveops:slo_total:rate5m', total(name, objective.sli, '5m')),
  );
  for (const window of windows(file)) {
    const expr = `(\n  ${bad(name, objective.sli, window)}\n)\n/\n(\n  (${total(name, objective.sli, window)}) > 0\n)\n/ ${share}`;
    recorded.push(record(`hiveops:slo_burn:rate${window}`, expr));
  }
  const [slo, days] = [`{objective="${name}"}`, `${file.window_days}d`];
  recorded.push(
    record(
      `hiveops:slo_budget_left:ratio${days}`,
      `1 - (\n  sum_over_time(hiveops:slo_bad:rate5m${slo}[${days}])\n  /\n  (sum_over_time(hiveops:slo_total:rate5m${slo}[${days}]) > 0)\n) / ${share}`,
    ),
  );
  const alerts = file.burn_rates.map((burn) => alert(file, name, objective, burn));
  return { name: `hiveops-slo-${name}`, rules: [...recorded, ...alerts] };
}

function alert(file, name, objective, { name: burn, long, short, rate, severity }) {
  const over = (window) => `hiveops:slo_burn:rate${window}{objective="${name}"} > ${rate}`;
  return {
    alert: alertName(name, burn),
    expr: `${over(long)}\nand\n${over(short)}\nand on (job)\n(\n  ${events(name, objective.sli, long)}\n) >= ${file.min_bad_events}`,
    labels: { severity, objective: name, burn },
    annotations: {
      summary: `${objective.title}: the error budget of ${file.window_days} days burns ${rate} times as fast as it may`,
      description: `It burned {{ $value | printf "%.1f" }} times as fast as it may over ${long}, and still does over ${short}. Promised is: ${objective.promise} (${percent(objective.target)} %).`,
      runbook_url: `${file.runbook}#${anchor(objective.title)}`,
      dashboard_url: `${file.dashboard}?var-objective=${name}&var-job={{ $labels.job }}`,
    },
  };
}

/** Objectives have no data when no node can be scraped, and then none of them fires. */
function nodes(file) {
  const links = { runbook_url: `${file.runbook}#nodes`, dashboard_url: '/d/hiveops-cluster' };
  return {
    name: 'hiveops-nodes',
    rules: [
      {
        alert: 'HiveOpsNodeDown',
        expr: `up{job="${file.job}"} == 0`,
        for: '2m',
        labels: { severity: 'ticket' },
        annotations: {
          summary: 'A node cannot be scraped',
          description: 'Prometheus has had no metrics of {{ $labels.instance }} for 2 minutes.',
          ...links,
        },
      },
      {
        alert: 'HiveOpsNoNodes',
        // Without the job, the nodes of another deployment would hide that those of this one are away.
        expr: `absent(hiveops_ws_connections_active{job="${file.job}"})`,
        for: '2m',
        labels: { severity: 'page' },
        annotations: {
          summary: 'No node can be scraped',
          description: 'Prometheus has had no metrics of any node for 2 minutes. No objective can be judged, and no other alert fires.',
          ...links,
        },
      },
    ],
  };
}

const sum = (function_, series, window) => `sum by (job) (${function_}(${series}[${window}]))`;

/** What went wrong, per second; of freshness, samples. */
function bad(name, sli, window) {
  return wrong(name, sli, window, 'rate');
}

/** How often something went wrong within the window. */
function events(name, sli, window) {
  return wrong(name, sli, window, 'increase');
}

function wrong(name, sli, window, function_) {
  switch (sli.kind) {
    case 'ratio':
      return sli.bad.map((one) => sum(function_, selector(one), window)).join('\n  + ');
    case 'latency': {
      const within = `${sli.histogram}_bucket{le="${sli.threshold_seconds}"}`;
      return `clamp_min(${sum(function_, `${sli.histogram}_count`, window)} - ${sum(function_, within, window)}, 0)`;
    }
    case 'freshness':
      return sum('sum_over_time', `${LATE}{objective="${name}"}`, window);
  }
}

/** Everything that counts, in the same unit. */
function total(name, sli, window) {
  switch (sli.kind) {
    case 'ratio':
      return [...sli.bad, ...sli.good].map((one) => sum('rate', selector(one), window)).join('\n  + ');
    case 'latency':
      return sum('rate', `${sli.histogram}_count`, window);
    case 'freshness':
      return sum('count_over_time', `${LATE}{objective="${name}"}`, window);
  }
}

function percent(share) {
  return Number((share * 100).toPrecision(10));
}
