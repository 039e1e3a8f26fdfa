/**
 * The command line of the cluster test: `npm run chaos -- [--minutes 15] [--seed S] [--store postgres|dynamodb]
 * [--brokers 3]` (docs/chaos.md). Owns: arguments and printing. Does not own: the run. Its own process.
 */
import { parseArgs } from 'node:util';
import { systemRandom } from '../../src/core/random.ts';
import { isGood, reportText } from './chaos-report.ts';
import type { StoreKind } from './cluster.ts';
import { FAULTS } from './faults.ts';
import { runChaos } from './run-chaos.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '15' },
    seed: { type: 'string' },
    store: { type: 'string', default: 'postgres' },
    brokers: { type: 'string', default: '3' },
    faults: { type: 'string' },
    'faults-max': { type: 'string' },
    'dead-agent-ms': { type: 'string', default: '3000' },
    'heartbeat-ms': { type: 'string', default: '500' },
    keep: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    churned: { type: 'string', default: '2' },
  },
});

function usage(message: string): never {
  console.error(message);
  process.exit(2);
}

function positive(name: string, text: string): number {
  const number = Number(text);
  if (!(number > 0)) usage(`--${name} must be a number above 0`);
  return number;
}

const kinds = values.faults?.split(',').map((kind) => kind.trim());
const unknown = kinds?.find((kind) => FAULTS[kind] === undefined);
if (unknown !== undefined) usage(`no fault ${unknown}; there are: ${Object.keys(FAULTS).join(', ')}`);
if (values.store !== 'postgres' && values.store !== 'dynamodb') usage('--store is postgres or dynamodb');

process.once('SIGINT', () => process.exit(130));
process.once('SIGTERM', () => process.exit(143));
const seed = values.seed === undefined ? systemRandom.below(1_000_000) : Number(values.seed);
if (!Number.isSafeInteger(seed)) usage('--seed must be a whole number');
console.error(`seed ${seed}`);
const report = await runChaos({
  seed,
  store: values.store as StoreKind,
  brokers: positive('brokers', values.brokers),
  minutes: positive('minutes', values.minutes),
  kinds,
  faultsMax: values['faults-max'] === undefined ? undefined : positive('faults-max', values['faults-max']),
  deadAgentMs: positive('dead-agent-ms', values['dead-agent-ms']),
  heartbeatMs: positive('heartbeat-ms', values['heartbeat-ms']),
  keep: values.keep,
  size: { churned: Number(values.churned) },
  progress: (line) => console.error(line),
});
console.log(values.json ? JSON.stringify(report) : reportText(report));
process.exit(isGood(report) ? 0 : 1);
