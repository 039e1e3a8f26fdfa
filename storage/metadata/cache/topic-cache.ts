/**
 * Topics by name. Owns: what is remembered of them, for how long, and which answer may replace which. Does not own:
 * the truth; a topic here may lag behind other brokers' changes by the time to live. Main thread, where the doors
 * look topics up for every request.
 *
 * The rules, each with its race:
 * - Single flight: any number of callers that miss one name cause one read.
 * - A read fills only if no write of ours to the name ended since the read began (it may have seen the state
 *   before), and only over what is older by (topicId, version). A topicId never comes back, so a topic that was
 *   deleted and made anew under its name is always the newer one.
 * - A write of ours that was answered, alone on its name, fills with its answer; one that failed, or that ran
 *   beside another write or read of the same name, leaves nothing remembered: the next look-up reads.
 * - "No" is never answered from memory. That a name does not exist, or has no such partition, always comes from a
 *   read that began after the look-up: who has just created a topic at another broker finds it here. What is
 *   remembered of a "no" is when it was read, and it only paces: the next reads of that name begin `paceMs` apart,
 *   and look-ups meanwhile wait for one together.
 * - A topic under which a request was refused since it is deleted is dropped, with the reads that are on their way.
 */
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../../src/core/clock.ts';
import type { MetadataStore, Topic } from '../metadata-store.ts';
import type { MetadataCacheObserver } from './metadata-cache-observer.ts';
import { type Beginning, PacedReads } from './paced-reads.ts';

export interface TopicCacheSettings {
  /** A topic takes some 400 bytes, so the default 50,000 take 20 MB. */
  topicCountMax: number;
  /** How long a topic is believed. */
  topicMsMax: number;
  /** How long it is believed that a topic which has a partition still has it; at most as long as a topic. */
  partitionMsMax: number;
  /** Names that do not exist have a place of their own: asking for many of them must not push topics out. */
  absentCountMax: number;
  /** Between the beginnings of two reads that follow a "no", ms. */
  paceMs: number;
}

interface CachedTopic {
  topic: Topic;
  readAtMs: number;
  /** When a read last found that a partition asked for is beyond the count. */
  beyondAtMs: number | null;
}

/** Writes of ours to one name that are on their way. */
interface Writing {
  running: number;
  /** Something else on the name happened meanwhile, so no answer can be told to be the newest. */
  isOverlapped: boolean;
}

export class TopicCache {
  readonly #clock: Clock;
  readonly #settings: TopicCacheSettings;
  readonly #observer: MetadataCacheObserver;
  readonly #topics: LRUCache<string, CachedTopic>;
  /** Names found not to exist, and when that was read. */
  readonly #absent: LRUCache<string, number>;
  /** By name, the newest topic that was dropped: a thousand requests may be refused under it one after another. */
  readonly #dropped: LRUCache<string, number>;
  readonly #reads: PacedReads<string, Topic | null>;
  readonly #writing = new Map<string, Writing>();

  constructor(
    store: MetadataStore,
    clock: Clock,
    observer: MetadataCacheObserver,
    settings: TopicCacheSettings,
  ) {
    this.#clock = clock;
    this.#settings = settings;
    this.#observer = observer;
    this.#topics = new LRUCache({
      max: settings.topicCountMax,
      dispose: (_topic, _name, reason) => {
        if (reason === 'evict') observer.eviction('topic');
      },
    });
    this.#absent = new LRUCache({ max: settings.absentCountMax });
    this.#dropped = new LRUCache({ max: settings.absentCountMax });
    this.#reads = new PacedReads({
      clock,
      read: async (name) => {
        const topic = await store.getTopic(name);
        return topic && frozen(topic);
      },
      land: (name, topic, began) => this.#land(name, topic, began),
      stale: () => observer.staleFill('topic'),
    });
  }

  /** The topic as remembered, if that is younger than `msMax` and has so many partitions; undefined says nothing. */
  remembered(name: string, partitionCountMin: number, msMax: number): Topic | undefined {
    const cached = this.#topics.get(name);
    if (!cached) return undefined;
    const ageMs = this.#clock.monotonicMs() - cached.readAtMs;
    if (ageMs < msMax && cached.topic.partitionCount >= partitionCountMin) return cached.topic;
    if (ageMs >= this.#settings.topicMsMax) this.#topics.delete(name);
    return undefined;
  }

  /** Past the memory. It may have fewer partitions than `partitionCountMin` all the same: then the store says so. */
  async read(name: string, partitionCountMin: number): Promise<Topic | null> {
    const isYes = (topic: Topic | null): boolean =>
      topic !== null && topic.partitionCount >= partitionCountMin;
    const asked = this.#reads.mark();
    const saidNoAtMs = this.#saidNoAtMs(name, partitionCountMin);
    const terms =
      saidNoAtMs === null ? {} : { after: asked, notBeforeMs: saidNoAtMs + this.#settings.paceMs };
    const first = this.#reads.read(name, terms);
    let topic = await first.answer;
    if (!isYes(topic) && first.isOlder) topic = await this.#reads.read(name, { after: asked }).answer;
    const cached = this.#topics.peek(name);
    if (topic && cached && !isYes(topic)) cached.beyondAtMs = this.#clock.monotonicMs();
    return topic;
  }

  /**
   * A request under this topic was refused since it is deleted. Nothing if another topic has the name by now. Reads
   * that are on their way may have seen it still there; those that begin later cannot, for the catalogue is the
   * first to know.
   */
  drop({ name, topicId }: Topic): void {
    const cached = this.#topics.peek(name);
    const isCached = cached !== undefined && cached.topic.topicId <= topicId;
    if (!isCached && (this.#dropped.get(name) ?? 0) >= topicId) return;
    this.#dropped.set(name, topicId);
    this.#reads.overtake(name);
    if (!isCached) return;
    this.#topics.delete(name);
    this.#observer.drop('topic');
  }

  /** Everything may be another now. */
  forgetAll(): void {
    this.#reads.overtakeAll();
    this.#topics.clear();
    this.#absent.clear();
    this.#dropped.clear();
  }

  /** Waits for a write of ours to `name`; `isEnd`: it answers with the topic as it was, and now there is none. */
  async write(name: string, call: Promise<Topic>, isEnd = false): Promise<Topic> {
    let writing = this.#writing.get(name);
    if (writing) writing.isOverlapped = true;
    else this.#writing.set(name, (writing = { running: 0, isOverlapped: false }));
    writing.running++;
    let answer: Topic | undefined;
    try {
      answer = frozen(await call);
      return answer;
    } finally {
      if (--writing.running === 0) this.#writing.delete(name);
      this.#reads.overtake(name);
      if (!answer || writing.isOverlapped || isEnd) this.#forget(name);
      else this.#remember(answer, this.#clock.monotonicMs());
    }
  }

  /** When a read last said that there is no such topic or partition; null: none did, as far as is known. */
  #saidNoAtMs(name: string, partitionCountMin: number): number | null {
    const cached = this.#topics.peek(name);
    if (!cached) return this.#absent.get(name) ?? null;
    return cached.topic.partitionCount < partitionCountMin ? cached.beyondAtMs : null;
  }

  #land(name: string, topic: Topic | null, { atMs }: Beginning): void {
    // A write that is on its way may end with an answer from before this one: then neither is kept.
    const writing = this.#writing.get(name);
    if (writing) writing.isOverlapped = true;
    if (topic) {
      this.#remember(topic, atMs);
    } else {
      this.#topics.delete(name);
      this.#absent.set(name, atMs);
    }
  }

  #remember(topic: Topic, asOfMs: number): void {
    const cached = this.#topics.peek(topic.name)?.topic;
    if (cached && isNewer(cached, topic)) {
      this.#observer.staleFill('topic');
      return;
    }
    this.#absent.delete(topic.name);
    this.#topics.set(topic.name, { topic, readAtMs: asOfMs, beyondAtMs: null });
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
