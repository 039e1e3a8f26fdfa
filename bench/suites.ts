/** The benchmark suites by name, in the order in which they run. Owns that table only. */
import type { Suite } from './suite.ts';
import { applySuite } from './suites/apply.ts';
import { batchBuildingSuite } from './suites/batch-building.ts';
import { cockroachAppendsSuite } from './suites/cockroach-appends.ts';
import { codecsSuite } from './suites/codecs.ts';
import { dynamodbAppendsSuite } from './suites/dynamodb-appends.ts';
import { forwardingSuite } from './suites/forwarding.ts';
import { httpDoorSuite } from './suites/http-door.ts';
import { indexSuite } from './suites/index.ts';
import { metadataCacheSuite } from './suites/metadata-cache.ts';
import { metadataCallsSuites } from './suites/metadata-calls.ts';
import { objectStoreSuite } from './suites/object-store.ts';
import { planningSuite } from './suites/planning.ts';
import { postgresAppendsSuite } from './suites/postgres-appends.ts';
import { s3ObjectStoreSuite } from './suites/s3-object-store.ts';
import { sqliteAppendsSuite } from './suites/sqlite-appends.ts';
import { threadHopSuite } from './suites/thread-hop.ts';

export const SUITES: readonly Suite[] = [
  indexSuite,
  applySuite,
  codecsSuite,
  batchBuildingSuite,
  planningSuite,
  threadHopSuite,
  metadataCacheSuite,
  ...metadataCallsSuites,
  sqliteAppendsSuite,
  postgresAppendsSuite,
  cockroachAppendsSuite,
  dynamodbAppendsSuite,
  objectStoreSuite,
  s3ObjectStoreSuite,
  httpDoorSuite,
  forwardingSuite,
];
