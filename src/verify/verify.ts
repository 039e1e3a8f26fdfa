/**
 * Verifies a whole cluster, or one topic of it. Owns: the order (shards, objects of full batches, what nobody
 * names), that a finding beside a running broker counts only if it is found a second time, the report. Does not own:
 * any single judgement. Reads only. Main thread.
 *
 *   pass 1   all shards and objects                          -> findings
 *   pass 2   only if there are any and a head moved since:     the shards and objects of the findings once more
 *            -> what both passes found
 *   orphans  bucket and rows against what the segments named
 *
 * A broker may commit, page out, move pointers, trim and delete while a pass runs, and a pass reads heads, pages
 * and objects one after the other. What it may have seen half of is gone or looks different in the second pass;
 * damage stays where it is.
 */
import type { ClusterInfo, MetadataStore, ShardHead, Topic } from '../../storage/metadata/metadata-store.ts';
import { parseObjectKey } from '../../storage/objects/object-key.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import type { Clock } from '../core/clock.ts';
import { StreamHouseError } from '../core/errors.ts';
import { shardOf } from '../core/ids.ts';
import { GROUP_CONFIG, groupOfTopic, shardsOfTopic } from '../core/shard-layout.ts';
import { type Finding, Findings, type Note, type NoteKind, Notes } from './finding.ts';
import type { ObjectCounts } from './object-check.ts';
import { checkObjects, objectName } from './object-pass.ts';
import { ObjectSet } from './object-set.ts';
import { noteOrphans } from './orphans.ts';
import { SegmentBatch } from './segment-batch.ts';
import { type MetadataCounts, walkShard } from './shard-walk.ts';
import { checkClusterStamp } from './stamp-check.ts';
import { TopicNames } from './topic-names.ts';

export type VerifyStage = 'metadata' | 'objects' | 'again' | 'orphans';

export interface VerifyParts {
  store: MetadataStore;
  objects: ObjectStore;
  cluster: ClusterInfo;
  clock: Clock;
  stop: AbortSignal;
  /** Only this topic's partitions; null: all. 'topic-not-found'. */
  topic: string | null;
  /** Decodes every record too. */
  deep: boolean;
  /** `total` null: not known. */
  progress(stage: VerifyStage, done: number, total: number | null): void;
}

export type VerifyCounts = { topics: number } & MetadataCounts &
  ObjectCounts & { objectRows: number; objectKeys: number };

export interface VerifyReport {
  findings: Finding[];
  /** All findings; `findings` has the first FINDINGS_MAX. */
  findingCount: number;
  notes: Note[];
  noteCounts: Record<NoteKind, number>;
  counts: VerifyCounts;
  /** Found once and not again: a running broker's doing. */
  passingFindings: number;
  stageMs: { metadata: number; objects: number; again: number; orphans: number };
}

const TOPICS_PAGE = 1000;

/** Errors of the stores when they do not answer; whatever they hold is a finding. */
export async function verifyCluster(parts: VerifyParts): Promise<VerifyReport> {
  return new Verification(parts).run();
}

interface Pass {
  findings: Findings;
  heads: Map<number, ShardHead>;
  named: ObjectSet;
  counts: VerifyCounts;
}

class Verification {
  readonly #parts: VerifyParts;
  readonly #stageMs = { metadata: 0, objects: 0, again: 0, orphans: 0 };
  #stage: VerifyStage = 'metadata';

  constructor(parts: VerifyParts) {
    this.#parts = parts;
  }

  async run(): Promise<VerifyReport> {
    const { topic, clock } = this.#parts;
    const first = await this.#pass(null, null);
    let { findings } = first;
    if (findings.count > 0 && (await this.#anyMoved(first.heads))) {
      this.#stage = 'again';
      const startMs = clock.monotonicMs();
      const { shards, objects } = scopeOf(findings, this.#shards(null));
      const second = await this.#pass(shards, objects);
      findings = findings.confirmedBy(second.findings);
      this.#stageMs.again = clock.monotonicMs() - startMs;
    }
    const notes = new Notes();
    if (topic === null) await this.#orphans(first, notes);
    return {
      findings: findings.list,
      findingCount: findings.count,
      notes: notes.list,
      noteCounts: notes.counts,
      counts: first.counts,
      passingFindings: first.findings.count - findings.count,
      stageMs: this.#stageMs,
    };
  }

  /** Null: all shards, all objects. */
  async #pass(shards: readonly number[] | null, only: ReadonlySet<string> | null): Promise<Pass> {
    const { store, cluster, stop } = this.#parts;
    const topics = await this.#topics();
    const names = new TopicNames(store, topics);
    const onlyTopicId = this.#parts.topic === null ? null : topics[0].topicId;
    const pass: Pass = {
      findings: new Findings(),
      heads: new Map(),
      named: new ObjectSet(),
      counts: { topics: topics.length, ...blankCounts() },
    };
    const batch = new SegmentBatch();
    const find = (finding: Finding): void => {
      const topic = finding.topicId === undefined ? undefined : names.name(finding.topicId);
      pass.findings.add(topic === undefined ? finding : { ...finding, topic });
    };
    const stamp = await checkClusterStamp(this.#parts.objects, cluster);
    if (stamp !== null) find(stamp);
    for (const topic of topics) {
      const fault = groupFault(topic, cluster);
      if (fault !== null) find(fault);
    }
    const walked = shards ?? this.#shards(onlyTopicId === null ? null : topics[0]);
    let done = 0;
    let sinceMs = this.#parts.clock.monotonicMs();
    const spent = (stage: 'metadata' | 'objects'): void => {
      const nowMs = this.#parts.clock.monotonicMs();
      if (this.#stage !== 'again') this.#stageMs[stage] += nowMs - sinceMs;
      sinceMs = nowMs;
    };
    const empty = async (): Promise<void> => {
      spent('metadata');
      await this.#checkObjects(pass, batch, only, find);
      spent('objects');
    };
    const between = async (): Promise<void> => {
      stop.throwIfAborted();
      if (batch.isFull) await empty();
    };
    for (const shard of walked) {
      const head = await walkShard(
        {
          store,
          layout: cluster,
          topics,
          names,
          onlyTopicId,
          batch,
          counts: pass.counts,
          find,
          between,
        },
        shard,
      );
      pass.heads.set(shard, head);
      this.#progress('metadata', ++done, walked.length);
    }
    await empty();
    return pass;
  }

  #progress(stage: VerifyStage, done: number, total: number | null): void {
    this.#parts.progress(this.#stage === 'again' ? 'again' : stage, done, total);
  }

  async #checkObjects(
    pass: Pass,
    batch: SegmentBatch,
    only: ReadonlySet<string> | null,
    find: (finding: Finding) => void,
  ): Promise<void> {
    const { store, objects, deep, stop } = this.#parts;
    await checkObjects(
      {
        store,
        objects,
        deep,
        stop,
        counts: pass.counts,
        find,
        named: pass.named,
        only,
        progress: (done, total) => this.#progress('objects', done, total),
      },
      batch,
    );
  }

  async #orphans(pass: Pass, notes: Notes): Promise<void> {
    const { store, objects, stop, clock } = this.#parts;
    this.#stage = 'orphans';
    const startMs = clock.monotonicMs();
    const progress = (done: number): void => this.#progress('orphans', done, null);
    const { rows, keys } = await noteOrphans({ store, objects, stop, named: pass.named, notes, progress });
    pass.counts.objectRows = rows;
    pass.counts.objectKeys = keys;
    this.#stageMs.orphans = clock.monotonicMs() - startMs;
  }

  /** All shards, or those that the topic's partitions fall to. */
  #shards(topic: Topic | null): number[] {
    const { cluster } = this.#parts;
    if (topic === null) return Array.from({ length: cluster.shardCount }, (_, shard) => shard);
    const all = shardsOfTopic(cluster, topic.topicId);
    const own = new Set<number>();
    for (let partition = 0; partition < topic.partitionCount && own.size < all.length; partition++) {
      own.add(shardOf(topic.topicId, partition, cluster));
    }
    return all.filter((shard) => own.has(shard));
  }

  async #topics(): Promise<Topic[]> {
    const { store, topic } = this.#parts;
    if (topic !== null) {
      const found = await store.getTopic(topic);
      if (found === null) throw new StreamHouseError('topic-not-found', `there is no topic ${topic}`);
      return [found];
    }
    const topics: Topic[] = [];
    for (let after: string | undefined; ; ) {
      const page = await store.listTopics({ after, limit: TOPICS_PAGE });
      topics.push(...page);
      if (page.length < TOPICS_PAGE) return topics;
      after = page[page.length - 1].name;
    }
  }

  /** Whether anything was committed, taken or trimmed since the heads were read. */
  async #anyMoved(heads: ReadonlyMap<number, ShardHead>): Promise<boolean> {
    const now = await this.#parts.store.listLeases();
    return now.some((head) => {
      const then = heads.get(head.shard);
      return then !== undefined && JSON.stringify(then) !== JSON.stringify(head);
    });
  }
}

/** A topic whose configs name another group than the one where its partitions lie. */
function groupFault({ topicId, configs }: Topic, cluster: ClusterInfo): Finding | null {
  const named: string | undefined = configs[GROUP_CONFIG];
  const own = groupOfTopic(cluster, topicId);
  if (named === undefined || named === own) return null;
  return { kind: 'topic-group', topicId, expected: `group ${own}`, found: `group ${named}` };
}

/** The shards and objects that findings are about; an object's finding without a shard may concern all. */
function scopeOf(
  findings: Findings,
  all: readonly number[],
): { shards: readonly number[]; objects: Set<string> } {
  const shards = new Set<number>();
  const objects = new Set<string>();
  let isAny = false;
  for (const { shard, object } of findings.list) {
    if (shard === undefined) isAny = true;
    else shards.add(shard);
    const id = object === undefined ? null : parseObjectKey(object);
    if (id !== null) objects.add(objectName(id));
  }
  return { shards: isAny ? all : [...shards].sort((a, b) => a - b), objects };
}

function blankCounts(): Omit<VerifyCounts, 'topics'> {
  return {
    shards: 0,
    shardsUnknown: 0,
    checkpoints: 0,
    entries: 0,
    entryBytes: 0,
    partitions: 0,
    pages: 0,
    segments: 0,
    objects: 0,
    objectBytes: 0,
    slices: 0,
    batches: 0,
    records: 0,
    compressedBatches: 0,
    objectRows: 0,
    objectKeys: 0,
  };
}
