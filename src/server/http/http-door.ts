/**
 * The HTTP door: a node:http server before a Broker. Owns: the sockets, their limits and time-outs, finding
 * the route, stopping gracefully. Does not own: what routes do, nor any state beyond connections. Main
 * thread.
 *
 * A connection:  open -> (request -> answer)* -> ending -> closed
 * `ending`: nothing more is served on it, because a body was refused unread or broke off, or it had too many
 * requests unanswered.
 */
import { createServer, type Server, ServerResponse } from 'node:http';
import net, { type AddressInfo, type Socket } from 'node:net';
import findMyWay from 'find-my-way';
import type { Clock } from '../../core/clock.ts';
import { StreamHouseError } from '../../core/errors.ts';
import { isJsonBody, PLAIN_JSON } from '../../protocol/http/media-type.ts';
import { PEER_PRODUCE_PATH } from '../../protocol/peer/peer-headers.ts';
import type { Broker } from '../../route/broker.ts';
import { clusterRoutes } from './cluster-routes.ts';
import { connectionFaultAnswer, connectionFaultText } from './connection-fault.ts';
import type { DoorAdmission, DoorContext, HttpDoorSettings } from './door-context.ts';
import { type BodySink, type DoorConnection, DoorRequest } from './door-request.ts';
import { beginForwarded } from './forward-endpoint.ts';
import { GatheredWrites } from './gathered-writes.ts';
import type { HttpObserver } from './http-observer.ts';
import { internalRoutes } from './internal-routes.ts';
import { openApiText } from './openapi.ts';
import { operationRoutes } from './operation-routes.ts';
import { PARTITION_ROUTE, ProduceEndpoint, refuseBody, startBody, TOPIC_ROUTE } from './produce-endpoint.ts';
import { Responder } from './responder.ts';
import { METHODS, partitionNumber, pathOf, type Reply, type Route } from './route.ts';
import { topicRoutes } from './topic-routes.ts';
import { ZONE_BROKER_HEADER, ZONE_HEADER, ZonePointer } from './zone-pointer.ts';

const CONNECTION = Symbol('door connection');

interface DoorSocket extends Socket {
  [CONNECTION]: DoorConnection;
}

/** What find-my-way stores for a path: a route, or that it is one of those that take records. */
type Target = Route | 'produce' | 'forwarded';

/** Answers above this are counted as bytes held until the client has taken them. */
const COUNTED_ANSWER_BYTES = 64 * 1024;

/** How often a closing door looks for connections that have become idle. */
const CLOSE_POLL_MS = 20;

export interface HttpDoor {
  /** Starts listening; port 0 takes a free one. Answers where it listens. Fails as node:net does. */
  listen(host: string, port: number): Promise<{ host: string; port: number }>;
  /**
   * Stops accepting, wakes long polls, finishes the requests under way, and ends each connection after its
   * last answer; after `graceMs` it cuts what is left. The second call waits for the first.
   */
  close(options: { graceMs: number }): Promise<void>;
}

/** Makes a door; it does nothing before `listen`. */
export function createHttpDoor(
  broker: Broker,
  settings: HttpDoorSettings,
  observer: HttpObserver,
  clock: Clock,
  admission: DoorAdmission,
): HttpDoor {
  return new NodeHttpDoor(broker, settings, observer, clock, admission);
}

class NodeHttpDoor implements HttpDoor {
  readonly #context: DoorContext;
  readonly #responder: Responder;
  readonly #produce: ProduceEndpoint;
  readonly #zones: ZonePointer;
  readonly #router = findMyWay({ maxParamLength: 2048 });
  readonly #server: Server<typeof DoorRequest, typeof ServerResponse>;
  readonly #sockets = new Set<DoorSocket>();
  readonly #writes = new GatheredWrites();
  readonly #closing = new AbortController();
  #closed: Promise<void> | null = null;

  constructor(
    broker: Broker,
    settings: HttpDoorSettings,
    observer: HttpObserver,
    clock: Clock,
    admission: DoorAdmission,
  ) {
    this.#responder = new Responder(observer, clock);
    this.#context = {
      broker,
      settings,
      responder: this.#responder,
      observer,
      clock,
      admission,
      closing: this.#closing.signal,
      address: null,
    };
    this.#produce = new ProduceEndpoint(this.#context);
    this.#zones = new ZonePointer(broker, clock);
    this.#fillRouter();
    this.#server = createServer<typeof DoorRequest, typeof ServerResponse>({
      IncomingMessage: DoorRequest,
      ServerResponse,
      keepAlive: true,
      noDelay: true,
      maxHeaderSize: settings.headerBytesMax,
      headersTimeout: settings.headersTimeoutMs,
      requestTimeout: settings.headersTimeoutMs + settings.bodyTimeoutMs,
      keepAliveTimeout: settings.keepAliveTimeoutMs,
      connectionsCheckingInterval: Math.max(50, Math.min(1000, settings.headersTimeoutMs / 2)),
    });
    this.#server.maxConnections = settings.connectionsMax;
    this.#server.setTimeout(settings.idleTimeoutMs);
    this.#server.on('connection', (socket) => this.#onConnection(socket as DoorSocket));
    this.#server.on('request', (request, response) => this.#onRequest(request, response));
    this.#server.on('checkContinue', (request, response) => this.#onContinue(request, response));
    this.#server.on('clientError', (error, socket) => this.#onClientFault(error, socket as DoorSocket));
    this.#server.on('drop', () => observer.connectionRefused());
  }

  #fillRouter(): void {
    let openApi: string | null = null;
    const routes: Route[] = [];
    routes.push(
      ...topicRoutes(),
      ...clusterRoutes(),
      ...operationRoutes(() => (openApi ??= openApiText(routes, this.#context.broker.info.version))),
    );
    const add = (method: Route['method'], path: string, target: Target) => {
      const pattern = path.replaceAll(':', '::').replaceAll(/\{(\w+)\}/g, ':$1');
      this.#router.on(method, pattern, () => undefined, target);
    };
    for (const route of routes) add(route.method, route.path, route);
    for (const path of [TOPIC_ROUTE, PARTITION_ROUTE]) add('POST', path, 'produce');
    for (const route of internalRoutes()) add(route.method, route.path, route);
    add('POST', PEER_PRODUCE_PATH, 'forwarded');
  }

  #onConnection(socket: DoorSocket): void {
    socket[CONNECTION] = { pending: 0, newestRequest: null, newest: null, ending: false, faulted: false };
    this.#sockets.add(socket);
    this.#writes.attach(socket);
    socket.on('close', () => this.#sockets.delete(socket));
  }

  #onContinue(request: DoorRequest, response: ServerResponse): void {
    // A body that is too long in its own words is refused without asking for it.
    if (request.declaredBytes() <= this.#context.settings.bodyBytesMax) response.writeContinue();
    this.#onRequest(request, response);
  }

  #onRequest(request: DoorRequest, response: ServerResponse): void {
    const connection = (request.socket as DoorSocket)[CONNECTION];
    if (connection.ending) return;
    request.connectionState = connection;
    request.startedMs = this.#context.clock.monotonicMs();
    connection.newestRequest = request;
    connection.newest = response;
    connection.pending++;
    if (connection.pending > this.#context.settings.pipelinedRequestsMax) {
      this.#refuseFlood(request, response);
      return;
    }
    const zone = request.headers[ZONE_HEADER];
    if (zone !== undefined) this.#pointToZone(String(zone), response);
    const url = request.url ?? '';
    try {
      if (request.method === 'POST' && this.#produce.takeIfHot(request, response, url)) return;
      this.#dispatch(request, response, url);
    } catch (error) {
      if (error instanceof StreamHouseError) {
        this.#responder.refuseUnread(request, response, error.toPlain());
      } else this.#responder.failure(request, response, error);
    }
  }

  /** The header goes out with whatever answer the request gets. */
  #pointToZone(zone: string, response: ServerResponse): void {
    const url = this.#zones.brokerIn(zone);
    if (url !== null) response.setHeader(ZONE_BROKER_HEADER, url);
  }

  #refuseFlood(request: DoorRequest, response: ServerResponse): void {
    const { pipelinedRequestsMax } = this.#context.settings;
    request.connectionState.ending = true;
    request.socket.pause();
    this.#responder.error(request, response, {
      code: 'overloaded',
      message: `more than ${pipelinedRequestsMax} requests unanswered on one connection`,
    });
  }

  /** The general way: any path, method and query. */
  #dispatch(request: DoorRequest, response: ServerResponse, url: string): void {
    const method = request.method === 'HEAD' ? 'GET' : request.method;
    const question = url.indexOf('?');
    const path = pathOf(question === -1 ? url : url.slice(0, question));
    const search = question === -1 ? '' : url.slice(question + 1);
    const found =
      path.startsWith('/') && METHODS.includes(method as Route['method'])
        ? this.#router.find(method as Route['method'], path)
        : null;
    if (found === null) {
      this.#refuseRoute(request, response, path);
      return;
    }
    const target = found.store as Target;
    const { params } = found;
    if (target === 'forwarded') {
      beginForwarded(this.#context, request, response);
      return;
    }
    if (target === 'produce') {
      if (search !== '') throw new StreamHouseError('malformed-request', 'no query parameter is taken here');
      const partition = params.partition === undefined ? -1 : partitionNumber(params.partition);
      this.#produce.begin(request, response, params.topic ?? '', partition, undefined);
      return;
    }
    request.route = target.path;
    if (target.bodySchema === null) {
      this.#run(target, request, response, params, search, null);
      return;
    }
    const contentType = request.headers['content-type'];
    if (!isJsonBody(contentType)) {
      throw new StreamHouseError(
        'unsupported-media-type',
        `Content-Type ${contentType === undefined ? 'is missing' : JSON.stringify(contentType)}: ` +
          'the body comes as application/json',
      );
    }
    const sink: BodySink = {
      onBody: (_, body) => {
        this.#run(target, request, response, params, search, body);
        request.releaseBody();
      },
      onBodyFault: (_, fault) => refuseBody(this.#context, request, response, fault),
    };
    startBody(this.#context, request, response, sink);
  }

  #refuseRoute(request: DoorRequest, response: ServerResponse, path: string): void {
    const allowed: string[] = [];
    for (const method of path.startsWith('/') ? METHODS : []) {
      if (this.#router.find(method, path) === null) continue;
      allowed.push(method);
      if (method === 'GET') allowed.push('HEAD');
    }
    if (allowed.length === 0) {
      const shown = JSON.stringify(path.length > 200 ? `${path.slice(0, 200)}...` : path);
      this.#responder.refuseUnread(request, response, {
        code: 'route-not-found',
        message: `there is nothing at ${shown}; GET / says where things are`,
      });
      return;
    }
    const allow = allowed.join(', ');
    this.#responder.refuseUnread(
      request,
      response,
      { code: 'method-not-allowed', message: `${request.method} is not for this path, which takes ${allow}` },
      ['Allow', allow],
    );
  }

  #run(
    route: Route,
    request: DoorRequest,
    response: ServerResponse,
    params: Record<string, string | undefined>,
    search: string,
    body: Buffer | null,
  ): void {
    try {
      const reply = route.run(this.#context, request, params, search, body);
      if (reply instanceof Promise) {
        reply
          .then((value) => this.#reply(request, response, value))
          .catch((error: unknown) => this.#responder.failure(request, response, error));
      } else this.#reply(request, response, reply);
    } catch (error) {
      this.#responder.failure(request, response, error);
    }
  }

  #reply(request: DoorRequest, response: ServerResponse, reply: Reply): void {
    const bytes = typeof reply.body === 'string' ? Buffer.from(reply.body) : reply.body;
    const counted = bytes === null || bytes.length <= COUNTED_ANSWER_BYTES ? 0 : bytes.length;
    const held = reply.admitted ?? counted;
    if (reply.admitted === undefined && held > 0 && !this.#context.admission.answers.admit(held)) {
      this.#responder.error(request, response, {
        code: 'overloaded',
        message: 'too many bytes of answers under way; ask for fewer or try again',
      });
      return;
    }
    const extra = reply.retryAfter === undefined ? [] : ['Retry-After', reply.retryAfter];
    this.#responder.send(request, response, reply.status, reply.contentType, bytes, extra);
    if (held > 0) this.#releaseWhenSent(request, response, held);
  }

  /** Gives back the bytes of a large answer when the client has taken it or gone. */
  #releaseWhenSent(request: DoorRequest, response: ServerResponse, bytes: number): void {
    let held = true;
    const release = () => {
      if (held) this.#context.admission.answers.release(bytes);
      held = false;
    };
    response.once('finish', release);
    request.onGone(release);
  }

  /** Bytes that are not HTTP, too many of them, or too slow. Answers before it are sent first. */
  #onClientFault(error: Error, socket: DoorSocket): void {
    const connection = socket[CONNECTION];
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown';
    if (connection.ending || connection.faulted) return;
    connection.faulted = true;
    if (!socket.writable) {
      socket.destroy();
      return;
    }
    this.#context.observer.clientFault(code);
    const { newestRequest, newest } = connection;
    if (newestRequest !== null && newest !== null && !newestRequest.complete && !newestRequest.answered) {
      // It broke off inside a body: that request is the one to answer.
      connection.ending = true;
      const { status, body } = connectionFaultAnswer(code);
      this.#responder.send(newestRequest, newest, status, PLAIN_JSON, body);
      return;
    }
    const end = () => {
      if (socket.writable) socket.end(connectionFaultText(code), () => socket.destroy());
    };
    if (newest === null || newest.writableFinished) end();
    else newest.once('finish', end);
  }

  listen(host: string, port: number): Promise<{ host: string; port: number }> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host, port, backlog: 1024 }, () => {
        this.#server.off('error', reject);
        const address = this.#server.address() as AddressInfo;
        this.#context.address = { host: address.address, port: address.port };
        resolve(this.#context.address);
      });
    });
  }

  close({ graceMs }: { graceMs: number }): Promise<void> {
    this.#closed ??= this.#close(graceMs);
    return this.#closed;
  }

  #close(graceMs: number): Promise<void> {
    const { clock } = this.#context;
    const deadlineMs = clock.monotonicMs() + graceMs;
    this.#responder.closing = true;
    this.#closing.abort();
    return new Promise((resolve) => {
      // node:http's own close cuts connections whose answers wait to be sent: so node:net's, and this.
      const sweep = () => {
        const cut = clock.monotonicMs() >= deadlineMs;
        for (const socket of this.#sockets) {
          if (cut) socket.destroy();
          else if (isIdle(socket[CONNECTION])) socket.destroySoon();
        }
        timer = clock.after(CLOSE_POLL_MS, sweep);
      };
      let timer = clock.after(0, sweep);
      net.Server.prototype.close.call(this.#server, () => {
        timer.cancel();
        // Stops the timer of connection checks; the server itself is closed.
        this.#server.close(() => undefined);
        resolve();
      });
    });
  }
}

function isIdle(connection: DoorConnection): boolean {
  return connection.pending === 0 && (connection.newest === null || connection.newest.writableFinished);
}
