/**
 * The cluster's identity, stamped in the metadata store and in the bucket. Owns: creating both stamps, and
 * refusing to start when they do not fit ("a changed config" that would show an empty store beside a full
 * bucket, or another cluster's bucket). Main thread, at start.
 */
import type { ClusterInfo, MetadataStore } from '../storage/metadata/metadata-store.ts';
import { CLUSTER_STAMP_KEY } from '../storage/objects/object-key.ts';
import type { ObjectStore } from '../storage/objects/object-store.ts';
import { openObjectStore } from '../storage/objects/open-object-store.ts';
import { RetryingObjectStore } from '../storage/objects/retrying-object-store.ts';
import type { Clock } from './core/clock.ts';
import { StreamHouseError } from './core/errors.ts';
import type { Random } from './core/random.ts';

export interface JoinClusterParts {
  store: MetadataStore;
  objectsUrl: string;
  /** For a cluster that does not exist yet. */
  shardCount: number;
  clock: Clock;
  random: Random;
}

interface Stamp {
  clusterId: string;
  storeIncarnation: string;
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
    const stamp = await readStamp(objects);
    const known = await store.getCluster();
    if (!known && stamp) {
      throw new StreamHouseError(
        'cluster-mismatch',
        `the metadata store ${store.description} is empty, but the objects at ${objects.description} belong to ` +
          `cluster ${stamp.clusterId}; was a setting changed?`,
      );
    }
    const cluster =
      known ??
      (await store.initCluster({
        clusterId: random.hex(CLUSTER_ID_BYTES),
        storeIncarnation: random.hex(CLUSTER_ID_BYTES),
        shardCount: parts.shardCount,
        createdAtMs: Math.max(0, Math.floor(clock.wallMs())),
      }));
    if (stamp) checkStamp(stamp, cluster, store, objects);
    else await writeStamp(cluster, store, objects);
    return cluster;
  } finally {
    await objects.close();
  }
}

function checkStamp(stamp: Stamp, cluster: ClusterInfo, store: MetadataStore, objects: ObjectStore): void {
  if (stamp.clusterId === cluster.clusterId && stamp.storeIncarnation === cluster.storeIncarnation) return;
  const what =
    stamp.clusterId === cluster.clusterId
      ? `another incarnation of its metadata store (${stamp.storeIncarnation}, not ${cluster.storeIncarnation})`
      : `cluster ${stamp.clusterId}, not ${cluster.clusterId}`;
  throw new StreamHouseError(
    'cluster-mismatch',
    `the objects at ${objects.description} belong to ${what} of ${store.description}`,
  );
}

/** The bucket has no stamp: right for a new cluster only, one in whose logs nothing stands yet. */
async function writeStamp(cluster: ClusterInfo, store: MetadataStore, objects: ObjectStore): Promise<void> {
  const heads = await store.listLeases();
  if (heads.some((head) => head.headSeq > 0 && head.checkpoint !== null)) {
    throw new StreamHouseError(
      'cluster-mismatch',
      `the objects at ${objects.description} bear no cluster stamp, but cluster ${cluster.clusterId} has records`,
    );
  }
  const rows = await store.listObjects({ limit: 1 });
  if (rows.length > 0) {
    throw new StreamHouseError(
      'cluster-mismatch',
      `the objects at ${objects.description} bear no cluster stamp, but cluster ${cluster.clusterId} has objects`,
    );
  }
  const { clusterId, storeIncarnation } = cluster;
  const text = `${JSON.stringify({ clusterId, storeIncarnation })}\n`;
  try {
    await objects.put(CLUSTER_STAMP_KEY, Buffer.from(text));
  } catch (error) {
    // Another broker of a new cluster was first: its stamp decides.
    if (!(error instanceof StreamHouseError) || error.code !== 'object-exists') throw error;
    const stamp = await readStamp(objects);
    if (stamp) checkStamp(stamp, cluster, store, objects);
  }
}

async function readStamp(objects: ObjectStore): Promise<Stamp | null> {
  let bytes: Buffer;
  try {
    bytes = await objects.get(CLUSTER_STAMP_KEY);
  } catch (error) {
    if (error instanceof StreamHouseError && error.code === 'object-not-found') return null;
    throw error;
  }
  let stamp: unknown;
  try {
    stamp = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw new StreamHouseError('corrupt-object', `${CLUSTER_STAMP_KEY} is not JSON`, undefined, error);
  }
  const { clusterId, storeIncarnation } = (stamp ?? {}) as Partial<Stamp>;
  if (typeof clusterId !== 'string' || typeof storeIncarnation !== 'string') {
    throw new StreamHouseError('corrupt-object', `${CLUSTER_STAMP_KEY} is no cluster stamp`);
  }
  return { clusterId, storeIncarnation };
}
