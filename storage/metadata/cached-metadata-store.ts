/**
 * A cache in front of any metadata store: topics by name. Owns: what may be remembered, for how long, and which
 * answer may replace which. Does not own: the truth; a topic here may lag behind other brokers' changes by the
 * time to live. Runs on the main thread, where the doors look topics up for every request.
 *
 * The rules, each with its race:
 * - Single flight: any number of callers that miss one name cause one read.
 * - A read fills only if no write of ours to the name ended since the read began (it may have seen the state
 *   before), and only over what is older by (topicId, version). A topicId never comes back, so a topic that was
 *   deleted and made anew under its name is always the newer one.
 * - A write of ours that was answered, alone on its name, fills with its answer; one that failed, or that ran
 *   beside another write or read of the same name, leaves nothing remembered: the next look-up reads.
 * - That a name does not exist, or has no such partition, is believed for `absentMsMax` only.
 */
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../src/core/clock.ts';
import {
  callMetadataStore,
  ForwardingMetadataStore,
  type MetadataArguments,
  type MetadataMethod,
  type MetadataResult,
} from './forwarding-metadata-store.ts';
import type { MetadataStore, Topic } from './metadata-store.ts';

/** Told of every event, for the shared counters; `kind` is the kind of thing looked up. */
export interface MetadataCacheObserver {
  /** Answered from memory; that a name is known not to exist counts too. */
  hit(kind: 'topic'): void;
  /** The store had to be asked, or the read that another caller waits for. */
  miss(kind: 'topic'): void;
  /** Dropped because the cache was full. */
  eviction(kind: 'topic'): void;
  /** A read was overtaken by a write, and its answer not kept. */
  staleFill(kind: 'topic'): void;
}

export interface MetadataCacheSettings {
  /** A topic takes some 400 bytes, so this many 20 MB. */
  topicCountMax: number;
  /** How long a topic is believed. */
  topicMsMax: number;
  /** Names that do not exist have a place of their own: asking for many of them must not push topics out. */
  absentCountMax: number;
  absentMsMax: number;
}

export const METADATA_CACHE_DEFAULTS: MetadataCacheSettings = {
  topicCountMax: 50_000,
  topicMsMax: 5 * 60_000,
  absentCountMax: 5_000,
  absentMsMax: 1000,
};

interface CachedTopic {
  topic: Topic;
  readAtMs: number;
  /** When a read last found that a partition asked for is beyond the count. */
  beyondAtMs: number | null;
}

/** A read of a name on its way; out of #flights once a write has made it stale. */
interface Flight {
  answer: Promise<Topic | null>;
  isStale: boolean;
}

/** Writes of ours to one name that are on their way. */
interface Writing {
  running: number;
  /** Something else on the name happened meanwhile, so no answer can be told to be the newest. */
  isOverlapped: boolean;
}

export class CachedMetadataStore extends ForwardingMetadataStore {
  readonly description: string;
  readonly bodyBytesMax: number;
  readonly #inner: MetadataStore;
  readonly #clock: Clock;
  readonly #settings: MetadataCacheSettings;
  readonly #observer: MetadataCacheObserver;
  readonly #topics: LRUCache<string, CachedTopic>;
  /** Names known not to exist, and when that was read. */
  readonly #absent: LRUCache<string, number>;
  readonly #flights = new Map<string, Flight>();
  readonly #writing = new Map<string, Writing>();

  constructor(
    inner: MetadataStore,
    clock: Clock,
    observer: MetadataCacheObserver,
    settings: Partial<MetadataCacheSettings> = {},
  ) {
    super();
    this.description = inner.description;
    this.bodyBytesMax = inner.bodyBytesMax;
    this.#inner = inner;
    this.#clock = clock;
    this.#observer = observer;
    this.#settings = { ...METADATA_CACHE_DEFAULTS, ...settings };
    this.#topics = new LRUCache({
      max: this.#settings.topicCountMax,
      dispose: (_topic, _name, reason) => {
        if (reason === 'evict') observer.eviction('topic');
      },
    });
    this.#absent = new LRUCache({ max: this.#settings.absentCountMax });
  }

  protected override forward<M extends MetadataMethod>(
    method: M,
    args: MetadataArguments<M>,
  ): Promise<MetadataResult<M>> {
    return callMetadataStore(this.#inner, method, args);
  }

  /**
   * The topic if it is in memory, for the hot path; counts a hit. undefined says nothing: ask `getTopic`, which
   * counts then. Topics from here are frozen and shared.
   */
  peekTopic(name: string): Topic | undefined {
    const cached = this.#remembered(name);
    if (!cached) return undefined;
    this.#observer.hit('topic');
    return cached.topic;
  }

  override async getTopic(name: string): Promise<Topic | null> {
    const cached = this.#remembered(name);
    if (cached || this.#isKnownAbsent(name)) {
      this.#observer.hit('topic');
      return cached?.topic ?? null;
    }
    this.#observer.miss('topic');
    return this.#load(name).answer;
  }

  /**
   * The topic, read anew once if it has fewer partitions in memory than `partitionCount` (another broker may have
   * grown it). It may still have fewer afterwards; then that is believed for `absentMsMax`.
   */
  async getTopicAtLeast(name: string, partitionCount: number): Promise<Topic | null> {
    const cached = this.#remembered(name);
    const isAnswer =
      cached && (cached.topic.partitionCount >= partitionCount || this.#isFresh(cached.beyondAtMs));
    if (isAnswer || (!cached && this.#isKnownAbsent(name))) {
      this.#observer.hit('topic');
      return cached?.topic ?? null;
    }
    this.#observer.miss('topic');
    const isJoined = this.#flights.has(name);
    let topic = await this.#load(name).answer;
    // A read that was on its way before this call began may be older than what the caller knows of.
    if (isJoined && topic && topic.partitionCount < partitionCount) topic = await this.#load(name).answer;
    if (topic && topic.partitionCount < partitionCount) {
      const found = this.#topics.peek(name);
      if (found) found.beyondAtMs = this.#clock.monotonicMs();
    }
    return topic;
  }

  override createTopic(...args: MetadataArguments<'createTopic'>): Promise<Topic> {
    return this.#write(args[0].name, this.forward('createTopic', args), (topic) => this.#remember(topic));
  }

  override growTopic(...args: MetadataArguments<'growTopic'>): Promise<Topic> {
    return this.#write(args[0], this.forward('growTopic', args), (topic) => this.#remember(topic));
  }

  override alterTopic(...args: MetadataArguments<'alterTopic'>): Promise<Topic> {
    return this.#write(args[0], this.forward('alterTopic', args), (topic) => this.#remember(topic));
  }

  override deleteTopic(...args: MetadataArguments<'deleteTopic'>): Promise<Topic> {
    return this.#write(args[0], this.forward('deleteTopic', args), ({ name }) => this.#rememberAbsent(name));
  }

  /** Rows of whatever names: nothing that was read before is believed any more. */
  override async importRows(...args: MetadataArguments<'importRows'>): Promise<void> {
    try {
      await this.forward('importRows', args);
    } finally {
      for (const flight of this.#flights.values()) flight.isStale = true;
      this.#flights.clear();
      this.#topics.clear();
      this.#absent.clear();
    }
  }

  /** Closes the store below. */
  close(): Promise<void> {
    return this.#inner.close();
  }

  /** Not expired. */
  #remembered(name: string): CachedTopic | undefined {
    const cached = this.#topics.get(name);
    if (!cached) return undefined;
    if (this.#clock.monotonicMs() - cached.readAtMs < this.#settings.topicMsMax) return cached;
    this.#topics.delete(name);
    return undefined;
  }

  #isKnownAbsent(name: string): boolean {
    return this.#isFresh(this.#absent.get(name) ?? null);
  }

  #isFresh(sinceMs: number | null): boolean {
    return sinceMs !== null && this.#clock.monotonicMs() - sinceMs < this.#settings.absentMsMax;
  }

  /** The read on its way, or a new one. */
  #load(name: string): Flight {
    const present = this.#flights.get(name);
    if (present) return present;
    const flight: Flight = { answer: Promise.resolve(null), isStale: false };
    flight.answer = this.#read(name, flight);
    this.#flights.set(name, flight);
    return flight;
  }

  async #read(name: string, flight: Flight): Promise<Topic | null> {
    // Its answer is as old as its beginning.
    const beganAtMs = this.#clock.monotonicMs();
    try {
      const topic = await this.#inner.getTopic(name);
      if (flight.isStale) this.#observer.staleFill('topic');
      else if (topic) this.#remember(topic, beganAtMs);
      else this.#rememberAbsent(name, beganAtMs);
      return topic && frozen(topic);
    } finally {
      // A write that is on its way may end with an answer from before this one: then neither is kept.
      const writing = this.#writing.get(name);
      if (writing) writing.isOverlapped = true;
      if (this.#flights.get(name) === flight) this.#flights.delete(name);
    }
  }

  #remember(topic: Topic, asOfMs = this.#clock.monotonicMs()): void {
    const cached = this.#topics.peek(topic.name)?.topic;
    if (cached && isNewer(cached, topic)) {
      this.#observer.staleFill('topic');
      return;
    }
    this.#absent.delete(topic.name);
    this.#topics.set(topic.name, { topic: frozen(topic), readAtMs: asOfMs, beyondAtMs: null });
  }

  #rememberAbsent(name: string, asOfMs = this.#clock.monotonicMs()): void {
    this.#topics.delete(name);
    this.#absent.set(name, asOfMs);
  }

  /** Waits for a write of ours to `name`, then fills by `land` or, where that is not sure to be newest, forgets. */
  async #write(name: string, call: Promise<Topic>, land: (topic: Topic) => void): Promise<Topic> {
    let writing = this.#writing.get(name);
    if (writing) writing.isOverlapped = true;
    else this.#writing.set(name, (writing = { running: 0, isOverlapped: false }));
    writing.running++;
    let answer: Topic | undefined;
    try {
      answer = await call;
      return frozen(answer);
    } finally {
      if (--writing.running === 0) this.#writing.delete(name);
      const flight = this.#flights.get(name);
      if (flight) {
        flight.isStale = true;
        this.#flights.delete(name);
      }
      if (answer && !writing.isOverlapped) land(answer);
      else this.#forget(name);
    }
  }

  #forget(name: string): void {
    this.#topics.delete(name);
    this.#absent.delete(name);
  }
}

function isNewer(a: Topic, b: Topic): boolean {
  return a.topicId > b.topicId || (a.topicId === b.topicId && a.version > b.version);
}

/** What the cache hands out is shared by all callers. */
function frozen(topic: Topic): Topic {
  Object.freeze(topic.configs);
  return Object.freeze(topic);
}
