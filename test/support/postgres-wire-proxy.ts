/**
 * A proxy between a client and a server that speak PostgreSQL's protocol (version 3), which injects faults by a
 * plan. Owns: the framing (startup, simple and extended query, ReadyForQuery), one statement in flight per
 * connection, and what each fault does to both sides, so that what the client is told of and what the server did
 * are exactly those of the fault's name. Does not own: TLS (refused), replication, COPY. Tests only.
 *
 *   refuse        the server never sees the statement, and an open transaction is really rolled back or failed;
 *                 the client gets an error of that SQLSTATE
 *   deny          the server runs it and commits; the client gets an error of that SQLSTATE instead of the result.
 *                 Where nothing was committed (an error, or inside a transaction) the true answer passes
 *   cut-before    both connections end before the statement reaches the server
 *   cut-after     the server runs it; both connections end before the client hears of it
 *   delay         the statement reaches the server that much later
 */
import { createServer, type Server, type Socket, connect as tcpConnect } from 'node:net';

export type WireFault =
  | { kind: 'refuse'; sqlState: string }
  | { kind: 'deny'; sqlState: string }
  | { kind: 'cut-before' }
  | { kind: 'cut-after' }
  | { kind: 'delay'; ms: number };

export interface WireStatement {
  /** The text as sent or prepared, white space folded. */
  text: string;
  /** Of all statements through this proxy, from 1. */
  ordinal: number;
  /** Of all connections through this proxy, from 1. */
  connection: number;
  /** Whether the server is inside a transaction block. */
  inTransaction: boolean;
}

/** Asked once for every statement, in the order in which the proxy received them. */
export type WireFaultPlan = (statement: WireStatement) => WireFault | null;

const SSL_REQUEST = 80877103;
const GSS_REQUEST = 80877104;
const CANCEL_REQUEST = 80877102;

/** One message of the protocol, whole: type byte (0 for the untyped ones that begin a connection) and all its bytes. */
interface WireMessage {
  type: string;
  bytes: Buffer;
}

/** Cuts a stream into messages. */
export class WireFraming {
  #chunks: Buffer[] = [];
  #length = 0;
  #typed: boolean;

  /** `typed` false: the first message has no type byte (a client's startup). */
  constructor(typed: boolean) {
    this.#typed = typed;
  }

  /** What follows has type bytes. */
  expectTyped(): void {
    this.#typed = true;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
  }

  /** The next whole message, or null. */
  next(): WireMessage | null {
    const head = this.#typed ? 5 : 4;
    if (this.#length < head) return null;
    if (this.#chunks[0].length < head) this.#join();
    const length = this.#chunks[0].readInt32BE(head - 4) + head - 4;
    if (this.#length < length) return null;
    if (this.#chunks[0].length < length) this.#join();
    const first = this.#chunks[0];
    const bytes = first.subarray(0, length);
    if (first.length === length) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(length);
    this.#length -= length;
    return { type: this.#typed ? String.fromCharCode(bytes[0]) : '', bytes };
  }

  /** Joined only when a message is whole, so that a large one costs one copy. */
  #join(): void {
    this.#chunks = [Buffer.concat(this.#chunks)];
  }
}

/** What a client sends up to a point where it waits: a simple query, or extended messages through Sync. */
interface Unit {
  messages: WireMessage[];
  /** null where nothing is executed (a Parse or Close on its own, Terminate, a password). */
  text: string | null;
}

export interface WireProxy {
  readonly port: number;
  /** Statements seen. */
  readonly statements: number;
  /** Statements since start by the fault that was done to them; a 'deny' that could not be is not counted. */
  readonly injected: Readonly<Record<WireFault['kind'], number>>;
  /** Connections opened by clients since start. */
  readonly connections: number;
  setPlan(plan: WireFaultPlan | null): void;
  /** Ends all connections at once. */
  cutAll(): void;
  close(): Promise<void>;
}

/** Listens on a free loopback port for clients of the server at `target`. */
export async function startPostgresWireProxy(
  target: { host: string; port: number },
  plan: WireFaultPlan | null = null,
): Promise<WireProxy> {
  const proxy = new PostgresWireProxy(target, plan);
  await proxy.listen();
  return proxy;
}

class PostgresWireProxy implements WireProxy {
  readonly target: { host: string; port: number };
  readonly injected = { refuse: 0, deny: 0, 'cut-before': 0, 'cut-after': 0, delay: 0 };
  readonly #server: Server;
  readonly #open = new Set<ProxiedConnection>();
  #plan: WireFaultPlan | null;
  connections = 0;
  statements = 0;

  constructor(target: { host: string; port: number }, plan: WireFaultPlan | null) {
    this.target = target;
    this.#plan = plan;
    this.#server = createServer((client) => {
      const connection = new ProxiedConnection(this, client, ++this.connections);
      this.#open.add(connection);
      client.once('close', () => this.#open.delete(connection));
    });
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject).listen(0, '127.0.0.1', resolve);
    });
  }

  setPlan(plan: WireFaultPlan | null): void {
    this.#plan = plan;
  }

  faultFor(text: string, connection: number, inTransaction: boolean): WireFault | null {
    this.statements++;
    return this.#plan?.({ text, ordinal: this.statements, connection, inTransaction }) ?? null;
  }

  cutAll(): void {
    for (const connection of this.#open) connection.cut();
  }

  async close(): Promise<void> {
    this.cutAll();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** How the answer to the statement in flight is treated. */
type Answer = 'pass' | 'deny' | 'swallow' | 'cut';

/**
 * One client's connection. States: starting (untyped messages), then one unit after another: waiting for a unit,
 * a unit in flight (until the server's ReadyForQuery).
 */
class ProxiedConnection {
  readonly #proxy: PostgresWireProxy;
  readonly #number: number;
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #fromClient = new WireFraming(false);
  readonly #fromServer = new WireFraming(true);
  readonly #prepared = new Map<string, string>();
  readonly #portals = new Map<string, string>();
  #started = false;
  #collected: WireMessage[] = [];
  #collectedTexts: string[] = [];
  readonly #waiting: Unit[] = [];
  #busy = true;
  #answer: Answer = 'pass';
  #held: WireMessage[] = [];
  #onSwallowed: (() => void) | null = null;
  #denySqlState = '';
  /** The server's transaction status: I idle, T in a transaction, E in a failed one. */
  #status = 'I';

  constructor(proxy: PostgresWireProxy, client: Socket, number: number) {
    this.#proxy = proxy;
    this.#number = number;
    this.#client = client;
    this.#server = tcpConnect(proxy.target);
    for (const socket of [client, this.#server]) {
      socket.setNoDelay(true);
      // An end or an error of one side ends the other.
      socket.on('error', () => this.cut());
      socket.on('close', () => this.cut());
    }
    client.on('data', (chunk) => this.#guard(() => this.#fromClientData(chunk)));
    this.#server.on('data', (chunk) => this.#guard(() => this.#fromServerData(chunk)));
  }

  cut(): void {
    this.#client.destroy();
    this.#server.destroy();
  }

  /** What the proxy does not understand ends the connection, visibly. */
  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      console.error('postgres-wire-proxy:', error);
      this.cut();
    }
  }

  #fromClientData(chunk: Buffer): void {
    this.#fromClient.push(chunk);
    for (let message = this.#fromClient.next(); message; message = this.#fromClient.next()) {
      if (this.#started) this.#collect(message);
      else this.#start(message);
    }
  }

  #start(message: WireMessage): void {
    const code = message.bytes.readInt32BE(4);
    if (code === SSL_REQUEST || code === GSS_REQUEST) {
      this.#client.write('N');
      return;
    }
    this.#server.write(message.bytes);
    if (code === CANCEL_REQUEST) return;
    this.#started = true;
    this.#fromClient.expectTyped();
  }

  #collect(message: WireMessage): void {
    const { type, bytes } = message;
    // Of the start and of the end: neither waits for a ReadyForQuery.
    if (type === 'p' || type === 'X') {
      this.#server.write(bytes);
      return;
    }
    this.#collected.push(message);
    if (type === 'Q') this.#collectedTexts.push(stringAt(bytes, 5).text);
    if (type === 'P') {
      const name = stringAt(bytes, 5);
      this.#prepared.set(name.text, stringAt(bytes, name.end).text);
    }
    if (type === 'B') {
      const portal = stringAt(bytes, 5);
      this.#portals.set(portal.text, this.#prepared.get(stringAt(bytes, portal.end).text) ?? '');
    }
    if (type === 'E') this.#collectedTexts.push(this.#portals.get(stringAt(bytes, 5).text) ?? '');
    if (type !== 'Q' && type !== 'S') return;
    const texts = this.#collectedTexts;
    if (texts.length > 1) throw new Error(`several statements before one Sync: ${texts.join('; ')}`);
    const text = texts.length === 1 ? texts[0].replaceAll(/\s+/g, ' ').trim() : null;
    this.#waiting.push({ messages: this.#collected, text });
    this.#collected = [];
    this.#collectedTexts = [];
    this.#sendNext();
  }

  #sendNext(): void {
    if (this.#busy || this.#waiting.length === 0) return;
    this.#busy = true;
    const unit = this.#waiting.shift()!;
    const inTransaction = this.#status !== 'I';
    const fault = unit.text === null ? null : this.#proxy.faultFor(unit.text, this.#number, inTransaction);
    switch (fault?.kind) {
      case undefined:
        this.#forward(unit, 'pass');
        break;
      case 'delay':
        this.#proxy.injected.delay++;
        setTimeout(() => this.#forward(unit, 'pass'), fault.ms);
        break;
      case 'cut-before':
        this.#proxy.injected['cut-before']++;
        this.cut();
        break;
      case 'cut-after':
        this.#forward(unit, 'cut');
        break;
      case 'deny':
        this.#denySqlState = fault.sqlState;
        this.#forward(unit, 'deny');
        break;
      case 'refuse':
        this.#proxy.injected.refuse++;
        this.#refuse(unit, fault.sqlState);
        break;
    }
  }

  #forward(unit: Unit, answer: Answer): void {
    this.#answer = answer;
    for (const { bytes } of unit.messages) this.#server.write(bytes);
  }

  #refuse(unit: Unit, sqlState: string): void {
    const answer = () => {
      this.#client.write(errorResponse(sqlState, 'injected: restart transaction'));
      this.#client.write(readyForQuery(this.#status));
    };
    if (this.#status === 'I') {
      answer();
      this.#busy = false;
      this.#sendNext();
      return;
    }
    // The server must be where the client believes it: rolled back after a COMMIT, failed after another statement.
    const isEnd = /^(commit|end|rollback)\b/i.test(unit.text ?? '');
    this.#answer = 'swallow';
    this.#onSwallowed = answer;
    this.#server.write(simpleQuery(isEnd ? 'ROLLBACK' : 'SELECT 1 / 0'));
  }

  #fromServerData(chunk: Buffer): void {
    this.#fromServer.push(chunk);
    for (let message = this.#fromServer.next(); message; message = this.#fromServer.next()) {
      if (message.type === 'Z') this.#status = String.fromCharCode(message.bytes[5]);
      if (this.#answer === 'pass') this.#client.write(message.bytes);
      else this.#held.push(message);
      if (message.type === 'Z') this.#ready();
    }
  }

  /** The server is done with the unit in flight. */
  #ready(): void {
    const held = this.#held;
    const answer = this.#answer;
    this.#held = [];
    this.#answer = 'pass';
    if (answer === 'cut') {
      this.#proxy.injected['cut-after']++;
      this.cut();
      return;
    }
    if (answer === 'deny') this.#deny(held);
    if (answer === 'swallow') {
      this.#onSwallowed?.();
      this.#onSwallowed = null;
    }
    this.#busy = false;
    this.#sendNext();
  }

  #deny(held: readonly WireMessage[]): void {
    const failed = held.some(({ type }) => type === 'E');
    // A COMMIT of a failed transaction answers ROLLBACK.
    const rolledBack = held.some(
      ({ type, bytes }) => type === 'C' && stringAt(bytes, 5).text.startsWith('ROLLBACK'),
    );
    if (failed || rolledBack || this.#status !== 'I') {
      for (const { bytes } of held) this.#client.write(bytes);
      return;
    }
    this.#proxy.injected.deny++;
    // The server knows the statement by its name now, and the client must know that.
    for (const { type, bytes } of held) if (type === '1') this.#client.write(bytes);
    this.#client.write(errorResponse(this.#denySqlState, 'injected: result is ambiguous'));
    this.#client.write(readyForQuery(this.#status));
  }
}

/** The zero-terminated string at `start`, and where what follows begins. */
function stringAt(bytes: Buffer, start: number): { text: string; end: number } {
  const end = bytes.indexOf(0, start);
  if (end < 0) throw new Error('a string without an end');
  return { text: bytes.toString('utf8', start, end), end: end + 1 };
}

function messageOf(type: string, body: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.write(type, 0, 'latin1');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

export function errorResponse(sqlState: string, message: string): Buffer {
  const fields = ['SERROR', 'VERROR', `C${sqlState}`, `M${message}`].map((field) => `${field}\0`).join('');
  return messageOf('E', Buffer.from(`${fields}\0`));
}

export function readyForQuery(status: string): Buffer {
  return messageOf('Z', Buffer.from(status));
}

export function simpleQuery(text: string): Buffer {
  return messageOf('Q', Buffer.from(`${text}\0`));
}
