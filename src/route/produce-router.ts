/**
 * The produce path on the main thread: checks a request, admits it by bytes, packs its appends for the lanes or for
 * the brokers that hold their shards, and answers when all of them are answered. Takes what other brokers forward.
 * Owns: admission, deadlines, where each append goes. Does not own: decoding of bodies (server/), which broker holds
 * what (shard-places), record batches (lanes), commits (batching worker), connections (src/peer). Main thread.
 *
 * An append is one request's share for one partition; a request has one slot of the table for each. What arrives
 * in one turn of the event loop goes out as one message per lane, or several if it is much.
 *
 *   append: packed -> lane                      its shard is held here
 *                  -> another broker            it is held there; never from there to a third
 *                  -> parked -> one of the two  nobody is known to hold it
 *
 *   A request that met its deadline is answered, but its slots stay outstanding and its bytes counted until the
 *   answers come: memory that the threads still hold is never admitted twice.
 *
 * What waits for one other broker, or for a place, may take half of the bytes that are free: so that one broker that
 * answers nothing ends up with a third of all, two with half, and never do they shut out what others could serve.
 */
import {
  ANSWER_BYTES,
  type AppendHeader,
  blankAppendHeader,
  forEachProduce,
  PRODUCE_HEADER_BYTES,
  readAnswers,
  writeAppendHeader,
} from '../../workers/append-codec.ts';
import type { ThreadCounters } from '../../workers/shared-counters.ts';
import type { Clock, Timer } from '../core/clock.ts';
import { type ErrorCode, kindOf, StreamHouseError } from '../core/errors.ts';
import { laneOf, shardOf } from '../core/ids.ts';
import { PLACE_WAIT_MS_MAX } from '../core/limits.ts';
import type { ShardLayout } from '../core/shard-layout.ts';
import { AppendOutbox } from './append-outbox.ts';
import { AppendTable, ELSEWHERE } from './append-table.ts';
import type { ProducePath, ProduceRequest, ProduceResult } from './broker.ts';
import { checkProduce } from './check-produce.ts';
import { ParkedAppends } from './parked-appends.ts';
import type { ForwardedAppends, ForwardedProducePath } from './peer-duties.ts';
import { PendingMessage, PendingRequest } from './pending-request.ts';
import type { PeerAddress, PeerPlace, ShardPlace, ShardPlaces } from './shard-places.ts';

export interface ProduceRouterSettings {
  laneCount: number;
  layout: ShardLayout;
  /** Every copy counted: see COPIES. */
  inFlightBytesMax: number;
  recordBytesMax: number;
  /** Of one append's record batch: what the smallest part on its way takes. */
  appendBytesMax: number;
}

/** Carries appends to other brokers (src/peer). */
export interface AppendCarrier {
  /**
   * Takes a copy of one packed append, in order, or says why not: then nothing happened. What was taken is answered
   * exactly once, later, by `ProduceRouter.answerElsewhere`.
   */
  send(peer: PeerAddress, packed: Buffer): ErrorCode | null;
}

export interface ProduceRouterParts {
  settings: ProduceRouterSettings;
  clock: Clock;
  places: Pick<ShardPlaces, 'isHere' | 'place' | 'find' | 'refused'>;
  carrier: AppendCarrier;
  counters: Pick<ThreadCounters, 'add'>;
  /** Posts packed appends to a lane, and the memory moves; false when the lane is being started again. */
  toLane(lane: number, bytes: Uint8Array<ArrayBuffer>): boolean;
  /** A request was refused since this topic is deleted: whoever resolved its name must not do so again from memory. */
  topicDeleted(topic: ProduceRequest['topic']): void;
}

/** The lane's message, its record batch, the object: a record is held three times at the worst moment. */
const COPIES = 3;
/** Bytes that a record and an append cost besides their own bytes, in each copy. */
const RECORD_OVERHEAD_BYTES = 16;
const APPEND_OVERHEAD_BYTES = 128;

/** How often deadlines are looked at, ms; a deadline is met that much late at most. */
const DEADLINE_LOOK_MS = 50;

/**
 * A lane's message of so many bytes goes out at once. One turn may read hundreds of requests from each of hundreds
 * of connections, half a second in all: the lane and the window need not wait for its end.
 */
const MESSAGE_BYTES = 64 * 1024;

/** Part of a request's time that its appends may wait for a place, so that they can be refused before its end. */
const PLACE_WAIT_SHARE = 0.8;

/** The key in the table of bytes elsewhere of what waits for a place; incarnations begin at 1. */
const PARKED = 0;

export class ProduceRouter implements ProducePath, ForwardedProducePath {
  readonly #parts: ProduceRouterParts;
  readonly #outboxes: AppendOutbox[];
  /** One append on its way elsewhere. */
  readonly #scratch = new AppendOutbox();
  readonly #header: AppendHeader = blankAppendHeader();
  readonly #table = new AppendTable();
  readonly #parked: ParkedAppends;
  /** Bytes of appends that wait for other brokers, by incarnation, and for a place. */
  readonly #elsewhereBytes = new Map<number, number>();
  /** Slots that were refused from inside of a call, to be answered after it, with their codes. */
  #refused: { slot: number; code: ErrorCode }[] = [];
  /** Unanswered requests in the order of their deadlines, by timeout. */
  readonly #byTimeout = new Map<number, Set<PendingRequest>>();
  readonly #requestAnswered = (pending: PendingRequest): void => {
    this.#byTimeout.get(pending.timeoutMs)?.delete(pending);
  };
  #inFlightBytes = 0;
  #flushScheduled = false;
  #stopping = false;
  #timer: Timer | null = null;

  constructor(parts: ProduceRouterParts) {
    this.#parts = parts;
    this.#outboxes = Array.from({ length: parts.settings.laneCount }, () => new AppendOutbox());
    this.#parked = new ParkedAppends({
      places: parts.places,
      found: (shard, place, appends) => this.#unpark(shard, place, appends),
      refused: (appends, code) => this.#refuse(appends, code),
    });
    this.#watchDeadlines();
  }

  /** Bytes admitted, every copy counted. */
  get inFlightBytes(): number {
    return this.#inFlightBytes;
  }

  /** Appends outstanding. */
  get outstanding(): number {
    return this.#table.outstanding;
  }

  /** Shards whose appends wait for a place, and the bytes of these. */
  get parked(): { shards: number; bytes: number } {
    return { shards: this.#parked.shards, bytes: this.#elsewhereBytes.get(PARKED) ?? 0 };
  }

  submit(request: ProduceRequest, done: (result: ProduceResult) => void): void {
    const count = request.partitions.length;
    if (this.#stopping) throw new StreamHouseError('shutting-down', 'the broker is stopping');
    const bytes = checkProduce(request, this.#parts.settings);
    const cost = COPIES * (bytes + count * (RECORD_OVERHEAD_BYTES + APPEND_OVERHEAD_BYTES));
    this.#admit(cost);
    const nowMs = this.#parts.clock.monotonicMs();
    const pending = new PendingRequest(request, cost, nowMs, done, this.#requestAnswered);
    this.#packAll(request, pending);
    let waiting = this.#byTimeout.get(request.timeoutMs);
    if (!waiting) this.#byTimeout.set(request.timeoutMs, (waiting = new Set()));
    waiting.add(pending);
    this.#sendFull();
    this.#flushLater();
  }

  #admit(cost: number): void {
    const { inFlightBytesMax } = this.#parts.settings;
    if (this.#inFlightBytes + cost > inFlightBytesMax) {
      throw new StreamHouseError(
        'overloaded',
        `the broker holds ${this.#inFlightBytes} of ${inFlightBytesMax} bytes of requests; try again later`,
      );
    }
    this.#inFlightBytes += cost;
  }

  #flushLater(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    setImmediate(this.#flush);
  }

  #packAll(request: ProduceRequest, pending: PendingRequest): void {
    const { partitions } = request;
    const count = partitions.length;
    let same = true;
    for (let i = 1; i < count && same; i++) same = partitions[i] === partitions[0];
    if (same) {
      pending.outstanding = 1;
      this.#pack(request, pending, 0, null);
      return;
    }
    const groups = new Map<number, number[]>();
    for (let i = 0; i < count; i++) {
      const group = groups.get(partitions[i]);
      if (group) group.push(i);
      else groups.set(partitions[i], [i]);
    }
    pending.recordsOf = [...groups.values()];
    pending.outstanding = groups.size;
    for (let a = 0; a < pending.recordsOf.length; a++) this.#pack(request, pending, a, pending.recordsOf[a]);
  }

  /** Packs append `append` of a request, of these records (null: all), for where its shard is. */
  #pack(request: ProduceRequest, pending: PendingRequest, append: number, records: number[] | null): void {
    const { topic, partitions } = request;
    const { laneCount, layout } = this.#parts.settings;
    const partition = partitions[records ? records[0] : 0];
    const shard = shardOf(topic.topicId, partition, layout);
    if (this.#parts.places.isHere(shard) && !this.#parked.has(shard)) {
      const lane = laneOf(topic.topicId, partition, laneCount);
      const slot = this.#table.take(pending, append, lane);
      this.#write(this.#outboxes[lane], slot, request, partition, records);
      return;
    }
    const slot = this.#table.take(pending, append, ELSEWHERE);
    const scratch = this.#scratch;
    this.#write(scratch, slot, request, partition, records);
    const waitMs = Math.min(PLACE_WAIT_MS_MAX, request.timeoutMs * PLACE_WAIT_SHARE);
    this.#sendElsewhere(shard, slot, scratch.buffer.subarray(0, scratch.length), waitMs);
    scratch.clear();
  }

  #write(
    outbox: AppendOutbox,
    slot: number,
    request: ProduceRequest,
    partition: number,
    records: number[] | null,
  ): void {
    const { topic, partitions, spans, source, producer } = request;
    const count = records ? records.length : partitions.length;
    let dataBytes = 0;
    for (let i = 0; i < count; i++) {
      const s = (records ? records[i] : i) * 4;
      if (spans[s] >= 0) dataBytes += spans[s + 1] - spans[s];
      if (spans[s + 2] >= 0) dataBytes += spans[s + 3] - spans[s + 2];
    }
    const at = outbox.reserve(PRODUCE_HEADER_BYTES + count * 8 + dataBytes);
    const out = outbox.buffer;
    const header = this.#header;
    header.slot = slot;
    header.generation = this.#table.generation(slot);
    header.topicId = topic.topicId;
    header.partition = partition;
    header.recordCount = count;
    header.dataBytes = dataBytes;
    header.producerId = producer ? producer.producerId : -1;
    header.producerEpoch = producer ? producer.producerEpoch : -1;
    header.baseSequence = producer ? producer.baseSequence : -1;
    writeAppendHeader(out, at, header);
    let lengths = at + PRODUCE_HEADER_BYTES;
    let data = lengths + count * 8;
    for (let i = 0; i < count; i++) {
      const s = (records ? records[i] : i) * 4;
      out.writeInt32LE(spans[s] < 0 ? -1 : spans[s + 1] - spans[s], lengths);
      data = copySpan(out, data, source, spans[s], spans[s + 1]);
      out.writeInt32LE(spans[s + 2] < 0 ? -1 : spans[s + 3] - spans[s + 2], lengths + 4);
      data = copySpan(out, data, source, spans[s + 2], spans[s + 3]);
      lengths += 8;
    }
  }

  // -- Elsewhere ---------------------------------------------------------------------------------------

  /** Sends one packed append to the broker that holds its shard, or parks it; refusals are answered later. */
  #sendElsewhere(shard: number, slot: number, packed: Buffer, waitMs: number): void {
    const place = this.#parked.has(shard) ? null : this.#parts.places.place(shard);
    if (place?.kind === 'peer') this.#sendToPeer(slot, place, packed);
    else if (this.#count(slot, null, packed.length)) this.#parked.park(shard, packed, waitMs);
  }

  #sendToPeer(slot: number, place: PeerPlace, packed: Buffer): void {
    if (!this.#count(slot, place, packed.length)) return;
    const { carrier, counters } = this.#parts;
    const code = carrier.send(place.peer, packed);
    if (code === null) {
      counters.add('forwardedAppendsTotal');
      counters.add('forwardedBytesTotal', packed.length);
    } else this.#refuseLater(slot, code);
  }

  /** Counts an append's bytes for where it waits; false: they are too many, and it is refused. */
  #count(slot: number, place: PeerPlace | null, bytes: number): boolean {
    const { inFlightBytesMax } = this.#parts.settings;
    const key = place ? place.peer.incarnation : PARKED;
    const cost = COPIES * bytes;
    const total = (this.#elsewhereBytes.get(key) ?? 0) + cost;
    // The first one is always taken, or a large append could never be.
    if (total > cost && total > (inFlightBytesMax - this.#inFlightBytes) / 2) {
      this.#refuseLater(slot, 'overloaded');
      return false;
    }
    this.#elsewhereBytes.set(key, total);
    this.#table.moveElsewhere(slot, place, cost);
    return true;
  }

  #uncount(slot: number): void {
    const cost = this.#table.cost(slot);
    if (cost === 0) return;
    const key = this.#table.place(slot)?.peer.incarnation ?? PARKED;
    const left = (this.#elsewhereBytes.get(key) as number) - cost;
    if (left > 0) this.#elsewhereBytes.set(key, left);
    else this.#elsewhereBytes.delete(key);
  }

  #refuseLater(slot: number, code: ErrorCode): void {
    this.#refused.push({ slot, code });
    this.#flushLater();
  }

  /** The place of parked appends was found: they go on in order, before any that comes later. */
  #unpark(shard: number, place: Exclude<ShardPlace, { kind: 'unknown' }>, appends: Buffer): void {
    let at = 0;
    forEachProduce(appends, ({ slot, generation, topicId, partition, recordCount, dataBytes }) => {
      const start = at;
      at += PRODUCE_HEADER_BYTES + recordCount * 8 + dataBytes;
      if (!this.#table.isCurrent(slot, generation)) {
        throw new Error(`a parked append of shard ${shard} was answered before it was sent`);
      }
      this.#uncount(slot);
      const lane = laneOf(topicId, partition, this.#parts.settings.laneCount);
      this.#table.moveToLane(slot, lane);
      if (this.#table.owner(slot)?.isAnswered) {
        // Its request has met its deadline: nobody waits for it, and nothing of it happened yet.
        this.#refuseLater(slot, 'not-leader');
        return;
      }
      const packed = appends.subarray(start, at);
      if (place.kind === 'peer') {
        this.#sendToPeer(slot, place, packed);
        return;
      }
      const outbox = this.#outboxes[lane];
      const to = outbox.reserve(packed.length);
      outbox.buffer.set(packed, to);
    });
    this.#flushLater();
  }

  /** An answer from the broker that the append was sent to. */
  answerElsewhere(slot: number, generation: number, code: ErrorCode | null, baseOffset: number): void {
    if (!this.#table.isCurrent(slot, generation)) {
      throw new Error(`slot ${slot} was answered from elsewhere, and is not outstanding`);
    }
    // It is that broker which stops: whoever asked this one need not go elsewhere.
    this.#answer(slot, code === 'shutting-down' ? 'not-leader' : code, baseOffset);
  }

  // -- From elsewhere ----------------------------------------------------------------------------------

  get limits(): { recordBytesMax: number; appendBytesMax: number } {
    return this.#parts.settings;
  }

  submitForwarded(
    appends: ForwardedAppends,
    answer: (index: number, code: ErrorCode | null, baseOffset: number) => void,
  ): void {
    if (this.#stopping) throw new StreamHouseError('shutting-down', 'the broker is stopping');
    const cost = COPIES * (appends.bytes + appends.count * APPEND_OVERHEAD_BYTES);
    this.#admit(cost);
    const pending = new PendingMessage(appends.count, cost, answer);
    const { laneCount, layout } = this.#parts.settings;
    const { counters, places } = this.#parts;
    counters.add('receivedAppendsTotal', appends.count);
    counters.add('receivedBytesTotal', appends.bytes);
    const header = this.#header;
    appends.forEach((append, index) => {
      const { topicId, partition, recordCount, bytes } = append;
      const lane = laneOf(topicId, partition, laneCount);
      const slot = this.#table.take(pending, index, lane);
      const isHere = places.isHere(shardOf(topicId, partition, layout));
      if (append.refusal !== null || !isHere) {
        counters.add('receivedRefusedTotal');
        this.#refuseLater(slot, append.refusal ?? 'not-leader');
        return;
      }
      header.slot = slot;
      header.generation = this.#table.generation(slot);
      header.topicId = topicId;
      header.partition = partition;
      header.recordCount = recordCount;
      header.dataBytes = bytes.length - recordCount * 8;
      header.producerId = append.producerId;
      header.producerEpoch = append.producerEpoch;
      header.baseSequence = append.baseSequence;
      const outbox = this.#outboxes[lane];
      const at = outbox.reserve(PRODUCE_HEADER_BYTES + bytes.length);
      writeAppendHeader(outbox.buffer, at, header);
      outbox.buffer.set(bytes, at + PRODUCE_HEADER_BYTES);
    });
    this.#sendFull();
    this.#flushLater();
  }

  // -- Lanes -------------------------------------------------------------------------------------------

  readonly #flush = (): void => {
    this.#flushScheduled = false;
    for (let lane = 0; lane < this.#outboxes.length; lane++) {
      const bytes = this.#outboxes[lane].take();
      if (bytes && !this.#parts.toLane(lane, bytes)) this.#refuse(bytes, 'not-leader');
    }
    if (this.#refused.length === 0) return;
    const refused = this.#refused;
    this.#refused = [];
    for (const { slot, code } of refused) this.#answer(slot, code, -1);
  };

  /** Sends what is enough for a message; no answer comes from inside of it. */
  #sendFull(): void {
    for (let lane = 0; lane < this.#outboxes.length; lane++) {
      if (this.#outboxes[lane].length < MESSAGE_BYTES) continue;
      const bytes = this.#outboxes[lane].take() as Uint8Array<ArrayBuffer>;
      if (!this.#parts.toLane(lane, bytes)) setImmediate(() => this.#refuse(bytes, 'not-leader'));
    }
  }

  /** They were taken by nobody: nothing of these appends happened. */
  #refuse(message: Uint8Array, code: ErrorCode): void {
    forEachProduce(message, ({ slot, generation }) => {
      if (this.#table.isCurrent(slot, generation)) this.#answer(slot, code, -1);
    });
  }

  // -- Answers -----------------------------------------------------------------------------------------

  /** A packed message of answers from a lane. */
  answers(message: Uint8Array): void {
    if (message.length % ANSWER_BYTES !== 0)
      throw new Error(`a message of ${message.length} bytes of answers`);
    readAnswers(message, (slot, generation, code, baseOffset) => {
      if (this.#table.isCurrent(slot, generation)) this.#answer(slot, code, baseOffset);
    });
  }

  #answer(slot: number, code: ErrorCode | null, baseOffset: number): void {
    const owner = this.#table.owner(slot);
    if (owner === null) return;
    const append = this.#table.append(slot);
    if (this.#table.lane(slot) === ELSEWHERE) this.#leaveElsewhere(slot, code);
    this.#table.free(slot);
    if (code === 'topic-not-found' && owner instanceof PendingRequest) this.#parts.topicDeleted(owner.topic);
    owner.note(append, code, baseOffset);
    owner.outstanding--;
    if (owner.outstanding > 0) return;
    this.#inFlightBytes -= owner.cost;
    owner.finish();
  }

  #leaveElsewhere(slot: number, code: ErrorCode | null): void {
    this.#uncount(slot);
    if (code === null) return;
    const { counters, places } = this.#parts;
    counters.add(kindOf(code) === 'unknown' ? 'forwardsLostTotal' : 'forwardsRefusedTotal');
    const place = this.#table.place(slot);
    if (place && (code === 'not-leader' || code === 'peer-lost')) places.refused(place);
  }

  // -- Ends --------------------------------------------------------------------------------------------

  /** The thread of a lane ended: what it had is unknown. */
  laneLost(lane: number): void {
    this.#failLanes((other) => other === lane);
  }

  /** The batching worker ended: everything outstanding here is unknown. */
  sequencerLost(): void {
    this.#failLanes((lane) => lane !== ELSEWHERE);
  }

  #failLanes(concerns: (lane: number) => boolean): void {
    this.#flush();
    for (let slot = 0; slot < this.#table.length; slot++) {
      if (this.#table.owner(slot) === null || !concerns(this.#table.lane(slot))) continue;
      this.#answer(slot, 'thread-lost', -1);
    }
  }

  /** Refuses everything from now on. */
  stop(): void {
    this.#stopping = true;
  }

  /** Ends the looking at deadlines. */
  close(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  #watchDeadlines(): void {
    this.#timer = this.#parts.clock.after(DEADLINE_LOOK_MS, () => {
      this.#expire(this.#parts.clock.monotonicMs());
      this.#watchDeadlines();
    });
  }

  #expire(nowMs: number): void {
    for (const [timeoutMs, waiting] of this.#byTimeout) {
      for (const pending of waiting) {
        if (pending.deadlineMs > nowMs) break;
        pending.expire();
      }
      if (waiting.size === 0) this.#byTimeout.delete(timeoutMs);
    }
  }
}

/** Short runs byte by byte: below some tens of bytes a call into native code costs more. */
function copySpan(out: Buffer, at: number, source: Uint8Array, start: number, end: number): number {
  if (start < 0) return at;
  const count = end - start;
  if (count > 48) out.set(source.subarray(start, end), at);
  else for (let i = 0; i < count; i++) out[at + i] = source[start + i];
  return at + count;
}
