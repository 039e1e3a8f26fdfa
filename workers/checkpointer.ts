/**
 * When checkpoints are written: one shard at a time, when its log has grown or its pointer is old, or when the
 * index presses on its budget. Owns: that schedule. Does not own: the order of steps within a checkpoint
 * (shard-holder). Runs in the batching worker.
 */
import type { Clock, Timer } from '../src/core/clock.ts';
import { operatingError } from '../src/core/errors.ts';
import type { ShardHolder } from './shard-holder.ts';
import type { ThreadCounters } from './shared-counters.ts';

export interface CheckpointSettings {
  /** A checkpoint is due when this many bytes of log lie behind the pointer. */
  checkpointLogBytes: number;
  /** A checkpoint is due when the pointer is this old and anything was appended since. */
  checkpointIntervalMs: number;
}

export interface CheckpointerParts {
  settings: CheckpointSettings;
  clock: Clock;
  counters: ThreadCounters;
  holders(): Iterable<ShardHolder>;
  /** Resolves when all lanes have confirmed the shard's pages through what they were told so far. */
  pageOut(shard: number): Promise<void>;
  warn(message: string, fields: Record<string, unknown>): void;
}

/** How often due checkpoints are looked for, ms. */
const LOOK_MS = 1000;

export class Checkpointer {
  readonly #parts: CheckpointerParts;
  #running = false;
  /** The index pressed while checkpoints were being written. */
  #pressed = false;
  #stopped = false;
  #timer: Timer | null = null;

  constructor(parts: CheckpointerParts) {
    this.#parts = parts;
    this.#schedule();
  }

  #schedule(): void {
    this.#timer = this.#parts.clock.after(LOOK_MS, () => {
      void this.look(false);
      if (!this.#stopped) this.#schedule();
    });
  }

  /** Writes the checkpoints that are due, one shard at a time; with `anyway` of every shard that has a tail. */
  async look(anyway: boolean): Promise<void> {
    if (anyway) this.#pressed = true;
    if (this.#running) return;
    this.#running = true;
    try {
      do {
        const all = this.#pressed;
        this.#pressed = false;
        for (const holder of [...this.#parts.holders()]) {
          if (this.#isDue(holder, all)) await this.write(holder);
        }
      } while (this.#pressed && !this.#stopped);
    } finally {
      this.#running = false;
    }
  }

  #isDue(holder: ShardHolder, anyway: boolean): boolean {
    const { checkpointLogBytes, checkpointIntervalMs } = this.#parts.settings;
    if (holder.phase !== 'serving' || holder.tailBytes === 0 || this.#stopped) return false;
    if (anyway || holder.tailBytes >= checkpointLogBytes) return true;
    return this.#parts.clock.monotonicMs() - holder.checkpointedAtMs >= checkpointIntervalMs;
  }

  /** Writes a shard's checkpoint; a failure is counted and told, for the log keeps what the pages lack. */
  async write(holder: ShardHolder): Promise<void> {
    if (holder.checkpointing) return;
    holder.checkpointing = this.#write(holder).finally(() => (holder.checkpointing = null));
    await holder.checkpointing;
  }

  async #write(holder: ShardHolder): Promise<void> {
    const { counters, pageOut, warn } = this.#parts;
    try {
      const written = await holder.checkpoint(() => pageOut(holder.shard));
      if (written === null) return;
      counters.add('checkpointsTotal');
      counters.add('checkpointBytesTotal', written.bytes);
    } catch (error) {
      const failure = operatingError(error);
      // Not at once again: the next look after the interval, or after more log.
      holder.checkpointedAtMs = this.#parts.clock.monotonicMs();
      counters.add('checkpointsFailedTotal');
      warn('a checkpoint was given up', { shard: holder.shard, error: failure.toPlain() });
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }
}
