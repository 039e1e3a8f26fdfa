/**
 * When checkpoints are written: what presses while one is being written is not forgotten, and no shard writes two at
 * a time.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../../src/core/clock.ts';
import { Checkpointer } from '../../../workers/checkpointer.ts';
import type { ShardHolder } from '../../../workers/shard-holder.ts';
import { allocateCounters, ThreadCounters } from '../../../workers/shared-counters.ts';

/** What a checkpointer asks of a holder. */
function fakeHolder(shard: number, tailBytes: number, checkpoint: () => Promise<{ bytes: number }>) {
  const holder = { shard, phase: 'serving', tailBytes, checkpointing: null, checkpoint };
  return Object.assign(holder, { checkpointedAtMs: systemClock.monotonicMs() }) as unknown as ShardHolder;
}

function start(holders: ShardHolder[]): Checkpointer {
  return new Checkpointer({
    settings: { checkpointLogBytes: 500, checkpointIntervalMs: 60_000 },
    clock: systemClock,
    counters: new ThreadCounters(allocateCounters(1), 0),
    holders: () => holders,
    pageOut: () => Promise.resolve(),
    warn: () => assert.fail('nothing fails here'),
  });
}

describe('checkpointer', () => {
  it('writes for all shards after pressure that came while it was writing', async () => {
    const written: number[] = [];
    const { promise: gate, resolve: release } = Promise.withResolvers<void>();
    const holders = [
      fakeHolder(0, 1000, async () => {
        if (written.push(0) === 1) await gate;
        return { bytes: 1 };
      }),
      fakeHolder(1, 10, async () => ({ bytes: written.push(1) })),
    ];
    const checkpointer = start(holders);
    const looked = checkpointer.look(false);
    await checkpointer.look(true);
    assert.deepEqual(written, [0]);
    release();
    await looked;
    assert.deepEqual(written, [0, 0, 1]);
    checkpointer.stop();
  });

  it('leaves a shard alone whose checkpoint is being written', async () => {
    let running = 0;
    const { promise: gate, resolve: release } = Promise.withResolvers<void>();
    const holder = fakeHolder(0, 1000, async () => {
      assert.equal(++running, 1);
      await gate;
      running--;
      return { bytes: 1 };
    });
    const checkpointer = start([holder]);
    const looked = checkpointer.look(false);
    await checkpointer.write(holder);
    release();
    await looked;
    checkpointer.stop();
  });
});
