/**
 * A cluster under test: one database, one bucket, and brokers that reach them by proxies of their own. Owns: starting
 * and ending all of it, and what can be asked of its stores without a broker (heads, verify). Does not own: what befalls
 * it (faults.ts), who uses it. The runner's process; brokers and PostgreSQL are processes of their own.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { ProcessEnd } from '../support/broker-process.ts';
import { startDynalite } from '../support/dynalite-server.ts';
import { deleteTable, freshUrl } from '../support/dynamodb-target.ts';
import { startPostgres } from '../support/postgres-server.ts';
import { S3_TEST_ENV, startS3Server } from '../support/s3-server.ts';
import type { TcpProxy } from '../support/tcp-proxy.ts';
import { type Backing, type BrokerParts, ClusterBroker } from './cluster-broker.ts';
import type { Doors } from './doors.ts';

export type StoreKind = 'postgres' | 'dynamodb';

export interface ClusterOptions {
  store: StoreKind;
  brokers: number;
  shards: number;
  heartbeatMs: number;
  deadAgentMs: number;
  /** For logs. */
  folder: string;
  doors: Doors;
  requestTimeoutMs: number;
  died: (broker: ClusterBroker, end: ProcessEnd) => void;
}

/** A shard's head as `streamhouse inspect heads --json` shows it. */
export interface Head {
  shard: number;
  headSeq: number;
  epoch: number;
  holder: number;
  trimmedThrough: number;
}

interface Servers {
  backing: Backing;
  metadataUrl: string;
  objectsUrl: string;
  stop(): Promise<void>;
}

interface CommandEnd {
  code: number | null;
  stdout: string;
  stderr: string;
}

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const COMMAND_MS_MAX = 120_000;

export class Cluster {
  readonly brokers: ClusterBroker[] = [];
  readonly options: ClusterOptions;
  readonly #servers: Servers;
  readonly #parts: BrokerParts;
  #made = 0;

  private constructor(options: ClusterOptions, servers: Servers) {
    this.options = options;
    this.#servers = servers;
    this.#parts = {
      backing: servers.backing,
      doors: options.doors,
      folder: options.folder,
      args: brokerArgs(options),
      env: S3_TEST_ENV,
      requestTimeoutMs: options.requestTimeoutMs,
      died: options.died,
    };
  }

  /** All brokers serve. */
  static async start(options: ClusterOptions): Promise<Cluster> {
    const servers = await startServers(options.store);
    const cluster = new Cluster(options, servers);
    try {
      const migrated = await cluster.#command('migrate', '--metadata', servers.metadataUrl);
      if (migrated.code !== 0) throw new Error(`migrate: ${migrated.stderr}`);
      await cluster.add();
      const more = Array.from({ length: options.brokers - 1 }, () => cluster.add());
      await Promise.all(more);
      return cluster;
    } catch (error) {
      await cluster.dispose();
      throw error;
    }
  }

  /** One more broker, which serves. */
  async add(): Promise<ClusterBroker> {
    const broker = await ClusterBroker.make(`b${++this.#made}`, this.#parts);
    this.brokers.push(broker);
    await broker.start();
    return broker;
  }

  /** A broker that is to come back no more. */
  async remove(broker: ClusterBroker): Promise<void> {
    this.brokers.splice(this.brokers.indexOf(broker), 1);
    await broker.dispose();
  }

  /** Of all shards, by shard. */
  async heads(): Promise<Head[]> {
    const { code, stdout, stderr } = await this.#command(
      'inspect',
      'heads',
      '--json',
      '--metadata',
      this.#servers.metadataUrl,
    );
    if (code !== 0) throw new Error(`inspect heads: ${stderr}`);
    const heads = (JSON.parse(stdout) as Record<string, number>[]).map(
      ({ shard, headSeq, epoch, holder, trimmedThrough }): Head => {
        return { shard, headSeq, epoch, holder, trimmedThrough };
      },
    );
    return heads.sort((a, b) => a.shard - b.shard);
  }

  /** `streamhouse verify --deep`. */
  verify(): Promise<CommandEnd> {
    const { metadataUrl, objectsUrl } = this.#servers;
    return this.#command('verify', '--deep', '--json', '--metadata', metadataUrl, '--objects', objectsUrl);
  }

  /** Ends everything, however it stands. */
  async dispose(): Promise<void> {
    await Promise.all(this.brokers.map((broker) => broker.dispose()));
    await this.#servers.stop();
  }

  async #command(...args: string[]): Promise<CommandEnd> {
    const child = spawn(process.execPath, [MAIN, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...S3_TEST_ENV },
      timeout: COMMAND_MS_MAX,
    });
    const [out, err]: [Buffer[], Buffer[]] = [[], []];
    child.stdout.on('data', (bytes: Buffer) => out.push(bytes));
    child.stderr.on('data', (bytes: Buffer) => err.push(bytes));
    const [code] = (await once(child, 'close')) as [number | null];
    return { code, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() };
  }
}

function brokerArgs({ shards, heartbeatMs, deadAgentMs }: ClusterOptions): string[] {
  const small = ['--checkpoint-log-bytes', '4KiB', '--checkpoint-interval', '1s'];
  const little = ['--lanes', '1', '--index-bytes', '1MiB', '--tail-cache-bytes', '1MiB'];
  const times = ['--flush-window', '40ms', '--upload-deadline', '4s', '--request-timeout', '8s'];
  const agents = ['--heartbeat', `${heartbeatMs}ms`, '--dead-agent', `${deadAgentMs}ms`];
  return ['--shards', String(shards), '--log-level', 'info', ...small, ...little, ...times, ...agents];
}

async function startServers(store: StoreKind): Promise<Servers> {
  const objects = await startS3Server();
  const objectsUrl = (proxy: TcpProxy) => {
    return `s3://${objects.bucket}?endpoint=${encodeURIComponent(proxy.through(objects.endpoint))}&region=us-east-1`;
  };
  const shared = { objectsPort: objects.port, objectsUrl };
  try {
    if (store === 'postgres') {
      const server = await startPostgres({ isDurable: false });
      const metadataUrl = server.storeUrl();
      return {
        metadataUrl,
        objectsUrl: objects.url,
        backing: { ...shared, databasePort: server.port, metadataUrl: (proxy) => proxy.through(metadataUrl) },
        async stop() {
          await server.stop();
          await objects.stop();
        },
      };
    }
    const server = await startDynalite();
    const metadataUrl = freshUrl(
      `dynamodb://us-east-1/cluster?endpoint=${encodeURIComponent(server.endpoint)}`,
    );
    return {
      metadataUrl,
      objectsUrl: objects.url,
      backing: {
        ...shared,
        databasePort: Number(new URL(server.endpoint).port),
        metadataUrl(proxy) {
          const url = new URL(metadataUrl);
          url.searchParams.set('endpoint', proxy.through(server.endpoint));
          return url.href;
        },
      },
      async stop() {
        await deleteTable(metadataUrl).catch(() => undefined);
        await server.close();
        await objects.stop();
      },
    };
  } catch (error) {
    await objects.stop();
    throw error;
  }
}
