/**
 * The requests under way to the store, as all models hold them: a multiset kept sorted, since the network
 * keeps no order, with a mark on those whose sender still waits.
 * Owns: the order and the mark. Does not own: what a request does (the models). Plain functions, no thread.
 */

/**
 * What every request under way has: its sender's number, and whether the sender still waits for the reply.
 */
export interface InFlight {
  readonly from: number;
  readonly awaited: boolean;
}

const NAMES = ['A', 'B', 'C', 'D'];

/** The name of agent `index` in traces and commitIds. */
export function agentName(index: number): string {
  return NAMES[index]!;
}

/** Adds an item where the order of their texts wants it, so that equal sets give equal states. */
export function insertSorted<T>(sorted: T[], item: T): void {
  const text = JSON.stringify(item);
  let at = sorted.length;
  while (at > 0 && JSON.stringify(sorted[at - 1]) > text) at--;
  sorted.splice(at, 0, item);
}

/** Agent `from` waits no longer for anything; what it sent stays under way, for nothing can take it back. */
export function abandonRequests<Request extends InFlight>(
  requests: readonly Request[],
  from: number,
): Request[] {
  const isAwaited = (request: Request): boolean => request.from === from && request.awaited;
  const kept = requests.filter((request) => !isAwaited(request));
  for (const request of requests) if (isAwaited(request)) insertSorted(kept, { ...request, awaited: false });
  return kept;
}

/**
 * The requests that differ, each with the place of its first copy: executing either of two equals is one
 * step.
 */
export function* distinctRequests<Request>(requests: readonly Request[]): Generator<[number, Request]> {
  let before = '';
  for (const [index, request] of requests.entries()) {
    const text = JSON.stringify(request);
    if (text !== before) yield [index, request];
    before = text;
  }
}
