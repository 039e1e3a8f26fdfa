/**
 * Whether bucket and metadata store belong together. Owns: comparing the bucket's stamp with the cluster's row.
 * Does not own: making stamps (cluster-stamp.ts). Main thread.
 */
import type { ClusterInfo } from '../../storage/metadata/metadata-store.ts';
import { CLUSTER_STAMP_KEY } from '../../storage/objects/object-key.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { StreamHouseError } from '../core/errors.ts';
import type { Finding } from './finding.ts';

/** The finding if they do not; null if they do. Errors: the store's own, when it does not answer. */
export async function checkClusterStamp(
  objects: ObjectStore,
  { clusterId, storeIncarnation }: ClusterInfo,
): Promise<Finding | null> {
  const expected = `cluster ${clusterId}, store incarnation ${storeIncarnation}`;
  const finding = (found: string): Finding => ({
    kind: 'cluster-stamp',
    object: CLUSTER_STAMP_KEY,
    expected,
    found,
  });
  let text: string;
  try {
    text = (await objects.get(CLUSTER_STAMP_KEY)).toString('utf8');
  } catch (error) {
    if (!(error instanceof StreamHouseError) || error.code !== 'object-not-found') throw error;
    return finding('no stamp');
  }
  try {
    const stamp = (JSON.parse(text) ?? {}) as Record<string, unknown>;
    if (stamp.clusterId === clusterId && stamp.storeIncarnation === storeIncarnation) return null;
    return finding(`cluster ${stamp.clusterId}, store incarnation ${stamp.storeIncarnation}`);
  } catch {
    return finding('no JSON');
  }
}
