/** A URL that has CockroachDB's code run on a PostgreSQL server, for tests and benchmarks. Owns that URL only. */

/** Of the store that a PostgreSQL URL names, with the profile for PostgreSQL; made by whoever opens it with `migrate`. */
export function cockroachUrlOn(postgresUrl: string, settings: Record<string, string> = {}): string {
  const given = new URL(postgresUrl);
  given.searchParams.delete('durability');
  for (const [name, value] of Object.entries({ profile: 'postgres', ...settings })) {
    given.searchParams.set(name, value);
  }
  return given.href.replace(/^postgres(ql)?:/, 'cockroachdb:');
}
