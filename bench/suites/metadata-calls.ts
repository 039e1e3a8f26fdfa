/**
 * Benchmarks of every call of the metadata store contract, a suite for each backend: on the thread that has the store
 * (direct), and over the port by which all threads of a broker use it, whose other end is the storing thread (memory:
 * the same thread). One call at a time, by turns with the least read or write that the same place and driver can do.
 */
import { systemClock } from '../../src/core/clock.ts';
import { systemRandom } from '../../src/core/random.ts';
import { METADATA_METHODS, type MetadataMethod } from '../../storage/metadata/forwarding-metadata-store.ts';
import type { OpenedBackend } from '../../storage/metadata/metadata-backend.ts';
import { loadBackend, type MetadataScheme } from '../../storage/metadata/metadata-backends.ts';
import { openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import { StoreCounters } from '../../storage/metadata/store-counters.ts';
import { FilledStore } from '../metadata/filled-store.ts';
import { type BareCalls, BENCH_PLACES, type BenchPlace } from '../metadata/places.ts';
import { type MeasuredCall, STORE_CALLS } from '../metadata/store-calls.ts';
import { inScratchDirectory } from '../scratch-directory.ts';
import { type Suite, type SuiteOptions, type TaskFigures, TaskSet } from '../suite.ts';

const METHODS = Object.keys(METADATA_METHODS) as MetadataMethod[];

interface CallsOf {
  title: string;
  /** What the store does between calls is too quick to be worth more. */
  timeMs: number;
  runs: number;
}

const CALLS: Record<MetadataScheme, CallsOf> = {
  memory: { title: 'in memory', timeMs: 50, runs: 64 },
  sqlite: { title: 'SQLite', timeMs: 250, runs: 32 },
  postgres: { title: 'PostgreSQL', timeMs: 250, runs: 32 },
  cockroachdb: { title: "CockroachDB's code on PostgreSQL, no CockroachDB", timeMs: 250, runs: 32 },
  dynamodb: { title: 'DynamoDB (dynalite in this process, no AWS)', timeMs: 250, runs: 16 },
};

function addBare(tasks: TaskSet, { read, write }: BareCalls): void {
  const settings = { itemName: 'call', hooks: { async: true } };
  tasks.add(read.name, async () => read.run(), settings);
  if (write.name !== read.name) tasks.add(write.name, async () => write.run(), settings);
}

/** One way to a store of its own. */
interface Way {
  name: string;
  filled: FilledStore;
  /** What the thread that has the store does between calls, where nobody else does it. */
  afterWrite?: () => void;
  bare: BareCalls | null;
}

function addCall(tasks: TaskSet, method: MetadataMethod, way: Way, call: MeasuredCall): void {
  const { what, run, before, after } = call;
  const kind = METADATA_METHODS[method];
  tasks.add(`${method}${what === undefined ? '' : ` (${what})`}, ${way.name}`, run, {
    itemName: 'call',
    ...(way.bare !== null && { against: way.bare[kind].name, byTurns: way.bare[kind].run }),
    hooks: {
      async: true,
      beforeEach: async () => void (await before?.()),
      async afterEach() {
        if (kind === 'write') way.afterWrite?.();
        await after?.();
      },
    },
  });
}

async function openDirect(url: string): Promise<OpenedBackend> {
  const parts = { clock: systemClock, random: systemRandom, counters: new StoreCounters() };
  return (await loadBackend(url)).open(url, { role: 'broker', migrate: true, ...parts });
}

async function measure(
  scheme: MetadataScheme,
  place: BenchPlace,
  options: SuiteOptions,
): Promise<TaskFigures[]> {
  const url = place.freshUrl();
  const direct = await openDirect(url);
  const remote = await openMetadata(place.freshUrl(), { role: 'broker', migrate: true });
  const bare = await place.bareCalls(url);
  try {
    const { timeMs, runs } = CALLS[scheme];
    const tasks = new TaskSet(`${scheme} calls`, options, { timeMs, runs });
    addBare(tasks, bare);
    const [here, there] = await Promise.all([direct.store, remote.store].map(FilledStore.on));
    const ways: Way[] = [
      // In memory there is nothing below the call itself.
      {
        name: 'direct',
        filled: here,
        afterWrite: direct.afterWrite,
        bare: scheme === 'memory' ? null : bare,
      },
      { name: 'over the port', filled: there, bare },
    ];
    for (const method of METHODS) {
      const [calls, ...others] = ways.map((way) => STORE_CALLS[method](way.filled));
      for (const i of calls.keys()) {
        for (const [n, all] of [calls, ...others].entries()) addCall(tasks, method, ways[n], all[i]);
      }
    }
    return await tasks.run();
  } finally {
    await bare.close();
    await remote.close();
    await direct.store.close();
  }
}

function callsSuite(scheme: MetadataScheme): Suite {
  return {
    name: `${scheme}-calls`,
    title: `metadata store, each call: ${CALLS[scheme].title}`,
    run: (options) =>
      inScratchDirectory(async (directory) => {
        const place = await BENCH_PLACES[scheme](directory);
        try {
          return await measure(scheme, place, options);
        } finally {
          await place.end();
        }
      }),
  };
}

export const metadataCallsSuites: readonly Suite[] = (Object.keys(CALLS) as MetadataScheme[]).map(callsSuite);
