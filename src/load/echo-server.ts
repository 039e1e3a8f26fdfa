/**
 * The bare server that a broker is compared with: node:http, reads a request's body and answers it. A process of its
 * own, forked by the harness or a benchmark, and ended with the channel to it.
 *
 *   server -> parent   { type: 'listening', port }, once
 *   parent -> server   { type: 'cpu' }, answered by { type: 'cpu', seconds }: what it has used so far
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What it is asked. */
export type ToEcho = { type: 'cpu' };
/** What it tells. */
export type FromEcho = { type: 'listening'; port: number } | { type: 'cpu'; seconds: number };

function tell(message: FromEcho): void {
  process.send?.(message);
}

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    const body = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': body.length });
    response.end(body);
  });
});

server.listen(0, '127.0.0.1', () => {
  tell({ type: 'listening', port: (server.address() as AddressInfo).port });
});
process.on('message', () => {
  const { user, system } = process.cpuUsage();
  tell({ type: 'cpu', seconds: (user + system) / 1e6 });
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined);
process.on('disconnect', () => process.exit());
