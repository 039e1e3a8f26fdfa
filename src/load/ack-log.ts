/**
 * What a generator was told of each of its records, in a scratch file: written in order of the answers, read by the
 * verifier into columns. Owns: the row and the columns. Does not own: what is made of them (record-verifier). Any
 * thread.
 *
 *   row, 16 bytes, little endian: u32 index   the generator's own count of records, from 0
 *                                 u32 offset  as acknowledged, or UNKNOWN_OFFSET or REFUSED_OFFSET
 *                                 u32 sent    when its request was sent  } in units of 10 us since the generator began:
 *                                 u32 told    when its answer came       } 11 hours
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';

/** Nobody knows whether the record was appended. */
export const UNKNOWN_OFFSET = 0xffffffff;
/** The broker said that nothing happened. */
export const REFUSED_OFFSET = 0xfffffffe;
/** Never sent. */
export const UNSENT_OFFSET = 0xfffffffd;

const ROW_BYTES = 16;
const ROWS_PER_WRITE = 4096;
const TICKS_PER_MS = 100;

export class AckLog {
  readonly #file: number;
  readonly #rows = Buffer.allocUnsafe(ROWS_PER_WRITE * ROW_BYTES);
  #length = 0;

  constructor(path: string) {
    this.#file = openSync(path, 'w');
  }

  /** Times are ms since the generator began. */
  add(index: number, offset: number, sentMs: number, toldMs: number): void {
    const at = this.#length;
    this.#rows.writeUInt32LE(index, at);
    this.#rows.writeUInt32LE(offset, at + 4);
    this.#rows.writeUInt32LE(Math.floor(sentMs * TICKS_PER_MS), at + 8);
    // Upwards: a record counts as sent after another's answer only if it surely was.
    this.#rows.writeUInt32LE(Math.ceil(toldMs * TICKS_PER_MS), at + 12);
    this.#length += ROW_BYTES;
    if (this.#length === this.#rows.length) this.flush();
  }

  flush(): void {
    for (let at = 0; at < this.#length; ) at += writeSync(this.#file, this.#rows, at, this.#length - at);
    this.#length = 0;
  }

  close(): void {
    this.flush();
    closeSync(this.#file);
  }
}

/** By record number: see load-plan. */
export interface AckColumns {
  offset: Uint32Array;
  sentTick: Uint32Array;
  toldTick: Uint32Array;
}

export function blankAckColumns(records: number): AckColumns {
  return {
    offset: new Uint32Array(records).fill(UNSENT_OFFSET),
    sentTick: new Uint32Array(records),
    toldTick: new Uint32Array(records),
  };
}

/** Adds a generator's log to the columns. Rows beyond them are a bug. */
export function readAckLog(path: string, generator: number, generators: number, columns: AckColumns): void {
  const file = openSync(path, 'r');
  try {
    const bytes = Buffer.allocUnsafe(ROWS_PER_WRITE * ROW_BYTES);
    for (let position = 0; ; ) {
      const read = readSync(file, bytes, 0, bytes.length, position);
      const whole = read - (read % ROW_BYTES);
      if (whole === 0) return;
      position += whole;
      for (let at = 0; at < whole; at += ROW_BYTES) {
        const number = bytes.readUInt32LE(at) * generators + generator;
        if (number >= columns.offset.length) throw new Error(`acknowledgement log of record ${number}`);
        columns.offset[number] = bytes.readUInt32LE(at + 4);
        columns.sentTick[number] = bytes.readUInt32LE(at + 8);
        columns.toldTick[number] = bytes.readUInt32LE(at + 12);
      }
    }
  } finally {
    closeSync(file);
  }
}
