// Starts the real `hiveops` binary for a test in a browser and talks to it over HTTP. It must be built
// already: HIVEOPS_BIN names it, else it is the debug build of this checkout.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const target = process.env.CARGO_TARGET_DIR ?? `${root}target`;
const binary = process.env.HIVEOPS_BIN ?? `${target}/debug/hiveops`;

const START_MAX_MS = 20_000;

/** A clean environment: whoever runs the tests may have settings of their own. */
const environment = { PATH: process.env.PATH, HOME: process.env.HOME };

export class RunningNode {
  url;
  #process;

  /** `settings` are environment variables; the node listens on a free port unless they say otherwise. */
  static async start(settings = {}, args = []) {
    if (!existsSync(binary)) throw new Error(`${binary} is missing: cargo build -p hiveops, or set HIVEOPS_BIN`);
    const node = new RunningNode();
    const env = { ...environment, HIVEOPS_LISTEN: '127.0.0.1:0', HIVEOPS_NODE_ID: 'page-test', ...settings };
    node.#process = spawn(binary, ['dev', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    let stderr = '';
    node.#process.stderr.on('data', (chunk) => (stderr = (stderr + chunk).slice(-4_000)));
    const timer = setTimeout(() => node.#process.kill('SIGKILL'), START_MAX_MS);
    for await (const line of createInterface({ input: node.#process.stdout })) {
      node.url = /listens on (http:\S+)/.exec(line)?.[1];
      if (node.url !== undefined) break;
    }
    clearTimeout(timer);
    if (node.url === undefined) throw new Error(`the node did not start: ${stderr}`);
    node.#process.stdout.resume();
    return node;
  }

  get address() {
    return new URL(this.url).host;
  }

  async publish(subscription, type, data, token) {
    const query = new URLSearchParams({ subscription, message_type: type });
    const headers = { 'content-type': 'application/json' };
    if (token !== undefined) headers.authorization = `Bearer ${token}`;
    const url = `${this.url}/api/dashboard/websocket/broadcast?${query}`;
    const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(data) });
    if (response.status !== 200) throw new Error(`publishing was answered with ${response.status}: ${await response.text()}`);
    return response.json();
  }

  async stop(signal = 'SIGTERM') {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, 'exit');
    this.#process.kill(signal);
    await exited;
  }
}
