// Writes the files that are generated from the hand-written ones in `schemas/`, or checks that the
// committed ones are what would be written.
//
//   ws_messages.schema.json      → mobile-pwa/src/types/ws-messages.d.ts
//   asyncapi.yaml, openapi.yaml  → asyncapi.json, openapi.json, which a node serves
//
// Called by `npm -w mobile-pwa run generate:schemas` and `check:schemas`.

import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { load } from 'js-yaml';
import { compile } from 'json-schema-to-typescript';

const root = new URL('../../', import.meta.url);
const path = (name) => fileURLToPath(new URL(name, root));

const SCHEMA = 'schemas/ws_messages.schema.json';
const SCHEMA_URL = '/api/dashboard/schema/ws_messages.schema.json';

const BANNER = `/**
 * The WebSocket messages of HiveOps: \`ServerFrame\` and \`ClientFrame\`, told apart by \`type\`.
 *
 * Generated from ${SCHEMA} by \`npm -w mobile-pwa run generate:schemas\`.
 * Do not edit: change the schema instead.
 */`;

/** Applies `change` to every object of a JSON value, innermost first. */
function mapObjects(value, change) {
  if (Array.isArray(value)) return value.map((item) => mapObjects(item, change));
  if (value === null || typeof value !== 'object') return value;
  return change(Object.fromEntries(Object.entries(value).map(([name, item]) => [name, mapObjects(item, change)])));
}

/**
 * The generator makes a type of its own for what stands beside a `$ref` or an `allOf`, under a name with
 * a number. Moved into the `allOf`, a reference stays the type it refers to, and members become an
 * intersection with the base.
 */
function intoAllOf(schema) {
  return mapObjects(schema, (object) => {
    if (typeof object.$ref === 'string' && Object.keys(object).length > 1) {
      const { $ref, ...rest } = object;
      return { ...rest, allOf: [{ $ref }] };
    }
    if (Array.isArray(object.allOf) && object.properties !== undefined) {
      const { type, required, properties, allOf, ...rest } = object;
      return { ...rest, allOf: [...allOf, { type, required, properties }] };
    }
    return object;
  });
}

async function types() {
  const schema = intoAllOf(JSON.parse(await readFile(path(SCHEMA), 'utf8')));
  // The names of the types come from the titles; identifiers of documents have no part in it.
  delete schema.$id;
  return compile(schema, 'WsMessage', {
    additionalProperties: false,
    bannerComment: BANNER,
    cwd: path('schemas/'),
    format: true,
    style: { singleQuote: true, printWidth: 110 },
    unreachableDefinitions: true,
  });
}

/** The JSON of a YAML document; references to the schema lead to where a node serves it. */
async function description(name) {
  const document = load(await readFile(path(name), 'utf8'));
  const served = mapObjects(document, (object) =>
    typeof object.$ref === 'string' && object.$ref.startsWith('./ws_messages.schema.json')
      ? { ...object, $ref: object.$ref.replace('./ws_messages.schema.json', SCHEMA_URL) }
      : object,
  );
  return `${JSON.stringify(served, null, 2)}\n`;
}

const generated = [
  ['mobile-pwa/src/types/ws-messages.d.ts', types],
  ['schemas/asyncapi.json', () => description('schemas/asyncapi.yaml')],
  ['schemas/openapi.json', () => description('schemas/openapi.yaml')],
];

const mode = process.argv[2];
if (mode !== 'write' && mode !== 'check') {
  console.error('usage: node scripts/schemas.mjs write|check');
  process.exit(2);
}

const stale = [];
for (const [name, make] of generated) {
  const text = await make();
  if (mode === 'write') {
    await writeFile(path(name), text);
    console.log(`wrote ${name}`);
  } else if ((await readFile(path(name), 'utf8').catch(() => '')) !== text) {
    stale.push(name);
  }
}
if (stale.length > 0) {
  console.error(`not what the schemas say: ${stale.join(', ')}`);
  console.error('run `npm -w mobile-pwa run generate:schemas` and commit what it writes');
  process.exit(1);
}
