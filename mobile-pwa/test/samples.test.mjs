// The samples in `schemas/samples` are what the generated types say: each is assigned to its union by
// the compiler, without a file on disk.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const samples = new URL('../../schemas/samples/', import.meta.url);
const checked = fileURLToPath(new URL('../src/types/samples.virtual.ts', import.meta.url));

/** What the compiler says about a source that stands beside the generated types. */
function mistakes(source) {
  const configPath = fileURLToPath(new URL('../tsconfig.json', import.meta.url));
  const { options } = ts.convertCompilerOptionsFromJson(
    ts.readConfigFile(configPath, ts.sys.readFile).config.compilerOptions,
    '.',
  );
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists } = host;
  host.fileExists = (name) => name === checked || fileExists.call(host, name);
  host.getSourceFile = (name, ...rest) =>
    name === checked ? ts.createSourceFile(name, source, ...rest) : getSourceFile.call(host, name, ...rest);
  const program = ts.createProgram([checked], options, host);
  return ts.getPreEmitDiagnostics(program).map((mistake) => {
    const text = ts.flattenDiagnosticMessageText(mistake.messageText, '\n');
    const line = mistake.file?.getLineAndCharacterOfPosition(mistake.start ?? 0).line ?? 0;
    return `${source.split('\n')[line]?.slice(0, 60)}: ${text}`;
  });
}

function source(directory, type) {
  const files = readdirSync(new URL(`${directory}/`, samples)).filter((name) => name.endsWith('.json'));
  assert.ok(files.length > 0, `no samples in ${directory}`);
  const lines = files.map((name, index) => {
    const text = readFileSync(new URL(`${directory}/${name}`, samples), 'utf8');
    return `/* ${name} */ export const sample${index}: ${type} = ${JSON.stringify(JSON.parse(text))};`;
  });
  return `import type { ${type} } from './ws-messages.js';\n${lines.join('\n')}\n`;
}

for (const [directory, type] of [
  ['server', 'ServerFrame'],
  ['client', 'ClientFrame'],
]) {
  test(`${directory} samples are of type ${type}`, () => {
    assert.deepEqual(mistakes(source(directory, type)), []);
  });
}

test('a frame of the wrong shape is not', () => {
  const wrong = "import type { ServerFrame } from './ws-messages.js';\nexport const x: ServerFrame = { type: 'pong' };\n";
  assert.equal(mistakes(wrong).length, 1);
});
