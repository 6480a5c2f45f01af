import { exponentialBuckets } from 'prom-client';
import { VERSION } from '../base/version.ts';
import type { State } from '../engine/index.ts';
import type { StallReason } from '../flush/index.ts';
import type { MetricsStats } from './source.ts';

export const PREFIX = 'sluice_';

/** A metric that is read from the numbers of a database when it is scraped. */
export interface Family {
  readonly type: 'counter' | 'gauge';
  readonly name: string;
  readonly help: string;
  /** A label besides `db`; `read` then returns a value for each of its values. */
  readonly label?: string;
  readonly read: (stats: MetricsStats) => number | Readonly<Record<string, number>>;
}

type ReadOne = (stats: MetricsStats) => number;

const counter = (name: string, help: string, read: ReadOne): Family => ({ type: 'counter', name, help, read });
const gauge = (name: string, help: string, read: ReadOne): Family => ({ type: 'gauge', name, help, read });

const STATES = Object.keys({
  ok: 0,
  degraded: 0,
  space: 0,
  failed: 0,
  closing: 0,
  closed: 0,
} satisfies Record<State, 0>);

const STALL_REASONS = Object.keys({
  transient: 0,
  space: 0,
  reopen: 0,
  config: 0,
  breaker: 0,
  'queue-full': 0,
} satisfies Record<StallReason, 0>);

export const FAMILIES: readonly Family[] = [
  counter('writes_accepted_total', 'Writes accepted.', (s) => s.accepted),
  counter('writes_recovered_total', 'Writes found in the log at open and not applied before.', (s) => s.recovered),
  counter('writes_applied_total', 'Writes that took effect in SQLite.', (s) => s.applied),
  counter('writes_coalesced_total', 'Writes that a newer write of the same key made pointless.', (s) => s.coalesced),
  counter(
    'writes_dead_lettered_total',
    'Writes that SQLite refused for good and that went to the dead-letter queue.',
    (s) => s.deadLettered,
  ),
  {
    type: 'counter',
    name: 'writes_rejected_total',
    help: 'Writes turned away before they were accepted.',
    label: 'reason',
    read: (s) => ({ full: s.refused }),
  },

  gauge('pending_writes', 'Writes that are accepted and neither applied nor dead.', (s) => s.pending),
  gauge('staging_bytes', 'Bytes in staging.', (s) => s.stagedBytes),
  gauge('waiting_producers', 'Awaitable writes that wait for room in staging.', (s) => s.waiting),
  gauge('last_accepted_seq', 'Sequence number of the write accepted last.', (s) => s.lastSeq),
  gauge('last_applied_seq', 'Sequence number up to which every write is applied or dead.', (s) => s.appliedSeq),

  gauge('log_size_bytes', 'Size of the log on the disk.', (s) => s.logBytes),
  gauge('log_segments', 'Files of the log.', (s) => s.logSegments),
  counter('log_fsyncs_total', 'Syncs of the log to the disk.', (s) => s.syncs),
  counter('log_fsync_failures_total', 'Syncs of the log that failed.', (s) => s.syncFailures),

  counter('flushes_total', 'Batches committed in SQLite.', (s) => s.flushes),
  counter('flush_retries_total', 'Attempts at a batch that failed and were repeated.', (s) => s.flushRetries),
  counter(
    'flush_busy_seconds_total',
    'Time that the writer thread has spent on batches. A rate near 1 means that it is saturated.',
    (s) => s.flushBusyMs / 1_000,
  ),
  // 0 before the first, so that an alert on writes that wait for a flush also sees one that never came.
  gauge(
    'flush_last_success_timestamp_seconds',
    'When the last batch was committed, in seconds since 1970. 0 before the first.',
    (s) => (s.lastFlushAt ?? 0) / 1_000,
  ),
  gauge(
    'flush_running_seconds',
    'How long the batch that is on its way to SQLite has been there. 0 while there is none.',
    (s) => s.flushRunningMs / 1_000,
  ),
  gauge('sqlite_wal_size_bytes', "Size of SQLite's write-ahead log.", (s) => s.walBytes),
  {
    type: 'counter',
    name: 'checkpoints_total',
    help: "Attempts to carry SQLite's write-ahead log into the database file; partial where a reader held it up.",
    label: 'result',
    read: (s) => ({ ...s.checkpoints }),
  },
  counter('worker_restarts_total', 'Restarts of the writer thread.', (s) => s.writerRestarts),

  {
    type: 'gauge',
    name: 'flush_stalled',
    help: 'Whether the flush stands still: 1 for the reason, 0 for all others.',
    label: 'reason',
    read: (s) => Object.fromEntries(STALL_REASONS.map((reason) => [reason, reason === s.stall ? 1 : 0])),
  },

  gauge('dlq_entries', 'Entries in the dead-letter queue.', (s) => s.deadLetters.entries),
  gauge('dlq_size_bytes', 'Size of the writes in the dead-letter queue.', (s) => s.deadLetters.bytes),
  gauge(
    'dlq_oldest_entry_age_seconds',
    'Time since the oldest entry of the dead-letter queue was first refused. 0 for an empty queue.',
    (s) => (s.deadLetters.oldestAt === undefined ? 0 : Math.max(0, Date.now() - s.deadLetters.oldestAt) / 1_000),
  ),
  counter('dlq_imported_total', 'Dead letters that came in by an import.', (s) => s.deadLetters.imported),
  counter('dlq_retried_total', 'Dead letters that SQLite took when they were retried.', (s) => s.deadLetters.retried),
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

  {
    type: 'gauge',
    name: 'state',
    help: 'How the database is: 1 for its state, 0 for all others.',
    label: 'state',
    read: (s) => Object.fromEntries(STATES.map((state) => [state, state === s.state ? 1 : 0])),
  },
  { type: 'gauge', name: 'build_info', help: 'Version of Sluice.', label: 'version', read: () => ({ [VERSION]: 1 }) },
];

const LOG_SECONDS: readonly number[] = exponentialBuckets(0.0001, 2, 17);
const FLUSH_SECONDS: readonly number[] = exponentialBuckets(0.001, 2, 15);
const WRITES: readonly number[] = exponentialBuckets(1, 4, 10);

/** A metric that is observed as things happen: once per group commit or batch, never per write. */
export interface HistogramFamily {
  readonly name: string;
  readonly help: string;
  readonly buckets: readonly number[];
}

const histogram = (name: string, help: string, buckets: readonly number[]): HistogramFamily => ({
  name,
  help,
  buckets,
});

export const LOG_WRITE: HistogramFamily = histogram(
  'log_write_duration_seconds',
  'Time to hand a group of writes to the operating system.',
  LOG_SECONDS,
);
export const LOG_SYNC: HistogramFamily = histogram(
  'log_fsync_duration_seconds',
  'Time to sync the log to the disk.',
  LOG_SECONDS,
);
export const GROUP_SIZE: HistogramFamily = histogram(
  'log_group_size_writes',
  'Writes that went to the log together.',
  WRITES,
);
export const FLUSH: HistogramFamily = histogram(
  'flush_duration_seconds',
  'Time of a batch on the writer thread.',
  FLUSH_SECONDS,
);
export const BATCH_SIZE: HistogramFamily = histogram('flush_batch_writes', 'Writes of a batch.', WRITES);
