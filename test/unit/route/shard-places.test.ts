/** Where a shard's requests go, and the races around it: over real caches and a store in memory; time turned by hand. */
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { oneGroup } from '../../../src/core/shard-layout.ts';
import { type ShardPlace, ShardPlaces } from '../../../src/route/shard-places.ts';
import { CachedMetadataStore } from '../../../storage/metadata/cached-metadata-store.ts';
import type { MetadataMethod } from '../../../storage/metadata/forwarding-metadata-store.ts';
import { MemoryMetadataState } from '../../../storage/metadata/memory/memory-metadata-state.ts';
import { MemoryMetadataStore } from '../../../storage/metadata/memory/memory-metadata-store.ts';
import { FaultyMetadataStore } from '../../support/faulty-metadata-store.ts';
import { ManualClock, turn } from '../../support/manual-clock.ts';

const SHARDS = 4;

let clock: ManualClock;
let store: FaultyMetadataStore;
let cached: CachedMetadataStore;
/** Another broker's view of the same data. */
let other: MemoryMetadataStore;
let places: ShardPlaces;
let held: Map<number, number>;
let own: number;

const none = () => undefined;
const observer = { hit: none, miss: none, eviction: none, staleFill: none, drop: none };

beforeEach(async () => {
  clock = new ManualClock();
  const state = new MemoryMetadataState();
  store = new FaultyMetadataStore(new MemoryMetadataStore(state));
  other = new MemoryMetadataStore(state);
  cached = new CachedMetadataStore(store, { clock, observer, layout: oneGroup(SHARDS) });
  await other.initCluster({ clusterId: 'c', storeIncarnation: 's', ...oneGroup(SHARDS), createdAtMs: 1 });
  held = new Map();
  own = await register('own');
  places = new ShardPlaces({
    store: cached,
    clock,
    shardCount: SHARDS,
    epochHere: (shard) => held.get(shard),
    incarnation: () => own,
  });
});

async function register(agentId: string): Promise<number> {
  const agent = { agentId, address: `${agentId}:80`, zone: 'z', group: 'g', version: '1', registeredAtMs: 1 };
  return (await other.registerAgent(agent)).incarnation;
}

async function take(shard: number, incarnation: number): Promise<number> {
  const { holder, epoch } = await other.readHead(shard);
  const [outcome] = await other.acquireLeases(incarnation, [{ shard, holder, epoch }]);
  assert.equal(outcome.kind, 'done');
  return epoch + 1;
}

async function release(shard: number): Promise<void> {
  const { holder, epoch } = await other.readHead(shard);
  await other.releaseLeases(holder, [{ shard, epoch }]);
}

function calls(method: MetadataMethod): number {
  return store.calls.filter((call) => call.method === method).length;
}

/** A search, and what became of it so far. */
function search(
  shard: number,
  waitMs: number,
): { place: ShardPlace | null; code: string | null; done: boolean } {
  const found = { place: null as ShardPlace | null, code: null as string | null, done: false };
  places.find(shard, waitMs).then(
    (place) => Object.assign(found, { place, done: true }),
    (error) => Object.assign(found, { code: error.code, done: true }),
  );
  return found;
}

function holderOf(place: ShardPlace | null): string | undefined {
  return place?.kind === 'peer' ? place.peer.agentId : place?.kind;
}

describe('the place of a shard', () => {
  it('is here while it is held, whatever the leases say', async () => {
    held.set(1, 5);
    assert.deepEqual(places.place(1), { kind: 'here' });
    assert.equal(places.isHere(1), true);
    assert.deepEqual(await places.find(1, 0), { kind: 'here' });
    assert.equal(calls('listLeases'), 0);
  });

  it('is another broker with its address, the same object as long as the lease is', async () => {
    const peer = await register('b');
    await take(0, peer);
    const found = await places.find(0, 1000);
    assert.equal(found.kind, 'peer');
    assert.deepEqual(found.kind === 'peer' && found.peer, {
      agentId: 'b',
      incarnation: peer,
      address: 'b:80',
      zone: 'z',
    });
    assert.equal(places.place(0), found);
    assert.equal(places.place(0), found);
    await take(0, peer);
    await cached.refreshLeases();
    assert.notEqual(places.place(0), found);
    assert.equal(holderOf(places.place(0)), 'b');
  });

  it('is unknown where our own lease is not served: being taken, or being handed over', async () => {
    await take(0, own);
    await cached.refreshLeases();
    assert.equal(places.place(0).kind, 'unknown');
    const found = search(0, 1000);
    await clock.pass(500);
    assert.equal(found.done, false);
    // The agent loop takes it meanwhile.
    held.set(0, 1);
    places.changed(0);
    await turn();
    assert.deepEqual(found.place, { kind: 'here' });
    assert.equal(places.waiting, 0);
  });

  it('is unknown where its holder is registered no more, until another one takes it', async () => {
    const dead = await register('dead');
    await take(0, dead);
    await other.deregisterAgent('dead', dead);
    const found = search(0, 5000);
    await clock.pass(1000);
    assert.equal(found.done, false);
    await take(0, await register('heir'));
    await clock.pass(300);
    assert.equal(holderOf(found.place), 'heir');
  });

  it('is found after a handover without another request', async () => {
    const first = await register('first');
    await take(2, first);
    assert.equal(holderOf(await places.find(2, 1000)), 'first');
    await release(2);
    places.refused(places.place(2));
    assert.equal(places.place(2).kind, 'unknown');
    const found = search(2, 5000);
    await clock.pass(200);
    assert.equal(found.done, false);
    await take(2, await register('second'));
    await clock.pass(200);
    assert.equal(holderOf(found.place), 'second');
  });

  it('of a broker that restarted is the new one, once it took the shard', async () => {
    await take(0, await register('b'));
    const before = await places.find(0, 1000);
    const again = await register('b');
    places.refused(before);
    await take(0, again);
    const found = search(0, 5000);
    await clock.pass(200);
    assert.equal(found.place?.kind === 'peer' && found.place.peer.incarnation, again);
  });
});

describe('a refusal', () => {
  it('counts only until a look that began after it confirms the lease', async () => {
    await take(0, await register('b'));
    const place = await places.find(0, 1000);
    places.refused(place);
    assert.equal(places.place(0).kind, 'unknown');
    const found = search(0, 1000);
    await clock.pass(150);
    assert.equal(holderOf(found.place), 'b');
  });

  it('under an old lease changes nothing', async () => {
    const first = await register('first');
    await take(0, first);
    const old = await places.find(0, 1000);
    await take(0, await register('second'));
    await cached.refreshLeases();
    const found = search(0, 1000);
    await clock.pass(200);
    assert.equal(holderOf(found.place), 'second');
    places.refused(old);
    assert.equal(holderOf(places.place(0)), 'second');
  });

  it('that comes while a look is on its way is not overcome by it', async () => {
    await take(0, await register('b'));
    const place = await places.find(0, 1000);
    const { promise, resolve } = Promise.withResolvers<void>();
    store.inject({ on: 'listLeases', effect: { kind: 'delay', after: promise }, times: 1 });
    const refresh = cached.refreshLeases();
    await turn();
    places.refused(place);
    resolve();
    await refresh;
    assert.equal(places.place(0).kind, 'unknown');
  });

  it('of what is here changes nothing', () => {
    held.set(0, 1);
    places.refused({ kind: 'here' });
    places.refused({ kind: 'unknown' });
    assert.equal(places.isHere(0), true);
  });
});

describe('who waits for a place', () => {
  it('gives up in time, as not-leader', async () => {
    const found = search(0, 700);
    await clock.pass(699);
    assert.equal(found.done, false);
    await clock.pass(2);
    assert.equal(found.code, 'not-leader');
    assert.equal(places.waiting, 0);
    await clock.pass(5000);
    assert.equal(clock.waiting, 0, 'nobody looks for nobody');
  });

  it('shares its looks, ten a second, with all who wait for any shard', async () => {
    const found = Array.from({ length: 400 }, (_, i) => search(i % SHARDS, 2000));
    await clock.pass(1000);
    assert.ok(calls('listLeases') <= 12, `${calls('listLeases')} reads in a second`);
    assert.ok(calls('listAgents') <= 12, `${calls('listAgents')} reads in a second`);
    await clock.pass(1100);
    assert.ok(found.every(({ code }) => code === 'not-leader'));
  });

  it('outlives a store that does not answer for a while', async () => {
    store.inject({ on: 'listLeases', effect: { kind: 'error-before' }, times: 3 });
    await take(0, await register('b'));
    const found = search(0, 2000);
    await clock.pass(1000);
    assert.equal(holderOf(found.place), 'b');
  });

  it('is not forgotten when the shard comes and goes between', async () => {
    const found = search(0, 5000);
    await clock.pass(10);
    held.set(0, 1);
    places.changed(0);
    held.delete(0);
    await turn();
    assert.equal(found.done, false, 'it is not here any more');
    held.set(0, 2);
    places.changed(0);
    await turn();
    assert.deepEqual(found.place, { kind: 'here' });
  });
});
