// A real browser for the tests of the page: the system's Chromium, driven by playwright-core, which brings
// no browser of its own. A missing browser fails the tests; it never skips them.

import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { chromium } from 'playwright-core';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];

function executable() {
  if (process.env.CHROMIUM !== undefined) return process.env.CHROMIUM;
  const folders = (process.env.PATH ?? '').split(delimiter);
  const found = folders.flatMap((folder) => NAMES.map((name) => join(folder, name))).find((path) => existsSync(path));
  if (found === undefined) {
    throw new Error('chromium is missing: apt-get install -y chromium (or name a browser with CHROMIUM=path)');
  }
  return found;
}

export function launch() {
  return chromium.launch({ executablePath: executable() });
}

/**
 * Opens a page that remembers everything that it complains about (errors, refused loads, policy breaches)
 * and its sockets, the last of which the page itself has as `lastSocket`. With `clock`, its time is the test's.
 */
export async function open(browser, url, { clock = false, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const complaints = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`);
    });
    globalThis.WebSocket = class extends WebSocket {
      constructor(...args) {
        super(...args);
        globalThis.lastSocket = this;
      }
    };
  });
  const sockets = [];
  page.on('websocket', (socket) => sockets.push(socket));
  if (clock) await page.clock.install();
  await page.goto(url);
  return { page, complaints, sockets };
}
