/**
 * Proves to the compiler that the generated types can be worked with: `type` narrows a frame, a switch
 * can be exhaustive, and a wrong frame is refused. Nothing of this runs; `npm -w mobile-pwa run build`
 * fails when it does not hold.
 */

import type { ClientFrame, Publication, ServerFrame, SnapshotItem } from './ws-messages.js';

function never(frame: never): never {
  throw new Error(`unhandled frame ${JSON.stringify(frame)}`);
}

/** Every type is here: a new one in the schema breaks the build until somebody decides what it means. */
export function subject(frame: ServerFrame): string {
  switch (frame.type) {
    case 'connection_established':
      return `${frame.connection_id} on ${frame.node_id}, ${frame.limits.idle_disconnect_seconds}`;
    case 'dashboard_initialized':
      return frame.connection_info.connection_type;
    case 'snapshot':
      return `${frame.subscription} ${frame.part}/${frame.parts}: ${frame.items.map(key).join()}`;
    case 'subscription_updated':
      return frame.subscriptions.join();
    case 'pong':
    case 'heartbeat':
      return `${frame.live}: ${Object.values(frame.positions).map((position) => position.seq).join()}`;
    case 'coalesced':
      return `${frame.subscription} ${frame.from_seq}..${frame.to_seq}`;
    case 'data_response':
      // The data follows `data_type`.
      switch (frame.data_type) {
        case 'agent_status':
          return `${frame.data.summary.active} of ${frame.data.summary.total}`;
        case 'coordination_metrics':
          return frame.data.trend;
        case 'task_distribution':
          return `${frame.data.queue_length}`;
        case 'system_health':
          return frame.data.overall_status;
        default:
          return never(frame);
      }
    case 'data_error':
      return `${frame.data_type}: ${frame.code}`;
    case 'error':
      return `${frame.code} ${frame.retry_after_ms ?? 0}`;
    case 'auth_expiring':
    case 'auth_refreshed':
      return frame.expires_at;
    case 'version_warning':
      return frame.migration_url;
    case 'disconnect_notice':
      return `${frame.reason} ${frame.code satisfies number}`;
    case 'agent_update':
    case 'coordination_update':
    case 'project_index_update':
    case 'system_update':
    case 'task_update':
      return `${frame.data.id ?? frame.type} ${frame.data.deleted === true}`;
    case 'agent_event':
    case 'coordination_event':
    case 'project_index_event':
    case 'system_event':
    case 'task_event':
      return place(frame);
    case 'critical_alert':
      return `${frame.data.alerts.length} ${frame.subscription satisfies 'alerts'}`;
    default:
      return never(frame);
  }
}

/** Every publication has a place, whatever its type. */
function place(frame: Publication): string {
  return `${frame.subscription} ${frame.epoch} ${frame.prev_seq}→${frame.seq}`;
}

function key(item: SnapshotItem): string {
  return item.type === 'task_update' ? `task ${item.key}` : item.key;
}

export function isAnswered(frame: ClientFrame): boolean {
  switch (frame.type) {
    case 'ping':
      return true;
    case 'subscribe':
      return frame.subscriptions.length > 0 && frame.since?.['tasks']?.seq !== 0;
    case 'unsubscribe':
      return frame.subscriptions.length > 0;
    case 'request_data':
      return frame.data_type !== '' || frame.params !== undefined;
    case 'auth_refresh':
      return frame.token !== '';
    default:
      return never(frame);
  }
}

export const good = [
  { type: 'ping' },
  { type: 'subscribe', subscriptions: ['tasks'], since: { tasks: { epoch: 'e1', seq: 7 } } },
] satisfies ClientFrame[];

// @ts-expect-error a client does not send what a node sends
export const otherDirection: ClientFrame = { type: 'pong' };
// @ts-expect-error a subscribe names its subscriptions
export const withoutNames: ClientFrame = { type: 'subscribe' };
// @ts-expect-error a publication has a place in the log
export const withoutPlace: ServerFrame = { type: 'task_update', subscription: 'tasks', data: { id: 't1' } };
