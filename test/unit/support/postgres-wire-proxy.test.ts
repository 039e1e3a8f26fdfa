/** The fault proxy for PostgreSQL's protocol, against a server of a few lines that remembers what reached it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Socket, connect as tcpConnect } from 'node:net';
import { after, before, beforeEach, describe, it } from 'node:test';
import {
  errorResponse,
  readyForQuery,
  simpleQuery,
  startPostgresWireProxy,
  WireFraming,
  type WireProxy,
  type WireStatement,
} from '../../support/postgres-wire-proxy.ts';

function message(type: string, body: Buffer | string): Buffer {
  const bytes = Buffer.from(body);
  const head = Buffer.alloc(5);
  head.write(type, 0, 'latin1');
  head.writeInt32BE(bytes.length + 4, 1);
  return Buffer.concat([head, bytes]);
}

function startup(): Buffer {
  const body = Buffer.from('user\0test\0\0');
  const head = Buffer.alloc(8);
  head.writeInt32BE(body.length + 8, 0);
  head.writeInt32BE(196608, 4);
  return Buffer.concat([head, body]);
}

/** Parse under a name, Bind, Execute, Sync. */
function extended(name: string, text: string): Buffer {
  return Buffer.concat([
    message('P', `${name}\0${text}\0\0\0`),
    message('B', `\0${name}\0\0\0\0\0\0\0`),
    message('E', '\0\0\0\0\0'),
    message('S', ''),
  ]);
}

/** A server that knows transactions as far as the proxy's promises need it. */
class TinyServer {
  readonly ran: string[] = [];
  /** What is committed. */
  readonly committed: string[] = [];
  readonly sockets = new Set<Socket>();
  readonly #server = createServer((socket) => this.#serve(socket));

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return (this.#server.address() as { port: number }).port;
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #serve(socket: Socket): void {
    this.sockets.add(socket);
    socket.on('error', () => undefined);
    const framing = new WireFraming(false);
    let status = 'I';
    let pending: string[] = [];
    let text = '';
    const run = (statement: string): Buffer => {
      this.ran.push(statement);
      if (/^begin/i.test(statement)) status = 'T';
      else if (/^(commit|rollback)/i.test(statement)) {
        const tag = status === 'T' && /^commit/i.test(statement) ? 'COMMIT' : 'ROLLBACK';
        if (tag === 'COMMIT') this.committed.push(...pending);
        pending = [];
        status = 'I';
        return message('C', `${tag}\0`);
      } else if (statement.includes('1 / 0') || status === 'E') {
        status = status === 'I' ? 'I' : 'E';
        return errorResponse('22012', 'division by zero');
      } else if (status === 'T') pending.push(statement);
      else this.committed.push(statement);
      return message('C', 'DONE\0');
    };
    socket.on('data', (chunk) => {
      framing.push(chunk);
      for (let next = framing.next(); next; next = framing.next()) {
        const { type, bytes } = next;
        if (type === '') {
          framing.expectTyped();
          socket.write(Buffer.concat([message('R', Buffer.alloc(4)), readyForQuery('I')]));
        }
        if (type === 'Q') {
          const answer = run(bytes.toString('utf8', 5, bytes.length - 1));
          socket.write(Buffer.concat([answer, readyForQuery(status)]));
        }
        if (type === 'P') text = bytes.toString('utf8', 5).split('\0')[1];
        if (type === 'S') {
          const answer = run(text);
          socket.write(Buffer.concat([message('1', ''), message('2', ''), answer, readyForQuery(status)]));
        }
      }
    });
  }
}

/** A client that sends bytes and reads whole answers. */
class TinyClient {
  readonly #socket: Socket;
  readonly #framing = new WireFraming(true);
  readonly #answers: string[][] = [];
  #current: string[] = [];
  #wake: () => void = () => undefined;
  ended = false;

  constructor(port: number) {
    this.#socket = tcpConnect({ host: '127.0.0.1', port });
    this.#socket.on('error', () => undefined);
    this.#socket.on('close', () => {
      this.ended = true;
      this.#wake();
    });
    this.#socket.on('data', (chunk) => {
      this.#framing.push(chunk);
      for (let next = this.#framing.next(); next; next = this.#framing.next()) {
        const code = /\0C(\w{5})\0/.exec(next.bytes.toString('latin1'))?.[1];
        this.#current.push(next.type === 'E' ? `E ${code}` : next.type);
        if (next.type !== 'Z') continue;
        this.#current[this.#current.length - 1] = `Z ${String.fromCharCode(next.bytes[5])}`;
        this.#answers.push(this.#current);
        this.#current = [];
        this.#wake();
      }
    });
  }

  send(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  /** The messages' types up to ReadyForQuery; 'end' when the connection ended instead. */
  async answer(): Promise<string[] | 'end'> {
    while (this.#answers.length === 0) {
      if (this.ended) return 'end';
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    return this.#answers.shift()!;
  }

  async ask(bytes: Buffer): Promise<string[] | 'end'> {
    this.send(bytes);
    return await this.answer();
  }

  async query(text: string): Promise<string[] | 'end'> {
    return await this.ask(simpleQuery(text));
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

describe('the PostgreSQL fault proxy', () => {
  let server: TinyServer;
  let proxy: WireProxy;
  let client: TinyClient;

  before(async () => {
    server = new TinyServer();
    proxy = await startPostgresWireProxy({ host: '127.0.0.1', port: await server.listen() });
  });
  after(async () => {
    client.destroy();
    await proxy.close();
    await server.close();
  });
  beforeEach(async () => {
    client?.destroy();
    proxy.setPlan(null);
    server.ran.length = 0;
    server.committed.length = 0;
    client = new TinyClient(proxy.port);
    assert.deepEqual(await client.ask(startup()), ['R', 'Z I']);
  });

  it('passes everything when there is no plan, in any fragments', async () => {
    assert.deepEqual(await client.query('a'), ['C', 'Z I']);
    for (const byte of extended('s', 'b')) {
      client.send(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.deepEqual(await client.answer(), ['1', '2', 'C', 'Z I']);
    client.send(Buffer.concat([simpleQuery('c'), extended('', 'd'), simpleQuery('e')]));
    for (const answer of [
      ['C', 'Z I'],
      ['1', '2', 'C', 'Z I'],
      ['C', 'Z I'],
    ]) {
      assert.deepEqual(await client.answer(), answer);
    }
    assert.deepEqual(server.ran, ['a', 'b', 'c', 'd', 'e']);
  });

  it('passes a message of megabytes whole', async () => {
    const text = 'x'.repeat(5_000_000);
    assert.deepEqual(await client.query(text), ['C', 'Z I']);
    assert.equal(server.ran[0], text);
  });

  it('declines TLS by itself', async () => {
    const plain = tcpConnect({ host: '127.0.0.1', port: proxy.port });
    const request = Buffer.alloc(8);
    request.writeInt32BE(8, 0);
    request.writeInt32BE(80877103, 4);
    plain.write(request);
    const [answer] = await once(plain, 'data');
    assert.equal(String(answer), 'N');
    plain.destroy();
  });

  it('tells the plan of each statement once, with its text, number and transaction', async () => {
    const seen: WireStatement[] = [];
    proxy.setPlan((statement) => {
      seen.push(statement);
      return null;
    });
    await client.query('BEGIN');
    await client.ask(extended('', 'insert  \n x'));
    await client.query('COMMIT');
    const first = seen[0].ordinal;
    assert.deepEqual(
      seen.map(({ text, ordinal, inTransaction }) => [text, ordinal - first, inTransaction]),
      [
        ['BEGIN', 0, false],
        ['insert x', 1, true],
        ['COMMIT', 2, true],
      ],
    );
    assert.ok(seen.every(({ connection }) => connection === proxy.connections));
  });

  it('refuse: the server never sees an autocommit statement', async () => {
    proxy.setPlan(({ text }) => (text === 'lost' ? { kind: 'refuse', sqlState: '40001' } : null));
    assert.deepEqual(await client.query('lost'), ['E 40001', 'Z I']);
    assert.deepEqual(await client.ask(extended('', 'lost')), ['E 40001', 'Z I']);
    assert.deepEqual(await client.query('kept'), ['C', 'Z I']);
    assert.deepEqual(server.committed, ['kept']);
    assert.deepEqual(server.ran, ['kept']);
  });

  it('refuse at COMMIT: the server rolled back', async () => {
    proxy.setPlan(({ text }) => (text === 'COMMIT' ? { kind: 'refuse', sqlState: '40001' } : null));
    await client.query('BEGIN');
    await client.query('lost');
    assert.deepEqual(await client.query('COMMIT'), ['E 40001', 'Z I']);
    assert.deepEqual(server.ran, ['BEGIN', 'lost', 'ROLLBACK']);
    assert.deepEqual(server.committed, []);
  });

  it('refuse inside a transaction: the server has failed it too', async () => {
    proxy.setPlan(({ text }) => (text === 'second' ? { kind: 'refuse', sqlState: '40001' } : null));
    await client.query('BEGIN');
    await client.query('first');
    assert.deepEqual(await client.query('second'), ['E 40001', 'Z E']);
    assert.deepEqual(await client.query('third'), ['E 22012', 'Z E']);
    assert.deepEqual(await client.query('COMMIT'), ['C', 'Z I']);
    assert.deepEqual(server.committed, []);
    assert.ok(!server.ran.includes('second'));
  });

  it('deny: it is committed and the client is told otherwise', async () => {
    const denied = proxy.injected.deny;
    proxy.setPlan(() => ({ kind: 'deny', sqlState: '40003' }));
    assert.deepEqual(await client.query('kept'), ['E 40003', 'Z I']);
    // A named statement stays known to both.
    assert.deepEqual(await client.ask(extended('s', 'kept too')), ['1', 'E 40003', 'Z I']);
    // Inside a transaction nothing is committed yet, so there the answer is the true one.
    assert.deepEqual(await client.query('BEGIN'), ['C', 'Z T']);
    assert.deepEqual(await client.query('third'), ['C', 'Z T']);
    assert.deepEqual(await client.query('COMMIT'), ['E 40003', 'Z I']);
    assert.deepEqual(server.committed, ['kept', 'kept too', 'third']);
    assert.equal(proxy.injected.deny - denied, 3);
  });

  it('deny: what failed or was rolled back is told as it is', async () => {
    const denied = proxy.injected.deny;
    proxy.setPlan(() => ({ kind: 'deny', sqlState: '40003' }));
    assert.deepEqual(await client.query('SELECT 1 / 0'), ['E 22012', 'Z I']);
    await client.query('BEGIN');
    await client.query('SELECT 1 / 0');
    assert.deepEqual(await client.query('COMMIT'), ['C', 'Z I']);
    assert.equal(proxy.injected.deny, denied);
  });

  it('cut-before: the connection ends and the server never sees it', async () => {
    proxy.setPlan(({ text }) => (text === 'lost' ? { kind: 'cut-before' } : null));
    assert.equal(await client.query('lost'), 'end');
    assert.deepEqual(server.ran, []);
  });

  it('cut-after: the server ran it and the client never hears', async () => {
    proxy.setPlan(({ text }) => (text === 'kept' ? { kind: 'cut-after' } : null));
    assert.equal(await client.query('kept'), 'end');
    assert.deepEqual(server.committed, ['kept']);
  });

  it('delay: the statement arrives later, and those behind it after it', async () => {
    proxy.setPlan(({ text }) => (text === 'slow' ? { kind: 'delay', ms: 30 } : null));
    client.send(Buffer.concat([simpleQuery('slow'), simpleQuery('next')]));
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual(server.ran, []);
    await client.answer();
    await client.answer();
    assert.deepEqual(server.ran, ['slow', 'next']);
  });

  it('refuses what it cannot judge: several statements before one Sync', async (t) => {
    t.mock.method(console, 'error', () => undefined);
    const two = Buffer.concat([
      message('P', 'a\0one\0\0\0'),
      message('B', '\0a\0\0\0\0\0\0\0'),
      message('E', '\0\0\0\0\0'),
      message('E', '\0\0\0\0\0'),
      message('S', ''),
    ]);
    assert.equal(await client.ask(two), 'end');
    assert.deepEqual(server.ran, []);
  });

  it('cuts all connections when told', async () => {
    proxy.cutAll();
    assert.equal(await client.answer(), 'end');
  });
});
