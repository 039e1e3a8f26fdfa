/**
 * DynamoDB as a backend: `dynamodb://REGION/PREFIX?...`. Owns: which of its parts make up a store, and what opening
 * one asks of the schema. Does not own: the URL (dynamodb-url), the schema (dynamodb-migrations), the store. The
 * storing thread.
 */
import { MessageChannel } from 'node:worker_threads';
import { applyMigrations, pendingMigrations, schemaTooOld } from '../../../migrations/apply.ts';
import type { Clock } from '../../../src/core/clock.ts';
import type { Random } from '../../../src/core/random.ts';
import type { MetadataBackend } from '../metadata-backend.ts';
import { StoreCounters } from '../store-counters.ts';
import { createDynamodbClient, type DynamodbClientOptions } from './dynamodb-client.ts';
import { DynamodbMetadataStore } from './dynamodb-metadata-store.ts';
import {
  appliedMigrations,
  knownMigrations,
  type MigrationParts,
  migrationTarget,
  scalingCommands,
} from './dynamodb-migrations.ts';
import { DynamodbRequests } from './dynamodb-requests.ts';
import { parseDynamodbUrl } from './dynamodb-url.ts';

interface ConnectOptions extends DynamodbClientOptions {
  clock: Clock;
  random: Random;
  counters: StoreCounters;
  isReadOnly?: boolean;
}

/** Makes the client; nothing goes over the network yet. 'invalid-setting' for a URL that cannot be. */
export function connectDynamodb(url: string, options: ConnectOptions): MigrationParts {
  const parsed = parseDynamodbUrl(url);
  const { clock, random, counters, isReadOnly } = options;
  const client = createDynamodbClient(parsed, options);
  const requests = new DynamodbRequests({ client, place: parsed, clock, random, counters, isReadOnly });
  return { client, requests, url: parsed, clock };
}

export const dynamodbBackend: MetadataBackend = {
  // The SDK repeats nothing by itself (dynamodb-client): one that it was given is one that it sent.
  ownCount: { unit: 'requests', source: 'the broker: requests that it sent with the SDK' },

  async open(url, { role, migrate, ...options }) {
    const parts = connectDynamodb(url, { ...options, isReadOnly: role === 'reader' });
    const { requests } = parts;
    try {
      const known = knownMigrations();
      if (migrate && role === 'broker') {
        await applyMigrations(migrationTarget(parts), known);
      } else {
        const pending = pendingMigrations(requests.description, known, await appliedMigrations(requests));
        if (pending.length > 0) throw schemaTooOld(requests.description, known, pending);
      }
      return { store: new DynamodbMetadataStore(requests) };
    } catch (error) {
      await requests.close();
      throw error;
    }
  },

  async openMigrations(url, { readOnly: isReadOnly, ...options }) {
    const parts = connectDynamodb(url, { ...options, isReadOnly, counters: new StoreCounters() });
    // While a table is being created there are only timers and idle connections, neither of which keeps a process
    // alive: this does, until it is closed.
    const { port1: alive } = new MessageChannel();
    alive.ref();
    return {
      target: migrationTarget(parts),
      known: knownMigrations(),
      notes: scalingCommands(parts.url),
      async close() {
        await parts.requests.close();
        alive.close();
      },
    };
  },
};
