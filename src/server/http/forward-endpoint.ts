/**
 * `POST /internal/v1/produce`: appends that another broker forwards, many in one message. Owns: from the headers of
 * such a request to the last of its answers. Does not own: the layouts (protocol/peer/append-message), what happens to
 * records (route). Main thread.
 *
 *   begin -> (body) onBody -> submit, in order -> status line at once -> answers, as they are committed -> end
 *
 * The status line says that all appends have been taken, so that the sender may send more behind them.
 */
import type { ServerResponse } from 'node:http';
import { type ErrorCode, StreamHouseError } from '../../core/errors.ts';
import { FORWARD_BODY_BYTES_MAX } from '../../core/limits.ts';
import { AppendMessage, WIRE_ANSWER_BYTES, writeWireAnswer } from '../../protocol/peer/append-message.ts';
import {
  ANSWERS_TYPE,
  APPENDS_TYPE,
  checkPeerHeaders,
  PEER_PRODUCE_PATH,
} from '../../protocol/peer/peer-headers.ts';
import type { DoorContext } from './door-context.ts';
import type { BodyFault, BodySink, DoorRequest } from './door-request.ts';
import { refuseBody, startBody } from './produce-endpoint.ts';
import type { AnswerStream } from './responder.ts';
import { identityOf } from './route.ts';

/** Takes a request; throws what is wrong with its headers. */
export function beginForwarded(context: DoorContext, request: DoorRequest, response: ServerResponse): void {
  request.route = PEER_PRODUCE_PATH;
  const { headers } = request;
  checkPeerHeaders(headers, identityOf(context.broker));
  if (headers['content-type'] !== APPENDS_TYPE) {
    throw new StreamHouseError('unsupported-media-type', `appends come as ${APPENDS_TYPE}`);
  }
  const exchange = new ForwardedExchange(context, response);
  startBody(context, request, response, exchange, FORWARD_BODY_BYTES_MAX);
}

class ForwardedExchange implements BodySink {
  readonly #context: DoorContext;
  readonly #response: ServerResponse;
  #stream: AnswerStream | null = null;
  #answers: Buffer = Buffer.alloc(0);
  #length = 0;
  #left = 0;
  #isScheduled = false;

  constructor(context: DoorContext, response: ServerResponse) {
    this.#context = context;
    this.#response = response;
  }

  onBodyFault(request: DoorRequest, fault: BodyFault): void {
    refuseBody(this.#context, request, this.#response, fault, FORWARD_BODY_BYTES_MAX);
  }

  onBody(request: DoorRequest, body: Buffer): void {
    const { broker, responder } = this.#context;
    try {
      const message = new AppendMessage(body, broker.forwarded.limits);
      this.#left = message.count;
      broker.forwarded.submitForwarded(message, (index, code, baseOffset) =>
        this.#answer(index, code, baseOffset),
      );
      request.releaseBody();
      this.#stream = responder.stream(request, this.#response, ANSWERS_TYPE);
    } catch (error) {
      request.releaseBody();
      responder.failure(request, this.#response, error);
    }
  }

  /** Gathers what is answered in one turn. Never from inside of submit. */
  #answer(index: number, code: ErrorCode | null, baseOffset: number): void {
    const at = this.#length;
    this.#length += WIRE_ANSWER_BYTES;
    if (this.#length > this.#answers.length) {
      const grown = Buffer.allocUnsafe(Math.max(this.#length * 2, 16 * WIRE_ANSWER_BYTES));
      this.#answers.copy(grown, 0, 0, at);
      this.#answers = grown;
    }
    writeWireAnswer(this.#answers, at, index, code, baseOffset);
    this.#left--;
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => this.#flush());
  }

  #flush(): void {
    this.#isScheduled = false;
    const answers = this.#answers.subarray(0, this.#length);
    // The stream holds on to what it was given.
    this.#answers = Buffer.alloc(0);
    this.#length = 0;
    this.#stream?.write(answers);
    if (this.#left === 0) this.#stream?.end();
  }
}
