/**
 * Bad input against the real process: each kind has its own clear answer, nothing of it is stored, and the
 * process goes on serving everybody else meanwhile.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleepMs } from 'node:timers/promises';
import { RestClient } from '../../src/client/rest-client.ts';
import { BrokerProcess } from '../support/broker-process.ts';
import { type HttpCall, httpCall } from '../support/http-call.ts';

const JSON_V2 = { 'content-type': 'application/vnd.kafka.json.v2+json' };
const BINARY_V2 = { 'content-type': 'application/vnd.kafka.binary.v2+json' };
const JSON_TYPE = { 'content-type': 'application/json' };

/** `/v3/...` stands for the cluster's path. What follows the status is the error_code, and a word of the message. */
type Case = [what: string, path: string, call: HttpCall, status: number, errorCode: number, says: RegExp];

const produce = (body: string, headers: Record<string, string> = JSON_V2): HttpCall => ({ body, headers });
const one = (record: string): string => `{"records":[${record}]}`;
const producer = (id: string, epoch: string, sequence: string): Record<string, string> => ({
  ...JSON_V2,
  'streamhouse-producer-id': id,
  'streamhouse-producer-epoch': epoch,
  'streamhouse-producer-sequence': sequence,
});

const T = '/topics/good';
const P = '/topics/good/partitions/0';

const PRODUCE: Case[] = [
  ['an unknown topic', '/topics/none', produce(one('{"value":1}')), 404, 40401, /none/],
  [
    'an unknown partition in the path',
    '/topics/good/partitions/2',
    produce(one('{"value":1}')),
    404,
    40402,
    /2/,
  ],
  ['an unknown partition in a record', T, produce(one('{"value":1,"partition":99}')), 404, 40402, /99/],
  [
    'a huge partition in the path',
    '/topics/good/partitions/9999999999',
    produce(one('{"value":1}')),
    404,
    40402,
    /./,
  ],
  ['a partition in both', P, produce(one('{"value":1,"partition":0}')), 422, 422, /partition/],
  ['a negative partition', T, produce(one('{"value":1,"partition":-1}')), 422, 422, /partition/],
  ['no JSON', T, produce('{"records":[{"value":1}'), 400, 400, /JSON|end/i],
  ['an empty body', T, produce(''), 400, 400, /./],
  ['not UTF-8', T, { body: new Uint8Array([0x7b, 0xff, 0xfe]), headers: JSON_V2 }, 400, 400, /./],
  ['a body that is no object', T, produce('[1,2]'), 422, 422, /./],
  ['no records member', T, produce('{}'), 422, 422, /records/],
  ['no records', T, produce('{"records":[]}'), 422, 422, /record/],
  ['a record that is no object', T, produce('{"records":[1]}'), 422, 422, /./],
  ['an unknown member', T, produce(one('{"value":1,"headers":[]}')), 422, 422, /headers/],
  ['JSON nested too deep', T, produce(one(`{"value":${'['.repeat(600)}${']'.repeat(600)}}`)), 400, 400, /./],
  ['bad base64', T, produce(one('{"value":"a*b="}'), BINARY_V2), 422, 422, /base64/],
  ['base64 without its padding', T, produce(one('{"value":"YQ"}'), BINARY_V2), 422, 422, /base64/],
  ['binary that is no string', T, produce(one('{"value":5}'), BINARY_V2), 422, 422, /./],
  [
    'a wrong content type',
    T,
    produce(one('{"value":1}'), { 'content-type': 'text/plain' }),
    415,
    415,
    /text\/plain/,
  ],
  ['a record over the limit', T, produce(one(`{"value":"${'x'.repeat(1 << 20)}"}`)), 413, 41390, /1048576/],
  ['a body over the limit', T, produce(one(`{"value":"${'x'.repeat(3 << 20)}"}`)), 413, 413, /./],
  ['too many records', T, produce(`{"records":[${'{},'.repeat(100_000)}{}]}`), 413, 41391, /100000|100,000/],
  [
    'a producer id alone',
    P,
    produce(one('{"value":1}'), { ...JSON_V2, 'streamhouse-producer-id': '1' }),
    422,
    422,
    /./,
  ],
  ['a producer without a partition', T, produce(one('{"value":1}'), producer('1', '0', '0')), 422, 422, /./],
  ['a producer id that is no number', P, produce(one('{"value":1}'), producer('x', '0', '0')), 422, 422, /./],
  [
    'a sequence out of range',
    P,
    produce(one('{"value":1}'), producer('1', '0', '2147483648')),
    422,
    422,
    /./,
  ],
  ['an epoch out of range', P, produce(one('{"value":1}'), producer('1', '40000', '0')), 422, 422, /./],
];

const READ: Case[] = [
  ['an unknown topic', '/topics/none/partitions/0/records', {}, 404, 40401, /none/],
  ['an unknown partition', '/topics/good/partitions/7/records', {}, 404, 40402, /7/],
  ['an offset past the end', `${P}/records?offset=100`, {}, 416, 41690, /100/],
  ['a negative offset', `${P}/records?offset=-1`, {}, 400, 400, /offset/],
  ['an offset that is a word', `${P}/records?offset=first`, {}, 400, 400, /offset/],
  ['an offset beyond 2^53', `${P}/records?offset=9999999999999999`, {}, 400, 400, /offset/],
  ['max_bytes of 0', `${P}/records?max_bytes=0`, {}, 400, 400, /max_bytes/],
  ['max_bytes beyond the bound', `${P}/records?max_bytes=999999999`, {}, 400, 400, /max_bytes/],
  ['a timeout beyond the bound', `${P}/records?timeout=60001`, {}, 400, 400, /timeout/],
  ['an unknown parameter', `${P}/records?from=1`, {}, 400, 400, /from/],
  ['a parameter twice', `${P}/records?offset=0&offset=1`, {}, 400, 400, /offset/],
  ['a timestamp that is none', `${P}/offsets?timestamp=now`, {}, 400, 400, /timestamp/],
  ['a format that there is not', `${P}/records`, { headers: { accept: 'text/csv' } }, 406, 40601, /./],
  ['an unknown path', '/nothing/here', {}, 404, 404, /./],
  ['a wrong method', P, { method: 'DELETE' }, 405, 405, /DELETE/],
];

const topic = (body: unknown): HttpCall => ({ body: JSON.stringify(body), headers: JSON_TYPE });

const ADMIN: Case[] = [
  ['an empty name', '/v3/topics', topic({ topic_name: '' }), 400, 40002, /empty/],
  ['the name .', '/v3/topics', topic({ topic_name: '.' }), 400, 40002, /'\.'/],
  ['the name ..', '/v3/topics', topic({ topic_name: '..' }), 400, 40002, /'\.\.'/],
  ['a name of 250 characters', '/v3/topics', topic({ topic_name: 'n'.repeat(250) }), 400, 40002, /249/],
  ['a name with a space', '/v3/topics', topic({ topic_name: 'a b' }), 400, 40002, /allowed/],
  ['a name with a slash', '/v3/topics', topic({ topic_name: 'a/b' }), 400, 40002, /allowed/],
  ['a name in another script', '/v3/topics', topic({ topic_name: 'тема' }), 400, 40002, /allowed/],
  ['a name with a line break', '/v3/topics', topic({ topic_name: 'a\n' }), 400, 40002, /allowed/],
  ['no name', '/v3/topics', topic({ partitions_count: 1 }), 422, 422, /topic_name/],
  ['a name that exists', '/v3/topics', topic({ topic_name: 'good' }), 400, 40002, /good/],
  [
    'no partitions',
    '/v3/topics',
    topic({ topic_name: 'x', partitions_count: 0 }),
    422,
    422,
    /partitions_count/,
  ],
  [
    'a million partitions',
    '/v3/topics',
    topic({ topic_name: 'x', partitions_count: 10 ** 9 }),
    422,
    422,
    /partitions_count/,
  ],
  [
    'half a partition',
    '/v3/topics',
    topic({ topic_name: 'x', partitions_count: 1.5 }),
    422,
    422,
    /partitions_count/,
  ],
  [
    'an unknown config',
    '/v3/topics',
    topic({ topic_name: 'x', configs: [{ name: 'no.such', value: '1' }] }),
    400,
    40002,
    /no\.such/,
  ],
  [
    'a config of a wrong value',
    '/v3/topics',
    topic({ topic_name: 'x', configs: [{ name: 'max.message.bytes', value: '-1' }] }),
    400,
    40002,
    /max\.message\.bytes/,
  ],
  [
    'fewer partitions',
    '/v3/topics/good',
    { ...topic({ partitions_count: 1 }), method: 'PATCH' },
    400,
    40002,
    /2/,
  ],
  ['an unknown topic to delete', '/v3/topics/none', { method: 'DELETE' }, 404, 40401, /none/],
  [
    'an unknown topic to grow',
    '/v3/topics/none',
    { ...topic({ partitions_count: 5 }), method: 'PATCH' },
    404,
    40401,
    /none/,
  ],
];

describe('bad input', () => {
  let directory: string;
  let broker: BrokerProcess;
  let client: RestClient;
  let cluster: string;
  let sent = 0;

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'streamhouse-bad-'));
    const limits = ['--body-bytes-max', '2MiB', '--flush-window', '5ms', '--log-level', 'warn'];
    broker = await BrokerProcess.start(['--data', directory, ...limits]);
    client = new RestClient(broker.url);
    cluster = await client.clusterId();
    await client.createTopic({ name: 'good', partitionCount: 2 });
    await stillServes();
  });

  after(async () => {
    await client.close();
    const end = await broker.stop();
    assert.equal(end.code, 0);
    await rm(directory, { recursive: true });
    assert.deepEqual(
      end.log.filter((line) => /"level":(50|60)|^\s+at /.test(line)),
      [],
      'no bug was logged',
    );
  });

  /** One more record goes in; it is the next one, so nothing bad was stored before it. */
  async function stillServes(): Promise<void> {
    const [answer] = await client.produceToPartition('good', 0, [{ value: sent }], 'json', null);
    assert.deepEqual(answer, { error: null, partition: 0, offset: sent });
    sent++;
    assert.equal((await client.offsets('good', 1)).end, 0);
  }

  for (const [group, cases] of Object.entries({ produce: PRODUCE, read: READ, administration: ADMIN })) {
    for (const [what, path, call, status, errorCode, says] of cases) {
      it(`${group}: ${what} is ${status} / ${errorCode}`, async () => {
        const url = broker.url + path.replace(/^\/v3/, `/v3/clusters/${cluster}`);
        const answer = await httpCall(url, call);
        assert.equal(answer.status, status, answer.text);
        assert.equal(answer.json.error_code, errorCode, answer.text);
        assert.match(answer.json.message, says);
        assert.equal(answer.json.outcome, 'none');
        assert.equal(answer.json.retriable, false);
        await stillServes();
      });
    }
  }

  it('names the range when the offset is out of it', async () => {
    const { json } = await httpCall(`${broker.url}${P}/records?offset=100000`);
    assert.deepEqual([json.beginning_offset, json.end_offset], [0, sent]);
  });

  it('refuses good records beside a bad one, all or none', async () => {
    const body = `{"records":[{"value":1},{"value":2,"partition":99},{"value":3}]}`;
    assert.equal((await httpCall(broker.url + T, { body, headers: JSON_V2 })).status, 404);
    await stillServes();
  });

  it('outlives sockets that send rubbish, stop half way, or never ask', async () => {
    const { port } = new URL(broker.url);
    const send = (text: string): Promise<string> =>
      new Promise((resolve) => {
        let answer = '';
        const socket = connect(Number(port), '127.0.0.1', () => socket.write(text));
        socket.on('data', (data) => {
          answer += data;
        });
        socket.on('error', () => undefined);
        socket.on('close', () => resolve(answer));
        setTimeout(() => socket.destroy(), 300);
      });
    const head = `POST ${T} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n`;
    const answers = await Promise.all([
      send('\x16\x03\x01\x02\x00rubbish\r\n\r\n'),
      send(`${head}Content-Length: 1000\r\n\r\n{"records":[`),
      send(`${head}Content-Length: -5\r\n\r\n`),
      send(`${head}Transfer-Encoding: chunked\r\n\r\nzz\r\n`),
      send(`${head}X: ${'y'.repeat(20_000)}\r\n\r\n`),
      send('GET / HTTP/9.9\r\n\r\n'),
      send(''),
    ]);
    for (const answer of answers) if (answer !== '') assert.match(answer, /^HTTP\/1\.1 4\d\d /);
    await sleepMs(10);
    await stillServes();
  });

  it('serves others while bad requests pour in', async () => {
    const pouring = new AbortController();
    let refused = 0;
    const pour = async (seed: number): Promise<void> => {
      for (let i = seed; !pouring.signal.aborted; i++) {
        const [, path, call, status] = PRODUCE[i % PRODUCE.length];
        // Those of megabytes are about size, not about number.
        if ((call.body?.length ?? 0) > 10_000) continue;
        assert.equal((await httpCall(broker.url + path, call)).status, status);
        refused++;
      }
    };
    const poured = Promise.all([0, 7, 14].map(pour));
    for (let i = 0; i < 20; i++) await stillServes();
    pouring.abort();
    await poured;
    assert.ok(refused > 20);
  });
});
