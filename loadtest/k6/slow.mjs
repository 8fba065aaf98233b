// A client that does not read. Only the older `k6/ws` can do that: it hands a message to the script and reads no
// further until the script is done with it, so that a script that sleeps lets the kernel's buffers fill up. The newer
// WebSocket of k6 reads on in any case and keeps what it read in k6's own memory: the node never notices.

import { sleep } from 'k6';
import ws from 'k6/ws';
import * as metrics from './metrics.mjs';
import { headers, socketUrl } from './target.mjs';

/** For each message while it is slow. */
const PAUSE_S = 0.4;

const GOING_AWAY = 1001;

/** Follows slowly for `slowMs`, then as fast as it can until nothing is missing or `deadlineMs` have passed. */
export function followSlowly({ name, contract, model, slowMs, deadlineMs }) {
  const started = Date.now();
  const last = `${name}.last`;
  let isOpen = false;
  let asked = false;
  let code;
  contract.begin();
  const leave = (socket) => {
    asked = true;
    socket.close(1000);
  };
  const response = ws.connect(socketUrl(model.begin()), { headers, tags: { name: 'dashboard' } }, (socket) => {
    socket.on('message', (text) => {
      const { frame, violations } = contract.read(text);
      metrics.report(violations);
      if (frame === null || asked) return;
      // Its latency is its own doing.
      metrics.count({ ...model.take(frame, Date.now()), latency: null });
      if (frame.type === 'dashboard_initialized') isOpen = true;
      if (frame.type === 'pong' && frame.correlation_id === last) return leave(socket);
      if (isOpen && Date.now() - started < slowMs) sleep(PAUSE_S);
      if (model.missing === 0 && isOpen) {
        isOpen = false;
        socket.send(JSON.stringify({ type: 'ping', correlation_id: last }));
      }
    });
    socket.on('close', (told) => (code = asked ? 1000 : told));
    socket.setTimeout(() => leave(socket), deadlineMs);
  });
  if (response.status !== 101) {
    metrics.refused(`answered with ${response.status || response.error}`);
    metrics.countEnd(model.missing);
    return;
  }
  metrics.handshakeOk.add(true);
  // k6 itself goes away like that when it ends a run early; such a client has not ended.
  if (code === GOING_AWAY && contract.notice === null) return;
  const wrong = contract.ended(code, asked);
  if (wrong !== null) metrics.report([wrong]);
  const isSentOff = contract.isSentOff(code);
  if (isSentOff) metrics.sentOff.add(1);
  // Who was sent off for being slow was told so, which is one of the two ends that the contract has for it.
  metrics.countEnd(isSentOff ? 0 : model.missing);
}
