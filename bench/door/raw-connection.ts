/**
 * One keep-alive connection of the raw client: writes requests that were made before, pipelined, a fixed number
 * always unanswered, and counts answers. Owns: just enough of HTTP/1.1 to find where an answer ends (status line,
 * Content-Length). An answer other than 2xx, or without a length, ends the measurement. The client's process.
 */
import { connect, type Socket } from 'node:net';

/** All requests of a measurement in one buffer, one after the other; `starts` has one more than there are. */
export interface RequestWheel {
  bytes: Buffer;
  starts: number[];
}

const HEAD_END = Buffer.from('\r\n\r\n');
const LENGTH = Buffer.from('\r\nContent-Length: ');
const DIGIT_0 = 48;
const DIGIT_2 = 50;

export class RawConnection {
  readonly #socket: Socket;
  readonly #wheel: RequestWheel;
  /** When each unanswered request was sent, oldest at `#oldest`. */
  readonly #sentMs: Float64Array;
  readonly #onAnswer: (sentMs: number, nowMs: number) => void;
  #oldest = 0;
  #next: number;
  #rest: Buffer | null = null;
  #bodyLeft = -1;

  constructor(
    address: { host: string; port: number },
    wheel: RequestWheel,
    first: number,
    depth: number,
    events: { answer(sentMs: number, nowMs: number): void; failed(error: Error): void },
  ) {
    this.#wheel = wheel;
    this.#next = first;
    this.#sentMs = new Float64Array(depth);
    this.#onAnswer = events.answer;
    this.#socket = connect({ ...address, noDelay: true });
    this.#socket.on('connect', () => {
      this.#sentMs.fill(performance.now());
      this.#send(depth);
    });
    this.#socket.on('data', (chunk) => {
      try {
        this.#take(chunk);
      } catch (error) {
        events.failed(error as Error);
      }
    });
    this.#socket.on('error', events.failed);
    this.#socket.on('end', () => events.failed(new Error('the server ended a connection')));
  }

  close(): void {
    this.#socket.removeAllListeners('error').on('error', () => undefined);
    this.#socket.destroy();
  }

  #send(count: number): void {
    const { bytes, starts } = this.#wheel;
    const last = starts.length - 1;
    for (let left = count; left > 0; ) {
      const run = Math.min(left, last - this.#next);
      this.#socket.write(bytes.subarray(starts[this.#next], starts[this.#next + run]));
      this.#next = (this.#next + run) % last;
      left -= run;
    }
  }

  #take(chunk: Buffer): void {
    const nowMs = performance.now();
    const bytes = this.#rest === null ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#rest = null;
    let answered = 0;
    let at = 0;
    while (at < bytes.length || this.#bodyLeft === 0) {
      if (this.#bodyLeft < 0) {
        const headEnd = bytes.indexOf(HEAD_END, at);
        if (headEnd < 0) {
          this.#rest = bytes.subarray(at);
          break;
        }
        this.#bodyLeft = contentLength(bytes, at, headEnd);
        at = headEnd + 4;
      }
      const taken = Math.min(this.#bodyLeft, bytes.length - at);
      at += taken;
      this.#bodyLeft -= taken;
      if (this.#bodyLeft > 0) break;
      this.#bodyLeft = -1;
      this.#onAnswer(this.#sentMs[this.#oldest], nowMs);
      this.#sentMs[this.#oldest] = nowMs;
      this.#oldest = (this.#oldest + 1) % this.#sentMs.length;
      answered++;
    }
    if (answered > 0) this.#send(answered);
  }
}

/** Of the answer whose head lies in [at, headEnd). */
function contentLength(bytes: Buffer, at: number, headEnd: number): number {
  if (bytes[at + 9] !== DIGIT_2) {
    throw new Error(
      `an answer was refused: ${bytes.toString('latin1', at, Math.min(bytes.length, headEnd + 200))}`,
    );
  }
  let position = bytes.indexOf(LENGTH, at);
  if (position < 0 || position > headEnd) throw new Error('an answer without Content-Length');
  position += LENGTH.length;
  let length = 0;
  for (; bytes[position] >= DIGIT_0; position++) length = length * 10 + bytes[position] - DIGIT_0;
  return length;
}
