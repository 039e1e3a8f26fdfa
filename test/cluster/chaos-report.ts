/**
 * What a run came to, for people and for machines. Owns: its shape and its text. Does not own: the run. Pure.
 */
import { type CheckResult, findingText } from './checker.ts';

export interface ChaosReport {
  seed: number;
  store: string;
  brokers: number;
  deadAgentMs: number;
  seconds: number;
  /** How often each kind of fault was done. */
  faults: Record<string, number>;
  /** The longest time that a partition was without acknowledgements, ms, each time that it was measured. */
  unservedMs: Record<string, number[]>;
  topicsMadeAnew: number;
  check: CheckResult;
  /** What the run saw that is wrong, beside the history. */
  findings: string[];
  /** Logs and history; null if they were removed. */
  folder: string | null;
}

/** A takeover may take the dead-agent time and so much more. */
export const TAKEOVER_EXTRA_MS = 2000;
export const TAKEOVER_AFTER_KILL = 'takeover after kill -9';

export function isGood({ check, findings }: ChaosReport): boolean {
  return findings.length === 0 && check.findingCount === 0;
}

export function reportText(report: ChaosReport): string {
  const { seed, store, brokers, deadAgentMs, seconds, check, findings, folder } = report;
  const { counts } = check;
  const lines = [
    `seed ${seed}, ${brokers} brokers on ${store}, ${seconds.toFixed(0)} s, dead-agent time ${deadAgentMs} ms`,
    `faults: ${pairs(report.faults)}`,
    `records: ${counts.sent} sent, ${counts.acknowledged} acknowledged, ${counts.refused} refused, ` +
      `${counts.maybe} unknown (${counts.maybeThere} of them there), ${counts.records} in ${counts.partitions} partitions`,
    `read: ${counts.recordsRead} records in ${counts.reads} reads, ${counts.outOfRange} out of range; ` +
      `${report.topicsMadeAnew} topics deleted and made again`,
    `producers met: ${pairs(check.met)}`,
    'longest time a partition was without acknowledgements, ms:',
    ...Object.entries(report.unservedMs).map(([name, times]) => unservedLine(name, times, deadAgentMs)),
    ...findings.map((finding) => `FOUND ${finding}`),
    ...check.findings.slice(0, 40).map((finding) => `FOUND ${findingText(finding)}`),
  ];
  if (check.findingCount > 40) lines.push(`... ${check.findingCount} findings in the history in all`);
  if (folder !== null) lines.push(`logs and history: ${folder}`);
  lines.push(isGood(report) ? 'nothing wrong was found' : `WRONG: again with --seed ${seed}`);
  return lines.join('\n');
}

function unservedLine(name: string, times: readonly number[], deadAgentMs: number): string {
  const sorted = [...times].sort((a, b) => a - b);
  const median = sorted[Math.floor((sorted.length - 1) / 2)];
  const line = `  ${name}: median ${median.toFixed(0)}, most ${sorted[sorted.length - 1].toFixed(0)} (${times.length} times)`;
  if (name !== TAKEOVER_AFTER_KILL) return line;
  const bound = deadAgentMs + TAKEOVER_EXTRA_MS;
  const within = times.filter((time) => time <= bound).length;
  return `${line}; ${within} of ${times.length} within ${bound}`;
}

function pairs(counts: Record<string, number>): string {
  const all = Object.entries(counts).map(([name, count]) => `${name} ${count}`);
  return all.length === 0 ? 'none' : all.join(', ');
}
