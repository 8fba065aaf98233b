// Where the run goes, from the environment that `scripts/ws-load` sets, and what is said there over HTTP.

import http from 'k6/http';
import { sleep } from 'k6';
import { violation } from './contract.mjs';
import { published, publishMs, report } from './metrics.mjs';
import { correlationId, keyOf } from './model.mjs';
import { MESSAGE_TYPE, SUBSCRIPTION } from './plan.mjs';

const URL = (__ENV.LOAD_URL || 'http://127.0.0.1:8000').replace(/\/$/, '');
/** Another node, or the same one by a way without faults. */
const PUBLISH_URL = (__ENV.LOAD_PUBLISH_URL || URL).replace(/\/$/, '');
const TOKEN = __ENV.LOAD_TOKEN || '';

/** A publication is safe to repeat; a bus that comes back within this loses none. */
const TRIES = 5;
const PAUSE_S = 0.25;

export const headers = TOKEN === '' ? {} : { Authorization: `Bearer ${TOKEN}` };

/** The address of a socket that goes on at `since`. */
export function socketUrl(since) {
  const places = Object.entries(since).map(([name, { epoch, seq }]) => `${name}:${epoch}:${seq}`);
  const query = [`subscriptions=${SUBSCRIPTION}`, ...(places.length > 0 ? [`since=${places.join(',')}`] : [])];
  return `${URL.replace(/^http/, 'ws')}/api/dashboard/ws/dashboard?${query.join('&')}`;
}

/** Ends the run before it begins when nobody is there. */
export function mustBeReady() {
  for (const url of [URL, PUBLISH_URL]) {
    const { status, error } = http.get(`${url}/readyz`, { tags: { name: 'readyz' } });
    if (status !== 200) throw new Error(`${url}/readyz answers ${status || error}: no load run without a node that is ready`);
  }
}

/** What k6 says of a request that it cut off itself, because the run has ended. */
const CUT_OFF = 'context canceled';

/** Publishes number `n` of a stream, until it is acknowledged or has failed too often. Says whether to go on. */
export function publish({ run, stream, n, keys, pad }) {
  const id = correlationId(run, stream, n);
  // The same data each time: another would be refused under the same key.
  const data = { id: keyOf(run, stream, n, keys), run, stream, n, sent_at: Date.now(), pad };
  for (let tries = 1; ; tries += 1) {
    const { status, error, timings } = post(data, { 'X-Correlation-ID': id, 'Idempotency-Key': id });
    if (status === 200) {
      published.add(1);
      publishMs.add(timings.duration);
      return true;
    }
    if (String(error).includes(CUT_OFF)) return false;
    if (tries === TRIES || (status >= 400 && status < 500 && status !== 429)) {
      report([violation('publish_failed', `${id}: ${status || error}`)]);
      return false;
    }
    sleep(PAUSE_S * 2 ** tries);
  }
}

/** Takes the keys of a stream out of the snapshot, so that a run leaves nothing behind. */
export function remove(run, stream, keys) {
  for (let n = 0; n < keys; n += 1) post({ id: keyOf(run, stream, n, keys), deleted: true }, {});
}

function post(data, more) {
  const url = `${PUBLISH_URL}/api/dashboard/websocket/broadcast?subscription=${SUBSCRIPTION}&message_type=${MESSAGE_TYPE}`;
  const params = { headers: { 'Content-Type': 'application/json', ...headers, ...more }, tags: { name: 'publish' } };
  return http.post(url, JSON.stringify(data), params);
}
