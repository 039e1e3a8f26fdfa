/**
 * The SDK's client for one table. Owns: its settings, which are few and all matter: no retries of its own, time
 * limits, a bounded number of sockets. Does not own: requests (dynamodb-requests). The thread that hosts the store.
 */
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import type { DynamodbPlace } from './dynamodb-url.ts';

export interface DynamodbClientOptions {
  connectMsMax?: number;
  requestMsMax?: number;
}

/** More than requests ever are in flight (dynamodb-requests): none waits for a socket, which its limit would count. */
export const SOCKETS_MAX = 128;

/** A healthy region connects within a few ms. */
const CONNECT_MS_MAX = 2_000;
/** The service answers within some 10 ms at the 99th percentile; what takes this long is lost. */
const REQUEST_MS_MAX = 5_000;

export function createDynamodbClient(
  place: DynamodbPlace,
  options: DynamodbClientOptions = {},
): DynamoDBClient {
  const requestMsMax = options.requestMsMax ?? REQUEST_MS_MAX;
  const agent = { keepAlive: true, maxSockets: SOCKETS_MAX };
  return new DynamoDBClient({
    region: place.region,
    endpoint: place.endpoint,
    // A conditional write that is repeated conflicts with itself: only dynamodb-requests knows which may be.
    maxAttempts: 1,
    requestHandler: {
      connectionTimeout: options.connectMsMax ?? CONNECT_MS_MAX,
      requestTimeout: requestMsMax,
      throwOnRequestTimeout: true,
      socketTimeout: requestMsMax,
      httpAgent: new HttpAgent(agent),
      httpsAgent: new HttpsAgent(agent),
    },
  });
}
