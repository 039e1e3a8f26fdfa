/**
 * What a memory store holds: plain maps and arrays, in the shape the methods need. Owns: the data and the look-up
 * structure of shards and pages. Does not own: the meaning of any call (memory-metadata-store.ts does). Several
 * stores on one thread may share one state, as several brokers share one database. Never leaves its thread.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import type {
  Agent,
  ClusterInfo,
  IndexPage,
  ListedObject,
  LogEntry,
  ShardHead,
  Topic,
} from '../metadata-store.ts';

/** One shard: its head and the entries that were not trimmed, by seq; dense once no import is under way. */
export interface MemoryShard {
  head: ShardHead;
  entries: LogEntry[];
  /** By `${seq}/${writer}`. */
  checkpoints: Map<string, { seq: number; bytes: Uint8Array }>;
}

export class MemoryMetadataState {
  cluster: ClusterInfo | null = null;
  readonly shards: MemoryShard[] = [];

  readonly topicsByName = new Map<string, Topic>();
  readonly topicsById = new Map<number, Topic>();
  readonly deletedTopics = new Map<number, Topic>();

  /** By partitionKey; each list by rising base. */
  readonly pages = new Map<number, IndexPage[]>();
  /** By incarnation, then number. */
  readonly objects = new Map<number, Map<number, ListedObject>>();
  readonly agents = new Map<string, Agent>();

  lastTopicId = 0;
  lastIncarnation = 0;
  lastProducerId = 0;

  /** Live names in byte order; null when a name came or went since. */
  #sortedNames: string[] | null = null;

  shard(shard: number): MemoryShard {
    const found = this.shards[shard];
    if (!found) throw new StreamHouseError('shard-not-found', `there is no shard ${shard}`);
    return found;
  }

  namesChanged(): void {
    this.#sortedNames = null;
  }

  sortedNames(): readonly string[] {
    this.#sortedNames ??= [...this.topicsByName.keys()].sort(compareAsBytes);
    return this.#sortedNames;
  }
}

/** Byte order of the UTF-8 forms, which is not the order of UTF-16 code units beyond the basic plane. */
export function compareAsBytes(a: string, b: string): number {
  if (a === b) return 0;
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** The first index in [0, length) for which `isAtOrAfter` holds, or length; it must hold for all after it too. */
export function firstIndex(length: number, isAtOrAfter: (index: number) => boolean): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (isAtOrAfter(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}
