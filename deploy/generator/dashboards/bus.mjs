// What is behind the nodes: the bus that the publications come over, and the control plane.

import { INSTANCE, JOB, QUANTILES, dashboard, graph, over, stat } from './panels.mjs';

const { rate, sum, max, min, quantile } = over('job=~"$job",instance=~"$instance"');
// Replicas are another job, and few: all of them are shown.
const replicas = over('');
const [NODE, REPLICA] = ['{{instance}}', '{{instance}}'];

export function bus() {
  return dashboard({
    uid: 'hiveops-bus',
    title: 'HiveOps: bus and control',
    what: 'The bus, the view that nodes have of the control plane, and its replicas.',
    variables: [JOB(), INSTANCE()],
    rows: [
      ['Now', [
        stat('Nodes with a live bus', 'short', sum('hiveops_ws_bus_live')),
        stat('Nodes that see each other', 'short', min('hiveops_cluster_nodes')),
        stat('Oldest control view', 's', max('hiveops_ws_control_view_age_seconds')),
        stat('Leaders', 'short', replicas.sum('hiveops_control_is_leader')),
        stat('Replicas with a quorum', 'short', replicas.sum('hiveops_control_quorum')),
      ]],
      ['The bus', [
        graph('Publications received', 'cps', [[rate('hiveops_bus_publications_total', 'instance'), NODE]]),
        graph('From a publication to its receipt', 's', QUANTILES.map(([q, name]) => [quantile(q, 'hiveops_ws_bus_seconds'), name]), {
          what: 'By the clock of the node that published and that of the node that received.',
        }),
        graph('Handed in by others', 'cps', [
          [rate('hiveops_bus_taken_in_total', 'source'), 'stored, {{source}}'],
          [rate('hiveops_bus_invalid_total', 'reason'), 'dropped, {{reason}}'],
        ]),
        graph('Publications that were refused', 'cps', [[rate('hiveops_bus_publications_refused_total', 'reason'), '{{reason}}']]),
        graph('Connections that ended and probes that failed', 'cps', [
          [rate('hiveops_bus_reconnects_total', 'instance'), `reconnects, ${NODE}`],
          [rate('hiveops_bus_probe_failures_total', 'instance'), `probes, ${NODE}`],
        ]),
        graph('Gaps, and what was read again', 'cps', [
          [rate('hiveops_bus_gaps_total'), 'gaps'],
          [rate('hiveops_bus_lagged_total'), 'dropped by the bus'],
          [rate('hiveops_bus_resyncs_total'), 'resyncs'],
          [rate('hiveops_bus_resets_total'), 'logs read anew'],
        ]),
        graph('Publications tried again, entries passed over', 'cps', [
          [rate('hiveops_bus_publish_retries_total'), 'tried again'],
          [rate('hiveops_bus_bad_entries_total'), 'passed over'],
        ]),
        graph('Nodes that each node sees', 'short', [[max('hiveops_cluster_nodes', 'instance'), NODE]]),
        graph('What other nodes said and was dropped', 'cps', [[rate('hiveops_cluster_signals_dropped_total', 'reason'), '{{reason}}']]),
      ]],
      ['The nodes\' view of control', [
        graph('Age of the view', 's', [[max('hiveops_ws_control_view_age_seconds', 'instance'), NODE]]),
        graph('Contract versions that wait', 'short', [[max('hiveops_ws_contract_waiting', 'instance'), NODE]]),
        graph('Connections of the cluster\'s limit', 'short', [
          [sum('hiveops_ws_lease_used', 'instance'), `used, ${NODE}`],
          [sum('hiveops_ws_lease_held', 'instance'), `held, ${NODE}`],
        ], { what: 'Held is -1 without a limit.' }),
        graph('Leases', 's', [
          [max('hiveops_ws_lease_age_seconds', 'instance'), `age, ${NODE}`],
          [max('hiveops_ws_lease_scarce', 'instance'), `1 while places are scarce, ${NODE}`],
        ], { what: 'The age is -1 without a lease.' }),
        graph('Asks for a share', 'cps', [[rate('hiveops_ws_lease_asks_total', 'outcome'), '{{outcome}}']]),
      ]],
      ['Control replicas', [
        graph('Leader and quorum', 'short', [
          [replicas.sum('hiveops_control_is_leader', 'instance'), `leads, ${REPLICA}`],
          [replicas.sum('hiveops_control_quorum', 'instance'), `quorum, ${REPLICA}`],
        ]),
        graph('Term, elections, leaders', 'short', [
          [replicas.max('hiveops_control_term'), 'term'],
          [replicas.sum('hiveops_control_elections_total', 'instance'), `elections, ${REPLICA}`],
          [replicas.sum('hiveops_control_leader_changes_total', 'instance'), `leaders, ${REPLICA}`],
        ]),
        graph('The log', 'short', [
          [replicas.max('hiveops_control_last_log_index', 'instance'), `last entry, ${REPLICA}`],
          [replicas.max('hiveops_control_last_applied_index', 'instance'), `last applied, ${REPLICA}`],
        ]),
        graph('How far followers are behind', 'short', [[replicas.max('hiveops_control_follower_lag_entries', 'replica'), '{{replica}}']], {
          empty: 'there is one replica only',
        }),
        graph('Proposals', 'cps', [[replicas.rate('hiveops_control_proposals_total', 'outcome'), '{{outcome}}']]),
        graph('How long proposals take', 's', QUANTILES.map(([q, name]) => [replicas.quantile(q, 'hiveops_control_proposal_seconds'), name]), {
          empty: 'nothing is proposed',
        }),
        graph('Messages without an answer', 'cps', [[replicas.rate('hiveops_control_rpc_failures_total', 'kind'), '{{kind}}']]),
        graph('Size of log and snapshot', 'bytes', [
          [replicas.sum('hiveops_control_log_bytes', 'instance'), `log, ${REPLICA}`],
          [replicas.sum('hiveops_control_snapshot_bytes', 'instance'), `snapshot, ${REPLICA}`],
        ]),
        graph('Snapshots', 'cps', [[replicas.rate('hiveops_control_snapshots_total', 'source'), '{{source}}']]),
        graph('Nodes that watch', 'short', [
          [replicas.sum('hiveops_control_watchers', 'instance'), `streams, ${REPLICA}`],
          [replicas.max('hiveops_control_lease_nodes'), 'nodes with a lease'],
          [replicas.max('hiveops_control_lease_connections_held'), 'connections lent'],
        ]),
        graph('Refused requests', 'cps', [[replicas.rate('hiveops_control_refused_total', 'code'), '{{code}}']]),
        graph('Signing keys', 'short', [[replicas.max('hiveops_control_keys', 'state'), '{{state}}']]),
      ]],
      ['Logins at the replicas', [
        graph('Logins', 'cps', [
          [replicas.rate('hiveops_auth_success_total'), 'begun'],
          [replicas.rate('hiveops_auth_denied_total', 'reason'), 'denied, {{reason}}'],
        ]),
        graph('Refresh tokens', 'cps', [[replicas.rate('hiveops_auth_refresh_total', 'outcome'), '{{outcome}}']]),
        graph('Logouts', 'cps', [[replicas.rate('hiveops_auth_logout_total', 'outcome'), '{{outcome}}']]),
      ]],
    ],
  });
}
