/**
 * Gives up an answer whose body is not wanted, and the connection with it, which would otherwise wait for somebody to
 * read. Owns: that. Main thread.
 */
import type { Dispatcher } from 'undici';

export function discardBody(body: Dispatcher.ResponseData['body']): void {
  // undici tells that it was aborted as an 'error', which would end the process if nobody listened.
  body.on('error', () => undefined);
  body.destroy();
}
