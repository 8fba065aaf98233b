// How a page logs in and stays in, in a real browser against a real node with a control replica beside it: by
// fetch, the pair of subprotocols, auth_refresh on the open socket, and the close codes that say what to do.
// Run by `npm -w mobile-pwa run test:page`.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch, open } from './chromium.mjs';
import { RunningNode } from './node.mjs';

const EMAIL = 'ada@example.org';
const PASSWORD = 'a-password-for-the-browser';
const WAIT_MS = 15_000;
/** Until a node whose control replica has just started lets the first admin in, on a busy machine. */
const FIRST_LOGIN_MS = 60_000;

let browser;
let node;

before(async () => {
  browser = await launch();
  node = await start();
});

after(async () => {
  await browser?.close();
  await node?.stop('SIGKILL');
});

/** A node whose own page, by its address and not by its name, is the one that may connect. */
async function start() {
  // Its origin must be known before it starts: that of a node that had a free port a moment ago.
  const first = await RunningNode.start({}, ['--control-listen', '127.0.0.1:0']);
  const { address, url } = first;
  await first.stop();
  return RunningNode.start({
    HIVEOPS_LISTEN: address,
    HIVEOPS_CONTROL_LISTEN: '127.0.0.1:0',
    HIVEOPS_BOOTSTRAP_ADMIN_EMAIL: EMAIL,
    HIVEOPS_BOOTSTRAP_ADMIN_PASSWORD: PASSWORD,
    WS_AUTH_REQUIRED: 'true',
    WS_AUTH_MODE: 'jwt',
    WS_ALLOWED_ORIGINS: url,
  });
}

/** What a page needs: nothing of the test's own is in it but these functions. */
function equip() {
  const post = async (path, body) => {
    const answer = await fetch(path, { method: 'POST', body: body === undefined ? null : JSON.stringify(body), headers: { 'content-type': 'application/json' } });
    return { status: answer.status, body: await answer.json() };
  };
  const base64url = (text) => btoa(text).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
  /** Connects, and keeps what comes and how it ends. */
  const connect = (token) => {
    const url = `${location.origin.replace('http', 'ws')}/api/dashboard/ws/dashboard?subscriptions=tasks`;
    const socket = token === undefined ? new WebSocket(url) : new WebSocket(url, ['hiveops.v1', `hiveops.bearer.${base64url(token)}`]);
    const waiting = [];
    const frames = [];
    let closed;
    const look = () => waiting.splice(0).forEach((again) => again());
    socket.addEventListener('message', ({ data }) => (frames.push(JSON.parse(data)), look()));
    socket.addEventListener('close', ({ code, reason, wasClean }) => ((closed = { code, reason, wasClean }), look()));
    const until = async (find) => {
      for (;;) {
        const found = find();
        if (found !== undefined) return found;
        await new Promise((resolve) => waiting.push(resolve));
      }
    };
    return {
      socket,
      frames,
      frame: (type) => until(() => frames.find((frame) => frame.type === type) ?? (closed && { closed })),
      end: () => until(() => closed),
    };
  };
  Object.assign(globalThis, { post, connect });
}

async function page(url) {
  const opened = await open(browser, url);
  opened.page.setDefaultTimeout(WAIT_MS);
  await opened.page.evaluate(equip);
  return opened.page;
}

/** The first admin is made once the replica leads. */
async function logIn(page) {
  const deadline = Date.now() + FIRST_LOGIN_MS;
  for (;;) {
    const answer = await page.evaluate((login) => post('/api/auth/login', login), { email: EMAIL, password: PASSWORD });
    if (answer.status === 200) return answer.body;
    // A wrong password would be one for ever; five tries at once are allowed, so that not every look is one.
    assert.ok(Date.now() < deadline, JSON.stringify(answer));
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
}

test('a page logs in, connects by the pair of subprotocols, and renews its credential on the open socket', async () => {
  const ours = await page(node.url);
  const grant = await logIn(ours);
  assert.equal(grant.user.email, EMAIL);
  const seen = await ours.evaluate(async (token) => {
    globalThis.own = connect(token);
    const { type } = await own.frame('connection_established');
    return { type, protocol: own.socket.protocol, url: own.socket.url };
  }, grant.access_token);
  assert.equal(seen.type, 'connection_established');
  assert.equal(seen.protocol, 'hiveops.v1', 'only the one that is no credential comes back');
  assert.ok(!seen.url.includes(grant.access_token));

  // By the cookie that the login has set, which no script can read.
  const renewed = await ours.evaluate(() => post('/api/auth/refresh'));
  assert.equal(renewed.status, 200, JSON.stringify(renewed));
  assert.notEqual(renewed.body.access_token, grant.access_token);
  assert.equal(await ours.evaluate(() => document.cookie), '');
  const after = await ours.evaluate(async (token) => {
    own.socket.send(JSON.stringify({ type: 'auth_refresh', token }));
    const refreshed = await own.frame('auth_refreshed');
    own.socket.send('{"type":"ping"}');
    return { refreshed, pong: await own.frame('pong'), state: own.socket.readyState };
  }, renewed.body.access_token);
  assert.equal(after.refreshed.type, 'auth_refreshed', JSON.stringify(after));
  assert.ok(Date.parse(after.refreshed.expires_at) > Date.now());
  assert.deepEqual([after.pong.type, after.state], ['pong', 1]);

  // The session cookie alone, since the page is listed.
  const byCookie = await ours.evaluate(async () => (await connect().frame('connection_established')).type);
  assert.equal(byCookie, 'connection_established');

  // A bad token on the open socket ends it.
  const ended = await ours.evaluate(async () => {
    own.socket.send('{"type":"auth_refresh","token":"nonsense"}');
    return own.end();
  });
  assert.deepEqual(ended, { code: 4401, reason: 'credential_invalid', wasClean: true });

  // Logging out ends the sockets of the login, and the cookies.
  const out = await ours.evaluate(async () => {
    const last = connect();
    await last.frame('connection_established');
    const { status } = await post('/api/auth/logout');
    return { status, end: await last.end(), again: await connect().end() };
  });
  assert.deepEqual(out, {
    status: 200,
    end: { code: 4401, reason: 'revoked', wasClean: true },
    again: { code: 4401, reason: 'credential_missing', wasClean: true },
  });
});

test('a page sees 4401 for a bad token as such, and no frame before it', async () => {
  const ours = await page(node.url);
  const { access_token: good } = await logIn(ours);
  for (const bad of ['nonsense', `${good.slice(0, -6)}AAAAAA`, 'x'.repeat(5_000)]) {
    const seen = await ours.evaluate(async (token) => {
      const own = connect(token);
      return { ...(await own.end()), frames: own.frames.length };
    }, bad);
    assert.deepEqual(seen, { code: 4401, reason: 'credential_invalid', wasClean: true, frames: 0 });
  }
});

test('a page of another origin sees 4403, whatever it brings, and cannot log anybody in', async () => {
  const ours = await page(node.url);
  const { access_token: token, refresh_token: refresh } = await logIn(ours);
  // The same node by another name is another origin.
  const other = await page(node.url.replace('127.0.0.1', 'localhost'));
  assert.notEqual(await other.evaluate(() => location.origin), new URL(node.url).origin);
  for (const brought of [token, 'nonsense', undefined]) {
    const seen = await other.evaluate(async (token) => {
      const own = connect(token);
      return { ...(await own.end()), frames: own.frames.length };
    }, brought);
    assert.deepEqual(seen, { code: 4403, reason: 'origin_denied', wasClean: true, frames: 0 });
  }
  const login = await other.evaluate((login) => post('/api/auth/login', login), { email: EMAIL, password: PASSWORD });
  assert.deepEqual([login.status, login.body.code], [403, 'forbidden']);
  const planted = await other.evaluate((refresh_token) => post('/api/auth/refresh', { refresh_token }), refresh);
  assert.deepEqual([planted.status, planted.body.code], [403, 'forbidden']);
});
