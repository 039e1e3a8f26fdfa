/** Object URLs: the right store, or one clear line that says what is wrong and shows no secret. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { systemClock } from '../../../../src/core/clock.ts';
import { StreamHouseError } from '../../../../src/core/errors.ts';
import { systemRandom } from '../../../../src/core/random.ts';
import { openObjectStore } from '../../../../storage/objects/open-object-store.ts';

const options = { clock: systemClock, random: systemRandom };
const open = (url: string) => openObjectStore(url, options);

describe('openObjectStore', () => {
  let directory: string;
  before(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'streamhouse-open-'));
  });
  after(() => rm(directory, { recursive: true }));

  it('opens directories by path and by URL, and makes them', async () => {
    for (const [url, where] of [
      [`file:${directory}/one`, `${directory}/one`],
      [pathToFileURL(`${directory}/tw o`).href, `${directory}/tw o`],
      [`file:${path.relative('.', directory)}/three?x=1`, `${directory}/three?x=1`],
    ]) {
      const store = await open(url);
      assert.equal(store.description, `file:${where}`);
      assert.ok((await stat(where)).isDirectory());
      await store.close();
    }
  });

  it('shares a named memory store among its openers until the last of them closes', async () => {
    const [one, two, own] = [await open('memory:shared'), await open('memory:shared'), await open('memory:')];
    await one.put('k', new Uint8Array(3));
    assert.equal((await two.get('k')).length, 3);
    await assert.rejects(own.get('k'), { code: 'object-not-found' });
    await one.close();
    await one.close();
    const three = await open('memory:shared');
    assert.equal((await three.get('k')).length, 3);
    await two.close();
    await three.close();
    const anew = await open('memory:shared');
    await assert.rejects(anew.get('k'), { code: 'object-not-found' });
    await anew.close();
    await own.close();
  });

  it('describes an S3 store without asking it anything', async () => {
    const endpoint = 'http://127.0.0.1:9';
    const store = await open(`s3://bucket/some/pre%20fix/?endpoint=${encodeURIComponent(endpoint)}`);
    assert.equal(store.description, 's3://bucket/some/pre fix at http://127.0.0.1:9');
    await store.close();
    const aws = await open('s3://bucket?region=eu-central-1');
    assert.equal(aws.description, 's3://bucket/');
    await aws.close();
  });

  const wrong: [url: string, says: RegExp][] = [
    ['', /must begin with file:, s3:\/\/ or memory:/],
    ['/data', /must begin with/],
    ['http://bucket', /must begin with/],
    ['toString:x', /must begin with/],
    ['constructor:x', /must begin with/],
    ['file:', /the directory is missing/],
    ['file:a\0b', /the directory is missing/],
    ['file://host/dir', /use file:DIR/],
    ['memory:a/b', /use memory:/],
    ['s3:bucket', /use s3:\/\/BUCKET/],
    ['s3://', /the bucket name/],
    ['s3:///prefix', /the bucket name/],
    ['s3://b/', /the bucket name/],
    ['s3://bucket/a//b', /the prefix cannot be used: it has an empty part/],
    ['s3://bucket/%2e%2e%2fa', /the prefix cannot be used/],
    ['s3://bucket/%ff', /not valid percent-encoding/],
    [`s3://bucket/${'a/'.repeat(150)}`, /longer than 200 bytes/],
    ['s3://bucket/p?regoin=x', /"regoin" is no option/],
    ['s3://bucket/p?region=', /the region is empty/],
    ['s3://bucket/p?endpoint=localhost:9000', /must be an http:\/\/ or https:\/\/ URL/],
    ['s3://bucket/p?endpoint=', /must be an http:\/\/ or https:\/\/ URL/],
    ['s3://AKID:hush@bucket/p', /keys do not belong in the URL/],
    ['s3://bucket/p?endpoint=http://AKID:hush@host', /keys do not belong in the endpoint/],
  ];
  for (const [url, says] of wrong) {
    it(`refuses ${JSON.stringify(url.slice(0, 60))}`, async () => {
      await assert.rejects(open(url), (error: unknown) => {
        assert.ok(error instanceof StreamHouseError, String(error));
        assert.equal(error.code, 'invalid-setting');
        assert.match(error.message, says);
        assert.doesNotMatch(error.message, /\n|hush/);
        return true;
      });
    });
  }

  it('loads the SDK only for S3', async () => {
    const module = new URL('../../../../storage/objects/open-object-store.ts', import.meta.url).href;
    const script = `
      const { openObjectStore } = await import(${JSON.stringify(module)});
      const { systemClock: clock } = await import(${JSON.stringify(new URL('../../../../src/core/clock.ts', import.meta.url).href)});
      const { systemRandom: random } = await import(${JSON.stringify(new URL('../../../../src/core/random.ts', import.meta.url).href)});
      const { createRequire } = await import('node:module');
      const loaded = () => process.memoryUsage().heapUsed > 0 &&
        Object.keys(createRequire(import.meta.url).cache).some((file) => file.includes('client-s3'));
      await openObjectStore(${JSON.stringify(`file:${directory}/lazy`)}, { clock, random });
      const before = loaded();
      await openObjectStore('s3://bucket?region=x', { clock, random });
      console.log(before, loaded());`;
    const cwd = fileURLToPath(new URL('../../../..', import.meta.url));
    const args = ['--input-type=module', '-e', script];
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd });
    assert.equal(stdout.trim(), 'false true');
  });

  it('says when no region can be found', async () => {
    const module = new URL('../../../../storage/objects/open-object-store.ts', import.meta.url).href;
    const script = `
      const { openObjectStore } = await import(${JSON.stringify(module)});
      await openObjectStore('s3://bucket/p', {}).catch((error) => console.log(error.code, error.message));`;
    const env = { PATH: process.env.PATH, HOME: directory, AWS_EC2_METADATA_DISABLED: 'true' };
    const args = ['--input-type=module', '-e', script];
    const { stdout } = await promisify(execFile)(process.execPath, args, { env });
    assert.match(stdout, /^invalid-setting s3:\/\/bucket: no region; add \?region=/);
  });
});
