// What the dashboards are put together from: panels over PromQL, in rows, with the variables that all have.
//
// A panel that may show nothing says why, in a sentence that begins with `Empty as long as`; every other one must have
// data on a cluster under load, which cli/tests/it/prometheus.rs holds it to.

import {
  DashboardBuilder,
  DashboardLinkBuilder,
  DashboardLinkType,
  DatasourceVariableBuilder,
  QueryVariableBuilder,
  RowBuilder,
  ThresholdsConfigBuilder,
  ThresholdsMode,
  VariableRefresh,
  VariableSort,
} from '@grafana/grafana-foundation-sdk/dashboard';
import { DataqueryBuilder } from '@grafana/grafana-foundation-sdk/prometheus';
import { PanelBuilder as StatBuilder } from '@grafana/grafana-foundation-sdk/stat';
import { PanelBuilder as GraphBuilder } from '@grafana/grafana-foundation-sdk/timeseries';

const DATASOURCE = { type: 'prometheus', uid: '${datasource}' };
/** Of the 24 columns. */
const [GRAPH_WIDTH, GRAPH_HEIGHT, STAT_WIDTH, STAT_HEIGHT] = [8, 7, 4, 4];

/** Queries over the series that a dashboard's variables choose. */
export function over(selector) {
  const chosen = (metric) => `${metric}{${selector}}`;
  const by = (labels) => (labels === undefined ? '' : ` by (${labels})`);
  return {
    rate: (metric, labels) => `sum${by(labels)} (rate(${chosen(metric)}[$__rate_interval]))`,
    sum: (metric, labels) => `sum${by(labels)} (${chosen(metric)})`,
    max: (metric, labels) => `max${by(labels)} (${chosen(metric)})`,
    min: (metric, labels) => `min${by(labels)} (${chosen(metric)})`,
    quantile: (q, metric, labels) =>
      `histogram_quantile(${q}, sum by (${labels === undefined ? 'le' : `le, ${labels}`}) (rate(${chosen(`${metric}_bucket`)}[$__rate_interval])))`,
    mean: (metric, labels) =>
      `sum${by(labels)} (rate(${chosen(`${metric}_sum`)}[$__rate_interval])) / sum${by(labels)} (rate(${chosen(`${metric}_count`)}[$__rate_interval]))`,
  };
}

/**
 * Lines over time. `queries` are pairs of an expression and what its lines are called; with `exemplars` the
 * examples that nodes show beside a latency are points that name a trace and a publication.
 */
export function graph(title, unit, queries, { what, empty, max, exemplars } = {}) {
  const panel = filled(new GraphBuilder(), title, unit, queries, { what, empty, exemplars })
    .span(GRAPH_WIDTH)
    .height(GRAPH_HEIGHT)
    .fillOpacity(8)
    .min(0);
  return max === undefined ? panel : panel.max(max);
}

/** One number. `steps` colour it, from the lowest on. */
export function stat(title, unit, expr, { what, empty, steps, legend = '' } = {}) {
  const panel = filled(new StatBuilder(), title, unit, [[expr, legend]], { what, empty }).span(STAT_WIDTH).height(STAT_HEIGHT);
  if (steps === undefined) return panel;
  return panel.thresholds(new ThresholdsConfigBuilder().mode(ThresholdsMode.Absolute).steps(steps));
}

function filled(panel, title, unit, queries, { what, empty, exemplars = false }) {
  const description = [what, empty === undefined ? undefined : `Empty as long as ${empty}.`].filter((text) => text !== undefined);
  panel.title(title).unit(unit).datasource(DATASOURCE).description(description.join(' '));
  queries.forEach(([expr, legend], at) => {
    panel.withTarget(new DataqueryBuilder().refId(String.fromCharCode(65 + at)).datasource(DATASOURCE).expr(expr).legendFormat(legend).exemplar(exemplars).range());
  });
  return panel;
}

export const QUANTILES = [
  [0.5, 'p50'],
  [0.95, 'p95'],
  [0.99, 'p99'],
];

/** A dashboard of rows: `[title, panels]`. */
export function dashboard({ uid, title, what, variables, rows, from = 'now-3h', refresh = '30s' }) {
  const builder = new DashboardBuilder(title)
    .uid(uid)
    .description(what)
    .tags(['hiveops'])
    .timezone('browser')
    .editable()
    .time({ from, to: 'now' })
    .refresh(refresh)
    .link(new DashboardLinkBuilder('HiveOps').type(DashboardLinkType.Dashboards).tags(['hiveops']).asDropdown(true).keepTime(true).includeVars(true))
    .withVariable(new DatasourceVariableBuilder('datasource').label('Prometheus').type('prometheus'));
  variables.forEach((variable) => builder.withVariable(variable));
  let id = 0;
  for (const [name, panels] of rows) {
    builder.withRow(new RowBuilder(name).id((id += 1)));
    panels.forEach((panel) => builder.withPanel(panel.id((id += 1))));
  }
  return builder.build();
}

/** A variable with the values of a label. */
export function values(name, label, metric, { all = true } = {}) {
  const variable = new QueryVariableBuilder(name)
    .label(label)
    .query(`label_values(${metric}, ${name})`)
    .datasource(DATASOURCE)
    .refresh(VariableRefresh.OnTimeRangeChanged)
    .sort(VariableSort.AlphabeticalAsc);
  return all ? variable.includeAll(true).allValue('.*') : variable;
}

export const JOB = () => values('job', 'Deployment', 'hiveops_ws_connections_active');
export const INSTANCE = () => values('instance', 'Node', 'hiveops_ws_connections_active{job=~"$job"}');
