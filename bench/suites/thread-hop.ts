/**
 * Benchmarks of a hop between threads and back over a MessagePort: a small message, a packed buffer that is moved,
 * and what the packed buffer replaces: an array of an object per append, and a message per append. The other
 * thread answers each run with one small message. Two threads.
 */
import { once } from 'node:events';
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { upTo } from '../sample-appends.ts';
import { type Suite, TaskSet } from '../suite.ts';

/** Answers 'answer' after each message, or after the last of several. */
const ECHO = `
const { workerData: port } = require('node:worker_threads');
port.on('message', (message) => { if (message.last) port.postMessage({ type: 'answer' }); });
`;

/** 64 KiB of appends of 80 bytes. */
const APPENDS = 819;
const PACKED_BYTES = 65_536;

class Hop {
  readonly #port: MessagePort;
  #answered: () => void = () => undefined;

  constructor(port: MessagePort) {
    this.#port = port;
    port.on('message', () => this.#answered());
  }

  post(message: unknown, moved: ArrayBuffer[] = []): void {
    this.#port.postMessage(message, moved);
  }

  answer(): Promise<void> {
    return new Promise((resolve) => (this.#answered = resolve));
  }
}

function append(slot: number) {
  return { slot, topicId: 7, partition: slot, value: new Uint8Array(10) };
}

export const threadHopSuite: Suite = {
  name: 'thread-hop',
  title: 'thread hop: one round trip over a MessagePort',
  async run(options) {
    const { port1, port2 } = new MessageChannel();
    const worker = new Worker(ECHO, { eval: true, workerData: port2, transferList: [port2] });
    const hop = new Hop(port1);
    const tasks = new TaskSet('thread hop', options);
    const packed = new Uint8Array(PACKED_BYTES).fill(7);
    const small = () => {
      hop.post({ type: 'small', last: true });
      return hop.answer();
    };
    tasks.add('one small message', small, { itemName: 'message', hooks: { async: true } });
    const per = { items: APPENDS, itemName: 'append' };
    const against = `${APPENDS} appends, an object each in one message`;
    tasks.add(
      `${APPENDS} appends, packed in 64 KiB and moved`,
      () => {
        // The copy into memory that can be moved is part of the way.
        const bytes = packed.slice();
        hop.post({ type: 'packed', bytes, last: true }, [bytes.buffer]);
        return hop.answer();
      },
      { ...per, against, hooks: { async: true } },
    );
    const objects = () => {
      hop.post({ type: 'objects', appends: upTo(APPENDS).map(append), last: true });
      return hop.answer();
    };
    tasks.add(against, objects, { ...per, hooks: { async: true } });
    tasks.add(
      `${APPENDS} appends, a message each`,
      () => {
        for (let i = 0; i < APPENDS; i++) hop.post({ append: append(i), last: i === APPENDS - 1 });
        return hop.answer();
      },
      { ...per, against, hooks: { async: true } },
    );
    try {
      return await tasks.run();
    } finally {
      const exited = once(worker, 'exit');
      port1.close();
      await worker.terminate();
      await exited;
    }
  },
};
