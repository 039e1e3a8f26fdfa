/**
 * The client of a door measurement, its own process: keeps a fixed number of requests in flight over keep-alive
 * connections for a time and reports. Owns: the loop and its two ways, undici's Pool, and raw sockets that write
 * prepared bytes where undici itself would be what is measured. One question, one answer.
 */
import { type Dispatcher, Pool } from 'undici';
import { LatencyCount } from './latency-count.ts';
import { PRODUCE_CONTENT_TYPE, produceCalls, type RequestShape } from './produce-requests.ts';
import { RawConnection, type RequestWheel } from './raw-connection.ts';

export interface ClientTask {
  client: 'undici' | 'raw';
  url: string;
  shape: RequestShape;
  connections: number;
  inFlight: number;
  warmUpMs: number;
  measureMs: number;
}

export interface ClientFigures {
  requestsPerS: number;
  count: number;
  /** Answers in all, those of the warm-up too. */
  answers: number;
  p50Ms: number;
  p99Ms: number;
  /** CPU of this client over the measured time, in parts of one core. */
  cpuCores: number;
}

/** Counts what is answered in the measured time. */
class Measurement {
  readonly latencies = new LatencyCount();
  readonly failed: Promise<never>;
  fail!: (error: Error) => void;
  #isOn = false;
  #answers = 0;

  constructor() {
    this.failed = new Promise<never>((_, reject) => (this.fail = reject));
    this.failed.catch(() => undefined);
  }

  readonly answer = (sentMs: number, nowMs: number): void => {
    this.#answers++;
    if (this.#isOn) this.latencies.add(nowMs - sentMs);
  };

  async run({ warmUpMs, measureMs }: ClientTask): Promise<ClientFigures> {
    await this.#wait(warmUpMs);
    this.#isOn = true;
    const startMs = performance.now();
    const cpuBefore = process.cpuUsage();
    await this.#wait(measureMs);
    // A time without a single answer says nothing: it goes on.
    while (this.latencies.count === 0) await this.#wait(50);
    this.#isOn = false;
    const tookMs = performance.now() - startMs;
    const { user, system } = process.cpuUsage(cpuBefore);
    const { latencies } = this;
    return {
      requestsPerS: (latencies.count * 1000) / tookMs,
      count: latencies.count,
      answers: this.#answers,
      p50Ms: latencies.quantile(0.5),
      p99Ms: latencies.quantile(0.99),
      cpuCores: (user + system) / 1000 / tookMs,
    };
  }

  #wait(ms: number): Promise<void> {
    return Promise.race([new Promise<void>((resolve) => setTimeout(resolve, ms)), this.failed]);
  }
}

function wheelOf(shape: RequestShape, host: string): RequestWheel {
  const requests = produceCalls(shape).map(({ path, body }) =>
    Buffer.from(
      `POST ${path} HTTP/1.1\r\nHost: ${host}\r\nContent-Type: ${PRODUCE_CONTENT_TYPE}\r\n` +
        `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    ),
  );
  const starts = [0];
  for (const request of requests) starts.push(starts[starts.length - 1] + request.length);
  return { bytes: Buffer.concat(requests), starts };
}

async function runRaw(task: ClientTask): Promise<ClientFigures> {
  const measurement = new Measurement();
  const { hostname, port, host } = new URL(task.url);
  const wheel = wheelOf(task.shape, host);
  const count = wheel.starts.length - 1;
  const depth = Math.ceil(task.inFlight / task.connections);
  const events = { answer: measurement.answer, failed: measurement.fail };
  const connections = Array.from({ length: task.connections }, (_, i) => {
    const first = Math.floor((i * count) / task.connections);
    return new RawConnection({ host: hostname, port: Number(port) }, wheel, first, depth, events);
  });
  try {
    return await measurement.run(task);
  } finally {
    for (const connection of connections) connection.close();
  }
}

/** One of the requests in flight: sent again as soon as it is answered. */
class UndiciSlot implements Dispatcher.DispatchHandler {
  readonly #pool: Pool;
  readonly #calls: Dispatcher.DispatchOptions[];
  readonly #measurement: Measurement;
  #next: number;
  #sentMs = 0;

  constructor(pool: Pool, calls: Dispatcher.DispatchOptions[], first: number, measurement: Measurement) {
    this.#pool = pool;
    this.#calls = calls;
    this.#next = first;
    this.#measurement = measurement;
  }

  send(): void {
    this.#sentMs = performance.now();
    this.#pool.dispatch(this.#calls[this.#next], this);
    this.#next = (this.#next + 1) % this.#calls.length;
  }

  onRequestStart(): void {
    // Required by undici; nothing to do.
  }

  onResponseStart(_: Dispatcher.DispatchController, status: number): void {
    if (status >= 300) this.#measurement.fail(new Error(`an answer was refused with status ${status}`));
  }

  onResponseData(): void {
    // The body is not looked at.
  }

  onResponseEnd(): void {
    this.#measurement.answer(this.#sentMs, performance.now());
    this.send();
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    this.#measurement.fail(error);
  }
}

async function runUndici(task: ClientTask): Promise<ClientFigures> {
  const measurement = new Measurement();
  const pipelining = Math.ceil(task.inFlight / task.connections);
  const pool = new Pool(task.url, { connections: task.connections, pipelining });
  // undici pipelines only what it may repeat; nothing fails here, so nothing is repeated.
  const calls = produceCalls(task.shape).map(({ path, body }): Dispatcher.DispatchOptions => {
    const headers = { 'content-type': PRODUCE_CONTENT_TYPE };
    return { path, method: 'POST', body, headers, idempotent: true, blocking: false };
  });
  for (let i = 0; i < task.connections * pipelining; i++) {
    new UndiciSlot(pool, calls, i % calls.length, measurement).send();
  }
  return measurement.run(task);
}

process.on('message', async (task: ClientTask) => {
  const figures = await (task.client === 'raw' ? runRaw(task) : runUndici(task));
  process.send?.(figures, () => process.exit());
});
