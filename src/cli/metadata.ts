/**
 * `streamhouse metadata copy|reopen`: moving a cluster to another metadata store, and back out of it. Owns arguments,
 * opening both stores, progress and printing. Does not own the copy (src/move). Main thread.
 */
import { SingleBar } from 'cli-progress';
import { type Command, Option } from 'commander';
import { applyMigrations, nameOf, pendingMigrations } from '../../migrations/apply.ts';
import { hasOneOwner, loadBackend, schemeOf } from '../../storage/metadata/metadata-backends.ts';
import { type OpenedMetadata, openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { StreamHouseError } from '../core/errors.ts';
import { withoutSecrets } from '../core/printable-url.ts';
import { systemRandom } from '../core/random.ts';
import { openMetadataForReading, openObjectsForReading } from '../inspect/open-for-reading.ts';
import { type CopyParts, type CopyReport, checkMovedNowhereElse, copyCluster } from '../move/copy-cluster.ts';
import { reopenStore } from '../move/reopen-store.ts';
import { SHARD_GROUPS, STORE_GROUPS } from '../move/row-digest.ts';
import { EXIT_INTERRUPTED, ExitError, print, type Shell, table, UsageError } from './shell.ts';
import { addStoreOptions, type StoreOptions, storeSettings } from './store-options.ts';

interface CopyOptions {
  from: string;
  to: string;
  force?: boolean;
  keepSource?: boolean;
  json?: boolean;
}

/** The copy was made and is not the same. */
const EXIT_DIFFERENT = 1;

/** Shards of a difference that are printed. */
const SHARDS_PRINTED_MAX = 20;

export function define(command: Command, shell: Shell): void {
  command.description('Moves the metadata of a cluster to another store. The objects stay where they are.');
  command
    .command('copy')
    .summary('copy it to another store, from which it is served then')
    .description(
      'Copies everything that a metadata store holds of a cluster into an empty one, reads it back from both and\n' +
        'compares counts and checksums. Then the source is marked as moved, and brokers start on the copy alone,\n' +
        'with the same objects. Stop all brokers first. Whatever ends it midway: run it again. Exit code 1 if the\n' +
        'copy differs or cannot be made; then nothing has changed for the source.',
    )
    .addOption(new Option('--from <url>', 'the metadata store that is in use').makeOptionMandatory())
    .addOption(new Option('--to <url>', 'an empty one; its schema is created').makeOptionMandatory())
    .option('--keep-source', 'a rehearsal: copy and compare, no more; no broker starts on the copy')
    .option('--force', 'do not look whether brokers run on the source')
    .option('--json', 'print JSON; errors too, on standard error')
    .action((options: CopyOptions) => copy(options, shell));
  const reopen = command
    .command('reopen')
    .summary('take a store back into use that was copied')
    .description(
      'Takes a metadata store back into use that was copied to another one. Refused once a broker was started on\n' +
        'the copy; before that it is the copy that is refused from then on.',
    );
  addStoreOptions(reopen).action((options: StoreOptions) => reopenCopied(options, shell));
}

// -- copy ------------------------------------------------------------------------------------------------

async function copy(options: CopyOptions, shell: Shell): Promise<void> {
  const { from, to } = options;
  const say = (line: string): void => void shell.stderr.write(`${line}\n`);
  await checkUrl('--from', from);
  await checkUrl('--to', to);
  const isPending = await checkStores(from, to, shell);
  const source = await openMetadata(from, { role: 'broker' });
  try {
    if (isPending) await migrateTarget(to, shell, say);
    const target = await openMetadata(to, { role: 'broker' });
    try {
      await copyBetween(source, target, options, shell, say);
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

async function checkUrl(flag: string, url: string): Promise<void> {
  const scheme = await naming(flag, (async () => schemeOf(url))());
  if (scheme === 'memory') throw new UsageError(`${flag}: memory: ends with its process`);
}

/**
 * Before anything is opened to be written or created: the source holds a cluster, and the target is another store.
 * Whether the target's schema lacks anything.
 */
async function checkStores(from: string, to: string, shell: Shell): Promise<boolean> {
  const source = await naming('--from', openMetadataForReading(from));
  const { cluster } = source;
  const { description } = source.store;
  await source.close();
  const backend = await loadBackend(to);
  const opening = backend.openMigrations(to, { clock: shell.clock, random: systemRandom, readOnly: true });
  const opened = await naming('--to', opening);
  const { target, known } = opened;
  try {
    if (target.description === description) {
      throw new UsageError(`--from and --to are one store, ${description}`);
    }
    checkMovedNowhereElse(cluster, description, target.description);
    const applied = await target.exclusively((session) => session.applied());
    return pendingMigrations(target.description, known, applied).length > 0;
  } finally {
    await opened.close();
  }
}

/** A URL that cannot be is told with its flag. */
async function naming<T>(flag: string, opening: Promise<T>): Promise<T> {
  try {
    return await opening;
  } catch (error) {
    if (!(error instanceof StreamHouseError) || error.code !== 'invalid-setting') throw error;
    throw new UsageError(`${flag}: ${error.message}`);
  }
}

async function migrateTarget(to: string, shell: Shell, say: (line: string) => void): Promise<void> {
  const backend = await loadBackend(to);
  const opened = await backend.openMigrations(to, {
    clock: shell.clock,
    random: systemRandom,
    readOnly: false,
  });
  try {
    await applyMigrations(opened.target, opened.known, (migration) =>
      say(`applied ${nameOf(migration)} to ${opened.target.description}`),
    );
  } finally {
    await opened.close();
  }
}

async function copyBetween(
  source: OpenedMetadata,
  target: OpenedMetadata,
  options: CopyOptions,
  shell: Shell,
  say: (line: string) => void,
): Promise<void> {
  const { clock, stop } = shell;
  const startMs = clock.monotonicMs();
  const bar = openProgress(shell);
  let report: CopyReport;
  try {
    report = await Promise.race([
      source.lost,
      target.lost,
      copyCluster({
        source: source.store,
        target: target.store,
        ownsSource: hasOneOwner(options.from),
        force: options.force === true,
        keepSource: options.keepSource === true,
        clock,
        random: systemRandom,
        stop,
        say,
        progress: bar.progress,
      }),
    ]);
  } catch (error) {
    throw stop.aborted ? new ExitError(EXIT_INTERRUPTED) : error;
  } finally {
    bar.end();
  }
  const ms = Math.round(clock.monotonicMs() - startMs);
  const text = options.json ? jsonOf(report, ms) : textOf(report, options, ms);
  await print(shell.stdout, text);
  if (report.differences.length > 0) throw new ExitError(EXIT_DIFFERENT);
}

/** A bar on a terminal; of most lists the end is not known, so only the count moves. */
function openProgress(shell: Shell): { progress: CopyParts['progress']; end: () => void } {
  if (!shell.stderr.isTTY) return { progress: () => undefined, end: () => undefined };
  const bar = new SingleBar({
    format: '{bar} {phase}: {what}, {duration_formatted}',
    stream: shell.stderr as NodeJS.WriteStream,
    barsize: 30,
    clearOnComplete: true,
    hideCursor: false,
  });
  bar.start(1, 0, { phase: 'copying', what: 'opening' });
  return {
    progress(phase, stage, done, total) {
      bar.setTotal(Math.max(total ?? 1, 1));
      const of = total === null ? '' : ` of ${total}`;
      bar.update(total === null ? 1 : done, { phase, what: `${done}${of} ${stage}` });
    },
    end: () => bar.stop(),
  };
}

const GROUPS = [...SHARD_GROUPS, ...STORE_GROUPS];

function jsonOf({ source, target, differences, opened }: CopyReport, ms: number): string {
  const rows = GROUPS.map((group) => {
    const [of, copied] = [source.total(group), target.total(group)];
    return {
      group,
      source: { count: of.count, checksum: of.hex },
      copy: { count: copied.count, checksum: copied.hex },
    };
  });
  return `${JSON.stringify({ ok: differences.length === 0, opened, rows, differences, ms })}\n`;
}

function textOf(report: CopyReport, { from, to }: CopyOptions, ms: number): string {
  const { source, target, differences, opened } = report;
  const rows = GROUPS.map((group) => {
    const [of, copied] = [source.total(group), target.total(group)];
    const isSame = !differences.some((difference) => difference.group === group);
    return [group, of.count, of.hex, copied.count, copied.hex, isSame ? 'same' : 'DIFFERENT'];
  });
  const head = ['rows', 'source', 'checksum', 'copy', 'checksum', ''];
  const parts = [table(head, rows), `${(ms / 1000).toFixed(2)} s\n`];
  const [shownFrom, shownTo] = [withoutSecrets(from), withoutSecrets(to)];
  if (differences.length > 0) {
    const shards = differences.filter((difference) => difference.shards.length > 0);
    for (const { group, shards: numbers } of shards) {
      const more = numbers.length > SHARDS_PRINTED_MAX ? ', ...' : '';
      parts.push(`${group} differ in shard ${numbers.slice(0, SHARDS_PRINTED_MAX).join(', ')}${more}\n`);
    }
    parts.push(
      'the copy differs, and was not opened. Either the source was written to meanwhile, or the target holds what an ' +
        `earlier run left and the source no longer has: stop all brokers, empty ${shownTo}, copy again\n`,
    );
  } else if (opened) {
    parts.push(
      `moved: start brokers with --metadata ${shownTo} and the same objects; none starts on ${shownFrom} any more\n`,
    );
  } else {
    parts.push(
      `the copy is whole. ${shownFrom} stays in use and no broker starts on the copy; the same without --keep-source ` +
        `moves (into a target emptied before, if brokers ran meanwhile)\n`,
    );
  }
  return parts.join('');
}

// -- reopen ----------------------------------------------------------------------------------------------

async function reopenCopied(options: StoreOptions, shell: Shell): Promise<void> {
  const settings = storeSettings(options, shell);
  // Nothing is created.
  await (await openMetadataForReading(settings.metadata)).close();
  const metadata = await openMetadata(settings.metadata, { role: 'broker' });
  try {
    const objects = await openObjects(settings.objects, shell);
    try {
      const cluster = await reopenStore(metadata.store, objects);
      const text = cluster
        ? 'reopened: brokers start on it again, and on its copy no more once one has\n'
        : 'nothing to do: it is not marked as copied to another store\n';
      await print(shell.stdout, options.json ? `${JSON.stringify({ reopened: cluster })}\n` : text);
    } finally {
      await objects?.close();
    }
  } finally {
    await metadata.close();
  }
}

/** null, with a warning, where they are not to be had. */
async function openObjects(url: string, shell: Shell): Promise<ObjectStore | null> {
  let objects: ObjectStore | null = null;
  try {
    objects = await openObjectsForReading(url, shell.clock, systemRandom);
    await objects.list('cluster', { limit: 1 });
    return objects;
  } catch (error) {
    await objects?.close();
    if (!(error instanceof StreamHouseError)) throw error;
    shell.stderr.write(
      `warning: whether a broker was started on the copy is not known (${error.message}); name the objects with ` +
        '--objects or --data. If one was, the next start on this store is refused\n',
    );
    return null;
  }
}
