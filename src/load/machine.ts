/**
 * Where and on what figures were measured: machine, load, Node, commit. Owns that record and its one line of text.
 * Does not own the figures. The process that runs the benchmark or the load.
 */
import { execFileSync } from 'node:child_process';
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../core/clock.ts';
import { packageVersion } from '../version.ts';

export interface MachineInfo {
  cores: number;
  cpu: string;
  memoryGb: number;
  node: string;
  /** Short hash, with '+' when the sources differ from it; of an installed package its version. */
  commit: string;
  date: string;
  /** One-minute load average when it was asked; 2 cores that do nothing else begin near 0. */
  load: number;
  command: string;
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const IS_CHECKOUT = import.meta.url.endsWith('.ts');

function git(...args: string[]): string {
  return execFileSync('git', args, {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  }).trim();
}

function commitName(): string {
  // An installed package may lie in somebody else's checkout.
  if (!IS_CHECKOUT) return `v${packageVersion}`;
  try {
    const changed = git(
      'status',
      '--porcelain',
      '--untracked-files=no',
      '--',
      'src',
      'workers',
      'index',
      'storage',
    );
    return git('rev-parse', '--short', 'HEAD') + (changed === '' ? '' : '+');
  } catch {
    return 'unknown';
  }
}

/** As it is now; `command` is how to run it again. */
export function machineInfo(command: string): MachineInfo {
  return {
    cores: availableParallelism(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown CPU',
    memoryGb: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    commit: commitName(),
    date: new Date(systemClock.wallMs()).toISOString().slice(0, 16).replace('T', ' '),
    load: Math.round(loadavg()[0] * 100) / 100,
    command,
  };
}

/** One line: what a reader needs to judge the figures below it. */
export function machineLine(info: MachineInfo): string {
  const { cores, cpu, memoryGb, node, commit, date, load, command } = info;
  return (
    `${cores} cores (${cpu}), ${memoryGb} GB, Node ${node}, commit ${commit}, ${date} UTC, ` +
    `load average ${load} at the start, \`${command}\``
  );
}
