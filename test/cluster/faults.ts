/**
 * What befalls a cluster, kind by kind. Owns: how each fault is done to a broker, what is waited for meanwhile and
 * after, and that what it is to show did happen. Does not own: when which comes (schedule), nor judgement of records.
 * The runner's process.
 *
 * Each ends with a cluster that is whole again and serves every partition.
 */
import { setTimeout as sleepMs } from 'node:timers/promises';
import type { Random } from '../../src/core/random.ts';
import type { TcpProxy } from '../support/tcp-proxy.ts';
import type { Cluster, Head } from './cluster.ts';
import type { ClusterBroker } from './cluster-broker.ts';

/** What a fault uses of the run. */
export interface FaultScene {
  cluster: Cluster;
  random: Random;
  /** Resolves when every partition had an acknowledgement of a request sent from now on; rejects after a while. */
  served(what: string): Promise<void>;
  /** Something is wrong, though no record may be. */
  finding(what: string): void;
  /** Into history and log. */
  note(what: string, more?: Record<string, unknown>): void;
  /** The longest time a partition was without acknowledgements from `begin` on is noted under this name. */
  measure<T>(name: string, step: () => Promise<T>): Promise<T>;
}

interface FaultKind {
  /** Brokers that it takes. */
  brokersMin: number;
  run(scene: FaultScene, victim: ClusterBroker): Promise<void>;
}

/** How long the shards of a sleeping broker may take to be taken over, checkpointed and trimmed. */
const PAST_TRIM_MS_MAX = 60_000;
const HOUR = 3_600_000;

export const FAULTS: Record<string, FaultKind> = {
  kill: { brokersMin: 1, run: killed },
  'kill and restart': { brokersMin: 1, run: killedAndRestarted },
  term: { brokersMin: 1, run: terminated },
  zombie: { brokersMin: 2, run: overslept },
  nap: { brokersMin: 1, run: napped },
  'database refuses': { brokersMin: 1, run: cutOff((broker) => broker.database, 'refuses', true) },
  'database silent': { brokersMin: 1, run: cutOff((broker) => broker.database, 'silent', true) },
  'database stalls': { brokersMin: 1, run: cutOff((broker) => broker.database, 'stalls', true) },
  'database replies lost': { brokersMin: 1, run: cutOff((broker) => broker.database, 'repliesLost', true) },
  'objects refuse': { brokersMin: 1, run: cutOff((broker) => broker.objects, 'refuses', false) },
  'objects silent': { brokersMin: 1, run: cutOff((broker) => broker.objects, 'silent', false) },
  'objects stall': { brokersMin: 1, run: cutOff((broker) => broker.objects, 'stalls', false) },
  'peers refuse': { brokersMin: 2, run: cutOff((broker) => broker.peers, 'refuses', false) },
  'peers silent': { brokersMin: 2, run: cutOff((broker) => broker.peers, 'silent', false) },
  'peers stall': { brokersMin: 2, run: cutOff((broker) => broker.peers, 'stalls', false) },
  'database lost to all': { brokersMin: 1, run: databaseLostToAll },
  'slow links': { brokersMin: 1, run: slowLinks },
  clock: { brokersMin: 1, run: clockMoved },
  'all killed': { brokersMin: 1, run: allKilled },
  'all asleep': { brokersMin: 1, run: allAsleep },
  'term and kill': { brokersMin: 3, run: terminatedAndKilled },
  'rolling restart': { brokersMin: 2, run: rollingRestart },
  added: { brokersMin: 2, run: added },
};

function between(random: Random, low: number, high: number): number {
  return Math.round(low + random.unit() * (high - low));
}

// -- Processes -------------------------------------------------------------------------------------------

async function killed(scene: FaultScene, victim: ClusterBroker): Promise<void> {
  const { cluster, random } = scene;
  if (cluster.brokers.length > 1) {
    await scene.measure('takeover after kill -9', async () => {
      await victim.kill();
      await scene.served(`${victim.name} killed`);
    });
  } else await victim.kill();
  // As a supervisor does that starts it again, or one that replaces the machine.
  if (random.below(3) === 0) victim.agentId = `${victim.name}-${victim.starts}`;
  await scene.measure('start of a broker', async () => {
    await victim.start();
    await scene.served(`${victim.name} is back as ${victim.agentId}`);
  });
}

async function killedAndRestarted(scene: FaultScene, victim: ClusterBroker): Promise<void> {
  await scene.measure('kill -9 and restart at once', async () => {
    await victim.kill();
    await victim.start();
    await scene.served(`${victim.name} killed and restarted`);
  });
}

async function stopTidily(scene: FaultScene, victim: ClusterBroker): Promise<void> {
  const end = await victim.stop();
  if (end !== null && end.code === 0) return;
  scene.finding(`SIGTERM: ${victim.name} ended with ${end?.signal ?? `code ${end?.code}`}`);
}

async function terminated(scene: FaultScene, victim: ClusterBroker): Promise<void> {
  if (scene.cluster.brokers.length > 1) {
    await scene.measure('pause on SIGTERM', async () => {
      await stopTidily(scene, victim);
      await scene.served(`${victim.name} terminated`);
    });
  } else await stopTidily(scene, victim);
  await scene.measure('start of a broker', async () => {
    await victim.start();
    await scene.served(`${victim.name} is back`);
  });
}

/** The classic zombie: it sleeps until others took its shards, wrote checkpoints and trimmed what it knew. */
async function overslept(scene: FaultScene, victim: ClusterBroker): Promise<void> {
  const { cluster, random } = scene;
  const before = await cluster.heads();
  victim.sleep();
  scene.note('sleeps', { broker: victim.name });
  let slept = 0;
  try {
    await scene.measure('takeover after SIGSTOP', () => scene.served(`${victim.name} sleeps`));
    slept = await pastTrim(scene, before);
    await sleepMs(between(random, 0, 2000));
  } finally {
    victim.wake();
  }
  scene.note('woke', { broker: victim.name, takenAndTrimmed: slept });
  await scene.measure('after SIGCONT', () => scene.served(`${victim.name} woke`));
}

/** Waits until every shard that changed hands has trimmed all that the sleeper knew of it; how many those are. */
async function pastTrim(scene: FaultScene, before: readonly Head[]): Promise<number> {
  const deadline = performance.now() + PAST_TRIM_MS_MAX;
  for (;;) {
    const now = await scene.cluster.heads();
    const taken = now.filter(({ shard, epoch }) => epoch > before[shard].epoch);
    const trimmed = taken.filter(({ shard, trimmedThrough }) => trimmedThrough >= before[shard].headSeq);
    if (taken.length > 0 && trimmed.length === taken.length) return trimmed.length;
    if (performance.now() > deadline) {
      scene.finding(`zombie: ${taken.length} shards were taken and ${trimmed.length} trimmed in time`);
      return trimmed.length;
    }
    await sleepMs(500);
  }
}

/** Asleep for less than the dead-agent time, or alone: it goes on as if nothing had been. */
async function napped(scene: FaultScene, victim: ClusterBroker): Promise<void> {
  const { deadAgentMs } = scene.cluster.options;
  await scene.measure('nap', async () => {
    victim.sleep();
    await sleepMs(between(scene.random, deadAgentMs * 0.2, deadAgentMs * 1.1));
    victim.wake();
    await scene.served(`${victim.name} napped`);
  });
}

async function allKilled(scene: FaultScene): Promise<void> {
  const { brokers } = scene.cluster;
  await scene.measure('all killed and restarted', async () => {
    await Promise.all(brokers.map((broker) => broker.kill()));
    await Promise.all(brokers.map((broker) => broker.start()));
    await scene.served('all killed and restarted');
  });
}

/** Nobody beats for long; they wake one after the other, and the first must not take all for dead. */
async function allAsleep(scene: FaultScene): Promise<void> {
  const { cluster, random } = scene;
  const { deadAgentMs } = cluster.options;
  for (const broker of cluster.brokers) broker.sleep();
  await sleepMs(between(random, deadAgentMs * 0.5, deadAgentMs * 3));
  await scene.measure('after all woke', async () => {
    for (const broker of cluster.brokers) {
      broker.wake();
      await sleepMs(between(random, 0, 300));
    }
    await scene.served('all woke');
  });
}

/** One hands its shards over, and one that may be getting them is killed. */
async function terminatedAndKilled(scene: FaultScene, victim: ClusterBroker): Promise<void> {
  const { cluster, random } = scene;
  const others = cluster.brokers.filter((broker) => broker !== victim);
  const other = others[random.below(others.length)];
  await scene.measure('takeover after SIGTERM of one and kill -9 of another', async () => {
    const stopping = stopTidily(scene, victim);
    await sleepMs(between(random, 0, 600));
    await other.kill();
    await stopping;
    await scene.served(`${victim.name} terminated, ${other.name} killed meanwhile`);
  });
  await Promise.all([victim.start(), other.start()]);
  await scene.served('both are back');
}

async function rollingRestart(scene: FaultScene): Promise<void> {
  for (const broker of scene.cluster.brokers) {
    await scene.measure('rolling restart, each', async () => {
      await stopTidily(scene, broker);
      await broker.start();
      await scene.served(`${broker.name} restarted`);
    });
  }
}

async function clockMoved(scene: FaultScene, victim: ClusterBroker): Promise<void> {
  const { random } = scene;
  const hours = (1 + random.below(5)) * (random.below(2) === 0 ? 1 : -1);
  const restart = async (offsetMs: number) => {
    if (random.below(2) === 0) await stopTidily(scene, victim);
    else await victim.kill();
    victim.clockOffsetMs = offsetMs;
    await victim.start();
    await scene.served(`${victim.name} with its clock off by ${offsetMs / HOUR} h`);
  };
  scene.note('clock', { broker: victim.name, hours });
  await scene.measure('clock moved, with two restarts', async () => {
    await restart(hours * HOUR);
    await sleepMs(between(random, 500, 3000));
    await restart(0);
  });
}

async function added(scene: FaultScene): Promise<void> {
  const { cluster } = scene;
  const before = await cluster.heads();
  const broker = await scene.measure('broker added', async () => {
    const one = await cluster.add();
    await scene.served(`${one.name} added`);
    return one;
  });
  // Moves are bounded, so that they take a while.
  const share = Math.ceil(before.length / cluster.brokers.length);
  const deadline = performance.now() + 20_000;
  let moved = 0;
  do {
    await sleepMs(1000);
    const now = await cluster.heads();
    moved = now.filter(({ shard, holder }) => holder !== before[shard].holder).length;
  } while (moved === 0 && performance.now() < deadline);
  await sleepMs(between(scene.random, 1000, 4000));
  const after = await cluster.heads();
  moved = after.filter(({ shard, holder }) => holder !== before[shard].holder).length;
  scene.note('added', { broker: broker.name, moved, share });
  if (moved === 0) scene.finding('a broker was added and got nothing');
  if (moved > share) scene.finding(`a broker was added: ${moved} shards moved, its share is ${share}`);
  await scene.measure('pause on SIGTERM', async () => {
    await stopTidily(scene, broker);
    await scene.served(`${broker.name} removed`);
  });
  await cluster.remove(broker);
}

// -- Links -----------------------------------------------------------------------------------------------

type CutKind = 'refuses' | 'silent' | 'stalls' | 'repliesLost';

function cut(proxy: TcpProxy, kind: CutKind): void {
  switch (kind) {
    case 'refuses':
      proxy.faults.refuses = true;
      proxy.cut();
      break;
    case 'silent':
      proxy.faults.dropsRequests = true;
      proxy.faults.dropsReplies = true;
      break;
    case 'repliesLost':
      proxy.faults.dropsReplies = true;
      break;
    case 'stalls':
      proxy.faults.stalls = true;
      break;
  }
}

/** A link of one broker is cut, for less than the dead-agent time or until others serve in its place. */
function cutOff(link: (broker: ClusterBroker) => TcpProxy | null, kind: CutKind, isReplaced: boolean) {
  return async (scene: FaultScene, victim: ClusterBroker): Promise<void> => {
    const { cluster, random } = scene;
    const proxy = link(victim);
    if (proxy === null) throw new Error(`${victim.name} has no such link`);
    const { deadAgentMs } = cluster.options;
    const isLong = isReplaced && cluster.brokers.length > 1 && random.below(3) > 0;
    cut(proxy, kind);
    scene.note('cut', { broker: victim.name, kind, isLong });
    try {
      if (isLong) {
        await scene.measure('takeover after the database was cut off', () => scene.served('others serve'));
        await sleepMs(between(random, 0, deadAgentMs));
      } else
        await sleepMs(between(random, deadAgentMs * 0.2, isReplaced ? deadAgentMs * 0.9 : deadAgentMs * 2));
    } finally {
      victim.heal();
    }
    await scene.measure('after a link came back', () => scene.served(`${victim.name} is connected again`));
  };
}

async function databaseLostToAll(scene: FaultScene): Promise<void> {
  const { cluster, random } = scene;
  const kinds: CutKind[] = ['refuses', 'silent', 'stalls'];
  const kind = kinds[random.below(kinds.length)];
  const { deadAgentMs } = cluster.options;
  for (const broker of cluster.brokers) cut(broker.database, kind);
  scene.note('cut from all', { kind });
  await sleepMs(between(random, deadAgentMs * 0.5, deadAgentMs * 2.5));
  for (const broker of cluster.brokers) broker.heal();
  await scene.measure('after the database came back to all', () => scene.served('the database is back'));
}

async function slowLinks(scene: FaultScene, victim: ClusterBroker): Promise<void> {
  const { cluster, random } = scene;
  const isAll = random.below(3) === 0;
  for (const { database, objects, peers } of isAll ? cluster.brokers : [victim]) {
    database.faults.delayMs = between(random, 5, 60);
    objects.faults.delayMs = between(random, 20, 400);
    if (peers !== null) peers.faults.delayMs = between(random, 10, 300);
  }
  scene.note('slow links', { broker: isAll ? 'all' : victim.name });
  await scene.measure('slow links', async () => {
    await scene.served('over slow links');
    await sleepMs(between(random, 2000, 6000));
  });
  for (const broker of cluster.brokers) broker.heal();
  await scene.served('links are quick again');
}
