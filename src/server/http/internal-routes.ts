/**
 * What brokers ask each other besides appends: notices, a topic's end, what is held, who is there. They share the port
 * with clients and are not part of the documented interface. Owns: checking what comes. Does not own: the duties
 * (agent loop). Main thread.
 *
 * There is no secret between brokers: whoever reaches the port and knows the cluster's id can call these, as it can
 * produce and delete topics. So a notice is only a hint, and a topic is ended only when the catalogue says so.
 */
import type { TSchema } from 'typebox';
import { PLAIN_JSON } from '../../protocol/http/media-type.ts';
import { EndTopicBody, HeldAnswer, LeasesMovedBody, WhoAnswer } from '../../protocol/peer/duty-schemas.ts';
import {
  checkPeerHeaders,
  PEER_END_TOPIC_PATH,
  PEER_HELD_PATH,
  PEER_LEASES_MOVED_PATH,
  PEER_WHO_PATH,
} from '../../protocol/peer/peer-headers.ts';
import type { DoorContext } from './door-context.ts';
import type { DoorRequest } from './door-request.ts';
import { type AnswerDoc, defineRoute, identityOf, type Reply, type Route } from './route.ts';

const NOTHING: Reply = { status: 204, contentType: PLAIN_JSON, body: null };

function json(value: unknown): Reply {
  return { status: 200, contentType: PLAIN_JSON, body: JSON.stringify(value) };
}

function answer(schema: TSchema | null): AnswerDoc {
  return { status: schema ? 200 : 204, description: '', schema, contentTypes: schema ? [PLAIN_JSON] : [] };
}

/** The incarnation of the broker that asks. */
function senderOf(context: DoorContext, request: DoorRequest): number {
  return checkPeerHeaders(request.headers, identityOf(context.broker));
}

/** The routes between brokers, save that of appends. */
export function internalRoutes(): Route[] {
  const tag = 'Internal';
  return [
    defineRoute({
      method: 'POST',
      path: PEER_LEASES_MOVED_PATH,
      tag,
      summary: 'Shards were released for this broker.',
      body: LeasesMovedBody,
      answer: answer(null),
      handle(context, { body, request }) {
        const from = senderOf(context, request);
        context.broker.duties.leasesMoved({ from, leaving: body.leaving, shards: body.shards });
        return NOTHING;
      },
    }),
    defineRoute({
      method: 'POST',
      path: PEER_END_TOPIC_PATH,
      tag,
      summary: 'Appends the end of a deleted topic to shards that are held here.',
      body: EndTopicBody,
      answer: answer(null),
      async handle(context, { body, request }) {
        senderOf(context, request);
        await context.broker.duties.endTopic(body.topicId, body.shards);
        return NOTHING;
      },
    }),
    defineRoute({
      method: 'GET',
      path: PEER_HELD_PATH,
      tag,
      summary: 'The shards held here.',
      answer: answer(HeldAnswer),
      handle(context, { request }) {
        senderOf(context, request);
        return json({ shards: context.broker.duties.held() });
      },
    }),
    defineRoute({
      method: 'GET',
      path: PEER_WHO_PATH,
      tag,
      summary: 'Who answers here.',
      answer: answer(WhoAnswer),
      handle({ broker: { cluster, info } }) {
        const { agentId, incarnation } = info;
        return json({ clusterId: cluster.clusterId, agentId, incarnation });
      },
    }),
  ];
}
