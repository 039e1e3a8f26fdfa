/**
 * A metadata store under another name that asks before, and tells after, every call: for tests that end a process
 * between two calls, or do something in between. Any thread.
 */
import {
  callMetadataStore,
  ForwardingMetadataStore,
  type MetadataArguments,
  type MetadataMethod,
  type MetadataResult,
} from '../../storage/metadata/forwarding-metadata-store.ts';
import type { MetadataStore } from '../../storage/metadata/metadata-store.ts';

export type MetadataHook = (method: MetadataMethod, when: 'before' | 'after') => void | Promise<void>;

export class HookedMetadataStore extends ForwardingMetadataStore {
  readonly description: string;
  readonly bodyBytesMax: number;
  hook: MetadataHook = () => undefined;
  readonly #inner: MetadataStore;

  constructor(inner: MetadataStore, description: string) {
    super();
    this.description = description;
    this.bodyBytesMax = inner.bodyBytesMax;
    this.#inner = inner;
  }

  protected override async forward<M extends MetadataMethod>(
    method: M,
    args: MetadataArguments<M>,
  ): Promise<MetadataResult<M>> {
    await this.hook(method, 'before');
    const result = await callMetadataStore(this.#inner, method, args);
    await this.hook(method, 'after');
    return result;
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}
