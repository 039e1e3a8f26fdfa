/** Reads that go to another broker, which a test plays: tried once more at most, bounded, and never believed when cut. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { type Clock, systemClock } from '../../../src/core/clock.ts';
import { FORWARD_READS_MAX } from '../../../src/core/limits.ts';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import { PeerPools } from '../../../src/peer/peer-pools.ts';
import { PeerReads } from '../../../src/peer/peer-reads.ts';
import type { ForwardedRead } from '../../../src/route/peer-duties.ts';
import { FakePlaces, peerPlace } from '../../support/fake-places.ts';
import { eventually } from '../../support/http-door-harness.ts';

let server: Server;
let address: string;
let asked: { url: string | undefined; headers: Record<string, unknown> }[];
let respond: (response: ServerResponse, nth: number) => void;
let places: FakePlaces;
let pools: PeerPools;
let reads: PeerReads;
let admitted: number;
let admittedMax: number;
let gone: AbortController;

beforeEach(async () => {
  asked = [];
  admitted = 0;
  admittedMax = 1 << 20;
  gone = new AbortController();
  server = createServer((request, response) => {
    asked.push({ url: request.url, headers: request.headers });
    respond(response, asked.length);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  places = new FakePlaces();
  places.set(0, peerPlace(0, 9, address));
  pools = new PeerPools(systemClock);
  reads = make(systemClock);
});

afterEach(async () => {
  await pools.close();
  server.closeAllConnections();
  server.close();
  assert.equal(reads.running, 0);
  assert.equal(admitted, 0);
});

function make(clock: Clock): PeerReads {
  const self = { key: 'c', incarnation: () => 4 };
  return new PeerReads({
    self,
    pools,
    clock,
    layout: oneGroup(1),
    places,
    counters: { add: () => undefined },
  });
}

function readOf(): ForwardedRead {
  return {
    target: '/topics/t/partitions/0/records?offset=3',
    accept: 'a/b',
    waitMs: 0,
    signal: gone.signal,
    admit(bytes) {
      if (admitted + bytes > admittedMax) return false;
      admitted += bytes;
      return true;
    },
    release: (bytes) => (admitted -= bytes),
  };
}

async function read(): Promise<string> {
  const answer = await reads.forward(1, 0, readOf());
  assert.ok(answer);
  admitted -= answer.admitted;
  return `${answer.status} ${answer.contentType} ${answer.body}`;
}

const json = { 'content-type': 'application/json' };
const notLeader = '{"code":"not-leader","outcome":"none"}';

function send(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { ...json, 'content-length': Buffer.byteLength(body) }).end(body);
}

describe("a read of another broker's partition", () => {
  it('goes as it came, marked, and comes back as it is', async () => {
    respond = (response) => send(response, 416, '{"code":"offset-out-of-range"}');
    assert.equal(await read(), '416 application/json {"code":"offset-out-of-range"}');
    const { url, headers } = asked[0];
    assert.equal(url, '/topics/t/partitions/0/records?offset=3');
    assert.deepEqual(
      [
        headers.accept,
        headers['streamhouse-cluster'],
        headers['streamhouse-from'],
        headers['streamhouse-to'],
        headers['streamhouse-topic'],
      ],
      ['a/b', 'c', '4', '9', '1'],
    );
  });

  it('is told when the holder knows no such topic any more: the name may be another one by now', async () => {
    respond = (response) => send(response, 404, '{"code":"topic-not-found"}');
    await assert.rejects(read(), { code: 'topic-not-found' });
    assert.equal(asked.length, 1);
  });

  it('is for here when the shard is, at once or after a search', async () => {
    assert.equal(reads.isElsewhere(1, 0), true);
    places.set(0, { kind: 'unknown' });
    const found = reads.forward(1, 0, readOf());
    places.set(0, { kind: 'here' });
    assert.equal(await found, null);
    assert.equal(reads.isElsewhere(1, 0), false);
  });

  it('refused by who holds it no more is tried once more, after the lease was dropped', async () => {
    respond = (response, nth) => (nth === 1 ? send(response, 503, notLeader) : send(response, 200, '[]'));
    assert.equal(await read(), '200 application/json []');
    assert.deepEqual(places.refusals, [places.place(0)]);
    respond = (response) => send(response, 503, notLeader);
    await assert.rejects(read(), { code: 'not-leader' });
    assert.equal(asked.length, 4, 'and no more than once');
    respond = (response) => send(response, 409, '{"code":"cluster-mismatch","outcome":"none"}');
    await assert.rejects(read(), { code: 'not-leader' });
  });

  it('refused by who is stopping is tried once more: the client asked a broker that goes on', async () => {
    const stopping = '{"code":"shutting-down","outcome":"none"}';
    respond = (response, nth) => (nth === 1 ? send(response, 503, stopping) : send(response, 200, '[]'));
    assert.equal(await read(), '200 application/json []');
    assert.deepEqual(places.refusals, [places.place(0)]);
    respond = (response) => send(response, 503, stopping);
    await assert.rejects(read(), { code: 'not-leader' });
  });

  it('whose connection breaks before its answer, or in it, is tried once more', async () => {
    respond = (response, nth) => (nth === 1 ? response.destroy() : send(response, 200, '[1]'));
    assert.equal(await read(), '200 application/json [1]');
    respond = (response, nth) => {
      if (nth > 3) return send(response, 200, '[2]');
      response.writeHead(200, { ...json, 'content-length': 10 });
      response.write('[');
      setTimeout(() => response.destroy(), 20);
    };
    assert.equal(await read(), '200 application/json [2]');
    respond = (response) => response.destroy();
    await assert.rejects(read(), { code: 'not-leader' });
  });

  it('of unknown length is not believed; an overloaded holder is told of as it is', async () => {
    respond = (response) => {
      response.writeHead(200, json);
      response.write('[');
      response.end(']');
    };
    await assert.rejects(read(), { code: 'not-leader' });
    respond = (response) => send(response, 429, '{"code":"overloaded"}');
    assert.equal(await read(), '429 application/json {"code":"overloaded"}');
    respond = (response) => send(response, 503, 'no JSON');
    assert.equal(await read(), '503 application/json no JSON');
  });

  it('for whose answer there is no room is refused before it is read', async () => {
    admittedMax = 100;
    respond = (response) => send(response, 200, 'x'.repeat(101));
    await assert.rejects(read(), { code: 'overloaded' });
    assert.equal(asked.length, 1);
  });

  it('that is not answered in time is given up, and not tried again', async () => {
    let fire: () => void = () => undefined;
    const clock: Clock = {
      ...systemClock,
      after(_ms, then) {
        fire = then;
        return { cancel: () => undefined };
      },
    };
    reads = make(clock);
    respond = () => fire();
    await assert.rejects(read(), { code: 'not-leader' });
    assert.equal(asked.length, 1);
  });

  it('ends with its client', async () => {
    respond = () => undefined;
    const reading = read();
    await eventually(() => asked.length === 1, 'it to be asked');
    gone.abort(new Error('gone'));
    await assert.rejects(reading, /gone/);
  });

  it('beyond the bound for one broker is refused; others are not', async () => {
    places.find = async () => peerPlace(0, 9, address);
    respond = () => undefined;
    const all = Array.from({ length: FORWARD_READS_MAX }, () => read());
    await eventually(() => reads.running === FORWARD_READS_MAX, 'them to run');
    await assert.rejects(read(), { code: 'overloaded' });
    places.find = async () => peerPlace(0, 10, '127.0.0.1:1');
    await assert.rejects(read(), { code: 'not-leader' });
    gone.abort(new Error('gone'));
    await Promise.allSettled(all);
  });
});
