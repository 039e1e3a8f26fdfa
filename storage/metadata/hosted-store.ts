/**
 * What a backend with a hosting thread gives to open-metadata-store.ts. Owns the interface only, apart from both
 * so that neither imports the other in a circle.
 */
import type { MessagePort } from 'node:worker_threads';

/** A store that runs behind ports. */
export interface HostedStore {
  readonly description: string;
  readonly bodyBytesMax: number;
  readonly lost: Promise<never>;
  /** The client's end of a new channel to the store. */
  port(): MessagePort;
  close(): Promise<void>;
}
