/** A URL that has CockroachDB's code run on a PostgreSQL server, for tests and benchmarks. Owns that URL only. */
import type { PostgresServer } from './postgres-server.ts';

/** Of a store of its own, with the profile for PostgreSQL; the schema is made by whoever opens it with `migrate`. */
export function cockroachUrlOn(server: PostgresServer, settings: Record<string, string> = {}): string {
  const given = new URL(server.storeUrl());
  given.searchParams.delete('durability');
  for (const [name, value] of Object.entries({ profile: 'postgres', ...settings })) {
    given.searchParams.set(name, value);
  }
  return given.href.replace(/^postgres(ql)?:/, 'cockroachdb:');
}
