/**
 * The command line before a cluster of several (fake) brokers: what `agents` and `shards` print, `--url` with several
 * brokers, and `--zone`.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it, type TestContext } from 'node:test';
import { memberOf } from '../../support/fake-broker.ts';
import { FakeRestServer } from '../../support/fake-rest-server.ts';
import { startDoor } from '../../support/http-door-harness.ts';
import { type CliInput, cli } from '../../support/test-shell.ts';

let a: FakeRestServer;
let b: FakeRestServer;
let bPort: string;
beforeEach(async () => {
  a = await FakeRestServer.start();
  b = await FakeRestServer.start(a);
  bPort = new URL(b.url).port;
  a.addTopic('t', 1);
  a.brokers = [
    a.row(12, { agent_id: 'zeta', host: '10.0.0.1', port: 8080, heartbeat_age_ms: 0 }),
    b.row(4, { agent_id: 'beta', rack: 'z2', shards: 0 }),
    b.row(3, {
      agent_id: 'beta',
      rack: 'z2',
      state: 'dead',
      heartbeat_age_ms: 61234,
      host: 'fd00::1',
      port: 1,
    }),
    b.row(5, { agent_id: 'odd', rack: null, host: null, port: null, registered_at: null, state: 'leaving' }),
  ];
  const shard = {
    group: 'default',
    broker_id: 12,
    agent_id: 'zeta',
    epoch: 3,
    since: '2026-02-01T00:00:00.000Z',
    head_seq: 100,
  };
  a.shards = [
    { ...shard, shard: 0 },
    { ...shard, shard: 1, broker_id: null, agent_id: null, since: null, epoch: 0, head_seq: 0 },
    { ...shard, shard: 2, broker_id: 99, agent_id: null, since: null },
    { ...shard, shard: 3, group: 'heavy', broker_id: 3, agent_id: 'beta', since: null },
  ];
});
afterEach(() => Promise.all([a.close(), b.close()]));

function run(args: string, input: CliInput = {}) {
  return cli(args.split(' '), { ...input, env: input.env ?? { STREAMHOUSE_URL: a.url } });
}

describe('agents list', () => {
  it('is a table for people', async () => {
    const { code, stdout, stderr } = await run('agents list');
    assert.deepEqual({ code, stderr }, { code: 0, stderr: '' });
    const address = `127.0.0.1:${bPort}`.padEnd(15);
    assert.equal(
      stdout,
      [
        `agent  broker  address          zone  group    version  state    heartbeat   shards  since`,
        `beta        3  [fd00::1]:1      z2    default  1.2.3    dead     61.2 s ago       4  2026-01-31T12:00:00.000Z`,
        `beta        4  ${address}  z2    default  1.2.3    live     0.4 s ago        0  2026-01-31T12:00:00.000Z`,
        `odd         5  -                      default  1.2.3    leaving  0.4 s ago        4  -`,
        `zeta       12  10.0.0.1:8080    z1    default  1.2.3    live     0.0 s ago        4  2026-01-31T12:00:00.000Z`,
        '',
      ].join('\n'),
    );
    const ofZone = await run('agents list --zone z2');
    assert.deepEqual(
      ofZone.stdout.split('\n').map((line) => line.split(' ')[0]),
      ['agent', 'beta', 'beta', ''],
    );
  });

  it('is JSON for machines', async () => {
    const [dead] = JSON.parse((await run('agents list --json')).stdout);
    assert.deepEqual(dead, {
      agent: 'beta',
      broker: 3,
      address: '[fd00::1]:1',
      zone: 'z2',
      group: 'default',
      version: '1.2.3',
      state: 'dead',
      heartbeatAgeMs: 61234,
      registeredAt: '2026-01-31T12:00:00.000Z',
      shards: 4,
    });
    assert.deepEqual((await run('agents list --json --zone nowhere')).stdout, '[]\n');
  });
});

describe('shards list', () => {
  it('is a table for people', async () => {
    const { code, stdout, stderr } = await run('shards list');
    assert.deepEqual({ code, stderr }, { code: 0, stderr: '' });
    assert.equal(
      stdout,
      [
        `shard  group    agent  broker  epoch  since                     head  state  heartbeat`,
        `    0  default  zeta       12      3  2026-02-01T00:00:00.000Z   100  live   0.0 s ago`,
        `    1  default  -      -           0  -                            0  -      -`,
        `    2  default  -          99      3  -                          100  -      -`,
        `    3  heavy    beta        3      3  -                          100  dead   61.2 s ago`,
        '',
      ].join('\n'),
    );
  });

  it('is JSON for machines', async () => {
    const rows = JSON.parse((await run('shards list --json')).stdout);
    assert.deepEqual(rows[3], {
      shard: 3,
      group: 'heavy',
      agent: 'beta',
      broker: 3,
      epoch: 3,
      since: null,
      headSeq: 100,
      state: 'dead',
      heartbeatAgeMs: 61234,
    });
    assert.deepEqual(
      rows.map((row: { broker: number; agent: string; state: string }) => [row.broker, row.agent, row.state]),
      [
        [12, 'zeta', 'live'],
        [null, null, null],
        [99, null, null],
        [3, 'beta', 'dead'],
      ],
    );
  });
});

describe('against the real door', () => {
  async function realDoor(t: TestContext) {
    const under = await startDoor(t);
    const json = async (args: string) => {
      const { code, stdout, stderr } = await cli([...args.split(' '), '--url', under.url, '--json']);
      assert.deepEqual({ code, stderr }, { code: 0, stderr: '' });
      return JSON.parse(stdout);
    };
    return { ...under, json };
  }

  it('both sides mean the same', async (t) => {
    const { broker, json } = await realDoor(t);
    broker.members.push(memberOf({ incarnation: 9, agentId: 'b', zone: 'z2', state: 'leaving' }));
    broker.holders.set(5, { holder: 9, agentId: 'b', epoch: 2, sinceMs: null });
    const agents = await json('agents list');
    assert.deepEqual(
      agents.map((row: { agent: string; state: string }) => [row.agent, row.state]),
      [
        ['agent-a', 'live'],
        ['b', 'leaving'],
      ],
    );
    assert.equal(agents[0].address, 'a.example:8080');
    assert.equal((await json('agents list --zone z2')).length, 1);
    const shards = await json('shards list');
    assert.equal(shards.length, 8);
    assert.deepEqual(
      [shards[5].agent, shards[5].state, shards[5].epoch, shards[4].since],
      ['b', 'leaving', 2, '2023-11-14T22:13:20.000Z'],
    );
  });

  it('produces and consumes through the zone', async (t) => {
    const far = await realDoor(t);
    const near = await startDoor(t);
    far.broker.members.push(memberOf({ incarnation: 9, address: `127.0.0.1:${near.port}`, zone: 'z2' }));
    near.broker.addTopic('t', 1);
    const produced = await cli(['produce', 't', '--zone', 'z2', '--url', far.url], { stdin: 'x\n' });
    assert.deepEqual([produced.code, produced.stderr], [0, `zone "z2": ${near.url}\n`]);
    const consumed = await cli(['consume', 't', '--zone', 'z2', '--url', far.url]);
    assert.deepEqual([consumed.code, consumed.stdout], [0, 'x\n']);
    assert.equal(far.requests.filter(({ route }) => route.startsWith('/topics')).length, 0);
  });
});

describe('--zone', () => {
  it('says where it goes, or that it stays', async () => {
    const gone = await run('topics list --zone z2');
    assert.deepEqual([gone.code, gone.stderr], [0, `zone "z2": ${b.url}\n`]);
    assert(b.requests.some(({ path }) => path.endsWith('/topics')));
    const stays = await run('topics list --zone z9');
    assert.deepEqual(
      [stays.code, stays.stderr],
      [0, `zone "z9": no broker that can be reached; ${a.url} is used\n`],
    );
    const json = await run('topics list --zone z2 --json');
    assert.deepEqual([json.code, json.stderr], [0, '']);
  });
});

describe('--url', () => {
  it('may name several brokers, by commas, again and again, or in the environment', async () => {
    const down = a.url;
    await a.close();
    const both = `${down},${b.url}`;
    for (const [args, env] of [
      [`topics list --url ${both}`, {}],
      [`topics list --url ${down} --url ${b.url}`, {}],
      ['topics list', { STREAMHOUSE_URL: both }],
    ] as [string, Record<string, string>][]) {
      const { code, stdout, stderr } = await cli(args.split(' '), { env });
      assert.deepEqual({ code, stderr }, { code: 0, stderr: '' }, args);
      assert.match(stdout, /^topic .*\nt +1\n$/);
    }
    const none = await cli(['topics', 'list', '--url', down]);
    assert.equal(none.code, 1);
    assert.match(none.stderr, /^streamhouse: no connection to .*\(ECONNREFUSED\)\n$/);
    a = await FakeRestServer.start();
  });

  it('of two clusters ends with one line', async () => {
    b.clusterId = 'other';
    a.fault = (_, path) =>
      path.startsWith('/v3/clusters/fake/') ? { kind: 'status', status: 503, errorCode: 50392 } : null;
    const { code, stderr } = await cli(['topics', 'list', '--url', `${a.url},${b.url}`]);
    assert.equal(code, 1);
    assert.equal(stderr, `streamhouse: ${b.url} serves cluster other, the other brokers fake\n`);
  });
});

it('wrong input gets one line and exit code 2', async () => {
  const many = Array.from({ length: 65 }, (_, i) => `http://h${i}`).join(',');
  for (const [args, pattern] of [
    ['agents', /^streamhouse: which command\?/],
    ['agents nonsense', /^streamhouse: .*unknown command 'nonsense'/],
    ['agents list extra', /^streamhouse: too many arguments/],
    ['agents list --zone a/b', /^streamhouse: --zone: "a\/b" is not 1 to 100 of the characters/],
    ['shards', /^streamhouse: which command\?/],
    ['shards list 3', /^streamhouse: too many arguments/],
    ['shards list --group g', /^streamhouse: unknown option '--group'/],
    ['topics list --zone', /^streamhouse: option '--zone <zone>' argument missing/],
    ['topics list --zone=', /^streamhouse: --zone: "" is not /],
    ['topics list --url http://a,', /^streamhouse: --url: "" is not an http/],
    ['topics list --url http://a,b', /^streamhouse: --url: "b" is not an http/],
    [`topics list --url ${many}`, /^streamhouse: --url: more than 64 brokers/],
  ] as [string, RegExp][]) {
    const { code, stdout, stderr } = await run(args);
    assert.match(stderr, pattern, args);
    assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
    assert.deepEqual({ code, stdout }, { code: 2, stdout: '' }, args);
  }
  assert.equal(a.requests.length, 0);
});
