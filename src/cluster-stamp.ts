/**
 * The cluster's identity, stamped in the metadata store and in the bucket. Owns: creating both stamps, and
 * refusing to start when they do not fit: "a changed config" that would show an empty store beside a full
 * bucket, another cluster's bucket, a store that was copied to another one which took over. Does not own: the
 * stamps' keys and form (storage/objects/cluster-stamps). Main thread, at start.
 *
 * The store of the bucket's newest stamp is the one in use. A store of a newer generation takes over if it descends
 * from that one: it was copied from it, or it is that very store, reopened. It claims all generations up to its own,
 * each put if absent, so that of two copies of one source the first to start wins and the other one is refused.
 */
import type { ClusterInfo, MetadataStore } from '../storage/metadata/metadata-store.ts';
import { type ClusterStamp, claimGenerations, readNewestStamp } from '../storage/objects/cluster-stamps.ts';
import type { ObjectStore } from '../storage/objects/object-store.ts';
import { openObjectStore } from '../storage/objects/open-object-store.ts';
import { RetryingObjectStore } from '../storage/objects/retrying-object-store.ts';
import type { Clock } from './core/clock.ts';
import { StreamHouseError } from './core/errors.ts';
import { withoutSecrets } from './core/printable-url.ts';
import type { Random } from './core/random.ts';
import { layoutOf, type ShardLayout } from './core/shard-layout.ts';

export interface JoinClusterParts {
  store: MetadataStore;
  /** For messages; shown without its secrets. */
  metadataUrl: string;
  objectsUrl: string;
  /** For a cluster that does not exist yet. */
  layout: ShardLayout;
  clock: Clock;
  random: Random;
}

const CLUSTER_ID_BYTES = 8;
/** An unreachable bucket is told within seconds at a start. */
const ATTEMPTS_MAX = 3;

/** Creates the cluster or joins it. 'cluster-mismatch', and what the stores fail with. */
export async function joinCluster(parts: JoinClusterParts): Promise<ClusterInfo> {
  const { store, clock, random } = parts;
  const opened = await openObjectStore(parts.objectsUrl, { clock, random });
  const objects = new RetryingObjectStore(opened, { clock, random, policy: { attemptsMax: ATTEMPTS_MAX } });
  try {
    const stamp = await readNewestStamp(objects);
    const known = await store.getCluster();
    if (!known) await checkNewStore(stamp, store, objects);
    const cluster =
      known ??
      (await store.initCluster({
        clusterId: random.hex(CLUSTER_ID_BYTES),
        storeIncarnation: random.hex(CLUSTER_ID_BYTES),
        ...layoutOf(parts.layout),
        createdAtMs: Math.max(0, Math.floor(clock.wallMs())),
      }));
    checkNotMoved(cluster, parts);
    await checkAndClaim(stamp, cluster, store, objects);
    return cluster;
  } finally {
    await objects.close();
  }
}

async function checkNewStore(
  stamp: ClusterStamp | null,
  store: MetadataStore,
  objects: ObjectStore,
): Promise<void> {
  if ((await store.listLeases()).length > 0) {
    throw mismatch(
      `the metadata store ${store.description} holds a copy that was not finished: run \`streamhouse metadata copy\` again`,
    );
  }
  if (stamp) {
    throw mismatch(
      `the metadata store ${store.description} is empty, but the objects at ${objects.description} belong to ` +
        `cluster ${stamp.clusterId}; was a setting changed?`,
    );
  }
}

function checkNotMoved({ movedTo }: ClusterInfo, { store, metadataUrl }: JoinClusterParts): void {
  if (movedTo === null) return;
  throw mismatch(
    `the metadata store ${store.description} was copied to another one (${movedTo}), which is to be used; to go on ` +
      `with this one: \`streamhouse metadata reopen --metadata ${withoutSecrets(metadataUrl)}\``,
  );
}

/** Each round either ends or has seen a newer stamp than the one before, and none may be newer than the cluster. */
async function checkAndClaim(
  found: ClusterStamp | null,
  cluster: ClusterInfo,
  store: MetadataStore,
  objects: ObjectStore,
): Promise<void> {
  for (let stamp = found; ; stamp = await readNewestStamp(objects)) {
    if (!stamp) await checkWithoutRecords(cluster, store, objects);
    const fault = stamp && stampFault(stamp, cluster);
    if (fault) throw mismatch(`the objects at ${objects.description} ${fault} (${store.description})`);
    if (stamp?.generation === cluster.generation) return;
    // Another store was quicker: its stamp decides.
    if (await claimGenerations(objects, (stamp?.generation ?? 0) + 1, cluster)) return;
  }
}

/** Why the objects are not this cluster's to use, as a verb and what follows; null if they are. */
export function stampFault(stamp: ClusterStamp, cluster: ClusterInfo): string | null {
  const { storeIncarnation: own, clusterId, copiedFrom, generation } = cluster;
  const { storeIncarnation: stamped } = stamp;
  if (stamp.clusterId !== clusterId) {
    return `belong to cluster ${stamp.clusterId}, the metadata store to cluster ${clusterId}`;
  }
  if (stamp.generation > generation) {
    return `are used by a copy of the metadata store (${stamped}, not ${own}) that was started since`;
  }
  if (stamped === own) return null;
  if (stamp.generation === generation) {
    return `belong to another incarnation of the metadata store (${stamped}, not ${own})`;
  }
  if (stamped === copiedFrom) return null;
  return `belong to the metadata store ${stamped}, and this one was copied from another (${copiedFrom})`;
}

/** The bucket has no stamp: right for a new cluster only, one in whose logs nothing stands yet. */
async function checkWithoutRecords(
  cluster: ClusterInfo,
  store: MetadataStore,
  objects: ObjectStore,
): Promise<void> {
  const heads = await store.listLeases();
  if (heads.some((head) => head.headSeq > 0 && head.checkpoint !== null)) {
    throw mismatch(
      `the objects at ${objects.description} bear no cluster stamp, but cluster ${cluster.clusterId} has records`,
    );
  }
  const rows = await store.listObjects({ limit: 1 });
  if (rows.length > 0) {
    throw mismatch(
      `the objects at ${objects.description} bear no cluster stamp, but cluster ${cluster.clusterId} has objects`,
    );
  }
}

function mismatch(message: string): StreamHouseError {
  return new StreamHouseError('cluster-mismatch', message);
}
