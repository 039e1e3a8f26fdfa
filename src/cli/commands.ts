/**
 * The table of commands. Adding one is a line here and a file beside this one that exports `define`. A
 * command's file is loaded only when it is called, so that `--help` and clients start quickly.
 * Does not own any command. Main thread.
 */
import type { Command } from 'commander';
import type { Shell } from './shell.ts';

/** What the file of a command exports: it adds arguments, options and the action to a fresh commander command. */
export interface CommandModule {
  define(command: Command, shell: Shell): void;
}

export interface CommandRow {
  name: string;
  summary: string;
  load: () => Promise<CommandModule>;
}

export const COMMANDS: readonly CommandRow[] = [
  { name: 'serve', summary: 'run a broker', load: () => import('./serve.ts') },
  {
    name: 'topics',
    summary: 'create, list, describe, grow, configure, delete',
    load: () => import('./topics.ts'),
  },
  { name: 'produce', summary: 'append records from a file or stdin', load: () => import('./produce.ts') },
  { name: 'consume', summary: 'print records', load: () => import('./consume.ts') },
  { name: 'agents', summary: 'list the brokers of a cluster', load: () => import('./agents.ts') },
  { name: 'shards', summary: 'list who holds which shard', load: () => import('./shards.ts') },
  {
    name: 'inspect',
    summary: 'show objects, log entries, pages, checkpoints, segments',
    load: () => import('./inspect.ts'),
  },
  { name: 'migrate', summary: 'bring the metadata schema up to date', load: () => import('./migrate.ts') },
  {
    name: 'metadata',
    summary: 'copy the metadata to another store, reopen one that was copied',
    load: () => import('./metadata.ts'),
  },
  { name: 'load', summary: 'put a broker under load and report', load: () => import('./load.ts') },
  { name: 'verify', summary: 'check metadata and objects', load: () => import('./verify.ts') },
];
