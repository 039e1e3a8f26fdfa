/**
 * Checkpoints and the heads' pointers to them. Owns: their items, immutable under (shard, seq, writer), and the
 * pointer's moves. Does not own: what a checkpoint says (workers/). The thread that hosts the store.
 *
 * Chunks bear a hash of the whole beside the key, so that two that write under one key never mix: whose item is there
 * first stays, the other's chunks go with all below the pointer.
 */
import { StreamHouseError } from '../../../src/core/errors.ts';
import { checkBody, checkInteger } from '../check-input.ts';
import type { CheckpointPointer, HeadOutcome } from '../metadata-store.ts';
import { CHUNK_BYTES, type ChunkPlace, cutBody, putChunks, readBody } from './dynamodb-bodies.ts';
import type { DynamodbHeads } from './dynamodb-heads.ts';
import { checkpointChunks, checkpoints, ordered, storedBodyOf } from './dynamodb-items.ts';
import type { DynamodbRequests } from './dynamodb-requests.ts';
import { type ItemKey, ItemReader, toItem } from './dynamodb-values.ts';

const MOVE_POINTER = {
  set: 'SET #pointerSeq = :to, #pointerWriter = :writer',
  condition: '#epoch = :epoch AND #seq >= :to AND (attribute_not_exists(#pointerSeq) OR #pointerSeq < :to)',
};

export class DynamodbCheckpoints {
  readonly #requests: DynamodbRequests;
  readonly #heads: DynamodbHeads;
  readonly #bodyBytesMax: number;

  constructor(requests: DynamodbRequests, heads: DynamodbHeads, bodyBytesMax: number) {
    this.#requests = requests;
    this.#heads = heads;
    this.#bodyBytesMax = bodyBytesMax;
  }

  async put(shard: number, pointer: CheckpointPointer, bytes: Uint8Array): Promise<void> {
    checkInteger(pointer.seq, 'seq');
    checkInteger(pointer.writer, 'writer');
    checkBody(bytes, this.#bodyBytesMax, 'a checkpoint');
    const { stored, chunks } = cutBody(Uint8Array.from(bytes), CHUNK_BYTES, chunkPlace(shard, pointer), null);
    await this.#heads.ensureExist([shard]);
    await putChunks(this.#requests, chunks, 'bulk');
    await this.#requests.putIfAbsent(toItem(checkpointKey(shard, pointer), { ...stored }), 'bulk');
  }

  async get(shard: number, pointer: CheckpointPointer): Promise<Uint8Array> {
    await this.#heads.ensureExist([shard]);
    const key = checkpointKey(shard, pointer);
    const item = await this.#requests.get(key, { lane: 'look-up' });
    if (item !== null) {
      const reader = new ItemReader(item);
      const place = chunkPlace(shard, pointer);
      const body = await readBody(this.#requests, storedBodyOf(reader), place, () => reader);
      if (!('damage' in body)) return body;
      // Deleted while it was read? Its item goes first.
      if ((await this.#requests.get(key, { lane: 'look-up' })) !== null) reader.fail(body.damage);
    }
    throw new StreamHouseError(
      'checkpoint-not-found',
      `shard ${shard} has no checkpoint at ${pointer.seq} by ${pointer.writer}`,
    );
  }

  async movePointer(shard: number, epoch: number, { seq, writer }: CheckpointPointer): Promise<HeadOutcome> {
    checkInteger(seq, 'seq', 1);
    checkInteger(writer, 'writer');
    await this.#heads.ensureExist([shard]);
    const { outcome } = await this.#heads.change(shard, {
      ...MOVE_POINTER,
      values: { epoch, to: seq, writer },
    });
    return outcome;
  }

  async deleteOld(shard: number): Promise<void> {
    const { checkpoint } = await this.#heads.read(shard);
    if (checkpoint === null) return;
    const below = { text: '#sk < :pointer', values: { pointer: ordered(checkpoint.seq) } };
    await this.#requests.removeRange(checkpoints(shard), below);
    await this.#requests.removeRange(checkpointChunks(shard), below);
  }
}

function checkpointKey(shard: number, { seq, writer }: CheckpointPointer): ItemKey {
  return { pk: checkpoints(shard), sk: `${ordered(seq)}#${ordered(writer)}` };
}

function chunkPlace(shard: number, pointer: CheckpointPointer): ChunkPlace {
  return { pk: checkpointChunks(shard), prefix: `${checkpointKey(shard, pointer).sk}#` };
}
