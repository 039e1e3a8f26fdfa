/**
 * One message of appends to another broker and its answers, which stream back as they are committed. Owns: which of
 * its appends are answered, and what is to be thought of those that are not. Does not own: when it is sent
 * (append-link), connections (peer-pools). Main thread.
 *
 *   sent -> taken (the status line came: the other broker has all appends, in order) -> done
 *        -> refused (it took none, or there was no connection)     every append: the refusal's code
 *        -> lost (the connection broke, silence, nonsense)         every append not yet answered: 'peer-lost'
 */
import type { Dispatcher } from 'undici';
import { connectionFailure } from '../core/connection-failure.ts';
import { ERROR_CODES, type ErrorCode, kindOf, StreamHouseError } from '../core/errors.ts';
import { AnswerReader } from '../protocol/peer/append-message.ts';
import { ANSWERS_TYPE } from '../protocol/peer/peer-headers.ts';
import { discardBody } from './discard-body.ts';

/** A refusal's body; more is not read. */
const REFUSAL_BYTES_MAX = 16 * 1024;

export interface AppendExchangeParts {
  /** By the append's place in the message, once each; from inside of no call. */
  answered(index: number, code: ErrorCode | null, baseOffset: number): void;
  /** The status line came, or never will: the next message may go. Before any answer of this one. */
  settled(exchange: AppendExchange): void;
  /** Nothing more comes, and all appends are answered. */
  ended(exchange: AppendExchange): void;
  warn(message: string, fields: Record<string, unknown>): void;
}

export class AppendExchange {
  readonly #parts: AppendExchangeParts;
  readonly #isAnswered: Uint8Array;
  #left: number;
  readonly #abort = new AbortController();
  #isSettled = false;
  #isEnded = false;
  /** Monotonic time at which something came last, or it was sent. */
  heardAtMs: number;
  readonly sentAtMs: number;
  /** There was no connection: others would not get one either. */
  isUnreachable = false;

  constructor(count: number, nowMs: number, parts: AppendExchangeParts) {
    this.#parts = parts;
    this.#isAnswered = new Uint8Array(count);
    this.#left = count;
    this.sentAtMs = nowMs;
    this.heardAtMs = nowMs;
  }

  /** Appends not yet answered. */
  get left(): number {
    return this.#left;
  }

  /** Sends it and follows it to its end. Never rejects. */
  async run(
    dispatcher: () => Dispatcher,
    options: Omit<Dispatcher.RequestOptions, 'signal'>,
    now: () => number,
  ): Promise<void> {
    try {
      const answer = await dispatcher().request({ ...options, signal: this.#abort.signal });
      this.heardAtMs = now();
      if (answer.statusCode !== 200) await this.#refused(answer);
      else if (answer.headers['content-type'] !== ANSWERS_TYPE) {
        discardBody(answer.body);
        throw new StreamHouseError('malformed-request', 'it answers something else than answers');
      } else {
        this.#settle();
        await this.#read(answer.body, now);
      }
      this.#end('peer-lost');
    } catch (error) {
      const { code, text, wasNeverMade } = connectionFailure(error);
      // 'not-leader' of ours: the address is none.
      this.isUnreachable = !this.#isSettled && (wasNeverMade || code === 'not-leader');
      if (this.#left > 0)
        this.#parts.warn('appends to another broker failed', { error: text, left: this.#left });
      this.#end(this.isUnreachable ? 'not-leader' : 'peer-lost');
    }
  }

  async #read(body: Dispatcher.ResponseData['body'], now: () => number): Promise<void> {
    const reader = new AnswerReader((index, code, baseOffset) => {
      if (index >= this.#isAnswered.length || this.#isAnswered[index] === 1) {
        throw new StreamHouseError('malformed-request', `append ${index} was answered and not asked`);
      }
      this.#answer(index, code, baseOffset);
    });
    for await (const piece of body) {
      this.heardAtMs = now();
      reader.push(piece as Buffer);
    }
  }

  /** The other broker took nothing, if it says so; whatever else it says leaves the outcome open. */
  async #refused(answer: Dispatcher.ResponseData): Promise<void> {
    let bytes = 0;
    const pieces: Buffer[] = [];
    for await (const piece of answer.body) {
      bytes += (piece as Buffer).length;
      if (bytes > REFUSAL_BYTES_MAX) break;
      pieces.push(piece as Buffer);
    }
    const code = refusalCode(Buffer.concat(pieces).toString('utf8'));
    if (code === 'malformed-request' || code === 'cluster-mismatch' || code === null) {
      this.#parts.warn('another broker refused appends', { status: answer.statusCode, code });
    }
    // That the clusters or versions of two brokers do not fit is nothing that a client could mend.
    const isOurs = code === 'cluster-mismatch' || code === 'malformed-request' || code === 'route-not-found';
    this.#end(code === null ? 'peer-lost' : isOurs ? 'not-leader' : code);
  }

  #settle(): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#parts.settled(this);
  }

  #answer(index: number, code: ErrorCode | null, baseOffset: number): void {
    this.#isAnswered[index] = 1;
    this.#left--;
    this.#parts.answered(index, code, baseOffset);
  }

  /** Gives it up: what is not answered is lost. */
  abort(reason: string): void {
    this.#abort.abort(new Error(reason));
  }

  #end(code: ErrorCode): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#settle();
    for (let index = 0; this.#left > 0; index++) {
      if (this.#isAnswered[index] === 0) this.#answer(index, code, -1);
    }
    this.#parts.ended(this);
  }
}

/** The code of a refusal that says that nothing happened; null for anything else. */
function refusalCode(text: string): ErrorCode | null {
  try {
    const { code, outcome } = JSON.parse(text) as { code?: unknown; outcome?: unknown };
    const known = ERROR_CODES.find((one) => one === code);
    return outcome === 'none' && known && kindOf(known) !== 'unknown' ? known : null;
  } catch {
    return null;
  }
}
