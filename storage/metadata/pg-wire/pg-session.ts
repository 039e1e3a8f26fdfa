/**
 * One connection while a call has it. Owns: sending a statement, its time limit, and turning what goes wrong into a
 * PgFailed with the phase it came in. Does not own: which connection (pg-connections), retries, meanings. The storing
 * thread.
 */
import type pg from 'pg';
import type { Clock } from '../../../src/core/clock.ts';
import type { StoreCounters } from '../store-counters.ts';
import { answeredFailure, otherFailure, PgFailed, type PgPhase } from './pg-failure.ts';

/** A statement, prepared once per connection under its name. */
export interface PgStatement {
  /** Unique among the statements of a store; at most 63 characters. */
  name: string;
  text: string;
}

/** As the driver takes them: arrays of numbers as `integerArray` writes them, arrays of texts as they are. */
export type PgValue = string | number | boolean | Uint8Array | readonly string[] | null;

/** Columns by name. */
export type PgRow = Record<string, unknown>;

/** After these the server goes on with the connection as if nothing had been. */
const HARMLESS = new Set(['40001', '40P01', '55P03', '57014', '23505']);

export interface PgSessionParts {
  clock: Clock;
  counters: StoreCounters;
  /** Whether the driver saw the connection end. */
  isLost: (client: pg.PoolClient) => boolean;
  /** Statements are prepared by name; not behind a pool of connections that are shared by transaction. */
  named: boolean;
}

export class PgSession {
  phase: PgPhase;
  /** The connection must not be used again: it is lost, or nobody knows what it is doing. */
  isBroken = false;
  readonly #client: pg.PoolClient;
  readonly #parts: PgSessionParts;
  readonly #queryMs: number;

  constructor(client: pg.PoolClient, phase: PgPhase, queryMs: number, parts: PgSessionParts) {
    this.#client = client;
    this.phase = phase;
    this.#queryMs = queryMs;
    this.#parts = parts;
  }

  /** Throws PgFailed; whatever else it throws is a bug or damaged data. */
  async run(statement: PgStatement, values: readonly PgValue[] = []): Promise<PgRow[]> {
    const { name, text } = statement;
    return await this.#send(
      this.#parts.named ? { name, text, values: [...values] } : { text, values: [...values] },
    );
  }

  /** Text of one or more statements without parameters, not prepared. */
  async runText(text: string): Promise<PgRow[]> {
    return await this.#send({ text });
  }

  async #send(query: pg.QueryConfig): Promise<PgRow[]> {
    this.#parts.counters.add('statements');
    try {
      const result = await this.#withinTime(this.#client.query<PgRow>(query));
      return result.rows;
    } catch (error) {
      throw this.#failed(error);
    }
  }

  /** The server has a limit of its own, a little below: this one is for a server that does not answer at all. */
  #withinTime<T>(answer: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = this.#parts.clock.after(this.#queryMs, () => {
        this.isBroken = true;
        const error = new Error(`no answer within ${this.#queryMs} ms`);
        reject(new PgFailed(otherFailure('timed-out', this.phase, error)));
      });
      answer.then(resolve, reject).finally(() => timer.cancel());
    });
  }

  #failed(error: unknown): unknown {
    if (error instanceof PgFailed) return error;
    const answered = answeredFailure(error, this.phase);
    if (answered) {
      if (!HARMLESS.has(answered.sqlState ?? '') || answered.isFatal) this.isBroken = true;
      return new PgFailed(answered);
    }
    this.isBroken = true;
    if (this.#parts.isLost(this.#client) && error instanceof Error) {
      return new PgFailed(otherFailure('lost', this.phase, error));
    }
    return error;
  }
}
