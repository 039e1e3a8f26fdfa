/**
 * Statements as PostgreSQL counts them. Owns: which of the server's two counts is read, its delay, and taking off what
 * this asked itself. Does not own: the URL's meaning (a backend's). For tools; any thread.
 *
 *   pg_stat_statements  `calls` of the database, where the extension is created there and counts: exact and at once
 *   pg_stat_database    transactions that were committed or rolled back, else. A server process adds its own when a
 *                       transaction of its ends over 1 s after it last did so, or when it has been idle for 10 s: so
 *                       both ends of a count wait for that, and have in them what the database was asked meanwhile.
 *                       Transactions that touch no table may be told later still: no call of a store is one
 *
 * One connection, kept from `start` to `close`: each of its statements is one of either count, so that what it sent
 * between its two looks is what has to come off.
 */
import pg from 'pg';
import { type Clock, sleep } from '../../../src/core/clock.ts';
import type { DatabaseCounter, StatementCount } from '../database-counter.ts';
import type { PgUrl } from './pg-url.ts';
import { quoteIdentifier } from './pg-values.ts';

/** The server's PGSTAT_IDLE_INTERVAL, and time to spare. */
const DELAY_MS = 10_500;

/** One look takes a ms; a server that does not answer must not keep a report waiting. */
const QUERY_MS = 10_000;

/** Since PostgreSQL 15, whose statistics have no collector of their own any more. */
const VERSION_MIN = 150_000;

interface Look {
  count: number;
  /** Changes when the server forgot something of what it had counted. */
  era: string;
  /** Statements of this connection before this one. */
  sent: number;
}

interface Source {
  name: string;
  unit: StatementCount['unit'];
  text: string;
  delayMs: number;
}

export interface PgDatabaseCounterOptions {
  clock: Clock;
  /** Waits for what servers other than tests' tell late; 10.5 s if left out. */
  delayMs?: number;
}

export class PgDatabaseCounter implements DatabaseCounter {
  readonly #url: PgUrl;
  readonly #clock: Clock;
  readonly #delayMs: number;
  #client: pg.Client | null = null;
  #sent = 0;
  #source: Source | null = null;
  #first: Look | null = null;
  #failure: string | null = null;

  constructor(url: PgUrl, { clock, delayMs = DELAY_MS }: PgDatabaseCounterOptions) {
    this.#url = url;
    this.#clock = clock;
    this.#delayMs = delayMs;
  }

  async start(): Promise<void> {
    this.#first = null;
    await this.#guarded(async () => {
      this.#source ??= await this.#connect();
      this.#first = await this.#look(this.#source);
    });
  }

  async #connect(): Promise<Source> {
    const { server, connectMs, applicationName } = this.#url;
    const client = new pg.Client({
      ...server,
      application_name: `${applicationName} counter`,
      connectionTimeoutMillis: connectMs,
      query_timeout: QUERY_MS,
      keepAlive: true,
    });
    // Told to whoever asks next.
    client.on('error', (error) => (this.#failure ??= error.message));
    this.#client = client;
    await client.connect();
    return await this.#choose();
  }

  async count(): Promise<StatementCount> {
    let statements: number | null = null;
    await this.#guarded(async () => {
      if (this.#source === null || this.#first === null) return;
      const last = await this.#look(this.#source);
      if (last.era !== this.#first.era) this.#failure ??= 'it forgot what it had counted before the end';
      else statements = last.count - this.#first.count - (last.sent - this.#first.sent);
    });
    const { name, unit } = this.#source ?? { name: 'the database', unit: 'statements' as const };
    if (this.#failure === null) return { statements, unit, source: name };
    return { statements: null, unit, source: `${name} could not be asked: ${this.#failure}` };
  }

  async close(): Promise<void> {
    const client = this.#client;
    this.#client = null;
    await client?.end().catch(() => undefined);
  }

  async #guarded(work: () => Promise<void>): Promise<void> {
    if (this.#failure !== null) return;
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      this.#failure = error.message;
    }
  }

  async #query(text: string): Promise<Record<string, unknown>> {
    if (this.#client === null) throw new Error('it is closed');
    this.#sent++;
    const { rows } = await this.#client.query<Record<string, unknown>>(text);
    return rows[0] ?? {};
  }

  async #choose(): Promise<Source> {
    const row = await this.#query(
      `SELECT current_setting('server_version_num')::int4 AS version,
         current_setting('pg_stat_statements.track', true) AS track,
         (SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
           WHERE extname = 'pg_stat_statements') AS schema`,
    );
    const { version, track, schema } = row as {
      version: number;
      track: string | null;
      schema: string | null;
    };
    if (version < VERSION_MIN) throw new Error('PostgreSQL 15 is the oldest that is asked');
    if (schema !== null && track !== null && track !== 'none') return statementsSource(schema);
    return {
      name: 'pg_stat_database (transactions; pg_stat_statements is not there)',
      unit: 'transactions',
      text: `SELECT (xact_commit + xact_rollback)::float8 AS count, coalesce(stats_reset::text, '') AS era
        FROM pg_stat_database WHERE datname = current_database()`,
      delayMs: this.#delayMs,
    };
  }

  async #look({ text, delayMs }: Source): Promise<Look> {
    if (delayMs > 0) {
      await sleep(this.#clock, delayMs);
      // What this connection did up to here, this statement included, is counted when it ends: it reads a table,
      // for the server keeps transactions that touched none until one comes that did.
      await this.#query('SELECT pg_stat_force_next_flush() FROM pg_class LIMIT 1');
    }
    const sent = this.#sent;
    const { count, era } = await this.#query(text);
    if (typeof count !== 'number') throw new Error('it told no number');
    return { count, era: String(era), sent };
  }
}

/** A statement is counted when it ends, so that a look has everything before it and not itself. */
function statementsSource(schema: string): Source {
  const name = quoteIdentifier(schema);
  return {
    name: 'pg_stat_statements',
    unit: 'statements',
    text: `SELECT (SELECT coalesce(sum(calls), 0)::float8 FROM ${name}.pg_stat_statements
        WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())) AS count,
      (SELECT concat(dealloc, ' ', stats_reset) FROM ${name}.pg_stat_statements_info) AS era`,
    delayMs: 0,
  };
}
