/**
 * The DynamoDB backend's URL. Owns: its form and every option in it. Does not own: what is done with them
 * (dynamodb-client, dynamodb-migrations). Keys never stand in it: they come from the SDK's usual places. Pure; any
 * thread.
 *
 *   dynamodb://REGION/PREFIX?OPTION=VALUE&...        the table is PREFIX-metadata
 *
 *   endpoint=URL                      another server than AWS
 * and, for `migrate` when it creates the table:
 *   billing=on-demand | provisioned
 *   read-units=N  write-units=N       provisioned: the capacity to begin with
 *   read-units-max=N  write-units-max=N  utilisation=PERCENT   provisioned: what auto-scaling may do
 *   deletion-protection=on | off      on, but off with an endpoint
 *   point-in-time-recovery=on | off   likewise
 *   tag.KEY=VALUE
 */
import { StreamHouseError } from '../../../src/core/errors.ts';

export interface ProvisionedCapacity {
  readUnits: number;
  writeUnits: number;
  readUnitsMax: number;
  writeUnitsMax: number;
  /** Auto-scaling keeps consumption at this share of what is provisioned, per cent. */
  utilisation: number;
}

export interface DynamodbPlace {
  region: string;
  prefix: string;
  endpoint: string | undefined;
  table: string;
  /** For logs and errors. */
  description: string;
}

export interface DynamodbUrl extends DynamodbPlace {
  /** null: on demand. */
  provisioned: ProvisionedCapacity | null;
  deletionProtection: boolean;
  pointInTimeRecovery: boolean;
  tags: { Key: string; Value: string }[];
}

const REGION = /^[a-z0-9]+(-[a-z0-9]+)+$/;
/** A table's name has 3 to 255 of these characters; the longest suffix of ours takes 9. */
const PREFIX = /^[A-Za-z0-9_.-]{1,200}$/;
const SWITCHES: Record<string, boolean> = { on: true, off: false };
/** What one table may have in most accounts before somebody asks AWS for more. */
const UNITS_MAX = 40_000;
const PROVISIONED_ONLY = ['read-units', 'write-units', 'read-units-max', 'write-units-max', 'utilisation'];
const OPTIONS = ['endpoint', 'billing', 'deletion-protection', 'point-in-time-recovery', ...PROVISIONED_ONLY];
const TAG = 'tag.';

/** 'invalid-setting' with one clear line. */
export function parseDynamodbUrl(url: string): DynamodbUrl {
  const parsed = URL.canParse(url) ? new URL(url) : null;
  if (parsed?.protocol !== 'dynamodb:') throw wrong('use dynamodb://REGION/PREFIX');
  if (parsed.username !== '' || parsed.password !== '') {
    throw wrong('keys do not belong in the URL; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY');
  }
  if (parsed.hash !== '') throw wrong("there is a '#' in it");
  const region = parsed.host;
  if (!REGION.test(region)) throw wrong(`'${region}' is no region; use one such as eu-central-1`);
  const prefix = parsed.pathname.slice(1);
  if (!PREFIX.test(prefix)) {
    throw wrong(
      'the prefix has 1 to 200 letters, digits, dots, dashes and underscores: dynamodb://REGION/PREFIX',
    );
  }
  const options = new Options(parsed.searchParams);
  const endpoint = options.endpoint();
  const isAws = endpoint === undefined;
  const table = `${prefix}-metadata`;
  return {
    region,
    prefix,
    endpoint,
    table,
    description: `dynamodb://${region}/${prefix}${isAws ? '' : ` at ${endpoint}`}`,
    provisioned: options.provisioned(),
    deletionProtection: options.isOn('deletion-protection', isAws),
    pointInTimeRecovery: options.isOn('point-in-time-recovery', isAws),
    tags: options.tags(),
  };
}

class Options {
  readonly #values = new Map<string, string>();

  constructor(parameters: URLSearchParams) {
    for (const [name, value] of parameters) {
      const isTag = name.startsWith(TAG) && name.length > TAG.length;
      if (!isTag && !OPTIONS.includes(name)) {
        throw wrong(
          `${JSON.stringify(name)} is no option of it; there are ${OPTIONS.join(', ')} and tag.KEY`,
        );
      }
      if (this.#values.has(name)) throw wrong(`${name} is given twice`);
      this.#values.set(name, value);
    }
  }

  endpoint(): string | undefined {
    const endpoint = this.#values.get('endpoint');
    if (endpoint === undefined) return undefined;
    const parsed = URL.canParse(endpoint) ? new URL(endpoint) : null;
    if (parsed === null || (parsed.protocol !== 'http:' && parsed.protocol !== 'https:')) {
      throw wrong('the endpoint must be an http:// or https:// URL');
    }
    if (parsed.username !== '' || parsed.password !== '') throw wrong('keys do not belong in the endpoint');
    return endpoint;
  }

  isOn(name: string, fallback: boolean): boolean {
    const value = this.#values.get(name);
    if (value === undefined) return fallback;
    if (!Object.hasOwn(SWITCHES, value)) throw wrong(`${name} is on or off, not ${JSON.stringify(value)}`);
    return SWITCHES[value];
  }

  provisioned(): ProvisionedCapacity | null {
    const billing = this.#values.get('billing') ?? 'on-demand';
    if (billing === 'on-demand') {
      const idle = PROVISIONED_ONLY.find((name) => this.#values.has(name));
      if (idle !== undefined) throw wrong(`${idle} needs billing=provisioned`);
      return null;
    }
    if (billing !== 'provisioned')
      throw wrong(`billing is on-demand or provisioned, not ${JSON.stringify(billing)}`);
    const readUnits = this.#integer('read-units', null, 1, UNITS_MAX);
    const writeUnits = this.#integer('write-units', null, 1, UNITS_MAX);
    return {
      readUnits,
      writeUnits,
      readUnitsMax: this.#integer('read-units-max', readUnits * 10, readUnits, UNITS_MAX * 10),
      writeUnitsMax: this.#integer('write-units-max', writeUnits * 10, writeUnits, UNITS_MAX * 10),
      utilisation: this.#integer('utilisation', 70, 20, 90),
    };
  }

  tags(): { Key: string; Value: string }[] {
    return [...this.#values]
      .filter(([name]) => name.startsWith(TAG))
      .map(([name, Value]) => ({ Key: name.slice(TAG.length), Value }));
  }

  #integer(name: string, fallback: number | null, least: number, most: number): number {
    const text = this.#values.get(name);
    if (text === undefined) {
      if (fallback === null) throw wrong(`billing=provisioned needs ${name}`);
      return fallback;
    }
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= least && value <= most)) throw wrong(`${name} is an integer from ${least} to ${most}`);
    return value;
  }
}

/** Without the URL: whoever put keys into it does not want to see them in a log. */
function wrong(why: string): StreamHouseError {
  return new StreamHouseError('invalid-setting', `dynamodb URL: ${why}`);
}
