/**
 * Benchmarks of the file-system object store: durable puts by size beside a plain write and fsync of a new file
 * of the same size, and ranged gets. One thread, and the file system's.
 */
import { randomBytes } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../../src/core/clock.ts';
import { systemRandom } from '../../src/core/random.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { openObjectStore } from '../../storage/objects/open-object-store.ts';
import { inScratchDirectory } from '../scratch-directory.ts';
import { type Suite, type SuiteOptions, type TaskFigures, TaskSet } from '../suite.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

function addPut(tasks: TaskSet, store: ObjectStore, directory: string, size: number, label: string): void {
  const bytes = randomBytes(size);
  const per = { items: size, itemName: 'byte' };
  let number = 0;
  const key = () => `put/${label.replace(' ', '')}-${number}`;
  tasks.add(`put ${label}`, () => store.put(key(), bytes), {
    ...per,
    against: `plain write and fsync, ${label}`,
    hooks: { async: true, afterEach: () => store.delete(key()).then(() => void number++) },
  });
  const path = join(directory, `plain-${size}`);
  const write = async () => {
    const file = await open(path, 'wx');
    await file.write(bytes);
    await file.sync();
    await file.close();
  };
  tasks.add(`plain write and fsync, ${label}`, write, {
    ...per,
    hooks: { async: true, afterEach: () => rm(path) },
  });
}

async function measure(directory: string, options: SuiteOptions): Promise<TaskFigures[]> {
  const store = await openObjectStore(`file:${join(directory, 'objects')}`, {
    clock: systemClock,
    random: systemRandom,
  });
  try {
    const tasks = new TaskSet('object store', options, { timeMs: 2000, runs: 32 });
    addPut(tasks, store, directory, 64 * KIB, '64 KiB');
    if (!options.smoke) {
      addPut(tasks, store, directory, MIB, '1 MiB');
      addPut(tasks, store, directory, 8 * MIB, '8 MiB');
    }
    const objectBytes = options.smoke ? MIB : 8 * MIB;
    await store.put('get/object', randomBytes(objectBytes));
    let position = 0;
    for (const [length, label] of [
      [4 * KIB, '4 KiB'],
      [256 * KIB, '256 KiB'],
    ] as const) {
      const get = () => {
        position = (position + 1_000_003) % (objectBytes - length);
        return store.get('get/object', { position, length });
      };
      tasks.add(`get ${label} of an object`, get, {
        items: length,
        itemName: 'byte',
        hooks: { async: true },
      });
    }
    return await tasks.run();
  } finally {
    await store.close();
  }
}

export const objectStoreSuite: Suite = {
  name: 'object-store',
  title: 'object store: the file system',
  run: (options) => inScratchDirectory((directory) => measure(directory, options)),
};
