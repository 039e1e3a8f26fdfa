/**
 * Writes answers: each request's exactly one, in one write, and tells the observer. Owns: headers of answers,
 * when a connection is closed after one, what a client sees of an error. Does not own: what is answered. Main
 * thread.
 */
import type { ServerResponse } from 'node:http';
import type { Clock } from '../../core/clock.ts';
import { type PlainError, StreamHouseError } from '../../core/errors.ts';
import { PLAIN_JSON } from '../../protocol/http/media-type.ts';
import type { DoorRequest } from './door-request.ts';
import { errorBody, HTTP_ERRORS } from './error-table.ts';
import type { HttpObserver } from './http-observer.ts';

/**
 * How long a connection is kept open and read after an answer that did not wait for the request's body, so
 * that the client, still sending, gets to read the answer instead of a reset.
 */
const LINGER_MS = 1000;

/** A body of at most so many bytes is read to its end after an early answer, and the connection kept. */
export const DISCARD_BYTES_MAX = 64 * 1024;

/** A status of our own for the observer: the client had gone. */
const CLIENT_GONE = 499;

/** An answer that has begun. Whether anybody still reads it makes no difference to who writes it. */
export interface AnswerStream {
  write(bytes: Buffer): void;
  /** Exactly once. */
  end(): void;
}

export class Responder {
  readonly #observer: HttpObserver;
  readonly #clock: Clock;
  /** The door is closing: connections end after their newest answer. */
  closing = false;

  constructor(observer: HttpObserver, clock: Clock) {
    this.#observer = observer;
    this.#clock = clock;
  }

  /** Books the request as answered. False: there is nobody to answer. */
  #settle(request: DoorRequest, response: ServerResponse, status: number, bytesOut: number): boolean {
    if (request.answered) return false;
    request.answered = true;
    request.connectionState.pending--;
    request.onGone(null);
    request.stopCollecting();
    const gone = request.destroyed || response.destroyed || request.socket.destroyed;
    this.#observer.requestDone(
      request.route,
      request.method ?? '',
      gone ? CLIENT_GONE : status,
      this.#clock.monotonicMs() - request.startedMs,
      request.bytesIn,
      gone ? 0 : bytesOut,
    );
    return !gone;
  }

  /** Whether the connection ends with this answer; only after the newest request, or others would be lost. */
  #isLast(request: DoorRequest, response: ServerResponse): boolean {
    const connection = request.connectionState;
    return (this.closing || connection.ending) && connection.newest === response;
  }

  /** The hot path: a body of ASCII, in one string with the headers. */
  ascii(
    request: DoorRequest,
    response: ServerResponse,
    status: number,
    contentType: string,
    body: string,
  ): void {
    if (!this.#settle(request, response, status, body.length)) return;
    const headers = ['Content-Type', contentType, 'Content-Length', String(body.length)];
    if (this.#isLast(request, response)) headers.push('Connection', 'close');
    response.writeHead(status, headers);
    response.end(body, 'latin1');
  }

  /** Any body; `extra` are further header names and values by turns. */
  send(
    request: DoorRequest,
    response: ServerResponse,
    status: number,
    contentType: string,
    body: string | Uint8Array | null,
    extra: readonly string[] = [],
  ): void {
    const bytes = typeof body === 'string' ? Buffer.from(body) : body;
    if (!this.#settle(request, response, status, bytes?.length ?? 0)) return;
    const headers = [...extra];
    if (bytes !== null) headers.push('Content-Type', contentType, 'Content-Length', String(bytes.length));
    if (this.#isLast(request, response)) headers.push('Connection', 'close');
    response.writeHead(status, headers);
    if (bytes === null) response.end();
    else response.end(bytes);
  }

  /** Begins an answer 200 that comes in pieces; its status line goes out at once. */
  stream(request: DoorRequest, response: ServerResponse, contentType: string): AnswerStream {
    const headers = ['Content-Type', contentType];
    if (this.#isLast(request, response)) headers.push('Connection', 'close');
    if (!response.destroyed) {
      response.writeHead(200, headers);
      response.flushHeaders();
    }
    let bytesOut = 0;
    return {
      write: (bytes) => {
        bytesOut += bytes.length;
        if (!response.destroyed) response.write(bytes);
      },
      end: () => {
        if (this.#settle(request, response, 200, bytesOut)) response.end();
      },
    };
  }

  error(
    request: DoorRequest,
    response: ServerResponse,
    error: PlainError,
    extra: readonly string[] = [],
  ): void {
    const { status, retryAfterS } = HTTP_ERRORS[error.code];
    const headers = retryAfterS === undefined ? extra : [...extra, 'Retry-After', String(retryAfterS)];
    this.send(request, response, status, PLAIN_JSON, errorBody(error), headers);
  }

  /** Whatever was thrown: an operating error by the table, anything else as 500 without its text. */
  failure(request: DoorRequest, response: ServerResponse, thrown: unknown): void {
    if (thrown instanceof StreamHouseError) {
      this.error(request, response, thrown.toPlain());
      return;
    }
    this.#observer.internalError(thrown, request.route);
    const body = {
      error_code: 500,
      message: 'internal error',
      code: 'internal-error',
      outcome: 'unknown',
      retriable: false,
    };
    this.send(request, response, 500, PLAIN_JSON, JSON.stringify(body));
  }

  /**
   * Refuses a request whose body was not read. A short body is read away and the connection kept; of a long
   * or endless one the rest is discarded for a moment, then the connection ends.
   */
  refuseUnread(
    request: DoorRequest,
    response: ServerResponse,
    error: PlainError,
    extra: readonly string[] = [],
  ): void {
    const declared = request.declaredBytes();
    if (request.complete || (declared >= 0 && declared <= DISCARD_BYTES_MAX)) {
      this.error(request, response, error, extra);
    } else this.#refuseAndEnd(request, response, error, extra);
  }

  #refuseAndEnd(
    request: DoorRequest,
    response: ServerResponse,
    error: PlainError,
    extra: readonly string[],
  ): void {
    const { status, retryAfterS } = HTTP_ERRORS[error.code];
    const body = Buffer.from(errorBody(error));
    request.connectionState.ending = true;
    if (!this.#settle(request, response, status, body.length)) return;
    const headers = ['Content-Type', PLAIN_JSON, 'Content-Length', String(body.length), ...extra];
    if (retryAfterS !== undefined) headers.push('Retry-After', String(retryAfterS));
    headers.push('Connection', 'close');
    response.writeHead(status, headers);
    // All of the answer goes out now; ending the response is what closes the connection.
    response.write(body);
    const timer = this.#clock.after(LINGER_MS, () => response.end());
    request.onComplete(() => {
      timer.cancel();
      response.end();
    });
    request.onGone(() => timer.cancel());
  }
}
