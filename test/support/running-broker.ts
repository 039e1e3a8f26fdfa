/**
 * A whole broker in the test's own process, with its client: quicker than a process, and its threads can be
 * ended. Owns starting and closing both. Does not own the data directory. Main thread of a test.
 */

import { metricSum } from '../../bench/metrics-text.ts';
import { RestClient } from '../../src/client/rest-client.ts';
import { type RunningBroker, startBroker } from '../../src/compose.ts';
import { readSettings } from '../../src/settings.ts';

export interface TestBroker {
  broker: RunningBroker;
  client: RestClient;
  /** The sum of a metric over its labels; fails when there is no such metric. */
  metric(name: string): Promise<number>;
  close(): Promise<void>;
}

/** Settings by their flags; it listens on a free port and logs nothing unless told otherwise. */
export async function startTestBroker(flags: Record<string, string>): Promise<TestBroker> {
  const all = { listen: '127.0.0.1:0', 'log-level': 'silent', ...flags };
  const broker = await startBroker(readSettings({ flags: all, env: {} }));
  const client = new RestClient(broker.url, { connectionsMax: 64 });
  return {
    broker,
    client,
    async metric(name) {
      const value = metricSum(await client.metricsText(), `streamhouse_${name}`);
      if (value === null) throw new Error(`there is no metric ${name}`);
      return value;
    },
    async close() {
      await client.close();
      await broker.close();
    },
  };
}
