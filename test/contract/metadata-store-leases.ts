/** The metadata store's contract: leases of shards, which nobody gets by what it saw too long ago. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type Random, seededRandom } from '../../src/core/random.ts';
import type { HeadOutcome, MetadataStore, ShardHead } from '../../storage/metadata/metadata-store.ts';
import {
  type ContractRig,
  type ContractSettings,
  failsWith,
  rigFor,
  SHARD_COUNT,
} from './metadata-store-rig.ts';

/** What an agent saw of a head, and believes until it looks again. */
type Sighting = Pick<ShardHead, 'shard' | 'holder' | 'epoch'>;

const sightingOf = ({ shard, holder, epoch }: ShardHead): Sighting => ({ shard, holder, epoch });

export function leaseContract(settings: ContractSettings): void {
  const rig = rigFor(settings);

  it('raises the epoch for who saw the head as it is, each shard on its own', async () => {
    const { store } = rig();
    const [a, b, c] = [rig().unusedShard(), rig().unusedShard(), rig().unusedShard()];
    await store.acquireLeases(7, [{ shard: b, holder: 0, epoch: 0 }]);
    const outcomes = await store.acquireLeases(8, [
      { shard: c, holder: 0, epoch: 0 },
      { shard: b, holder: 0, epoch: 0 },
      { shard: a, holder: 0, epoch: 0 },
    ]);
    assert.deepEqual(
      outcomes.map(({ kind, head }) => [kind, head.shard, head.holder, head.epoch]),
      [
        ['done', c, 8, 1],
        ['conflict', b, 7, 1],
        ['done', a, 8, 1],
      ],
    );
    assert.deepEqual(await store.acquireLeases(8, []), []);
    assert.deepEqual(await store.releaseLeases(8, []), []);
  });

  it('refuses who saw an older holder or epoch', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    for (const seen of [
      { shard, holder: 0, epoch: 0 },
      { shard, holder: 7, epoch: 0 },
      { shard, holder: 0, epoch: 1 },
      { shard, holder: 8, epoch: 1 },
      { shard, holder: 7, epoch: 2 },
    ]) {
      const [outcome] = await store.acquireLeases(9, [seen]);
      assert.equal(outcome.kind, 'conflict');
      assert.deepEqual([outcome.head.holder, outcome.head.epoch], [7, 1]);
    }
    // The holder itself may raise it again: its restarted batching worker does.
    const [again] = await store.acquireLeases(7, [{ shard, holder: 7, epoch: 1 }]);
    assert.deepEqual([again.kind, again.head.epoch], ['done', 2]);
  });

  it('fences the former holder and keeps what it wrote', async () => {
    const { store, rival } = rig();
    const shard = await rig().freshShard();
    const entries = await rig().fill(shard, 2);
    const [taken] = await rival.acquireLeases(8, [{ shard, holder: 7, epoch: 1 }]);
    assert.deepEqual([taken.kind, taken.head.headSeq], ['done', 2]);
    assert.equal(taken.head.headCommitId, entries[1].commitId);
    const [late] = await store.appendEntries([rig().entry(shard, 3)], []);
    assert.equal(late.kind, 'conflict');
    assert.deepEqual(await rival.appendEntries([rig().entry(shard, 3, { epoch: 2 })], []), [
      { kind: 'done' },
    ]);
    const [pointer] = [await store.movePointer(shard, 1, { seq: 1, writer: 7 })];
    assert.equal(pointer.kind, 'conflict');
  });

  it('lets only the holder release, and never lowers the epoch', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    for (const [incarnation, epoch] of [
      [8, 1],
      [7, 0],
      [7, 2],
    ]) {
      const [refused] = await store.releaseLeases(incarnation, [{ shard, epoch }]);
      assert.deepEqual([refused.kind, refused.head.holder, refused.head.epoch], ['conflict', 7, 1]);
    }
    const [released] = await store.releaseLeases(7, [{ shard, epoch: 1 }]);
    assert.deepEqual([released.kind, released.head.holder, released.head.epoch], ['done', 0, 1]);
    const [twice] = await store.releaseLeases(7, [{ shard, epoch: 1 }]);
    assert.equal(twice.kind, 'conflict');
    const [next] = await store.acquireLeases(9, [{ shard, holder: 0, epoch: 1 }]);
    assert.deepEqual([next.kind, next.head.holder, next.head.epoch], ['done', 9, 2]);
    const [stale] = await store.releaseLeases(7, [{ shard, epoch: 1 }]);
    assert.deepEqual([stale.kind, stale.head.holder], ['conflict', 9]);
    const listed = (await store.listLeases())[shard];
    assert.deepEqual(listed, await store.readHead(shard));
  });

  it('gives a raced lease to one, and the epoch rises by one each time', async () => {
    const { store, rival } = rig();
    const shard = await rig().freshShard();
    let seen = { shard, holder: 7, epoch: 1 };
    for (let round = 0; round < Math.min(200, settings.raceRounds); round++) {
      const outcomes = await Promise.all([
        store.acquireLeases(10, [seen]),
        rival.acquireLeases(11, [seen]),
        store.acquireLeases(12, [seen]),
      ]);
      const won = outcomes.flat().filter(({ kind }) => kind === 'done');
      assert.equal(won.length, 1);
      const head = await rival.readHead(shard);
      assert.equal(head.epoch, seen.epoch + 1);
      assert.equal(head.holder, won[0].head.holder);
      // The winner's head is what the losers are shown, whole.
      for (const outcome of outcomes.flat()) assert.deepEqual(outcome.head, head);
      seen = { shard, holder: head.holder, epoch: head.epoch };
    }
  });

  it('either appends before a takeover or not at all', async () => {
    const { store, rival } = rig();
    for (let round = 0; round < Math.min(20, settings.raceRounds); round++) {
      const shard = await rig().freshShard();
      const [[appended], [taken]] = await Promise.all([
        store.appendEntries([rig().entry(shard, 1)], []),
        rival.acquireLeases(8, [{ shard, holder: 7, epoch: 1 }]),
      ]);
      assert.equal(taken.kind, 'done');
      assert.equal(taken.head.headSeq, appended.kind === 'done' ? 1 : 0);
      assert.equal((await store.readEntries(shard, 0, 1e9)).length, taken.head.headSeq);
    }
  });
}

export function leaseHistoryContract(settings: ContractSettings): void {
  const rig = rigFor(settings);

  it('refuses a sleeper everything it saw before, though holder and release come again', async () => {
    const { store, rival } = rig();
    const shard = rig().unusedShard();
    const seen: Sighting[] = [sightingOf(await store.readHead(shard))];
    const take = async (incarnation: number) => {
      const [outcome] = await store.acquireLeases(incarnation, [seen.at(-1)!]);
      assert.equal(outcome.kind, 'done');
      seen.push(sightingOf(outcome.head));
    };
    const release = async (incarnation: number) => {
      const [outcome] = await store.releaseLeases(incarnation, [seen.at(-1)!]);
      assert.equal(outcome.kind, 'done');
      seen.push(sightingOf(outcome.head));
    };
    // Nobody, 7, nobody, 8, 7, nobody, 7, 7: whoever looked at the holder alone would be deceived.
    await take(7);
    await release(7);
    await take(8);
    await take(7);
    await release(7);
    await take(7);
    await take(7);
    const now = await store.readHead(shard);
    assert.deepEqual([now.holder, now.epoch], [7, 5]);
    for (const old of seen.slice(0, -1)) {
      assert.deepEqual(await rival.acquireLeases(9, [old]), [{ kind: 'conflict', head: now }]);
      assert.deepEqual(await rival.acquireLeases(7, [old]), [{ kind: 'conflict', head: now }]);
      const [released] = await rival.releaseLeases(7, [{ shard, epoch: old.epoch }]);
      assert.deepEqual(released, { kind: 'conflict', head: now });
    }
    assert.deepEqual(await store.readHead(shard), now);
  });

  it('fences an append of an older epoch of the same agent, which took its shard back meanwhile', async () => {
    const { store, rival } = rig();
    const shard = await rig().freshShard();
    await rig().fill(shard, 1);
    await store.releaseLeases(7, [{ shard, epoch: 1 }]);
    const [again] = await rival.acquireLeases(7, [{ shard, holder: 0, epoch: 1 }]);
    assert.deepEqual(
      [again.kind, again.head.holder, again.head.epoch, again.head.headSeq],
      ['done', 7, 2, 1],
    );
    const stale = await store.appendEntries([rig().entry(shard, 2)], []);
    assert.deepEqual(stale, [{ kind: 'conflict', head: again.head }]);
    assert.deepEqual(await store.appendEntries([rig().entry(shard, 2, { epoch: 2 })], []), [
      { kind: 'done' },
    ]);
    assert.deepEqual(
      (await rival.readEntries(shard, 0, 1e9)).map(({ seq, epoch }) => [seq, epoch]),
      [
        [1, 1],
        [2, 2],
      ],
    );
  });

  it('takes an append of the last epoch after the release, and of no older one after the next takeover', async () => {
    const { store, rival } = rig();
    const shard = await rig().freshShard();
    await rig().fill(shard, 1);
    const [released] = await store.releaseLeases(7, [{ shard, epoch: 1 }]);
    assert.equal(released.head.headSeq, 1);
    // The epoch alone fences: what was on its way at the release lands, and whoever takes over reads it.
    const late = rig().entry(shard, 2);
    assert.deepEqual(await store.appendEntries([late], []), [{ kind: 'done' }]);
    const [taken] = await rival.acquireLeases(8, [{ shard, holder: 0, epoch: 1 }]);
    assert.deepEqual(taken, {
      kind: 'done',
      head: { ...released.head, headSeq: 2, headCommitId: late.commitId, holder: 8, epoch: 2 },
    });
    const refused = await store.appendEntries([rig().entry(shard, 3)], []);
    assert.deepEqual(refused, [{ kind: 'conflict', head: taken.head }]);
  });

  it('refuses a call that is made again, and shows by the head that the first one was done', async () => {
    const { store, rival } = rig();
    const shard = await rig().freshShard();
    const seen = { shard, holder: 7, epoch: 1 };
    await loseReply(store.acquireLeases(9, [seen]));
    const taken = await rival.readHead(shard);
    assert.deepEqual([taken.holder, taken.epoch], [9, 2]);
    assert.deepEqual(await store.acquireLeases(9, [seen]), [{ kind: 'conflict', head: taken }]);
    await loseReply(store.releaseLeases(9, [{ shard, epoch: 2 }]));
    const released = await rival.readHead(shard);
    assert.deepEqual(released, { ...taken, holder: 0 });
    const again = await store.releaseLeases(9, [{ shard, epoch: 2 }]);
    assert.deepEqual(again, [{ kind: 'conflict', head: released }]);
    assert.deepEqual(await store.readHead(shard), released);
  });

  it('answers any sequence of calls as the one rule says, and the epoch never falls', async () => {
    const { store, rival } = rig();
    const stores = [store, rival];
    for (const seed of [1, 2]) {
      const shard = rig().unusedShard();
      const walk = new LeaseWalk(rig(), await store.readHead(shard), seededRandom(seed));
      for (let step = 0; step < Math.min(150, settings.raceRounds); step++) {
        await walk.step(stores[step % 2]);
      }
      assert.deepEqual(await rival.readHead(shard), walk.head);
      // Otherwise it proves little.
      for (const [what, count] of Object.entries(walk.counts)) {
        assert(settings.raceRounds < 100 || count >= 5, `seed ${seed}: ${what} ${count} times`);
      }
    }
  });
}

/** The call happens, and its caller never hears of it. */
async function loseReply(call: Promise<readonly HeadOutcome[]>): Promise<void> {
  for (const { kind } of await call) assert.equal(kind, 'done');
}

/** Agents that do anything to one shard, by what they saw of it at any time; the head as it must be then. */
class LeaseWalk {
  head: ShardHead;
  readonly counts = { 'acquire done': 0, 'acquire conflict': 0, 'release done': 0, 'release conflict': 0 };
  readonly appends = { done: 0, conflict: 0 };
  readonly #rig: ContractRig;
  readonly #random: Random;
  readonly #seen: Sighting[];

  constructor(rig: ContractRig, head: ShardHead, random: Random) {
    this.#rig = rig;
    this.head = head;
    this.#random = random;
    this.#seen = [sightingOf(head)];
  }

  async step(store: MetadataStore): Promise<void> {
    const { shard } = this.head;
    const incarnation = 7 + this.#random.below(3);
    // Half of them know the newest.
    const isCurrent = this.#random.below(2) === 0;
    const seen = isCurrent ? sightingOf(this.head) : { ...this.#seen[this.#random.below(this.#seen.length)] };
    // No agent saw what is not yet; a store refuses it all the same.
    if (!isCurrent && this.#random.below(4) === 0) seen.epoch = this.head.epoch + 1;
    const before = this.head;
    switch (this.#random.below(3)) {
      case 0: {
        const isDone = seen.holder === before.holder && seen.epoch === before.epoch;
        if (isDone) this.head = { ...before, holder: incarnation, epoch: before.epoch + 1 };
        this.#check('acquire', isDone, await store.acquireLeases(incarnation, [seen]));
        break;
      }
      case 1: {
        const by = isCurrent && seen.holder > 0 ? seen.holder : incarnation;
        const isDone = before.holder === by && seen.epoch === before.epoch;
        if (isDone) this.head = { ...before, holder: 0 };
        this.#check('release', isDone, await store.releaseLeases(by, [{ shard, epoch: seen.epoch }]));
        break;
      }
      default: {
        const entry = this.#rig.entry(shard, before.headSeq + 1, { epoch: seen.epoch });
        const isDone = seen.epoch === before.epoch;
        if (isDone) this.head = { ...before, headSeq: entry.seq, headCommitId: entry.commitId };
        const expected = isDone ? { kind: 'done' } : { kind: 'conflict', head: before };
        assert.deepEqual(await store.appendEntries([entry], []), [expected]);
      }
    }
    assert(this.head.epoch >= before.epoch);
    this.#seen.push(sightingOf(this.head));
  }

  #check(what: 'acquire' | 'release', isDone: boolean, outcomes: HeadOutcome[]): void {
    const kind = isDone ? 'done' : 'conflict';
    assert.deepEqual(outcomes, [{ kind, head: this.head }]);
    this.counts[`${what} ${kind}`]++;
  }
}

export function manyLeasesContract(settings: ContractSettings): void {
  const rig = rigFor(settings);
  const ALL = Array.from({ length: SHARD_COUNT }, (_, shard) => shard);

  it('take and give back all shards in one call, those in conflict left as they are', async () => {
    const { store, rival } = rig();
    const isOther = (shard: number) => shard % 3 === 1;
    const others = ALL.filter(isOther).map((shard) => ({ shard, holder: 0, epoch: 0 }));
    await rival.acquireLeases(8, others);
    // In no order; the answer comes in this one.
    const asked = [...ALL].reverse();
    const outcomes = await store.acquireLeases(
      7,
      asked.map((shard) => ({ shard, holder: 0, epoch: 0 })),
    );
    const heads = await rival.listLeases();
    assert.deepEqual(
      outcomes,
      asked.map((shard) => ({ kind: isOther(shard) ? 'conflict' : 'done', head: heads[shard] })),
    );
    for (const { shard, holder, epoch } of heads) {
      assert.deepEqual([holder, epoch], [isOther(shard) ? 8 : 7, 1]);
    }
    const released = await store.releaseLeases(
      7,
      asked.map((shard) => ({ shard, epoch: 1 })),
    );
    const after = await rival.listLeases();
    assert.deepEqual(
      released,
      asked.map((shard) => ({ kind: isOther(shard) ? 'conflict' : 'done', head: after[shard] })),
    );
    assert.deepEqual(
      after,
      heads.map((head) => (isOther(head.shard) ? head : { ...head, holder: 0 })),
    );
    // Two answers, and a listing, are values of their own.
    outcomes[0].head.epoch = 99;
    after[1].epoch = 99;
    assert.equal((await store.readHead(ALL.length - 1)).epoch, 1);
  });

  it('is each shard given to one of two that want all, in opposite orders, at once', async () => {
    const { store, rival } = rig();
    for (let round = 0; round < Math.min(3, settings.raceRounds); round++) {
      const seen = (await store.listLeases()).map(sightingOf);
      const [ours, theirs] = await Promise.all([
        store.acquireLeases(10, seen),
        rival.acquireLeases(11, [...seen].reverse()),
      ]);
      theirs.reverse();
      const heads = await store.listLeases();
      for (const { shard, epoch } of seen) {
        const outcomes = [ours[shard], theirs[shard]];
        const winners = outcomes.filter(({ kind }) => kind === 'done');
        assert.equal(winners.length, 1, `shard ${shard}`);
        for (const outcome of outcomes) assert.deepEqual(outcome.head, heads[shard]);
        assert.equal(heads[shard].holder, winners[0] === ours[shard] ? 10 : 11);
        assert.equal(heads[shard].epoch, epoch + 1);
      }
    }
  });

  it('do nothing at all when one of the shards is none', async () => {
    const { store } = rig();
    const before = await store.listLeases();
    const first = sightingOf(before[0]);
    const last = sightingOf(before[SHARD_COUNT - 1]);
    const [holder, epoch] = [before[0].holder, before[0].epoch];
    for (const shard of [SHARD_COUNT, SHARD_COUNT + 1000, 2 ** 31 - 1]) {
      const none = { shard, holder: 0, epoch: 0 };
      await failsWith('shard-not-found', store.acquireLeases(12, [first, none, last]));
      await failsWith('shard-not-found', store.releaseLeases(holder, [{ shard: 0, epoch }, none]));
      await failsWith('shard-not-found', store.releaseLeases(7, [none]));
    }
    assert.deepEqual(await store.listLeases(), before);
    const outcomes = await store.acquireLeases(12, [last, first]);
    assert.deepEqual(
      outcomes.map(({ kind, head }) => [kind, head.shard]),
      [
        ['done', SHARD_COUNT - 1],
        ['done', 0],
      ],
    );
  });

  it('stop loudly at what only a bug could ask for', async () => {
    const { store } = rig();
    const [seen] = (await store.listLeases()).map(sightingOf);
    const { shard, epoch } = seen;
    await assert.rejects(store.acquireLeases(7, [seen, seen]), { name: 'AssertionError' });
    await assert.rejects(store.acquireLeases(0, [seen]), { name: 'AssertionError' });
    const lease = { shard, epoch };
    await assert.rejects(store.releaseLeases(7, [lease, lease]), { name: 'AssertionError' });
    await assert.rejects(store.releaseLeases(0, [lease]), { name: 'AssertionError' });
    assert.deepEqual(sightingOf(await store.readHead(shard)), seen);
  });

  it('pass from agent to agent at once, each epoch to one of them, and the log shows who wrote when', async () => {
    const { store, rival } = rig();
    const shards = ALL.slice(0, 4);
    const owners = new Map<string, number>();
    const agent = async (client: MetadataStore, incarnation: number, random: Random) => {
      for (let round = 0; round < Math.min(8, settings.raceRounds); round++) {
        const seen = (await client.listLeases()).slice(0, shards.length).map(sightingOf);
        for (const { kind, head } of await client.acquireLeases(incarnation, seen)) {
          if (kind === 'conflict') continue;
          const key = `${head.shard}/${head.epoch}`;
          assert(!owners.has(key), `${key} was given twice`);
          owners.set(key, incarnation);
          const { shard, epoch } = head;
          const commitId = `${incarnation}/${epoch}/${round}`;
          const entry = rig().entry(shard, head.headSeq + 1, { epoch, commitId });
          await client.appendEntries([entry], []);
          if (random.below(2) === 0) await client.releaseLeases(incarnation, [{ shard, epoch }]);
        }
      }
    };
    const before = await store.listLeases();
    await Promise.all([
      agent(store, 20, seededRandom(20)),
      agent(rival, 21, seededRandom(21)),
      agent(store, 22, seededRandom(22)),
    ]);
    for (const shard of shards) {
      const head = await store.readHead(shard);
      const epochs = [...owners.keys()].filter((key) => key.startsWith(`${shard}/`));
      // A reply that was lost for good leaves an epoch of which nobody knows.
      assert(epochs.length <= head.epoch - before[shard].epoch);
      let last = before[shard].epoch;
      for (const { epoch, commitId, seq } of await store.readEntries(shard, before[shard].headSeq, 1e9)) {
        assert(epoch > last, `seq ${seq}: an append under epoch ${epoch} after ${last}`);
        assert.equal(Number(commitId.split('/')[0]), owners.get(`${shard}/${epoch}`));
        last = epoch;
      }
      assert(epochs.length >= 2 && last > before[shard].epoch);
    }
  });
}
