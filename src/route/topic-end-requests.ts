/**
 * TopicDeleted on shards that are held here: asks the batching worker and waits for its answer. Owns: who waits. Does
 * not own: which shards (topic-endings), the entry (batching worker). Main thread.
 */
import type { SequencerReply, SequencerRequest } from '../../workers/messages.ts';
import { StreamHouseError } from '../core/errors.ts';

export class TopicEndRequests {
  readonly #post: (request: SequencerRequest) => boolean;
  readonly #waiting = new Map<number, { resolve: () => void; reject: (error: unknown) => void }>();
  #lastId = 0;

  /** `post`: to the batching worker; false when it is being started again. */
  constructor(post: (request: SequencerRequest) => boolean) {
    this.#post = post;
  }

  /** Rejects with 'not-leader' when one of the shards is not served here; then perhaps some have it. */
  end(topicId: number, shards: readonly number[]): Promise<void> {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      if (this.#post({ type: 'end-topic', id, topicId, shards: [...shards] })) return;
      this.#waiting.delete(id);
      reject(new StreamHouseError('not-leader', 'the batching worker is being started again'));
    });
  }

  answered({ id, error }: Extract<SequencerReply, { type: 'topic-deleted' }>): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) waiting?.reject(StreamHouseError.fromPlain(error));
    else waiting?.resolve();
  }

  /** The batching worker ended. */
  failAll(): void {
    for (const { reject } of this.#waiting.values()) {
      reject(new StreamHouseError('not-leader', 'the batching worker ended'));
    }
    this.#waiting.clear();
  }
}
