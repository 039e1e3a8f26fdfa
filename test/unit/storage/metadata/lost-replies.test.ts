/**
 * What a backend of PostgreSQL's protocol makes of lost replies, collisions and ambiguous answers, through the wire
 * proxy before a real server: one fault at a time, and then so many that every append has its own.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Clock, systemClock } from '../../../../src/core/clock.ts';
import { seededRandom, systemRandom } from '../../../../src/core/random.ts';
import { cockroachBackend } from '../../../../storage/metadata/cockroach/cockroach-backend.ts';
import type { MetadataBackend } from '../../../../storage/metadata/metadata-backend.ts';
import type { LogEntry, MetadataStore } from '../../../../storage/metadata/metadata-store.ts';
import { postgresBackend } from '../../../../storage/metadata/postgres/postgres-backend.ts';
import { StoreCounters } from '../../../../storage/metadata/store-counters.ts';
import { type ShardLogParts, settleAppend } from '../../../../workers/shard-log.ts';
import { bytesOf, failsWith, objectRow } from '../../../contract/metadata-store-rig.ts';
import { onPostgres } from '../../../support/cockroach-store.ts';
import {
  startPostgresWireProxy,
  type WireFault,
  type WireProxy,
} from '../../../support/postgres-wire-proxy.ts';
import { sharedPostgres } from '../../../support/shared-postgres.ts';

/** Waits between tries are not what is tested; limits of statements stay. */
const hasty: Clock = {
  ...systemClock,
  after: (ms, fire) => systemClock.after(ms < 1000 ? ms / 20 : ms, fire),
};

interface Rig {
  store: MetadataStore;
  counters: StoreCounters;
  proxy: WireProxy;
  /** The fault that the next statement whose text matches meets, or the next `times`. */
  strike(pattern: RegExp, fault: WireFault, times?: number): void;
  /** Statements since the last call that match. */
  seen(pattern: RegExp): number;
}

const BACKENDS: { name: string; backend: MetadataBackend; triesMax: number; url(): Promise<string> }[] = [
  {
    name: 'postgres',
    backend: postgresBackend,
    triesMax: 10,
    url: async () => (await sharedPostgres()).storeUrl(),
  },
  { name: 'cockroachdb', backend: cockroachBackend, triesMax: 30, url: async () => (await onPostgres()).url },
];

for (const { name, backend, triesMax, url } of BACKENDS) {
  describe(`${name}: lost replies`, () => {
    async function withRig(work: (rig: Rig) => Promise<void>, hasCluster = true): Promise<void> {
      const direct = new URL(await url());
      const proxy = await startPostgresWireProxy({ host: direct.hostname, port: Number(direct.port) });
      const counters = new StoreCounters();
      const parts = { clock: hasty, random: systemRandom, counters };
      const through = direct.href.replace(`:${direct.port}/`, `:${proxy.port}/`);
      const { store } = await backend.open(through, { ...parts, role: 'broker', migrate: true });
      const cluster = { clusterId: 'c', storeIncarnation: 's', shardCount: 4, createdAtMs: 1 };
      if (hasCluster) {
        await store.initCluster(cluster);
        await store.acquireLeases(
          7,
          [0, 1, 2, 3].map((shard) => ({ shard, holder: 0, epoch: 0 })),
        );
      }
      let texts: string[] = [];
      const strikes: { pattern: RegExp; fault: WireFault; left: number }[] = [];
      proxy.setPlan(({ text }) => {
        texts.push(text);
        const strike = strikes.find(({ pattern, left }) => left > 0 && pattern.test(text));
        if (!strike) return null;
        strike.left--;
        return strike.fault;
      });
      try {
        await work({
          store,
          counters,
          proxy,
          strike: (pattern, fault, times = 1) => void strikes.push({ pattern, fault, left: times }),
          seen(pattern) {
            const count = texts.filter((text) => pattern.test(text)).length;
            texts = [];
            return count;
          },
        });
      } finally {
        proxy.setPlan(null);
        await store.close();
        await proxy.close();
      }
    }

    const entry = (shard: number, seq: number, commitId = `c-${shard}-${seq}`): LogEntry => ({
      shard,
      seq,
      epoch: 1,
      commitId,
      body: bytesOf(commitId),
    });
    const TOPIC = { partitionCount: 1, configs: {}, createdAtMs: 1 };
    const APPEND = /insert into \S+\.entries/i;
    const CREATE = /insert into \S+\.topics/i;

    it('makes a collided statement again, unseen and counted', () =>
      withRig(async ({ store, counters, strike, seen }) => {
        strike(APPEND, { kind: 'refuse', sqlState: '40001' }, 2);
        strike(APPEND, { kind: 'refuse', sqlState: '40P01' });
        assert.deepEqual(await store.appendEntries([entry(0, 1)], []), [{ kind: 'done' }]);
        assert.equal(seen(APPEND), 4);
        assert.equal(counters.read('conflictRetries'), 3);
        assert.equal(counters.read('unknownOutcomes'), 0);
      }));

    it('makes a whole transaction again when its COMMIT collided or a statement within it', () =>
      withRig(async ({ store, counters, strike, seen }) => {
        strike(/^commit/i, { kind: 'refuse', sqlState: '40001' });
        strike(/insert into \S+\.heads/i, { kind: 'refuse', sqlState: '40001' });
        const nobody = { holder: 0, checkpoint: null, trimmedThrough: 0 };
        const head = { shard: 3, headSeq: 2, headCommitId: 'c-3-2', epoch: 1, ...nobody };
        await store.importRows({ heads: [head], entries: [entry(3, 1), entry(3, 2)] });
        assert.equal(seen(/^begin/i), 3);
        assert.equal(counters.read('conflictRetries'), 2);
        assert.deepEqual(await store.readHead(3), head);
        assert.equal((await store.readEntries(3, 0, 1e9)).length, 2);
      }, false));

    it('gives up what collides every time: nothing happened', () =>
      withRig(async ({ store, strike, seen }) => {
        strike(APPEND, { kind: 'refuse', sqlState: '40001' }, 1000);
        await failsWith('store-unavailable', store.appendEntries([entry(0, 1)], [objectRow(1, 1)]));
        assert.equal(seen(APPEND), triesMax);
        assert.equal((await store.readHead(0)).headSeq, 0);
        assert.deepEqual(await store.getObjects([{ incarnation: 1, number: 1 }]), [null]);
      }));

    const OPEN_FAULTS: { fault: WireFault; happened: boolean }[] = [
      { fault: { kind: 'deny', sqlState: '40003' }, happened: true },
      { fault: { kind: 'cut-after' }, happened: true },
      { fault: { kind: 'cut-before' }, happened: false },
    ];
    for (const { fault, happened } of OPEN_FAULTS) {
      it(`says of a write after '${fault.kind}' that nobody knows, and never makes it again`, () =>
        withRig(async ({ store, counters, strike, seen }) => {
          strike(CREATE, fault);
          await failsWith('store-unknown', store.createTopic({ ...TOPIC, name: 'a' }));
          assert.equal(seen(CREATE), 1);
          assert.equal((await store.getTopic('a')) !== null, happened);
          strike(APPEND, fault);
          await failsWith('store-unknown', store.appendEntries([entry(1, 1), entry(0, 1)], []));
          assert.equal(seen(APPEND), 1);
          for (const shard of [0, 1]) assert.equal((await store.readHead(shard)).headSeq, happened ? 1 : 0);
          assert.equal(counters.read('unknownOutcomes'), 2);
          assert.equal(counters.read('conflictRetries'), 0);
        }));

      it(`says the same of COMMIT after '${fault.kind}'`, () =>
        withRig(async ({ store, strike, seen }) => {
          strike(/^commit/i, fault);
          await failsWith(
            'store-unknown',
            store.importRows({ lastIds: { topic: 9, incarnation: 9, producer: 9 } }),
          );
          assert.equal(seen(/^commit/i), 1);
          assert.equal((await store.getLastIds()).topic, happened ? 9 : 0);
        }));

      it(`says of a read, and of a transaction before its COMMIT, after '${fault.kind}' that nothing happened`, () =>
        withRig(async ({ store, strike }) => {
          strike(/^select .* from \S+\.topics/i, fault);
          await failsWith('store-unavailable', store.getTopic('a'));
          assert.equal(await store.getTopic('a'), null);
          // Inside a transaction nothing is committed, so there is nothing to deny.
          if (fault.kind === 'deny') return;
          strike(/\.counters/i, fault);
          const rows = { lastIds: { topic: 9, incarnation: 9, producer: 9 } };
          await failsWith('store-unavailable', store.importRows(rows));
          assert.equal((await store.getLastIds()).topic, 0);
        }));
    }

    const HEADS = /update \S+\.heads/i;
    const AGENTS = /update \S+\.agents/i;
    const AGENT = { agentId: 'a', address: 'h:1', zone: 'z', group: 'g', version: '1', registeredAtMs: 1 };
    for (const { fault, happened } of OPEN_FAULTS) {
      it(`says of leases after '${fault.kind}' that nobody knows, and the heads tell`, () =>
        withRig(async ({ store, strike, seen }) => {
          const wanted = [2, 0].map((shard) => ({ shard, holder: 7, epoch: 1 }));
          strike(HEADS, fault);
          await failsWith('store-unknown', store.acquireLeases(9, wanted));
          assert.equal(seen(HEADS), 1);
          const taken = (await store.listLeases()).map(({ holder, epoch }) => [holder, epoch]);
          const now = happened ? [9, 2] : [7, 1];
          assert.deepEqual(taken, [now, [7, 1], now, [7, 1]]);
          // Made again it does what is left to do, and not what was done.
          const kinds = (await store.acquireLeases(9, wanted)).map(({ kind }) => kind);
          assert.deepEqual(kinds, happened ? ['conflict', 'conflict'] : ['done', 'done']);
          seen(HEADS);
          const held = [0, 2].map((shard) => ({ shard, epoch: 2 }));
          strike(HEADS, fault);
          await failsWith('store-unknown', store.releaseLeases(9, held));
          assert.equal(seen(HEADS), 1);
          for (const { holder, epoch } of [await store.readHead(0), await store.readHead(2)]) {
            assert.deepEqual([holder, epoch], [happened ? 0 : 9, 2]);
          }
        }));

      it(`says the same of a heartbeat after '${fault.kind}', which then may be made again`, () =>
        withRig(async ({ store, strike, seen }) => {
          const { incarnation } = await store.registerAgent(AGENT);
          strike(AGENTS, fault);
          await failsWith('store-unknown', store.heartbeat('a', incarnation));
          assert.equal(seen(AGENTS), 1);
          const [row] = await store.heartbeat('a', incarnation);
          assert.equal(row.heartbeatCount, happened ? 2 : 1);
        }));
    }

    it('makes a heartbeat that collided again, and it counts once', () =>
      withRig(async ({ store, counters, strike, seen }) => {
        const { incarnation } = await store.registerAgent(AGENT);
        strike(AGENTS, { kind: 'refuse', sqlState: '40001' }, 2);
        const [row] = await store.heartbeat('a', incarnation);
        assert.equal(row.heartbeatCount, 1);
        assert.equal(seen(AGENTS), 3);
        assert.equal(counters.read('conflictRetries'), 2);
      }));

    it('costs one statement for a heartbeat and one for all leases, on the wire and by its own count', () =>
      withRig(async ({ store, counters, seen }) => {
        const { incarnation } = await store.registerAgent(AGENT);
        for (let i = 0; i < 9; i++) await store.registerAgent({ ...AGENT, agentId: `b-${i}` });
        const statementsOf = async (call: () => Promise<unknown[]>, rows: number) => {
          seen(/./);
          const before = counters.read('statements');
          for (let i = 0; i < 5; i++) assert.equal((await call()).length, rows);
          assert.equal(counters.read('statements') - before, 5);
          assert.equal(seen(/./), 5);
        };
        await statementsOf(() => store.heartbeat('a', incarnation), 10);
        await statementsOf(() => store.listLeases(), 4);
        await statementsOf(() => store.listAgents(), 10);
        const leases = [0, 1, 2, 3].map((shard) => ({ shard, holder: 7, epoch: 1 }));
        const before = counters.read('statements');
        seen(/./);
        await store.acquireLeases(9, leases);
        await store.releaseLeases(
          9,
          leases.map(({ shard }) => ({ shard, epoch: 2 })),
        );
        assert.deepEqual([counters.read('statements') - before, seen(/./)], [2, 2]);
      }));

    it('loses nothing and writes nothing twice when every append meets a fault', { timeout: 120_000 }, () =>
      withRig(async ({ store, proxy, counters }) => {
        const random = seededRandom(20);
        const faults: (WireFault | null)[] = [
          null,
          { kind: 'refuse', sqlState: '40001' },
          { kind: 'deny', sqlState: '40003' },
          { kind: 'cut-before' },
          { kind: 'cut-after' },
        ];
        proxy.setPlan(({ text }) =>
          APPEND.test(text) ? faults[random.below(5)] : random.unit() < 0.1 ? faults[random.below(5)] : null,
        );
        const stopped = new AbortController().signal;
        const parts: ShardLogParts = { store, clock: hasty, random, stopped, onUnknown: () => undefined };
        const expected = [0, 1, 2].map(() => [] as LogEntry[]);
        for (let seq = 1; seq <= 120; seq++) {
          const entries = [0, 1, 2].map((shard) => entry(shard, seq));
          const objects = [objectRow(1, seq)];
          const outcomes = await store.appendEntries(entries, objects).catch((error) => error);
          for (const [i, one] of entries.entries()) {
            const first = Array.isArray(outcomes) ? outcomes[i] : outcomes;
            // A single writer under its own epoch: there is nobody to lose to.
            assert.equal(await settleAppend(parts, one, objects, first), 'committed', `${i}/${seq}`);
            expected[i].push(one);
          }
        }
        proxy.setPlan(null);
        for (const [shard, entries] of expected.entries()) {
          assert.deepEqual(await store.readEntries(shard, 0, 1e9), entries);
          assert.equal((await store.readHead(shard)).headSeq, 120);
        }
        const listed = await store.listObjects({ limit: 1000 });
        assert.deepEqual(
          listed.map(({ object }) => object.number),
          Array.from({ length: 120 }, (_, i) => i + 1),
        );
        for (const kind of ['refuse', 'deny', 'cut-before', 'cut-after'] as const) {
          assert(proxy.injected[kind] >= 20, `${proxy.injected[kind]} of '${kind}'`);
        }
        assert(counters.read('conflictRetries') > 0 && counters.read('unknownOutcomes') > 20);
      }),
    );

    it('lets one of two writers have each seq, though replies are lost', { timeout: 120_000 }, () =>
      withRig(async ({ store, proxy }) => {
        const random = seededRandom(21);
        const faults: WireFault[] = [
          { kind: 'refuse', sqlState: '40001' },
          { kind: 'deny', sqlState: '40003' },
          { kind: 'cut-before' },
          { kind: 'cut-after' },
        ];
        proxy.setPlan(({ text }) =>
          APPEND.test(text) && random.unit() < 0.4 ? faults[random.below(4)] : null,
        );
        const stopped = new AbortController().signal;
        const parts: ShardLogParts = { store, clock: hasty, random, stopped, onUnknown: () => undefined };
        const winners: string[] = [];
        for (let seq = 1; seq <= 60; seq++) {
          const rivals = ['a', 'b'].map((writer) => entry(0, seq, `${writer}-${seq}`));
          const verdicts = await Promise.all(
            rivals.map(async (one) => {
              const first = await store.appendEntries([one], []).then(
                ([outcome]) => outcome,
                (error) => error,
              );
              return await settleAppend(parts, one, [], first);
            }),
          );
          assert.deepEqual([...verdicts].sort(), ['committed', 'never'], `seq ${seq}`);
          winners.push(rivals[verdicts.indexOf('committed')].commitId);
        }
        const log = await store.readEntries(0, 0, 1e9);
        assert.deepEqual(
          log.map(({ commitId }) => commitId),
          winners,
        );
        assert.equal(new Set(winners.map((id) => id[0])).size, 2);
      }),
    );
  });
}
