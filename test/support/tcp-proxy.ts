/**
 * A TCP proxy that misbehaves on request, for tests of what stands between a client and its server: delay, silence
 * in one direction (a reply lost after success, a request that never arrives), silence in both (half open), a stall
 * after which everything arrives late, refusal, cut connections. Owns: connections and bytes. Does not own: what the
 * bytes mean. Loopback only.
 */

import type { AddressInfo } from 'node:net';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleepMs } from 'node:timers/promises';

export interface TcpFaults {
  /** Every piece waits so long in either direction; order stays. */
  delayMs: number;
  /** What the client sends is swallowed. */
  dropsRequests: boolean;
  /** What the server answers is swallowed. */
  dropsReplies: boolean;
  /** New connections are ended at once. */
  refuses: boolean;
  /** Nothing passes in either direction until `heal`; then all of it does, late, as after a network's outage. */
  stalls: boolean;
}

const NO_FAULTS: TcpFaults = {
  delayMs: 0,
  dropsRequests: false,
  dropsReplies: false,
  refuses: false,
  stalls: false,
};

export class TcpProxy {
  readonly port: number;
  faults: TcpFaults = { ...NO_FAULTS };
  /** Connections accepted so far. */
  accepted = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Resolves with the next `heal`. */
  #healed = Promise.withResolvers<void>();

  private constructor(server: Server, targetPort: number) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on('connection', (client) => this.#join(client, targetPort));
  }

  static async start(targetPort: number): Promise<TcpProxy> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    return new TcpProxy(server, targetPort);
  }

  /** The URL with this proxy in the place of its host and port. */
  through(url: string): string {
    const changed = new URL(url);
    changed.hostname = '127.0.0.1';
    changed.port = String(this.port);
    return changed.href;
  }

  heal(): void {
    this.faults = { ...NO_FAULTS };
    this.#healed.resolve();
    this.#healed = Promise.withResolvers<void>();
  }

  /** Resets every connection there is. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
    this.#sockets.clear();
  }

  async stop(): Promise<void> {
    this.heal();
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #join(client: Socket, targetPort: number): void {
    this.accepted++;
    if (this.faults.refuses) {
      client.resetAndDestroy();
      return;
    }
    const server = connect({ port: targetPort, host: '127.0.0.1', noDelay: true });
    client.setNoDelay(true);
    this.#pipe(client, server, () => this.faults.dropsRequests);
    this.#pipe(server, client, () => this.faults.dropsReplies);
  }

  #pipe(from: Socket, to: Socket, isDropped: () => boolean): void {
    this.#sockets.add(from);
    let before: Promise<unknown> = Promise.resolve();
    from.on('data', (bytes) => {
      if (isDropped()) return;
      // Counted from its arrival, so that many pieces do not add up.
      const dueMs = performance.now() + this.faults.delayMs;
      before = before.then(async () => {
        if (this.faults.stalls) await this.#healed.promise;
        const delayMs = dueMs - performance.now();
        if (delayMs > 0) await sleepMs(delayMs);
        if (!to.destroyed) to.write(bytes);
      });
    });
    // An end behind what was written before it; an error of either side ends both.
    from.on('end', () => void before.then(() => to.end()));
    from.on('error', () => to.destroy());
    from.on('close', () => {
      this.#sockets.delete(from);
      void before.then(() => to.destroySoon());
    });
  }
}
