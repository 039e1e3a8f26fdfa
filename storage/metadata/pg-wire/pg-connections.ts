/**
 * The connections of one store and the running of calls on them. Owns: the two pools (one connection for commits
 * alone, so that nothing else holds them up; the rest for everything else), the check of every new connection,
 * phases, retries of what collided, and what is counted. Does not own: SQL, meanings (the backend's PgDialect). The
 * storing thread.
 *
 * A connection on which anything but a harmless error came is closed and never used again: after a failover the next
 * one finds the new server, and nobody reads the answer to a statement that was given up.
 */
import pg from 'pg';
import { type Clock, sleep } from '../../../src/core/clock.ts';
import { StreamHouseError } from '../../../src/core/errors.ts';
import type { Random } from '../../../src/core/random.ts';
import type { StoreCounters } from '../store-counters.ts';
import {
  answeredFailure,
  otherFailure,
  PgFailed,
  type PgFailure,
  type PgMeaning,
  type PgPhase,
} from './pg-failure.ts';
import { type PgRow, PgSession, type PgSessionParts, type PgStatement, type PgValue } from './pg-session.ts';
import type { PgUrl } from './pg-url.ts';
import { PG_TYPES } from './pg-values.ts';

/** What a backend adds to the protocol. */
export interface PgDialect {
  meaning(failure: PgFailure): PgMeaning;
  /** Asked of every new connection, and what is wrong with it by the answer; null: nothing. */
  checkStatement: PgStatement;
  check(row: PgRow): StreamHouseError | null;
  /** Settings of the session, sent with the connection's start; null where they cannot be. */
  sessionSettings: Readonly<Record<string, string | number>> | null;
  begin: string;
  /** Tries of a call that collides with others every time. */
  triesMax: number;
  /** Whether statements are prepared by name. */
  named: boolean;
}

export interface PgConnectionsParts {
  url: PgUrl;
  dialect: PgDialect;
  clock: Clock;
  random: Random;
  counters: StoreCounters;
}

/** The client's own limit is this much above the server's, which tells more and leaves nothing open. */
const QUERY_MS_GRACE = 2000;

/** Idle ones are closed after this; the one for commits stays. */
const IDLE_MS_MAX = 60_000;

/** Finds a peer that is gone without a word; between calls nothing else would. */
const KEEP_ALIVE_MS = 10_000;

/** Between two tries of a call that collided; doubled from the first to the last, with jitter. */
const BACKOFF_MS_FIRST = 5;
const BACKOFF_MS_MAX = 500;

export class PgConnections {
  readonly #parts: PgConnectionsParts;
  readonly #commits: pg.Pool;
  readonly #others: pg.Pool;
  readonly #sessions: PgSessionParts;
  readonly #lost = new WeakSet<pg.PoolClient>();
  readonly #checked = new WeakSet<pg.PoolClient>();
  #isOpen = false;
  #closed: Promise<void> | undefined;

  constructor(parts: PgConnectionsParts) {
    this.#parts = parts;
    const { url, dialect, clock, counters } = parts;
    this.#sessions = { clock, counters, named: dialect.named, isLost: (client) => this.#lost.has(client) };
    this.#commits = this.#pool(1, 0);
    this.#others = this.#pool(url.connectionsMax - 1, IDLE_MS_MAX);
  }

  get description(): string {
    return this.#parts.url.description;
  }

  #pool(max: number, idleTimeoutMillis: number): pg.Pool {
    const { url, dialect, counters } = this.#parts;
    const { sessionSettings } = dialect;
    const options =
      sessionSettings &&
      Object.entries(sessionSettings).map(
        ([name, value]) => `-c ${name}=${`${value}`.replaceAll(' ', '\\ ')}`,
      );
    const pool = new pg.Pool({
      ...url.server,
      ...(options && { options: options.join(' ') }),
      application_name: url.applicationName,
      types: PG_TYPES as unknown as pg.CustomTypesConfig,
      max,
      idleTimeoutMillis,
      connectionTimeoutMillis: url.connectMs,
      keepAlive: true,
      keepAliveInitialDelayMillis: KEEP_ALIVE_MS,
    });
    pool.on('connect', (client) => {
      counters.add('connects');
      // Whatever the connection was doing fails by itself; an idle one is dropped by the pool.
      client.on('error', () => {
        if (this.#lost.has(client as pg.PoolClient)) return;
        this.#lost.add(client as pg.PoolClient);
        counters.add('connectionsLost');
      });
    });
    // Told of idle connections that were lost; they are counted above, and the next call opens another.
    pool.on('error', () => undefined);
    return pool;
  }

  /** Opens and checks the first connection: what is wrong with the settings is found here. */
  async open(): Promise<void> {
    await this.#call(this.#others, 'read', async () => undefined);
    this.#isOpen = true;
  }

  read(statement: PgStatement, values: readonly PgValue[] = []): Promise<PgRow[]> {
    return this.#call(this.#others, 'read', (session) => session.run(statement, values));
  }

  /** Several statements of one connection, none of which changes anything. */
  readWithin<T>(work: (session: PgSession) => Promise<T>): Promise<T> {
    return this.#call(this.#others, 'read', work);
  }

  /** One statement that commits by itself. */
  write(statement: PgStatement, values: readonly PgValue[] = []): Promise<PgRow[]> {
    return this.#call(this.#others, 'commit', (session) => session.run(statement, values));
  }

  /** As `write`, on the connection that is kept for commits. */
  commit(statement: PgStatement, values: readonly PgValue[] = []): Promise<PgRow[]> {
    return this.#call(this.#commits, 'commit', (session) => session.run(statement, values));
  }

  /** `work` between BEGIN and COMMIT; run again from its beginning if it collided. */
  transaction<T>(work: (session: PgSession) => Promise<T>, queryMs?: number): Promise<T> {
    return this.#call(
      this.#others,
      'write',
      async (session) => {
        await session.runText(this.#parts.dialect.begin);
        let result: T;
        try {
          result = await work(session);
        } catch (error) {
          await rollBack(session);
          throw error;
        }
        session.phase = 'commit';
        await session.runText('COMMIT');
        return result;
      },
      queryMs,
    );
  }

  async #call<T>(
    pool: pg.Pool,
    phase: PgPhase,
    work: (session: PgSession) => Promise<T>,
    queryMs = this.#parts.url.statementMs + QUERY_MS_GRACE,
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once(pool, phase, work, queryMs);
      } catch (error) {
        if (!(error instanceof PgFailed)) throw error;
        const meaning = this.#parts.dialect.meaning(error.failure);
        if (meaning === 'bug') throw error.failure.cause;
        if (meaning !== 'retry' || attempt >= this.#parts.dialect.triesMax)
          throw this.#meant(meaning, error.failure);
      }
      this.#parts.counters.add('conflictRetries');
      const limit = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_FIRST * 2 ** (attempt - 1));
      await sleep(this.#parts.clock, limit * (0.5 + this.#parts.random.unit() / 2));
    }
  }

  #meant(meaning: Exclude<PgMeaning, 'bug'>, failure: PgFailure): StreamHouseError {
    const code = meaning === 'retry' ? 'store-unavailable' : meaning;
    if (code === 'store-unknown') this.#parts.counters.add('unknownOutcomes');
    const detail = failure.sqlState === null ? undefined : { sqlState: failure.sqlState };
    return new StreamHouseError(code, `${this.description}: ${failure.message}`, detail, failure.cause);
  }

  async #once<T>(
    pool: pg.Pool,
    phase: PgPhase,
    work: (session: PgSession) => Promise<T>,
    queryMs: number,
  ): Promise<T> {
    if (this.#closed) throw new StreamHouseError('store-unavailable', `${this.description} is closed`);
    const connecting = this.#isOpen ? 'connect' : 'open';
    const client = await connect(pool, connecting);
    const session = new PgSession(client, connecting, queryMs, this.#sessions);
    try {
      if (!this.#checked.has(client)) await this.#check(client, session);
      session.phase = phase;
      return await work(session);
    } finally {
      client.release(session.isBroken);
    }
  }

  async #check(client: pg.PoolClient, session: PgSession): Promise<void> {
    const { dialect } = this.#parts;
    const [row] = await session.run(dialect.checkStatement);
    const wrong = dialect.check(row);
    if (wrong) {
      session.isBroken = true;
      throw wrong;
    }
    this.#checked.add(client);
  }

  /** Waits for calls that are under way, which time limits bound. */
  close(): Promise<void> {
    this.#closed ??= Promise.all([this.#commits.end(), this.#others.end()]).then(() => undefined);
    return this.#closed;
  }
}

async function connect(pool: pg.Pool, phase: PgPhase): Promise<pg.PoolClient> {
  try {
    return await pool.connect();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    throw new PgFailed(answeredFailure(error, phase) ?? otherFailure('not-connected', phase, error));
  }
}

/** After an error inside a transaction. A failure of this adds nothing: the connection is then closed. */
async function rollBack(session: PgSession): Promise<void> {
  if (session.isBroken) return;
  try {
    await session.runText('ROLLBACK');
  } catch {
    session.isBroken = true;
  }
}
