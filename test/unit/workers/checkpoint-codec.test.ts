/**
 * Checkpoints: a state comes back as it was, equal states give equal bytes, the frozen corpus keeps its meaning.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { decodeCheckpoint, encodeCheckpoint } from '../../../workers/checkpoint-codec.ts';
import { anySteps, dumpState, logOf, stateOf } from '../../support/entry-samples.ts';

const golden: { hex: string; state: unknown } = JSON.parse(
  readFileSync(new URL('../../golden/checkpoint-v1.json', import.meta.url), 'utf8'),
);

describe('checkpoint codec', () => {
  it('gives back the state, and goes on from it as the whole log would', () => {
    fc.assert(
      fc.property(anySteps, fc.nat(), (steps, cut) => {
        const log = logOf(steps);
        const at = log.length === 0 ? 0 : cut % (log.length + 1);
        const bytes = encodeCheckpoint(stateOf(log.slice(0, at)));
        const resumed = decodeCheckpoint(bytes, 3);
        assert.deepEqual(dumpState(resumed), dumpState(stateOf(log.slice(0, at))));
        for (const entry of log.slice(at)) resumed.apply(entry);
        assert.deepEqual(dumpState(resumed), dumpState(stateOf(log)));
        assert.deepEqual(encodeCheckpoint(resumed), encodeCheckpoint(stateOf(log)));
      }),
      { numRuns: 200 },
    );
  });

  it('reads the frozen checkpoint to the same meaning and still writes it', () => {
    const state = decodeCheckpoint(Buffer.from(golden.hex, 'hex'), 3);
    assert.deepEqual(dumpState(state), golden.state);
    assert.equal(Buffer.from(encodeCheckpoint(state)).toString('hex'), golden.hex);
  });

  it('refuses the checkpoint of another shard, and damage', () => {
    const bytes = Buffer.from(golden.hex, 'hex');
    assert.throws(() => decodeCheckpoint(bytes, 4), { code: 'corrupt-checkpoint' });
    assert.throws(() => decodeCheckpoint(bytes.subarray(0, 12), 3), { code: 'corrupt-checkpoint' });
    assert.throws(() => decodeCheckpoint(new Uint8Array(0), 3), { code: 'corrupt-checkpoint' });
  });
});
