/**
 * One thread's connection to the simulated metadata store. Owns: a request's way there and back: late, lost,
 * refused, executed after its sender stopped waiting. Does not own: the store's meaning (the memory backend, all
 * connections sharing one state) nor what is checked when a request is executed (store-truth). The simulation's
 * only thread.
 */
import { StreamHouseError } from '../../src/core/errors.ts';
import {
  callMetadataStore,
  ForwardingMetadataStore,
  METADATA_METHODS,
  type MetadataArguments,
  type MetadataMethod,
  type MetadataResult,
} from '../../storage/metadata/forwarding-metadata-store.ts';
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';
import type { Faults } from './faults.ts';
import type { SimThread } from './host.ts';

/** How long a sender waits for a reply, virtual ms. */
export const STORE_TIMEOUT_MS = 80;

/** Sees every request at the moment of its execution, and what came of it. */
export interface ExecutionObserver {
  executed(method: MetadataMethod, args: readonly unknown[], result: unknown): void;
}

export interface SimStoreParts {
  /** Executes; shared by all. */
  inner: MetadataStore;
  faults: Faults;
  observer: ExecutionObserver;
  /** The mutant that takes a lost reply for success. */
  lostReplyIsDone: boolean;
}

export class SimMetadataStore extends ForwardingMetadataStore {
  readonly description = 'simulated';
  readonly bodyBytesMax: number;
  readonly #parts: SimStoreParts;
  readonly #thread: SimThread;

  constructor(parts: SimStoreParts, thread: SimThread) {
    super();
    this.#parts = parts;
    this.#thread = thread;
    this.bodyBytesMax = parts.inner.bodyBytesMax;
  }

  protected override forward<M extends MetadataMethod>(
    method: M,
    args: MetadataArguments<M>,
  ): Promise<MetadataResult<M>> {
    const thread = this.#thread;
    const { scheduler } = thread.host;
    const { faults, lostReplyIsDone } = this.#parts;
    const fate = faults.draw(thread.host);
    const isWrite = METADATA_METHODS[method] === 'write';
    return new Promise((resolve, reject) => {
      let settled = false;
      const settle = (how: () => void) =>
        thread.deliver(() => {
          if (settled) return;
          settled = true;
          timeout.cancelled = true;
          how();
        });
      const timeout = scheduler.after(STORE_TIMEOUT_MS, () => {
        settle(() => {
          scheduler.trace('timeout', thread.host.name, method);
          if (lostReplyIsDone && method === 'appendEntries') {
            const entries = args[0] as readonly unknown[];
            resolve(entries.map(() => ({ kind: 'done' })) as MetadataResult<M>);
            return;
          }
          const code = isWrite ? 'store-unknown' : 'store-unavailable';
          reject(new StreamHouseError(code, `${method}: no reply`));
        });
      });
      const { requestMs, replyMs } = fate;
      if (requestMs === null) return;
      const reply = (how: () => void) => {
        if (replyMs !== null) scheduler.after(replyMs, () => settle(how));
      };
      scheduler.after(requestMs, () => {
        if (fate.refused) {
          reply(() => reject(new StreamHouseError('store-unavailable', `${method}: refused`)));
          return;
        }
        this.#execute(method, args).then(
          (result) => reply(() => resolve(result)),
          (error) => reply(() => reject(error)),
        );
      });
    });
  }

  /** One atomic step: the memory store does all its work in the call itself. */
  async #execute<M extends MetadataMethod>(
    method: M,
    args: MetadataArguments<M>,
  ): Promise<MetadataResult<M>> {
    const { inner, observer } = this.#parts;
    const { scheduler, name } = this.#thread.host;
    try {
      const result = await callMetadataStore(inner, method, args);
      if (METADATA_METHODS[method] === 'write') scheduler.trace('execute', name, method);
      observer.executed(method, args, result);
      return result;
    } catch (error) {
      scheduler.trace('execute-failed', name, method, String(error));
      throw error;
    }
  }

  async close(): Promise<void> {
    // Connections of a dead thread need no ending.
  }
}
