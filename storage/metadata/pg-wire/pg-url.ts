/**
 * Reading the URL of a backend that speaks PostgreSQL's protocol. Owns: its form, TLS, and the settings that all of
 * them have. Does not own: a backend's own settings (it names them), connections. Pure, but for certificate files.
 *
 *   SCHEME://USER:PASSWORD@HOST:PORT/DATABASE?NAME=VALUE&...
 *
 *   host                  a folder with the server's Unix socket, instead of HOST
 *   sslmode               disable | require, verify-full: encrypted, certificate and name checked |
 *                         no-verify: encrypted, whoever it is. As the driver reads them: require checks too
 *   sslrootcert           file with the authorities to trust, instead of the system's
 *   sslcert, sslkey       files with a client's certificate and key
 *   connections           2 to 8 (default 8): most connections of this broker, one of them for commits alone
 *   connect_timeout_ms    opening one, or waiting for a free one (5000)
 *   lock_timeout_ms       waiting for a row that another transaction holds (4000)
 *   statement_timeout_ms  one statement (8000)
 *   application_name      what the server's lists show (streamhouse)
 *
 * What the URL does not say comes from PGUSER, PGPASSWORD, PGSSLMODE and their kin, as for every client of
 * PostgreSQL; without them there is no TLS.
 */
import { readFileSync } from 'node:fs';
import { StreamHouseError } from '../../../src/core/errors.ts';

export interface PgUrl {
  /** For logs and errors: no password, no settings. */
  description: string;
  server: {
    host?: string;
    port?: number;
    user?: string;
    password?: string;
    database?: string;
    ssl?: false | PgTls;
  };
  connectionsMax: number;
  connectMs: number;
  lockMs: number;
  statementMs: number;
  applicationName: string;
  /** The backend's own settings that are given, by name. */
  own: ReadonlyMap<string, string>;
}

interface PgTls {
  rejectUnauthorized: boolean;
  ca?: string;
  cert?: string;
  key?: string;
}

/** Of an agent, by its contract with whoever runs the database. */
export const CONNECTIONS_MAX = 8;

/** A server that is there answers within a few round trips; a lease is lost after 15 s without a heartbeat. */
const CONNECT_MS = 5000;

/** Locks are held for the length of one statement and its commit: much longer means a client that hangs. */
const LOCK_MS = 4000;

/** Above the lock's; below the 15 s after which a rival believes a silent agent dead. */
const STATEMENT_MS = 8000;

const COMMON = [
  'host',
  'sslmode',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'connections',
  'connect_timeout_ms',
  'lock_timeout_ms',
  'statement_timeout_ms',
  'application_name',
];

/**
 * 'invalid-setting' with one line that holds no secret. `own`: the names of the backend's own settings. `portOfNone`:
 * what is said of a URL without a port.
 */
export function readPgUrl(url: string, own: readonly string[], portOfNone = 5432): PgUrl {
  const parsed = parseUrl(url);
  const given = new Map<string, string>();
  for (const [name, value] of parsed.searchParams) {
    if (!COMMON.includes(name) && !own.includes(name)) {
      throw invalid(
        `there is no setting '${name}' in a metadata URL; known are ${[...COMMON, ...own].join(', ')}`,
      );
    }
    if (given.has(name)) throw invalid(`'${name}' is given twice in the metadata URL`);
    given.set(name, value);
  }
  const server = readServer(parsed, given);
  const { host = 'localhost', port = portOfNone, database = '' } = server;
  const place = host.startsWith('/') || !host.includes(':') ? host : `[${host}]`;
  return {
    description: `${parsed.protocol}//${place}:${port}/${database}`,
    server,
    connectionsMax: readInteger(given, 'connections', CONNECTIONS_MAX, 2, CONNECTIONS_MAX),
    connectMs: readInteger(given, 'connect_timeout_ms', CONNECT_MS, 1, 600_000),
    lockMs: readInteger(given, 'lock_timeout_ms', LOCK_MS, 1, 600_000),
    statementMs: readInteger(given, 'statement_timeout_ms', STATEMENT_MS, 1, 600_000),
    applicationName: given.get('application_name') ?? 'streamhouse',
    own: new Map([...given].filter(([name]) => own.includes(name))),
  };
}

function invalid(message: string): StreamHouseError {
  return new StreamHouseError('invalid-setting', message);
}

function parseUrl(url: string): URL {
  const scheme = url.slice(0, url.indexOf(':'));
  // The parser's own error would show the URL, password and all.
  if (!URL.canParse(url) || !url.startsWith(`${scheme}://`)) {
    throw invalid(`the metadata URL cannot be read; it is ${scheme}://USER:PASSWORD@HOST:PORT/DATABASE`);
  }
  return new URL(url);
}

function readServer(parsed: URL, given: ReadonlyMap<string, string>): PgUrl['server'] {
  const server: PgUrl['server'] = {};
  // What is not given is left out, so that the driver takes it from the environment.
  const ssl = readTls(given);
  if (ssl !== undefined) server.ssl = ssl;
  const host = given.get('host') ?? parsed.hostname.replace(/^\[(.*)\]$/, '$1');
  const database = parsed.pathname.slice(1);
  if (host !== '') server.host = decode(host);
  if (parsed.port !== '') server.port = Number(parsed.port);
  if (parsed.username !== '') server.user = decode(parsed.username);
  if (parsed.password !== '') server.password = decode(parsed.password);
  if (database !== '') server.database = decode(database);
  return server;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid('the metadata URL holds a % that begins no escape (a % itself is written %25)');
  }
}

function readTls(given: ReadonlyMap<string, string>): false | PgTls | undefined {
  const mode = given.get('sslmode');
  const files = { ca: given.get('sslrootcert'), cert: given.get('sslcert'), key: given.get('sslkey') };
  if (mode === undefined || mode === 'disable') {
    if (files.ca ?? files.cert ?? files.key) {
      throw invalid('certificates in the metadata URL need an sslmode that uses them');
    }
    return mode === undefined ? undefined : false;
  }
  // 'prefer' and 'allow' would go on in clear text if somebody in between asked for it.
  if (mode !== 'require' && mode !== 'verify-full' && mode !== 'no-verify') {
    throw invalid(`sslmode is disable, require, verify-full or no-verify, not '${mode}'`);
  }
  const tls: PgTls = { rejectUnauthorized: mode !== 'no-verify' };
  for (const [name, path] of Object.entries(files) as ['ca' | 'cert' | 'key', string | undefined][]) {
    if (path !== undefined) tls[name] = readCertificate(path);
  }
  return tls;
}

function readCertificate(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new StreamHouseError('invalid-setting', `${path} cannot be read`, undefined, error);
  }
}

function readInteger(
  given: ReadonlyMap<string, string>,
  name: string,
  fallback: number,
  least: number,
  most: number,
): number {
  const text = given.get(name);
  if (text === undefined) return fallback;
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= least && value <= most) return value;
  throw invalid(`${name} in the metadata URL is ${least} to ${most}, not '${text}'`);
}
