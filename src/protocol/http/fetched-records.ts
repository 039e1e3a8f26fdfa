/**
 * Fetched record batches as the JSON array that `GET .../records` answers:
 * `[{"topic","partition","offset","timestamp","key","value"}, ..]`, keys and values as JSON (verbatim bytes)
 * or as base64. Owns: which records of the batches count and what happens at one that cannot be shown. Pure;
 * any thread.
 *
 * A record that cannot be shown (not JSON, a compressed batch, corrupt bytes) ends the answer before it; it
 * is an error only when it is the first, so that a reader gets everything in front of it and then, at its
 * offset, the error: nothing is ever skipped.
 */
import { StreamHouseError } from '../../core/errors.ts';
import { type BatchRecord, compressionOf, readBatchHeader, readRecords } from '../../core/record-batch.ts';
import { isJsonText } from './json-scan.ts';
import type { EmbeddedFormat } from './media-type.ts';

export interface FetchedPlace {
  topic: string;
  partition: number;
  /** The offset asked for: earlier records of the first batch are left out. */
  offset: number;
}

const CONTROL_BATCH = 0x20;
const COMPRESSIONS = ['none', 'gzip', 'snappy', 'lz4', 'zstd'];

/** A growing buffer of UTF-8 text. */
class TextBuffer {
  #bytes: Buffer;
  #length = 0;

  constructor(sizeHint: number) {
    this.#bytes = Buffer.allocUnsafeSlow(sizeHint);
  }

  #reserve(count: number): number {
    const at = this.#length;
    if (at + count > this.#bytes.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(at + count, this.#bytes.length * 2));
      this.#bytes.copy(grown, 0, 0, at);
      this.#bytes = grown;
    }
    this.#length = at + count;
    return at;
  }

  /** ASCII only. */
  ascii(text: string): void {
    const at = this.#reserve(text.length);
    this.#bytes.write(text, at, 'latin1');
  }

  raw(bytes: Uint8Array): void {
    // First make room: that may replace the buffer.
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
  }

  take(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
}

function embedded(out: TextBuffer, bytes: Buffer | null, format: EmbeddedFormat): void {
  if (bytes === null) out.ascii('null');
  else if (format === 'json') out.raw(bytes);
  else out.ascii(`"${bytes.toString('base64')}"`);
}

function checkJson(place: FetchedPlace, record: BatchRecord): void {
  const wrong =
    record.key !== null && !isJsonText(record.key)
      ? 'key'
      : record.value !== null && !isJsonText(record.value)
        ? 'value'
        : null;
  if (wrong === null) return;
  throw new StreamHouseError(
    'not-acceptable',
    `the ${wrong} of ${place.topic}-${place.partition} at offset ${record.offset} is not JSON: ` +
      'read it with Accept: application/vnd.kafka.binary.v2+json',
    { offset: record.offset },
  );
}

/**
 * The answer's body. 'not-acceptable' (detail: offset) when the first record cannot be shown in this format
 * or is compressed, 'corrupt-batch' when the bytes are damaged there.
 */
export function encodeFetchedRecords(place: FetchedPlace, batches: Buffer, format: EmbeddedFormat): Buffer {
  const out = new TextBuffer(Math.max(256, batches.length * 2));
  const prefix = `{"topic":${JSON.stringify(place.topic)},"partition":${place.partition},"offset":`;
  let count = 0;
  out.ascii('[');
  try {
    let position = 0;
    while (position < batches.length) {
      const header = readBatchHeader(batches, position);
      const compression = compressionOf(header.attributes);
      if (compression !== 0) {
        throw new StreamHouseError(
          'not-acceptable',
          `the records of ${place.topic}-${place.partition} from offset ${header.baseOffset} on are ` +
            `compressed (${COMPRESSIONS[compression] ?? compression}): read them through the Kafka protocol`,
          { offset: header.baseOffset },
        );
      }
      if ((header.attributes & CONTROL_BATCH) !== 0) {
        position += header.length;
        continue;
      }
      position = readRecords(batches, position, (record) => {
        if (record.offset < place.offset) return;
        if (format === 'json') checkJson(place, record);
        out.ascii(
          `${count === 0 ? '' : ','}${prefix}${record.offset},"timestamp":${record.timestampMs},"key":`,
        );
        embedded(out, record.key, format);
        out.ascii(',"value":');
        embedded(out, record.value, format);
        out.ascii('}');
        count++;
      });
    }
  } catch (error) {
    if (!(error instanceof StreamHouseError) || count === 0) throw error;
  }
  out.ascii(']');
  return out.take();
}
