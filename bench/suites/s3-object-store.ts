/**
 * Benchmarks of the S3 object store: puts and ranged gets by size, one at a time and 8 in flight, by turns with undici's
 * bare PUT and GET of as many bytes to the same server. The server is a sink of the suite's own in another
 * process, which does next to nothing, so that what shows is what the client costs; with STREAMHOUSE_TEST_CEPH=1 a real
 * one too, a Ceph RGW whose bucket takes unsigned requests. Two processes and more.
 */
import { createHash, randomBytes } from 'node:crypto';
import { PutBucketPolicyCommand, S3Client } from '@aws-sdk/client-s3';
import { systemClock } from '../../src/core/clock.ts';
import { systemRandom } from '../../src/core/random.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { openObjectStore } from '../../storage/objects/open-object-store.ts';
import { startCephRgw } from '../../test/support/ceph-rgw.ts';
import { S3_TEST_ENV } from '../../test/support/s3-server.ts';
import { BenchChild } from '../door/child-process.ts';
import { BareHttp } from '../objects/bare-http.ts';
import { SINK_OBJECT_BYTES } from '../objects/sink-object.ts';
import { upTo } from '../sample-appends.ts';
import { type Suite, type SuiteOptions, type TaskFigures, TaskSet } from '../suite.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZES = [
  [64 * KIB, '64 KiB'],
  [MIB, '1 MiB'],
  [8 * MIB, '8 MiB'],
] as const;
const LANES = 8;
/** A run of what is in flight together: as many calls, one lane after another. */
const CALLS_PER_LANE = 2;
const READ_KEY = 'read/object';

interface Server {
  name: string;
  /** For openObjectStore. */
  url: string;
  endpoint: string;
  bucket: string;
  /** Of each task. A real server keeps what it is given for a while, also when it was deleted. */
  timeMs: number;
  runs: number;
  warmUpRuns: number;
}

/** One client of a server. */
interface Client {
  put(key: string, bytes: Uint8Array): Promise<void>;
  get(key: string, position: number, length: number): Promise<Buffer>;
}

function clientOf(store: ObjectStore): Client {
  return {
    put: (key, bytes) => store.put(key, bytes),
    get: (key, position, length) => store.get(key, { position, length }),
  };
}

/** Puts and gets of one size by the S3 store and by bare HTTP. */
class SizeTasks {
  readonly #server: Server;
  readonly #store: ObjectStore;
  readonly #bare: Client;
  readonly #options: SuiteOptions;
  #number = 0;

  constructor(server: Server, store: ObjectStore, bare: Client, options: SuiteOptions) {
    this.#server = server;
    this.#store = store;
    this.#bare = bare;
    this.#options = options;
  }

  async run(size: number, label: string): Promise<TaskFigures[]> {
    const { name: at, ...settings } = this.#server;
    const bytes = randomBytes(size);
    const figures: TaskFigures[] = [];
    for (const inFlight of [1, LANES]) {
      // A set each: the warm-up of a task is right before it, and leaves nothing for long.
      const tasks = new TaskSet(`s3 ${at} ${label}`, this.#options, settings);
      const what = `${label}, ${inFlight} in flight, ${at}`;
      this.#add(tasks, 'put', size, inFlight, what, (client, key) => client.put(key, bytes));
      this.#add(tasks, 'get', size, inFlight, what, async (client) => {
        const position = this.#number % (SINK_OBJECT_BYTES - size);
        await client.get(READ_KEY, position, size);
      });
      figures.push(...(await tasks.run()));
    }
    return figures;
  }

  #add(
    tasks: TaskSet,
    call: 'put' | 'get',
    size: number,
    inFlight: number,
    what: string,
    run: (client: Client, key: string) => Promise<void>,
  ): void {
    const calls = inFlight === 1 ? 1 : inFlight * CALLS_PER_LANE;
    const against = `bare undici ${call.toUpperCase()} of ${what}`;
    const store = this.#way(call, calls, inFlight, clientOf(this.#store), run);
    const bare = this.#way(call, calls, inFlight, this.#bare, run);
    const settings = { items: calls * size, itemName: 'byte' };
    tasks.add(`${call} ${what}`, store.run, {
      ...settings,
      against,
      byTurns: bare.run,
      hooks: { async: true, afterEach: async () => void (await Promise.all([store.clear(), bare.clear()])) },
    });
    tasks.add(against, bare.run, { ...settings, hooks: { async: true, afterEach: bare.clear } });
  }

  /** One run of a client's calls, and what takes its objects away again. */
  #way(
    call: 'put' | 'get',
    calls: number,
    inFlight: number,
    client: Client,
    run: (client: Client, key: string) => Promise<void>,
  ): { run(): Promise<void>; clear(): Promise<void> } {
    let keys: string[] = [];
    const lane = async (i: number) => {
      for (let n = i; n < calls; n += inFlight) await run(client, keys[n]);
    };
    return {
      run: async () => {
        keys = upTo(calls).map(() => `put/${++this.#number}`);
        await Promise.all(upTo(inFlight).map(lane));
      },
      clear: async () => {
        if (call === 'put') await Promise.all(keys.map((key) => this.#store.delete(key)));
      },
    };
  }
}

async function measure(server: Server, options: SuiteOptions): Promise<TaskFigures[]> {
  Object.assign(process.env, S3_TEST_ENV);
  const store = await openObjectStore(server.url, { clock: systemClock, random: systemRandom });
  const bare = new BareHttp(server.endpoint, server.bucket);
  try {
    await store.put(READ_KEY, randomBytes(SINK_OBJECT_BYTES));
    const tasks = new SizeTasks(server, store, bare, options);
    const figures: TaskFigures[] = [];
    for (const [size, label] of options.smoke ? SIZES.slice(0, 1) : SIZES) {
      figures.push(...(await tasks.run(size, label)));
    }
    return figures;
  } finally {
    await bare.close();
    await store.close();
  }
}

/** The hash of its body that a signed PUT bears. */
async function measureHashes(options: SuiteOptions): Promise<TaskFigures[]> {
  const tasks = new TaskSet('sha-256', options);
  for (const [size, label] of options.smoke ? SIZES.slice(0, 1) : SIZES) {
    const bytes = randomBytes(size);
    const hash = () => createHash('sha256').update(bytes).digest();
    tasks.add(`SHA-256 of ${label}`, hash, { items: size, itemName: 'byte' });
  }
  return await tasks.run();
}

async function onSink(options: SuiteOptions): Promise<TaskFigures[]> {
  const child = new BenchChild('../objects/put-sink.ts');
  try {
    const endpoint = `http://127.0.0.1:${await child.ask<number>('listen')}`;
    const bucket = 'sink';
    const url = `s3://${bucket}?endpoint=${encodeURIComponent(endpoint)}`;
    const server = { name: 'sink', url, endpoint, bucket, timeMs: 1000, runs: 8, warmUpRuns: 2 };
    const figures = await measure(server, options);
    // What was measured must have arrived: nobody else would notice.
    const put = figures.filter(({ name }) => /\bput\b/i.test(name));
    const least = put.reduce((sum, { samples, items }) => sum + samples * items, 0);
    if ((await child.ask<number>('bytes')) < least) throw new Error('the sink got less than was put');
    return figures;
  } finally {
    await child.stop();
  }
}

async function onCeph(options: SuiteOptions): Promise<TaskFigures[]> {
  const { url, endpoint, bucket, env, stop } = await startCephRgw();
  try {
    Object.assign(process.env, env);
    const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true });
    const Resource = `arn:aws:s3:::${bucket}/*`;
    const anyone = { Effect: 'Allow', Principal: '*', Action: ['s3:GetObject', 's3:PutObject'], Resource };
    const Policy = JSON.stringify({ Version: '2012-10-17', Statement: [anyone] });
    await client.send(new PutBucketPolicyCommand({ Bucket: bucket, Policy }));
    client.destroy();
    const server = { name: 'Ceph RGW', url, endpoint, bucket, timeMs: 1000, runs: 6, warmUpRuns: 2 };
    return await measure(server, options);
  } finally {
    await stop();
  }
}

export const s3ObjectStoreSuite: Suite = {
  name: 's3-object-store',
  title: 'object store: S3, the client against bare HTTP',
  async run(options) {
    const figures = [...(await measureHashes(options)), ...(await onSink(options))];
    return process.env.STREAMHOUSE_TEST_CEPH === '1' ? [...figures, ...(await onCeph(options))] : figures;
  },
};
