/**
 * Gathers what is written to a socket in one turn of the event loop into one write. Owns: the bytes between the
 * stream and the system call, back-pressure included. Does not own: what is written. Main thread.
 *
 * node:http writes each answer by itself, and a pipelined answer only after the one before it is "finished", which
 * is when its write was taken. A commit answers hundreds of requests of a connection at once: a system call each,
 * measured a third of the main thread. So a small write is taken at once, and what was taken goes out together at
 * the end of the turn, through the socket's own way of writing.
 *
 *   idle -> gathering (small writes are taken at once) -> writing -> idle
 *   While the system is slow to take a write, or much is gathered, the stream's callback is held back until its
 *   bytes are taken, and the stream's own limits work as ever. Ending waits for what is gathered.
 */
import type { Socket } from 'node:net';

/** Beyond so much a write is not taken before the system has it. */
const GATHERED_BYTES_MAX = 64 * 1024;

type Done = (error?: Error | null) => void;

interface Piece {
  chunk: unknown;
  encoding: BufferEncoding;
}

/** The gatherers of a door; flushes those that have something, once a turn. */
export class GatheredWrites {
  #gatherers: Gatherer[] = [];
  readonly #flush = (): void => {
    const gatherers = this.#gatherers;
    this.#gatherers = [];
    for (const gatherer of gatherers) gatherer.flush();
  };
  readonly #flushLater = (gatherer: Gatherer): void => {
    if (this.#gatherers.push(gatherer) === 1) setImmediate(this.#flush);
  };

  /** From here on the socket's writes are gathered. Before anything was written. */
  attach(socket: Socket): void {
    const gatherer = new Gatherer(socket, this.#flushLater);
    socket._write = (chunk, encoding, done) => gatherer.write(chunk, encoding, done);
    socket._writev = (pieces, done) => gatherer.writeAll(pieces, done);
    socket._final = (done) => gatherer.final(done);
  }
}

class Gatherer {
  readonly #socket: Socket;
  readonly #writeOne: Socket['_write'];
  readonly #writeMany: NonNullable<Socket['_writev']>;
  readonly #end: Socket['_final'];
  readonly #flushLater: (gatherer: Gatherer) => void;
  /** Gathered strings of one byte a character, the usual case; empty when #pieces has something. */
  #text = '';
  #pieces: Piece[] = [];
  #bytes = 0;
  #isWriting = false;
  #isScheduled = false;
  /** Held back until its bytes are taken: of the newest write that was not taken at once. */
  #held: Done | null = null;
  #ending: Done | null = null;

  constructor(socket: Socket, flushLater: (gatherer: Gatherer) => void) {
    this.#socket = socket;
    this.#writeOne = socket._write.bind(socket);
    this.#writeMany = (socket._writev as NonNullable<Socket['_writev']>).bind(socket);
    this.#end = socket._final.bind(socket);
    this.#flushLater = flushLater;
  }

  write(chunk: unknown, encoding: BufferEncoding, done: Done): void {
    this.#gather(chunk, encoding);
    this.#taken(done);
  }

  writeAll(pieces: readonly Piece[], done: Done): void {
    for (const { chunk, encoding } of pieces) this.#gather(chunk, encoding);
    this.#taken(done);
  }

  final(done: Done): void {
    this.#ending = done;
    this.#endIfEmpty();
  }

  #gather(chunk: unknown, encoding: BufferEncoding): void {
    this.#bytes += (chunk as string | Uint8Array).length;
    if (typeof chunk === 'string' && encoding === 'latin1' && this.#pieces.length === 0) {
      this.#text += chunk;
      return;
    }
    if (this.#text !== '') {
      this.#pieces.push({ chunk: this.#text, encoding: 'latin1' });
      this.#text = '';
    }
    this.#pieces.push({ chunk, encoding });
  }

  #taken(done: Done): void {
    if (this.#isWriting) {
      this.#held = done;
      return;
    }
    if (this.#bytes > GATHERED_BYTES_MAX) {
      this.#held = done;
      this.flush();
      return;
    }
    if (!this.#isScheduled) {
      this.#isScheduled = true;
      this.#flushLater(this);
    }
    done();
  }

  flush(): void {
    this.#isScheduled = false;
    if (this.#isWriting || this.#bytes === 0 || this.#socket.destroyed) return;
    this.#isWriting = true;
    const [text, pieces, held] = [this.#text, this.#pieces, this.#held];
    this.#text = '';
    this.#bytes = 0;
    this.#held = null;
    const done = (error?: Error | null) => this.#written(held, error);
    if (pieces.length === 0) {
      this.#writeOne(text, 'latin1', done);
      return;
    }
    this.#pieces = [];
    if (pieces.length === 1) this.#writeOne(pieces[0].chunk, pieces[0].encoding, done);
    else this.#writeMany(pieces, done);
  }

  #written(held: Done | null, error: Error | null | undefined): void {
    this.#isWriting = false;
    if (held !== null) held(error);
    else if (error) this.#socket.destroy(error);
    if (error) return;
    this.flush();
    this.#endIfEmpty();
  }

  /** Ends what is to be ended once nothing is left; a flush comes back here when it is through. */
  #endIfEmpty(): void {
    if (this.#ending === null || this.#isWriting) return;
    if (this.#bytes > 0) {
      this.flush();
      return;
    }
    const done = this.#ending;
    this.#ending = null;
    this.#end(done);
  }
}
