/**
 * The stamps that bind a bucket to its cluster and metadata store: one object per generation of the store, put if
 * absent and never changed. Owns: their keys, their form, finding the newest, claiming generations. Does not own: who
 * may start on what (src/cluster-stamp.ts). Any thread.
 *
 *   cluster.json       generation 1, the store where the cluster was created
 *   cluster-G.json     generation G > 1, a store that the cluster was copied to (or one reopened after a copy)
 *   {"clusterId":"...","storeIncarnation":"..."}
 */
import { StreamHouseError } from '../../src/core/errors.ts';
import type { ObjectStore } from './object-store.ts';

export interface ClusterStamp {
  generation: number;
  clusterId: string;
  storeIncarnation: string;
}

/** What all stamps' keys begin with. */
const PREFIX = 'cluster';
const PATTERN = /^cluster(?:-([1-9][0-9]{0,8}))?\.json$/;
const LIST_MAX = 1000;

export function clusterStampKey(generation: number): string {
  return generation === 1 ? `${PREFIX}.json` : `${PREFIX}-${generation}.json`;
}

/** The stamp of the newest generation; null in a bucket without any. 'corrupt-object', and the store's errors. */
export async function readNewestStamp(objects: ObjectStore): Promise<ClusterStamp | null> {
  let newest = 0;
  for (let after: string | undefined; ; ) {
    const listed = await objects.list(PREFIX, { after, limit: LIST_MAX });
    for (const { key } of listed) {
      const match = PATTERN.exec(key);
      if (match) newest = Math.max(newest, Number(match[1] ?? 1));
    }
    if (listed.length < LIST_MAX) break;
    after = listed[listed.length - 1].key;
  }
  return newest === 0 ? null : readStamp(objects, newest);
}

/**
 * Puts this stamp under every generation from `first` to its own, in order: of two stores that claim, one is refused
 * at the first generation that both want, whatever their own are. false: another stamp is there. Idempotent.
 */
export async function claimGenerations(
  objects: ObjectStore,
  first: number,
  { generation, clusterId, storeIncarnation }: ClusterStamp,
): Promise<boolean> {
  const bytes = Buffer.from(`${JSON.stringify({ clusterId, storeIncarnation })}\n`);
  for (let claimed = first; claimed <= generation; claimed++) {
    try {
      await objects.put(clusterStampKey(claimed), bytes);
    } catch (error) {
      if (!(error instanceof StreamHouseError) || error.code !== 'object-exists') throw error;
      return false;
    }
  }
  return true;
}

async function readStamp(objects: ObjectStore, generation: number): Promise<ClusterStamp> {
  const key = clusterStampKey(generation);
  const bytes = await objects.get(key);
  let stamp: unknown;
  try {
    stamp = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw new StreamHouseError('corrupt-object', `${key} is not JSON`, undefined, error);
  }
  const { clusterId, storeIncarnation } = (stamp ?? {}) as Partial<ClusterStamp>;
  if (typeof clusterId !== 'string' || typeof storeIncarnation !== 'string') {
    throw new StreamHouseError('corrupt-object', `${key} is no cluster stamp`);
  }
  return { generation, clusterId, storeIncarnation };
}
