/**
 * Appends on their way to another broker that a test plays, over real sockets: their order, and that each is answered
 * exactly once and truly, whatever the other broker does or does not do.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { systemClock } from '../../../src/core/clock.ts';
import type { ErrorCode } from '../../../src/core/errors.ts';
import { PeerAppends } from '../../../src/peer/peer-appends.ts';
import { PeerPools } from '../../../src/peer/peer-pools.ts';
import {
  AppendMessage,
  WIRE_ANSWER_BYTES,
  writeWireAnswer,
} from '../../../src/protocol/peer/append-message.ts';
import { ANSWERS_TYPE } from '../../../src/protocol/peer/peer-headers.ts';
import type { PeerAddress } from '../../../src/route/shard-places.ts';
import { PRODUCE_HEADER_BYTES, writeAppendHeader } from '../../../workers/append-codec.ts';
import { eventually } from '../../support/http-door-harness.ts';

interface Got {
  values: string[];
  request: IncomingMessage;
  response: ServerResponse;
  /** Sends the status line. */
  take(): void;
  answer(index: number, code: ErrorCode | null, baseOffset?: number): void;
}

type Answer = [slot: number, code: ErrorCode | null, baseOffset: number];

const LIMITS = { recordBytesMax: 1 << 30, appendBytesMax: 1 << 30 };

let server: Server;
let got: Got[];
let onMessage: (message: Got) => void;
let peer: PeerAddress;
let pools: PeerPools;
let answers: Answer[];
let warnings: string[];
let trips: number;
let appends: PeerAppends;

function answerBytes(index: number, code: ErrorCode | null, baseOffset: number): Buffer {
  const bytes = Buffer.alloc(WIRE_ANSWER_BYTES);
  writeWireAnswer(bytes, 0, index, code, baseOffset);
  return bytes;
}

async function receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece);
  const values: string[] = [];
  const message = new AppendMessage(Buffer.concat(pieces), LIMITS);
  message.forEach(({ bytes, recordCount }) => {
    values.push(Buffer.from(bytes.subarray(recordCount * 8)).toString());
  });
  const one: Got = {
    values,
    request,
    response,
    take() {
      response.writeHead(200, { 'content-type': ANSWERS_TYPE });
      response.flushHeaders();
    },
    answer: (index, code, baseOffset = -1) => response.write(answerBytes(index, code, baseOffset)),
  };
  got.push(one);
  onMessage(one);
}

beforeEach(async () => {
  got = [];
  answers = [];
  warnings = [];
  trips = 0;
  onMessage = () => undefined;
  server = createServer((request, response) => void receive(request, response).catch(() => undefined));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  peer = { agentId: 'b', incarnation: 9, address: `127.0.0.1:${port}`, zone: 'z' };
  pools = new PeerPools(systemClock);
  appends = make(1000);
});

afterEach(async () => {
  appends.close();
  await pools.close();
  server.closeAllConnections();
  server.close();
});

function make(silenceMsMax: number): PeerAppends {
  return new PeerAppends({
    self: { key: 'c', incarnation: () => 4 },
    pools,
    clock: systemClock,
    counters: { add: () => undefined, observe: () => trips++ },
    silenceMsMax,
    answered(slot, generation, code, baseOffset) {
      assert.equal(generation, slot + 1000);
      assert.ok(!answers.some(([other]) => other === slot), `slot ${slot} is answered once`);
      answers.push([slot, code, baseOffset]);
    },
    warn: (message, fields) => warnings.push(`${message}: ${fields.error ?? fields.code}`),
  });
}

/** Sends one append of one record; the slot is its name. */
function send(slot: number, value = `v${slot}`, to = peer): ErrorCode | null {
  const bytes = Buffer.byteLength(value);
  const packed = Buffer.alloc(PRODUCE_HEADER_BYTES + 8 + bytes);
  const producer = { producerId: -1, producerEpoch: -1, baseSequence: -1 };
  const header = {
    slot,
    generation: slot + 1000,
    topicId: 1,
    partition: 2,
    recordCount: 1,
    dataBytes: bytes,
  };
  writeAppendHeader(packed, 0, { ...header, ...producer });
  packed.writeInt32LE(-1, PRODUCE_HEADER_BYTES);
  packed.writeInt32LE(bytes, PRODUCE_HEADER_BYTES + 4);
  packed.write(value, PRODUCE_HEADER_BYTES + 8);
  const code = appends.send(to, packed);
  packed.fill(0);
  return code;
}

function sorted(): Answer[] {
  return [...answers].sort((a, b) => a[0] - b[0]);
}

describe('appends to another broker', () => {
  it('are gathered by turn, named by who sends to whom, and answered in any order', async () => {
    for (let i = 0; i < 3; i++) assert.equal(send(i), null);
    await eventually(() => got.length === 1, 'a message');
    assert.deepEqual(got[0].values, ['v0', 'v1', 'v2']);
    const { headers } = got[0].request;
    assert.deepEqual(
      [headers['streamhouse-cluster'], headers['streamhouse-from'], headers['streamhouse-to']],
      ['c', '4', '9'],
    );
    got[0].take();
    got[0].answer(2, null, 7);
    got[0].answer(0, 'producer-fenced');
    await eventually(() => answers.length === 2, 'two answers before the end');
    got[0].answer(1, null, 0);
    got[0].response.end();
    await eventually(() => answers.length === 3, 'the third');
    assert.deepEqual(answers, [
      [2, null, 7],
      [0, 'producer-fenced', -1],
      [1, null, 0],
    ]);
    assert.equal(trips, 1);
    await eventually(() => appends.streams === 0, 'the end');
    assert.deepEqual(warnings, []);
  });

  it('follow one another only when the last message was taken; answers do not hold the next up', async () => {
    send(0);
    await eventually(() => got.length === 1, 'the first');
    for (let i = 1; i < 50; i++) send(i);
    await pause(50);
    assert.equal(got.length, 1, 'the second waits');
    got[0].take();
    await eventually(() => got.length === 2, 'the second');
    assert.deepEqual(
      got[1].values,
      Array.from({ length: 49 }, (_, i) => `v${i + 1}`),
    );
    got[1].take();
    got[1].answer(0, null, 1);
    await eventually(() => answers.length === 1, 'an answer before those of the first message');
    assert.equal(appends.streams, 2);
  });

  it('keep their order over very many messages', async () => {
    const all: string[] = [];
    onMessage = (message) => {
      all.push(...message.values);
      setTimeout(() => {
        message.take();
        message.values.forEach((_, i) => {
          message.answer(i, null, i);
        });
        message.response.end();
      }, all.length % 7);
    };
    for (let i = 0; i < 2000; i++) {
      send(i);
      if (i % 20 === 0) await pause(1);
    }
    await eventually(() => answers.length === 2000, 'all answers');
    assert.deepEqual(
      all,
      Array.from({ length: 2000 }, (_, i) => `v${i}`),
    );
    assert.ok(got.length > 5 && got.length < 400, `${got.length} messages`);
  });

  it('of more than a message go in several; a large one goes by itself', async () => {
    onMessage = (message) => {
      message.take();
      message.values.forEach((_, i) => {
        message.answer(i, null, i);
      });
      message.response.end();
    };
    send(0, 'a');
    send(1, 'b'.repeat(3 * 1024 * 1024));
    for (let i = 2; i < 8; i++) send(i, 'c'.repeat(400 * 1024));
    await eventually(() => answers.length === 8, 'all answers');
    assert.deepEqual(
      got.map(({ values }) => values.map((value) => value[0]).join('')),
      ['a', 'b', 'cc', 'cc', 'cc'],
    );
  });
});

describe('a broker that refuses', () => {
  const refusals: [status: number, body: string, code: ErrorCode][] = [
    [503, '{"code":"not-leader","outcome":"none"}', 'not-leader'],
    [409, '{"code":"cluster-mismatch","outcome":"none"}', 'not-leader'],
    [429, '{"code":"overloaded","outcome":"none"}', 'overloaded'],
    [503, '{"code":"shutting-down","outcome":"none"}', 'shutting-down'],
    [400, '{"code":"malformed-request","outcome":"none"}', 'not-leader'],
    // Whoever does not say in our words that nothing happened leaves it open.
    [500, '{"code":"internal-error","outcome":"unknown"}', 'peer-lost'],
    [502, '<html>Bad Gateway</html>', 'peer-lost'],
    [504, '{"code":"deadline-exceeded","outcome":"none"}', 'peer-lost'],
    [200, '{"offsets":[]}', 'peer-lost'],
    [204, '', 'peer-lost'],
    [503, `{"code":"not-leader","outcome":"none","x":"${'x'.repeat(20_000)}"}`, 'peer-lost'],
  ];
  for (const [status, body, code] of refusals) {
    it(`with ${status} ${body.slice(0, 40)}: ${code}`, async () => {
      onMessage = ({ response }) =>
        response.writeHead(status, { 'content-type': 'application/json' }).end(body);
      send(0);
      send(1);
      await eventually(() => answers.length === 2, 'answers');
      assert.deepEqual(answers, [
        [0, code, -1],
        [1, code, -1],
      ]);
      await eventually(() => appends.streams === 0, 'the end');
    });
  }

  it('with an endless body gets its connection cut, not kept', async () => {
    let cut = false;
    onMessage = ({ response }) => {
      response.writeHead(200, { 'content-type': 'text/plain' });
      response.write('x');
      response.on('close', () => (cut = true));
    };
    send(0);
    await eventually(() => cut, 'the connection cut');
    assert.deepEqual(answers, [[0, 'peer-lost', -1]]);
    assert.equal(pools.connections, 0);
  });

  it('because nobody listens: nothing happened, to what was gathered neither', async () => {
    const free = net.createServer().listen(0, '127.0.0.1');
    await once(free, 'listening');
    const { port } = free.address() as AddressInfo;
    free.close();
    await once(free, 'close');
    const gone = { ...peer, incarnation: 78, address: `127.0.0.1:${port}` };
    send(0, 'a', gone);
    await new Promise((resolve) => setImmediate(resolve));
    send(1, 'b', gone);
    await eventually(() => answers.length === 2, 'answers');
    assert.deepEqual(sorted(), [
      [0, 'not-leader', -1],
      [1, 'not-leader', -1],
    ]);
    // Another broker is not harmed.
    send(2);
    await eventually(() => got.length === 1, 'a message to the other');
    assert.equal(warnings.length, 1);
  });

  it('because its address is none', async () => {
    for (const [i, address] of ['', 'no address', 'h:99999', 'h:1/path', 'u:p@h:1'].entries()) {
      send(i, 'a', { ...peer, incarnation: 100 + i, address });
    }
    await eventually(() => answers.length === 5, 'answers');
    for (const [, code] of answers) assert.equal(code, 'not-leader');
  });
});

describe('a broker that fails', () => {
  it('in the middle of its answers: what it answered counts, the rest is unknown', async () => {
    for (let i = 0; i < 3; i++) send(i);
    await eventually(() => got.length === 1, 'a message');
    got[0].take();
    got[0].answer(1, null, 5);
    await eventually(() => answers.length === 1, 'an answer');
    got[0].response.destroy();
    await eventually(() => answers.length === 3, 'the others');
    assert.deepEqual(sorted(), [
      [0, 'peer-lost', -1],
      [1, null, 5],
      [2, 'peer-lost', -1],
    ]);
    // It is asked again for what comes next.
    send(3);
    await eventually(() => got.length === 2, 'another message');
  });

  it('before its status line: unknown', async () => {
    onMessage = ({ response }) => response.destroy();
    send(0);
    await eventually(() => answers.length === 1, 'an answer');
    assert.deepEqual(answers, [[0, 'peer-lost', -1]]);
    assert.equal(got.length, 1, 'nothing is ever sent twice');
  });

  it('ending before all is answered: unknown', async () => {
    onMessage = (message) => {
      message.take();
      message.answer(0, null, 1);
      message.response.end(answerBytes(1, null, 2).subarray(0, 9));
    };
    send(0);
    send(1);
    await eventually(() => answers.length === 2, 'answers');
    assert.deepEqual(answers, [
      [0, null, 1],
      [1, 'peer-lost', -1],
    ]);
  });

  for (const [what, index, base] of [
    ['answering twice', 0, 9],
    ['answering what it was not sent', 2, 9],
    ['answering an offset that is none', 1, -5],
  ] as const) {
    it(`by ${what}: nothing more is believed`, async () => {
      onMessage = (message) => {
        message.take();
        message.answer(0, null, 1);
        message.answer(index, null, base);
        message.answer(1, null, 2);
        message.response.end();
      };
      send(0);
      send(1);
      await eventually(() => answers.length === 2, 'answers');
      assert.deepEqual(answers, [
        [0, null, 1],
        [1, 'peer-lost', -1],
      ]);
      assert.match(warnings[0], /not asked|offset/);
    });
  }

  it('by silence: given up after the time that a request has, before or after the status line', async () => {
    appends.close();
    appends = make(600);
    onMessage = (message) => {
      if (message.values[0] === 'v0') message.take();
    };
    send(0);
    await eventually(() => got.length === 1, 'a message');
    await pause(300);
    got[0].answer(5, null, 0);
    await eventually(() => answers.length === 1, 'an answer');
    send(1);
    await eventually(() => answers.length === 2, 'an answer');
    assert.deepEqual(answers, [
      [0, 'peer-lost', -1],
      [1, 'peer-lost', -1],
    ]);
    assert.equal(appends.streams, 0);
  });

  it('by taking connections and no messages: others go on, and its gathered appends are refused in time', async () => {
    appends.close();
    appends = make(60_000);
    const mute = net.createServer(() => undefined).listen(0, '127.0.0.1');
    await once(mute, 'listening');
    const stopped = {
      ...peer,
      incarnation: 77,
      address: `127.0.0.1:${(mute.address() as AddressInfo).port}`,
    };
    send(0, 'a', stopped);
    await pause(50);
    send(1, 'b', stopped);
    send(2);
    await eventually(() => got.length === 1, 'a message to the other');
    got[0].take();
    got[0].answer(0, null, 3);
    await eventually(() => answers.length === 1, 'its answer');
    const startMs = performance.now();
    while (answers.length === 1 && performance.now() - startMs < 9000) await pause(50);
    assert.deepEqual(answers[1], [1, 'not-leader', -1]);
    assert.ok(performance.now() - startMs > 4000);
    assert.equal(send(3, 'c', stopped), 'not-leader', 'at once from then on');
    appends.close();
    await eventually(() => answers.length === 3, 'what it has is unknown');
    assert.deepEqual(answers[2], [0, 'peer-lost', -1]);
    mute.close();
  });
});

describe('closing', () => {
  it('loses what is under way, refuses what was not sent, and takes nothing more', async () => {
    send(0);
    await eventually(() => got.length === 1, 'a message');
    send(1);
    appends.close();
    await eventually(() => answers.length === 2, 'answers');
    assert.deepEqual(sorted(), [
      [0, 'peer-lost', -1],
      [1, 'not-leader', -1],
    ]);
    assert.equal(send(2), 'shutting-down');
  });
});
