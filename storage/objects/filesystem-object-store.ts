/**
 * Objects as files of one directory. Owns: ROOT/KEY for every object, and ROOT/.tmp for files being written.
 * An object appears under its name complete and fsynced or not at all, and is never replaced: it is written
 * as a temporary file, fsynced, and *linked* to its name (link fails when the name is taken, where rename
 * would replace), then the directory is fsynced. Several processes may share a directory. What a crash leaves
 * in .tmp is no object, and is removed at the next open once it is old. Any thread, one instance each.
 */
import { constants } from 'node:fs';
import * as nodeFiles from 'node:fs/promises';
import path from 'node:path';
import type { Clock } from '../../src/core/clock.ts';
import { StreamHouseError } from '../../src/core/errors.ts';
import type { Random } from '../../src/core/random.ts';
import { makeDirectories } from './make-directories.ts';
import {
  assertByteRange,
  type ByteRange,
  type CallOptions,
  checkObjectBytes,
  checkObjectKey,
  compareKeys,
  givenUp,
  type ListOptions,
  type ObjectListing,
  type ObjectStore,
  objectExists,
  objectKeyFault,
  objectNotFound,
  rangeWithin,
  storeClosed,
} from './object-store.ts';

/** The calls of node:fs/promises that the store makes; tests pass ones that fail. */
export type FileCalls = Pick<
  typeof nodeFiles,
  'link' | 'lstat' | 'mkdir' | 'open' | 'readdir' | 'stat' | 'unlink'
>;

export interface FilesystemObjectStoreOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly files?: FileCalls;
}

const TEMPORARY_DIRECTORY = '.tmp';

/** A temporary file this old has no writer any more: a put takes seconds, its deadline is minutes at most. */
const TEMPORARY_AGE_MS_MAX = 60 * 60 * 1000;

/** Directories known to be durable; batch keys use 257, so this bound is a backstop. */
const DURABLE_DIRECTORIES_MAX = 4096;

/** One write or read call moves at most this much; the kernel's own limit is just below 2 GiB. */
const IO_BYTES_MAX = 16 * 1024 * 1024;

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}

function isMissing(error: unknown): boolean {
  return codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR';
}

/** A failed file call as an operating error; `happened` says whether the call may have taken effect. */
function fileError(error: unknown, doing: string, happened: 'maybe' | 'no'): StreamHouseError {
  if (error instanceof StreamHouseError) return error;
  if (!(error instanceof Error) || codeOf(error) === '' || codeOf(error).startsWith('ERR_')) throw error;
  const full = codeOf(error) === 'ENOSPC' || codeOf(error) === 'EDQUOT';
  const code =
    happened === 'maybe' ? 'object-store-unknown' : full ? 'disk-full' : 'object-store-unavailable';
  return new StreamHouseError(code, `${doing}: ${error.message}`, { cause: codeOf(error) }, error);
}

export class FilesystemObjectStore implements ObjectStore {
  readonly description: string;
  readonly #root: string;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #files: FileCalls;
  /** Directories whose names this instance has fsynced in their parents. */
  readonly #durable = new Set<string>();
  #closed = false;

  private constructor(root: string, options: FilesystemObjectStoreOptions) {
    this.#root = path.resolve(root);
    this.#clock = options.clock;
    this.#random = options.random;
    this.#files = options.files ?? nodeFiles;
    this.description = `file:${this.#root}`;
  }

  /**
   * Opens `root`, making it when it is missing, and removes what crashed writers left. Errors:
   * `invalid-setting` when the directory cannot be used, `disk-full`.
   */
  static async open(root: string, options: FilesystemObjectStoreOptions): Promise<FilesystemObjectStore> {
    const store = new FilesystemObjectStore(root, options);
    try {
      await store.#prepare();
    } catch (error) {
      const cause = fileError(error, `open ${store.description}`, 'no');
      if (cause.code === 'disk-full') throw cause;
      throw new StreamHouseError('invalid-setting', cause.message, cause.detail, error);
    }
    return store;
  }

  async put(key: string, bytes: Uint8Array, options?: CallOptions): Promise<void> {
    this.#check(key);
    checkObjectBytes(key, bytes.length);
    const doing = `put ${key} in ${this.description}`;
    const file = this.#fileOf(key);
    const directory = path.dirname(file);
    const temporary = this.#temporaryFile();
    let linked = false;
    try {
      await this.#writeTemporary(temporary, bytes, doing, options?.signal);
      await this.#makeDirectory(directory);
      if (options?.signal?.aborted) throw givenUp(doing, 'no');
      linked = await this.#link(temporary, file, directory);
    } catch (error) {
      await this.#removeTemporary(temporary);
      throw this.#notADirectory(error, key) ?? fileError(error, doing, 'no');
    }
    await this.#removeTemporary(temporary);
    try {
      if (!linked) await this.#compare(key, file, bytes);
      // Also when another process linked it: its own fsync of the directory may still be to come.
      await this.#syncDirectory(directory);
    } catch (error) {
      throw fileError(error, doing, linked ? 'maybe' : 'no');
    }
  }

  async get(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    this.#check(key);
    if (range !== undefined) assertByteRange(range);
    const doing = `get ${key} in ${this.description}`;
    if (options?.signal?.aborted) throw givenUp(doing, 'no');
    try {
      const handle = await this.#files.open(this.#fileOf(key), constants.O_RDONLY | constants.O_NOFOLLOW);
      try {
        const stat = await handle.stat();
        if (!stat.isFile()) throw objectNotFound(key);
        const { position, length } = rangeWithin(key, stat.size, range);
        return await readFully(handle, key, position, length, doing, options?.signal);
      } finally {
        await handle.close();
      }
    } catch (error) {
      throw isMissing(error) ? objectNotFound(key) : fileError(error, doing, 'no');
    }
  }

  async list(prefix: string, options: ListOptions): Promise<ObjectListing[]> {
    if (this.#closed) throw storeClosed(this.description);
    const found: ObjectListing[] = [];
    // The deepest directory that all keys of the prefix lie in. A prefix with hostile parts has no keys.
    const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    if (folder !== '' && objectKeyFault(folder.slice(0, -1)) !== null) return found;
    try {
      await this.#walk(folder, prefix, options, found);
    } catch (error) {
      throw fileError(error, `list ${prefix} in ${this.description}`, 'no');
    }
    return found;
  }

  async delete(key: string, options?: CallOptions): Promise<void> {
    this.#check(key);
    if (options?.signal?.aborted) throw givenUp(`delete ${key} in ${this.description}`, 'no');
    const file = this.#fileOf(key);
    let unlinked = false;
    try {
      await this.#files.unlink(file);
      unlinked = true;
      await this.#syncDirectory(path.dirname(file));
    } catch (error) {
      // EISDIR: the name is a directory's, so no object has it.
      if (!unlinked && (isMissing(error) || codeOf(error) === 'EISDIR')) return;
      throw fileError(error, `delete ${key} in ${this.description}`, unlinked ? 'maybe' : 'no');
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #check(key: string): void {
    if (this.#closed) throw storeClosed(this.description);
    checkObjectKey(key);
  }

  #fileOf(key: string): string {
    return path.join(this.#root, ...key.split('/'));
  }

  #temporaryFile(): string {
    return path.join(this.#root, TEMPORARY_DIRECTORY, this.#random.hex(16));
  }

  async #prepare(): Promise<void> {
    const temporaries = path.join(this.#root, TEMPORARY_DIRECTORY);
    await makeDirectories(temporaries, this.#files);
    const oldMs = this.#clock.wallMs() - TEMPORARY_AGE_MS_MAX;
    for (const name of await this.#files.readdir(temporaries)) {
      const file = path.join(temporaries, name);
      const stat = await this.#files.lstat(file).catch((error: unknown) => {
        if (isMissing(error)) return null;
        throw error;
      });
      if (stat?.isFile() && stat.mtimeMs < oldMs) await this.#removeTemporary(file);
    }
    await this.#proveLinks();
  }

  /** Fails at once on a file system without hard links, on which no put could work. */
  async #proveLinks(): Promise<void> {
    const one = this.#temporaryFile();
    const two = this.#temporaryFile();
    await (await this.#files.open(one, 'wx')).close();
    try {
      await this.#files.link(one, two);
      await this.#files.unlink(two);
    } finally {
      await this.#files.unlink(one);
    }
  }

  async #writeTemporary(
    file: string,
    bytes: Uint8Array,
    doing: string,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (signal?.aborted) throw givenUp(doing, 'no');
    const handle = await this.#files.open(file, 'wx', 0o644).catch(async (error: unknown) => {
      if (!isMissing(error)) throw error;
      // Somebody removed .tmp while we ran; it may be made anew.
      await this.#files.mkdir(path.dirname(file), { recursive: true });
      return this.#files.open(file, 'wx', 0o644);
    });
    try {
      for (let at = 0; at < bytes.length; ) {
        const { bytesWritten } = await handle.write(bytes, at, Math.min(bytes.length - at, IO_BYTES_MAX));
        at += bytesWritten;
        if (signal?.aborted) throw givenUp(doing, 'no');
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  /** What is left when this fails is removed by a later open; the put's own outcome does not depend on it. */
  async #removeTemporary(file: string): Promise<void> {
    await this.#files.unlink(file).catch((error: unknown) => {
      if (codeOf(error) === '') throw error;
    });
  }

  /** False when the name is taken. */
  async #link(temporary: string, file: string, directory: string): Promise<boolean> {
    for (let again = false; ; again = true) {
      try {
        await this.#files.link(temporary, file);
        return true;
      } catch (error) {
        if (codeOf(error) === 'EEXIST') return false;
        if (codeOf(error) !== 'ENOENT' || again) throw error;
        // The directory was removed behind our back: forget that it was there.
        this.#durable.clear();
        await this.#makeDirectory(directory);
      }
    }
  }

  async #compare(key: string, file: string, bytes: Uint8Array): Promise<void> {
    const stat = await this.#files.stat(file);
    if (stat.isDirectory()) throw folderAndObject(key);
    if (stat.size !== bytes.length) throw objectExists(key);
    if (!(await this.get(key)).equals(bytes)) throw objectExists(key);
  }

  #notADirectory(error: unknown, key: string): StreamHouseError | null {
    return codeOf(error) === 'ENOTDIR' || codeOf(error) === 'EEXIST' ? folderAndObject(key) : null;
  }

  /** Makes a directory and its parents below the root, and their names durable, once for each. */
  async #makeDirectory(directory: string): Promise<void> {
    if (this.#durable.has(directory)) return;
    const parent = path.dirname(directory);
    if (directory !== this.#root) {
      await this.#makeDirectory(parent);
      await this.#files.mkdir(directory).catch(async (error: unknown) => {
        if (codeOf(error) !== 'EEXIST' || !(await this.#files.stat(directory)).isDirectory()) throw error;
      });
      await this.#syncDirectory(parent);
    } else {
      await this.#files.mkdir(directory, { recursive: true });
    }
    if (this.#durable.size >= DURABLE_DIRECTORIES_MAX) this.#durable.clear();
    this.#durable.add(directory);
  }

  async #syncDirectory(directory: string): Promise<void> {
    const handle = await this.#files.open(directory, constants.O_RDONLY);
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  /** Adds the keys below `folder` ('' or ending in a slash) in byte order until the limit. */
  async #walk(folder: string, prefix: string, options: ListOptions, found: ObjectListing[]): Promise<void> {
    if (options.signal?.aborted) throw givenUp(`list ${prefix}`, 'no');
    const { after, limit } = options;
    const directory = path.join(this.#root, ...folder.split('/'));
    const entries = await this.#files.readdir(directory, { withFileTypes: true }).catch((error: unknown) => {
      if (isMissing(error)) return [];
      throw error;
    });
    // A directory sorts as its name with the slash: that is how its keys go on.
    const names = entries
      .filter((entry) => entry.isFile() || entry.isDirectory())
      .map((entry) => folder + entry.name + (entry.isDirectory() ? '/' : ''))
      .filter((name) => objectKeyFault(name.endsWith('/') ? name.slice(0, -1) : name) === null)
      .filter((name) => name.startsWith(prefix) || (name.endsWith('/') && prefix.startsWith(name)))
      .filter((name) => after === undefined || compareKeys(name, after) > 0 || isFolderOf(name, after))
      .sort(compareKeys);
    for (const name of names) {
      if (found.length >= limit) return;
      if (name.endsWith('/')) await this.#walk(name, prefix, options, found);
      else await this.#addFile(name, found);
    }
  }

  async #addFile(key: string, found: ObjectListing[]): Promise<void> {
    try {
      const stat = await this.#files.lstat(this.#fileOf(key));
      found.push({ key, bytes: stat.size, modifiedMs: Math.floor(stat.mtimeMs) });
    } catch (error) {
      // Deleted since the directory was read.
      if (!isMissing(error)) throw error;
    }
  }
}

function isFolderOf(name: string, key: string): boolean {
  return name.endsWith('/') && key.startsWith(name);
}

function folderAndObject(key: string): StreamHouseError {
  return new StreamHouseError('invalid-request', `object ${key}: a folder and an object cannot share a name`);
}

async function readFully(
  handle: nodeFiles.FileHandle,
  key: string,
  position: number,
  length: number,
  doing: string,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(length);
  for (let at = 0; at < length; ) {
    if (signal?.aborted) throw givenUp(doing, 'no');
    const want = Math.min(length - at, IO_BYTES_MAX);
    const { bytesRead } = await handle.read(bytes, at, want, position + at);
    if (bytesRead === 0) {
      throw new StreamHouseError(
        'corrupt-object',
        `object ${key}: its file became shorter while it was read`,
      );
    }
    at += bytesRead;
  }
  return bytes;
}
