/**
 * The report of a load run: one schema for the type, the page in docs/ and the tests. Owns: keys and units. Names end
 * with their unit; null stands for what was not measured. Does not own: the figures (broker-figures, run-report).
 * Pure.
 */
import Type, { type Static, type TProperties, type TSchema } from 'typebox';

function closed<P extends TProperties>(properties: P) {
  return Type.Object(properties, { additionalProperties: false });
}

function orNull<T extends TSchema>(schema: T) {
  return Type.Union([schema, Type.Null()]);
}

const count = Type.Integer({ minimum: 0 });
const number = Type.Number();
const maybe = orNull(Type.Number());

const Quantiles = closed({ p50: maybe, p99: maybe });
const Latency = closed({ p50: maybe, p95: maybe, p99: maybe, p999: maybe, max: maybe });
const Cache = closed({ hit_rate: maybe, hits: maybe, misses: maybe });
const Failures = Type.Record(Type.String(), count, {
  description: 'Records by the code that they failed with.',
});

const ReadersReport = closed({
  kind: Type.Union([Type.Literal('tail'), Type.Literal('sweep'), Type.Literal('random')]),
  records: count,
  requests: count,
  failed: count,
  failures: Failures,
  records_per_s: number,
  fetch_ms: Latency,
  end_to_end_ms: Latency,
});

const PhaseReport = closed({
  name: Type.String(),
  pace: Type.String(),
  after_restart: Type.Boolean({
    description:
      'The broker was started anew before it. What the report says of the broker, its stores and the database is of what came after the last restart.',
  }),
  began_s: orNull(
    Type.Number({
      description: 'On the clock of `series`; null: before it, since the broker was started anew.',
    }),
  ),
  is_measured: Type.Boolean({
    description: 'Whether produce_ms and rate_per_s of the report are of this phase.',
  }),
  records: closed({ sent: count, acked: count, failed: count, unknown: count }),
  took_s: number,
  rate_per_s: number,
  produce_ms: Latency,
  late_ms_max: Type.Number({
    description: 'Open loop: the longest that a request was sent after it was due.',
  }),
  generators_cpu_s: number,
  readers: orNull(ReadersReport),
  churn: orNull(closed({ topics_created: count, topics_deleted: count, records: count, failed: count })),
});

const Verify = closed({
  read: count,
  missing: count,
  duplicated: count,
  reordered: count,
  altered: count,
  refused_read: count,
  gaps: count,
  unknown_read: count,
  took_s: number,
  examples: Type.Array(Type.String()),
});

const ClusterReport = closed({
  brokers: Type.Array(
    closed({
      name: Type.String(),
      started_s: Type.Number({ description: 'On the clock of `series`, as all times here.' }),
      killed_s: maybe,
      ready_ms: number,
      shards_held: Type.Number({ description: 'When it was looked at last.' }),
      takeovers: number,
      records_committed: number,
      appends: Type.Number({ description: 'Taken, from clients or from other brokers.' }),
      forwarded_appends: number,
      received_appends: number,
      metadata_calls: number,
      objects_uploaded: number,
      cpu_s: maybe,
      rss_max_mb: maybe,
    }),
    { description: 'What a broker that was killed had told at its last look, just before.' },
  ),
  events: Type.Array(closed({ t_s: number, what: Type.String() })),
  spans: Type.Array(
    closed({
      name: Type.String(),
      from_s: number,
      to_s: number,
      acked: count,
      rate_per_s: number,
      produce_ms: Latency,
      failures: Failures,
      retried: Failures,
    }),
    { description: 'Between the events, of answers that came then.' },
  ),
  stops: Type.Array(
    closed({
      event: Type.String(),
      t_s: number,
      of: Type.String({ description: 'Which partitions.' }),
      partitions: count,
      stopped_ms: closed({ p50: maybe, p99: maybe, max: maybe }),
      longest_ms: closed({ p50: maybe, p99: maybe, max: maybe }),
      again_ms: orNull(
        Type.Number({ description: 'After the event, when the last of them was acknowledged again.' }),
      ),
      not_again: Type.Integer({
        minimum: 0,
        description: 'Partitions without an acknowledgement from half a second after the event on.',
      }),
    }),
    {
      description:
        '`stopped_ms`: how long acknowledgements of a partition stopped, from its last one before half a second after the event to its next. `longest_ms`: the longest time between two of a partition, from then until the next event.',
    },
  ),
  forwarded_share: orNull(
    Type.Number({ description: 'Of the appends of clients, those that went on to another broker.' }),
  ),
  retried: Type.Record(Type.String(), count, {
    description: 'Records that certainly had not happened and were sent again, by why; each time counts.',
  }),
});

const Point = closed({
  t_s: number,
  rate_per_s: number,
  failed: count,
  p50_ms: maybe,
  p99_ms: maybe,
  max_ms: maybe,
  requests_outstanding: count,
  puts_per_s: maybe,
  appends_outstanding: maybe,
  uploads_in_flight: maybe,
  objects_in_flight: maybe,
  open_batch_slices: maybe,
  in_flight_mb: maybe,
  rss_mb: maybe,
  heap_mb: maybe,
  topics_hit_rate: maybe,
  pages_hit_rate: maybe,
});

export const LoadReportSchema = Type.Object(
  {
    schema: Type.Literal('streamhouse-load-1'),
    scenario: Type.String(),
    partial: Type.Boolean({ description: 'The run ended before its time; `partial_reason` says why.' }),
    partial_reason: orNull(Type.String()),
    partitions: count,
    plan: closed({
      records: count,
      value_bytes: count,
      per_request: count,
      connections: count,
      in_flight: count,
      generators: count,
      seed: count,
      warm_up_ms: number,
      object_per: Type.String(),
      object_delay_ms: orNull(Type.Array(Type.Number())),
      broker: Type.String({ description: 'own, or the URL of one that ran already' }),
      brokers: count,
    }),
    records: closed({ sent: count, acked: count, failed: count, unknown: count, failures: Failures }),
    rate_per_s: Type.Number({ description: 'Acknowledged records a second in the measured phase.' }),
    requests_per_s: number,
    produce_ms: Latency,
    end_to_end_ms: Latency,
    p99_ratio: orNull(
      Type.Number({ description: 'backfill: p99 of producers beside readers to p99 of producers alone.' }),
    ),
    phases: Type.Array(PhaseReport),
    metadata_ms: Quantiles,
    metadata_calls: Type.Record(Type.String(), closed({ count, p50_ms: maybe, p99_ms: maybe })),
    cached_ms: Quantiles,
    uncached_ms: Quantiles,
    cache: closed({ topics: Cache, leases: Cache, pages: Cache, tail: Cache, blocks: Cache }),
    index_us: Quantiles,
    index_paged_ms: closed({
      p50: maybe,
      p99: maybe,
      count: Type.Integer({ minimum: 0, description: 'Look-ups that read a page from the metadata store.' }),
    }),
    objects: closed({
      uploaded: number,
      puts: Type.Number({ description: 'PUT requests: uploads, those sent twice for slowness, retries.' }),
      puts_per_million_records: maybe,
      bytes: number,
      slices: number,
      slices_per_object: maybe,
      puts_per_slice: maybe,
      failed: number,
      retries: number,
      hedges: number,
      upload_ms: Quantiles,
    }),
    flush: closed({ count: number, statements: maybe, rows: maybe, bytes: maybe }),
    beside: closed({
      pages: number,
      checkpoints: number,
      checkpoint_bytes: number,
      takeovers: number,
      shards_lost: number,
      metadata_errors: number,
    }),
    database: closed({
      statements: orNull(
        Type.Number({
          description:
            'Of all phases, as the database counted them where it can be asked, else as the broker did: see `source`.',
        }),
      ),
      statements_per_s: maybe,
      unit: Type.String({
        description: 'What `statements` counts: statements, transactions, requests or calls.',
      }),
      source: Type.String({ description: 'Who counted `statements`.' }),
      by_broker: orNull(Type.Number({ description: 'What the broker counted at its driver meanwhile.' })),
      read_units: maybe,
      write_units: maybe,
    }),
    verify: orNull(Verify),
    broker: closed({
      cpu_s: maybe,
      rss_max_mb: maybe,
      start_ms: maybe,
      restart_ms: maybe,
      create_topic_ms: maybe,
    }),
    cluster: orNull(ClusterReport),
    echo: orNull(
      closed({
        rate_per_s: number,
        produce_ms: Latency,
        ratio: Type.Number({
          description: "The broker's rate to that of a bare node:http echo under the same load.",
        }),
      }),
    ),
    cost: closed({
      per_million_records: number,
      parts: Type.Record(Type.String(), number),
      prices: Type.Record(Type.String(), number),
      note: Type.String(),
    }),
    distribution: Type.Array(closed({ part: number, ms: number }), {
      description: 'produce latency: `ms` is not exceeded by `part` of all requests.',
    }),
    series: Type.Array(Point),
    machine: closed({
      cores: count,
      cpu: Type.String(),
      memory_gb: count,
      node: Type.String(),
      load: number,
    }),
    date: Type.String(),
    commit: Type.String(),
    command: Type.String(),
  },
  {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Report of `streamhouse load`',
    additionalProperties: false,
  },
);

export type LoadReport = Static<typeof LoadReportSchema>;
export type LatencyReport = Static<typeof Latency>;
export type SeriesPoint = Static<typeof Point>;
export type PhaseReport = Static<typeof PhaseReport>;
export type ClusterReport = Static<typeof ClusterReport>;
export type VerifyReport = Static<typeof Verify>;
