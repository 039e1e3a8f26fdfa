/**
 * A metadata store with a small cluster in it, for measuring single calls: topics, agents, held shards, pages, a log,
 * a checkpoint, objects. Owns: what is in it, and steps that bring about what a call needs (outside of its measured
 * time). Does not own: the store, what is measured (store-calls).
 *
 * Whoever changes a shard has it for itself: see SHARDS_OF.
 */
import type {
  HeadOutcome,
  ListedObject,
  LogEntry,
  MetadataStore,
  ObjectRow,
} from '../../storage/metadata/metadata-store.ts';
import { encodeEntry } from '../../workers/entry-codec.ts';
import { sliceBody, upTo, WALL_MS } from '../sample-appends.ts';
import { samplePages } from '../sample-pages.ts';

export const SHARD_COUNT = 64;
export const CLUSTER = {
  clusterId: 'b',
  storeIncarnation: 'b',
  shardCount: SHARD_COUNT,
  createdAtMs: WALL_MS,
};
export const TOPICS = 100;
export const AGENTS = 8;
/** Each with PAGES_EACH full pages. */
export const PAGED_PARTITIONS = 100;
export const PAGES_EACH = 2;
/** Of the log that is read. */
export const LOG_ENTRIES = 32;
/** Slices of every entry, one KiB or so. */
const SLICES = 100;
export const CHECKPOINT_BYTES = 16_384;
export const LISTED_OBJECTS = 100;
/** What a call takes or gives that is about several. */
export const BATCH = 8;

export const SHARDS_OF = {
  appends: [0, 1, 2, 3, 4, 5, 6, 7],
  oneAppend: 8,
  log: 9,
  trim: 10,
  pointer: 11,
  checkpoints: 12,
  oldCheckpoints: 13,
  acquire: [16, 17, 18, 19, 20, 21, 22, 23],
  release: [24, 25, 26, 27, 28, 29, 30, 31],
} as const;

/** Incarnations whose objects are these. */
const LISTED = 1_000_001;
const MADE = 1_000_002;

const BODY = encodeEntry({
  shard: 0,
  seq: 1,
  epoch: 1,
  timeMs: WALL_MS,
  ...sliceBody(1, upTo(SLICES), 1),
});

/** Throws unless all of them came about: a refusal is quick, and no measure of the call. */
export function mustBeDone<T extends { kind: string }>(outcomes: readonly T[]): void {
  for (const { kind } of outcomes) if (kind !== 'done') throw new Error(`a call ended as ${kind}`);
}

export class FilledStore {
  readonly store: MetadataStore;
  /** The agents', in the order of their numbers; the first holds all shards. */
  readonly incarnations: readonly number[];
  readonly #seqs = new Array<number>(SHARD_COUNT).fill(0);
  readonly #epochs = new Array<number>(SHARD_COUNT).fill(1);
  readonly #holders: number[];
  #objectNumber = 0;

  private constructor(store: MetadataStore, incarnations: readonly number[]) {
    this.store = store;
    this.incarnations = incarnations;
    this.#holders = new Array<number>(SHARD_COUNT).fill(incarnations[0]);
  }

  static async on(store: MetadataStore): Promise<FilledStore> {
    await store.initCluster(CLUSTER);
    const agents = await Promise.all(upTo(AGENTS).map((i) => store.registerAgent(agentOf(`agent-${i}`))));
    const incarnations = agents.map(({ incarnation }) => incarnation);
    const seen = upTo(SHARD_COUNT).map((shard) => ({ shard, holder: 0, epoch: 0 }));
    mustBeDone(await store.acquireLeases(incarnations[0], seen));
    const filled = new FilledStore(store, incarnations);
    await filled.#fill();
    return filled;
  }

  async #fill(): Promise<void> {
    const { store } = this;
    await Promise.all(upTo(TOPICS).map((i) => store.createTopic(topicOf(topicName(i)))));
    const pages = upTo(PAGED_PARTITIONS).flatMap((i) => samplePages(i, PAGES_EACH, SHARD_COUNT));
    await store.putPages(pages);
    for (const _ of upTo(LOG_ENTRIES)) await this.append([SHARDS_OF.log]);
    await store.appendEntries([], objectRows(LISTED, 1, LISTED_OBJECTS, SHARDS_OF.appends));
    for (const shard of [SHARDS_OF.checkpoints, SHARDS_OF.oldCheckpoints]) {
      await this.append([shard]);
      await this.append([shard]);
      mustBeDone([await this.movePointer(shard)]);
    }
    await store.putCheckpoint(SHARDS_OF.checkpoints, this.pointer(SHARDS_OF.checkpoints), checkpoint());
  }

  /** The next entry of each of these shards, and the object that they name. */
  nextAppend(shards: readonly number[]): { entries: LogEntry[]; object: ObjectRow } {
    const entries = shards.map((shard) => {
      const seq = this.#seqs[shard] + 1;
      return { shard, seq, epoch: this.#epochs[shard], commitId: `b-${shard}-${seq}`, body: BODY };
    });
    const [object] = objectRows(this.incarnations[0], ++this.#objectNumber, 1, shards);
    return { entries, object };
  }

  async append(shards: readonly number[], next = this.nextAppend(shards)): Promise<void> {
    mustBeDone(await this.store.appendEntries(next.entries, [next.object]));
    for (const shard of shards) this.#seqs[shard]++;
  }

  /** At the end of the shard's log. */
  pointer(shard: number): { seq: number; writer: number } {
    return { seq: this.#seqs[shard], writer: this.incarnations[0] };
  }

  movePointer(shard: number): Promise<HeadOutcome> {
    return this.store.movePointer(shard, this.#epochs[shard], this.pointer(shard));
  }

  /** Leaves nothing of a log, that it does not grow while it is measured. */
  async emptyLogs(shards: readonly number[]): Promise<void> {
    for (const shard of shards) {
      mustBeDone([await this.movePointer(shard)]);
      await this.store.trim(shard, this.#seqs[shard]);
    }
  }

  async acquire(shards: readonly number[]): Promise<void> {
    const seen = shards.map((shard) => ({ shard, holder: this.#holders[shard], epoch: this.#epochs[shard] }));
    mustBeDone(await this.store.acquireLeases(this.incarnations[0], seen));
    for (const shard of shards) {
      this.#epochs[shard]++;
      this.#holders[shard] = this.incarnations[0];
    }
  }

  async release(shards: readonly number[]): Promise<void> {
    const leases = shards.map((shard) => ({ shard, epoch: this.#epochs[shard] }));
    mustBeDone(await this.store.releaseLeases(this.incarnations[0], leases));
    for (const shard of shards) this.#holders[shard] = 0;
  }

  /** Rows of new objects that these shards refer to. */
  async makeObjects(shards: readonly number[]): Promise<ObjectRow[]> {
    const rows = objectRows(MADE, this.#objectNumber + 1, BATCH, shards);
    this.#objectNumber += BATCH;
    await this.store.appendEntries([], rows);
    return rows;
  }
}

export function topicName(i: number): string {
  return `a-topic-${String(i % TOPICS).padStart(3, '0')}`;
}

export function topicOf(name: string) {
  return { name, partitionCount: 1_000, configs: { 'retention.ms': '86400000' }, createdAtMs: WALL_MS };
}

export function agentOf(agentId: string) {
  const place = { zone: 'z', group: 'g', version: '1', registeredAtMs: WALL_MS };
  return { agentId, address: '127.0.0.1:9000', ...place };
}

export function checkpoint(): Uint8Array {
  return Buffer.alloc(CHECKPOINT_BYTES, 'checkpoint');
}

/** The objects that are listed, the first of them first. */
export function listedObject(i: number): ListedObject['object'] {
  return { incarnation: LISTED, number: 1 + (i % LISTED_OBJECTS) };
}

function objectRows(
  incarnation: number,
  firstNumber: number,
  count: number,
  shards: readonly number[],
): ObjectRow[] {
  return upTo(count).map((i) => ({
    object: { incarnation, number: firstNumber + i },
    bytes: 1_000_000,
    createdAtMs: WALL_MS,
    shards: shards.map((shard) => ({ shard, epoch: 1 })),
  }));
}
