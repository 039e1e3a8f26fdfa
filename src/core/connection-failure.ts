/**
 * What Node's and undici's errors say of a connection that failed: above all whether it was ever made. One that was not
 * carried nothing; any other break may have come after the request arrived. Owns: that judgement. Pure; any thread.
 */

/**
 * With the system call that gave them: the kernel gives the very same errors for an established connection whose
 * network went away while it waited for an answer (from `read` or `write`).
 */
const CALLS_BEFORE_A_CONNECTION: Readonly<Record<string, readonly string[]>> = {
  ECONNREFUSED: ['connect'],
  EHOSTUNREACH: ['connect'],
  ENETUNREACH: ['connect'],
  EADDRNOTAVAIL: ['connect'],
  ETIMEDOUT: ['connect'],
  ENOTFOUND: ['getaddrinfo'],
  EAI_AGAIN: ['getaddrinfo'],
};

/** Of undici alone: it gave up before there was a connection. */
const CONNECT_TIMEOUT = 'UND_ERR_CONNECT_TIMEOUT';

export interface ConnectionFailure {
  /** The system's or undici's word for it. */
  code: string | null;
  /** What may be shown of it. */
  text: string;
  /** There was never a connection: nothing of the request arrived. */
  wasNeverMade: boolean;
}

export function connectionFailure(error: unknown): ConnectionFailure {
  // A name that resolves to several addresses fails with an AggregateError of one error each.
  const one = error instanceof AggregateError && error.errors.length > 0 ? error.errors[0] : error;
  if (!(one instanceof Error)) return { code: null, text: String(one), wasNeverMade: false };
  const { code = null, syscall = '' } = one as NodeJS.ErrnoException;
  const calls = code === null ? undefined : CALLS_BEFORE_A_CONNECTION[code];
  const wasNeverMade = code === CONNECT_TIMEOUT || (calls?.includes(syscall) ?? false);
  return { code, text: one.message || code || one.name, wasNeverMade };
}
