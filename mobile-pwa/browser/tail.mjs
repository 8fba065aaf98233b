// The plain page of a node in a real browser against a real node. Run by `npm -w mobile-pwa run test:page`;
// PAGE_SHOTS=folder keeps pictures to look at.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { launch, open } from './chromium.mjs';
import { RunningNode } from './node.mjs';

const WAIT_MS = 15_000;
const PHONE = { viewport: { width: 360, height: 740 }, hasTouch: true };
// Its base64 has the characters that base64url replaces.
const TOKEN = 'a-token-with-~~~???>>>-0123456789abcdef';
const HOSTILE = '<img src=x onerror="globalThis.broken=1"><script>globalThis.broken=1</script>';

let browser;
const stops = [];

before(async () => {
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await Promise.all(stops.map((stop) => stop()));
});

async function start(settings, args) {
  const node = await RunningNode.start(settings, args);
  stops.push(() => node.stop('SIGKILL'));
  return node;
}

async function shot(page, name) {
  const folder = process.env.PAGE_SHOTS;
  if (folder) await page.screenshot({ path: join(folder, `${name}.png`) });
}

const state = (page, text) => page.locator('#state', { hasText: new RegExp(`^${text}$`) }).waitFor({ timeout: WAIT_MS });
const panel = (page, name) => page.locator(`[data-subscription=${name}]`);
const shows = (locator, text) => locator.getByText(text).first().waitFor({ timeout: WAIT_MS });
const live = async (browser, node, options) => {
  const opened = await open(browser, node.url, options);
  await state(opened.page, 'Live');
  return opened;
};
const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

test('a visitor sees the node, the latest values, and a publication as it comes', async () => {
  const node = await start({}, ['--demo']);
  await node.publish('tasks', 'task_update', { id: 'before', title: 'Published before', status: 'completed' });
  const { page, complaints } = await live(browser, node);
  await shows(panel(page, 'tasks'), 'Published before');
  const { correlation_id: id } = await node.publish('tasks', 'task_update', { id: 'now', title: 'Published now', status: 'failed' });
  await shows(panel(page, 'tasks'), 'Published now');
  await shows(page.locator('#frames'), id.slice(-8));
  await shows(panel(page, 'agents'), 'Simulated planner');
  await shows(panel(page, 'system'), 'uptime');
  await node.publish('alerts', 'critical_alert', { alerts: [{ message: 'Disk is full' }], timestamp: new Date().toISOString() });
  await shows(panel(page, 'alerts'), 'Disk is full');
  assert.equal(await page.locator('#node').textContent(), 'page-test');
  assert.equal(await page.locator('#contract').textContent(), '1.0.0');
  await shows(page.locator('#bus'), /^live$/);
  assert.match(await page.locator('#command').textContent(), new RegExp(`curl '${node.url}/api`));
  await shot(page, 'desktop-light');
  await page.emulateMedia({ colorScheme: 'dark' });
  await shot(page, 'desktop-dark');
  assert.deepEqual(complaints, []);
});

test('a subscription is left and joined again while the others go on', async () => {
  const node = await start();
  const { page, complaints } = await live(browser, node);
  await node.publish('tasks', 'task_update', { id: 't1', title: 'First', status: 'pending' });
  await shows(panel(page, 'tasks'), 'First');
  const box = page.getByRole('checkbox', { name: /^tasks/ });
  await box.uncheck();
  await panel(page, 'tasks').waitFor({ state: 'detached', timeout: WAIT_MS });
  await node.publish('tasks', 'task_update', { id: 't1', title: 'Second', status: 'completed' });
  await node.publish('agents', 'agent_update', { id: 'a1', name: 'Other', status: 'idle' });
  await shows(panel(page, 'agents'), 'Other');
  await box.check();
  await shows(panel(page, 'tasks'), 'Second');
  await node.publish('tasks', 'task_update', { id: 't1', deleted: true });
  await shows(panel(page, 'tasks'), 'No task yet');
  assert.deepEqual(complaints, []);
});

test('frames are filtered, paused when one is opened, and shown whole', async () => {
  const node = await start();
  const { page, complaints } = await live(browser, node);
  for (const id of ['needle', 'hay']) await node.publish('tasks', 'task_event', { id, text: `of ${id}` });
  const rows = page.locator('#frames li');
  await shows(page.locator('#frames'), /"of hay"/);
  await page.locator('#filter').fill('NEEDLE');
  await page.waitForFunction(() => document.querySelectorAll('#frames li').length === 1);
  await rows.locator('summary').focus();
  await page.keyboard.press('Enter');
  await shows(rows.locator('pre'), /"text": "of needle"/);
  await node.publish('tasks', 'task_event', { id: 'needle', text: 'another needle' });
  await shows(page.locator('#summary'), /paused, [1-9]/);
  assert.equal(await rows.count(), 1);
  await page.getByRole('button', { name: 'Resume' }).click();
  await shows(page.locator('#frames'), /another needle/);
  await shot(page, 'opened');
  assert.deepEqual(complaints, []);
});

test('markup in a publication stays text, and the page itself cannot make markup', async () => {
  const node = await start();
  const { page, complaints } = await live(browser, node);
  const data = { id: HOSTILE, title: HOSTILE, name: HOSTILE, status: HOSTILE, [HOSTILE]: HOSTILE, assigned_agent: HOSTILE };
  for (const [subscription, type] of [['tasks', 'task_update'], ['agents', 'agent_update'], ['system', 'system_update'], ['coordination', 'coordination_update']]) {
    await node.publish(subscription, type, data);
    await shows(panel(page, subscription), '<img src=x');
  }
  await node.publish('alerts', 'critical_alert', { alerts: [{ message: HOSTILE }, null, 1], timestamp: HOSTILE });
  await shows(panel(page, 'alerts'), HOSTILE);
  await page.locator('#frames summary').first().click();
  await shows(page.locator('#frames pre').first(), /onerror/);
  assert.equal(await page.locator('main img, main script').count(), 0);
  assert.equal(await page.evaluate(() => globalThis.broken), undefined);
  assert.deepEqual(complaints, []);
  const refusal = await page.evaluate(() => {
    try {
      document.createElement('p').innerHTML = '<b>markup</b>';
      return 'made markup';
    } catch (error) {
      return error.name;
    }
  });
  assert.equal(refusal, 'TypeError');
});

test('a gap is seen, asked for and mended', async () => {
  const node = await start();
  const { page, complaints, sockets } = await live(browser, node);
  const asked = [];
  sockets[0].on('framesent', ({ payload }) => asked.push(JSON.parse(payload)));
  const { epoch, seq } = await node.publish('tasks', 'task_update', { id: 't1', title: 'Before', status: 'pending' });
  await shows(panel(page, 'tasks'), 'Before');
  const ahead = { type: 'task_update', subscription: 'tasks', epoch, seq: seq + 9, prev_seq: seq + 8, data: { id: 't1', title: 'Out of turn' } };
  await page.evaluate((frame) => globalThis.lastSocket.onmessage({ data: JSON.stringify(frame) }), ahead);
  await shows(page.locator('#frames'), 'a gap: asked for what is missing');
  await node.publish('tasks', 'task_update', { id: 't2', title: 'Behind', status: 'pending' });
  await shows(panel(page, 'tasks'), 'Behind');
  assert.equal(await panel(page, 'tasks').getByText('Out of turn').count(), 0);
  assert.deepEqual(asked.filter(({ type }) => type === 'subscribe'), [{ type: 'subscribe', subscriptions: ['tasks'], since: { tasks: { epoch, seq } } }]);
  // What is no frame at all ends the connection, and the next one goes on.
  await page.evaluate(() => globalThis.lastSocket.onmessage({ data: 'null' }));
  await node.publish('tasks', 'task_update', { id: 't3', title: 'Reconnected', status: 'pending' });
  await shows(panel(page, 'tasks'), 'Reconnected');
  assert.equal(sockets.length, 2);
  assert.match(sockets[1].url(), new RegExp(`tasks%3A${epoch}%3A${seq + 1}`));
  assert.deepEqual(complaints, []);
});

test('the page comes back after the node died, and goes on where it was', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'hiveops-page-'));
  stops.push(() => rmSync(folder, { recursive: true, force: true }));
  const first = await start({ HIVEOPS_DATA_DIR: folder });
  const { page } = await live(browser, first);
  await first.publish('tasks', 'task_update', { id: 't1', title: 'Kept', status: 'pending' });
  await shows(panel(page, 'tasks'), 'Kept');
  await first.stop('SIGKILL');
  await state(page, 'Reconnecting');
  await shows(page.locator('#detail'), 'The connection was lost');
  // Between two tries; during one it says something else.
  await page.locator('#countdown', { hasText: /^in \d+ s$/ }).waitFor({ timeout: WAIT_MS });
  await shows(panel(page, 'tasks'), 'as last seen');
  await shot(page, 'reconnecting');
  const second = await start({ HIVEOPS_DATA_DIR: folder, HIVEOPS_LISTEN: first.address });
  await state(page, 'Live');
  await second.publish('tasks', 'task_update', { id: 't2', title: 'After', status: 'pending' });
  await shows(panel(page, 'tasks'), 'After');
  await shows(panel(page, 'tasks'), 'Kept');
  await second.stop();
  await shows(page.locator('#detail'), /drained.*1012 draining/);
  // In memory the log begins anew: what is gone disappears from the page.
  const third = await start({ HIVEOPS_LISTEN: first.address });
  // By script, since the page may come back by itself at any moment and hide the button.
  await page.evaluate(() => document.querySelector('#reconnect').click());
  await state(page, 'Live');
  await shows(panel(page, 'tasks'), 'No task yet');
  await third.publish('tasks', 'task_update', { id: 't3', title: 'Anew', status: 'pending' });
  await shows(panel(page, 'tasks'), 'Anew');
});

test('a node that asks for a token gets it, and the token is kept nowhere', async () => {
  const node = await start({ WS_AUTH_REQUIRED: 'true', WS_AUTH_TOKEN: TOKEN });
  const { page, complaints } = await open(browser, node.url);
  await state(page, 'Closed');
  await shows(page.locator('#detail'), /asks for an access token.*4401 credential_missing/);
  await shot(page, 'credential');
  await page.getByLabel('Access token').fill('wrong');
  await page.keyboard.press('Enter');
  await shows(page.locator('#detail'), /4401 credential_invalid/);
  await page.getByLabel('Access token').fill(TOKEN);
  await page.getByRole('button', { name: 'Connect', exact: true }).click();
  await state(page, 'Live');
  await node.publish('tasks', 'task_update', { id: 't1', title: 'Behind a token', status: 'pending' }, TOKEN);
  await shows(panel(page, 'tasks'), 'Behind a token');
  const kept = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie, location.href, document.querySelector('#token').value]);
  assert.deepEqual(kept, [0, 0, '', `${node.url}/`, '']);
  assert.deepEqual(complaints, []);
});

test('a node that refuses the origin is left alone', async () => {
  const node = await start({ WS_ALLOWED_ORIGINS: 'https://elsewhere.example' });
  const { page, sockets } = await open(browser, node.url, { clock: true });
  await state(page, 'Closed');
  await shows(page.locator('#detail'), /4403 origin_denied/);
  await page.clock.fastForward('30:00');
  assert.equal(sockets.length, 1);
  assert.equal(await page.locator('#state').textContent(), 'Closed');
});

test('a phone shows everything without scrolling sideways', async () => {
  const node = await start({}, ['--demo']);
  const { page, complaints } = await live(browser, node, PHONE);
  const long = 'x'.repeat(3_000);
  await node.publish('tasks', 'task_update', { id: long.slice(0, 200), title: long, status: long, assigned_agent: long });
  await node.publish('system', 'system_update', { id: 'long', status: long, [long]: long });
  await shows(panel(page, 'tasks'), 'xxxx');
  await shows(panel(page, 'agents'), 'Simulated');
  assert.equal(await overflow(page), 0);
  await shot(page, 'phone');
  await page.locator('#frames summary', { hasText: 'xxxx' }).first().click();
  await page.locator('#frames-title').scrollIntoViewIfNeeded();
  assert.equal(await overflow(page), 0);
  await shot(page, 'phone-frames');
  assert.deepEqual(complaints, []);
});

test('a flood of updates is drawn once per picture and does not make the page grow', async () => {
  const node = await start();
  const { page, complaints } = await live(browser, node);
  const { epoch, seq } = await node.publish('tasks', 'task_update', { id: 't0', title: 'The first', status: 'pending' });
  await shows(panel(page, 'tasks'), 'The first');
  // Handed to the page's own socket, so that the speed of the node and of HTTP has no part in it.
  const { last, changes } = await page.evaluate(async ({ epoch, from }) => {
    let [seq, changes] = [from, 0];
    new MutationObserver(() => (changes += 1)).observe(document.querySelector('#frames'), { childList: true });
    for (let picture = 0; picture < 100; picture += 1) {
      for (let count = 0; count < 30; count += 1) {
        seq += 1;
        const data = { id: `t${seq % 2_000}`, title: `Task ${seq}`, status: ['pending', 'in_progress'][seq % 2], about: 'x'.repeat(200) };
        const frame = { type: 'task_update', subscription: 'tasks', epoch, seq, prev_seq: seq - 1, data, correlation_id: `c${seq}`, timestamp: new Date().toISOString() };
        globalThis.lastSocket.onmessage({ data: JSON.stringify(frame) });
      }
      await new Promise((resolve) => requestAnimationFrame(resolve));
    }
    return { last: seq, changes };
  }, { epoch, from: seq });
  await shows(panel(page, 'tasks'), `seq ${last}`);
  assert.equal(await page.locator('#frames li').count(), 200);
  assert.ok(changes <= 200, `the list of frames changed ${changes} times in 100 pictures`);
  await shot(page, 'flood');
  assert.deepEqual(complaints, []);
});
