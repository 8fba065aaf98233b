// What a load run counts, in the metrics of k6. Every sample has the tag `load` from its scenario; `plan.mjs` sets the
// thresholds and `summary.mjs` reads the sums.

import { Counter, Rate, Trend } from 'k6/metrics';

export const handshakeOk = new Rate('load_handshake_ok');
export const handshakeMs = new Trend('load_handshake_ms');
export const deliveryOk = new Rate('load_delivery_ok');
export const deliveries = new Counter('load_deliveries');
export const explained = new Counter('load_explained');
export const publishToSocketMs = new Trend('load_publish_to_socket_ms');
export const published = new Counter('load_published');
export const publishMs = new Trend('load_publish_ms');
export const resumeMs = new Trend('load_resume_ms');
export const resumed = new Counter('load_resumed');
export const sentOff = new Counter('load_sent_off');
export const rateLimited = new Counter('load_rate_limited');
export const clientsDone = new Counter('load_clients_done');
const violations = new Counter('load_violations');

/** Of one VU and kind: more would say the same again. */
const SHOWN_MAX = 3;
const shown = { violations: 0, refusals: 0 };

/** Counts violations and shows the first ones; the threshold on the count ends the run. */
export function report(found) {
  for (const { reason, detail } of found) {
    violations.add(1, { reason });
    if (shown.violations < SHOWN_MAX) console.error(`${reason}: ${detail}`);
    shown.violations += 1;
  }
}

/** Counts a handshake that led to no session. */
export function refused(why) {
  handshakeOk.add(false);
  if (shown.refusals < SHOWN_MAX) console.warn(`handshake: ${why}`);
  shown.refusals += 1;
}

/** Counts what one frame meant to its client. */
export function count({ violations: found, delivered, explained: left, latency }) {
  report(found);
  for (let i = 0; i < delivered + left; i += 1) deliveryOk.add(true);
  if (delivered > 0) deliveries.add(delivered);
  if (left > 0) explained.add(left);
  if (latency !== null) publishToSocketMs.add(latency);
}

/** Counts a client that has ended, and what it should have got and did not. */
export function countEnd(missing) {
  for (let i = 0; i < missing; i += 1) deliveryOk.add(false);
  clientsDone.add(1);
}
