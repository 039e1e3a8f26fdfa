/**
 * From appends to uploaded objects, in order. Owns: the open batch and its window, sealing, uploads, the order in
 * which sealed objects become ready, and which objects are not settled yet. Does not own: shards, entries, commits
 * (sequencer). Runs in the batching worker.
 *
 *   append -> open batch -> seal (window, bytes, slices, drain) -> uploading -> uploaded | failed -> ready
 *
 * Objects become ready in the order of sealing: one that is still being uploaded holds back those behind it, one
 * that was given up lets them pass.
 */
import type { Clock, Timer } from '../src/core/clock.ts';
import { type ErrorCode, operatingError, type StreamHouseError } from '../src/core/errors.ts';
import { shardOf } from '../src/core/ids.ts';
import type { ShardLayout } from '../src/core/shard-layout.ts';
import type { ObjectStore } from '../storage/objects/object-store.ts';
import { bufferOver } from './append-codec.ts';
import { BatchBuilder, forEachAppend, type SealedObject, type SealedSlice } from './batch-builder.ts';
import type { QueuedPart, Sealing } from './entry-plan.ts';
import { type FlushLimits, fullReason, type SealReason, sealReason } from './flush-policy.ts';
import type { SharedObject } from './messages.ts';
import type { ThreadCounters } from './shared-counters.ts';
import { Uploader, type UploaderSettings } from './uploader.ts';

export interface PipelineSettings extends FlushLimits, UploaderSettings {
  layout: ShardLayout;
  /** `partition`: every partition of a batch gets an object of its own, to compare with. */
  objectPer: 'window' | 'partition';
  /** Bytes of objects that are sealed and not settled; beyond them appends are refused. */
  unsettledBytesMax: number;
}

export interface PipelineParts {
  settings: PipelineSettings;
  objects: ObjectStore;
  clock: Clock;
  counters: ThreadCounters;
  incarnation: number;
  /** The epoch under which a shard is served; undefined: it is not. */
  epochOf(shard: number): number | undefined;
  /** Answers an append that goes no further. */
  refuse(lane: number, slot: number, generation: number, code: ErrorCode): void;
  /** The parts of the next object in the order of sealing: uploaded, or given up. */
  ready(parts: readonly QueuedPart[], uploaded: boolean): void;
  /** No more is ready for now. */
  advanced(): void;
  givenUp(error: StreamHouseError): void;
}

/** A sealed object until all of its shards' parts are settled. */
interface InFlight {
  object: SealedObject;
  parts: QueuedPart[];
  state: 'uploading' | 'uploaded' | 'failed';
  /** Parts that are not settled yet. */
  unsettled: number;
  /** The bytes have been handed to the lanes. */
  shared: boolean;
}

const EMPTY = Buffer.alloc(0);

const SEAL_COUNTERS = {
  window: 'sealWindowTotal',
  bytes: 'sealBytesTotal',
  slices: 'sealSlicesTotal',
  drain: 'sealDrainTotal',
} as const;

export class ObjectPipeline {
  readonly #parts: PipelineParts;
  readonly #uploader: Uploader;
  readonly #builder = new BatchBuilder();
  /** Not ready yet, in the order of sealing. */
  readonly #order: InFlight[] = [];
  readonly #inFlightOf = new Map<SealedObject, InFlight>();
  /** Parts of sealed objects that are not settled yet, by shard. */
  readonly #unsettledOf = new Map<number, number>();
  /**
   * Producers (by partition) of which a batch was given up: through which object others may hold batches that
   * follow it, and must fail as it did.
   */
  readonly #abandoned = new Map<string, number>();
  #objectNumber = 0;
  #windowTimer: Timer | null = null;
  #batchBeganMs = 0;
  #draining = false;
  #stopped = false;
  /** Of objects whose bytes are held here. */
  #unsettledBytes = 0;

  constructor(parts: PipelineParts) {
    this.#parts = parts;
    const { counters } = parts;
    this.#uploader = new Uploader(parts.objects, parts.clock, parts.settings, {
      uploaded: (ms, bytes) => {
        counters.add('objectsPutTotal');
        counters.add('objectBytesTotal', bytes);
        counters.observe('uploadMs', ms);
      },
      failed: (error) => {
        counters.add('objectsFailedTotal');
        parts.givenUp(error);
      },
      hedged: () => counters.add('uploadHedgesTotal'),
    });
  }

  /** Whether every object is settled. */
  get idle(): boolean {
    return this.#inFlightOf.size === 0;
  }

  /** Whether any part of a shard is not settled, be it uploading or queued. What is gathered does not count. */
  hasUnsettled(shard: number): boolean {
    return this.#unsettledOf.has(shard);
  }

  // -- Gathering ---------------------------------------------------------------------------------------

  /** Takes a lane's message of appends. */
  gather(lane: number, message: Uint8Array): void {
    const { settings, counters, epochOf, refuse } = this.#parts;
    const chunk = bufferOver(message);
    let count = 0;
    let refused = 0;
    this.#builder.beginChunk(lane, chunk);
    forEachAppend(chunk, (header, position) => {
      count++;
      const shard = shardOf(header.topicId, header.partition, settings.layout);
      const code = this.#refusal(epochOf(shard));
      if (code !== null) {
        refused++;
        refuse(lane, header.slot, header.generation, code);
        return;
      }
      if (this.#builder.sliceCount === 0) this.#beginWindow();
      this.#builder.add(header, shard, position);
      const full = fullReason(settings, this.#builder);
      if (full === null) return;
      this.#seal(full);
      this.#builder.beginChunk(lane, chunk);
    });
    counters.add('appendsTotal', count);
    if (refused > 0) counters.add('appendsRefusedTotal', refused);
    this.#sealIfDue();
  }

  /** Why an append for a shard of this epoch is not taken, or null. */
  #refusal(epoch: number | undefined): ErrorCode | null {
    if (this.#draining || this.#stopped) return 'shutting-down';
    if (epoch === undefined) return 'not-leader';
    return this.#unsettledBytes > this.#parts.settings.unsettledBytesMax ? 'overloaded' : null;
  }

  /** A shard was lost: what is gathered for it goes no further. */
  removeShard(shard: number): void {
    this.#builder.removeShard(shard, (lane, slot, generation) => {
      this.#parts.counters.add('appendsAbandonedTotal');
      this.#parts.refuse(lane, slot, generation, 'not-leader');
    });
  }

  /** Seals what is gathered if any of it is of these shards, which are about to be handed over. */
  sealFor(shards: ReadonlySet<number>): void {
    if (this.#builder.hasShardOf(shards)) this.#seal('drain');
  }

  /** Refuses appends from now on, and seals what is gathered. */
  drain(): void {
    this.#draining = true;
    if (this.#builder.sliceCount > 0) this.#seal('drain');
  }

  /** Takes, seals and hands over nothing any more. */
  stop(): void {
    this.#stopped = true;
    this.#windowTimer?.cancel();
  }

  // -- Sealing and uploading ---------------------------------------------------------------------------

  #beginWindow(): void {
    const { clock, settings } = this.#parts;
    this.#batchBeganMs = clock.monotonicMs();
    // Sealing cancels the timer, so it always speaks of the batch that is open; timers may fire somewhat early.
    this.#windowTimer = clock.after(settings.windowMs, () => {
      if (this.#builder.sliceCount > 0) this.#seal('window');
    });
  }

  #sealIfDue(): void {
    const ageMs = this.#parts.clock.monotonicMs() - this.#batchBeganMs;
    const reason = sealReason(this.#parts.settings, this.#builder, ageMs);
    if (reason === null) this.#gauges();
    else this.#seal(reason);
  }

  #seal(reason: SealReason): void {
    const { counters, clock, incarnation } = this.#parts;
    this.#windowTimer?.cancel();
    this.#windowTimer = null;
    counters.add(SEAL_COUNTERS[reason]);
    counters.observe('batchAgeMs', clock.monotonicMs() - this.#batchBeganMs);
    const nextId = () => ({ incarnation, number: this.#objectNumber++ });
    if (this.#parts.settings.objectPer === 'window') this.#begin(this.#builder.seal(nextId()));
    else for (const object of this.#builder.sealApart(nextId)) this.#begin(object);
    this.#gauges();
  }

  /** Uploads a sealed object. */
  #begin(object: SealedObject): void {
    const { counters } = this.#parts;
    const parts = this.#partsOf(object);
    const inFlight: InFlight = { object, parts, state: 'uploading', unsettled: parts.length, shared: false };
    this.#unsettledBytes += object.byteLength;
    this.#order.push(inFlight);
    this.#inFlightOf.set(object, inFlight);
    for (const { shard } of parts) this.#unsettledOf.set(shard, (this.#unsettledOf.get(shard) ?? 0) + 1);
    this.#uploader.upload(object).then(
      () => {
        inFlight.state = 'uploaded';
        counters.add('slicesTotal', object.slices.length);
        this.#advance();
      },
      (error) => {
        operatingError(error);
        inFlight.state = 'failed';
        this.#abandonProducers(object);
        this.#advance();
      },
    );
  }

  /** An object's slices by shard, with the epochs under which it is sealed. */
  #partsOf(object: SealedObject): QueuedPart[] {
    const { clock, epochOf } = this.#parts;
    const slicesOf = new Map<number, SealedSlice[]>();
    for (const slice of object.slices) {
      const slices = slicesOf.get(slice.shard);
      if (slices) slices.push(slice);
      else slicesOf.set(slice.shard, [slice]);
    }
    const shards = [...slicesOf.keys()].sort((a, b) => a - b);
    const sealing: Sealing = {
      sealedAtMs: clock.monotonicMs(),
      sealedWallMs: Math.max(0, Math.floor(clock.wallMs())),
      // A shard that is lost takes its appends out of the open batch at once, and one that is handed over has it sealed
      // before: so every shard here is served.
      shards: shards.map((shard) => ({ shard, epoch: epochOf(shard) as number })),
    };
    return sealing.shards.map(({ shard, epoch }) => ({
      object,
      sealing,
      shard,
      epoch,
      slices: slicesOf.get(shard) as SealedSlice[],
    }));
  }

  #advance(): void {
    if (this.#stopped) return;
    while (this.#order.length > 0 && this.#order[0].state !== 'uploading') {
      const { parts, state } = this.#order.shift() as InFlight;
      this.#parts.ready(parts, state === 'uploaded');
    }
    this.#forgetAbandoned();
    this.#parts.advanced();
  }

  // -- Abandoned producers -----------------------------------------------------------------------------

  #abandonProducers(object: SealedObject): void {
    for (const slice of object.slices) {
      for (let a = slice.firstAppend; a < slice.firstAppend + slice.appendCount; a++) {
        const producerId = object.appends.producerId[a];
        if (producerId >= 0) this.#abandoned.set(`${slice.key}/${producerId}`, this.#objectNumber);
      }
    }
  }

  /** Whether an earlier batch of the producer in this partition was given up while this object was gathered. */
  wasAbandoned(key: number, producerId: number, objectNumber: number): boolean {
    const throughObject = this.#abandoned.get(`${key}/${producerId}`);
    return throughObject !== undefined && objectNumber <= throughObject;
  }

  #forgetAbandoned(): void {
    if (this.#abandoned.size === 0) return;
    let oldest = this.#objectNumber;
    for (const { id } of this.#inFlightOf.keys()) oldest = Math.min(oldest, id.number);
    for (const [name, throughObject] of this.#abandoned) {
      if (throughObject < oldest) this.#abandoned.delete(name);
    }
  }

  // -- Settling ----------------------------------------------------------------------------------------

  /** The object's bytes for the lanes, the first time that it is asked; null from then on. */
  share(object: SealedObject): SharedObject | null {
    const inFlight = this.#inFlightOf.get(object);
    if (!inFlight || inFlight.shared) return null;
    inFlight.shared = true;
    const shared = { ...object.id, bytes: object.bytes };
    this.#dropBytes(object);
    return shared;
  }

  /** A shard's part of an object is committed, answered or given up for good. */
  settled(part: QueuedPart): void {
    const inFlight = this.#inFlightOf.get(part.object);
    if (!inFlight) return;
    inFlight.unsettled--;
    const left = (this.#unsettledOf.get(part.shard) ?? 0) - 1;
    if (left > 0) this.#unsettledOf.set(part.shard, left);
    else this.#unsettledOf.delete(part.shard);
    if (inFlight.unsettled === 0) {
      this.#inFlightOf.delete(part.object);
      this.#dropBytes(part.object);
    }
    this.#gauges();
  }

  /** A shard in doubt may keep its part for long: it needs no more than the columns. */
  #dropBytes(object: SealedObject): void {
    if (object.bytes.length === 0) return;
    object.bytes = EMPTY;
    this.#unsettledBytes -= object.byteLength;
  }

  #gauges(): void {
    const { counters } = this.#parts;
    counters.set('openBatchBytes', this.#builder.bytes);
    counters.set('openBatchSlices', this.#builder.sliceCount);
    counters.set('uploadsInFlight', this.#uploader.active);
    counters.set('objectsInFlight', this.#inFlightOf.size);
  }
}
