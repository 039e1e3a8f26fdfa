/**
 * Benchmarks of the HTTP door: the broker as a real process (SQLite and a local directory), every answer after the
 * commit, beside a bare node:http echo server under the same client in the same run, by turns. So many requests
 * are in flight that the window, 100 ms, is not what bounds the rate. Owns: the rows, the processes, the turns.
 * Four processes: this one waits.
 */
import { LoadChild } from '../../src/load/child-process.ts';
import type { FromEcho, ToEcho } from '../../src/load/echo-server.ts';
import { BrokerProcess } from '../../test/support/broker-process.ts';
import { BenchChild } from '../door/child-process.ts';
import type { ClientFigures, ClientTask } from '../door/client.ts';
import type { RequestShape } from '../door/produce-requests.ts';
import { metricSum } from '../metrics-text.ts';
import { inScratchDirectory } from '../scratch-directory.ts';
import type { Suite, SuiteOptions, TaskFigures } from '../suite.ts';

const TOPIC = 'bench';

/** What one row of the table asks for. */
interface DoorRow {
  client: ClientTask['client'];
  connections: number;
  inFlight: number;
  recordsPerRequest: number;
}

const ROWS: readonly DoorRow[] = [
  { client: 'undici', connections: 64, inFlight: 4096, recordsPerRequest: 1 },
  { client: 'raw', connections: 64, inFlight: 4096, recordsPerRequest: 1 },
  { client: 'raw', connections: 64, inFlight: 16_384, recordsPerRequest: 1 },
  { client: 'raw', connections: 64, inFlight: 1024, recordsPerRequest: 100 },
];
const SMOKE_ROWS: readonly DoorRow[] = [
  { client: 'undici', connections: 4, inFlight: 16, recordsPerRequest: 1 },
  { client: 'raw', connections: 4, inFlight: 16, recordsPerRequest: 10 },
];

/** One measurement of one server. */
interface Turn extends ClientFigures {
  /** CPU of the server over all that it answered, warm-up included. */
  serverCpuUs: number;
  objects: number;
}

interface Server {
  url: string;
  cpuSeconds(): Promise<number>;
  objects(): Promise<number>;
}

async function measure(server: Server, task: Omit<ClientTask, 'url'>): Promise<Turn> {
  const client = new BenchChild('client.ts');
  try {
    const [cpuBefore, objectsBefore] = [await server.cpuSeconds(), await server.objects()];
    const figures = await client.ask<ClientFigures>({ ...task, url: server.url });
    const [cpuAfter, objectsAfter] = [await server.cpuSeconds(), await server.objects()];
    const serverCpuUs = ((cpuAfter - cpuBefore) * 1e6) / figures.answers;
    return { ...figures, serverCpuUs, objects: objectsAfter - objectsBefore };
  } finally {
    await client.stop();
  }
}

async function metric(url: string, name: string): Promise<number> {
  const response = await fetch(`${url}/metrics`);
  const value = metricSum(await response.text(), name);
  if (value === null) throw new Error(`the broker has no metric ${name}`);
  return value;
}

async function createTopic(url: string, partitions: number): Promise<void> {
  const clusters = (await (await fetch(`${url}/v3/clusters`)).json()) as { data: { cluster_id: string }[] };
  const response = await fetch(`${url}/v3/clusters/${clusters.data[0].cluster_id}/topics`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ topic_name: TOPIC, partitions_count: partitions }),
  });
  if (response.status !== 201) throw new Error(`the topic was not created: ${await response.text()}`);
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function figuresOf(name: string, row: DoorRow, turns: readonly Turn[], against: string | null): TaskFigures {
  const of = (read: (turn: Turn) => number) => median(turns.map(read));
  const records = row.recordsPerRequest;
  const itemsPerS = of((turn) => turn.requestsPerS) * records;
  const details: TaskFigures['details'] = {
    'server CPU us/request': of((turn) => turn.serverCpuUs),
    'client cores': of((turn) => turn.cpuCores).toFixed(2),
  };
  if (against !== null) details['objects put per turn'] = of((turn) => turn.objects);
  return {
    name,
    samples: turns.reduce((sum, turn) => sum + turn.count, 0),
    p50Us: of((turn) => turn.p50Ms) * 1000,
    p99Us: of((turn) => turn.p99Ms) * 1000,
    items: records,
    itemName: 'record',
    itemsPerS,
    against,
    details,
  };
}

/** Echo, broker, echo, broker: what else the machine does meets both. */
async function runRow(
  row: DoorRow,
  echo: Server,
  broker: Server,
  options: SuiteOptions,
): Promise<TaskFigures[]> {
  const { smoke, seconds } = options;
  const { recordsPerRequest, ...rest } = row;
  const shape: RequestShape = { topic: TOPIC, partitions: smoke ? 50 : 1_000, recordsPerRequest };
  const warmUpMs = smoke ? 100 : Math.min(3_000, seconds * 300);
  const measureMs = smoke ? 200 : seconds * 1_000;
  const task = { ...rest, shape, warmUpMs, measureMs };
  const echoTurns: Turn[] = [];
  const brokerTurns: Turn[] = [];
  for (let turn = 0; turn < (smoke ? 1 : 2); turn++) {
    echoTurns.push(await measure(echo, task));
    brokerTurns.push(await measure(broker, task));
  }
  const { client, inFlight } = row;
  const what = `${recordsPerRequest} records a request, ${inFlight} in flight, ${client}`;
  return [
    figuresOf(`broker: ${what}`, row, brokerTurns, `echo: ${what}`),
    figuresOf(`echo: ${what}`, row, echoTurns, null),
  ];
}

async function runOnNewBroker(
  rows: readonly DoorRow[],
  echo: Server,
  options: SuiteOptions,
): Promise<TaskFigures[]> {
  return inScratchDirectory(async (directory) => {
    const window = options.smoke ? ['--flush-window', '10ms'] : [];
    const broker = await BrokerProcess.start(['--data', directory, '--log-level', 'warn', ...window]);
    try {
      const { url } = broker;
      await createTopic(url, options.smoke ? 50 : 1_000);
      const server: Server = {
        url,
        cpuSeconds: () => metric(url, 'process_cpu_seconds_total'),
        objects: () => metric(url, 'streamhouse_objects_put_total'),
      };
      const figures: TaskFigures[] = [];
      for (const row of rows) figures.push(...(await runRow(row, echo, server, options)));
      return figures;
    } catch (error) {
      throw new Error([String(error), 'the broker said last:', ...broker.log].join('\n  '));
    } finally {
      await broker.stop();
    }
  });
}

export const httpDoorSuite: Suite = {
  name: 'http-door',
  title: 'HTTP door: durable produce of 10-byte records against a bare node:http echo',
  async run(options) {
    const child = new LoadChild<ToEcho, FromEcho>('echo-server', () => undefined);
    try {
      const { port } = await child.next('listening');
      const echo: Server = {
        url: `http://127.0.0.1:${port}`,
        async cpuSeconds() {
          const answer = child.next('cpu');
          child.send({ type: 'cpu' });
          return (await answer).seconds;
        },
        objects: async () => 0,
      };
      const figures: TaskFigures[] = [];
      // A new broker for every row, that none finds what another left.
      for (const rows of options.smoke ? [SMOKE_ROWS] : ROWS.map((row) => [row])) {
        figures.push(...(await runOnNewBroker(rows, echo, options)));
      }
      return figures;
    } finally {
      await child.kill();
    }
  },
};
