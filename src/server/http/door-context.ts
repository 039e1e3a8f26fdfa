/**
 * What every endpoint of the HTTP door works with, and the settings of the door. Main thread.
 */
import type { Clock } from '../../core/clock.ts';
import type { Broker } from '../../route/broker.ts';
import type { BodyAdmission } from './door-request.ts';
import type { HttpObserver } from './http-observer.ts';
import type { Responder } from './responder.ts';

export interface HttpDoorSettings {
  /** Largest request body, bytes. */
  bodyBytesMax: number;
  /** A produce request is answered within this time, as unknown at worst. */
  produceTimeoutMs: number;
  connectionsMax: number;
  /** All headers of a request must have come within this time, and all of the request within the next. */
  headersTimeoutMs: number;
  bodyTimeoutMs: number;
  /** A connection without a request is closed after this time. */
  keepAliveTimeoutMs: number;
  /** A connection on which no byte moves is closed after this time; above the longest long poll. */
  idleTimeoutMs: number;
  /** Request line and headers, bytes. */
  headerBytesMax: number;
  /** Requests that a client may have unanswered on one connection. */
  pipelinedRequestsMax: number;
}

/** Reasons: a slow link may take half a minute for 16 MiB; 10 s are ample for 16 KiB of headers. */
export const HTTP_DOOR_DEFAULTS = {
  headersTimeoutMs: 10_000,
  bodyTimeoutMs: 60_000,
  keepAliveTimeoutMs: 75_000,
  idleTimeoutMs: 120_000,
  headerBytesMax: 16 * 1024,
  pipelinedRequestsMax: 4096,
} as const;

/** Bytes that the door may hold; apart, so that readers who do not take their answers shut no producer out. */
export interface DoorAdmission {
  /** Of bodies that are being read. */
  readonly bodies: BodyAdmission;
  /** Of large answers that are being taken. */
  readonly answers: BodyAdmission;
}

export interface DoorContext {
  readonly broker: Broker;
  readonly settings: HttpDoorSettings;
  readonly responder: Responder;
  readonly observer: HttpObserver;
  readonly clock: Clock;
  readonly admission: DoorAdmission;
  /** Aborted when the door begins to close: long polls answer at once. */
  readonly closing: AbortSignal;
  /** Where the door listens; null before. */
  address: { host: string; port: number } | null;
}
