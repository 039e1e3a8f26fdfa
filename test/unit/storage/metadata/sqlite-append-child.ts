/**
 * A process of its own for the SQLite tests: opens the file at argv[2] through the storing thread, takes shards 0
 * to 3 over, and appends to them for ever, printing `acked SEQ` after each answer. A failed append prints
 * `failed CODE` and, after `failures`, how many there were, ends the process.
 */
import assert from 'node:assert/strict';
import { writeSync } from 'node:fs';
import { StreamHouseError } from '../../../../src/core/errors.ts';
import { openMetadata } from '../../../../storage/metadata/open-metadata-store.ts';
import { appendedBody, CHILD_SHARDS } from './sqlite-append-body.ts';

const FAILURES_MAX = 3;

const say = (line: string) => writeSync(1, `${line}\n`);
// Run as a test, by a pattern that matches it, it would fill the disk.
assert(process.argv[2], 'which file?');
const { store } = await openMetadata(`sqlite:${process.argv[2]}`, { role: 'broker' });
await store.initCluster({ clusterId: 'c', storeIncarnation: 's', shardCount: 8, createdAtMs: 1 });
const heads = (await store.listLeases()).slice(0, CHILD_SHARDS);
const taken = await store.acquireLeases(
  1,
  heads.map(({ shard, holder, epoch }) => ({ shard, holder, epoch })),
);
const { headSeq, epoch } = taken[0].head;
say(`ready ${headSeq}`);
for (let seq = headSeq + 1, failures = 0; failures < FAILURES_MAX; ) {
  const entries = heads.map(({ shard }) => ({
    shard,
    seq,
    epoch,
    commitId: `c-${shard}-${seq}-${epoch}`,
    body: appendedBody(shard, seq),
  }));
  const row = { object: { incarnation: 1, number: seq }, bytes: 1, createdAtMs: 1, shards: [] };
  try {
    const outcomes = await store.appendEntries(entries, [row]);
    if (outcomes.some(({ kind }) => kind !== 'done')) throw new Error(JSON.stringify(outcomes));
    say(`acked ${seq++}`);
  } catch (error) {
    if (!(error instanceof StreamHouseError)) throw error;
    failures++;
    say(`failed ${error.code}`);
  }
}
// Without closing: what the disk's trouble left is what the next one opens.
process.exit(7);
