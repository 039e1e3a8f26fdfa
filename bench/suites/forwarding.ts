/**
 * Benchmarks of the way between brokers: one-record produce requests to a broker that holds the partitions, and to one
 * that forwards them to it, in messages as a broker does it and by one request each, by turns under the same client.
 * Owns: the rows, the processes, the turns. The holder is a real broker (SQLite and a local directory).
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { peerKey } from '../../src/protocol/peer/peer-headers.ts';
import { BrokerProcess } from '../../test/support/broker-process.ts';
import { BenchChild } from '../door/child-process.ts';
import type { ClientFigures, ClientTask } from '../door/client.ts';
import type { ForwarderTask } from '../door/forwarder.ts';
import { metricSum } from '../metrics-text.ts';
import { inScratchDirectory } from '../scratch-directory.ts';
import type { Suite, SuiteOptions, TaskFigures } from '../suite.ts';

const NAME = 'bench';

interface Way {
  name: string;
  url: string;
  forwarder: BenchChild | null;
}

interface Turn extends ClientFigures {
  holderCpuUs: number;
  forwarderCpuUs: number;
}

async function cpuOf(way: Way, holderUrl: string): Promise<{ holder: number; forwarder: number }> {
  const text = await (await fetch(`${holderUrl}/metrics`)).text();
  const holder = metricSum(text, 'process_cpu_seconds_total') ?? 0;
  return { holder, forwarder: way.forwarder ? await way.forwarder.ask<number>('cpu') : 0 };
}

async function measure(way: Way, holderUrl: string, task: Omit<ClientTask, 'url'>): Promise<Turn> {
  const client = new BenchChild('client.ts');
  try {
    const before = await cpuOf(way, holderUrl);
    const figures = await client.ask<ClientFigures>({ ...task, url: way.url });
    const after = await cpuOf(way, holderUrl);
    return {
      ...figures,
      holderCpuUs: ((after.holder - before.holder) * 1e6) / figures.answers,
      forwarderCpuUs: ((after.forwarder - before.forwarder) * 1e6) / figures.answers,
    };
  } finally {
    await client.stop();
  }
}

async function createTopic(url: string, partitions: number): Promise<void> {
  const clusters = (await (await fetch(`${url}/v3/clusters`)).json()) as { data: { cluster_id: string }[] };
  const response = await fetch(`${url}/v3/clusters/${clusters.data[0].cluster_id}/topics`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ topic_name: NAME, partitions_count: partitions }),
  });
  if (response.status !== 201) throw new Error(`the topic was not created: ${await response.text()}`);
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

function figuresOf(name: string, turns: readonly Turn[], against: string | null): TaskFigures {
  const of = (read: (turn: Turn) => number) => median(turns.map(read));
  return {
    name,
    samples: turns.reduce((sum, turn) => sum + turn.count, 0),
    p50Us: of((turn) => turn.p50Ms) * 1000,
    p99Us: of((turn) => turn.p99Ms) * 1000,
    items: 1,
    itemName: 'record',
    itemsPerS: of((turn) => turn.requestsPerS),
    against,
    details: {
      'holder CPU us/request': of((turn) => turn.holderCpuUs),
      'forwarder CPU us/request': of((turn) => turn.forwarderCpuUs),
    },
  };
}

async function startForwarder(task: ForwarderTask): Promise<{ forwarder: BenchChild; url: string }> {
  const forwarder = new BenchChild('forwarder.ts');
  const port = await forwarder.ask<number>(task);
  return { forwarder, url: `http://127.0.0.1:${port}` };
}

async function runWays(holderUrl: string, key: string, options: SuiteOptions): Promise<TaskFigures[]> {
  const { smoke, seconds } = options;
  const partitions = smoke ? 50 : 1000;
  await createTopic(holderUrl, partitions);
  // The first topic of a new store.
  const topic = {
    topicId: 1,
    name: NAME,
    partitionCount: partitions,
    configs: {},
    createdAtMs: 0,
    version: 1,
  };
  const messages = await startForwarder({ url: holderUrl, way: 'messages', topic, key });
  const requests = await startForwarder({ url: holderUrl, way: 'requests', topic, key });
  const ways: Way[] = [
    { name: 'to the holder', url: holderUrl, forwarder: null },
    { name: 'forwarded in messages', ...messages },
    { name: 'forwarded by one request each', ...requests },
  ];
  try {
    const figures: TaskFigures[] = [];
    for (const inFlight of smoke ? [16] : [64, 4096]) {
      const shape = { topic: NAME, partitions, recordsPerRequest: 1 };
      const task = { client: 'raw' as const, connections: smoke ? 4 : 64, inFlight, shape };
      const times = { warmUpMs: smoke ? 100 : 1500, measureMs: smoke ? 200 : seconds * 1000 };
      const turns = new Map<Way, Turn[]>(ways.map((way) => [way, []]));
      for (let turn = 0; turn < (smoke ? 1 : 3); turn++) {
        for (const way of ways) turns.get(way)?.push(await measure(way, holderUrl, { ...task, ...times }));
      }
      const nameOf = (way: Way) => `${way.name}, ${inFlight} in flight`;
      for (const [way, taken] of turns) {
        figures.push(figuresOf(nameOf(way), taken, way === ways[0] ? null : nameOf(ways[0])));
      }
    }
    return figures;
  } finally {
    await Promise.all([messages.forwarder.stop(), requests.forwarder.stop()]);
  }
}

/** Brokers of a cluster know one another by what stands in the bucket. */
async function keyOf(directory: string): Promise<string> {
  return peerKey(JSON.parse(await readFile(join(directory, 'objects', 'cluster.json'), 'utf8')));
}

export const forwardingSuite: Suite = {
  name: 'forwarding',
  title:
    'Forwarding: durable produce of one 10-byte record through a broker that does not hold its partition',
  run: (options) =>
    inScratchDirectory(async (directory) => {
      const window = options.smoke ? ['--flush-window', '10ms'] : [];
      const holder = await BrokerProcess.start(['--data', directory, '--log-level', 'warn', ...window]);
      try {
        return await runWays(holder.url, await keyOf(directory), options);
      } catch (error) {
        throw new Error([String(error), 'the broker said last:', ...holder.log].join('\n  '));
      } finally {
        await holder.stop();
      }
    }),
};
