/**
 * One client's produce request from its admission to its answer: which records are in which append, and what became
 * of them. Owns: that, and what error codes mean to a producer. Does not own: slots and deadlines (produce-router).
 * Main thread.
 */
import type { ErrorCode, PlainError } from '../core/errors.ts';
import type { AppendOwner } from './append-table.ts';
import type { ProduceRequest, ProduceResult } from './broker.ts';

/** What a code means to a producer, where there is no message of more detail. */
const MESSAGES: Partial<Record<ErrorCode, string>> = {
  'deadline-exceeded': 'the request was not committed in time; whether it will be is unknown',
  'thread-lost': 'the broker lost the thread that carried the request; whether it was committed is unknown',
  'peer-lost':
    'the broker that leads the partition was lost before it answered; whether it was committed is unknown',
  'append-abandoned': 'the records were not stored and will not be; try again',
  'not-leader': 'the partition is not served at the moment; nothing was stored; try again',
  'shutting-down': 'the broker is stopping; nothing was stored; try again elsewhere',
  'store-unknown': 'the metadata store did not tell whether the records were committed',
  'producer-fenced': 'a newer epoch of this producer id is in use',
  'out-of-order-sequence': 'the sequence number does not follow the last one of this producer',
  overloaded: 'too many bytes wait for the leader of the partition; nothing was stored; try again later',
};

/**
 * The log knows that the topic is deleted. Its name may be another topic's by now, so that this is not the end of
 * it: who tries again meets that one, or is told by the catalogue that there is none.
 */
const TOPIC_DELETED: PlainError = {
  code: 'append-abandoned',
  message: 'the topic was deleted, and perhaps made anew; nothing was stored; try again',
};

/** Told when the request is answered, whether or not all its appends are. */
type Answered = (pending: PendingRequest) => void;

export class PendingRequest implements AppendOwner {
  outstanding = 0;
  readonly cost: number;
  readonly topic: ProduceRequest['topic'];
  readonly deadlineMs: number;
  readonly timeoutMs: number;
  /** For each append the indices of its records; null: the one append has all records in order. */
  recordsOf: number[][] | null = null;
  isAnswered = false;
  readonly #done: (result: ProduceResult) => void;
  readonly #answered: Answered;
  readonly #offsets: number[];
  #errors: (PlainError | null)[] | null = null;

  constructor(
    request: ProduceRequest,
    cost: number,
    nowMs: number,
    done: (result: ProduceResult) => void,
    answered: Answered,
  ) {
    this.cost = cost;
    this.topic = request.topic;
    this.timeoutMs = request.timeoutMs;
    this.deadlineMs = nowMs + request.timeoutMs;
    this.#done = done;
    this.#answered = answered;
    this.#offsets = new Array(request.partitions.length).fill(-1);
  }

  note(append: number, code: ErrorCode | null, baseOffset: number): void {
    if (this.isAnswered) return;
    const offsets = this.#offsets;
    const records = this.recordsOf ? this.recordsOf[append] : null;
    const count = records ? records.length : offsets.length;
    if (code === null) {
      for (let i = 0; i < count; i++) offsets[records ? records[i] : i] = baseOffset + i;
      return;
    }
    const message = MESSAGES[code] ?? `the records were refused: ${code}`;
    const error: PlainError = code === 'topic-not-found' ? TOPIC_DELETED : { code, message };
    this.#errors ??= new Array(offsets.length).fill(null);
    for (let i = 0; i < count; i++) this.#errors[records ? records[i] : i] = error;
  }

  finish(): void {
    if (this.isAnswered) return;
    this.isAnswered = true;
    this.#answered(this);
    this.#done({ offsets: this.#offsets, errors: this.#errors });
  }

  /** The deadline is met: what is not answered by now is unknown. */
  expire(): void {
    const offsets = this.#offsets;
    const error: PlainError = { code: 'deadline-exceeded', message: MESSAGES['deadline-exceeded'] as string };
    this.#errors ??= new Array(offsets.length).fill(null);
    for (let i = 0; i < offsets.length; i++) {
      if (offsets[i] < 0 && this.#errors[i] === null) this.#errors[i] = error;
    }
    this.finish();
  }
}

/** A message of another broker's appends; it has no deadline, for its sender keeps its clients' own. */
export class PendingMessage implements AppendOwner {
  outstanding: number;
  readonly cost: number;
  readonly isAnswered = false;
  readonly #answer: (index: number, code: ErrorCode | null, baseOffset: number) => void;

  constructor(
    count: number,
    cost: number,
    answer: (index: number, code: ErrorCode | null, baseOffset: number) => void,
  ) {
    this.outstanding = count;
    this.cost = cost;
    this.#answer = answer;
  }

  note(append: number, code: ErrorCode | null, baseOffset: number): void {
    this.#answer(append, code, baseOffset);
  }

  finish(): void {
    // Whoever gave `answer` counts.
  }
}
