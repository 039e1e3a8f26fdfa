/**
 * Whether bucket and metadata store belong together. Owns: comparing the bucket's newest stamp with the cluster's
 * row. Does not own: stamps (storage/objects/cluster-stamps), nor what fits what (src/cluster-stamp). Main thread.
 */
import type { ClusterInfo } from '../../storage/metadata/metadata-store.ts';
import { type ClusterStamp, clusterStampKey, readNewestStamp } from '../../storage/objects/cluster-stamps.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { stampFault } from '../cluster-stamp.ts';
import { StreamHouseError } from '../core/errors.ts';
import type { Finding } from './finding.ts';

/**
 * The finding if they do not; null if they do, as they do when the store is a copy on which no broker was started
 * yet. Errors: the store's own, when it does not answer.
 */
export async function checkClusterStamp(objects: ObjectStore, cluster: ClusterInfo): Promise<Finding | null> {
  const { clusterId, storeIncarnation, generation } = cluster;
  const expected = `cluster ${clusterId}, store incarnation ${storeIncarnation}, generation ${generation}`;
  const finding = (found: string, at = generation): Finding => ({
    kind: 'cluster-stamp',
    object: clusterStampKey(at),
    expected,
    found,
  });
  let stamp: ClusterStamp | null;
  try {
    stamp = await readNewestStamp(objects);
  } catch (error) {
    if (!(error instanceof StreamHouseError) || error.code !== 'corrupt-object') throw error;
    return finding(error.message);
  }
  if (stamp === null) return finding('no stamp');
  if (stampFault(stamp, cluster) === null) return null;
  const found = `cluster ${stamp.clusterId}, store incarnation ${stamp.storeIncarnation}`;
  return finding(`${found}, generation ${stamp.generation}`, stamp.generation);
}
