/**
 * The v3 routes that show the cluster to people and to clients that look for a broker: its brokers, and (ours) who
 * holds which shard. Owns: the shapes of these answers. Does not own: what is known of the cluster (the broker's
 * view). Main thread.
 */

import { StreamHouseError } from '../../core/errors.ts';
import { splitAddress } from '../../core/host-port.ts';
import { groupOfShard } from '../../core/shard-layout.ts';
import { BrokerListQuery, BrokerListV3, BrokerV3, ShardListV3 } from '../../protocol/http/schemas.ts';
import type { Broker, ClusterMember, ShardHolding } from '../../route/broker.ts';
import { defineRoute, type Route } from './route.ts';
import { checkCluster, clusterPath, documented, json, listOf } from './v3-answers.ts';

/** The path of a broker by its id. */
export function brokerPath(broker: Broker, brokerId: number): string {
  return `${clusterPath(broker)}/brokers/${brokerId}`;
}

function brokerV3(broker: Broker, member: ClusterMember) {
  const address = splitAddress(member.address);
  return {
    kind: 'KafkaBroker',
    metadata: { self: brokerPath(broker, member.incarnation) },
    cluster_id: broker.cluster.clusterId,
    broker_id: member.incarnation,
    host: address?.host ?? null,
    port: address?.port ?? null,
    rack: member.zone === '' ? null : member.zone,
    agent_id: member.agentId,
    group: member.group,
    version: member.version,
    state: member.state,
    heartbeat_age_ms: Math.max(0, Math.round(member.heartbeatAgeMs)),
    registered_at: isoTime(member.registeredAtMs),
    shards: member.shardCount,
  };
}

function shardV3(broker: Broker, holding: ShardHolding) {
  return {
    kind: 'StreamhouseShard',
    cluster_id: broker.cluster.clusterId,
    shard: holding.shard,
    group: groupOfShard(broker.cluster, holding.shard),
    broker_id: holding.holder === 0 ? null : holding.holder,
    agent_id: holding.agentId,
    epoch: holding.epoch,
    since: holding.sinceMs === null ? null : isoTime(holding.sinceMs),
    head_seq: holding.headSeq,
  };
}

/** The greatest time that a Date holds, ms. */
const DATE_MS_MAX = 8.64e15;

/** Another broker's clock wrote it: it may be anything, and null is what no Date can show. */
function isoTime(wallMs: number): string | null {
  return Math.abs(wallMs) <= DATE_MS_MAX ? new Date(wallMs).toISOString() : null;
}

/** Brokers and shards. */
export function brokerRoutes(): Route[] {
  const tag = 'Clusters';
  return [
    defineRoute({
      method: 'GET',
      path: '/v3/clusters/{cluster}/brokers',
      tag,
      summary: 'All registered brokers, or those of one zone.',
      query: BrokerListQuery,
      answer: documented('The brokers, dead ones too; see state.', BrokerListV3),
      handle({ broker }, { params, query }) {
        checkCluster(broker, params.cluster);
        const { zone } = query;
        const self = `${clusterPath(broker)}/brokers`;
        const members = broker.view.members().filter((member) => zone === undefined || member.zone === zone);
        const data = members.map((member) => brokerV3(broker, member));
        const search = zone === undefined ? '' : `?zone=${encodeURIComponent(zone)}`;
        return listOf('KafkaBrokerList', self + search, data);
      },
    }),
    defineRoute({
      method: 'GET',
      path: '/v3/clusters/{cluster}/brokers/{broker}',
      tag,
      summary: 'One broker.',
      answer: documented('The broker.', BrokerV3),
      handle({ broker }, { params }) {
        checkCluster(broker, params.cluster);
        const member = broker.view.members().find(({ incarnation }) => incarnation === params.broker);
        if (member !== undefined) return json(brokerV3(broker, member));
        throw new StreamHouseError('route-not-found', `there is no broker ${params.broker}`);
      },
    }),
    defineRoute({
      method: 'GET',
      path: '/v3/clusters/{cluster}/shards',
      tag,
      summary: 'Who holds which shard (not part of REST Proxy).',
      answer: documented('All shards in order.', ShardListV3),
      async handle({ broker }, { params }) {
        checkCluster(broker, params.cluster);
        const data = (await broker.view.shards()).map((holding) => shardV3(broker, holding));
        return listOf('StreamhouseShardList', `${clusterPath(broker)}/shards`, data);
      },
    }),
  ];
}
