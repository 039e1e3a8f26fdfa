/**
 * Counts and checksums of what a metadata store holds, per shard and for catalogue and objects, that do not depend on
 * the order in which rows are read. Owns: what of a row counts. Does not own: reading (walk-rows). Main thread.
 */
import { createHash } from 'node:crypto';
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { type RowVisitor, walkRows, walkTopics } from './walk-rows.ts';

/** What is compared on its own; those of SHARD_GROUPS per shard. */
export const SHARD_GROUPS = ['heads', 'checkpoints', 'entries', 'pages'] as const;
export const TOPIC_GROUPS = ['topics', 'deleted topics'] as const;
export const STORE_GROUPS = [...TOPIC_GROUPS, 'objects', 'last ids'] as const;
export type DigestGroup = (typeof SHARD_GROUPS)[number] | (typeof STORE_GROUPS)[number];

const MODULUS = 1n << 64n;

/** How many rows, and the sum of their hashes: the same for the same rows in any order, and a double row counts. */
export class RowDigest {
  count = 0;
  #sum = 0n;

  /** `fields` tell the row without its body. */
  add(fields: unknown, body?: Uint8Array): void {
    const hash = createHash('sha256').update(JSON.stringify(fields));
    if (body) hash.update('\0').update(body);
    this.#sum = (this.#sum + hash.digest().readBigUInt64BE()) % MODULUS;
    this.count++;
  }

  include(other: RowDigest): void {
    this.#sum = (this.#sum + other.#sum) % MODULUS;
    this.count += other.count;
  }

  get hex(): string {
    return this.#sum.toString(16).padStart(16, '0');
  }

  equals(other: RowDigest): boolean {
    return this.count === other.count && this.#sum === other.#sum;
  }
}

/** Of a whole store. Keys: a group of the store, or `${group}/${shard}`. */
export class ClusterDigest {
  readonly #digests = new Map<string, RowDigest>();

  of(group: DigestGroup, shard?: number): RowDigest {
    const key = shard === undefined ? group : `${group}/${shard}`;
    let digest = this.#digests.get(key);
    if (!digest) this.#digests.set(key, (digest = new RowDigest()));
    return digest;
  }

  /** Of a group over all shards. */
  total(group: DigestGroup): RowDigest {
    const total = new RowDigest();
    for (const [key, digest] of this.#digests) {
      if (key === group || key.startsWith(`${group}/`)) total.include(digest);
    }
    return total;
  }

  /** The groups, and of those that are per shard the shards, in which the two differ. */
  differencesFrom(other: ClusterDigest): { group: DigestGroup; shards: number[] }[] {
    const keys = [...new Set([...this.#digests.keys(), ...other.#digests.keys()])];
    const none = new RowDigest();
    const differing = keys.filter(
      (key) => !(this.#digests.get(key) ?? none).equals(other.#digests.get(key) ?? none),
    );
    return [...SHARD_GROUPS, ...STORE_GROUPS].flatMap((group) => {
      const own = differing.filter((key) => key === group || key.startsWith(`${group}/`));
      const shards = own.flatMap((key) => (key === group ? [] : [Number(key.slice(group.length + 1))]));
      return own.length === 0 ? [] : [{ group, shards: shards.sort((a, b) => a - b) }];
    });
  }
}

/** Reads everything once. The store's errors. */
export async function digestStore(
  store: MetadataStore,
  progress: RowVisitor['progress'],
): Promise<ClusterDigest> {
  const digest = new ClusterDigest();
  await walkRows(store, {
    async heads(heads) {
      for (const { shard, headSeq, headCommitId, epoch, checkpoint, trimmedThrough } of heads) {
        const { seq, writer } = checkpoint ?? {};
        digest.of('heads', shard).add([shard, headSeq, headCommitId, epoch, seq, writer, trimmedThrough]);
      }
    },
    async lastIds({ topic, incarnation, producer }) {
      digest.of('last ids').add([topic, incarnation, producer]);
    },
    ...topicsInto(digest),
    async objects(objects) {
      for (const { object, bytes, createdAtMs, markedAtMs, shards } of objects) {
        const references = shards.map(({ shard, epoch }) => [shard, epoch]).sort(([a], [b]) => a - b);
        const { incarnation, number } = object;
        digest.of('objects').add([incarnation, number, bytes, createdAtMs, markedAtMs, references]);
      }
    },
    async checkpoint(shard, { seq, writer }, bytes) {
      digest.of('checkpoints', shard).add([shard, seq, writer], bytes);
    },
    async entries(entries) {
      for (const { shard, seq, epoch, commitId, body } of entries) {
        digest.of('entries', shard).add([shard, seq, epoch, commitId], body);
      }
    },
    async pages(pages) {
      for (const { shard, topicId, partition, baseOffset, stamp, bytes } of pages) {
        digest.of('pages', shard).add([shard, topicId, partition, baseOffset, stamp], bytes);
      }
    },
    progress,
  });
  return digest;
}

/** The groups of TOPIC_GROUPS alone. The store's errors. */
export async function digestTopics(store: MetadataStore): Promise<ClusterDigest> {
  const digest = new ClusterDigest();
  await walkTopics(store, { ...topicsInto(digest), progress: () => undefined });
  return digest;
}

function topicsInto(digest: ClusterDigest): Pick<RowVisitor, 'topics' | 'deletedTopics'> {
  return {
    async topics(topics) {
      for (const topic of topics) digest.of('topics').add(fieldsOfTopic(topic));
    },
    async deletedTopics(topics) {
      for (const topic of topics) digest.of('deleted topics').add(fieldsOfTopic(topic));
    },
  };
}

function fieldsOfTopic(topic: {
  topicId: number;
  name: string;
  partitionCount: number;
  configs: Record<string, string>;
  createdAtMs: number;
  version: number;
}): unknown[] {
  const { topicId, name, partitionCount, configs, createdAtMs, version } = topic;
  // A store need not keep the order of the configs.
  const sorted = Object.entries(configs).sort(([a], [b]) => (a < b ? -1 : 1));
  return [topicId, name, partitionCount, sorted, createdAtMs, version];
}
