import type { DeadLetterCounters, DeadLetterQueue } from '../dlq/index.ts';
import type { State } from '../engine/index.ts';
import type { StallReason } from '../flush/index.ts';
import type { CheckpointCounts, QueueState } from '../store/store.ts';
import type { Core } from './core.ts';

/**
 * Numbers of a database since it was opened. `accepted + recovered = applied + coalesced + deadLettered + pending`, at any
 * time. A write here is one accepted change; an atomic group of several is one write.
 */
export interface DatabaseStats {
  readonly state: State;
  /** Writes that got a sequence number. */
  readonly accepted: number;
  /** Writes that were found in the log at open. */
  readonly recovered: number;
  /** Writes that took effect in SQLite. */
  readonly applied: number;
  /** Writes that a newer write of the same key made pointless before they reached SQLite. */
  readonly coalesced: number;
  /** Writes that SQLite refused for good. */
  readonly deadLettered: number;
  /** Writes that are neither applied nor dead. */
  readonly pending: number;
  /** Writes turned away with `SLUICE_FULL`. */
  readonly refused: number;
  /** Awaitable writes that wait for room. */
  readonly waiting: number;
  /** What the pending writes count against `staging.maxBytes`. */
  readonly stagedBytes: number;
  /** The highest sequence number given to a write. */
  readonly lastSeq: number;
  /** Every write up to this one is applied or dead. */
  readonly appliedSeq: number;
  /** Size of the log on the disk. */
  readonly logBytes: number;
  /** Files of the log. */
  readonly logSegments: number;
  /** Syncs of the log. */
  readonly syncs: number;
  /** Syncs of the log that failed. */
  readonly syncFailures: number;
  /** Batches committed. */
  readonly flushes: number;
  /** Attempts at a batch that failed and were, or will be, repeated. */
  readonly flushRetries: number;
  /** Time that the writer thread has spent on batches. */
  readonly flushBusyMs: number;
  /** How long the batch that is on its way to SQLite has been there; 0 while there is none. */
  readonly flushRunningMs: number;
  /** When the last batch was committed: milliseconds since 1970, `undefined` before the first. */
  readonly lastFlushAt: number | undefined;
  /** Size of SQLite's write-ahead log, as of the last report of the writer thread: after each batch, and every 2 s. */
  readonly walBytes: number;
  /**
   * How often the writer thread has tried to carry all of that log into the database file: `partial` where a reader held it
   * up, `failed` where the disk did.
   */
  readonly checkpoints: CheckpointCounts;
  /** How often the writer thread was started again. */
  readonly writerRestarts: number;
  /** Statements run with `aexecute`. */
  readonly directStatements: number;
  /** Why the flush stands still, if it does: see the event `stall`. */
  readonly stall: StallReason | undefined;
  /**
   * The dead-letter queue:
   * `entriesAtOpen + deadLettered + imported = entries + retried + superseded + cleared + evicted`.
   */
  readonly deadLetters: Readonly<DeadLetterCounters> & QueueState;
}

/** The numbers that NanaSQLite's `get_v2_metrics` has. */
export interface V2Metrics {
  readonly flushCount: number;
  readonly kvsItemsFlushed: number;
  readonly strictTasksExecuted: number;
  readonly dlqErrors: number;
  /** Seconds since 1970, `undefined` before the first flush. */
  readonly lastFlushTime: number | undefined;
  readonly totalFlushTimeMs: number;
  readonly currentStagingCount: number;
  readonly currentStrictQueueSize: number;
}

/** Reads plain fields, so that it is cheap enough for every scrape. */
export function readStats(
  { engine, flusher, store }: Core,
  queue: DeadLetterQueue,
  own: Pick<DatabaseStats, 'writerRestarts' | 'directStatements'>,
): DatabaseStats {
  const { counters, admission, commit } = engine;
  const { accepted, recovered, applied, coalesced, deadLettered } = counters;
  return {
    state: engine.health.state,
    accepted,
    recovered,
    applied,
    coalesced,
    deadLettered,
    pending: engine.pending,
    refused: admission.refused,
    waiting: admission.waiting,
    stagedBytes: admission.bytes,
    lastSeq: engine.lastSeq,
    appliedSeq: engine.appliedSeq,
    logBytes: engine.logBytes,
    logSegments: engine.logSegments,
    syncs: commit?.syncs ?? 0,
    syncFailures: commit?.syncFailures ?? 0,
    flushes: flusher.flushes,
    flushRetries: flusher.retries,
    flushBusyMs: flusher.busyMs,
    flushRunningMs: flusher.runningMs,
    lastFlushAt: flusher.lastFlushAt,
    ...store.numbers,
    ...own,
    stall: flusher.stall?.reason,
    deadLetters: { ...queue.counters, ...queue.state },
  };
}

/** The same numbers under the names that they have in NanaSQLite. */
export function toV2Metrics(stats: DatabaseStats): V2Metrics {
  return {
    flushCount: stats.flushes,
    kvsItemsFlushed: stats.applied + stats.coalesced,
    strictTasksExecuted: stats.directStatements,
    dlqErrors: stats.deadLettered,
    lastFlushTime: stats.lastFlushAt === undefined ? undefined : stats.lastFlushAt / 1_000,
    totalFlushTimeMs: stats.flushBusyMs,
    currentStagingCount: stats.pending,
    // A direct statement waits on the writer thread, and in no queue of ours.
    currentStrictQueueSize: 0,
  };
}
