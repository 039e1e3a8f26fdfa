/**
 * The metadata store's contract suite: one function over a way to open a store, the same for every backend and
 * every decorator. The groups lie in metadata-store-*.ts; each runs on a store of its own.
 */
import { describe } from 'node:test';
import { agentsContract } from './metadata-store-agents.ts';
import {
  catalogueContract,
  clusterContract,
  manyTopicsContract,
  newClusterContract,
} from './metadata-store-catalogue.ts';
import { checkpointContract, pagesContract } from './metadata-store-folds.ts';
import { leaseContract, leaseHistoryContract, manyLeasesContract } from './metadata-store-leases.ts';
import { appendContract, trimContract } from './metadata-store-log.ts';
import { importedClusterContract, importedRowsContract, scanPagesContract } from './metadata-store-moving.ts';
import { listedObjectsContract, objectsContract } from './metadata-store-objects.ts';
import type { ContractSettings } from './metadata-store-rig.ts';

/** Registers the suite under `name`. `topicCount`: how many topics the paging test makes. */
export function metadataStoreContract(
  name: string,
  settings: ContractSettings & { topicCount: number },
): void {
  describe(name, () => {
    describe('a new store', () => newClusterContract(settings));
    describe('cluster and ids', () => clusterContract(settings));
    describe('catalogue', () => catalogueContract(settings));
    describe('many topics', () => manyTopicsContract(settings, settings.topicCount));
    describe('append', () => appendContract(settings));
    describe('trim', () => trimContract(settings));
    describe('leases', () => leaseContract(settings));
    describe('leases over time', () => leaseHistoryContract(settings));
    describe('many leases', () => manyLeasesContract(settings));
    describe('pages', () => pagesContract(settings));
    describe('checkpoints', () => checkpointContract(settings));
    describe('objects', () => objectsContract(settings));
    describe('listed objects', () => listedObjectsContract(settings));
    describe('agents', () => agentsContract(settings));
    describe('imported rows', () => importedRowsContract(settings));
    describe('an imported cluster', () => importedClusterContract(settings));
    describe('scanned pages', () => scanPagesContract(settings));
  });
}
