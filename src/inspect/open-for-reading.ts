/**
 * Opens a cluster's stores to look at what they hold. Owns: the reader's role (nothing is created or migrated, a
 * broker may run beside it), and refusing folders and clusters that are not there. Does not own: the settings
 * that name the stores. Main thread.
 */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { ClusterInfo, MetadataStore } from '../../storage/metadata/metadata-store.ts';
import { openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { openObjectStore } from '../../storage/objects/open-object-store.ts';
import { RetryingObjectStore } from '../../storage/objects/retrying-object-store.ts';
import type { Clock } from '../core/clock.ts';
import { StreamHouseError } from '../core/errors.ts';
import type { Random } from '../core/random.ts';

/** A metadata store that holds a cluster, for reading. */
export interface MetadataForReading {
  store: MetadataStore;
  cluster: ClusterInfo;
  close(): Promise<void>;
}

/** 'invalid-setting' if there is no store, or no cluster in it; else the backend's errors. */
export async function openMetadataForReading(url: string): Promise<MetadataForReading> {
  const opened = await openMetadata(url, { role: 'reader' });
  try {
    const cluster = await opened.store.getCluster();
    if (cluster === null) {
      throw new StreamHouseError(
        'invalid-setting',
        `the metadata store ${opened.store.description} holds no cluster: no broker was ever started on it`,
      );
    }
    return { store: opened.store, cluster, close: () => opened.close() };
  } catch (error) {
    await opened.close();
    throw error;
  }
}

/** With retries. 'invalid-setting' for a URL that cannot be and for a directory that is not there. */
export async function openObjectsForReading(url: string, clock: Clock, random: Random): Promise<ObjectStore> {
  const directory = directoryOf(url);
  if (directory !== null && !existsSync(directory)) {
    throw new StreamHouseError('invalid-setting', `object store: there is no folder ${directory}`);
  }
  return new RetryingObjectStore(await openObjectStore(url, { clock, random }), { clock, random });
}

/** The directory of a file: URL; null for other URLs and for those that the store itself refuses. */
function directoryOf(url: string): string | null {
  if (!url.startsWith('file:')) return null;
  const rest = url.slice('file:'.length);
  if (!rest.startsWith('//')) return rest === '' ? null : rest;
  try {
    return fileURLToPath(url);
  } catch {
    return null;
  }
}
