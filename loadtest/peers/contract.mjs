// What an adapter speaks: as little of the HiveOps contract as `hiveops-loadtest` needs, so that servers of
// other people are measured by the same client, with frames of the same bytes. Their own work begins where a
// frame is handed to them.

import { randomUUID } from 'node:crypto';

export const ROUTE = '/api/dashboard/websocket/broadcast';

let seq = 0;

/** The frame that completes a session. */
export function initialized(subscriptions) {
  return JSON.stringify({ type: 'dashboard_initialized', subscriptions });
}

/** The subscriptions that a handshake asks for. */
export function subscriptionsOf(url) {
  const names = new URL(url, 'http://localhost').searchParams.get('subscriptions') ?? 'tasks';
  return names.split(',').filter((name) => name !== '');
}

/** A publication: the frame for the clients, and the answer for the publisher. */
export function publication(url, body) {
  const query = new URL(url, 'http://localhost').searchParams;
  const [subscription, messageType] = [query.get('subscription'), query.get('message_type')];
  const [correlationId, timestamp] = [randomUUID(), new Date().toISOString()];
  seq += 1;
  const head = JSON.stringify({
    type: messageType,
    correlation_id: correlationId,
    timestamp,
    subscription,
    epoch: 'peer',
    seq,
    prev_seq: seq - 1,
  });
  const answer = (reached) =>
    JSON.stringify({
      success: true,
      subscription,
      message_type: messageType,
      clients_reached: reached,
      scope: 'node',
      correlation_id: correlationId,
      epoch: 'peer',
      seq,
      duplicate: false,
      timestamp,
    });
  return { subscription, frame: `${head.slice(0, -1)},"data":${body}}`, answer };
}
