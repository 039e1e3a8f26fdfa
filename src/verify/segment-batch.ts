/**
 * Segments gathered from many partitions, to be checked object by object. Owns: their columns (80 bytes a segment),
 * the order by object and position, and the bound: a full batch is checked before more is gathered, so that memory
 * is bounded whatever the cluster's size, and up to SEGMENTS_MAX segments every object is read once. Main thread.
 */

/** 80 MiB of columns. */
export const SEGMENTS_MAX = 1 << 20;
const SEGMENTS_FIRST = 1 << 14;

const COLUMNS = [
  'shard',
  'key',
  'baseOffset',
  'recordCount',
  'incarnation',
  'number',
  'position',
  'length',
  'epoch',
  'maxTimestampMs',
] as const;
type Column = (typeof COLUMNS)[number];

export class SegmentBatch {
  count = 0;
  readonly #columns = {} as Record<Column, Float64Array>;
  #capacity = SEGMENTS_FIRST;

  constructor() {
    for (const column of COLUMNS) this.#columns[column] = new Float64Array(this.#capacity);
  }

  /** It must be checked and cleared before many more are added. */
  get isFull(): boolean {
    return this.count >= SEGMENTS_MAX;
  }

  get columns(): Readonly<Record<Column, Float64Array>> {
    return this.#columns;
  }

  add(
    shard: number,
    key: number,
    baseOffset: number,
    recordCount: number,
    incarnation: number,
    number: number,
    position: number,
    length: number,
    epoch: number,
    maxTimestampMs: number,
  ): void {
    if (this.count === this.#capacity) this.#grow();
    const at = this.count++;
    const columns = this.#columns;
    columns.shard[at] = shard;
    columns.key[at] = key;
    columns.baseOffset[at] = baseOffset;
    columns.recordCount[at] = recordCount;
    columns.incarnation[at] = incarnation;
    columns.number[at] = number;
    columns.position[at] = position;
    columns.length[at] = length;
    columns.epoch[at] = epoch;
    columns.maxTimestampMs[at] = maxTimestampMs;
  }

  #grow(): void {
    this.#capacity *= 2;
    for (const column of COLUMNS) {
      const grown = new Float64Array(this.#capacity);
      grown.set(this.#columns[column]);
      this.#columns[column] = grown;
    }
  }

  /** Indices of all segments by object, then position; and where in it each object's begin. */
  byObject(): { order: Uint32Array; starts: number[] } {
    const { incarnation, number, position } = this.#columns;
    const order = new Uint32Array(this.count);
    for (let i = 0; i < order.length; i++) order[i] = i;
    order.sort(
      (a, b) => incarnation[a] - incarnation[b] || number[a] - number[b] || position[a] - position[b],
    );
    const starts: number[] = [];
    for (let i = 0; i < order.length; i++) {
      const isSame =
        i > 0 &&
        incarnation[order[i]] === incarnation[order[i - 1]] &&
        number[order[i]] === number[order[i - 1]];
      if (!isSame) starts.push(i);
    }
    return { order, starts };
  }

  clear(): void {
    this.count = 0;
  }
}
