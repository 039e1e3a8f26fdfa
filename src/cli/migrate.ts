/**
 * `streamhouse migrate`: applies what the metadata store's schema lacks, or shows it. Owns arguments and printing.
 * Does not own migrations (migrations/apply.ts) nor how a backend runs them. Main thread.
 */
import type { Command } from 'commander';
import {
  type AppliedMigration,
  applyMigrations,
  type Migration,
  nameOf,
  pendingMigrations,
} from '../../migrations/apply.ts';
import type { OpenedMigrations } from '../../storage/metadata/metadata-backend.ts';
import { loadBackend } from '../../storage/metadata/metadata-backends.ts';
import { systemRandom } from '../core/random.ts';
import { print, type Shell, table, UsageError } from './shell.ts';
import { addStoreOptions, type StoreOptions, storeSettings } from './store-options.ts';

interface MigrateOptions extends StoreOptions {
  status?: boolean;
  dryRun?: boolean;
}

export function define(command: Command, shell: Shell): void {
  command
    .description(
      'Applies the migrations that the schema of the metadata store lacks, one after the other, and says each.\n' +
        'Safe beside others that do the same at the same time; each migration is applied once. A broker on\n' +
        'SQLite does this by itself when it starts, on the other stores with `serve --migrate`.',
    )
    .option('--status', 'list the migrations, applied and pending; change nothing')
    .option('--dry-run', 'print what would be applied; change nothing');
  addStoreOptions(command, ['data', 'metadata']).action(async (options: MigrateOptions) => {
    if (options.status && options.dryRun) throw new UsageError('--status and --dry-run do not go together');
    const { metadata: url } = storeSettings(options, shell);
    if (options.status) await printStatus(url, options, shell);
    else if (options.dryRun) await printPending(url, options, shell);
    else await migrate(url, options, shell);
  });
}

async function withMigrations<T>(
  url: string,
  readOnly: boolean,
  shell: Shell,
  use: (opened: OpenedMigrations) => Promise<T>,
): Promise<T> {
  const backend = await loadBackend(url);
  const opened = await backend.openMigrations(url, { clock: shell.clock, random: systemRandom, readOnly });
  try {
    return await use(opened);
  } finally {
    await opened.close();
  }
}

function readApplied({ target }: OpenedMigrations): Promise<AppliedMigration[]> {
  return target.exclusively((session) => session.applied());
}

/** What is pending, found without a lock: a store that lacks nothing may have a broker on it. */
function look(
  url: string,
  shell: Shell,
): Promise<{ description: string; schema: number; pending: Migration[] }> {
  return withMigrations(url, true, shell, async (opened) => {
    const applied = await readApplied(opened);
    const { description } = opened.target;
    const pending = pendingMigrations(description, opened.known, applied);
    return { description, schema: applied.length, pending };
  });
}

async function migrate(url: string, options: MigrateOptions, shell: Shell): Promise<void> {
  const before = await look(url, shell);
  const { applied, notes } =
    before.pending.length === 0
      ? { applied: [], notes: [] }
      : await withMigrations(url, false, shell, async ({ target, known, notes = [] }) => ({
          applied: await applyMigrations(target, known, (migration) => {
            if (!options.json) shell.stdout.write(`applied ${nameOf(migration)}\n`);
          }),
          notes,
        }));
  const said = applied.length === 0 ? [] : notes;
  if (options.json) {
    await print(shell.stdout, `${JSON.stringify({ applied: applied.map(rowOf), notes: said })}\n`);
  } else {
    const lines = applied.length === 0 ? ['nothing to apply'] : said;
    await print(shell.stdout, lines.map((line) => `${line}\n`).join(''));
  }
}

async function printPending(url: string, options: MigrateOptions, shell: Shell): Promise<void> {
  const { pending } = await look(url, shell);
  if (options.json) {
    const rows = pending.map((migration) => ({ ...rowOf(migration), sql: migration.sql }));
    await print(shell.stdout, `${JSON.stringify({ pending: rows })}\n`);
    return;
  }
  const text = pending.map(
    (migration) => `-- ${nameOf(migration)}\n${migration.sql?.trim() ?? '-- (code)'}\n`,
  );
  await print(shell.stdout, text.length === 0 ? 'nothing to apply\n' : text.join('\n'));
}

async function printStatus(url: string, options: MigrateOptions, shell: Shell): Promise<void> {
  const { known, applied } = await withMigrations(url, true, shell, async (opened) => ({
    known: opened.known,
    applied: await readApplied(opened),
  }));
  const pending = known.slice(applied.length);
  const rows = [
    ...applied.map((row, i) => ({
      ...rowOf(row),
      state: i < known.length ? 'applied' : 'applied, not known here',
    })),
    ...pending.map((migration) => ({ ...rowOf(migration), state: 'pending' })),
  ];
  if (options.json) {
    const migrations = rows.map(({ state, ...row }) => ({ ...row, applied: state !== 'pending' }));
    const document = { schema: applied.length, known: known.length, migrations };
    await print(shell.stdout, `${JSON.stringify(document)}\n`);
    return;
  }
  const cells = rows.map(({ number, name, breaking, state }) => [
    number,
    name,
    breaking ? 'yes' : 'no',
    state,
  ]);
  await print(shell.stdout, table(['number', 'name', 'breaking', 'state'], cells));
}

function rowOf({
  number,
  name,
  breaking,
}: AppliedMigration): Pick<Migration, 'number' | 'name' | 'breaking'> {
  return { number, name, breaking };
}
