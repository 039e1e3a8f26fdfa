/**
 * One broker of a cluster under test: its process, its own proxies to the database, to the object store and before its
 * own door as other brokers reach it, and its log. Owns: starting, ending, stopping and continuing it, and noticing that
 * it ended by itself. Does not own: the servers behind the proxies nor what befalls them. The runner's process.
 */
import { join } from 'node:path';
import { systemRandom } from '../../src/core/random.ts';
import { BrokerProcess, type ProcessEnd } from '../support/broker-process.ts';
import { canListen } from '../support/free-port.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';
import { DoorClient } from './door-client.ts';
import type { Doors } from './doors.ts';

/** Where the servers are, and how a URL of them looks through a proxy. */
export interface Backing {
  databasePort: number;
  objectsPort: number;
  /** Undefined: not a server; nothing is between it and the brokers. */
  metadataUrl(proxy: TcpProxy): string;
  objectsUrl(proxy: TcpProxy): string;
}

export interface BrokerParts {
  backing: Backing;
  doors: Doors;
  folder: string;
  /** Settings of all brokers. */
  args: readonly string[];
  env: Readonly<Record<string, string>>;
  requestTimeoutMs: number;
  /** It ended, and nobody had asked for that. */
  died: (broker: ClusterBroker, end: ProcessEnd) => void;
}

export type BrokerState = 'down' | 'starting' | 'up' | 'stopped';

/** Below what systems give to outgoing connections, so that nobody takes it between the look and the start. */
const PORT_MIN = 11_000;
const PORT_COUNT = 20_000;
const PORT_TRIES = 100;

export class ClusterBroker {
  /** Stays over restarts, unlike the agent id. */
  readonly name: string;
  agentId: string;
  state: BrokerState = 'down';
  readonly database: TcpProxy;
  readonly objects: TcpProxy;
  /** Before its own door; a new one for each process, as nobody listens where none is. */
  peers: TcpProxy | null = null;
  /** Added to its wall clock at the next start. */
  clockOffsetMs = 0;
  starts = 0;
  readonly #parts: BrokerParts;
  #process: BrokerProcess | null = null;
  #isEnding = false;

  private constructor(name: string, parts: BrokerParts, database: TcpProxy, objects: TcpProxy) {
    this.name = name;
    this.agentId = name;
    this.#parts = parts;
    this.database = database;
    this.objects = objects;
  }

  static async make(name: string, parts: BrokerParts): Promise<ClusterBroker> {
    const { databasePort, objectsPort } = parts.backing;
    return new ClusterBroker(
      name,
      parts,
      await TcpProxy.start(databasePort),
      await TcpProxy.start(objectsPort),
    );
  }

  get logFile(): string {
    return join(this.#parts.folder, `${this.name}.log`);
  }

  get process(): BrokerProcess | null {
    return this.#process;
  }

  /** Resolves when it serves; then clients know of it. */
  async start(): Promise<void> {
    const { backing, args, env, doors, requestTimeoutMs } = this.#parts;
    this.state = 'starting';
    this.#isEnding = false;
    this.starts++;
    const port = await listenPort();
    this.peers = await TcpProxy.start(port);
    const own = [
      ['--agent-id', this.agentId],
      ['--advertise', `127.0.0.1:${this.peers.port}`],
      ['--metadata', backing.metadataUrl(this.database)],
      ['--objects', backing.objectsUrl(this.objects)],
    ].flat();
    let started: BrokerProcess;
    try {
      const listen = `127.0.0.1:${port}`;
      const clock = { STREAMHOUSE_TEST_CLOCK_OFFSET_MS: String(this.clockOffsetMs) };
      const options = { env: { ...env, ...clock }, listen, logFile: this.logFile };
      started = await BrokerProcess.start([...args, ...own], options);
    } catch (error) {
      await this.#isDown();
      throw error;
    }
    this.#process = started;
    this.state = 'up';
    doors.open({ name: this.name, client: new DoorClient(started.url, requestTimeoutMs) });
    void started.gone().then(async (end) => {
      if (this.#process !== started) return;
      const byItself = !this.#isEnding;
      await this.#isDown();
      if (byItself) this.#parts.died(this, end);
    });
  }

  /** SIGKILL, at once; resolves when nothing of it is left. */
  async kill(): Promise<void> {
    this.#isEnding = true;
    await this.#process?.kill();
    await this.#isDown();
  }

  /** SIGTERM; clients know of it until it is gone. Returns how it ended; null if there is no process. */
  async stop(): Promise<ProcessEnd | null> {
    this.#isEnding = true;
    const end = (await this.#process?.stop()) ?? null;
    await this.#isDown();
    return end;
  }

  /** SIGSTOP: it stands still until `wake`; its connections stay. */
  sleep(): void {
    if (this.#process === null) throw new Error(`${this.name} does not run`);
    process.kill(this.#process.pid, 'SIGSTOP');
    this.state = 'stopped';
  }

  wake(): void {
    if (this.#process === null || this.#process.ended) return;
    process.kill(this.#process.pid, 'SIGCONT');
    if (this.state === 'stopped') this.state = 'up';
  }

  /** Whatever befell its connections is over. */
  heal(): void {
    for (const proxy of [this.database, this.objects, this.peers]) {
      // A connection of which bytes were swallowed is of no use any more; one that stalled goes on.
      if (proxy?.faults.dropsReplies || proxy?.faults.dropsRequests) proxy.cut();
      proxy?.heal();
    }
  }

  async dispose(): Promise<void> {
    await this.kill();
    await this.database.stop();
    await this.objects.stop();
  }

  async #isDown(): Promise<void> {
    this.#process = null;
    this.state = 'down';
    this.#parts.doors.close(this.name);
    const { peers } = this;
    this.peers = null;
    await peers?.stop();
  }
}

async function listenPort(): Promise<number> {
  for (let attempt = 0; attempt < PORT_TRIES; attempt++) {
    const port = PORT_MIN + systemRandom.below(PORT_COUNT);
    if (await canListen(port)) return port;
  }
  throw new Error('no free port was found');
}
