/**
 * What clients know, and may therefore demand. Owns: every attempt and its answer, every offset ever seen with
 * its payload, and the verdict at the end. Does not own: the store's inside (store-truth). The simulation's only
 * thread.
 *
 * An attempt is acknowledged (it must be at that offset), failed for certain (it must be nowhere), or unknown
 * (it may be there, once).
 */
import type { ErrorCode } from '../../src/core/errors.ts';
import { kindOf } from '../../src/core/errors.ts';

interface Sent {
  key: number;
  /** Offsets at which attempts of this payload were acknowledged. */
  acknowledged: Set<number>;
  /** Attempts that may have happened: answered 'unknown', or not answered. */
  maybe: number;
  /** Of an idempotent producer: its name, and the record's place in its order. */
  producer: string | null;
  index: number;
}

export interface AttemptResult {
  code: ErrorCode | null;
  baseOffset: number;
}

export class Checker {
  /** Topics that somebody began to delete: nothing is demanded of their records any more. */
  readonly deleting = new Set<number>();
  readonly #sent = new Map<string, Sent>();
  readonly #seen = new Map<number, string[]>();
  readonly #violate: (what: string) => void;

  constructor(violate: (what: string) => void) {
    this.#violate = violate;
  }

  /** Partitions that were written to. */
  get keys(): number[] {
    return [...new Set([...this.#sent.values()].map(({ key }) => key))].sort((a, b) => a - b);
  }

  attempt(key: number, payloads: readonly string[], producer: string | null, firstIndex: number): void {
    payloads.forEach((payload, i) => {
      let sent = this.#sent.get(payload);
      if (!sent) {
        sent = { key, acknowledged: new Set(), maybe: 0, producer, index: firstIndex + i };
        this.#sent.set(payload, sent);
      }
      sent.maybe++;
    });
  }

  answered(key: number, payloads: readonly string[], result: AttemptResult): void {
    const { code, baseOffset } = result;
    if (code !== null && kindOf(code) === 'unknown') return;
    payloads.forEach((payload, i) => {
      const sent = this.#sent.get(payload) as Sent;
      sent.maybe--;
      if (code !== null) return;
      sent.acknowledged.add(baseOffset + i);
      this.#see(key, baseOffset + i, payload, 'acknowledged');
    });
  }

  read(key: number, offset: number, payload: string): void {
    const sent = this.#sent.get(payload);
    if (!sent || sent.key !== key)
      this.#violate(`partition ${key} offset ${offset}: '${payload}' was never sent`);
    this.#see(key, offset, payload, 'read');
  }

  #see(key: number, offset: number, payload: string, how: string): void {
    let seen = this.#seen.get(key);
    if (!seen) this.#seen.set(key, (seen = []));
    const before = seen[offset];
    if (before !== undefined && before !== payload) {
      this.#violate(`partition ${key} offset ${offset}: '${payload}' ${how}, it was '${before}' before`);
    }
    seen[offset] = payload;
  }

  /** The highest offset known to be taken, plus one. */
  knownEnd(key: number): number {
    return this.#seen.get(key)?.length ?? 0;
  }

  /** Everything is healed and `payloads` is all of the partition, from offset 0 on. */
  finish(key: number, payloads: readonly string[]): void {
    const seen = this.#seen.get(key) ?? [];
    seen.forEach((payload, offset) => {
      if (payloads[offset] !== payload) {
        this.#violate(
          `partition ${key} offset ${offset}: '${payload}' is lost, there is '${payloads[offset]}'`,
        );
      }
    });
    const offsets = new Map<string, number[]>();
    payloads.forEach((payload, offset) => {
      const at = offsets.get(payload);
      if (at) at.push(offset);
      else offsets.set(payload, [offset]);
    });
    const lastIndex = new Map<string, number>();
    for (const [payload, at] of offsets) {
      const sent = this.#sent.get(payload);
      if (!sent || sent.key !== key) {
        this.#violate(`partition ${key} offset ${at[0]}: '${payload}' was never sent`);
        continue;
      }
      this.#checkTimes(key, payload, sent, at);
      if (sent.producer === null) continue;
      const last = lastIndex.get(sent.producer) ?? -1;
      if (sent.index <= last) {
        this.#violate(`partition ${key} offset ${at[0]}: '${payload}' of ${sent.producer} is out of order`);
      }
      lastIndex.set(sent.producer, sent.index);
    }
  }

  #checkTimes(key: number, payload: string, sent: Sent, at: readonly number[]): void {
    const { acknowledged, maybe, producer } = sent;
    const atMost = producer === null ? acknowledged.size + maybe : 1;
    if (at.length > atMost) {
      this.#violate(
        `partition ${key}: '${payload}' is at offsets ${at.join(', ')}, may be there ${atMost} times`,
      );
    }
    if (producer !== null && maybe === 0 && acknowledged.size === 0) {
      this.#violate(`partition ${key} offset ${at[0]}: '${payload}' was answered as failed`);
    }
    if (producer !== null && acknowledged.size > 1) {
      this.#violate(`partition ${key}: '${payload}' was acknowledged at ${[...acknowledged].join(', ')}`);
    }
  }
}
