/**
 * `streamhouse verify`: walks metadata and objects and says whether everything fits. Owns arguments, progress and
 * printing. Does not own any check (src/verify). Main thread.
 */
import { SingleBar } from 'cli-progress';
import type { Command } from 'commander';
import { systemRandom } from '../core/random.ts';
import { openMetadataForReading, openObjectsForReading } from '../inspect/open-for-reading.ts';
import { FINDING_KINDS, type Finding, NOTE_KINDS, type NoteKind } from '../verify/finding.ts';
import { type VerifyReport, type VerifyStage, verifyCluster } from '../verify/verify.ts';
import { EXIT_INTERRUPTED, ExitError, print, type Shell, table } from './shell.ts';
import { addStoreOptions, type StoreOptions, storeSettings } from './store-options.ts';

interface VerifyOptions extends StoreOptions {
  topic?: string;
  deep?: boolean;
}

/** Verification ran and found something. */
const EXIT_WRONG = 1;

/** Findings printed for people; --json has more. */
const PRINTED_MAX = 100;

export function define(command: Command, shell: Shell): void {
  command
    .description(
      'Walks the metadata and every object that it names, and says whether everything fits: dense logs and\n' +
        'offsets, no overlap, every checksum, every record count. Reads only; a broker may run meanwhile.\n' +
        'Exit code 0 if nothing is wrong, 1 with a report if anything is.',
    )
    .option('--topic <name>', 'only the partitions of this topic')
    .option('--deep', 'decode every record too');
  addStoreOptions(command).action(async (options: VerifyOptions) => {
    const report = await verify(options, shell);
    await print(shell.stdout, options.json ? jsonOf(report) : textOf(report));
    if (report.findingCount > 0) throw new ExitError(EXIT_WRONG);
  });
}

async function verify(options: VerifyOptions, shell: Shell): Promise<VerifyReport> {
  const { clock, stop } = shell;
  const settings = storeSettings(options, shell);
  const metadata = await openMetadataForReading(settings.metadata);
  try {
    const objects = await openObjectsForReading(settings.objects, clock, systemRandom);
    const progress = openProgress(shell);
    try {
      const { store, cluster } = metadata;
      const { topic = null, deep = false } = options;
      return await verifyCluster({ store, objects, cluster, clock, stop, topic, deep, ...progress });
    } catch (error) {
      throw stop.aborted ? new ExitError(EXIT_INTERRUPTED) : error;
    } finally {
      progress.end();
      await objects.close();
    }
  } finally {
    await metadata.close();
  }
}

const STAGE_TEXTS: Record<VerifyStage, string> = {
  metadata: 'shards',
  objects: 'objects',
  again: 'once more what was found',
  orphans: 'names in the bucket',
};

/** A bar on a terminal; of the bucket's listing the end is not known, so only the count moves. */
function openProgress(shell: Shell): {
  progress: (stage: VerifyStage, done: number, total: number | null) => void;
  end: () => void;
} {
  if (!shell.stderr.isTTY) return { progress: () => undefined, end: () => undefined };
  const bar = new SingleBar({
    format: '{bar} {what}, {duration_formatted}',
    stream: shell.stderr as NodeJS.WriteStream,
    barsize: 30,
    clearOnComplete: true,
    hideCursor: false,
  });
  bar.start(1, 0, { what: 'opening' });
  return {
    progress(stage, done, total) {
      if (total !== null) bar.setTotal(Math.max(total, 1));
      const of = total === null ? '' : ` of ${total}`;
      bar.update(total === null ? bar.getTotal() : done, { what: `${done}${of} ${STAGE_TEXTS[stage]}` });
    },
    end: () => bar.stop(),
  };
}

function jsonOf(report: VerifyReport): string {
  return `${JSON.stringify({ ok: report.findingCount === 0, ...report })}\n`;
}

function textOf(report: VerifyReport): string {
  const parts = [summary(report), notesText(report)];
  if (report.findingCount === 0) parts.push('nothing is wrong\n');
  else parts.push(findingsText(report));
  return parts.filter((part) => part !== '').join('\n');
}

function summary({ counts, stageMs, passingFindings }: VerifyReport): string {
  const totalMs = Object.values(stageMs).reduce((sum, ms) => sum + ms, 0);
  const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;
  const rows: [string, number | string][] = [
    ['shards', counts.shards],
    ['checkpoints', counts.checkpoints],
    ['log entries', counts.entries],
    ['topics', counts.topics],
    ['partitions', counts.partitions],
    ['index pages', counts.pages],
    ['segments', counts.segments],
    ['objects read', counts.objects],
    ['bytes read', counts.objectBytes],
    ['slices checked', counts.slices],
    ['batches checked', counts.batches],
    ['records', counts.records],
    ['object rows', counts.objectRows],
    ['names in the bucket', counts.objectKeys],
  ];
  if (counts.compressedBatches > 0) rows.push(['compressed, not decoded', counts.compressedBatches]);
  if (counts.shardsUnknown > 0) rows.push(['shards without a state', counts.shardsUnknown]);
  if (passingFindings > 0) rows.push(['found once, not again', passingFindings]);
  const times = Object.entries(stageMs)
    .filter(([, ms]) => ms > 0)
    .map(([stage, ms]) => `${stage} ${seconds(ms)}`);
  return `${table(['checked', 'count'], rows)}${seconds(totalMs)}: ${times.join(', ')}\n`;
}

function notesText({ noteCounts, notes }: VerifyReport): string {
  const rows = (Object.keys(NOTE_KINDS) as NoteKind[])
    .filter((kind) => noteCounts[kind] > 0)
    .map((kind) => {
      const example = notes.find((note) => note.kind === kind)?.object ?? '';
      return [noteCounts[kind], kind, NOTE_KINDS[kind], example];
    });
  return rows.length === 0 ? '' : table(['notes', 'kind', 'which is no error', 'for example'], rows);
}

function findingsText({ findings, findingCount }: VerifyReport): string {
  const lines = findings.slice(0, PRINTED_MAX).map(findingText);
  const rest = findingCount - lines.length;
  if (rest > 0) lines.push(`and ${rest} more`);
  const noun = findingCount === 1 ? 'thing is' : 'things are';
  return `${findingCount} ${noun} wrong:\n${lines.join('\n')}\n`;
}

function findingText(finding: Finding): string {
  const { kind, expected, found } = finding;
  return (
    `${kind}: ${placeText(finding)}\n` +
    `  ${FINDING_KINDS[kind]}\n  expected ${expected}\n  found    ${found}`
  );
}

function placeText({ shard, seq, topic, topicId, partition, offset, object }: Finding): string {
  const parts = [
    shard === undefined ? '' : `shard ${shard}`,
    seq === undefined ? '' : `entry ${seq}`,
    topic !== undefined ? `topic ${topic}` : topicId === undefined ? '' : `topic id ${topicId}`,
    partition === undefined ? '' : `partition ${partition}`,
    offset === undefined ? '' : `offset ${offset}`,
    object ?? '',
  ];
  return parts.filter((part) => part !== '').join(', ');
}
