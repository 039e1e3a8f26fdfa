/**
 * The JSON that brokers exchange besides records: notices, orders, questions and their answers. Owns: the schemas, by
 * which both ends check what comes. Pure; main thread.
 */
import Type from 'typebox';

const whole = (minimum: number) => Type.Integer({ minimum, maximum: Number.MAX_SAFE_INTEGER });
const shard = Type.Integer({ minimum: 0, maximum: 65_535 });

/** There are never more shards. */
const SHARDS_MAX = 65_536;

export const LeasesMovedBody = Type.Object(
  {
    leaving: Type.Boolean(),
    shards: Type.Array(Type.Object({ shard, epoch: whole(0) }, { additionalProperties: false }), {
      maxItems: SHARDS_MAX,
    }),
  },
  { additionalProperties: false },
);

export const EndTopicBody = Type.Object(
  { topicId: whole(1), shards: Type.Array(shard, { minItems: 1, maxItems: SHARDS_MAX }) },
  { additionalProperties: false },
);

export const HeldAnswer = Type.Object({
  shards: Type.Array(Type.Object({ shard, epoch: whole(0), sinceMs: whole(0) }), { maxItems: SHARDS_MAX }),
});

export const WhoAnswer = Type.Object({
  clusterId: Type.String({ maxLength: 200 }),
  agentId: Type.String({ maxLength: 500 }),
  incarnation: whole(0),
});
