/**
 * Randomness, passed in. The only file that touches the system's source (a test bans the rest). Any thread.
 */
import { randomBytes } from 'node:crypto';

export interface Random {
  /** A float in [0, 1). */
  unit(): number;
  /** An integer in [0, bound). */
  below(bound: number): number;
  /** `count` random bytes as lower-case hex. */
  hex(count: number): string;
}

export const systemRandom: Random = {
  unit: () => Math.random(),
  below: (bound) => Math.floor(Math.random() * bound),
  hex: (count) => randomBytes(count).toString('hex'),
};

/** A seeded source: the same seed gives the same sequence (splitmix32). For simulation and load. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  };
  return {
    unit: () => next() / 4294967296,
    below: (bound) => Math.floor((next() / 4294967296) * bound),
    hex(count) {
      let out = '';
      for (let i = 0; i < count; i++) out += (next() & 0xff).toString(16).padStart(2, '0');
      return out;
    },
  };
}
