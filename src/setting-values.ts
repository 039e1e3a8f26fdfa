/**
 * How sizes and durations are written by people: 64MiB, 512k, 100ms, 5s. Owns reading and printing of both.
 * Does not own which settings there are (settings.ts). Pure; any thread.
 */

/** A k is 1024, with or without the i: a setting is memory or bytes on the wire, never a disk maker's number. */
const BYTES_PER: Record<string, number> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4 };
const MS_PER: Record<string, number> = { '': 1, ms: 1, s: 1000, m: 60_000, min: 60_000, h: 3_600_000 };

/** '64MiB', '64mb', '64m', '1.5 GiB', '1024' -> bytes; null if it is none of these or no whole number. */
export function parseBytes(text: string): number | null {
  const match = /^([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([kmgt]?)(?:i?b)?$/i.exec(text.trim());
  return match === null ? null : scaled(match[1], BYTES_PER[match[2].toLowerCase()]);
}

/** '100ms', '5s', '1.5m', '2h', '250' -> ms; null if it is none of these or no whole number. */
export function parseDuration(text: string): number | null {
  const match = /^([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(ms|s|min|m|h)?$/i.exec(text.trim());
  return match === null ? null : scaled(match[1], MS_PER[(match[2] ?? '').toLowerCase()]);
}

function scaled(digits: string, factor: number): number | null {
  const value = Number(digits) * factor;
  return Number.isSafeInteger(value) ? value : null;
}

/** 8388608 -> '8 MiB'; the largest unit that keeps it whole, else bytes. */
export function formatBytes(bytes: number): string {
  for (const [unit, factor] of [
    ['GiB', 1024 ** 3],
    ['MiB', 1024 ** 2],
    ['KiB', 1024],
  ] as const) {
    if (bytes >= factor && bytes % factor === 0) return `${bytes / factor} ${unit}`;
  }
  return `${bytes} bytes`;
}

/** 300000 -> '5 min'; the largest unit that keeps it whole. */
export function formatDuration(ms: number): string {
  for (const [unit, factor] of [
    ['h', 3_600_000],
    ['min', 60_000],
    ['s', 1000],
  ] as const) {
    if (ms >= factor && ms % factor === 0) return `${ms / factor} ${unit}`;
  }
  return `${ms} ms`;
}
