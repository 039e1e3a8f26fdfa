/**
 * A door before a fake broker on a free port, with what it told its observer and what it admitted, and two
 * ways to talk to it: `call` (one request over fetch) and `RawClient` (bytes over a socket, as clients should
 * not).
 */
import assert from 'node:assert/strict';
import net from 'node:net';
import type { TestContext } from 'node:test';
import { systemClock } from '../../src/core/clock.ts';
import { HTTP_DOOR_DEFAULTS, type HttpDoorSettings } from '../../src/server/http/door-context.ts';
import { createHttpDoor, type HttpDoor } from '../../src/server/http/http-door.ts';
import { FakeBroker } from './fake-broker.ts';

export interface Observed {
  route: string;
  method: string;
  status: number;
  bytesIn: number;
  bytesOut: number;
}

export interface DoorUnderTest {
  broker: FakeBroker;
  door: HttpDoor;
  port: number;
  url: string;
  requests: Observed[];
  faults: string[];
  internal: unknown[];
  refused: { count: number };
  /** Bytes that may be held; what is held now. */
  admission: { limit: number; held: number };
}

export async function startDoor(
  t: TestContext,
  changes: Partial<HttpDoorSettings> = {},
): Promise<DoorUnderTest> {
  const broker = new FakeBroker();
  const requests: Observed[] = [];
  const faults: string[] = [];
  const internal: unknown[] = [];
  const refused = { count: 0 };
  const admission = { limit: Number.MAX_SAFE_INTEGER, held: 0 };
  const settings: HttpDoorSettings = {
    ...HTTP_DOOR_DEFAULTS,
    bodyBytesMax: 1024 * 1024,
    produceTimeoutMs: 10_000,
    connectionsMax: 100,
    ...changes,
  };
  const counted = {
    admit(bytes: number) {
      assert(bytes > 0);
      if (admission.held + bytes > admission.limit) return false;
      admission.held += bytes;
      return true;
    },
    release(bytes: number) {
      admission.held -= bytes;
      assert(admission.held >= 0);
    },
  };
  const door = createHttpDoor(
    broker,
    settings,
    {
      requestDone(route, method, status, durationMs, bytesIn, bytesOut) {
        assert(durationMs >= 0);
        requests.push({ route, method, status, bytesIn, bytesOut });
      },
      connectionRefused: () => refused.count++,
      clientFault: (reason) => faults.push(reason),
      internalError: (error) => internal.push(error),
    },
    systemClock,
    { bodies: counted, answers: counted },
  );
  const { port } = await door.listen('127.0.0.1', 0);
  t.after(() => door.close({ graceMs: 0 }));
  return {
    broker,
    door,
    port,
    url: `http://127.0.0.1:${port}`,
    requests,
    faults,
    internal,
    refused,
    admission,
  };
}

export const JSON_V2 = 'application/vnd.kafka.json.v2+json';
export const BINARY_V2 = 'application/vnd.kafka.binary.v2+json';

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of any shape.
  json: any;
}

/** One request. A body that is not a string goes as application/json. */
export async function call(
  under: DoorUnderTest,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const init: RequestInit = { method, headers: { ...headers } };
  if (body !== undefined) {
    init.body =
      typeof body === 'string' || body instanceof Uint8Array ? (body as string) : JSON.stringify(body);
    const sent = init.headers as Record<string, string>;
    sent['content-type'] ??= 'application/json';
  }
  const answer = await fetch(under.url + path, init);
  const text = await answer.text();
  let json: unknown = null;
  if (text !== '' && answer.headers.get('content-type')?.includes('json')) json = JSON.parse(text);
  return { status: answer.status, headers: answer.headers, text, json };
}

export function produceText(path: string, body: string, headers = ''): string {
  return (
    `POST ${path} HTTP/1.1\r\nHost: h\r\nContent-Type: ${JSON_V2}\r\n` +
    `Content-Length: ${Buffer.byteLength(body)}\r\n${headers}\r\n${body}`
  );
}

/** A TCP connection with what came so far. */
export class RawClient {
  readonly socket: net.Socket;
  text = '';
  ended = false;
  readonly #changed: (() => void)[] = [];

  constructor(port: number) {
    this.socket = net.connect(port, '127.0.0.1');
    const changed = () => {
      for (const wake of this.#changed.splice(0)) wake();
    };
    this.socket.on('data', (bytes) => {
      this.text += bytes.toString('latin1');
      changed();
    });
    this.socket.on('error', changed);
    this.socket.on('close', () => {
      this.ended = true;
      changed();
    });
  }

  send(text: string | Buffer): void {
    this.socket.write(text);
  }

  /** Waits until `found` of the text holds, at most 5 s. */
  async until(found: (text: string) => boolean, what = 'an answer'): Promise<string> {
    const deadline = performance.now() + 5000;
    while (!found(this.text)) {
      const left = deadline - performance.now();
      if (left <= 0 || this.ended)
        assert.fail(`no ${what} came; got ${JSON.stringify(this.text.slice(0, 500))}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#changed.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    return this.text;
  }

  async untilEnd(): Promise<string> {
    if (!this.ended) await new Promise((resolve) => this.socket.once('close', resolve));
    return this.text;
  }

  destroy(): void {
    this.socket.destroy();
  }
}

/** Waits for a condition, at most 5 s. */
export async function eventually(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 5000;
  while (!condition()) {
    if (performance.now() > deadline) assert.fail(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Statuses of the answers in a connection's text, in order. */
export function statuses(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
}
