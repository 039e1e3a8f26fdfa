/**
 * The brokers of a cluster that a client may ask, all alike: any takes any request. Owns which one is asked, and going
 * on to another where that is harmless. Does not own waiting: when all were asked once, the request has failed, and
 * trying again later is the caller's. Main thread.
 *
 *   no connection, 503       nothing happened: asked elsewhere at once
 *   504, connection lost     unknown: a GET is asked elsewhere at once, anything else is the caller's to send again;
 *                            the next request goes elsewhere
 *   429, other refusals      the answer
 *
 * With several, each is asked for its cluster before its first request: a list that names brokers of two clusters would
 * otherwise spread the records of one topic over both as soon as one of them is away.
 */
import { BrokerConnection, brokerUrl, type ConnectionOptions, type RestCall } from './broker-connection.ts';
import { failure, RestError } from './rest-error.ts';

interface Member {
  connection: BrokerConnection;
  /** It is known to serve this cluster. */
  isChecked: boolean;
  /** The look at its cluster that is under way. */
  checking: Promise<void> | null;
}

const CLUSTERS: RestCall = { method: 'GET', path: '/v3/clusters' };

/** Brokers of a zone that are asked before the zone is given up. */
const ZONE_BROKERS_MAX = 5;

/** Whether nothing happened because this broker could not serve now, where another one may. */
export function isElsewhere({ outcome, status, errorCode }: RestError): boolean {
  const isFull = status === 429 || (errorCode !== null && Math.floor(errorCode / 100) === 429);
  return outcome === 'nothing' && !isFull;
}

export class BrokerSet {
  readonly #options: ConnectionOptions;
  readonly #members: Member[];
  #current: Member;
  #clusterId: string | null = null;

  /** `urls`: at least one; the first is asked first. 'invalid-url' as a RestError. */
  constructor(urls: readonly string[], options: ConnectionOptions) {
    if (urls.length === 0) throw failure('no URL of a broker is given', 'invalid-url');
    this.#options = options;
    this.#members = [];
    for (const url of urls) {
      const member = this.#memberOf(url);
      if (!this.#members.includes(member)) this.#members.push(member);
    }
    this.#current = this.#members[0];
  }

  /** Of the broker that is asked now. */
  get url(): string {
    return this.#current.connection.url;
  }

  /** The member of a URL; a new one is not in the list yet. */
  #memberOf(url: string): Member {
    const normal = brokerUrl(url);
    const known = this.#members.find((member) => member.connection.url === normal);
    if (known) return known;
    return { connection: new BrokerConnection(normal, this.#options), isChecked: false, checking: null };
  }

  async close(): Promise<void> {
    await Promise.all(this.#members.map(({ connection }) => connection.close()));
  }

  async clusterId(): Promise<string> {
    if (this.#clusterId === null) {
      const { text } = await this.request(CLUSTERS);
      // With several brokers it is known by now.
      this.#clusterId ??= clusterOf(text);
    }
    return this.#clusterId;
  }

  /** Asks the brokers in turn, each at most once, from the present one on; see above. */
  async request(call: RestCall): Promise<{ text: string; broker: BrokerConnection }> {
    const from = this.#members.indexOf(this.#current);
    const inTurn = [...this.#members.slice(from), ...this.#members.slice(0, from)];
    let failed: RestError | null = null;
    for (const member of inTurn) {
      try {
        if (!member.isChecked && this.#members.length > 1) await this.#check(member);
        return { text: await member.connection.request(call), broker: member.connection };
      } catch (error) {
        if (!(error instanceof RestError)) throw error;
        const isUnknown = error.outcome === 'unknown';
        if (isUnknown || isElsewhere(error)) this.leave(member.connection);
        // An answer says more than that there was none.
        if (failed === null || error.status !== null) failed = error;
        if (!isElsewhere(error) && !(isUnknown && call.method === 'GET')) throw error;
      }
    }
    throw failed ?? failure('there is no broker to ask', 'invalid-url');
  }

  /** The next request goes to another broker, unless it does already or there is none. */
  leave(broker: BrokerConnection): void {
    if (this.#current.connection !== broker) return;
    const at = this.#members.indexOf(this.#current);
    this.#current = this.#members[(at + 1) % this.#members.length];
  }

  /** Goes to the first of these that answers for this cluster; null if none does. */
  async prefer(urls: readonly string[]): Promise<string | null> {
    await this.clusterId();
    for (const url of urls.slice(0, ZONE_BROKERS_MAX)) {
      const member = this.#memberOf(url);
      try {
        await this.#check(member);
      } catch (error) {
        if (!(error instanceof RestError)) throw error;
        if (!this.#members.includes(member)) await member.connection.close();
        continue;
      }
      if (!this.#members.includes(member)) this.#members.unshift(member);
      this.#current = member;
      return member.connection.url;
    }
    return null;
  }

  /** 'cluster-mismatch' (refused). Any other failure happened before the request that it was made for. */
  #check(member: Member): Promise<void> {
    member.checking ??= this.#lookAt(member).finally(() => {
      member.checking = null;
    });
    return member.checking;
  }

  async #lookAt(member: Member): Promise<void> {
    let text: string;
    try {
      text = await member.connection.request(CLUSTERS);
    } catch (error) {
      if (!(error instanceof RestError) || error.outcome === 'refused') throw error;
      const { code, status, errorCode, retryAfterMs, message } = error;
      throw new RestError(message, { outcome: 'nothing', code, status, errorCode, retryAfterMs }, error);
    }
    const id = clusterOf(text);
    this.#clusterId ??= id;
    if (id !== this.#clusterId) {
      throw failure(
        `${member.connection.url} serves cluster ${id}, the other brokers ${this.#clusterId}`,
        'cluster-mismatch',
      );
    }
    member.isChecked = true;
  }
}

/** Of an answer to GET /v3/clusters. */
function clusterOf(text: string): string {
  let id: unknown;
  try {
    id = (JSON.parse(text) as { data?: { cluster_id?: unknown }[] }).data?.[0]?.cluster_id;
  } catch {
    id = undefined;
  }
  if (typeof id === 'string') return id;
  throw failure('the broker named no cluster', 'bad-answer');
}
