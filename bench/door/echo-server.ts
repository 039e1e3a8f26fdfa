/**
 * The bare server that the HTTP door is compared with: node:http, reads a request's body and answers it. Its own
 * process. 'listen' is answered with the port, 'cpu' with the CPU seconds used so far.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    const body = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': body.length });
    response.end(body);
  });
});

process.on('message', (question) => {
  if (question === 'listen') {
    server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port));
  } else {
    const { user, system } = process.cpuUsage();
    process.send?.((user + system) / 1e6);
  }
});
