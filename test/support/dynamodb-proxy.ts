/**
 * An HTTP proxy in front of a DynamoDB that fails on request: replies are dropped after success, requests come late,
 * the service throttles or breaks. Owns: the faults and their order, the record of what was asked. Each request meets
 * the first fault that matches it. Does not own: the server behind it.
 */
import { once } from 'node:events';
import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleepMs } from 'node:timers/promises';

/** One request as a fault's predicate sees it. */
export interface DynamodbCall {
  /** GetItem, PutItem, ... */
  action: string;
  // biome-ignore lint/suspicious/noExplicitAny: whatever the request says
  body: any;
}

export type DynamodbFaultEffect =
  /** It happens, and the connection breaks before the reply. */
  | { kind: 'drop-reply' }
  /** The connection breaks, and it never happens. */
  | { kind: 'drop-request' }
  /** The connection breaks, and it happens when `until` is there, or after some ms: the service was slow. */
  | { kind: 'late'; until: Promise<unknown> }
  | { kind: 'late'; untilMs: number }
  /** Nothing happens; the service answers with this error. */
  | { kind: 'refuse'; name: string; status?: number }
  /** Nothing happens, and this is the answer: for what the server behind does not know. */
  | { kind: 'reply'; body: unknown }
  /** It happens, and the service answers with this error. */
  | { kind: 'fail-after'; name: string; status?: number }
  /** It happens when `until` is there, and the answer comes then. */
  | { kind: 'hold'; until: Promise<unknown> }
  /** Changes the request before it goes on, and the answer before it comes back. */
  | {
      kind: 'rewrite';
      request?: (call: DynamodbCall) => unknown;
      reply?: (reply: unknown, call: DynamodbCall) => unknown;
    };

export interface DynamodbFault {
  on: string | ((call: DynamodbCall) => boolean);
  effect: DynamodbFaultEffect;
  /** How many requests it strikes before it is used up; for ever if left out. */
  times?: number;
}

interface Reply {
  status: number;
  headers: IncomingMessage['headers'];
  body: Buffer;
}

export class DynamodbProxy {
  readonly endpoint: string;
  /** Every request that came, in order, whatever became of it. */
  readonly calls: DynamodbCall[] = [];
  readonly #server: Server;
  readonly #target: URL;
  #faults: (DynamodbFault & { left: number })[] = [];

  private constructor(server: Server, target: string) {
    this.#server = server;
    this.#target = new URL(target);
    this.endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on('request', (request, response) => void this.#serve(request, response));
  }

  static async start(target: string): Promise<DynamodbProxy> {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    server.unref();
    server.on('connection', (socket) => socket.unref());
    return new DynamodbProxy(server, target);
  }

  /** Adds a fault behind those there are; returns what removes it. */
  inject(fault: DynamodbFault): () => void {
    const added = { ...fault, left: fault.times ?? Number.POSITIVE_INFINITY };
    this.#faults.push(added);
    return () => {
      this.#faults = this.#faults.filter((present) => present !== added);
    };
  }

  /** Removes all faults and forgets the calls. */
  clear(): void {
    this.#faults = [];
    this.calls.length = 0;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const bytes = await readAll(request);
    const action = String(request.headers['x-amz-target']).split('.')[1];
    const call: DynamodbCall = { action, body: JSON.parse(bytes.toString()) };
    this.calls.push(call);
    const effect = this.#strike(call);
    switch (effect?.kind) {
      case undefined:
        return answer(response, await this.#forward(request, bytes));
      case 'drop-request':
        response.destroy();
        return;
      case 'drop-reply':
        await this.#forward(request, bytes);
        response.destroy();
        return;
      case 'late':
        response.destroy();
        await ('until' in effect ? effect.until : sleepMs(effect.untilMs));
        await this.#forward(request, bytes);
        return;
      case 'refuse':
        return answer(response, refusal(effect));
      case 'reply': {
        const headers = { 'content-type': 'application/x-amz-json-1.0' };
        return answer(response, { status: 200, headers, body: Buffer.from(JSON.stringify(effect.body)) });
      }
      case 'fail-after':
        await this.#forward(request, bytes);
        return answer(response, refusal(effect));
      case 'hold':
        await effect.until;
        return answer(response, await this.#forward(request, bytes));
      case 'rewrite': {
        const asked =
          effect.request === undefined ? bytes : Buffer.from(JSON.stringify(effect.request(call)));
        const reply = await this.#forward(request, asked);
        if (effect.reply !== undefined) {
          reply.body = Buffer.from(JSON.stringify(effect.reply(JSON.parse(reply.body.toString()), call)));
        }
        return answer(response, reply);
      }
    }
  }

  #strike(call: DynamodbCall): DynamodbFaultEffect | undefined {
    const matches = ({ on }: DynamodbFault) => (typeof on === 'string' ? on === call.action : on(call));
    const fault = this.#faults.find((one) => one.left > 0 && matches(one));
    if (fault === undefined) return undefined;
    fault.left--;
    return fault.effect;
  }

  #forward(request: IncomingMessage, body: Buffer): Promise<Reply> {
    const { host: _, 'content-length': __, ...headers } = request.headers;
    return new Promise((resolve, reject) => {
      const onward = httpRequest(
        this.#target,
        { method: request.method, path: request.url, headers: { ...headers, 'content-length': body.length } },
        (reply) => {
          const status = reply.statusCode ?? 0;
          readAll(reply).then((bytes) => resolve({ status, headers: reply.headers, body: bytes }), reject);
        },
      );
      onward.on('error', reject);
      onward.end(body);
    });
  }
}

async function readAll(stream: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

function answer(response: ServerResponse, { status, headers, body }: Reply): void {
  // The checksum and the length are of the body as it was.
  const { 'x-amz-crc32': _, 'content-length': __, 'transfer-encoding': ___, ...rest } = headers;
  response.writeHead(status, { ...rest, 'content-length': body.length });
  response.end(body);
}

function refusal({ name, status = 400 }: { name: string; status?: number }): Reply {
  const body = { __type: `com.amazonaws.dynamodb.v20120810#${name}`, message: `made up: ${name}` };
  const headers = { 'content-type': 'application/x-amz-json-1.0' };
  return { status, headers, body: Buffer.from(JSON.stringify(body)) };
}
