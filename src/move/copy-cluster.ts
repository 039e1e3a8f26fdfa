/**
 * Copies a cluster's metadata into another store. Owns: the order of the steps, so that a crash between any two is
 * mended by running the command again and never two stores can be started. Does not own: opening the stores and their
 * schema (src/cli/metadata), how a broker refuses a store (src/cluster-stamp). Main thread.
 *
 *   look     the target holds no cluster, no broker runs on the source
 *   copy     all rows, over what an earlier run left
 *   verify   everything read back from both stores: counts and checksums
 *   mark     the source is moved: no broker starts on it any more           (a crash from here on leaves both
 *   fence    all epochs of the source are raised; its heads are as verified  closed: run it again, or reopen)
 *   open     the target's cluster row, of the next generation: brokers start on it
 *
 * A source that is marked belongs to the one target that the mark names, for the copy may be open there: the mark,
 * which is the copy's new store incarnation, ends with a hash of the target's description.
 */
import { createHash } from 'node:crypto';
import type {
  ClusterInfo,
  LastIds,
  MetadataStore,
  ShardHead,
} from '../../storage/metadata/metadata-store.ts';
import { AGENT_WATCH_MS, findLiveAgent } from '../agent/live-agents.ts';
import type { Clock } from '../core/clock.ts';
import { StreamHouseError } from '../core/errors.ts';
import type { Random } from '../core/random.ts';
import { fenceSource } from './fence-source.ts';
import { PatientStore } from './patient-store.ts';
import { type ClusterDigest, digestStore, digestTopics, TOPIC_GROUPS } from './row-digest.ts';
import { type MoveStage, walkRows } from './walk-rows.ts';

export type MovePhase = 'copying' | 'verifying the source' | 'verifying the copy';

export interface CopyParts {
  source: MetadataStore;
  target: MetadataStore;
  /** No broker can run on the source: whoever opened it has it alone. */
  ownsSource: boolean;
  /** Does not look whether brokers are alive. What they write meanwhile is found all the same. */
  force: boolean;
  /** A rehearsal: ends after the verification. The source stays in use, the target without a cluster. */
  keepSource: boolean;
  clock: Clock;
  random: Random;
  stop: AbortSignal;
  say(line: string): void;
  progress(phase: MovePhase, stage: MoveStage, done: number, total: number | null): void;
}

export interface CopyReport {
  source: ClusterDigest;
  target: ClusterDigest;
  /** Where the two differ: nothing was opened then. */
  differences: ReturnType<ClusterDigest['differencesFrom']>;
  /** The target's cluster; null after a rehearsal or with differences. */
  opened: ClusterInfo | null;
}

/**
 * 'conflict' over a target that holds a cluster, beside live brokers, and when the source was written to meanwhile;
 * 'cluster-mismatch' for a source that was moved elsewhere; else the stores' errors.
 */
export async function copyCluster(parts: CopyParts): Promise<CopyReport> {
  const { stop, progress } = parts;
  const source = new PatientStore(parts.source, parts);
  const target = new PatientStore(parts.target, parts);
  const cluster = await checkedSource(source, target);
  await checkTarget(cluster, source, target);
  if (!parts.force && !parts.ownsSource) await checkNoneAlive(source, parts);

  const copied = await copyRows(source, target, (...step) => progress('copying', ...step));
  const digests = {
    source: await digestStore(source, (...step) => progress('verifying the source', ...step)),
    target: await digestStore(target, (...step) => progress('verifying the copy', ...step)),
  };
  const differences = digests.source.differencesFrom(digests.target);
  if (differences.length > 0 || parts.keepSource) return { ...digests, differences, opened: null };

  stop.throwIfAborted();
  const verified = { ...copied, digest: digests.source, movedTo: cluster.movedTo };
  return { ...digests, differences, opened: await openCopy(parts, verified) };
}

/** Mark, fence, open: some calls in a row, which only a crash ends midway, and not a wish to stop. */
async function openCopy(parts: CopyParts, verified: Verified): Promise<ClusterInfo> {
  const { clock, random } = parts;
  const goOn = { clock, random, stop: new AbortController().signal };
  const source = new PatientStore(parts.source, goOn);
  const target = new PatientStore(parts.target, goOn);
  const storeIncarnation = `${random.hex(8)}-${hashOf(target.description)}`;
  // Of two copies of one source, whichever began first, only one marks it and opens.
  const moved = await source.setMovedTo(storeIncarnation, verified.movedTo);
  const fenced = await fenceSource({ store: source, clock, random });
  const lastIds = await source.getLastIds();
  const changed = [...changedHeads(verified, fenced), ...(await changedTopics(verified, lastIds, source))];
  if (changed.length > 0) {
    await source.setMovedTo(null, storeIncarnation);
    throw new StreamHouseError(
      'conflict',
      `${source.description} was written to during the copy (${changed.join(', ')}): stop all brokers and copy again`,
    );
  }
  // Ids that were given since, if only to those who will be refused, are given to nobody else.
  await target.importRows({ lastIds });
  const opened: ClusterInfo = {
    ...moved,
    storeIncarnation,
    generation: moved.generation + 1,
    copiedFrom: moved.storeIncarnation,
    movedTo: null,
  };
  await target.importCluster(opened);
  return opened;
}

function hashOf(description: string): string {
  return createHash('sha256').update(description).digest('hex').slice(0, 8);
}

/** 'conflict' if any broker shows a sign of life while one watches. */
async function checkNoneAlive(store: MetadataStore, { clock, stop, say }: CopyParts): Promise<void> {
  let hasWatched = false;
  const alive = await findLiveAgent(store, clock, {
    stop,
    watching(agents) {
      hasWatched = true;
      const names = agents.map(({ agentId }) => agentId).join(', ');
      say(
        `brokers are registered in ${store.description} (${names}): watching for ${AGENT_WATCH_MS / 1000} s ` +
          'whether one is alive',
      );
    },
  });
  if (alive) {
    throw new StreamHouseError(
      'conflict',
      `broker ${alive.agentId} (${alive.address}) runs on ${store.description}: stop all brokers first`,
    );
  }
  if (hasWatched) say('none of them is');
}

async function checkedSource(source: MetadataStore, target: MetadataStore): Promise<ClusterInfo> {
  const cluster = await source.getCluster();
  if (!cluster) throw new StreamHouseError('conflict', `${source.description} holds no cluster`);
  checkMovedNowhereElse(cluster, source.description, target.description);
  return cluster;
}

/** 'cluster-mismatch' for a source that is marked as moved to another target than this one. */
export function checkMovedNowhereElse({ movedTo }: ClusterInfo, source: string, target: string): void {
  if (movedTo === null || movedTo.endsWith(`-${hashOf(target)}`)) return;
  throw new StreamHouseError(
    'cluster-mismatch',
    `${source} was copied to another store already (${movedTo}): copy from that one, or give it up with ` +
      '`streamhouse metadata reopen` on this one',
  );
}

async function checkTarget(
  cluster: ClusterInfo,
  source: MetadataStore,
  target: MetadataStore,
): Promise<void> {
  const present = await target.getCluster();
  if (!present) return;
  const isCopy = present.clusterId === cluster.clusterId && present.copiedFrom === cluster.storeIncarnation;
  const what = isCopy
    ? `the finished copy of ${source.description}: start brokers on it`
    : `cluster ${present.clusterId} (generation ${present.generation}): copy into an empty store`;
  throw new StreamHouseError('conflict', `${target.description} holds ${what}`);
}

interface Position {
  heads: ShardHead[];
  lastIds: LastIds;
}

interface Verified extends Position {
  /** Of the source, after the copy was made. */
  digest: ClusterDigest;
  /** The mark that was seen before. */
  movedTo: string | null;
}

/** Everything, in an order that each store takes; where the source stood. */
async function copyRows(
  source: MetadataStore,
  target: MetadataStore,
  progress: (stage: MoveStage, done: number, total: number | null) => void,
): Promise<Position> {
  const copied: Position = { heads: [], lastIds: { topic: 0, incarnation: 0, producer: 0 } };
  await walkRows(source, {
    async heads(heads) {
      copied.heads.push(...heads);
      await target.importRows({ heads });
    },
    async lastIds(lastIds) {
      copied.lastIds = lastIds;
      await target.importRows({ lastIds });
    },
    topics: (topics) => target.importRows({ topics }),
    deletedTopics: (deletedTopics) => target.importRows({ deletedTopics }),
    objects: (objects) => target.importRows({ objects }),
    checkpoint: (shard, pointer, bytes) => target.putCheckpoint(shard, pointer, bytes),
    entries: (entries) => target.importRows({ entries }),
    pages: (pages) => target.putPages(pages),
    progress,
  });
  return copied;
}

/** Shards to which something was committed between copy and fence. */
function changedHeads({ heads }: Position, fenced: readonly ShardHead[]): string[] {
  const position = ({ headSeq, headCommitId, checkpoint, trimmedThrough }: ShardHead): string =>
    JSON.stringify([headSeq, headCommitId, checkpoint?.seq, checkpoint?.writer, trimmedThrough]);
  return fenced
    .filter((head, i) => position(head) !== position(heads[i]))
    .map(({ shard }) => `shard ${shard}`);
}

/** The catalogue has no head to compare: it is read again. 'topics' if any was created, changed or deleted. */
async function changedTopics(
  { lastIds, digest }: Verified,
  { topic }: LastIds,
  source: MetadataStore,
): Promise<string[]> {
  if (topic !== lastIds.topic) return ['topics'];
  const now = await digestTopics(source);
  const isSame = TOPIC_GROUPS.every((group) => now.of(group).equals(digest.of(group)));
  return isSame ? [] : ['topics'];
}
