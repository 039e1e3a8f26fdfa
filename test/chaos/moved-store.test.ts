/** A broker that runs while its store is marked as moved and fenced, as one that was asleep: it commits nothing more and ends. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import Database from 'better-sqlite3';
import { startTestBroker } from '../support/running-broker.ts';

describe('a store that is moved under a running broker', () => {
  it('takes nothing more from it: the broker ends with one line, and nothing is acknowledged that is not in the log', async () => {
    const data = mkdtempSync(join(tmpdir(), 'streamhouse-moved-'));
    const { broker, client, close } = await startTestBroker({ data, lanes: '1', 'flush-window': '5ms' });
    const failed = assert.rejects(broker.failed, {
      code: 'cluster-mismatch',
      message: /^the metadata store was copied to another one \(s-copy\), which is to be used instead of it$/,
    });
    try {
      await client.createTopic({ name: 'a', partitionCount: 1 });
      const produce = () => client.produceToPartition('a', 0, [{ value: 'x' }], 'json', null);
      assert.equal((await produce())[0].error, null);
      // Beside the owner's lock, which no backend with several brokers has.
      const database = new Database(join(data, 'metadata.db'), { timeout: 5000 });
      database.exec("UPDATE cluster SET moved_to = 's-copy'");
      database.exec('UPDATE heads SET epoch = epoch + 1, holder = 0');
      const heads = () => database.prepare('SELECT shard, head_seq FROM heads').all();
      const fenced = heads();
      const answer = await produce().then(
        ([one]) => one.error,
        (error: unknown) => error,
      );
      assert.notEqual(answer, null, 'it was acknowledged');
      await failed;
      assert.deepEqual(heads(), fenced);
      database.close();
    } finally {
      await close();
      rmSync(data, { recursive: true });
    }
  });
});
