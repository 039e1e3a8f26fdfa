/**
 * Says whether a history of a cluster's clients keeps the promise. Owns: the rules, each with the name of its finding.
 * Does not own: the history's shapes. Knows nothing of the broker's code; runs on the file alone, after the fact.
 *
 *   lost               acknowledged, and not there at the end
 *   changed            one offset, two records (or one record with another key or timestamp), by anyone at any time
 *   duplicate          one record at two offsets
 *   not-dense          a read or a partition with a gap, or with an offset twice
 *   phantom            there, but nobody sent it, or to another place, or with another key
 *   refused-but-there  there, although every answer said that nothing happened
 *   order              before a record that was known to be there before this one was sent; or against a producer's
 *                      numbers; or against the order within its request, or of the requests on a connection
 *   out-of-range       a reader was told so at an offset no further than the next one after all that was known
 *   stale-read         nothing was there at an offset that was known before the read began
 *   stale-end          a partition's end at or below what was known before, or a beginning other than 0
 *   refused-for-good   a refusal that no retry mends, of a request with which nothing is wrong
 *   wrong-answer       an answer that no broker may give
 *   after-deletion     acknowledged, and sent after the topic's deletion was confirmed
 *   unfinished         an idempotent producer's record that was never acknowledged, over all repeats
 *   unread             a partition that the final read left out: the harness's own mistake
 */
import type {
  DoneEvent,
  EndsEvent,
  FinalEvent,
  HistoryEvent,
  OutOfRangeEvent,
  ReadEvent,
  RecordResult,
  SendEvent,
} from './history.ts';
import { FINAL_READER } from './history.ts';
import { PartitionHistory, type Slot } from './partition-history.ts';

export type FindingKind =
  | 'lost'
  | 'changed'
  | 'duplicate'
  | 'not-dense'
  | 'phantom'
  | 'refused-but-there'
  | 'order'
  | 'out-of-range'
  | 'stale-read'
  | 'stale-end'
  | 'refused-for-good'
  | 'wrong-answer'
  | 'after-deletion'
  | 'unfinished'
  | 'unread';

export interface Finding {
  kind: FindingKind;
  topic?: string;
  partition?: number;
  offset?: number;
  /** In words, with times and texts. */
  detail: string;
}

export interface CheckCounts {
  sent: number;
  acknowledged: number;
  /** Of the plain producers' records: nobody knows, or only later reads told. */
  maybe: number;
  maybeThere: number;
  refused: number;
  reads: number;
  recordsRead: number;
  outOfRange: number;
  partitions: number;
  records: number;
}

export interface CheckResult {
  findings: Finding[];
  /** Also those that are not listed. */
  findingCount: number;
  counts: CheckCounts;
  /** Codes that producers met, by how often. */
  met: Record<string, number>;
}

interface Sent {
  prod: string;
  isIdempotent: boolean;
  topic: string;
  partition: number;
  /** Records of one order, in a partition, are there by their numbers: an idempotent producer's, a connection's. */
  order: string | null;
  number: number;
  /** When requests with it were sent that did not certainly fail, by request. */
  readonly sentAt: Map<number, number>;
  firstSentAt: number;
  ackOffset: number | null;
}

interface Request {
  at: number;
  event: SendEvent;
}

const FINDINGS_MAX = 500;
const REQUEST_RECORDS_MAX = 1000;
/** More than any run sends; an offset beyond it is no offset. */
const OFFSET_MAX = 100_000_000;

export class HistoryChecker {
  readonly #findings: Finding[] = [];
  #findingCount = 0;
  readonly #sent = new Map<string, Sent>();
  readonly #open = new Map<number, Request>();
  readonly #partitions = new Map<string, PartitionHistory>();
  readonly #topics = new Map<string, { partitions: number; endAsked: boolean; endDone: number | null }>();
  readonly #met: Record<string, number> = {};
  #reads = 0;
  #recordsRead = 0;
  #outOfRange = 0;

  add(event: HistoryEvent): void {
    switch (event.e) {
      case 'topic':
        this.#topics.set(event.topic, { partitions: event.partitions, endAsked: false, endDone: null });
        break;
      case 'topic-end': {
        const topic = this.#topics.get(event.topic);
        if (topic) topic.endAsked = true;
        if (topic && event.done) topic.endDone ??= event.at;
        break;
      }
      case 'send':
        this.#send(event);
        break;
      case 'done':
        this.#done(event);
        break;
      case 'read':
        this.#read(event);
        break;
      case 'ends':
        this.#ends(event);
        break;
      case 'out-of-range':
        this.#wasOutOfRange(event);
        break;
      case 'final':
        this.#partition(event.topic, event.p).finalEnd = (event as FinalEvent).end;
        break;
      case 'trouble':
        if (event.wrong) this.#found('wrong-answer', `${event.what} by ${event.b}: ${event.code}`);
        break;
      case 'note':
        break;
    }
  }

  // -- As it happens -----------------------------------------------------------------------------------

  #send(event: SendEvent): void {
    const { at, r, prod, x = false, q = 0, pipe, topic } = event;
    this.#open.set(r, { at, event });
    for (const [index, [partition, text]] of event.recs.entries()) {
      let sent = this.#sent.get(text);
      if (sent === undefined) {
        sent = {
          prod,
          isIdempotent: x,
          topic,
          partition,
          order: x ? prod : (pipe ?? null),
          number: x ? q + index : r * REQUEST_RECORDS_MAX + index,
          sentAt: new Map(),
          firstSentAt: at,
          ackOffset: null,
        };
        this.#sent.set(text, sent);
      }
      sent.sentAt.set(r, at);
    }
  }

  #done({ at, r, res, forGood }: DoneEvent): void {
    const request = this.#open.get(r);
    if (request === undefined) throw new Error(`history: an answer to request ${r}, which is not open`);
    this.#open.delete(r);
    const { topic, recs, prod } = request.event;
    const last = new Map<number, number>();
    for (const [index, [partition, text]] of recs.entries()) {
      const result: RecordResult = res[index];
      const sent = this.#sent.get(text) as Sent;
      if (typeof result !== 'number') {
        const [outcome, code] = result;
        this.#met[`${outcome} ${code}`] = (this.#met[`${outcome} ${code}`] ?? 0) + 1;
        if (outcome === 'none') sent.sentAt.delete(r);
        if (forGood) this.#found('refused-for-good', `${prod} request ${r}: ${code}`, { topic, partition });
        continue;
      }
      this.#acknowledged(request, sent, partition, text, result, at);
      const before = last.get(partition) ?? -1;
      if (result <= before) {
        const detail = `${text} came behind another of its request, which got ${before}`;
        this.#found('order', detail, { topic, partition, offset: result });
      }
      last.set(partition, result);
    }
  }

  #acknowledged(
    request: Request,
    sent: Sent,
    partition: number,
    text: string,
    offset: number,
    at: number,
  ): void {
    const { topic } = sent;
    const place = { topic, partition, offset };
    const ended = this.#topics.get(topic)?.endDone ?? null;
    if (ended !== null && request.at > ended) {
      this.#found(
        'after-deletion',
        `${text}, sent ${ms(request.at)}, deletion confirmed ${ms(ended)}`,
        place,
      );
    }
    if (sent.ackOffset !== null && sent.ackOffset !== offset) {
      this.#found('duplicate', `${text} was acknowledged at ${sent.ackOffset} too`, place);
    }
    sent.ackOffset ??= offset;
    if (!isOffset(offset)) {
      this.#found('wrong-answer', `${text} was acknowledged at ${offset}`, place);
      return;
    }
    const other = this.#partition(topic, partition).acknowledge(offset, text, at);
    if (other) this.#found('changed', `acknowledged as ${text} ${ms(at)}; ${shown(other)}`, place);
  }

  #read(event: ReadEvent): void {
    const { at, inv, c, b, topic, p, from, recs } = event;
    this.#reads++;
    this.#recordsRead += recs.length;
    const partition = this.#partition(topic, p);
    const who = `${c} by ${b}, asked ${ms(inv)}`;
    if (recs.length === 0) {
      const known = partition.knownBefore(inv);
      if (from <= known) {
        const detail = `${who}: nothing, though ${known} was known`;
        this.#found('stale-read', detail, { topic, partition: p, offset: from });
      }
    }
    for (const [index, row] of recs.entries()) {
      const place = { topic, partition: p, offset: row[0] };
      if (row[0] !== from + index) {
        this.#found('not-dense', `${who}: record ${index} of a read from ${from}`, place);
        // An offset that nobody asked for would make a hole of any size below it.
        break;
      }
      const other = partition.read(row, at, c === FINAL_READER);
      if (other) this.#found('changed', `${who}: ${JSON.stringify(row.slice(1))}; ${shown(other)}`, place);
    }
  }

  #ends({ inv, c, b, topic, p, begin, end }: EndsEvent): void {
    const known = this.#partition(topic, p).knownBefore(inv);
    if (begin === 0 && end > known) return;
    const detail = `${c} by ${b}, asked ${ms(inv)}: ${begin} to ${end}, though ${known} was known`;
    this.#found('stale-end', detail, { topic, partition: p });
  }

  #wasOutOfRange({ inv, c, b, topic, p, from, text }: OutOfRangeEvent): void {
    this.#outOfRange++;
    const known = this.#partition(topic, p).knownBefore(inv);
    // The next offset after the last is where every reader waits.
    if (from > known + 1) return;
    const detail = `${c} by ${b}, asked ${ms(inv)}: ${text}, though ${known} was known`;
    this.#found('out-of-range', detail, { topic, partition: p, offset: from });
  }

  // -- In the end --------------------------------------------------------------------------------------

  finish(): CheckResult {
    const seen = new Map<string, string>();
    let records = 0;
    for (const partition of this.#partitions.values()) {
      records += partition.slots.length;
      this.#checkSlots(partition, seen);
      this.#checkOrder(partition);
    }
    for (const [topic, { partitions, endAsked }] of this.#topics) {
      if (endAsked) continue;
      for (let p = 0; p < partitions; p++) this.#checkEnd(this.#partition(topic, p));
    }
    const counts = this.#count(seen);
    return {
      findings: this.#findings,
      findingCount: this.#findingCount,
      counts: {
        ...counts,
        reads: this.#reads,
        recordsRead: this.#recordsRead,
        outOfRange: this.#outOfRange,
        partitions: this.#partitions.size,
        records,
      },
      met: this.#met,
    };
  }

  /** Everything that anyone saw was sent, to that place, and is there once. */
  #checkSlots(partition: PartitionHistory, seen: Map<string, string>): void {
    for (const [offset, slot] of partition.slots.entries()) {
      if (slot === undefined) continue;
      const place = { topic: partition.topic, partition: partition.partition, offset };
      const sent = slot.text === null ? undefined : this.#sent.get(slot.text);
      if (slot.text === null || sent === undefined) {
        this.#found('phantom', `nobody sent ${shown(slot)}`, place);
        continue;
      }
      if (sent.topic !== partition.topic || sent.partition !== partition.partition) {
        this.#found('phantom', `${shown(slot)} was sent to ${sent.topic}/${sent.partition}`, place);
      }
      if (slot.timestamp !== null && slot.key !== sent.prod) {
        this.#found('phantom', `${shown(slot)} was sent with the key ${sent.prod}`, place);
      }
      const where = `${partition.topic}/${partition.partition}@${offset}`;
      const before = seen.get(slot.text);
      if (before !== undefined) this.#found('duplicate', `${slot.text} is at ${before} too`, place);
      seen.set(slot.text, where);
      if (sent.sentAt.size === 0) this.#found('refused-but-there', shown(slot), place);
      else if (slot.knownAt < earliest(sent)) {
        const detail = `${shown(slot)}, of which all that was sent before ${ms(earliest(sent))} was refused`;
        this.#found('refused-but-there', detail, place);
      }
    }
  }

  /** By real time over all producers, by the numbers of each idempotent one, and by the order on a connection. */
  #checkOrder(partition: PartitionHistory): void {
    const { slots, topic } = partition;
    /** The earliest time at which any record further on was known. */
    let known = Number.POSITIVE_INFINITY;
    let knownOffset = -1;
    const lowest = new Map<string, number>();
    for (let offset = slots.length - 1; offset >= 0; offset--) {
      const slot = slots[offset];
      const sent = slot?.text == null ? undefined : this.#sent.get(slot.text);
      if (slot === undefined || sent === undefined) continue;
      const place = { topic, partition: partition.partition, offset };
      const sentAt = earliest(sent);
      if (sentAt > known) {
        const detail = `${slot.text}, sent ${ms(sentAt)}, before ${knownOffset}, known ${ms(known)}`;
        this.#found('order', detail, place);
      }
      if (slot.knownAt < known) {
        known = slot.knownAt;
        knownOffset = offset;
      }
      if (sent.order === null) continue;
      const next = lowest.get(sent.order) ?? Number.POSITIVE_INFINITY;
      if (sent.number >= next) {
        this.#found('order', `${slot.text} is number ${sent.number}, before number ${next}`, place);
      }
      lowest.set(sent.order, sent.number);
    }
  }

  /** A topic that was not deleted: all that anyone was told of is there in the final read, and no offset is left out. */
  #checkEnd(partition: PartitionHistory): void {
    const { topic, slots, finalEnd } = partition;
    if (finalEnd === null) {
      this.#found('unread', 'no final read', { topic, partition: partition.partition });
      return;
    }
    for (let offset = 0; offset < Math.max(finalEnd, slots.length); offset++) {
      const slot = slots[offset];
      if (slot?.isFinal) continue;
      const place = { topic, partition: partition.partition, offset };
      if (slot === undefined) this.#found('not-dense', 'nothing was ever read here', place);
      else this.#found('lost', `${shown(slot)}; the final read went to ${finalEnd}`, place);
    }
  }

  #count(
    seen: ReadonlyMap<string, string>,
  ): Omit<CheckCounts, 'reads' | 'recordsRead' | 'outOfRange' | 'partitions' | 'records'> {
    const counts = { sent: this.#sent.size, acknowledged: 0, maybe: 0, maybeThere: 0, refused: 0 };
    for (const [text, sent] of this.#sent) {
      if (sent.ackOffset !== null) counts.acknowledged++;
      else if (sent.sentAt.size === 0) counts.refused++;
      else {
        counts.maybe++;
        if (seen.has(text)) counts.maybeThere++;
      }
      if (!sent.isIdempotent || sent.ackOffset !== null) continue;
      const { topic, partition } = sent;
      if (!this.#topics.get(topic)?.endAsked) this.#found('unfinished', text, { topic, partition });
    }
    return counts;
  }

  #partition(topic: string, partition: number): PartitionHistory {
    const name = `${topic}/${partition}`;
    let history = this.#partitions.get(name);
    if (history === undefined) {
      history = new PartitionHistory(topic, partition);
      this.#partitions.set(name, history);
    }
    return history;
  }

  #found(kind: FindingKind, detail: string, place: Omit<Finding, 'kind' | 'detail'> = {}): void {
    this.#findingCount++;
    if (this.#findings.length < FINDINGS_MAX) this.#findings.push({ kind, ...place, detail });
  }
}

/** Checks a whole history. */
export async function checkHistory(
  events: AsyncIterable<HistoryEvent> | Iterable<HistoryEvent>,
): Promise<CheckResult> {
  const checker = new HistoryChecker();
  for await (const event of events) checker.add(event);
  return checker.finish();
}

export function findingText({ kind, topic, partition, offset, detail }: Finding): string {
  const place =
    topic === undefined ? '' : ` ${topic}/${partition}${offset === undefined ? '' : `@${offset}`}`;
  return `${kind}${place}: ${detail}`;
}

/** When the first request with it was sent that may have appended it. */
function earliest({ sentAt, firstSentAt }: Sent): number {
  return sentAt.size > 0 ? Math.min(...sentAt.values()) : firstSentAt;
}

function isOffset(offset: number): boolean {
  return Number.isInteger(offset) && offset >= 0 && offset <= OFFSET_MAX;
}

function shown({ text, timestamp, key, knownAt }: Slot): string {
  return `${JSON.stringify(text)} (key ${key}, timestamp ${timestamp}, known ${ms(knownAt)})`;
}

function ms(at: number): string {
  return `at ${at.toFixed(1)} ms`;
}
