/**
 * The least that can take an object and give a range of one over HTTP: node:http, counts the bytes of a PUT and throws
 * them away, answers a GET from one block of memory. So that what a client costs is not lost in what a server costs. It
 * speaks as much of S3 as the client's PUT, ranged GET and DELETE need, and checks nothing. A process of its own.
 *
 *   parent -> sink   'listen' | 'bytes'   answered by its port | by the bytes of all PUTs so far
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { SINK_OBJECT_BYTES } from './sink-object.ts';

const OBJECT = Buffer.alloc(SINK_OBJECT_BYTES, 7);
let bytesPut = 0;

function get(request: IncomingMessage, response: ServerResponse): void {
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
  const [from, to] = [Number(first), Number(last)];
  if (!(from <= to && to < OBJECT.length)) return void response.writeHead(416).end();
  response.writeHead(206, {
    'content-length': to - from + 1,
    'content-range': `bytes ${from}-${to}/${OBJECT.length}`,
  });
  response.end(OBJECT.subarray(from, to + 1));
}

const server = createServer((request, response) => {
  if (request.method === 'GET') return get(request, response);
  request.on('data', (chunk: Buffer) => (bytesPut += chunk.length));
  request.on('end', () => {
    if (request.method === 'PUT') response.writeHead(200, { etag: '"0"', 'content-length': 0 }).end();
    else response.writeHead(204).end();
  });
});

process.on('message', (question) => {
  if (question === 'listen') {
    server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port));
  } else process.send?.(bytesPut);
});
process.on('disconnect', () => process.exit());
