/**
 * The way of a record on every object backend there is: the directory, S3 as this project's test server has it,
 * and a real S3 (Ceph RGW) where STREAMHOUSE_TEST_CEPH=1 asks for it; and on every metadata backend there is. The
 * tables are typed by the backends' names.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../../src/core/clock.ts';
import { systemRandom } from '../../src/core/random.ts';
import { type ObjectBackendName, openObjectStore } from '../../storage/objects/open-object-store.ts';
import { startCephRgw } from '../support/ceph-rgw.ts';
import { METADATA_PLACES } from '../support/metadata-places.ts';
import { startS3Server } from '../support/s3-server.ts';
import { type ObjectPlace, produceFetchSuite } from './produce-fetch.ts';

async function directoryPlace(): Promise<ObjectPlace> {
  return {
    url: null,
    env: {},
    async count(directory) {
      const entries = await readdir(join(directory, 'objects'), { recursive: true, withFileTypes: true });
      return entries.filter((entry) => entry.isFile() && !entry.parentPath.endsWith('.tmp')).length;
    },
    end: async () => undefined,
  };
}

async function s3Place(): Promise<ObjectPlace> {
  const server = await startS3Server();
  return {
    url: server.url.replace('?', '/some/prefix?'),
    env: server.env,
    count: async () => server.buckets.get(server.bucket)?.size ?? 0,
    end: () => server.stop(),
  };
}

async function cephPlace(): Promise<ObjectPlace> {
  const ceph = await startCephRgw();
  Object.assign(process.env, ceph.env);
  const url = ceph.url.replace('?', '/some/prefix?');
  const store = await openObjectStore(url, { clock: systemClock, random: systemRandom });
  return {
    url,
    env: ceph.env,
    count: async () => (await store.list('', { limit: 1000 })).length,
    async end() {
      await store.close();
      await ceph.stop();
    },
  };
}

/** Objects in memory are gone with the thread that holds them: no broker can run on them. */
const places: Record<Exclude<ObjectBackendName, 'memory'>, () => Promise<ObjectPlace>> = {
  file: directoryPlace,
  s3: s3Place,
  delayed: async () => {
    const place = await s3Place();
    return { ...place, url: `delayed:2,10,50:${place.url}` };
  },
};

for (const [name, openPlace] of Object.entries(places)) {
  produceFetchSuite(`objects in ${name}`, openPlace, METADATA_PLACES.sqlite);
}
for (const [scheme, openPlace] of Object.entries(METADATA_PLACES)) {
  if (scheme !== 'sqlite') produceFetchSuite(`metadata in ${scheme}`, directoryPlace, openPlace);
}
if (process.env.STREAMHOUSE_TEST_CEPH === '1') {
  produceFetchSuite('objects in Ceph RGW', cephPlace, METADATA_PLACES.sqlite);
}
