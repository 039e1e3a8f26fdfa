/**
 * One PostgreSQL for all tests of a process: started when the first asks for it, fsync off, ended after the last; and
 * one PgBouncer before it. Owns: those two. Does not own: how they start (postgres-server, pgbouncer).
 */
import { after } from 'node:test';
import { type Pgbouncer, startPgbouncer } from './pgbouncer.ts';
import { type PostgresServer, startPostgres } from './postgres-server.ts';

let server: Promise<PostgresServer> | undefined;
let bouncer: Promise<Pgbouncer> | undefined;

export function sharedPostgres(): Promise<PostgresServer> {
  server ??= startPostgres({ isDurable: false });
  return server;
}

export function sharedPgbouncer(): Promise<Pgbouncer> {
  bouncer ??= sharedPostgres().then(({ url }) => startPgbouncer(url));
  return bouncer;
}

after(async () => {
  await (await bouncer)?.stop();
  await (await server)?.stop();
});
