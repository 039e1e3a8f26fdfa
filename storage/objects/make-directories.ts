/**
 * Makes a directory and those above it, so that they are there after a power loss. Owns: that. Does not own: what
 * errors mean to the caller (they are Node's own). Any thread.
 *
 * One by one, not by mkdir's `recursive`: under some file systems (/proc) that never comes back.
 */
import type { mkdir, open, stat } from 'node:fs/promises';
import path from 'node:path';

/** The calls of node:fs/promises that it takes. */
export interface DirectoryCalls {
  mkdir: typeof mkdir;
  open: typeof open;
  stat: typeof stat;
}

/** Each directory that was missing is made, and the one that holds it synced. */
export async function makeDirectories(directory: string, files: DirectoryCalls): Promise<void> {
  const missing: string[] = [];
  for (let at = path.resolve(directory); !(await isThere(at, files)); at = path.dirname(at)) {
    missing.push(at);
    if (at === path.dirname(at)) break;
  }
  for (const at of missing.reverse()) {
    try {
      await files.mkdir(at);
    } catch (error) {
      // Somebody else was first.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const holder = await files.open(path.dirname(at), 'r');
    try {
      await holder.sync();
    } finally {
      await holder.close();
    }
  }
}

async function isThere(at: string, files: DirectoryCalls): Promise<boolean> {
  try {
    const found = await files.stat(at);
    if (found.isDirectory()) return true;
    throw Object.assign(new Error(`${at} is not a directory`), { code: 'ENOTDIR' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
