/**
 * The object store contract over every backend that open-object-store knows, and over the decorators. The
 * table is typed by the backends' names: one without a row here does not compile. A real S3 (Ceph RGW) is one
 * more row when STREAMHOUSE_TEST_CEPH=1 is set, and then it must start; without it the row is not there.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { systemClock } from '../../src/core/clock.ts';
import { seededRandom, systemRandom } from '../../src/core/random.ts';
import { InstrumentedObjectStore } from '../../storage/objects/instrumented-object-store.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { type ObjectBackendName, openObjectStore } from '../../storage/objects/open-object-store.ts';
import { RetryingObjectStore } from '../../storage/objects/retrying-object-store.ts';
import { startCephRgw } from '../support/ceph-rgw.ts';
import { FaultyObjectStore } from '../support/faulty-object-store.ts';
import { S3_TEST_ENV, startS3Server } from '../support/s3-server.ts';
import {
  type ObjectStoreHarness,
  type ObjectStoreHarnessFactory,
  objectStoreContract,
} from './object-store.ts';

Object.assign(process.env, S3_TEST_ENV);

const openOptions = { clock: systemClock, random: systemRandom, connectMsMax: 1000, requestMsMax: 5000 };

/** Opens a URL's store below the test's faults, so that a reply can be lost on any backend. */
function overUrl(url: string, rest: Pick<ObjectStoreHarness, 'stop' | 'end'>): ObjectStoreHarness {
  let lose = false;
  return {
    retries: false,
    loseNextPutReply: () => {
      lose = true;
    },
    async open() {
      return new FaultyObjectStore(await openObjectStore(url, openOptions), systemClock, ({ call }) => {
        if (call !== 'put' || !lose) return undefined;
        lose = false;
        return { kind: 'error-after-success' };
      });
    },
    ...rest,
  };
}

async function filesystemHarness(): Promise<ObjectStoreHarness> {
  const directory = await mkdtemp(path.join(tmpdir(), 'streamhouse-objects-'));
  return overUrl(`file:${directory}`, { end: () => rm(directory, { recursive: true }) });
}

/** On the server the reply is lost for real: the connection is cut after the object was stored. */
async function s3Harness(): Promise<ObjectStoreHarness> {
  const server = await startS3Server();
  return {
    retries: false,
    loseNextPutReply: () => {
      server.fault = ({ kind }) => {
        if (kind !== 'put') return undefined;
        server.fault = () => undefined;
        return { kind: 'cut-after-success' };
      };
    },
    open: () => openObjectStore(server.url.replace('?', '/some/prefix?'), openOptions),
    stop: { run: () => server.stop(), failsWithinMs: 3000 },
    end: () => server.stop(),
  };
}

const backends: Record<ObjectBackendName, ObjectStoreHarnessFactory> = {
  memory: async () => overUrl('memory:contract', { end: async () => undefined }),
  file: filesystemHarness,
  s3: s3Harness,
  delayed: async () => overUrl('delayed:1,2,5:memory:delayed-contract', { end: async () => undefined }),
};

const policy = { attemptsMax: 3, attemptMsMax: 5000, backoffMsFirst: 10, backoffMsMax: 50 };

/** As a broker wires them: counted attempts below the retries, counted calls above. */
function decorated(factory: ObjectStoreHarnessFactory): ObjectStoreHarnessFactory {
  return async () => {
    const harness = await factory();
    const options = { clock: systemClock, random: seededRandom(1), policy };
    const wrap = (inner: ObjectStore): ObjectStore => {
      const attempts = new InstrumentedObjectStore(inner, systemClock, () => undefined);
      const retrying = new RetryingObjectStore(attempts, options);
      return new InstrumentedObjectStore(retrying, systemClock, () => undefined);
    };
    return { ...harness, retries: true, open: async () => wrap(await harness.open()) };
  };
}

for (const [name, factory] of Object.entries(backends)) {
  objectStoreContract(name, factory);
  objectStoreContract(`${name}, retried and counted`, decorated(factory));
}

if (process.env.STREAMHOUSE_TEST_CEPH === '1') {
  const cephHarness: ObjectStoreHarnessFactory = async () => {
    const ceph = await startCephRgw();
    const stop = { run: () => ceph.stop(), failsWithinMs: 3000 };
    return overUrl(ceph.url.replace('?', '/some/prefix?'), { stop, end: () => ceph.stop() });
  };
  objectStoreContract('Ceph RGW', cephHarness);
  objectStoreContract('Ceph RGW, retried and counted', decorated(cephHarness));
}
