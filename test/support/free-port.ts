/**
 * Whether a port of loopback is free at the moment. Owns: that look. Any process of the tests.
 */
import { createServer } from 'node:net';

export function canListen(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
