/**
 * Plans of faults for the PostgreSQL wire proxy, from a seed. Owns: which statements may meet which fault, so that the
 * contract suite can run through them. Tests only.
 */
import type { Random } from '../../src/core/random.ts';
import type { WireFaultPlan, WireStatement } from './postgres-wire-proxy.ts';

/** Share of statements that meet each fault, 0 to 1. */
export interface FaultRates {
  /** 40001 and nothing happened: instead of the statement, or at COMMIT. */
  collided: number;
  /** 40003 after success. */
  denied: number;
  /** The connection is lost before the statement reaches the server. */
  lostBefore: number;
  /** The connection is lost after the statement was committed. */
  lostAfter: number;
}

/**
 * Faults at a steady rate. A collision may meet any statement: a backend makes the call again by itself. Those that
 * leave the outcome open meet only statements whose callers can find out or repeat (SettlingMetadataStore).
 */
export function steadyFaults(random: Random, rates: FaultRates): WireFaultPlan {
  return (statement) => {
    const drawn = random.unit();
    if (drawn < rates.collided) return isRollback(statement) ? null : { kind: 'refuse', sqlState: '40001' };
    if (!canBeSettled(statement)) return null;
    let bound = rates.collided;
    if (drawn < (bound += rates.denied)) return { kind: 'deny', sqlState: '40003' };
    if (drawn < (bound += rates.lostBefore)) return { kind: 'cut-before' };
    if (drawn < bound + rates.lostAfter) return { kind: 'cut-after' };
    return null;
  };
}

function isRollback({ text }: WireStatement): boolean {
  return /^rollback/i.test(text);
}

/** Reads, what is put or deleted again with the same result, appends, and other changes of heads. */
function canBeSettled({ text }: WireStatement): boolean {
  if (/^(select|commit|begin)\b/i.test(text)) return true;
  return /(insert into|update|delete from) \S+\.(heads|entries|pages|checkpoints|objects|body_chunks)\b/i.test(
    text,
  );
}
