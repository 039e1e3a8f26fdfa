/** The filesystem store where disks fail and processes die: order of syncs, left-overs, full disks, odd files. */
import assert from 'node:assert/strict';
import * as nodeFiles from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { systemClock } from '../../../../src/core/clock.ts';
import { type ErrorCode, StreamHouseError } from '../../../../src/core/errors.ts';
import { systemRandom } from '../../../../src/core/random.ts';
import {
  type FileCalls,
  FilesystemObjectStore,
} from '../../../../storage/objects/filesystem-object-store.ts';

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const base = { clock: systemClock, random: systemRandom };

function withCode(code: ErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof StreamHouseError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  };
}

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: injected`), { code });
}

/** Real calls that leave a trace, and fail where `fail` says so. */
function tracing(root: string, fail: (step: string) => Error | undefined = () => undefined) {
  const trace: string[] = [];
  const shown = (file: unknown): string => {
    const name = path.relative(root, String(file)) || '.';
    return name.replace(/^\.tmp\/[0-9a-f]{32}$/, 'TEMPORARY');
  };
  const step = (what: string): void => {
    trace.push(what);
    const error = fail(what);
    if (error !== undefined) throw error;
  };
  const files: FileCalls = {
    ...nodeFiles,
    link: async (from, to) => {
      step(`link ${shown(from)} ${shown(to)}`);
      await nodeFiles.link(from, to);
    },
    unlink: async (file) => {
      step(`unlink ${shown(file)}`);
      await nodeFiles.unlink(file);
    },
    mkdir: (async (directory: string, options: { recursive: true }) => {
      step(`mkdir ${shown(directory)}`);
      return nodeFiles.mkdir(directory, options);
    }) as FileCalls['mkdir'],
    open: async (file, flags, mode) => {
      const handle = await nodeFiles.open(file, flags, mode);
      const proxied = handle as unknown as { sync: () => Promise<void>; write: unknown };
      const { sync, write } = handle;
      proxied.sync = async () => {
        step(`sync ${shown(file)}`);
        await sync.call(handle);
      };
      proxied.write = async (...rest: Parameters<typeof write>) => {
        step(`write ${shown(file)}`);
        return write.apply(handle, rest);
      };
      return handle;
    },
  };
  return { files, trace };
}

describe('filesystem object store', () => {
  let root: string;
  beforeEach(async () => {
    root = await nodeFiles.mkdtemp(path.join(tmpdir(), 'streamhouse-files-'));
  });
  afterEach(() => nodeFiles.rm(root, { recursive: true }));

  const temporaries = (): Promise<string[]> => nodeFiles.readdir(path.join(root, '.tmp'));

  it('syncs the file before it is linked, and every new name before the put resolves', async () => {
    const { files, trace } = tracing(root);
    const store = await FilesystemObjectStore.open(root, { ...base, files });
    trace.length = 0;
    await store.put('a/b/one', utf8('1'));
    assert.deepEqual(trace, [
      'write TEMPORARY',
      'sync TEMPORARY',
      'mkdir .',
      'mkdir a',
      'sync .',
      'mkdir a/b',
      'sync a',
      'link TEMPORARY a/b/one',
      'unlink TEMPORARY',
      'sync a/b',
    ]);
    trace.length = 0;
    await store.put('a/b/two', utf8('2'));
    assert.deepEqual(trace, [
      'write TEMPORARY',
      'sync TEMPORARY',
      'link TEMPORARY a/b/two',
      'unlink TEMPORARY',
      'sync a/b',
    ]);
    // Another process may have linked it and not yet synced the directory.
    trace.length = 0;
    await store.put('a/b/two', utf8('2'));
    assert.equal(trace.at(-1), 'sync a/b');
    trace.length = 0;
    await store.delete('a/b/two');
    assert.deepEqual(trace, ['unlink a/b/two', 'sync a/b']);
  });

  it('makes a missing root and syncs every directory on the way to it', async () => {
    const { files, trace } = tracing(root);
    await FilesystemObjectStore.open(path.join(root, 'x/y'), { ...base, files });
    assert.deepEqual(
      trace.filter((step) => step.startsWith('sync')),
      ['sync .', 'sync x', 'sync x/y'],
    );
  });

  const failures: [step: RegExp, cause: string, code: ErrorCode][] = [
    [/^write/, 'ENOSPC', 'disk-full'],
    [/^write/, 'EDQUOT', 'disk-full'],
    [/^write/, 'EIO', 'object-store-unavailable'],
    [/^sync TEMPORARY/, 'ENOSPC', 'disk-full'],
    [/^sync TEMPORARY/, 'EIO', 'object-store-unavailable'],
    [/^mkdir k/, 'ENOSPC', 'disk-full'],
    [/^sync \.$/, 'EIO', 'object-store-unavailable'],
    [/^link/, 'ENOSPC', 'disk-full'],
    [/^link/, 'EROFS', 'object-store-unavailable'],
    [/^sync k$/, 'EIO', 'object-store-unknown'],
    [/^sync k$/, 'ENOSPC', 'object-store-unknown'],
  ];
  for (const [step, cause, code] of failures) {
    it(`gives ${code} for ${cause} at ${step}, leaves no temporary file, and the next put succeeds`, async () => {
      let failing = false;
      const fail = (what: string) => (failing && step.test(what) ? systemError(cause) : undefined);
      const store = await FilesystemObjectStore.open(root, { ...base, files: tracing(root, fail).files });
      failing = true;
      await assert.rejects(store.put('k/one', utf8('1')), withCode(code));
      failing = false;
      assert.deepEqual(await temporaries(), []);
      if (code !== 'object-store-unknown') {
        await assert.rejects(store.get('k/one'), withCode('object-not-found'));
      }
      await store.put('k/one', utf8('1'));
      assert.equal((await store.get('k/one')).toString(), '1');
    });
  }

  it('finishes a large put over short writes, and finds the disk full in the middle of one', async () => {
    let left = Number.POSITIVE_INFINITY;
    const open: FileCalls['open'] = async (...args) => {
      const handle = await nodeFiles.open(...args);
      const write = handle.write.bind(handle);
      const short = async (bytes: Uint8Array, at: number, length: number) => {
        if (left <= 0) throw systemError('ENOSPC');
        const result = await write(bytes, at, Math.min(length, 1000, left));
        left -= result.bytesWritten;
        return result;
      };
      (handle as unknown as { write: unknown }).write = short;
      return handle;
    };
    const store = await FilesystemObjectStore.open(root, { ...base, files: { ...nodeFiles, open } });
    const bytes = new Uint8Array(123_456).map((_, i) => i % 251);
    await store.put('short/whole', bytes);
    assert.deepEqual(await store.get('short/whole'), Buffer.from(bytes));
    left = 50_500;
    await assert.rejects(store.put('short/full', bytes), withCode('disk-full'));
    assert.deepEqual(await temporaries(), []);
    assert.deepEqual((await store.list('', { limit: 10 })).length, 1);
  });

  it('removes old left-overs of crashed writers at open, keeps new ones, and lists neither', async () => {
    const first = await FilesystemObjectStore.open(root, base);
    await first.put('x', utf8('x'));
    const oldFile = path.join(root, '.tmp', 'a'.repeat(32));
    const newFile = path.join(root, '.tmp', 'b'.repeat(32));
    await nodeFiles.writeFile(oldFile, 'old');
    await nodeFiles.writeFile(newFile, 'new');
    const hoursAgo = new Date(Date.now() - 2 * 3_600_000);
    await nodeFiles.utimes(oldFile, hoursAgo, hoursAgo);
    const second = await FilesystemObjectStore.open(root, base);
    assert.deepEqual(await temporaries(), ['b'.repeat(32)]);
    assert.deepEqual(
      (await second.list('', { limit: 10 })).map((listed) => listed.key),
      ['x'],
    );
  });

  it('a crash between link and unlink leaves the object whole', async () => {
    const fail = (what: string) => (what.startsWith('unlink') ? systemError('EIO') : undefined);
    let crashing = false;
    const files = tracing(root, (what) => (crashing ? fail(what) : undefined)).files;
    const store = await FilesystemObjectStore.open(root, { ...base, files });
    crashing = true;
    await store.put('k', utf8('whole'));
    assert.equal((await temporaries()).length, 1);
    const later = await FilesystemObjectStore.open(root, base);
    assert.equal((await later.get('k')).toString(), 'whole');
    await assert.rejects(later.put('k', utf8('other')), withCode('object-exists'));
  });

  it('lists nothing that is no object: links, hidden and overlong names, broken UTF-8', async () => {
    const store = await FilesystemObjectStore.open(root, base);
    await store.put('d/real', utf8('x'));
    await nodeFiles.symlink('/etc/hostname', path.join(root, 'd/link'));
    await nodeFiles.writeFile(path.join(root, 'd/.hidden'), 'x');
    await nodeFiles.writeFile(path.join(root, `d/${'n'.repeat(220)}`), 'x');
    await nodeFiles.writeFile(
      Buffer.concat([Buffer.from(path.join(root, 'd/')), Buffer.of(0xff, 0xfe)]),
      'x',
    );
    await nodeFiles.mkdir(path.join(root, 'd/empty'));
    assert.deepEqual(
      (await store.list('', { limit: 10 })).map((listed) => listed.key),
      ['d/real'],
    );
    // A symbolic link is not followed: it could lead out of the root.
    await assert.rejects(store.get('d/link'), withCode('object-store-unavailable'));
  });

  it('refuses a key that is the folder of another, either way round', async () => {
    const store = await FilesystemObjectStore.open(root, base);
    await store.put('a/b', utf8('x'));
    await assert.rejects(store.put('a', utf8('x')), withCode('invalid-request'));
    await assert.rejects(store.put('a/b/c', utf8('x')), withCode('invalid-request'));
    assert.deepEqual(await temporaries(), []);
  });

  it('goes on when its folders are removed behind its back', async () => {
    const store = await FilesystemObjectStore.open(root, base);
    await store.put('a/b/c', utf8('x'));
    await nodeFiles.rm(path.join(root, 'a'), { recursive: true });
    await nodeFiles.rm(path.join(root, '.tmp'), { recursive: true });
    await store.put('a/b/c', utf8('y'));
    assert.equal((await store.get('a/b/c')).toString(), 'y');
  });

  it('calls an object cut short since its size was read corrupt', async () => {
    const open: FileCalls['open'] = async (...args) => {
      const handle = await nodeFiles.open(...args);
      const stat = handle.stat.bind(handle);
      const larger = async () => Object.assign(await stat(), { size: 100 });
      (handle as unknown as { stat: unknown }).stat = larger;
      return handle;
    };
    const store = await FilesystemObjectStore.open(root, { ...base, files: { ...nodeFiles, open } });
    await store.put('k', utf8('short'));
    await assert.rejects(store.get('k'), withCode('corrupt-object'));
  });

  it('opens with one clear line or not at all', async () => {
    await nodeFiles.writeFile(path.join(root, 'file'), 'x');
    const inFile = FilesystemObjectStore.open(path.join(root, 'file'), base);
    await assert.rejects(inFile, withCode('invalid-setting'));
    const noLinks = tracing(root, (what) => (what.startsWith('link') ? systemError('EPERM') : undefined));
    await assert.rejects(
      FilesystemObjectStore.open(root, { ...base, files: noLinks.files }),
      (error: unknown) => {
        withCode('invalid-setting')(error);
        assert.doesNotMatch((error as Error).message, /\n/);
        return true;
      },
    );
    assert.deepEqual(await temporaries(), []);
    const full = tracing(root, (what) => (what.startsWith('link') ? systemError('ENOSPC') : undefined));
    await assert.rejects(
      FilesystemObjectStore.open(root, { ...base, files: full.files }),
      withCode('disk-full'),
    );
  });
});

it('comes back with an error where directories cannot be made', { timeout: 10_000 }, async () => {
  await assert.rejects(FilesystemObjectStore.open('/proc/no/such', base));
});
