/**
 * docs/http-api.md names every error a client can meet, and every route; its curl lines are answered without
 * error.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { ERROR_CODES } from '../../../../src/core/errors.ts';
import { HTTP_ERRORS } from '../../../../src/server/http/error-table.ts';
import { call, startDoor } from '../../../support/http-door-harness.ts';

const doc = readFileSync(new URL('../../../../docs/http-api.md', import.meta.url), 'utf8');

test('every error code is in the table of the documentation, with its status', () => {
  const rows = new Map<string, string>();
  for (const [, status, errorCode, codes] of doc.matchAll(/^\| (\d{3}) \| (\d+) \| ([^|]*) \|/gm)) {
    for (const code of codes.split(',')) rows.set(`${code.trim()} ${status}`, errorCode);
  }
  for (const code of ERROR_CODES) {
    const { status, errorCode } = HTTP_ERRORS[code];
    const name = errorCode === 50002 ? '(others)' : code;
    assert.equal(rows.get(`${name} ${status}`), String(errorCode), code);
  }
});

test('every route is named', async (t) => {
  const under = await startDoor(t);
  const page = (await call(under, 'GET', '/openapi.json')).json;
  for (const path of Object.keys(page.paths)) {
    const last = path.replace('/v3/clusters/{cluster}', '').replace('/topics/{topic}/configs', '/configs');
    assert(doc.includes(last === '' ? '/v3/clusters/{cluster}' : last), path);
  }
});

/** Stands in for curl, which a machine need not have: -s, -X, -H, -d and a URL, as curl understands them. */
const CURL = `
const headers = {}, rest = process.argv.slice(2);
let method, body, url;
while (rest.length > 0) {
  const word = rest.shift();
  if (word === '-s') continue;
  if (word === '-X') method = rest.shift();
  else if (word === '-d') body = rest.shift();
  else if (word === '-H') { const [name, value] = rest.shift().split(': '); headers[name] = value; }
  else if (word.startsWith('-') || url) throw new Error('unknown word ' + word);
  else url = word;
}
const answer = await fetch(url, { method: method ?? (body === undefined ? 'GET' : 'POST'), headers, body });
process.stdout.write(await answer.text());
`;

test('the curl lines work when pasted', async (t) => {
  const under = await startDoor(t);
  const scripts = [...doc.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, script]) => script).join('');
  const script = scripts.replace('http://127.0.0.1:8080', under.url);
  assert(script.includes(under.url));
  const folder = mkdtempSync(join(tmpdir(), 'streamhouse-doc-'));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'curl.mjs'), CURL);
  writeFileSync(join(folder, 'curl'), `#!/bin/sh\nexec '${process.execPath}' '${folder}/curl.mjs' "$@"\n`);
  chmodSync(join(folder, 'curl'), 0o755);
  const env = { ...process.env, PATH: `${folder}${delimiter}${process.env.PATH}` };
  const { stdout } = await promisify(execFile)('sh', ['-euc', script], { env });
  assert.doesNotMatch(stdout, /error_code/);
  assert.equal(under.broker.partition('orders', 1).records[0].value?.toString('hex'), '000102ff');
  assert(under.requests.length > 12);
  assert.deepEqual(
    under.requests.filter((r) => r.status >= 400),
    [],
  );
});
