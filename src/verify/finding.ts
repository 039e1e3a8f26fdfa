/**
 * What a verification can find. Owns: the closed tables of kinds with their one-line meanings (docs/verify.md says
 * what to do about each; a test keeps the two together), the shape of a finding, and the bounded list in which
 * they are gathered. Does not own: when something is wrong. Pure; main thread.
 */

/** Something is wrong. */
export const FINDING_KINDS = {
  'cluster-stamp': 'the bucket bears the stamp of another cluster or metadata store, or none',
  'head-mismatch': 'a head contradicts itself or its newest entry',
  'checkpoint-missing': 'the checkpoint that the head points to is not there',
  'checkpoint-corrupt': 'the checkpoint does not decode',
  'checkpoint-mismatch': 'the checkpoint is not the one that the pointer names, or holds an impossible state',
  'entry-missing': 'the log is not dense from pointer to head',
  'entry-corrupt': 'an entry does not decode',
  'entry-mismatch': 'an entry lies under another shard, seq or epoch than it says',
  'entry-refused': 'an entry does not follow from the state before it',
  'epoch-fell': 'an entry has a lower epoch than one before it, or a higher one than the head',
  'takeover-missing': 'an epoch begins without its Takeover entry, or has two',
  'commit-id-repeated': 'two entries of a shard bear the same commit id',
  'producer-sequence': 'a batch was accepted that its producer had sent already, or that does not follow',
  'foreign-partition': 'a partition lies in a shard that is not its own',
  'deleted-topic-slice': 'a slice was accepted after its topic had been deleted',
  'topic-group': 'the configs of a topic name another group than its id belongs to',
  'topic-unknown': 'a shard holds a partition of a topic that is neither live nor deleted',
  'partition-unknown': 'a shard holds a partition beyond the count of its topic',
  'page-missing': 'offsets that the checkpoint counts on lie in no page',
  'page-corrupt': 'an index page does not decode',
  'page-mismatch': 'an index page lies under another shard, partition, base or stamp than it says',
  'page-overlap': 'an index page begins before the one below it ends',
  'page-bounds': 'an index page begins or ends where the fold of the log puts no bound',
  'page-stamp': 'an index page does not hold what the log through its stamp says',
  'page-segment': 'a segment of an index page is not the one that the log has',
  'page-timestamp': 'the running maximum timestamp of the index falls or disagrees',
  'page-unexpected': 'there is a page of a partition of which the shard knows nothing',
  'object-missing': 'an object that a segment names is not in the bucket',
  'object-corrupt': 'header, directory or trailer of an object do not decode',
  'object-mismatch': 'an object has another name or size than its row',
  'object-row-missing': 'an object that a segment names has no row',
  'object-reference-missing': "an object's row has no reference of a shard that names it",
  'object-epoch': 'an object was sealed under another epoch than the entry that names it',
  'slice-outside-directory': "a segment is not within a slice of its partition in the object's directory",
  'slice-corrupt': 'the bytes of a slice do not fit their checksum, their batches or their record count',
  'slice-shared': 'two segments name the same bytes: records would be read under two offsets',
} as const;

/** Nothing is lost and nothing is read wrongly; somebody may wonder, or clean up. */
export const NOTE_KINDS = {
  'object-without-row': 'in the bucket, unknown to the metadata: an upload under way or given up',
  'object-not-ours': 'a name in the bucket that no broker makes',
  'row-without-object': 'a row whose object is not in the bucket, and that no segment names',
  'row-unreferenced': 'a row without any reference: its object may be deleted',
  'row-unused':
    'a row with references of shards, none of which has a segment in it (its appends were refused)',
} as const;

export type FindingKind = keyof typeof FINDING_KINDS;
export type NoteKind = keyof typeof NOTE_KINDS;

/** Where something is; whatever applies. */
export interface Place {
  shard?: number;
  seq?: number;
  topic?: string;
  topicId?: number;
  partition?: number;
  offset?: number;
  object?: string;
}

export interface Finding extends Place {
  kind: FindingKind;
  expected: string;
  found: string;
}

export interface Note {
  kind: NoteKind;
  object: string;
  bytes: number | null;
}

/** Findings told one by one; the rest is counted. */
export const FINDINGS_MAX = 1000;
/** Notes of one kind told one by one. */
export const NOTES_MAX = 100;

/** Findings by their place: the same thing found twice counts once. */
export class Findings {
  readonly byPlace = new Map<string, Finding>();
  /** All, also those that were too many to keep. */
  count = 0;

  add(finding: Finding): void {
    const name = nameOf(finding);
    if (this.byPlace.has(name)) return;
    this.count++;
    if (this.byPlace.size < FINDINGS_MAX) this.byPlace.set(name, finding);
  }

  get list(): Finding[] {
    return [...this.byPlace.values()];
  }

  /** Those that `other` has too. What was too many to keep is gone from both. */
  confirmedBy(other: Findings): Findings {
    const both = new Findings();
    for (const [name, finding] of other.byPlace) if (this.byPlace.has(name)) both.add(finding);
    return both;
  }
}

function nameOf({ kind, shard, seq, topicId, partition, offset, object }: Finding): string {
  return [kind, shard, seq, topicId, partition, offset, object].join('/');
}

/** Notes: all counted, some kept. */
export class Notes {
  readonly counts: Record<NoteKind, number> = {
    'object-without-row': 0,
    'object-not-ours': 0,
    'row-without-object': 0,
    'row-unreferenced': 0,
    'row-unused': 0,
  };
  readonly list: Note[] = [];

  add(kind: NoteKind, object: string, bytes: number | null): void {
    if (this.counts[kind]++ < NOTES_MAX) this.list.push({ kind, object, bytes });
  }
}
