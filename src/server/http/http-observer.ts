/**
 * What the HTTP door tells whoever counts: once per request and once per refused connection, on the main
 * thread, in the hot path: implementations must be cheap and must not throw.
 */
export interface HttpObserver {
  /**
   * A request was answered (its last byte was handed to the socket, not yet received), or its client had gone
   * before (status 499). `route` is the pattern of the route, of a closed set.
   */
  requestDone(
    route: string,
    method: string,
    status: number,
    durationMs: number,
    bytesIn: number,
    bytesOut: number,
  ): void;
  /** Refused because `connectionsMax` were open. */
  connectionRefused(): void;
  /**
   * Bytes on a connection that are not HTTP, or too slow: the connection was closed. `reason`: Node's error
   * code.
   */
  clientFault(reason: string): void;
  /** A bug of ours that one request ran into; the client was answered 500 without any of this. */
  internalError(error: unknown, route: string): void;
}
