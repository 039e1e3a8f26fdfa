/** What /metrics reads from the parts of the main thread. Owns: names and help. Does not own: the values. Main thread. */
import type { MainGauge } from './metrics.ts';

/** Where the values are; each is read when somebody asks. */
export interface BrokerGauges {
  produce: {
    readonly inFlightBytes: number;
    readonly outstanding: number;
    readonly parked: { shards: number; bytes: number };
  };
  fetch: { readonly outstanding: number };
  bodies: { readonly bytes: number };
  peers: {
    readonly connections: number;
    readonly appends: { readonly streams: number };
    readonly reads: { readonly running: number };
  };
  agent: { members(): readonly { state: string }[]; readonly releasingCount: number };
}

export function brokerGauges({ produce, fetch, bodies, peers, agent }: BrokerGauges): MainGauge[] {
  const inState = (state: string) => agent.members().filter((member) => member.state === state).length;
  return [
    {
      name: 'in_flight_bytes',
      help: 'Bytes of produce requests admitted, every copy',
      read: () => produce.inFlightBytes,
    },
    { name: 'appends_outstanding', help: 'Appends not yet answered', read: () => produce.outstanding },
    {
      name: 'reads_outstanding',
      help: 'Reads that wait for a lane, long polls included',
      read: () => fetch.outstanding,
    },
    {
      name: 'parked_bytes',
      help: 'Bytes of appends that wait for the leader of their partition to be known, every copy',
      read: () => produce.parked.bytes,
    },
    {
      name: 'parked_shards',
      help: 'Shards whose appends wait for a leader to be known',
      read: () => produce.parked.shards,
    },
    {
      name: 'forward_streams',
      help: 'Messages of appends that other brokers are answering',
      read: () => peers.appends.streams,
    },
    {
      name: 'forwarded_reads_outstanding',
      help: 'Reads that other brokers are answering, long polls included',
      read: () => peers.reads.running,
    },
    {
      name: 'peer_connections',
      help: 'Open connections to other brokers',
      read: () => peers.connections,
    },
    {
      name: 'agents_live',
      help: 'Brokers of the cluster whose heartbeats are seen, this one included',
      read: () => inState('live'),
    },
    {
      name: 'agents_dead',
      help: 'Registered brokers whose heartbeats stand still',
      read: () => inState('dead'),
    },
    {
      name: 'shards_releasing',
      help: 'Shards that are being handed over',
      read: () => agent.releasingCount,
    },
    { name: 'body_bytes', help: 'Bytes of request bodies being read', read: () => bodies.bytes },
  ];
}
