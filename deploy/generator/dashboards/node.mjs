// One node, or some: everything that a node counts about sockets.

import { INSTANCE, JOB, QUANTILES, dashboard, graph, over, stat } from './panels.mjs';

const { rate, sum, max, quantile, mean } = over('job=~"$job",instance=~"$instance"');
const NODE = '{{instance}}';

export function node() {
  return dashboard({
    uid: 'hiveops-node',
    title: 'HiveOps: node',
    what: 'What one node counts about its sockets. Its bus and its control plane have a dashboard of their own.',
    variables: [JOB(), INSTANCE()],
    rows: [
      ['Now', [
        stat('Up', 'short', 'min (up{job=~"$job",instance=~"$instance"})'),
        stat('Sessions', 'short', sum('hiveops_ws_connections_active')),
        stat('Sessions the last publication went to', 'short', max('hiveops_ws_last_fanout')),
        stat('Frames that wait', 'short', sum('hiveops_ws_outbox_frames')),
        stat('Log lines dropped', 'short', 'sum (increase(hiveops_log_lines_dropped_total{job=~"$job",instance=~"$instance"}[$__range]))'),
      ]],
      ['What clients send', [
        graph('Messages', 'cps', [
          [rate('hiveops_ws_messages_received_total', 'instance'), NODE],
          [rate('hiveops_ws_messages_dropped_rate_limit_total', 'instance'), `dropped for their rate, ${NODE}`],
        ]),
        graph('Bytes', 'Bps', [
          [rate('hiveops_ws_bytes_received_total'), 'in'],
          [rate('hiveops_ws_bytes_sent_total'), 'out'],
        ]),
        graph('Errors that clients were told', 'cps', [[rate('hiveops_ws_errors_sent_total', 'code'), '{{code}}']]),
      ]],
      ['What clients get', [
        graph('Frames', 'cps', [[rate('hiveops_ws_messages_sent_total', 'instance'), NODE]]),
        graph('From receipt to the socket', 's', QUANTILES.map(([q, name]) => [quantile(q, 'hiveops_ws_delivery_seconds'), name]), {
          what: 'Of frames that did not wait in an outbox.',
        }),
        graph('From the publication to the socket', 's', QUANTILES.map(([q, name]) => [quantile(q, 'hiveops_ws_publish_to_socket_seconds'), name]), {
          what: 'Of every live publication, whether it waited or not; over the clocks of two nodes.',
          exemplars: true,
        }),
        graph('What became of publications', 'cps', [
          [rate('hiveops_ws_publication_recipients_total'), 'due'],
          [rate('hiveops_ws_publication_caught_up_total'), 'of them fed in by the log'],
          [rate('hiveops_ws_publication_delivered_total'), 'delivered'],
          [rate('hiveops_ws_publication_dropped_total', 'reason'), 'dropped, {{reason}}'],
        ], { what: 'In frames: one publication for one session is one.' }),
        graph('Publications that wait', 'short', [[sum('hiveops_ws_publications_pending', 'subscription'), '{{subscription}}']]),
        graph('How long frames wait in outboxes', 's', QUANTILES.map(([q, name]) => [quantile(q, 'hiveops_ws_outbox_wait_seconds'), name]), {
          empty: 'no frame has to wait',
        }),
        graph('Size of messages', 'bytes', [[quantile(0.95, 'hiveops_ws_message_bytes', 'direction'), 'p95, {{direction}}']]),
        graph('Coalesced', 'cps', [[rate('hiveops_ws_coalesced_total', 'subscription'), '{{subscription}}']]),
        graph('Frames that found no room', 'cps', [
          [rate('hiveops_ws_messages_send_failures_total', 'instance'), `no room, ${NODE}`],
          [rate('hiveops_ws_messages_discarded_total', 'reason'), 'discarded, {{reason}}'],
        ]),
        graph('Replayed frames and snapshots', 'cps', [
          [rate('hiveops_ws_replayed_total'), 'replayed'],
          [rate('hiveops_ws_snapshots_total', 'reason'), 'snapshots, {{reason}}'],
        ]),
      ]],
      ['Fan-out', [
        graph('Sessions that a publication goes to', 'short', [[mean('hiveops_ws_fanout_size', 'instance'), `mean, ${NODE}`]]),
        graph('Where its time goes', 's', [[mean('hiveops_ws_fanout_seconds', 'part'), 'mean, {{part}}']]),
        graph('Its slowest', 's', [[quantile(0.99, 'hiveops_ws_fanout_seconds', 'part'), 'p99, {{part}}']]),
      ]],
      ['Sessions that end, and those that do not begin', [
        graph('Why sessions end', 'cps', [[rate('hiveops_ws_disconnections_total', 'reason'), '{{reason}}']]),
        graph('Ended by the node', 'cps', [
          [rate('hiveops_ws_backpressure_disconnects_total', 'reason'), 'backpressure, {{reason}}'],
          [rate('hiveops_ws_idle_disconnects_total'), 'idle'],
        ]),
        graph('Why handshakes are refused', 'cps', [[rate('hiveops_ws_handshakes_refused_total', 'reason'), '{{reason}}']]),
        graph('Credentials of open sockets', 'cps', [
          [rate('hiveops_ws_auth_refreshed_total'), 'renewed'],
          [rate('hiveops_ws_auth_outage_kept_total'), 'kept beyond their end while control was away'],
        ]),
        graph('Clients of another contract version', 'cps', [[rate('hiveops_ws_client_version_mismatch_total'), 'told so']]),
        graph('Certificates taken over', 'short', [[rate('hiveops_tls_reloads_total', 'outcome'), '{{outcome}}']]),
        graph('Until the certificate in use ends', 's', [
          ['min by (instance) (hiveops_tls_certificate_expires_seconds{job=~"$job",instance=~"$instance"} > 0) - time()', NODE],
        ], { empty: 'the node does not end TLS' }),
        graph('Forwarded addresses that were ignored', 'cps', [[rate('hiveops_http_forwarded_for_ignored_total', 'reason'), '{{reason}}']]),
      ]],
      ['Spans', [
        graph('Exported', 'cps', [[rate('hiveops_trace_spans_exported_total', 'instance'), NODE]]),
        graph('Dropped', 'cps', [[rate('hiveops_trace_spans_dropped_total', 'reason'), '{{reason}}']], {
          what: 'Nothing of a delivery waits for them.',
        }),
      ]],
    ],
  });
}
