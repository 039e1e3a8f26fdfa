/**
 * What a backend counts of itself, in shared memory: written by the thread that hosts the store, read by the main
 * thread for /metrics without a message. Owns: the names. Does not own: how they are shown (src/observe).
 */

export const STORE_COUNTERS = {
  statements: 'Statements, requests or (SQLite) transactions of the metadata store',
  connects: 'Connections opened to the metadata store',
  connectionsLost: 'Connections to the metadata store that ended by themselves',
  conflictRetries: 'Calls made again since transactions collided (40001, 40P01)',
  throttleRetries: 'Requests made again since the metadata store throttled them',
  unknownOutcomes: 'Writes whose outcome the metadata store did not tell',
  readUnits: 'Read capacity units consumed (DynamoDB)',
  writeUnits: 'Write capacity units consumed (DynamoDB)',
} as const;

export type StoreCounterName = keyof typeof STORE_COUNTERS;

const NAMES = Object.keys(STORE_COUNTERS) as StoreCounterName[];

/** One writer; any number of readers, who see a value that was true a moment ago. */
export class StoreCounters {
  readonly memory: SharedArrayBuffer;
  readonly #values: Float64Array;

  constructor(memory = new SharedArrayBuffer(NAMES.length * 8)) {
    this.memory = memory;
    this.#values = new Float64Array(memory);
  }

  add(name: StoreCounterName, count = 1): void {
    this.#values[NAMES.indexOf(name)] += count;
  }

  read(name: StoreCounterName): number {
    return this.#values[NAMES.indexOf(name)];
  }

  /** All of them, each with what it counts. */
  list(): { name: StoreCounterName; help: string }[] {
    return NAMES.map((name) => ({ name, help: STORE_COUNTERS[name] }));
  }
}
