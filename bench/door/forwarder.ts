/**
 * A broker that holds nothing: the HTTP door before the forwarding of appends to one other broker, its own process. For
 * the measurement of the way between brokers; a second real broker would share the machine with everything else that a
 * broker does. Owns that wiring, and the plain way that it is compared with: one HTTP request for each request.
 *
 * { url, way, topic, key } is answered with the port, 'cpu' with the CPU seconds used so far.
 */
import { Pool } from 'undici';
import { systemClock } from '../../src/core/clock.ts';
import { oneGroup } from '../../src/core/shard-layout.ts';
import { PeerAppends } from '../../src/peer/peer-appends.ts';
import { PeerClient } from '../../src/peer/peer-client.ts';
import { PeerPools } from '../../src/peer/peer-pools.ts';
import type { Broker, ProducePath } from '../../src/route/broker.ts';
import { ProduceRouter } from '../../src/route/produce-router.ts';
import type { PeerPlace, ShardPlace } from '../../src/route/shard-places.ts';
import { HTTP_DOOR_DEFAULTS } from '../../src/server/http/door-context.ts';
import { createHttpDoor } from '../../src/server/http/http-door.ts';
import type { Topic } from '../../storage/metadata/metadata-store.ts';

export interface ForwarderTask {
  url: string;
  /** `messages`: as a broker does it. `requests`: each request by itself, over so many connections. */
  way: 'messages' | 'requests';
  topic: Topic;
  /** The cluster's, as its brokers tell one another by it. */
  key: string;
}

const MIB = 1024 * 1024;
const TIMEOUT_MS = 30_000;
const CONNECTIONS = 256;
const none = () => undefined;

async function byMessages(address: string, key: string): Promise<ProducePath> {
  const pools = new PeerPools(systemClock);
  const self = { key, incarnation: () => 1_000_000 };
  const who = await new PeerClient({ self, pools, clock: systemClock }).who(address);
  if (who.kind !== 'answered') throw new Error(`no broker at ${address}: ${who.kind}`);
  const { agentId, incarnation } = who;
  const lease = { shard: 0, holder: incarnation, epoch: 1, asOfMs: 0 };
  const place: PeerPlace = { kind: 'peer', peer: { agentId, incarnation, address, zone: '' }, lease };
  const places = {
    isHere: () => false,
    place: (): ShardPlace => place,
    find: async () => place,
    refused: none,
  };
  const carrier = new PeerAppends({
    self,
    pools,
    clock: systemClock,
    counters: { add: none, observe: none },
    silenceMsMax: TIMEOUT_MS,
    answered: (slot, generation, code, base) => router.answerElsewhere(slot, generation, code, base),
    warn: (message, fields) => process.stderr.write(`${message} ${JSON.stringify(fields)}\n`),
  });
  const router: ProduceRouter = new ProduceRouter({
    settings: {
      laneCount: 1,
      layout: oneGroup(8),
      inFlightBytesMax: 1024 * MIB,
      recordBytesMax: MIB,
      appendBytesMax: 16 * MIB,
    },
    clock: systemClock,
    places,
    carrier,
    counters: { add: none },
    topicDeleted: none,
    toLane: () => false,
  });
  return router;
}

/** One record a request. */
function byRequests(url: string): ProducePath {
  const pool = new Pool(url, { connections: CONNECTIONS, pipelining: 1 });
  const headers = { 'content-type': 'application/vnd.kafka.json.v2+json' };
  return {
    submit({ topic, partitions, spans, source }, done) {
      const value = Buffer.from(source.subarray(spans[2], spans[3])).toString('latin1');
      const body = `{"records":[{"value":${value}}]}`;
      pool
        .request({ method: 'POST', path: `/topics/${topic.name}/partitions/${partitions[0]}`, headers, body })
        .then((answer) => answer.body.json())
        .then((answer) => {
          const { offsets } = answer as { offsets?: { offset: number }[] };
          if (!offsets) throw new Error(JSON.stringify(answer));
          done({ offsets: [offsets[0].offset], errors: null });
        })
        .catch((error: Error) =>
          done({ offsets: [-1], errors: [{ code: 'peer-lost', message: error.message }] }),
        );
    },
  };
}

async function listen({ url, way, topic, key }: ForwarderTask): Promise<number> {
  const produce = way === 'messages' ? await byMessages(new URL(url).host, key) : byRequests(url);
  const topics = { peek: () => topic, get: async () => topic, getWithPartition: async () => topic };
  const broker = { produce, topics, info: { version: 'bench' } } as unknown as Broker;
  const budget = { admit: () => true, release: none };
  const observer = {
    requestDone: none,
    connectionRefused: none,
    clientFault: none,
    internalError: (error: unknown) => process.stderr.write(`${String(error)}\n`),
  };
  const settings = { bodyBytesMax: 16 * MIB, produceTimeoutMs: TIMEOUT_MS, connectionsMax: 10_000 };
  const door = createHttpDoor(broker, { ...HTTP_DOOR_DEFAULTS, ...settings }, observer, systemClock, {
    bodies: budget,
    answers: budget,
  });
  return (await door.listen('127.0.0.1', 0)).port;
}

process.on('message', (question: ForwarderTask | 'cpu') => {
  if (question === 'cpu') {
    const { user, system } = process.cpuUsage();
    process.send?.((user + system) / 1e6);
  } else void listen(question).then((port) => process.send?.(port));
});
