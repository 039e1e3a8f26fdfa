/**
 * The frame of the v3 routes' answers: paths under the cluster, lists, and the refusal of another cluster. Links in
 * answers are paths, not whole URLs: the door does not know under which name it is reached. Main thread.
 */
import type { TSchema } from 'typebox';
import { StreamHouseError } from '../../core/errors.ts';
import { PLAIN_JSON } from '../../protocol/http/media-type.ts';
import type { Broker } from '../../route/broker.ts';
import type { AnswerDoc, Reply } from './route.ts';

/** A document as the answer. */
export function json(value: unknown, status = 200): Reply {
  return { status, contentType: PLAIN_JSON, body: JSON.stringify(value) };
}

/** A page of a list. */
export function listOf(kind: string, self: string, data: unknown[], next: string | null = null): Reply {
  return json({ kind, metadata: { self, next }, data });
}

/** How an answer stands in the OpenAPI page. */
export function documented(description: string, schema: TSchema, status = 200): AnswerDoc {
  return { status, description, schema, contentTypes: [PLAIN_JSON] };
}

/** The path of the cluster. */
export function clusterPath(broker: Broker): string {
  return `/v3/clusters/${encodeURIComponent(broker.cluster.clusterId)}`;
}

/** There is one cluster; another id is a client of another one: 'route-not-found'. */
export function checkCluster(broker: Broker, id: string): void {
  if (id === broker.cluster.clusterId) return;
  throw new StreamHouseError('route-not-found', `cluster ${JSON.stringify(id)} is not served here`);
}
