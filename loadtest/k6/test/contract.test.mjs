// What counts as a breach of the contract, apart from gaps.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Contract, REASONS } from '../contract.mjs';
import { compileFrames } from '../schema.mjs';

const schemas = new URL('../../../schemas/', import.meta.url);
const read = (name) => JSON.parse(readFileSync(new URL(name, schemas), 'utf8'));
const check = compileFrames(read('ws_messages.schema.json'), 'ServerFrame');
const sample = (name) => read(`samples/server/${name}.json`);

function open(options) {
  const contract = new Contract(check, options);
  contract.begin();
  for (const name of ['connection_established', 'dashboard_initialized']) {
    assert.deepEqual(contract.read(JSON.stringify(sample(name))).violations, []);
  }
  return contract;
}

const reasons = (contract, frame) => contract.read(JSON.stringify(frame)).violations.map(({ reason }) => reason);

test('every sample passes at its place, except errors that nobody provoked', () => {
  for (const file of readdirSync(new URL('samples/server/', schemas))) {
    const frame = read(`samples/server/${file}`);
    if (['connection_established', 'dashboard_initialized'].includes(frame.type)) continue;
    const expected = ['error', 'data_error'].includes(frame.type) ? ['unexpected_error'] : [];
    assert.deepEqual(reasons(open(), frame), expected, file);
    if (expected.length > 0) assert.deepEqual(reasons(open({ errors: [frame.code] }), frame), [], file);
  }
});

test('a frame without its id or its time is named as that, and is still followed', () => {
  const { correlation_id, ...rest } = sample('task_update');
  const { frame, violations } = open().read(JSON.stringify(rest));
  assert.deepEqual(violations.map(({ reason }) => reason), ['no_correlation_id']);
  assert.equal(frame.seq, rest.seq);
  assert.deepEqual(reasons(open(), { ...rest, correlation_id: 'a b' }), ['no_correlation_id']);
  assert.deepEqual(reasons(open(), { ...rest, correlation_id, timestamp: undefined }), ['no_timestamp']);
});

test('what is no frame of the contract is not followed', () => {
  for (const text of ['{', '[]', 'null', JSON.stringify({ ...sample('pong'), type: 'nonsense' })]) {
    const { frame, violations } = open().read(text);
    assert.deepEqual([frame, violations.map(({ reason }) => reason)], [null, ['bad_shape']], text);
  }
});

test('the order of the first frames', () => {
  const contract = new Contract(check);
  contract.begin();
  assert.deepEqual(reasons(contract, sample('dashboard_initialized')), ['bad_order']);
  assert.deepEqual(reasons(open(), sample('connection_established')), ['bad_order']);
});

test('a connection ends as asked, or as announced', () => {
  assert.equal(open().ended(1000, true), null);
  assert.equal(open().ended(undefined, true), null, 'k6 1.1 does not tell');
  assert.equal(open().ended(1006, true).reason, 'wrong_close');
  assert.equal(open().ended(1000, false).reason, 'wrong_close');
  assert.equal(open().ended(1012, false).reason, 'wrong_close', 'without a notice');
  const notice = { ...sample('disconnect_notice'), reason: 'draining', code: 1012 };
  const sentOff = open();
  assert.deepEqual(reasons(sentOff, notice), []);
  assert.equal(sentOff.ended(1012, false), null);
  assert.equal(sentOff.ended(1011, false).reason, 'wrong_close', 'with another code than announced');
});

test('only who risks backpressure may be closed for it', () => {
  const notice = { ...sample('disconnect_notice'), reason: 'backpressure', code: 1013 };
  const [fast, slow] = [open(), open({ closes: { 1013: 'backpressure' } })];
  for (const contract of [fast, slow]) assert.deepEqual(reasons(contract, notice), []);
  assert.equal(fast.ended(1013, false).reason, 'wrong_close');
  assert.equal(slow.ended(1013, false), null);
});

test('every reason says what it means', () => {
  for (const [name, meaning] of Object.entries(REASONS)) assert.ok(/^[a-z_]+$/.test(name) && meaning.length > 10);
});
