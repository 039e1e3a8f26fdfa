/**
 * PUT and ranged GET by undici and nothing else, of a server that asks for no signature: what HTTP itself takes, as a
 * measure beside the S3 client. Owns: the connections. The suite's thread.
 */
import { Agent } from 'undici';

/** As many as the S3 store keeps. */
const CONNECTIONS = 64;

export class BareHttp {
  readonly #agent = new Agent({ connections: CONNECTIONS, pipelining: 1 });
  readonly #origin: string;
  readonly #bucket: string;

  constructor(endpoint: string, bucket: string) {
    this.#origin = endpoint;
    this.#bucket = bucket;
  }

  async put(key: string, bytes: Uint8Array): Promise<void> {
    const { statusCode, body } = await this.#agent.request({
      origin: this.#origin,
      path: `/${this.#bucket}/${key}`,
      method: 'PUT',
      headers: { 'content-type': 'application/octet-stream', 'content-length': String(bytes.length) },
      body: bytes,
    });
    await body.dump();
    if (statusCode !== 200) throw new Error(`a bare PUT was answered with ${statusCode}`);
  }

  /** The range in one buffer, as the object store gives it. */
  async get(key: string, position: number, length: number): Promise<Buffer> {
    const { statusCode, body } = await this.#agent.request({
      origin: this.#origin,
      path: `/${this.#bucket}/${key}`,
      method: 'GET',
      headers: { range: `bytes=${position}-${position + length - 1}` },
    });
    if (statusCode !== 206) throw new Error(`a bare GET was answered with ${statusCode}`);
    const bytes = Buffer.allocUnsafeSlow(length);
    let at = 0;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    if (at !== length) throw new Error(`a bare GET gave ${at} of ${length} bytes`);
    return bytes;
  }

  close(): Promise<void> {
    return this.#agent.close();
  }
}
