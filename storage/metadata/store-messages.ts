/**
 * What crosses between a remote metadata store and the thread that serves it. Owns: the shapes of messages, and
 * which byte arrays a call carries in either direction, so that these can be moved instead of copied twice. Does
 * not own: batching or failure (remote- and served-metadata-store). Pure; any thread.
 *
 *   remote -> served   StoreRequest[]       one message per turn of the event loop
 *   served -> remote   StoreReply[]         in any order, matched by id
 * Either end closes its port to say that it is gone.
 */
import type { PlainError } from '../../src/core/errors.ts';
import type { MetadataArguments, MetadataMethod, MetadataResult } from './forwarding-metadata-store.ts';

export interface StoreRequest<M extends MetadataMethod = MetadataMethod> {
  id: number;
  method: M;
  args: MetadataArguments<M>;
}

export interface StoreReply<M extends MetadataMethod = MetadataMethod> {
  id: number;
  result?: MetadataResult<M>;
  error?: PlainError;
}

/**
 * Returns the arguments with every byte array replaced by a copy in memory of its own, which is added to
 * `moved`. A copy there must be: the caller keeps its bytes, and cloning a view would clone all of the buffer
 * that it looks into.
 */
export function withOwnBytes<M extends MetadataMethod>(
  request: StoreRequest<M>,
  moved: ArrayBuffer[],
): StoreRequest<M> {
  const own = (bytes: Uint8Array): Uint8Array => {
    const copy = new Uint8Array(bytes);
    moved.push(copy.buffer);
    return copy;
  };
  const { id, method } = request;
  let args = request.args as MetadataArguments<MetadataMethod>;
  if (isOf(request, 'appendEntries')) {
    const [entries, objects] = request.args;
    args = [entries.map((entry) => ({ ...entry, body: own(entry.body) })), objects];
  } else if (isOf(request, 'putPages')) {
    const [pages] = request.args;
    args = [pages.map((page) => ({ ...page, bytes: own(page.bytes) }))];
  } else if (isOf(request, 'putCheckpoint')) {
    const [shard, pointer, bytes] = request.args;
    args = [shard, pointer, own(bytes)];
  } else if (isOf(request, 'importRows')) {
    const [rows] = request.args as MetadataArguments<'importRows'>;
    const entries = rows.entries?.map((entry) => ({ ...entry, body: own(entry.body) }));
    args = [{ ...rows, ...(entries && { entries }) }];
  }
  return { id, method, args: args as MetadataArguments<M> };
}

function isOf<M extends MetadataMethod>(
  request: StoreRequest,
  method: M,
): request is StoreRequest<M> & StoreRequest {
  return request.method === method;
}

/**
 * Makes the byte arrays of a result movable in place and adds their memory to `moved`: what a store hands out
 * belongs to the receiver.
 */
export function moveResultBytes(method: MetadataMethod, result: unknown, moved: ArrayBuffer[]): unknown {
  const own = (bytes: Uint8Array): Uint8Array => {
    const isWhole = bytes.buffer instanceof ArrayBuffer && bytes.byteLength === bytes.buffer.byteLength;
    const whole = isWhole ? (bytes as Uint8Array<ArrayBuffer>) : new Uint8Array(bytes);
    moved.push(whole.buffer);
    return whole;
  };
  switch (method) {
    case 'readEntries':
      for (const entry of result as MetadataResult<'readEntries'>) entry.body = own(entry.body);
      return result;
    case 'findPages':
    case 'listPages':
      for (const page of result as MetadataResult<'findPages'>) if (page) page.bytes = own(page.bytes);
      return result;
    case 'scanPages':
      for (const page of (result as MetadataResult<'scanPages'>).pages) page.bytes = own(page.bytes);
      return result;
    case 'getCheckpoint':
      return own(result as MetadataResult<'getCheckpoint'>);
    default:
      return result;
  }
}
