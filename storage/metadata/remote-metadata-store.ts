/**
 * A metadata store that lives on another thread. Owns: sending the calls of one turn of the event loop as one
 * message, matching replies, and what becomes of calls whose answer will never come. Does not own: the port's
 * other end (served-metadata-store). Any thread.
 *
 *   open     calls are sent
 *   closing  `close` was called: calls fail at once; those outstanding are awaited, then the port is closed
 *   lost     the port closed (the hosting thread ended, or `close` is done): outstanding writes fail as
 *            'store-unknown', outstanding reads and all later calls as 'store-unavailable'
 */
import type { MessagePort } from 'node:worker_threads';
import { StreamHouseError } from '../../src/core/errors.ts';
import { checkBody, checkEntries, checkLeases, checkPages } from './check-input.ts';
import {
  ForwardingMetadataStore,
  METADATA_METHODS,
  type MetadataArguments,
  type MetadataMethod,
  type MetadataResult,
} from './forwarding-metadata-store.ts';
import type { CheckpointPointer, IndexPage, LogEntry, ObjectRow } from './metadata-store.ts';
import { type StoreReply, type StoreRequest, withOwnBytes } from './store-messages.ts';

interface Outstanding {
  method: MetadataMethod;
  resolve: (result: never) => void;
  reject: (error: unknown) => void;
}

/**
 * Calls that wait for an answer; the next one fails as 'store-unavailable'. Far above what admission lets in: it
 * is there so that a store that hangs cannot fill the memory.
 */
const OUTSTANDING_MAX = 65_536;

export class RemoteMetadataStore extends ForwardingMetadataStore {
  readonly description: string;
  readonly bodyBytesMax: number;
  readonly #port: MessagePort;
  readonly #outstanding = new Map<number, Outstanding>();
  #state: 'open' | 'closing' | 'lost' = 'open';
  #lastId = 0;
  #batch: StoreRequest[] = [];
  #moved: ArrayBuffer[] = [];
  #onIdle: (() => void) | null = null;

  constructor(port: MessagePort, served: { description: string; bodyBytesMax: number }) {
    super();
    this.#port = port;
    this.description = served.description;
    this.bodyBytesMax = served.bodyBytesMax;
    port.on('message', (replies: StoreReply[]) => this.#settle(replies));
    port.on('close', () => this.#lose());
    // The port keeps the thread alive only while somebody waits for an answer.
    port.unref();
  }

  protected override forward<M extends MetadataMethod>(
    method: M,
    args: MetadataArguments<M>,
  ): Promise<MetadataResult<M>> {
    if (this.#state !== 'open') {
      return Promise.reject(new StreamHouseError('store-unavailable', `${this.description}: ${this.#state}`));
    }
    if (this.#outstanding.size >= OUTSTANDING_MAX) {
      const message = `${this.description}: ${OUTSTANDING_MAX} calls wait for an answer`;
      return Promise.reject(new StreamHouseError('store-unavailable', message));
    }
    return new Promise<MetadataResult<M>>((resolve, reject) => {
      const id = ++this.#lastId;
      // Bytes are copied now, as the caller may change them next; the rest is cloned at the end of this turn.
      this.#batch.push(withOwnBytes({ id, method, args }, this.#moved));
      if (this.#batch.length === 1) atEndOfTurn(() => this.#send());
      if (this.#outstanding.size === 0) this.#port.ref();
      this.#outstanding.set(id, { method, resolve, reject });
    });
  }

  #send(): void {
    const batch = this.#batch;
    const moved = this.#moved;
    this.#batch = [];
    this.#moved = [];
    if (this.#state === 'lost') return;
    try {
      this.#port.postMessage(batch, moved);
    } catch (error) {
      // Something in the arguments cannot be cloned: a bug of a caller's, told to all of this turn.
      for (const { id } of batch) this.#take(id)?.reject(error);
    }
  }

  #settle(replies: StoreReply[]): void {
    for (const reply of replies) {
      const waiting = this.#take(reply.id);
      if (reply.error) waiting?.reject(StreamHouseError.fromPlain(reply.error));
      else waiting?.resolve(reply.result as never);
    }
  }

  #take(id: number): Outstanding | undefined {
    const waiting = this.#outstanding.get(id);
    this.#outstanding.delete(id);
    if (this.#outstanding.size === 0) {
      this.#port.unref();
      this.#onIdle?.();
    }
    return waiting;
  }

  #lose(): void {
    this.#state = 'lost';
    const unsent = new Set(this.#batch.map(({ id }) => id));
    for (const [id, { method }] of [...this.#outstanding]) {
      const isSure = METADATA_METHODS[method] === 'read' || unsent.has(id);
      const code = isSure ? 'store-unavailable' : 'store-unknown';
      this.#take(id)?.reject(
        new StreamHouseError(code, `${this.description}: its thread ended before it answered ${method}`),
      );
    }
  }

  /** Waits for the outstanding answers and closes the port. The store itself lives on. */
  async close(): Promise<void> {
    if (this.#state !== 'open') return;
    this.#state = 'closing';
    if (this.#outstanding.size > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
    this.#port.close();
  }

  // What is wrong with bodies and leases is said here, on the caller's thread, and before bodies are copied.

  override async appendEntries(entries: readonly LogEntry[], objects: readonly ObjectRow[]) {
    checkEntries(entries, this.bodyBytesMax);
    return this.forward('appendEntries', [entries, objects]);
  }

  override async acquireLeases(...args: MetadataArguments<'acquireLeases'>) {
    checkLeases(...args);
    return this.forward('acquireLeases', args);
  }

  override async releaseLeases(...args: MetadataArguments<'releaseLeases'>) {
    checkLeases(...args);
    return this.forward('releaseLeases', args);
  }

  override async putPages(pages: readonly IndexPage[]) {
    checkPages(pages, this.bodyBytesMax);
    return this.forward('putPages', [pages]);
  }

  override async putCheckpoint(shard: number, pointer: CheckpointPointer, bytes: Uint8Array) {
    checkBody(bytes, this.bodyBytesMax, 'a checkpoint');
    return this.forward('putCheckpoint', [shard, pointer, bytes]);
  }
}

/** After the microtasks that this turn still has: what they call rides in the same message. */
function atEndOfTurn(run: () => void): void {
  queueMicrotask(() => process.nextTick(run));
}
