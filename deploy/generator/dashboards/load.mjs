// A load run: short windows, and what it is judged by.

import { budget, selector } from '../objectives.mjs';
import { JOB, QUANTILES, dashboard, graph, over, stat } from './panels.mjs';

const { rate, sum, max, quantile, mean } = over('job=~"$job"');

export function load(file) {
  const { delivery, latency, handshake } = file.objectives;
  const edge = latency.sli.threshold_seconds;
  return dashboard({
    uid: 'hiveops-load',
    title: 'HiveOps: load run',
    what: 'The server\'s side of a load run, without the long windows of the objectives.',
    variables: [JOB()],
    from: 'now-15m',
    refresh: '5s',
    rows: [
      ['Judged', [
        stat('Delivery held', 'percentunit', held(delivery), { what: `Promised: ${delivery.target}.` }),
        stat(`Deliveries within ${edge * 1000} ms`, 'percentunit', within(latency), { what: `Promised: ${latency.target}.` }),
        stat('Handshakes held', 'percentunit', held(handshake), { what: `Promised: ${handshake.target}.` }),
        stat('Oldest control view', 's', max('hiveops_ws_control_view_age_seconds')),
        graph('How fast budgets burn', 'none', [
          [`(1 - ${held(delivery)}) / ${budget(delivery)}`, 'delivery'],
          [`(1 - ${within(latency)}) / ${budget(latency)}`, 'latency'],
          [`(1 - ${held(handshake)}) / ${budget(handshake)}`, 'handshake'],
        ], { what: 'Above 1 the run misses its objective.' }),
      ]],
      ['Load', [
        graph('Sessions', 'short', [[sum('hiveops_ws_connections_active', 'instance'), '{{instance}}']]),
        graph('Handshakes', 'cps', [
          [rate('hiveops_ws_connections_total'), 'established'],
          [rate('hiveops_ws_handshakes_refused_total', 'reason'), 'refused, {{reason}}'],
        ]),
        graph('Publications', 'cps', [
          ['max by (subscription) (rate(hiveops_bus_publications_total{job=~"$job"}[$__rate_interval]))', '{{subscription}}'],
        ]),
        graph('Fan-out', 'short', [[mean('hiveops_ws_fanout_size'), 'sessions per publication, mean']]),
        graph('Frames to clients', 'cps', [[rate('hiveops_ws_messages_sent_total', 'instance'), '{{instance}}']]),
        graph('Bytes to clients', 'Bps', [[rate('hiveops_ws_bytes_sent_total', 'instance'), '{{instance}}']]),
        graph('Messages from clients', 'cps', [
          [rate('hiveops_ws_messages_received_total'), 'received'],
          [rate('hiveops_ws_messages_dropped_rate_limit_total'), 'dropped for their rate'],
        ]),
      ]],
      ['Latency', [
        graph('From the publication to the socket', 's', QUANTILES.map(([q, name]) => [quantile(q, 'hiveops_ws_publish_to_socket_seconds'), name]), { exemplars: true }),
        graph('From receipt to the socket', 's', QUANTILES.map(([q, name]) => [quantile(q, 'hiveops_ws_delivery_seconds'), name])),
        graph('Over the bus', 's', QUANTILES.map(([q, name]) => [quantile(q, 'hiveops_ws_bus_seconds'), name])),
        graph('In outboxes', 's', QUANTILES.map(([q, name]) => [quantile(q, 'hiveops_ws_outbox_wait_seconds'), name]), { empty: 'no frame has to wait' }),
        graph('Where the time of a fan-out goes', 's', [[mean('hiveops_ws_fanout_seconds', 'part'), '{{part}}']]),
      ]],
      ['What slow clients and abuse lead to', [
        graph('Frames that wait', 'short', [[sum('hiveops_ws_outbox_frames', 'instance'), '{{instance}}']]),
        graph('Coalesced, replayed, snapshots', 'cps', [
          [rate('hiveops_ws_coalesced_total'), 'coalesced'],
          [rate('hiveops_ws_replayed_total'), 'replayed'],
          [rate('hiveops_ws_snapshots_total'), 'snapshots'],
        ]),
        graph('Lost for a session', 'cps', [
          [rate('hiveops_ws_messages_send_failures_total'), 'no room'],
          [rate('hiveops_ws_messages_discarded_total', 'reason'), 'discarded, {{reason}}'],
        ]),
        graph('Sessions that end', 'cps', [[rate('hiveops_ws_disconnections_total', 'reason'), '{{reason}}']]),
        graph('Errors that clients were told', 'cps', [[rate('hiveops_ws_errors_sent_total', 'code'), '{{code}}']]),
      ]],
    ],
  });
}

/** The share that was good, over the shortest window that a rate may have. */
function held({ sli }) {
  const each = (selectors) => selectors.map((one) => `sum (rate(${inJob(selector(one))}[$__rate_interval]))`).join(' + ');
  return `((${each(sli.good)}) / (${each([...sli.bad, ...sli.good])}))`;
}

function within({ sli }) {
  const count = `sum (rate(${inJob(`${sli.histogram}_count`)}[$__rate_interval]))`;
  return `(sum (rate(${inJob(`${sli.histogram}_bucket{le="${sli.threshold_seconds}"}`)}[$__rate_interval])) / ${count})`;
}

function inJob(series) {
  return series.endsWith('}') ? `${series.slice(0, -1)},job=~"$job"}` : `${series}{job=~"$job"}`;
}
