/**
 * A metadata store whose calls are timed into this thread's shared counters. Owns: which method counts where.
 * Does not own: the calls. Any thread.
 */
import type { Clock } from '../src/core/clock.ts';
import type { MetadataMethod } from '../storage/metadata/forwarding-metadata-store.ts';
import { InstrumentedMetadataStore } from '../storage/metadata/instrumented-metadata-store.ts';
import type { MetadataStore } from '../storage/metadata/metadata-store.ts';
import type { HistogramName, ThreadCounters } from './shared-counters.ts';

const HISTOGRAM_OF: Record<MetadataMethod, HistogramName> = {
  initCluster: 'metadataOtherMs',
  getCluster: 'metadataOtherMs',
  createTopic: 'metadataCatalogueMs',
  getTopic: 'metadataCatalogueMs',
  getTopicsById: 'metadataCatalogueMs',
  listTopics: 'metadataCatalogueMs',
  growTopic: 'metadataCatalogueMs',
  alterTopic: 'metadataCatalogueMs',
  deleteTopic: 'metadataCatalogueMs',
  listDeletedTopics: 'metadataCatalogueMs',
  forgetDeletedTopic: 'metadataCatalogueMs',
  appendEntries: 'metadataAppendEntriesMs',
  readEntries: 'metadataReadEntriesMs',
  readHead: 'metadataReadHeadMs',
  trim: 'metadataCheckpointMs',
  putPages: 'metadataPutPagesMs',
  findPages: 'metadataFindPagesMs',
  listPages: 'metadataFindPagesMs',
  deletePages: 'metadataPutPagesMs',
  putCheckpoint: 'metadataCheckpointMs',
  getCheckpoint: 'metadataCheckpointMs',
  movePointer: 'metadataCheckpointMs',
  deleteOldCheckpoints: 'metadataCheckpointMs',
  getObjects: 'metadataOtherMs',
  listObjects: 'metadataOtherMs',
  dropReferences: 'metadataOtherMs',
  markObjects: 'metadataOtherMs',
  forgetObjects: 'metadataOtherMs',
  registerAgent: 'metadataOtherMs',
  heartbeat: 'metadataOtherMs',
  getAgent: 'metadataOtherMs',
  listAgents: 'metadataOtherMs',
  deregisterAgent: 'metadataOtherMs',
  acquireLeases: 'metadataLeasesMs',
  releaseLeases: 'metadataLeasesMs',
  listLeases: 'metadataReadHeadMs',
  allocateProducerIds: 'metadataOtherMs',
  getLastIds: 'metadataOtherMs',
  scanPages: 'metadataFindPagesMs',
  importRows: 'metadataOtherMs',
  importCluster: 'metadataOtherMs',
  setMovedTo: 'metadataOtherMs',
};

/** `store` with every call counted. */
export function countedMetadata(store: MetadataStore, clock: Clock, counters: ThreadCounters): MetadataStore {
  return new InstrumentedMetadataStore(store, clock, (method, outcome, ms) => {
    counters.observe(HISTOGRAM_OF[method], ms);
    if (outcome !== 'ok') counters.add('metadataErrorsTotal');
  });
}
