/**
 * The lane pool's contract as a function over a factory: starting, messages, ends wanted and unwanted, closing.
 * Owns: what every pool must do. Does not own: what a lane does with its messages, beyond the few that show it
 * lives (unit tests and the simulation do).
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { MessageChannel } from 'node:worker_threads';
import { oneGroup } from '../../src/core/shard-layout.ts';
import { type OpenedMetadata, openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import {
  blankAppendHeader,
  PRODUCE_HEADER_BYTES,
  readAnswers,
  writeAppendHeader,
} from '../../workers/append-codec.ts';
import type { LanePool, LanePoolEvents, LaneStart } from '../../workers/lane-pool.ts';
import type { LaneReply, LaneReport } from '../../workers/messages.ts';
import { allocateCounters } from '../../workers/shared-counters.ts';

export type MakeLanePool = (laneCount: number, events: LanePoolEvents) => LanePool;

const LANES = 3;
const WITHIN_MS = 5000;

/** A pool with what it told. */
class PoolRig {
  readonly pool: LanePool;
  readonly replies: { lane: number; reply: LaneReply }[] = [];
  readonly ends: { lane: number; error: Error | null }[] = [];
  readonly #metadata: OpenedMetadata;
  readonly #counters = allocateCounters(LANES);

  constructor(make: MakeLanePool, metadata: OpenedMetadata) {
    this.#metadata = metadata;
    this.pool = make(LANES, {
      reply: (lane, reply) => this.replies.push({ lane, reply }),
      ended: (lane, error) => this.ends.push({ lane, error }),
    });
  }

  start(lane: number, change: Partial<LaneStart> = {}): void {
    this.pool.start(lane, {
      settings: {
        lane,
        laneCount: LANES,
        layout: oneGroup(4),
        indexBytes: 1 << 20,
        tailCacheBytes: 1 << 20,
        blockCacheBytes: 1 << 20,
      },
      metadata: this.#metadata.threadHandle().handle,
      objectsUrl: 'memory:',
      counters: this.#counters,
      counterBlock: lane,
      ...change,
    });
  }

  /** Asks a lane for something that it answers whatever its state. */
  ask(lane: number, id: number): boolean {
    return this.pool.post(lane, { type: 'bounds', id, topicId: 1, partition: 0 });
  }

  /** Ids answered by a lane so far, in order. */
  answered(lane: number): number[] {
    return this.replies.flatMap((one) => (one.lane === lane && 'id' in one.reply ? [one.reply.id] : []));
  }

  async until(what: string, holds: () => boolean): Promise<void> {
    const deadline = performance.now() + WITHIN_MS;
    while (!holds()) {
      assert.ok(performance.now() < deadline, `not within ${WITHIN_MS} ms: ${what}`);
      await sleepMs(2);
    }
  }

  /** Started and alive. */
  async startAndHear(lane: number, id: number): Promise<void> {
    this.start(lane);
    assert.equal(this.ask(lane, id), true);
    await this.until(`lane ${lane} answers`, () => this.answered(lane).includes(id));
  }
}

/** One append of one record, without key, to a partition of topic 1. */
function produceMessage(slot: number): Uint8Array<ArrayBuffer> {
  const value = Buffer.from('value');
  const bytes = new Uint8Array(PRODUCE_HEADER_BYTES + 8 + value.length);
  const out = Buffer.from(bytes.buffer);
  const header = { ...blankAppendHeader(), slot, generation: 7, topicId: 1, recordCount: 1 };
  writeAppendHeader(out, 0, { ...header, dataBytes: value.length });
  out.writeInt32LE(-1, PRODUCE_HEADER_BYTES);
  out.writeInt32LE(value.length, PRODUCE_HEADER_BYTES + 4);
  value.copy(out, PRODUCE_HEADER_BYTES + 8);
  return bytes;
}

/** Everything that must hold of a pool. */
export function lanePoolContract(name: string, make: MakeLanePool): void {
  describe(`lane pool: ${name}`, () => {
    let metadata: OpenedMetadata;
    let rig: PoolRig;
    beforeEach(async () => {
      metadata = await openMetadata('memory:', { role: 'broker' });
      rig = new PoolRig(make, metadata);
    });
    afterEach(async () => {
      await rig.pool.close();
      await metadata.close();
    });
    startTests(() => rig);
    endTests(() => rig);
    portTests(() => rig);
  });
}

function startTests(rig: () => PoolRig): void {
  it('starts lanes that answer, each for itself and in order', async () => {
    for (let lane = 0; lane < LANES; lane++) rig().start(lane);
    for (let id = 0; id < 50; id++) {
      for (let lane = 0; lane < LANES; lane++) assert.equal(rig().ask(lane, id * LANES + lane), true);
    }
    await rig().until('all are answered', () => rig().replies.length === 50 * LANES);
    for (let lane = 0; lane < LANES; lane++) {
      assert.deepEqual(
        rig().answered(lane),
        Array.from({ length: 50 }, (_, id) => id * LANES + lane),
      );
    }
    assert.deepEqual(rig().ends, []);
  });

  it('refuses to start a lane that is running, and goes on', async () => {
    await rig().startAndHear(1, 1);
    assert.throws(() => rig().start(1));
    rig().ask(1, 2);
    await rig().until('it still answers', () => rig().answered(1).includes(2));
  });

  it('posts nothing to a lane that was never started, and moves nothing', () => {
    const bytes = produceMessage(0);
    assert.equal(rig().pool.post(2, { type: 'produce', bytes }, [bytes.buffer]), false);
    assert.ok(bytes.length > 0);
  });

  it('tells of a lane that cannot begin', async () => {
    rig().start(0, { objectsUrl: 'nowhere:' });
    await rig().until('it ended', () => rig().ends.length === 1);
    assert.equal(rig().ends[0].lane, 0);
    assert.ok(rig().ends[0].error instanceof Error);
    await rig().startAndHear(0, 1);
  });
}

function endTests(rig: () => PoolRig): void {
  it('tells once, with an error, of a lane that was terminated; then it can be started again', async () => {
    await rig().startAndHear(0, 1);
    await rig().startAndHear(1, 1);
    for (let round = 0; round < 3; round++) {
      rig().pool.terminate(0);
      await rig().until('it ended', () => rig().ends.length === round + 1);
      const { lane, error } = rig().ends[round];
      assert.equal(lane, 0);
      assert.ok(error instanceof Error);
      assert.equal(rig().ask(0, 100), false);
      const repliesBefore = rig().replies.length;
      await sleepMs(10);
      assert.equal(rig().replies.length, repliesBefore, 'nothing more comes from it');
      await rig().startAndHear(0, 10 + round);
    }
    rig().ask(1, 2);
    await rig().until('the other one lives', () => rig().answered(1).includes(2));
    assert.equal(rig().ends.length, 3);
  });

  it('takes the end of a lane that is not running for nothing', async () => {
    rig().pool.terminate(2);
    await rig().startAndHear(2, 1);
    rig().pool.terminate(2);
    rig().pool.terminate(2);
    await rig().until('it ended', () => rig().ends.length > 0);
    rig().pool.terminate(2);
    await sleepMs(10);
    assert.equal(rig().ends.length, 1);
  });

  it('answers nothing of what was under way when a lane is terminated, after it told so', async () => {
    await rig().startAndHear(0, 0);
    for (let id = 1; id <= 1000; id++) rig().ask(0, id);
    rig().pool.terminate(0);
    await rig().until('it ended', () => rig().ends.length === 1);
    const answered = rig().answered(0).length;
    await rig().startAndHear(0, 2000);
    assert.equal(rig().answered(0).length, answered + 1);
  });

  it('tells without an error of a lane that was told to close', async () => {
    await rig().startAndHear(0, 1);
    rig().pool.post(0, { type: 'close' });
    await rig().until('it ended', () => rig().ends.length === 1);
    assert.deepEqual(rig().ends, [{ lane: 0, error: null }]);
    assert.equal(rig().ask(0, 2), false);
    await rig().startAndHear(0, 3);
  });

  it('ends all lanes when it closes, answers them first, and is closed for good', async () => {
    for (let lane = 0; lane < LANES; lane++) rig().start(lane);
    for (let lane = 0; lane < LANES; lane++) for (let id = 0; id < 20; id++) rig().ask(lane, id);
    await rig().pool.close();
    for (let lane = 0; lane < LANES; lane++) {
      assert.equal(rig().answered(lane).length, 20);
      assert.equal(rig().ask(lane, 99), false);
    }
    assert.deepEqual(
      rig()
        .ends.map(({ lane, error }) => ({ lane, error }))
        .sort((a, b) => a.lane - b.lane),
      [0, 1, 2].map((lane) => ({ lane, error: null })),
    );
    await rig().pool.close();
  });

  it('closes when a lane was terminated just before, and when none was ever started', async () => {
    await rig().startAndHear(0, 1);
    await rig().startAndHear(1, 1);
    rig().pool.terminate(0);
    await rig().pool.close();
    assert.equal(rig().ends.length, 2);
  });
}

function portTests(rig: () => PoolRig): void {
  /** The codes of all answers that came from a lane to main, by slot. */
  const codes = (): Map<number, string | null> => {
    const found = new Map<number, string | null>();
    for (const { reply } of rig().replies) {
      if (reply.type === 'answers')
        readAnswers(reply.bytes, (slot, _generation, code) => found.set(slot, code));
    }
    return found;
  };

  function produce(lane: number, slot: number): void {
    const bytes = produceMessage(slot);
    assert.equal(rig().pool.post(lane, { type: 'produce', bytes }, [bytes.buffer]), true);
    assert.equal(bytes.length, 0, 'the memory moved');
  }

  it('connects a lane to a batching worker by a port, and refuses appends while there is none', async () => {
    await rig().startAndHear(0, 1);
    produce(0, 5);
    await rig().until('it was refused', () => codes().has(5));
    assert.equal(codes().get(5), 'not-leader');

    const { port1, port2 } = new MessageChannel();
    const reports: LaneReport[] = [];
    port2.on('message', (report: LaneReport) => reports.push(report));
    rig().pool.post(0, { type: 'sequencer-port', port: port1 }, [port1]);
    produce(0, 6);
    await rig().until('it was forwarded', () => reports.length === 1);
    assert.equal(reports[0].type, 'append');
    assert.ok(!codes().has(6));

    rig().pool.post(0, { type: 'sequencer-lost' });
    produce(0, 7);
    await rig().until('it was refused', () => codes().has(7));
    assert.equal(codes().get(7), 'not-leader');
    port2.close();
  });

  it('lets go of the port when a lane is terminated', async () => {
    await rig().startAndHear(0, 1);
    const { port1, port2 } = new MessageChannel();
    let closed = false;
    port2.on('message', () => undefined);
    port2.on('close', () => {
      closed = true;
    });
    rig().pool.post(0, { type: 'sequencer-port', port: port1 }, [port1]);
    rig().ask(0, 2);
    await rig().until('it is connected', () => rig().answered(0).includes(2));
    rig().pool.terminate(0);
    await rig().until('the port is closed', () => closed);
  });
}
