import { exponentialBuckets } from 'prom-client';
import { VERSION } from '../base/version.ts';
import type { State } from '../engine/index.ts';
import type { StallReason } from '../flush/index.ts';
import type { MetricsEvents, MetricsSource } from './source.ts';
import type { DatabaseStats } from './stats.ts';

export const PREFIX = 'sluice_';

/** A database at the moment of a scrape. */
export interface Moment {
  readonly stats: DatabaseStats;
  readonly source: MetricsSource;
}

/** A value, and its labels besides `db` in the order of the family's. What is no number is left out. */
export type Sample = readonly [value: number | undefined, ...labels: string[]];

/** A metric that is read from the numbers of a database when it is scraped. */
export interface Family {
  readonly type: 'counter' | 'gauge';
  readonly name: string;
  readonly help: string;
  /** Labels besides `db`. Each has a sample for each of its values, from the start. */
  readonly labels: readonly string[];
  readonly read: (moment: Moment) => readonly Sample[];
}

type Read<T> = (stats: DatabaseStats, options: MetricsSource['options']) => T;
type Counts = Readonly<Record<string, number>>;

const one = (type: Family['type'], name: string, help: string, read: Read<number | undefined>): Family => ({
  type,
  name,
  help,
  labels: [],
  read: ({ stats, source }) => [[read(stats, source.options)]],
});
const by = (type: Family['type'], name: string, label: string, help: string, read: Read<Counts>): Family => ({
  type,
  name,
  help,
  labels: [label],
  read: ({ stats, source }) => Object.entries(read(stats, source.options)).map(([value, count]) => [count, value]),
});

const counter = (name: string, help: string, read: Read<number>) => one('counter', name, help, read);
const gauge = (name: string, help: string, read: Read<number | undefined>) => one('gauge', name, help, read);
const counterBy = (name: string, label: string, help: string, read: Read<Counts>) =>
  by('counter', name, label, help, read);

/** A gauge per value of a label, of which one is 1 or none. */
const oneOf = (name: string, label: string, help: string, all: readonly string[], read: Read<string | undefined>) =>
  by('gauge', name, label, help, (stats, options) => {
    const current = read(stats, options);
    return Object.fromEntries(all.map((value) => [value, value === current ? 1 : 0]));
  });

const STATES = Object.keys({
  ok: 0,
  degraded: 0,
  space: 0,
  failed: 0,
  closing: 0,
  // A closed database has no series.
} satisfies Record<Exclude<State, 'closed'>, 0>);

const STALL_REASONS = Object.keys({
  transient: 0,
  space: 0,
  reopen: 0,
  config: 0,
  breaker: 0,
  'queue-full': 0,
} satisfies Record<StallReason, 0>);

const seconds = (ms: number) => ms / 1_000;

const WRITES: readonly Family[] = [
  counterBy('writes_accepted_total', 'op', 'Writes accepted, by what they do.', (s) => s.acceptedBy),
  counter('writes_recovered_total', 'Writes found in the log at open and not applied before.', (s) => s.recovered),
  counter('writes_applied_total', 'Writes that took effect in SQLite.', (s) => s.applied),
  counter('writes_coalesced_total', 'Writes that a newer write of the same key made pointless.', (s) => s.coalesced),
  counterBy(
    'writes_dead_lettered_total',
    'reason',
    'Writes that SQLite refused for good and that went to the dead-letter queue.',
    (s) => s.deadLetteredBy,
  ),
  counterBy(
    'writes_rejected_total',
    'reason',
    'Calls turned away before anything was accepted; for several writes at once, one.',
    (s) => s.refusedBy,
  ),
  counter('bytes_accepted_total', 'What the accepted writes counted in staging.', (s) => s.bytesAccepted),
  counter(
    'bytes_applied_total',
    'What the writes that left staging, applied or dead, counted there.',
    (s) => s.bytesApplied,
  ),
  counterBy('reads_total', 'source', 'Reads of a key, by where it was found.', (s) => s.reads),
  gauge('cache_entries', 'Values in the read caches of all tables.', (s) => s.cacheEntries),
  gauge('cache_size_bytes', 'Size of the values in the read caches, with their keys.', (s) => s.cacheBytes),
  counter('cache_evictions_total', 'Values that had to leave a read cache for want of room.', (s) => s.cacheEvictions),
];

const STAGING: readonly Family[] = [
  gauge('pending_writes', 'Writes that are accepted and neither applied nor dead.', (s) => s.pending),
  gauge('staging_bytes', 'Bytes in staging.', (s) => s.stagedBytes),
  gauge('staging_max_bytes', 'Bytes in staging at which writes are turned away.', (_, o) => o.staging.maxBytes),
  gauge('staging_max_writes', 'Writes in staging at which writes are turned away.', (_, o) => o.staging.maxEntries),
  gauge('oldest_pending_age_seconds', 'Time that the oldest pending write has been waiting. 0 for none.', (s) =>
    seconds(s.oldestPendingAgeMs),
  ),
  gauge(
    'backpressure_active',
    'Whether writers are asked to wait: 1 from the high mark of staging on, until it drains.',
    (s) => (s.needsDrain ? 1 : 0),
  ),
  gauge('waiting_producers', 'Awaitable writes that wait for room in staging.', (s) => s.waiting),
  counter('backpressure_waits_total', 'Awaitable writes that have waited for room in staging.', (s) => s.waits),
  counter('backpressure_wait_seconds_total', 'Time that awaitable writes have waited for room, together.', (s) =>
    seconds(s.waitedMs),
  ),
  gauge('last_accepted_seq', 'Sequence number of the write accepted last.', (s) => s.lastSeq),
  gauge('last_durable_seq', 'Sequence number up to which every write is on the disk.', (s) => s.durableSeq),
  gauge('last_applied_seq', 'Sequence number up to which every write is applied or dead.', (s) => s.appliedSeq),
  gauge('unsynced_bytes', 'Bytes of the log that are neither synced nor applied.', (s) => s.unsyncedBytes),
  gauge(
    'unsynced_age_seconds',
    'Time since the oldest write was accepted that is neither synced nor applied. 0 for none.',
    (s) => seconds(s.unsyncedAgeMs),
  ),
];

const LOG: readonly Family[] = [
  counter('log_bytes_written_total', 'Bytes written to the log.', (s) => s.logBytesWritten),
  counter('log_fsyncs_total', 'Syncs of the log to the disk.', (s) => s.syncs),
  gauge('log_size_bytes', 'Size of the log on the disk.', (s) => s.logBytes),
  gauge('log_max_bytes', 'Size of the log at which writes are turned away.', (_, o) => o.log.maxBytes),
  gauge('log_segments', 'Files of the log.', (s) => s.logSegments),
  counter(
    'log_segments_deleted_total',
    'Files of the log that were deleted, all of it applied.',
    (s) => s.logSegmentsDeleted,
  ),
  {
    type: 'counter',
    name: 'log_errors_total',
    help: 'Operations that the disk of the log refused, and what that means: waited for, or the file given up (reopen).',
    labels: ['op', 'class'],
    read: ({ stats }) =>
      Object.entries(stats.logErrors).flatMap(([op, counts]) =>
        Object.entries(counts).map(([found, count]): Sample => [count, op, found]),
      ),
  },
  gauge('disk_free_bytes', 'Room on the disk of the database, looked up every 2 s.', (s) => s.diskFreeBytes),
];

const FLUSH: readonly Family[] = [
  counter('flushes_total', 'Batches committed in SQLite.', (s) => s.flushes),
  counterBy(
    'flush_retries_total',
    'class',
    'Attempts at a batch that failed and were repeated, by what the failure means.',
    (s) => s.flushRetriesBy,
  ),
  gauge(
    'flush_consecutive_failures',
    'Attempts at the batch that is on its way that have failed so far.',
    (s) => s.flushConsecutiveFailures,
  ),
  counter(
    'batch_splits_total',
    'Times that a batch was run again, in parts or without a part, to find out which write is at fault.',
    (s) => s.batchSplits,
  ),
  counter(
    'flush_busy_seconds_total',
    'Time that the writer thread has spent on batches. A rate near 1 means that it is saturated.',
    (s) => seconds(s.flushBusyMs),
  ),
  gauge(
    'flush_running_seconds',
    'How long the batch that is on its way to SQLite has been there. 0 while there is none.',
    (s) => seconds(s.flushRunningMs),
  ),
  gauge(
    'flush_interval_seconds',
    'Longest time that a write is meant to stay staged before its flush starts. Absent where flushes go by count or by hand.',
    (_, { flush: { mode, intervalMs } }) =>
      mode === 'count' || mode === 'manual' ? undefined : mode === 'immediate' ? 0 : seconds(intervalMs),
  ),
  // 0 before the first, so that an alert on writes that wait for a flush also sees one that never came.
  gauge(
    'flush_last_success_timestamp_seconds',
    'When the last batch was committed, in seconds since 1970. 0 before the first.',
    (s) => seconds(s.lastFlushAt ?? 0),
  ),
  oneOf(
    'flush_stalled',
    'reason',
    'Whether the flush stands still: 1 for the reason, 0 for all others.',
    STALL_REASONS,
    (s) => s.stall,
  ),
];

const SQLITE: readonly Family[] = [
  counterBy(
    'sqlite_errors_total',
    'code',
    "Attempts at a batch that failed, by SQLite's primary result code; other where there was none.",
    (s) => s.sqliteErrors,
  ),
  gauge('sqlite_wal_size_bytes', "Size of SQLite's write-ahead log.", (s) => s.walBytes),
  gauge('sqlite_wal_frames', "Pages in SQLite's write-ahead log.", (s) => s.walFrames),
  gauge(
    'sqlite_wal_frames_checkpointed',
    "Pages of SQLite's write-ahead log that are in the database file too.",
    (s) => s.walFramesCheckpointed,
  ),
  counterBy(
    'checkpoints_total',
    'result',
    "Attempts to carry SQLite's write-ahead log into the database file; partial where a reader held it up.",
    ({ checkpoints: { complete, partial, failed } }) => ({ complete, partial, failed }),
  ),
  counterBy(
    'worker_restarts_total',
    'reason',
    'Restarts of the writer thread: it had died, or its connection could not be trusted any more.',
    (s) => s.writerRestartsBy,
  ),
  counter(
    'direct_statements_total',
    'Statements run ahead of staging or after it, with aexecute.',
    (s) => s.directStatements,
  ),
  counter('rows_expired_total', 'Rows deleted because they had expired.', (s) => s.expired),
];

const DEAD_LETTERS: readonly Family[] = [
  gauge('dlq_entries', 'Entries in the dead-letter queue.', (s) => s.deadLetters.entries),
  gauge('dlq_max_entries', 'Entries at which the dead-letter queue is full.', (_, o) => o.dlq.maxEntries),
  gauge('dlq_size_bytes', 'Size of the writes in the dead-letter queue.', (s) => s.deadLetters.bytes),
  gauge('dlq_max_bytes', 'Size at which the dead-letter queue is full.', (_, o) => o.dlq.maxBytes),
  gauge(
    'dlq_oldest_entry_age_seconds',
    'Time since the oldest entry of the dead-letter queue was first refused. 0 for an empty queue.',
    ({ deadLetters: { oldestAt } }) => (oldestAt === undefined ? 0 : seconds(Math.max(0, Date.now() - oldestAt))),
  ),
  gauge(
    'dlq_entries_at_open',
    'Entries that were in the dead-letter queue at open, and by how many a restore has changed them.',
    (s) => s.deadLetters.entriesAtOpen,
  ),
  counter('dlq_imported_total', 'Dead letters that came in by an import.', (s) => s.deadLetters.imported),
  counter('dlq_retried_total', 'Dead letters that SQLite took when they were retried.', (s) => s.deadLetters.retried),
  counter(
    'dlq_retry_failures_total',
    'Dead letters that SQLite refused again when they were retried.',
    (s) => s.deadLetters.retriesFailed,
  ),
  counter(
    'dlq_superseded_total',
    'Dead letters that left the queue because a newer write of their key was applied.',
    (s) => s.deadLetters.superseded,
  ),
  counter('dlq_cleared_total', 'Dead letters that were deleted on request.', (s) => s.deadLetters.cleared),
  counter(
    'dlq_evicted_total',
    'Dead letters that were dropped to keep the queue within its limits.',
    (s) => s.deadLetters.evicted,
  ),
];

const RECOVERY: readonly Family[] = [
  gauge('recovery_duration_seconds', 'Time that it took at open to read the log and stage what was in it.', (s) =>
    seconds(s.recovery.durationMs),
  ),
  gauge('recovery_segments', 'Files of the log that were there at open.', (s) => s.recovery.segments),
  gauge(
    'recovery_torn_bytes',
    'Bytes of an unsynced tail that were cut off the log at open.',
    (s) => s.recovery.tornBytes,
  ),
  gauge('recovery_set_aside_files', 'Files of the log that were set aside at open.', (s) => s.recovery.setAside),
  gauge('recovery_damaged', 'Whether the log was damaged at open, and writes were left out.', (s) =>
    s.recovery.damaged ? 1 : 0,
  ),
];

const HEALTH: readonly Family[] = [
  oneOf('state', 'state', 'How the database is: 1 for its state, 0 for all others.', STATES, (s) => s.state),
  {
    type: 'gauge',
    name: 'build_info',
    help: 'Versions of Sluice and SQLite, and the durability level.',
    labels: ['version', 'sqlite_version', 'durability'],
    read: ({ source }) => [[1, VERSION, source.sqliteVersion, source.options.durability]],
  },
];

/** Everything that is read at a scrape. */
export const FAMILIES: readonly Family[] = [
  ...WRITES,
  ...STAGING,
  ...LOG,
  ...FLUSH,
  ...SQLITE,
  ...DEAD_LETTERS,
  ...RECOVERY,
  ...HEALTH,
];

const LOG_SECONDS: readonly number[] = exponentialBuckets(0.0001, 2, 17);
const SECONDS: readonly number[] = exponentialBuckets(0.001, 2, 15);
const COUNTS: readonly number[] = exponentialBuckets(1, 4, 10);
const BYTES: readonly number[] = exponentialBuckets(256, 4, 10);

/** A metric that is observed as things happen: once per group commit, batch or checkpoint, never per write. */
export interface HistogramFamily<Event extends keyof MetricsEvents = keyof MetricsEvents> {
  readonly name: string;
  readonly help: string;
  readonly buckets: readonly number[];
  readonly event: Event;
  /** What an event says; `undefined` for nothing. */
  readonly value: (event: MetricsEvents[Event][0], options: MetricsSource['options']) => number | undefined;
}

const histogram = <Event extends keyof MetricsEvents>(
  event: Event,
  name: string,
  help: string,
  buckets: readonly number[],
  value: HistogramFamily<Event>['value'],
): HistogramFamily => ({ name, help, buckets, event, value: value as HistogramFamily['value'] });

export const HISTOGRAMS: readonly HistogramFamily[] = [
  histogram(
    'commit',
    'log_write_duration_seconds',
    'Time to hand a group of writes to the operating system.',
    LOG_SECONDS,
    ({ writes, writeMs }) => (writes > 0 ? seconds(writeMs) : undefined),
  ),
  histogram('commit', 'log_fsync_duration_seconds', 'Time to sync the log to the disk.', LOG_SECONDS, ({ syncMs }) =>
    syncMs === undefined ? undefined : seconds(syncMs),
  ),
  histogram('commit', 'log_group_size_writes', 'Writes that went to the log together.', COUNTS, ({ writes }) =>
    writes > 0 ? writes : undefined,
  ),
  // At `applied` the log is not what is waited for, and at `memory` nothing is.
  histogram(
    'commit',
    'write_ack_duration_seconds',
    'Longest time that a write of a group commit has waited for its acknowledgement.',
    LOG_SECONDS,
    ({ ackMs }, { durability }) => (ackMs === undefined || durability === 'applied' ? undefined : seconds(ackMs)),
  ),
  histogram('flush', 'flush_duration_seconds', 'Time of a batch on the writer thread.', SECONDS, ({ durationMs }) =>
    seconds(durationMs),
  ),
  histogram('flush', 'flush_batch_writes', 'Writes of a batch.', COUNTS, ({ writes }) => writes),
  histogram(
    'flush',
    'flush_batch_bytes',
    'What the writes of a batch counted in staging.',
    BYTES,
    ({ bytes }) => bytes,
  ),
  histogram(
    'flush',
    'write_apply_latency_seconds',
    'Longest time that a write of a batch was accepted and not yet in SQLite.',
    SECONDS,
    ({ latencyMs }) => seconds(latencyMs),
  ),
  histogram(
    'checkpoint',
    'checkpoint_duration_seconds',
    "Time of an attempt to carry SQLite's write-ahead log into the database file.",
    SECONDS,
    ({ durationMs }) => seconds(durationMs),
  ),
];
