/**
 * DynamoDB for tests and benchmarks: dynalite in this process, on a free port of the loopback address. Owns: its
 * start and end, and keys for the SDK, which insists on some. It enforces conditions; it knows no TransactWriteItems,
 * no point-in-time recovery and no throttling (dynamodb-proxy.ts makes that up).
 */
import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import dynalite from 'dynalite';

export interface DynaliteServer {
  readonly endpoint: string;
  /** From now on the process may end without closing it. */
  unref(): void;
  close(): Promise<void>;
}

export async function startDynalite(options: { createTableMs?: number } = {}): Promise<DynaliteServer> {
  giveKeys();
  const server: Server = dynalite({ createTableMs: options.createTableMs ?? 0, deleteTableMs: 0 });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  // A connection that waits for its next request keeps no process alive; the server does until it is closed.
  server.on('connection', (socket) => socket.unref());
  const { port } = server.address() as AddressInfo;
  return {
    endpoint: `http://127.0.0.1:${port}`,
    unref: () => void server.unref(),
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** Any will do for dynalite; those that are set are left alone. */
export function giveKeys(): void {
  process.env.AWS_ACCESS_KEY_ID ??= 'test';
  process.env.AWS_SECRET_ACCESS_KEY ??= 'test';
}

let shared: Promise<DynaliteServer> | undefined;

/** One server for all tests of this process. */
export function sharedDynalite(): Promise<DynaliteServer> {
  shared ??= startDynalite().then((server) => {
    server.unref();
    return server;
  });
  return shared;
}
