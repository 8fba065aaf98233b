// All nodes of a deployment together: who is connected, what they get, and what goes wrong.

import { JOB, QUANTILES, dashboard, graph, over, stat } from './panels.mjs';

const { rate, sum, max, min, quantile } = over('job=~"$job"');
const NODE = '{{instance}}';

export function cluster() {
  return dashboard({
    uid: 'hiveops-cluster',
    title: 'HiveOps: cluster',
    what: 'All nodes together. A node by itself is on the dashboard of nodes.',
    variables: [JOB()],
    rows: [
      ['Now', [
        stat('Nodes that are scraped', 'short', 'count(hiveops_ws_connections_active{job=~"$job"})'),
        stat('Nodes that see each other', 'short', min('hiveops_cluster_nodes'), { what: 'Of the node that sees the fewest.' }),
        stat('Nodes with a live bus', 'short', sum('hiveops_ws_bus_live')),
        stat('Sessions', 'short', sum('hiveops_ws_connections_active')),
        stat('Publications', 'cps', 'sum (max by (subscription) (rate(hiveops_bus_publications_total{job=~"$job"}[$__rate_interval])))', {
          what: 'Every node receives every publication: this is one node\'s.',
        }),
        stat('Frames to clients', 'cps', rate('hiveops_ws_messages_sent_total')),
      ]],
      ['Sessions', [
        graph('Sessions per node', 'short', [[sum('hiveops_ws_connections_active', 'instance'), NODE]]),
        graph('Sessions per subscription', 'short', [[sum('hiveops_ws_subscriptions', 'subscription'), '{{subscription}}']]),
        graph('Sessions that begin and end', 'cps', [
          [rate('hiveops_ws_connections_total'), 'established'],
          [rate('hiveops_ws_disconnections_total'), 'ended'],
        ]),
        graph('Why sessions end', 'cps', [[rate('hiveops_ws_disconnections_total', 'reason'), '{{reason}}']]),
        graph('Why handshakes are refused', 'cps', [[rate('hiveops_ws_handshakes_refused_total', 'reason'), '{{reason}}']]),
        graph('Refused for credential, role or origin', 'cps', [
          [rate('hiveops_ws_auth_denied_total', 'reason'), '{{reason}}'],
          [rate('hiveops_ws_origin_denied_total'), 'origin'],
        ]),
      ]],
      ['Updates', [
        graph('Publications per subscription', 'cps', [
          ['max by (subscription) (rate(hiveops_bus_publications_total{job=~"$job"}[$__rate_interval]))', '{{subscription}}'],
        ]),
        graph('From the publication to the socket', 's', QUANTILES.map(([q, name]) => [quantile(q, 'hiveops_ws_publish_to_socket_seconds'), name]), { exemplars: true }),
        graph('Frames to clients, by node', 'cps', [
          [rate('hiveops_ws_messages_sent_total', 'instance'), `frames, ${NODE}`],
        ]),
        graph('What clients do not get as it was sent', 'cps', [
          [rate('hiveops_ws_coalesced_total'), 'coalesced: a later value took its place'],
          [rate('hiveops_ws_publication_dropped_total', 'reason'), 'dropped, {{reason}}'],
        ]),
        graph('Frames that wait', 'short', [[sum('hiveops_ws_outbox_frames', 'instance'), NODE]]),
        graph('Publications that were refused', 'cps', [[rate('hiveops_bus_publications_refused_total', 'reason'), '{{reason}}']]),
      ]],
      ['Access over HTTP', [
        graph('Logins and refreshes', 'cps', [
          [rate('hiveops_http_auth_success_total'), 'logins'],
          [rate('hiveops_http_auth_refresh_total', 'outcome'), 'refresh, {{outcome}}'],
        ]),
        graph('Requests and logins that are refused', 'cps', [[rate('hiveops_http_auth_denied_total', 'reason'), '{{reason}}']]),
        graph('Oldest control view', 's', [[max('hiveops_ws_control_view_age_seconds'), 'oldest']]),
      ]],
    ],
  });
}
