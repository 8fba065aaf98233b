// The check of frames accepts every sample of the contract, and none of those that are wrong.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { compileFrames } from '../schema.mjs';

const schemas = new URL('../../../schemas/', import.meta.url);
const read = (name) => JSON.parse(readFileSync(new URL(name, schemas), 'utf8'));
const schema = read('ws_messages.schema.json');
const sides = { server: compileFrames(schema, 'ServerFrame'), client: compileFrames(schema, 'ClientFrame') };

function names(directory) {
  const found = readdirSync(new URL(`samples/${directory}/`, schemas)).filter((name) => name.endsWith('.json'));
  assert.ok(found.length > 0, `no samples in ${directory}`);
  return found;
}

for (const [side, check] of Object.entries(sides)) {
  test(`every ${side} sample is accepted`, () => {
    for (const name of names(side)) assert.equal(check(read(`samples/${side}/${name}`)), null, name);
  });
}

test('every wrong sample is refused', () => {
  for (const name of names('invalid')) {
    assert.notEqual(sides[name.split('.')[0]](read(`samples/invalid/${name}`)), null, name);
  }
});

test('what is wrong is named', () => {
  const sample = read('samples/server/task_update.json');
  assert.equal(sides.server({ ...sample, seq: -1 }), 'frame.seq is below 1');
  assert.equal(sides.server({ ...sample, prev_seq: undefined }), 'frame.prev_seq is missing');
  assert.equal(sides.server({ ...sample, type: 'nonsense' }), 'the type "nonsense" is not known');
});

test('a keyword that is not known is no check that always passes', () => {
  const odd = { $defs: { ServerFrame: { properties: { type: { const: 'x' } }, patternProperties: {} } } };
  assert.throws(() => compileFrames(odd, 'ServerFrame'), /patternProperties, which is not known/);
});
