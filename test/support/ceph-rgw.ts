/**
 * A real S3 for tests: one node of Ceph (monitor, manager, one OSD in memory) with its RADOS gateway, all on
 * loopback in a temporary directory. Used only where STREAMHOUSE_TEST_CEPH=1 asks for it; then it must start,
 * or the test fails. Needs Debian's radosgw, ceph-mon, ceph-mgr, ceph-osd and ceph-base, and some 1.4 GB of
 * memory. Linux only. Owns its processes: stop() ends them, and so does the death of the test's process.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { promisify } from 'node:util';
import { S3_TEST_ENV } from './s3-server.ts';

export interface CephRgw {
  /** An object URL for openObjectStore and `serve --objects`: the bucket, no prefix. */
  readonly url: string;
  readonly endpoint: string;
  readonly bucket: string;
  /** Environment that makes the SDK use this gateway's keys, and only them. */
  readonly env: Readonly<Record<string, string>>;
  /** Ends all its processes and removes its files; a second call does nothing. */
  stop(): Promise<void>;
}

const run = promisify(execFile);
const START_MS_MAX = 120_000;

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function configuration(directory: string, fsid: string, monitorPort: number, gatewayPort: number): string {
  return `
[global]
fsid = ${fsid}
mon host = [v2:127.0.0.1:${monitorPort}/0]
mon initial members = a
public network = 127.0.0.0/8
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = true
mon warn on insecure global id reclaim allowed = false
ms mon client mode = crc secure
ms mon service mode = crc secure
ms client mode = crc secure
keyring = ${directory}/keyring
run dir = ${directory}/run
admin socket = ${directory}/run/$name.asok
log file = ${directory}/log/$name.log
crash dir = ${directory}/log
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 1
[mon.a]
mon data = ${directory}/mon
[mgr.x]
mgr data = ${directory}/mgr
[osd]
osd data = ${directory}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd memory target = 1073741824
osd heartbeat grace = 60
[client.rgw]
rgw data = ${directory}/rgw
rgw frontends = beast endpoint=127.0.0.1:${gatewayPort} tcp_nodelay=1
rgw dns name = localhost
rgw thread pool size = 64
rgw enable ops log = false
rgw enable usage log = false
`;
}

/** Starts the node and makes one bucket. Fails, with the log of what failed, if it is not up in 2 minutes. */
export async function startCephRgw(options: { bucket?: string } = {}): Promise<CephRgw> {
  const bucket = options.bucket ?? 'test-bucket';
  const directory = await mkdtemp(path.join(tmpdir(), 'streamhouse-ceph-'));
  const node = new CephNode(directory);
  try {
    const endpoint = await node.start();
    const signal = AbortSignal.timeout(START_MS_MAX);
    await createBucket(endpoint, bucket, signal);
    return {
      url: `s3://${bucket}?endpoint=${encodeURIComponent(endpoint)}&region=us-east-1`,
      endpoint,
      bucket,
      env: S3_TEST_ENV,
      stop: () => node.stop(),
    };
  } catch (error) {
    const logs = await node.logTails();
    await node.stop();
    throw new Error(`Ceph RGW did not start: ${error instanceof Error ? error.message : error}\n${logs}`);
  }
}

async function createBucket(endpoint: string, bucket: string, signal: AbortSignal): Promise<void> {
  const { S3Client, CreateBucketCommand } = await import('@aws-sdk/client-s3');
  const client = new S3Client({
    endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: {
      accessKeyId: S3_TEST_ENV.AWS_ACCESS_KEY_ID,
      secretAccessKey: S3_TEST_ENV.AWS_SECRET_ACCESS_KEY,
    },
  });
  try {
    await client.send(new CreateBucketCommand({ Bucket: bucket }), { abortSignal: signal });
  } finally {
    client.destroy();
  }
}

class CephNode {
  readonly #directory: string;
  readonly #configFile: string;
  readonly #children: { name: string; child: ChildProcess }[] = [];
  readonly #killAll = (): void => {
    for (const { child } of this.#children) child.kill('SIGKILL');
  };
  #stopped = false;

  constructor(directory: string) {
    this.#directory = directory;
    this.#configFile = path.join(directory, 'ceph.conf');
  }

  /** Gives the gateway's endpoint once it answers and knows the test's user. */
  async start(): Promise<string> {
    const directory = this.#directory;
    const endMs = performance.now() + START_MS_MAX;
    const [monitorPort, gatewayPort] = [await freePort(), await freePort()];
    for (const name of ['mon', 'mgr', 'osd', 'rgw', 'run', 'log']) await mkdir(path.join(directory, name));
    const fsid = randomUUID();
    await writeFile(this.#configFile, configuration(directory, fsid, monitorPort, gatewayPort));
    await writeFile(path.join(directory, 'keyring'), '');
    const monmap = path.join(directory, 'monmap');
    const address = `[v2:127.0.0.1:${monitorPort}]`;
    await run('monmaptool', ['--create', '--clobber', '--addv', 'a', address, '--fsid', fsid, monmap]);
    await this.#run('ceph-mon', ['--mkfs', '-i', 'a', '--monmap', monmap]);
    process.once('exit', this.#killAll);
    this.#spawn('ceph-mon', ['-i', 'a']);
    const osd = randomUUID();
    await this.#run('ceph', ['--connect-timeout', '60', 'osd', 'new', osd]);
    await this.#run('ceph-osd', ['-i', '0', '--mkfs', '--osd-uuid', osd, '--monmap', monmap]);
    this.#spawn('ceph-osd', ['-i', '0']);
    this.#spawn('ceph-mgr', ['-i', 'x']);
    await this.#until(endMs, 'an OSD that is up', async () => {
      const { stdout } = await this.#run('ceph', ['osd', 'stat', '-f', 'json']);
      return stdout.includes('"num_up_osds":1');
    });
    this.#spawn('radosgw', ['-n', 'client.rgw']);
    const endpoint = `http://127.0.0.1:${gatewayPort}`;
    await this.#until(endMs, 'a gateway that answers', async () => (await fetch(endpoint)).ok);
    const keys = [
      `--access-key=${S3_TEST_ENV.AWS_ACCESS_KEY_ID}`,
      `--secret-key=${S3_TEST_ENV.AWS_SECRET_ACCESS_KEY}`,
    ];
    const user = ['user', 'create', '--uid=test', '--display-name=test', ...keys];
    await this.#run('radosgw-admin', ['-n', 'client.rgw', ...user]);
    return endpoint;
  }

  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    // Nothing of it is worth a clean end: its objects are in memory and its files go.
    await Promise.all(
      this.#children.map(async ({ child }) => {
        if (child.exitCode !== null || child.signalCode !== null) return;
        const ended = new Promise((resolve) => child.once('exit', resolve));
        child.kill('SIGKILL');
        await ended;
      }),
    );
    process.removeListener('exit', this.#killAll);
    await rm(this.#directory, { recursive: true, force: true });
  }

  async logTails(): Promise<string> {
    const tails = this.#children.map(async ({ name, child }) => {
      const text = await readFile(this.#outputFile(name), 'utf8');
      const state = child.exitCode === null ? 'running' : `exit code ${child.exitCode}`;
      return `${name} (${state}): ${text.slice(-1000)}`;
    });
    return (await Promise.all(tails)).join('\n');
  }

  #outputFile(name: string): string {
    return path.join(this.#directory, 'log', `${name}.out`);
  }

  #run(command: string, args: string[]): Promise<{ stdout: string; stderr: string }> {
    return run(command, ['-c', this.#configFile, ...args], { timeout: START_MS_MAX });
  }

  /**
   * Starts a daemon in the foreground, so that it is our child; setpriv (util-linux) has the kernel kill it when
   * this process dies, however it dies.
   */
  #spawn(name: string, args: string[]): void {
    const output = openSync(this.#outputFile(name), 'a');
    const command = ['--pdeathsig', 'KILL', name, '-c', this.#configFile, '-f', ...args];
    const child = spawn('setpriv', command, { stdio: ['ignore', output, output] });
    closeSync(output);
    child.on('error', (error) => {
      // The package is missing; the start fails by what it waits for, with this in the log.
      void writeFile(this.#outputFile(name), String(error), { flag: 'a' });
    });
    this.#children.push({ name, child });
  }

  async #until(endMs: number, what: string, holds: () => Promise<boolean>): Promise<void> {
    let last: unknown;
    while (performance.now() < endMs) {
      for (const { name, child } of this.#children) {
        if (child.exitCode !== null) throw new Error(`${name} ended while waiting for ${what}`);
      }
      try {
        if (await holds()) return;
      } catch (error) {
        last = error;
      }
      await sleepMs(200);
    }
    throw new Error(`waited in vain for ${what}: ${String(last)}`);
  }
}
