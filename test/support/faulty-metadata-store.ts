/**
 * A metadata store that fails on request, for tests: before it did anything, after it did, late, or never. Owns:
 * the faults and their order. Each call meets the first fault that matches it. Any thread.
 */
import { type ErrorCode, StreamHouseError } from '../../src/core/errors.ts';
import {
  callMetadataStore,
  ForwardingMetadataStore,
  type MetadataArguments,
  type MetadataMethod,
  type MetadataResult,
} from '../../storage/metadata/forwarding-metadata-store.ts';
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';

/** One call as a fault's predicate sees it. */
export interface MetadataCall {
  method: MetadataMethod;
  args: readonly unknown[];
}

type Delay = Promise<unknown> | (() => Promise<unknown>);

export type MetadataFaultEffect =
  /** Nothing reaches the store. */
  | { kind: 'error-before'; code?: ErrorCode }
  /** It happens, and the caller is told that nobody knows. */
  | { kind: 'error-after'; code?: ErrorCode }
  /** Waits before the call, after it, or both; a function is asked for each call. */
  | { kind: 'delay'; before?: Delay; after?: Delay }
  /** Never answers: nothing happens, or it does with `afterSuccess`. */
  | { kind: 'hang'; afterSuccess?: boolean };

export interface MetadataFault {
  on: MetadataMethod | readonly MetadataMethod[] | ((call: MetadataCall) => boolean);
  effect: MetadataFaultEffect;
  /** How many calls it strikes before it is used up; for ever if left out. */
  times?: number;
}

export class FaultyMetadataStore extends ForwardingMetadataStore {
  readonly description: string;
  readonly bodyBytesMax: number;
  /** Every call made, in order, whatever became of it. */
  readonly calls: MetadataCall[] = [];
  readonly #inner: MetadataStore;
  #faults: (MetadataFault & { left: number })[] = [];

  constructor(inner: MetadataStore) {
    super();
    this.description = `faulty ${inner.description}`;
    this.bodyBytesMax = inner.bodyBytesMax;
    this.#inner = inner;
  }

  /** Adds a fault behind those there are; returns what removes it. */
  inject(fault: MetadataFault): () => void {
    const added = { ...fault, left: fault.times ?? Number.POSITIVE_INFINITY };
    this.#faults.push(added);
    return () => {
      this.#faults = this.#faults.filter((present) => present !== added);
    };
  }

  /** The store works again; calls that hang stay so. */
  heal(): void {
    this.#faults = [];
  }

  protected override async forward<M extends MetadataMethod>(
    method: M,
    args: MetadataArguments<M>,
  ): Promise<MetadataResult<M>> {
    const call = { method, args };
    this.calls.push(call);
    const effect = this.#strike(call);
    const run = () => callMetadataStore(this.#inner, method, args);
    switch (effect?.kind) {
      case undefined:
        return run();
      case 'error-before':
        throw new StreamHouseError(effect.code ?? 'store-unavailable', `injected before ${method}`);
      case 'error-after':
        await run();
        throw new StreamHouseError(effect.code ?? 'store-unknown', `injected after ${method}`);
      case 'delay': {
        // Without a delay not a turn is lost: tests count on the order of calls.
        if (effect.before) await waitFor(effect.before);
        const result = await run();
        if (effect.after) await waitFor(effect.after);
        return result;
      }
      case 'hang':
        if (effect.afterSuccess) await run();
        return new Promise(() => undefined);
    }
  }

  #strike(call: MetadataCall): MetadataFaultEffect | undefined {
    const fault = this.#faults.find(({ on }) => {
      if (typeof on === 'function') return on(call);
      return typeof on === 'string' ? on === call.method : on.includes(call.method);
    });
    if (!fault) return undefined;
    if (--fault.left <= 0) this.#faults = this.#faults.filter((present) => present !== fault);
    return fault.effect;
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}

async function waitFor(delay: Delay): Promise<void> {
  await (typeof delay === 'function' ? delay() : delay);
}
