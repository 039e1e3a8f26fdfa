/**
 * A plain producer that sends several requests over one connection without waiting for their answers: they must be
 * appended in that order. Owns: such a connection, and reading its answers. It never sends anything twice. Does not own:
 * judgement. The runner's process.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { type Answer, appendResults, BINARY, base64, type OutgoingRecord, refusalOf } from './door-client.ts';
import type { Door } from './doors.ts';
import type { RecordResult } from './history.ts';
import { type ProducerParts, recordText, type TopicPlan, Whistle } from './producers.ts';

const BURST_MAX = 5;
const BURSTS_PER_CONNECTION = 20;
const ANSWERS_MS_MAX = 3000;
const ANSWER_BYTES_MAX = 64 * 1024;

interface Pending {
  r: number;
  records: OutgoingRecord[];
}

export class PipelinedProducer {
  readonly #parts: ProducerParts;
  readonly #name: string;
  readonly #topics: readonly TopicPlan[];
  readonly #whistle = new Whistle();
  #running: Promise<void> = Promise.resolve();
  #connections = 0;
  #number = 0;

  constructor(parts: ProducerParts, name: string, topics: readonly TopicPlan[]) {
    this.#parts = parts;
    this.#name = name;
    this.#topics = topics;
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#whistle.stopped = true;
    await this.#running;
  }

  abandon(): void {
    this.#whistle.stopped = true;
  }

  async #run(): Promise<void> {
    const { doors, random, paceMs } = this.#parts;
    while (!this.#whistle.stopped) {
      const door = doors.pick();
      if (door !== null) await this.#useConnection(door);
      await sleepMs(paceMs * (1 + random.unit()));
    }
  }

  async #useConnection(door: Door): Promise<void> {
    const { random, paceMs } = this.#parts;
    const { hostname, port } = new URL(door.client.url);
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    // Whoever waits for answers sees the end.
    socket.on('error', () => socket.destroy());
    await Promise.race([once(socket, 'connect').catch(() => undefined), sleepMs(ANSWERS_MS_MAX)]);
    const answers = new AnswerReader(socket);
    const pipe = `${this.#name}#${++this.#connections}`;
    for (let burst = 0; burst < BURSTS_PER_CONNECTION; burst++) {
      if (socket.readyState !== 'open' || this.#whistle.stopped) break;
      await this.#burst(door, socket, answers, pipe);
      await sleepMs(paceMs * (0.5 + random.unit()));
    }
    socket.destroy();
  }

  /** All requests are written before the first answer is looked at. */
  async #burst(door: Door, socket: Socket, answers: AnswerReader, pipe: string): Promise<void> {
    const { random, history } = this.#parts;
    const topic = this.#topics[random.below(this.#topics.length)];
    const partition = random.below(topic.partitions);
    const pending = Array.from({ length: 2 + random.below(BURST_MAX - 1) }, (): Pending => {
      const text = recordText(this.#parts, `${this.#name}.${this.#number++}`);
      const records = [{ partition, key: this.#name, text }];
      const r = history.nextRequest();
      const recs = [[partition, text] as const];
      history.add({ e: 'send', r, b: door.name, prod: this.#name, pipe, topic: topic.name, recs });
      socket.write(requestText(`/topics/${topic.name}/partitions/${partition}`, records));
      return { r, records };
    });
    const deadline = performance.now() + ANSWERS_MS_MAX;
    for (const { r, records } of pending) {
      const answer = await answers.next(deadline - performance.now());
      const results = answer === null ? lost(records) : resultsOf(answer, records);
      history.add({ e: 'done', r, res: results });
      // Its answers may still come, and nobody would know whose they are.
      if (answer === null) socket.destroy();
    }
  }
}

function requestText(path: string, records: readonly OutgoingRecord[]): string {
  const rows = records.map(({ key, text }) => ({ key: base64(key), value: base64(text) }));
  const body = JSON.stringify({ records: rows });
  const head = [
    `POST ${path} HTTP/1.1`,
    'Host: cluster',
    `Content-Type: ${BINARY}`,
    `Content-Length: ${body.length}`,
  ];
  return `${head.join('\r\n')}\r\n\r\n${body}`;
}

interface RawAnswer {
  status: number;
  text: string;
}

function resultsOf({ status, text }: RawAnswer, records: readonly OutgoingRecord[]): RecordResult[] {
  let answer: Answer<{ results: RecordResult[] }>;
  try {
    if (status >= 300) answer = { ok: false, text, refusal: refusalOf(status, text) };
    else answer = appendResults(JSON.parse(text), records);
  } catch {
    return lost(records);
  }
  if (answer.ok) return answer.results;
  const { outcome, code } = answer.refusal;
  return records.map(() => [outcome, code] as const);
}

function lost(records: readonly OutgoingRecord[]): RecordResult[] {
  return records.map(() => ['unknown', 'pipelined answer lost'] as const);
}

/** Answers with a Content-Length, one after the other. */
class AnswerReader {
  readonly #socket: Socket;
  #bytes: Buffer = Buffer.alloc(0);
  #wake: () => void = () => undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (bytes) => {
      this.#bytes = Buffer.concat([this.#bytes, bytes]);
      if (this.#bytes.length > ANSWER_BYTES_MAX * BURST_MAX) socket.destroy();
      this.#wake();
    });
    socket.on('close', () => this.#wake());
  }

  /** Null when the connection ended, or nothing came in time. */
  async next(withinMs: number): Promise<RawAnswer | null> {
    const deadline = performance.now() + withinMs;
    for (;;) {
      const answer = this.#take();
      if (answer !== null) return answer;
      const leftMs = deadline - performance.now();
      if (leftMs <= 0 || this.#socket.destroyed) return null;
      const woken = new Promise<void>((resolve) => (this.#wake = resolve));
      const over = new AbortController();
      await Promise.race([woken, sleepMs(leftMs, undefined, { signal: over.signal }).catch(() => undefined)]);
      over.abort();
    }
  }

  #take(): RawAnswer | null {
    const headEnd = this.#bytes.indexOf('\r\n\r\n');
    if (headEnd < 0) return null;
    const head = this.#bytes.toString('latin1', 0, headEnd);
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1]);
    const length = Number(/^content-length: *(\d+)$/im.exec(head)?.[1]);
    if (!Number.isInteger(status) || !Number.isInteger(length)) {
      this.#socket.destroy();
      return null;
    }
    const end = headEnd + 4 + length;
    if (this.#bytes.length < end) return null;
    const text = this.#bytes.toString('utf8', headEnd + 4, end);
    this.#bytes = this.#bytes.subarray(end);
    return { status, text };
  }
}
