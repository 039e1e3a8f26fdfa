/**
 * Takes a store back into use after it was copied to another one. Owns: that this is a generation of its own, so that
 * of this store and the copy the first to start on the bucket wins, and the other is refused from then on. Does not
 * own: that refusal (src/cluster-stamp). Main thread.
 */
import type { ClusterInfo, MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { readNewestStamp } from '../../storage/objects/cluster-stamps.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { stampFault } from '../cluster-stamp.ts';
import { StreamHouseError } from '../core/errors.ts';

/**
 * The cluster as it is from now on; null if the store was not marked as moved. `objects`: the cluster's, to see
 * whether the copy was started (null: nobody looks, and a broker will be refused at its start instead).
 * 'cluster-mismatch' if it was; 'conflict' without a cluster.
 */
export async function reopenStore(
  store: MetadataStore,
  objects: ObjectStore | null,
): Promise<ClusterInfo | null> {
  const cluster = await store.getCluster();
  if (!cluster) throw new StreamHouseError('conflict', `${store.description} holds no cluster`);
  if (cluster.movedTo === null) return null;
  const stamp = objects && (await readNewestStamp(objects));
  const fault = stamp && stampFault(stamp, cluster);
  if (objects && fault) {
    throw new StreamHouseError(
      'cluster-mismatch',
      `the objects at ${objects.description} ${fault}: copy that one back instead, into an empty store`,
    );
  }
  const reopened: ClusterInfo = { ...cluster, generation: cluster.generation + 1, movedTo: null };
  await store.importCluster(reopened);
  return reopened;
}
