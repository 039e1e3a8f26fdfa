/**
 * What the index needs of a metadata store: finding and putting pages. Owns: these shapes, which
 * storage/metadata/metadata-store.ts has as `findPages`, `putPages` and `IndexPage`. Does not own: any store,
 * nor how a lane reaches it. Types only.
 */
import type { PartitionId } from '../src/core/ids.ts';

/** A page as the store keeps it; `bytes` are page-codec's. */
export interface StoredPage extends PartitionId {
  shard: number;
  baseOffset: number;
  /** The page folds the shard's log through this seq; the store never replaces a higher stamp by a lower or equal. */
  stamp: number;
  bytes: Uint8Array;
}

/** For each request the page with the greatest base <= offset, or null, in the order of the requests. */
export type FindPages = (
  requests: readonly (PartitionId & { offset: number })[],
) => Promise<(StoredPage | null)[]>;

/** Each page on its own: stored if there is none at its base or its stamp is higher than the one there. */
export type PutPages = (pages: readonly StoredPage[]) => Promise<void>;
