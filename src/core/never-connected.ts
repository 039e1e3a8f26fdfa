/**
 * How a connection that was never made shows in Node's and undici's errors. Such a one carried nothing; any other
 * break may have come after the request arrived. Owns: that list. Pure; any thread.
 */
const NEVER_CONNECTED = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EADDRNOTAVAIL',
  'UND_ERR_CONNECT_TIMEOUT',
]);

/** The system's word for why, and what may be shown of it. */
export function connectionFailure(error: unknown): { code: string | null; text: string } {
  // A name that resolves to several addresses fails with an AggregateError of one error each.
  const one = error instanceof AggregateError && error.errors.length > 0 ? error.errors[0] : error;
  if (!(one instanceof Error)) return { code: null, text: String(one) };
  const code = (one as NodeJS.ErrnoException).code ?? null;
  return { code, text: one.message || code || one.name };
}

/** Whether an error with this code means that there was never a connection. */
export function isNeverConnected(code: string | null): boolean {
  return code !== null && NEVER_CONNECTED.has(code);
}
