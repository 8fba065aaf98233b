// The plain page that a node shows at `/`: what it is connected to, what the latest values are, and every
// frame as it comes. This file wires the parts: `feed.mjs` has the connection, `panels.mjs` the values,
// `log.mjs` the frames. It goes when the mobile app takes its place.

import { el, setText, words } from './dom.mjs';
import { Feed } from './feed.mjs';
import { Log } from './log.mjs';
import { Panels } from './panels.mjs';

/** However many frames come, the page is drawn this often at most. */
const DRAW_EVERY_MS = 150;

/** The node joins no more than this unless it is told to. */
const SUBSCRIPTIONS_MAX = 10;

const CONTRACT_MAX_MS = 5_000;

/** What the machine words of a close mean to a person. */
const REASONS = {
  admin: 'An administrator ended this session.',
  server_shutdown: 'The node is shutting down.',
  draining: 'The node is being drained and said when to come back.',
  rate_limit_abuse: 'The node found that this page sent too much.',
  backpressure: 'This browser could not keep up with the node.',
  connection_limit: 'The node has no room for more connections.',
  lease_lost: 'The node lost its place in the cluster.',
  credential_missing: 'This node asks for an access token.',
  credential_invalid: 'The node did not accept the access token.',
  token_expired: 'The access token has expired.',
  revoked: 'The access token was revoked.',
  origin_denied: 'The node does not allow pages from this origin (WS_ALLOWED_ORIGINS).',
  idle_timeout: 'The session was idle for too long.',
  heartbeat_timeout: 'The node did not hear from this browser.',
  connect_timeout: 'The node did not answer in time.',
  silence: 'Nothing was heard from the node for too long.',
  unreadable: 'The node sent something that is no frame.',
};

/** What a close without a known reason means, by what it leads to. */
const STOPS = {
  normal: 'The connection was closed.',
  credential: 'The node asks for a valid access token.',
  forbidden: 'The node refuses this page. It does not try again by itself.',
  protocol: 'The node found this page to break the protocol: a bug here or in between.',
};

const base = new URL('.', document.location.href);
const $ = (id) => document.getElementById(id);

const feed = new Feed({ url: new URL('api/dashboard/ws/dashboard', base), onState, onFrame });
const panels = new Panels($('panels'), feed);
const log = new Log(
  { list: $('frames'), pause: $('pause'), clear: $('clear'), filter: $('filter'), summary: $('summary') },
  schedule,
);
const boxes = new Map();
let trouble = '';
let rate = { at: performance.now(), count: 0 };
let drawnAt = 0;
let isPlanned = false;

function onFrame(frame, text, effects) {
  log.add(frame, text, effects);
  panels.add(frame, effects);
  if (frame.type === 'error') trouble = frame.message;
  if (frame.type === 'version_warning') {
    trouble = `This page speaks a contract that the node no longer supports (it has ${frame.current_version}).`;
  }
  schedule();
}

function onState() {
  if (feed.state.is === 'connecting') trouble = '';
  panels.touchAll();
  const asksForToken = feed.state.stop === 'credential';
  $('credential').hidden = !asksForToken;
  if (asksForToken && document.activeElement === document.body) $('token').focus();
  drawState();
  drawCountdown();
  schedule();
}

/** Draws with the next frame of the screen, but not more often than `DRAW_EVERY_MS`. */
function schedule() {
  if (isPlanned) return;
  isPlanned = true;
  const rest = Math.max(0, drawnAt + DRAW_EVERY_MS - performance.now());
  setTimeout(() => requestAnimationFrame(draw), rest);
}

function draw() {
  isPlanned = false;
  drawState();
  drawSubscriptions();
  panels.draw();
  log.draw();
  drawnAt = performance.now();
}

function drawState() {
  const { state, session } = feed;
  const [text, tone] = {
    connecting: ['Connecting', 'warn'],
    live: ['Live', 'good'],
    waiting: ['Reconnecting', 'warn'],
    closed: ['Closed', 'bad'],
  }[state.is];
  setText($('state'), text);
  $('state').className = `pill ${tone}`;
  $('reconnect').hidden = state.is !== 'waiting' && (state.is !== 'closed' || state.stop === 'credential');
  const detail = ended(state) || trouble || (feed.isBusLive === false ? 'The node cannot prove that publications reach it: what you see may be old.' : '');
  setText($('detail'), detail);
  $('detail').hidden = detail === '';
  $('detail').className = `notice ${state.is === 'closed' ? 'bad' : 'warn'}`;
  setText($('node'), session?.node_id ?? '–');
  setText($('contract'), session?.contract_version ?? '–');
  setText($('bus'), { true: 'live', false: 'not proven live' }[feed.isBusLive] ?? '–');
  drawCommand();
}

/** Why the connection ended, in words, with what the close frame said. */
function ended({ is, stop, code, reason }) {
  if (is !== 'waiting' && is !== 'closed') return '';
  const why = REASONS[reason] ?? STOPS[stop] ?? 'The connection was lost.';
  const said = [code, reason].filter(Boolean).join(' ');
  return said === '' ? why : `${why} (${said})`;
}

/** Outside the live region, or every second would be read out. */
function drawCountdown() {
  const { state } = feed;
  const seconds = state.is === 'waiting' ? Math.max(0, Math.ceil((state.until - Date.now()) / 1_000)) : 0;
  setText($('countdown'), state.is === 'waiting' ? `in ${seconds} s` : '');
}

/** Once a second: what changes with time alone. */
function tick() {
  drawCountdown();
  const now = performance.now();
  const perSecond = ((log.count - rate.count) * 1_000) / (now - rate.at);
  rate = { at: now, count: log.count };
  setText($('rate'), `${perSecond < 10 ? Math.round(perSecond * 10) / 10 : Math.round(perSecond)}/s`);
}

function drawSubscriptions() {
  const wanted = feed.wanted ?? new Set();
  const joined = feed.continuity.names();
  for (const name of [...wanted, ...joined]) addBox(name);
  for (const [name, { input, note }] of boxes) {
    input.checked = wanted.has(name);
    const isJoined = feed.state.is === 'live' && joined.includes(name);
    setText(note, isJoined ? 'joined' : wanted.has(name) ? 'waiting' : '');
  }
}

function addBox(name, description = '') {
  if (boxes.has(name)) return;
  const input = el('input', { type: 'checkbox', value: name });
  const note = el('small');
  input.addEventListener('change', () => {
    trouble = '';
    feed.join(name, input.checked);
    schedule();
  });
  boxes.set(name, { input, note });
  $('subscriptions').append(el('label', { title: description }, input, words(name), note));
}

function drawCommand() {
  const url = new URL('api/dashboard/websocket/broadcast?subscription=tasks&message_type=task_update', base);
  const lines = [
    `curl '${url}'`,
    ...(feed.hasToken || feed.state.stop === 'credential' ? [`  -H "Authorization: Bearer $WS_AUTH_TOKEN"`] : []),
    `  -H 'Content-Type: application/json'`,
    `  -d '{"id":"t1","title":"Try HiveOps","status":"in_progress"}'`,
  ];
  setText($('command'), lines.join(' \\\n'));
}

$('reconnect').addEventListener('click', () => feed.connect());
$('credential').addEventListener('submit', (event) => {
  event.preventDefault();
  const token = $('token').value.trim();
  $('token').value = '';
  if (token !== '') feed.connect(token);
});
if (navigator.clipboard !== undefined) {
  $('copy').hidden = false;
  $('copy').addEventListener('click', async () => {
    const isCopied = await navigator.clipboard.writeText($('command').textContent).then(() => true, () => false);
    setText($('copy'), isCopied ? 'Copied' : 'Not allowed');
    setTimeout(() => setText($('copy'), 'Copy'), 2_000);
  });
}
addEventListener('online', () => {
  if (feed.state.is === 'waiting') feed.connect();
});

/** The contract declares what there is; without an answer the node chooses what is joined. */
async function subscriptions() {
  const url = new URL('api/dashboard/websocket/contract', base);
  const response = await fetch(url, { signal: AbortSignal.timeout(CONTRACT_MAX_MS) });
  if (!response.ok) throw new Error(`the contract was answered with ${response.status}`);
  return (await response.json()).subscriptions;
}

try {
  const declared = await subscriptions();
  for (const { name, description } of declared) addBox(name, description);
  feed.wanted = new Set(declared.slice(0, SUBSCRIPTIONS_MAX).map(({ name }) => name));
} catch (error) {
  console.warn('the subscriptions are not known yet', error);
}
feed.connect();
setInterval(tick, 1_000);
