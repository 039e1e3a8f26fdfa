/**
 * The headers and paths by which one broker speaks to another over the same port that clients use. Owns: their names
 * and what a receiver makes of them. Pure; main thread.
 *
 * Every request bears all three headers, save the one that asks who is there. Their presence on a read forbids to
 * forward it again. What the cluster's header bears is derived from what stands in the metadata store and the bucket
 * alone and is shown by no route: whoever merely reaches the port is no broker. It is no encryption: who can listen on
 * the network between brokers can take it.
 */
import { createHash } from 'node:crypto';
import { type PlainError, StreamHouseError } from '../../core/errors.ts';

/** Lower case, as Node gives them. */
export const CLUSTER_HEADER = 'streamhouse-cluster';
export const FROM_HEADER = 'streamhouse-from';
export const TO_HEADER = 'streamhouse-to';
/** Of a read alone: the id of the topic whose name is in the path, as the sender resolved it. */
export const TOPIC_HEADER = 'streamhouse-topic';

export const PEER_PRODUCE_PATH = '/internal/v1/produce';
export const PEER_LEASES_MOVED_PATH = '/internal/v1/leases-moved';
export const PEER_END_TOPIC_PATH = '/internal/v1/end-topic';
export const PEER_HELD_PATH = '/internal/v1/held';
export const PEER_WHO_PATH = '/internal/v1/who';

export const APPENDS_TYPE = 'application/vnd.streamhouse.appends.v1';
export const ANSWERS_TYPE = 'application/vnd.streamhouse.answers.v1';

/** Who a broker is to its peers. */
export interface PeerIdentity {
  /** Of the cluster: see `peerKey`. */
  readonly key: string;
  /** The own incarnation as of now. */
  incarnation(): number;
}

/** The cluster as one broker names it to another; 64 hexadecimal digits. */
export function peerKey(cluster: { clusterId: string; storeIncarnation: string }): string {
  return createHash('sha256').update(`${cluster.clusterId}/${cluster.storeIncarnation}`).digest('hex');
}

/** The headers of a request to the broker with incarnation `to`. */
export function peerHeaders(self: PeerIdentity, to: number): Record<string, string> {
  return {
    [CLUSTER_HEADER]: self.key,
    [FROM_HEADER]: String(self.incarnation()),
    [TO_HEADER]: String(to),
  };
}

type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** Whether another broker sent this, or claims to. */
export function isFromPeer(headers: Headers): boolean {
  return headers[FROM_HEADER] !== undefined;
}

/**
 * The sender's incarnation. Throws 'cluster-mismatch' for a broker of another cluster, 'not-leader' for a request that
 * was meant for another broker, or another life of this one (its address may be ours by now), or that comes from this
 * one itself; 'malformed-request' when a header is missing or no number.
 */
export function checkPeerHeaders(headers: Headers, self: PeerIdentity): number {
  const cluster = headers[CLUSTER_HEADER];
  if (cluster === undefined) throw malformed(CLUSTER_HEADER);
  if (cluster !== self.key) {
    throw new StreamHouseError('cluster-mismatch', 'this broker is of another cluster');
  }
  const from = numberOf(headers, FROM_HEADER);
  const to = numberOf(headers, TO_HEADER);
  const own = self.incarnation();
  if (to !== own || from === own) {
    throw new StreamHouseError('not-leader', `this is broker ${own}; the request goes from ${from} to ${to}`);
  }
  return from;
}

/** The id under which the sender of a read resolved the topic's name; 'malformed-request' without. */
export function topicIdFromPeer(headers: Headers): number {
  return numberOf(headers, TOPIC_HEADER);
}

function numberOf(headers: Headers, name: string): number {
  const text = headers[name];
  if (typeof text !== 'string' || !/^[0-9]{1,16}$/.test(text)) throw malformed(name);
  return Number(text);
}

function malformed(name: string): StreamHouseError {
  const error: PlainError = { code: 'malformed-request', message: `header ${name} is missing or wrong` };
  return StreamHouseError.fromPlain(error);
}
