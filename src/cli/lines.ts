/**
 * A stream of bytes as lines, byte for byte. Owns the splitting: a line ends with LF or CR LF, which are not
 * part of it; a last line without an end counts. Memory is bounded by the longest line allowed. Main thread.
 */
import { StreamHouseError } from '../core/errors.ts';

const LF = 10;
const CR = 13;

/** Longer than any record may be. */
export const LINE_BYTES_MAX = 64 * 1024 * 1024;

/** Yields the lines; each is memory of its own or a view of a chunk that nobody writes to again. */
export async function* lines(
  chunks: AsyncIterable<Buffer | string>,
  lineBytesMax = LINE_BYTES_MAX,
): AsyncGenerator<Buffer> {
  let head: Buffer[] = [];
  let headBytes = 0;
  for await (const piece of chunks) {
    const chunk = typeof piece === 'string' ? Buffer.from(piece) : piece;
    let start = 0;
    for (let end = chunk.indexOf(LF); end >= 0; end = chunk.indexOf(LF, start)) {
      const tail = chunk.subarray(start, end);
      yield withoutCr(headBytes === 0 ? tail : Buffer.concat([...head, tail]));
      head = [];
      headBytes = 0;
      start = end + 1;
    }
    if (start < chunk.length) {
      head.push(chunk.subarray(start));
      headBytes += chunk.length - start;
      if (headBytes > lineBytesMax)
        throw new StreamHouseError('record-too-large', `a line is longer than ${lineBytesMax} bytes`);
    }
  }
  if (headBytes > 0) yield withoutCr(Buffer.concat(head));
}

function withoutCr(line: Buffer): Buffer {
  return line.length > 0 && line[line.length - 1] === CR ? line.subarray(0, -1) : line;
}
