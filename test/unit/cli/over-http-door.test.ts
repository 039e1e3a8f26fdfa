/**
 * The command line against the real HTTP door (over a broker that keeps records in memory): both sides mean the
 * same paths, shapes, errors and partitions. cli.test.ts asks the harder questions of the client alone.
 */
import assert from 'node:assert/strict';
import { it, type TestContext } from 'node:test';
import { RecordSender } from '../../../src/client/record-sender.ts';
import { RestClient } from '../../../src/client/rest-client.ts';
import { RestError } from '../../../src/client/rest-error.ts';
import { systemClock } from '../../../src/core/clock.ts';
import { systemRandom } from '../../../src/core/random.ts';
import { startDoor } from '../../support/http-door-harness.ts';
import { type CliInput, cli } from '../../support/test-shell.ts';

async function setUp(t: TestContext) {
  const { url } = await startDoor(t);
  const run = async (args: string, input: CliInput = {}) => {
    const result = await cli(args.split(' '), { ...input, env: { STREAMHOUSE_URL: url } });
    assert.equal(result.stderr, '', args);
    assert.equal(result.code, 0, args);
    return result.stdout;
  };
  const client = new RestClient(url);
  t.after(() => client.close());
  return { url, run, client };
}

it('manages topics', async (t) => {
  const { run } = await setUp(t);
  await run('topics create events --partitions 3 --config retention.ms=60000');
  assert.deepEqual(JSON.parse(await run('topics grow events 4 --json')), { topic: 'events', partitions: 4 });
  await run('topics config events --set retention.ms=70000');
  const described = JSON.parse(await run('topics describe events --json'));
  assert.equal(described.partitions, 4);
  assert.equal(described.configs['retention.ms'], '70000');
  assert.equal(described.offsets.length, 4);
  await run('topics config events --unset retention.ms');
  await run('topics create other');
  const listed = JSON.parse(await run('topics list --json')).map(({ topic }: { topic: string }) => topic);
  assert.ok(listed.includes('events') && listed.includes('other'));
  await run('topics delete events');
  assert.ok(
    !JSON.parse(await run('topics list --json')).some(({ topic }: { topic: string }) => topic === 'events'),
  );
});

it('produces and consumes the very same bytes', async (t) => {
  const { run } = await setUp(t);
  await run('topics create lines');
  const stdin = Buffer.from('plain\n\n{"json": true}\nünï\u0000\n');
  await run('produce lines', { stdin });
  assert.equal(await run('consume lines'), stdin.toString());
  await run('topics create keyed -p 8');
  const rows = Array.from({ length: 300 }, (_, n) => `{"k":"key ${n % 11}","n":${n}}`);
  for (const extra of ['', ' --idempotent']) {
    await run(`produce keyed --format json --key-field k --batch-records 9${extra}`, {
      stdin: rows.join('\n'),
    });
  }
  const got = (await run('consume keyed --json'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.equal(got.length, 600);
  assert.ok(got.every(({ timestamp }) => timestamp > 0));
  for (let k = 0; k < 11; k++) {
    const own = got.filter(({ key }) => key === `key ${k}`).map(({ value }) => JSON.parse(value).n);
    const once = Array.from({ length: 300 }, (_, n) => n).filter((n) => n % 11 === k);
    assert.deepEqual(own, [...once, ...once]);
  }
});

it('sends a record with a JSON key to the partition that the door itself would choose', async (t) => {
  const { run, client } = await setUp(t);
  await run('topics create t -p 50');
  for (const key of ['a', 'key with "quotes"', 5, { deep: [1] }, 'ü']) {
    const [byDoor] = await client.produce('t', [{ key, value: 1 }], 'json');
    assert.ok(byDoor.error === null);
    let bySender = -1;
    const sender = new RecordSender({
      client,
      topic: 't',
      partitionCount: 50,
      embedded: 'json',
      clock: systemClock,
      random: systemRandom,
      onAcknowledged: (_, partition) => {
        bySender = partition;
      },
    });
    sender.add({ key, value: 1 });
    await sender.flush();
    assert.equal(bySender, byDoor.partition, JSON.stringify(key));
  }
});

it('passes on errors with their names and what they say about the outcome', async (t) => {
  const { url, client } = await setUp(t);
  const refused = (code: string) => (error: unknown) =>
    error instanceof RestError && error.code === code && error.outcome === 'refused';
  await assert.rejects(client.getTopic('none'), refused('topic-not-found'));
  await assert.rejects(client.createTopic({ name: 'a b', partitionCount: 1 }), refused('invalid-topic-name'));
  await client.createTopic({ name: 't', partitionCount: 1 });
  await assert.rejects(client.createTopic({ name: 't', partitionCount: 1 }), refused('topic-exists'));
  await assert.rejects(client.offsets('t', 1), refused('partition-not-found'));
  const options = { bytesMax: 1000, waitMs: 0, embedded: 'json' } as const;
  await assert.rejects(client.fetch('t', 0, 5, options), refused('offset-out-of-range'));
  const { stderr, code } = await cli(['topics', 'describe', 'none', '--json', '--url', url]);
  assert.equal(code, 1);
  assert.equal(JSON.parse(stderr).error.code, 'topic-not-found');
});
