// A load run against a node that works passes, and against one that does not it fails, each time with the name of what
// is wrong: the real k6, the real `hiveops`, and between them a proxy that breaks the contract.
//
// It needs the binary (cargo build -p hiveops) and k6 (scripts/install k6), and fails without them.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { RunningNode } from '../../../mobile-pwa/browser/node.mjs';
import { Proxy, closeFrame, textFrame } from './proxy.mjs';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const k6 = process.env.K6 ?? `${root}.tools/bin/k6`;

/** Far more than a run of these loads takes. */
const RUN_MAX_MS = 90_000;

/** Publications that pass before a fault, so that every client is in the middle of it. */
const BEFORE = 100;

let node;
let scratch;

before(async () => {
  assert.ok(existsSync(k6), `${k6} is missing; install it with: scripts/install k6`);
  node = await RunningNode.start();
  scratch = mkdtempSync(join(tmpdir(), 'hiveops-ws-load-'));
});

after(async () => {
  await node?.stop();
  if (scratch !== undefined) rmSync(scratch, { recursive: true });
});

/** Runs loads of the short run through a proxy with this fault. How fast the machine is concerns the latency alone. */
async function run(loads, fault, latency = 'report') {
  const proxy = await Proxy.start(node.url, fault);
  const result = join(scratch, 'result.json');
  const settings = { URL: proxy.url, PUBLISH_URL: node.url, LOADS: loads, LOAD_RESULT: result, LATENCY: latency, K6: k6 };
  const child = spawn(`${root}scripts/ws-load`, ['smoke'], { env: { ...process.env, ...settings }, timeout: RUN_MAX_MS });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
  const [status] = await once(child, 'close');
  proxy.stop();
  assert.ok(existsSync(result), `no result: ${output}`);
  return { status, output, result: JSON.parse(readFileSync(result, 'utf8')) };
}

/** Changes one publication after those that pass first. */
function oneOf(change) {
  let seen = 0;
  return (text) => {
    if (!text.includes('"prev_seq":')) return null;
    seen += 1;
    return seen === BEFORE ? change(JSON.parse(text)) : null;
  };
}

const reasons = ({ result }) => [...new Set(result.failed.map(({ reason }) => reason))];

test('without a fault the run passes, with figures', async () => {
  const { status, output, result } = await run('connect_ramp,steady_fanout');
  assert.equal(status, 0, output);
  assert.deepEqual([result.ok, result.failed, result.violations], [true, [], {}]);
  const { connect_ramp: ramp, steady_fanout: steady } = result.loads;
  assert.ok(ramp.handshakes.tries >= ramp.clients.planned && ramp.clients.ended === ramp.clients.planned);
  assert.ok(steady.delivered > 0 && steady.missing === 0, output);
  assert.equal(steady.publish_to_socket_ms.count, steady.delivered);
  assert.match(output, /load run smoke: passed/);
});

/** What breaks the contract ends the run at once. By reason: what is done, and the frames instead of the publication. */
const breaches = {
  silent_gap: ['one publication is dropped', () => []],
  bad_order: ['one publication comes twice', (frame) => [textFrame(frame), textFrame(frame)]],
  no_correlation_id: ['a frame loses its correlation_id', ({ correlation_id, ...frame }) => [textFrame(frame)]],
  bad_shape: ['a frame loses its epoch', ({ epoch, ...frame }) => [textFrame(frame)]],
  unexpected_error: ['an error comes that nothing asked for', ({ correlation_id, timestamp }) => [
    textFrame({ type: 'error', correlation_id, timestamp, code: 'internal', message: 'made by a test' }),
  ]],
  wrong_close: ['a connection is closed without a notice', () => [closeFrame(1011, 'internal_error')]],
};

for (const [reason, [what, change]] of Object.entries(breaches)) {
  test(`${what}: ${reason}`, async () => {
    const ran = await run('steady_fanout', { text: oneOf(change) });
    assert.notEqual(ran.status, 0, ran.output);
    assert.ok(reasons(ran).includes(reason), ran.output);
    assert.ok(ran.result.violations[reason] >= 1, ran.output);
    assert.match(ran.output, new RegExp(`FAILED ${reason}: `));
  });
}

test('frames that come 400 ms late: latency', async () => {
  const ran = await run('steady_fanout', { delayMs: 400 }, 'enforce');
  assert.notEqual(ran.status, 0, ran.output);
  assert.deepEqual(reasons(ran), ['latency'], ran.output);
  assert.ok(ran.result.loads.steady_fanout.publish_to_socket_ms.p50 >= 400, ran.output);
});

test('a share of the handshakes is refused: handshake', async () => {
  const ran = await run('connect_ramp', { refuse: (number) => number % 5 === 0 });
  assert.notEqual(ran.status, 0, ran.output);
  assert.deepEqual(reasons(ran), ['handshake'], ran.output);
  assert.match(ran.output, /FAILED handshake in connect_ramp/);
});
