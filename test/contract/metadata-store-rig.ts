/**
 * What the groups of the metadata store's contract suite share: an opened store with a rival client, fresh shards
 * and entries. Every argument goes through structuredClone, so that no store can lean on a caller's identity.
 */
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { type ErrorCode, StreamHouseError } from '../../src/core/errors.ts';
import {
  callMetadataStore,
  ForwardingMetadataStore,
  type MetadataArguments,
  type MetadataMethod,
  type MetadataResult,
} from '../../storage/metadata/forwarding-metadata-store.ts';
import type { LogEntry, MetadataStore, ObjectRow } from '../../storage/metadata/metadata-store.ts';

/** A store, and another client of the same data (which may be the same one where there can only be one). */
export interface OpenedForContract {
  store: MetadataStore;
  rival: MetadataStore;
  close(): Promise<void>;
}

export interface ContractSettings {
  open(): Promise<OpenedForContract>;
  /** Rounds of the races; fewer where a commit costs an fsync. */
  raceRounds: number;
}

export const SHARD_COUNT = 64;

class CloningMetadataStore extends ForwardingMetadataStore {
  readonly description: string;
  readonly bodyBytesMax: number;
  readonly #inner: MetadataStore;

  constructor(inner: MetadataStore) {
    super();
    this.#inner = inner;
    this.description = inner.description;
    this.bodyBytesMax = inner.bodyBytesMax;
  }

  protected override forward<M extends MetadataMethod>(
    method: M,
    args: MetadataArguments<M>,
  ): Promise<MetadataResult<M>> {
    return callMetadataStore(this.#inner, method, structuredClone(args));
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}

export class ContractRig {
  readonly store: MetadataStore;
  readonly rival: MetadataStore;
  #nextShard = 0;
  #nextCommit = 0;

  constructor(opened: OpenedForContract) {
    this.store = new CloningMetadataStore(opened.store);
    this.rival = new CloningMetadataStore(opened.rival);
  }

  /** A shard that no test of the group used, held by incarnation 7 under epoch 1. */
  async freshShard(): Promise<number> {
    const shard = this.unusedShard();
    const [outcome] = await this.store.acquireLeases(7, [{ shard, holder: 0, epoch: 0 }]);
    assert.equal(outcome.kind, 'done');
    return shard;
  }

  unusedShard(): number {
    assert(this.#nextShard < SHARD_COUNT, 'the group used all shards');
    return this.#nextShard++;
  }

  entry(shard: number, seq: number, other: Partial<LogEntry> = {}): LogEntry {
    const commitId = `commit-${++this.#nextCommit}`;
    return { shard, seq, epoch: 1, commitId, body: bytesOf(`${shard}/${seq}`), ...other };
  }

  /** Appends entries 1 to `count`, bodies of `bodyBytes`. */
  async fill(shard: number, count: number, bodyBytes = 10): Promise<LogEntry[]> {
    const entries: LogEntry[] = [];
    for (let seq = 1; seq <= count; seq++) {
      const entry = this.entry(shard, seq, { body: new Uint8Array(bodyBytes).fill(seq) });
      assert.deepEqual(await this.store.appendEntries([entry], []), [{ kind: 'done' }]);
      entries.push(entry);
    }
    return entries;
  }
}

/** Opens a store for the tests of the enclosing suite, with a cluster in it, and closes it after them. */
export function rigFor(settings: ContractSettings): () => ContractRig {
  return openedRig(settings, async (rig) => {
    await rig.store.initCluster({
      clusterId: 'c-1',
      storeIncarnation: 's-1',
      shardCount: SHARD_COUNT,
      createdAtMs: 1_700_000_000_000,
    });
  });
}

/** The same with nothing in it. */
export function emptyRigFor(settings: ContractSettings): () => ContractRig {
  return openedRig(settings, async () => undefined);
}

function openedRig(
  settings: ContractSettings,
  prepare: (rig: ContractRig) => Promise<void>,
): () => ContractRig {
  let opened: OpenedForContract | undefined;
  let rig: ContractRig | undefined;
  before(async () => {
    opened = await settings.open();
    rig = new ContractRig(opened);
    await prepare(rig);
  });
  after(async () => {
    await opened?.close();
  });
  return () => {
    assert(rig, 'the store did not open');
    return rig;
  };
}

export function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

export function objectRow(incarnation: number, number: number, other: Partial<ObjectRow> = {}): ObjectRow {
  return {
    object: { incarnation, number },
    bytes: 1000,
    createdAtMs: 1_700_000_000_001,
    shards: [{ shard: 0, epoch: 1 }],
    ...other,
  };
}

/** The promise fails with exactly this code. */
export async function failsWith(code: ErrorCode, promise: Promise<unknown>): Promise<StreamHouseError> {
  try {
    await promise;
  } catch (error) {
    assert(error instanceof StreamHouseError, `expected ${code}, got ${error}`);
    assert.equal(error.code, code, error.message);
    return error;
  }
  throw new assert.AssertionError({ message: `expected ${code}, but it succeeded` });
}
