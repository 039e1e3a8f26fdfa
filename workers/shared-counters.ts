/**
 * Counters and histograms in shared memory: one block per thread, written by that thread alone, read by the main
 * thread for /metrics without a message. Owns: their names and places. Does not own: how they are shown
 * (src/observe). Any thread.
 *
 * A block has one writer, and an aligned 64-bit float is stored whole, so that plain stores suffice: a reader
 * sees a value that was true a moment ago.
 */

/** Everything that is counted, with what it counts. Gauges are set, counters only rise. */
export const COUNTERS = {
  // batching worker
  appendsTotal: 'Appends taken by the batching worker',
  appendsAnsweredTotal: 'Appends answered, refusals included',
  appendsRefusedTotal: 'Appends refused: producer sequence or epoch, deleted topic, shard not held',
  appendsDuplicateTotal: 'Appends answered as duplicates with their first offset',
  appendsAbandonedTotal: 'Appends given up before their commit',
  recordsCommittedTotal: 'Records committed',
  sealWindowTotal: 'Batches sealed because the window ended',
  sealBytesTotal: 'Batches sealed because of their bytes',
  sealSlicesTotal: 'Batches sealed because of their slices',
  sealDrainTotal: 'Batches sealed to drain before stopping or handing over',
  objectsPutTotal: 'Batch objects uploaded',
  objectBytesTotal: 'Bytes of batch objects uploaded',
  objectsFailedTotal: 'Batch objects given up',
  objectRetriesTotal: 'Calls to the object store that were made again',
  uploadHedgesTotal: 'Uploads sent a second time because they were slow',
  slicesTotal: 'Slices in uploaded objects: what one object per partition and window would have been',
  entriesCommittedTotal: 'Log entries committed',
  entryBytesTotal: 'Bytes of log entries committed',
  appendCallsTotal: 'Calls that append entries',
  appendsUnknownTotal: 'Entry appends whose outcome had to be read back',
  appendsFencedTotal: 'Entry appends refused because of a higher epoch or a foreign entry',
  takeoversTotal: 'Takeovers of shards',
  shardsLostTotal: 'Shards lost to another holder or to doubt',
  shardsReleasedTotal: 'Shards handed over or released at stopping',
  checkpointsTotal: 'Checkpoints written',
  checkpointBytesTotal: 'Bytes of checkpoints written',
  checkpointsFailedTotal: 'Checkpoints given up',
  metadataErrorsTotal: 'Metadata calls that failed',
  // main thread
  topicCacheHitsTotal: 'Topic look-ups answered from the cache',
  topicCacheMissesTotal: 'Topic look-ups that waited for the store',
  topicCacheEvictionsTotal: 'Topics dropped because the cache was full',
  topicCacheStaleFillsTotal: 'Reads of topics that something newer overtook',
  topicCacheDropsTotal: 'Topics dropped since a request under them was refused',
  partitionCacheHitsTotal: 'Partition look-ups answered from the cache',
  partitionCacheMissesTotal: 'Partition look-ups that waited for the store',
  leaseCacheHitsTotal: 'Lease look-ups answered from the cache',
  leaseCacheMissesTotal: 'Lease look-ups that waited for the store',
  leaseCacheStaleFillsTotal: 'Sightings of leases that something newer overtook',
  leaseCacheDropsTotal: 'Leases dropped since their holder refused a request or could not be reached',
  agentCacheHitsTotal: 'Agent look-ups answered from the cache',
  agentCacheMissesTotal: 'Agent look-ups that waited for the store',
  agentCacheStaleFillsTotal: 'Lists of agents that something newer overtook',
  // main thread, between brokers
  forwardedAppendsTotal: 'Appends sent to the brokers that hold their shards',
  forwardedBytesTotal: 'Bytes of appends sent to other brokers',
  forwardMessagesTotal: 'Messages of appends sent to other brokers',
  forwardsRefusedTotal: 'Appends for other brokers that were refused, so that nothing of them happened',
  forwardsLostTotal: 'Appends for other brokers whose outcome is unknown',
  receivedAppendsTotal: 'Appends that other brokers sent here',
  receivedBytesTotal: 'Bytes of appends that other brokers sent here',
  receivedRefusedTotal:
    'Appends that other brokers sent here and that were refused before they reached a lane',
  forwardedReadsTotal: 'Reads sent to the brokers that hold their partitions',
  // lanes
  laneAppendsTotal: 'Appends validated and built into record batches',
  laneBytesTotal: 'Bytes of record batches built',
  fetchesTotal: 'Partition fetches answered',
  fetchBytesTotal: 'Bytes of record batches answered',
  tailCacheHitsTotal: 'Slices answered from the tail cache',
  tailCacheMissesTotal: 'Slices that had to be read from the object store',
  blockCacheHitsTotal: 'Cold blocks found in the block cache',
  blockCacheMissesTotal: 'Cold blocks read from the object store',
  blockCacheJoinedTotal: 'Cold blocks whose read was under way already',
  blockCacheBypassedTotal: 'Cold reads too long for the block cache',
  coldReadsFailedTotal: 'Reads from the object store that failed',
  coldReadsRefusedTotal: 'Cold reads refused because too many waited',
  coldBytesTotal: 'Bytes read from the object store',
  corruptSlicesTotal: 'Slices that did not read back as written',
  indexLookupsTotal: 'Look-ups in the segment index',
  indexHitsTotal: 'Look-ups answered from memory',
  indexMissesTotal: 'Look-ups that had to page in',
  indexPagedInTotal: 'Index pages read',
  indexPagedOutTotal: 'Index pages written',
  indexEvictedTotal: 'Index pages evicted',
  indexJoinedTotal: 'Page reads that joined one under way',
  indexStaleReadsTotal: 'Page reads during which the page was written anew',
} as const;

export const GAUGES = {
  openBatchBytes: 'Bytes in the open batch',
  openBatchSlices: 'Partitions in the open batch',
  uploadsInFlight: 'Objects being uploaded',
  objectsInFlight: 'Objects sealed and not yet committed',
  shardsHeld: 'Shards served by this broker',
  tailCacheBytes: 'Bytes in the tail cache',
  blockCacheBytes: 'Bytes in the block cache',
  indexBytes: 'Bytes of the segment index',
  indexDirtyBytes: 'Bytes of index pages not yet written',
  heapBytes: 'Heap in use by the thread',
} as const;

export const HISTOGRAMS = {
  uploadMs: 'Upload of an object, ms',
  appendMs: 'Call that appends entries, ms',
  commitMs: 'From sealing a batch to its commit, ms',
  batchAgeMs: 'Age of a batch at its sealing, ms',
  coldReadMs: 'Read from the object store, ms',
  indexLookupUs: 'Look-up in the segment index, microseconds',
  indexPagedLookupMs: 'Look-up in the segment index that had to page in, ms',
  topicCacheHitUs: 'Topic look-up answered from the cache, one in 64 of them, microseconds',
  peerRoundTripMs: "From sending a message of appends to another broker's word that it has it, ms",
  metadataAppendEntriesMs: 'Metadata call appendEntries, ms',
  metadataReadEntriesMs: 'Metadata call readEntries, ms',
  metadataReadHeadMs: 'Metadata call readHead, ms',
  metadataLeasesMs: 'Metadata calls acquireLeases and releaseLeases, ms',
  metadataFindPagesMs: 'Metadata call findPages, ms',
  metadataPutPagesMs: 'Metadata call putPages, ms',
  metadataCheckpointMs: 'Metadata calls around checkpoints: put, get, pointer, trim, delete, ms',
  metadataCatalogueMs: 'Metadata calls of the catalogue that went to the store, ms',
  metadataOtherMs: 'Other metadata calls, ms',
} as const;

export type CounterName = keyof typeof COUNTERS;
export type GaugeName = keyof typeof GAUGES;
export type HistogramName = keyof typeof HISTOGRAMS;

/** Upper bounds of the histograms' buckets; the last bucket has none. */
export const HISTOGRAM_BOUNDS = [
  0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 150, 200, 300, 500, 1000, 2500, 5000, 10000,
] as const;

const COUNTER_NAMES = Object.keys(COUNTERS) as CounterName[];
const GAUGE_NAMES = Object.keys(GAUGES) as GaugeName[];
const HISTOGRAM_NAMES = Object.keys(HISTOGRAMS) as HistogramName[];

/** Counters, then gauges, then for each histogram its buckets and its sum. */
const HISTOGRAM_WIDTH = HISTOGRAM_BOUNDS.length + 2;
const GAUGES_AT = COUNTER_NAMES.length;
const HISTOGRAMS_AT = GAUGES_AT + GAUGE_NAMES.length;
/** Rounded up to whole cache lines of 64 bytes, so that two threads never write one line. */
const BLOCK_LENGTH = Math.ceil((HISTOGRAMS_AT + HISTOGRAM_NAMES.length * HISTOGRAM_WIDTH) / 8) * 8;

const COUNTER_INDEX = new Map(COUNTER_NAMES.map((name, i) => [name, i]));
const GAUGE_INDEX = new Map(GAUGE_NAMES.map((name, i) => [name, GAUGES_AT + i]));
const HISTOGRAM_INDEX = new Map(
  HISTOGRAM_NAMES.map((name, i) => [name, HISTOGRAMS_AT + i * HISTOGRAM_WIDTH]),
);

/** Memory for the blocks of `threads` threads. */
export function allocateCounters(threads: number): SharedArrayBuffer {
  return new SharedArrayBuffer(threads * BLOCK_LENGTH * 8);
}

/** One thread's block, for writing. A thread's successor goes on where it stopped. */
export class ThreadCounters {
  readonly #block: Float64Array;

  constructor(memory: SharedArrayBuffer, thread: number) {
    this.#block = new Float64Array(memory, thread * BLOCK_LENGTH * 8, BLOCK_LENGTH);
  }

  add(name: CounterName, count = 1): void {
    this.#block[COUNTER_INDEX.get(name) as number] += count;
  }

  set(name: GaugeName, value: number): void {
    this.#block[GAUGE_INDEX.get(name) as number] = value;
  }

  observe(name: HistogramName, value: number): void {
    const at = HISTOGRAM_INDEX.get(name) as number;
    let bucket = 0;
    while (bucket < HISTOGRAM_BOUNDS.length && value > HISTOGRAM_BOUNDS[bucket]) bucket++;
    this.#block[at + bucket]++;
    this.#block[at + HISTOGRAM_WIDTH - 1] += value;
  }
}

export interface HistogramSnapshot {
  /** Observations by bucket, the last one without upper bound. */
  buckets: number[];
  sum: number;
}

/** Reads all threads' blocks. */
export class CountersReader {
  readonly #all: Float64Array;
  readonly #threads: number;

  constructor(memory: SharedArrayBuffer) {
    this.#all = new Float64Array(memory);
    this.#threads = this.#all.length / BLOCK_LENGTH;
  }

  #sum(index: number): number {
    let sum = 0;
    for (let thread = 0; thread < this.#threads; thread++) sum += this.#all[thread * BLOCK_LENGTH + index];
    return sum;
  }

  counter(name: CounterName): number {
    return this.#sum(COUNTER_INDEX.get(name) as number);
  }

  gauge(name: GaugeName): number {
    return this.#sum(GAUGE_INDEX.get(name) as number);
  }

  histogram(name: HistogramName): HistogramSnapshot {
    const at = HISTOGRAM_INDEX.get(name) as number;
    const buckets = [];
    for (let i = 0; i < HISTOGRAM_WIDTH - 1; i++) buckets.push(this.#sum(at + i));
    return { buckets, sum: this.#sum(at + HISTOGRAM_WIDTH - 1) };
  }
}
