/**
 * Gathered writes over real sockets: order, one write for what one turn wrote, slow readers, ending and cutting.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net, { type AddressInfo, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { GatheredWrites } from '../../../../src/server/http/gathered-writes.ts';

interface Pair {
  /** The one whose writes are gathered. */
  server: Socket;
  client: Socket;
  /** Bytes of each write that reached the system. */
  writes: number[];
}

/** Both ends of a connection; they are gone when `use` ends. */
async function withPair(use: (pair: Pair) => Promise<void>): Promise<void> {
  const listener = net.createServer();
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const client = net.connect((listener.address() as AddressInfo).port, '127.0.0.1');
  const [[server]] = (await Promise.all([once(listener, 'connection'), once(client, 'connect')])) as [
    [Socket],
    unknown,
  ];
  const writes: number[] = [];
  const [one, many] = [server._write.bind(server), server._writev!.bind(server)];
  server._write = (chunk, encoding, done) => {
    writes.push(chunk.length);
    one(chunk, encoding, done);
  };
  server._writev = (pieces, done) => {
    writes.push(pieces.reduce((sum, { chunk }) => sum + chunk.length, 0));
    many(pieces, done);
  };
  new GatheredWrites().attach(server);
  try {
    await use({ server, client, writes });
  } finally {
    client.destroy();
    server.destroy();
    listener.close();
    await once(listener, 'close');
  }
}

async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

describe('gathered writes', () => {
  it('what one turn writes goes out in one write, in order, whatever its form', async () => {
    await withPair(async ({ server, client, writes }) => {
      const read = readAll(client);
      server.write('a', 'latin1');
      server.write('b', 'latin1');
      await turn();
      await turn();
      assert.deepEqual(writes, [2]);
      server.write('c', 'latin1');
      server.write(Buffer.from('d'));
      server.write('\u00e9', 'latin1');
      server.write('\u00e9', 'utf8');
      server.write(new Uint8Array([101]));
      server.write('', 'latin1');
      server.end('f');
      const bytes = await read;
      assert.equal(bytes.toString('latin1'), 'abcd\u00e9\u00c3\u00a9ef');
      assert.ok(writes.length <= 3, `${writes.length} writes`);
    });
  });

  it('each write is called back, small ones in the same turn', async () => {
    await withPair(async ({ server, client }) => {
      client.resume();
      const done: number[] = [];
      for (let i = 0; i < 3; i++) server.write('x', 'latin1', () => done.push(i));
      await new Promise((resolve) => process.nextTick(() => process.nextTick(resolve)));
      assert.deepEqual(done, [0, 1, 2]);
    });
  });

  it('a corked run of pieces is one write too', async () => {
    await withPair(async ({ server, client, writes }) => {
      const read = readAll(client);
      server.cork();
      for (const piece of ['one ', 'two ', 'three']) server.write(piece, 'latin1');
      server.uncork();
      server.end();
      assert.equal((await read).toString(), 'one two three');
      assert.deepEqual(writes, [13]);
    });
  });

  it('a reader that does not read holds the writer back, and gets everything once it does', async () => {
    await withPair(async ({ server, client }) => {
      const piece = Buffer.alloc(16 * 1024);
      let written = 0;
      let taken = 0;
      // Far beyond what sockets of loopback hold.
      while (written < 64 * 1024 * 1024) {
        piece.fill(written & 0xff);
        server.write(Buffer.from(piece), () => (taken += piece.length));
        written += piece.length;
      }
      await turn();
      await new Promise((resolve) => setTimeout(resolve, 50));
      assert.equal(server.writableNeedDrain, true);
      assert.ok(server.writableLength > 0, 'the stream knows what waits');
      assert.ok(taken < written, 'not called back before the system has it');
      const read = readAll(client);
      await once(server, 'drain');
      server.end('end');
      const bytes = await read;
      assert.equal(taken, written);
      assert.equal(bytes.length, written + 3);
      for (let at = 0; at < written; at += 1_000_003) {
        assert.equal(bytes[at], (Math.floor(at / piece.length) * piece.length) & 0xff);
      }
    });
  });

  it('ending waits for what is gathered', async () => {
    await withPair(async ({ server, client, writes }) => {
      const read = readAll(client);
      for (let i = 0; i < 1000; i++) server.write('0123456789', 'latin1');
      server.destroySoon();
      assert.equal((await read).length, 10_000);
      assert.deepEqual(writes, [10_000]);
    });
  });

  it('a socket that was cut takes nothing more and harms nobody', async () => {
    await withPair(async ({ server, client, writes }) => {
      client.resume();
      server.on('error', () => assert.fail('an error of a socket that was cut'));
      server.write('lost', 'latin1');
      server.destroy();
      await turn();
      await turn();
      assert.deepEqual(writes, []);
    });
  });

  it('a client that is gone ends the socket, not the process', async () => {
    await withPair(async ({ server, client }) => {
      const closed = new Promise<void>((resolve) => server.on('close', () => resolve()));
      server.on('error', () => undefined);
      client.resetAndDestroy();
      const timer = setInterval(() => server.write('x'.repeat(1000), 'latin1'), 5);
      await closed;
      clearInterval(timer);
    });
  });
});
