/**
 * The memory store as a backend: `memory:`, for tests. Owns: its URL. Does not own: the store. Each opening is a
 * store of its own.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { MetadataBackend } from '../metadata-backend.ts';
import { MemoryMetadataStore } from './memory-metadata-store.ts';

export const memoryBackend: MetadataBackend = {
  ownCount: { unit: 'calls', source: 'nobody' },

  async open(url) {
    if (url !== 'memory:') {
      throw new StreamHouseError('invalid-setting', `'${url}' has something after its colon`);
    }
    return { store: new MemoryMetadataStore() };
  },

  async openMigrations() {
    throw new StreamHouseError('invalid-setting', 'memory: has no schema to migrate');
  },
};
