/**
 * One broker as a client reaches it: its URL and its connections, over undici. Owns one request and how its failure
 * is told apart (rest-error.ts). Does not try again. Main thread.
 */
import { type Dispatcher, Pool } from 'undici';
import { answerError, connectionError, failure } from './rest-error.ts';

/** A request to any broker of the cluster. */
export interface RestCall {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE' | 'PATCH';
  path: string;
  body?: string;
  headers?: Record<string, string>;
  /** On top of the client's timeout, ms. */
  waitMs?: number;
}

export interface ConnectionOptions {
  connectionsMax: number;
  timeoutMs: number;
  signal: AbortSignal | undefined;
}

/** The one form of a broker's URL: no slash at its end, no query. 'invalid-url' unless it is http:// or https://. */
export function brokerUrl(text: string): string {
  const parsed = URL.canParse(text) ? new URL(text) : null;
  if (parsed === null || (parsed.protocol !== 'http:' && parsed.protocol !== 'https:')) {
    throw failure(`${JSON.stringify(text.slice(0, 200))} is not an http:// or https:// URL`, 'invalid-url');
  }
  return parsed.origin + parsed.pathname.replace(/\/+$/, '');
}

export class BrokerConnection {
  readonly url: string;
  /** The path before all paths of the API: '' unless the broker is behind something. */
  readonly #prefix: string;
  readonly #pool: Pool;
  readonly #options: ConnectionOptions;

  /** `url` is as brokerUrl gives it. */
  constructor(url: string, options: ConnectionOptions) {
    const { origin } = new URL(url);
    this.url = url;
    this.#prefix = url.slice(origin.length);
    this.#options = options;
    this.#pool = new Pool(origin, {
      connections: options.connectionsMax,
      pipelining: 1,
      connectTimeout: 5_000,
    });
  }

  /** The text of a 2xx answer; else a RestError. */
  async request(call: RestCall): Promise<string> {
    const timeoutMs = this.#options.timeoutMs + (call.waitMs ?? 0);
    let answer: Dispatcher.ResponseData;
    let text: string;
    try {
      answer = await this.#pool.request({
        method: call.method,
        path: this.#prefix + call.path,
        headers: {
          accept: 'application/json',
          ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
          ...call.headers,
        },
        body: call.body,
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
        signal: this.#options.signal,
      });
      text = await answer.body.text();
    } catch (error) {
      throw connectionError(error, this.url);
    }
    if (answer.statusCode >= 200 && answer.statusCode < 300) return text;
    throw answerError(answer.statusCode, answer.headers['retry-after'], text);
  }

  /** A link of an answer as a path under the broker's own base: the host that it names may not be ours. */
  pathOf(link: string): string {
    const parsed = new URL(link, this.url);
    const path = parsed.pathname + parsed.search;
    return path.startsWith(`${this.#prefix}/`) ? path.slice(this.#prefix.length) : path;
  }

  /** Ends all connections, whatever is open on them. */
  close(): Promise<void> {
    return this.#pool.destroy();
  }
}
