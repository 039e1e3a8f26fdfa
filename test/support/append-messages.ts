/** Messages between brokers as a test wants them: of records' values alone. Owns nothing. */
import {
  MESSAGE_HEADER_BYTES,
  WIRE_ANSWER_BYTES,
  WIRE_APPEND_HEADER_BYTES,
  writeMessageHeader,
  writeWireAppend,
} from '../../src/protocol/peer/append-message.ts';
import { APPENDS_TYPE, peerKey } from '../../src/protocol/peer/peer-headers.ts';

export interface OneAppend {
  topicId: number;
  partition: number;
  values: readonly string[];
}

export function appendMessage(appends: readonly OneAppend[]): Buffer {
  const parts = appends.map(({ values }) => {
    const lengths = Buffer.alloc(values.length * 8);
    values.forEach((value, i) => {
      lengths.writeInt32LE(-1, i * 8);
      lengths.writeInt32LE(Buffer.byteLength(value), i * 8 + 4);
    });
    return Buffer.concat([lengths, Buffer.from(values.join(''))]);
  });
  const bytes = parts.reduce((sum, part) => sum + WIRE_APPEND_HEADER_BYTES + part.length, 0);
  const out = Buffer.alloc(MESSAGE_HEADER_BYTES + bytes);
  writeMessageHeader(out, appends.length);
  let at = MESSAGE_HEADER_BYTES;
  const producer = { producerId: -1, producerEpoch: -1, baseSequence: -1 };
  appends.forEach(({ topicId, partition, values }, i) => {
    at = writeWireAppend(out, at, {
      topicId,
      partition,
      recordCount: values.length,
      ...producer,
      bytes: parts[i],
    });
  });
  return out;
}

/** Of the fake broker's cluster. */
export const FAKE_PEER_KEY = peerKey({ clusterId: 'fake-cluster', storeIncarnation: 'i' });

/** The headers of a message from broker 3 to broker 7 of the fake cluster. */
export const FROM_3_TO_7 = {
  'streamhouse-cluster': FAKE_PEER_KEY,
  'streamhouse-from': '3',
  'streamhouse-to': '7',
} as const;

/** The whole request as bytes. */
export function appendRequest(
  body: Buffer,
  headers: Readonly<Record<string, string>> = FROM_3_TO_7,
  bytesDeclared = body.length,
): Buffer {
  const lines = { 'content-type': APPENDS_TYPE, 'content-length': String(bytesDeclared), ...headers };
  const text = Object.entries(lines).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.concat([
    Buffer.from(`POST /internal/v1/produce HTTP/1.1\r\nHost: h\r\n${text.join('')}\r\n`),
    body,
  ]);
}

/** Answers in the body of a chunked answer, as [index, error number, offset]. */
export function answersIn(text: string): [number, number, number][] {
  const bytes = Buffer.from(text, 'latin1');
  const answers: [number, number, number][] = [];
  for (let at = bytes.indexOf('\r\n\r\n') + 4; at < bytes.length; ) {
    const end = bytes.indexOf('\r\n', at);
    if (end === -1) break;
    const length = Number.parseInt(bytes.toString('latin1', at, end), 16);
    for (let i = end + 2; i + WIRE_ANSWER_BYTES <= end + 2 + length; i += WIRE_ANSWER_BYTES) {
      answers.push([bytes.readUInt32LE(i), bytes.readUInt32LE(i + 4), bytes.readDoubleLE(i + 8)]);
    }
    at = end + 2 + length + 2;
  }
  return answers;
}
