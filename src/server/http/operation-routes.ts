/**
 * Routes for operators: health, metrics, the OpenAPI page, and a start page that says where things are. Main
 * thread.
 */
import Type from 'typebox';
import { PLAIN_JSON } from '../../protocol/http/media-type.ts';
import { HealthAnswer } from '../../protocol/http/schemas.ts';
import type { DoorContext } from './door-context.ts';
import { defineRoute, type Reply, type Route } from './route.ts';

const METRICS_TEXT = 'text/plain; version=0.0.4; charset=utf-8';

function health(context: DoorContext, of: 'live' | 'ready'): Reply {
  const { live, ready, reasons } = context.broker.health();
  const closing = context.closing.aborted;
  const state = {
    live,
    ready: ready && !closing,
    reasons: closing ? [...reasons, 'shutting down'] : reasons,
  };
  return { status: state[of] ? 200 : 503, contentType: PLAIN_JSON, body: JSON.stringify(state) };
}

/** `openApi` gives the OpenAPI page as JSON text. */
export function operationRoutes(openApi: () => string): Route[] {
  const tag = 'Operations';
  const json = { status: 200, contentTypes: [PLAIN_JSON] };
  return [
    defineRoute({
      method: 'GET',
      path: '/',
      tag,
      summary: 'Where things are.',
      answer: { ...json, description: 'Paths.', schema: Type.Object({}) },
      handle: ({ broker }) => ({
        status: 200,
        contentType: PLAIN_JSON,
        body: JSON.stringify({
          name: 'streamhouse',
          version: broker.info.version,
          cluster_id: broker.cluster.clusterId,
          topics: '/topics',
          clusters: '/v3/clusters',
          openapi: '/openapi.json',
          metrics: '/metrics',
          live: '/health/live',
          ready: '/health/ready',
        }),
      }),
    }),
    defineRoute({
      method: 'GET',
      path: '/health/live',
      tag,
      summary: '200 while the process is worth keeping, else 503.',
      answer: { ...json, description: 'The state, with reasons.', schema: HealthAnswer },
      handle: (context) => health(context, 'live'),
    }),
    defineRoute({
      method: 'GET',
      path: '/health/ready',
      tag,
      summary: '200 while the broker serves, else 503.',
      answer: { ...json, description: 'The state, with reasons.', schema: HealthAnswer },
      handle: (context) => health(context, 'ready'),
    }),
    defineRoute({
      method: 'GET',
      path: '/metrics',
      tag,
      summary: 'Metrics in the text format of Prometheus.',
      answer: {
        status: 200,
        description: 'The metrics.',
        schema: Type.String(),
        contentTypes: ['text/plain; version=0.0.4'],
      },
      handle: async ({ broker }) => ({
        status: 200,
        contentType: METRICS_TEXT,
        body: await broker.metricsText(),
      }),
    }),
    defineRoute({
      method: 'GET',
      path: '/openapi.json',
      tag,
      summary: 'This interface as OpenAPI 3.1.',
      answer: { ...json, description: 'An OpenAPI document.', schema: Type.Object({}) },
      handle: () => ({ status: 200, contentType: PLAIN_JSON, body: openApi() }),
    }),
  ];
}
