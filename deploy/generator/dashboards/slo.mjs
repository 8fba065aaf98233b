// The objectives: what is promised, what is left of each error budget, and how fast it burns.

import { windows } from '../objectives.mjs';
import { JOB, dashboard, graph, stat, values } from './panels.mjs';

const CHOSEN = 'objective="$objective",job=~"$job"';
const LEFT_STEPS = [
  { value: null, color: 'red' },
  { value: 0, color: 'orange' },
  { value: 0.25, color: 'green' },
];

export function slo(file) {
  const left = `hiveops:slo_budget_left:ratio${file.window_days}d`;
  const every = Object.entries(file.objectives).map(([name, objective]) =>
    stat(`${objective.title}: budget left`, 'percentunit', `min (${left}{objective="${name}",job=~"$job"})`, {
      what: `${objective.promise[0].toUpperCase()}${objective.promise.slice(1)}. Below 0 the promise of ${file.window_days} days is broken.`,
      steps: LEFT_STEPS,
    }),
  );
  const burns = file.burn_rates.map(({ name, long, short, rate, severity }) =>
    graph(
      `Burn rate "${name}": ${severity} above ${rate} over ${long} and ${short}`,
      'none',
      [
        [`hiveops:slo_burn:rate${long}{${CHOSEN}}`, `${long} {{job}}`],
        [`hiveops:slo_burn:rate${short}{${CHOSEN}}`, `${short} {{job}}`],
        [`vector(${rate})`, 'alert'],
      ],
      { what: 'The alert fires while both are above its line.' },
    ),
  );
  return dashboard({
    uid: 'hiveops-slo',
    title: 'HiveOps: objectives',
    what: 'What is promised, what is left of the error budgets, and how fast they burn. Generated from deploy/slo/objectives.json.',
    variables: [JOB(), values('objective', 'Objective', 'hiveops:slo_target:ratio', { all: false })],
    from: 'now-6h',
    rows: [
      ['All objectives', [...every, stat('Alerts that fire', 'short', 'count(ALERTS{alertname=~"HiveOps.*",alertstate="firing"}) or vector(0)')]],
      [
        'Objective $objective',
        [
          stat('Promised', 'percentunit', 'max (hiveops:slo_target:ratio{objective="$objective"})'),
          stat('Held, last 5 minutes', 'percentunit', `1 - sum (hiveops:slo_bad:rate5m{${CHOSEN}}) / sum (hiveops:slo_total:rate5m{${CHOSEN}})`),
          graph('Budget left', 'percentunit', [[`${left}{${CHOSEN}}`, '{{job}}']], { max: 1 }),
          graph('Events and what of them is bad', 'cps', [
            [`sum (hiveops:slo_total:rate5m{${CHOSEN}})`, 'all'],
            [`sum (hiveops:slo_bad:rate5m{${CHOSEN}})`, 'bad'],
          ], { what: 'Per second; of freshness, looks at a node.' }),
        ],
      ],
      ['How fast it burns', [
        ...burns,
        graph('Every window', 'none', windows(file).map((window) => [`hiveops:slo_burn:rate${window}{${CHOSEN}}`, window]), {
          what: 'At 1 the budget lasts exactly as long as it must.',
        }),
      ]],
      ['What fires', [
        graph('Alerts', 'short', [['sum by (alertname, severity) (ALERTS{alertname=~"HiveOps.*",alertstate="firing"})', '{{severity}} {{alertname}}']], {
          empty: 'no alert fires',
        }),
      ]],
    ],
  });
}
