import type { DeathReason, DiskClass } from '../base/failure.ts';
import type { DeadLetterCounters } from '../dlq/index.ts';
import type { RefusalReason, State } from '../engine/index.ts';
import type { LogOperation } from '../engine/log/index.ts';
import type { RetryClass, StallReason } from '../flush/index.ts';
import type { CheckpointCounts, QueueState, RestartReason, WriteOperation } from '../store/store.ts';

/**
 * Numbers of a database since it was opened, as `db.stats()` gives them and as the metrics show them. At any time,
 * `accepted + recovered = applied + coalesced + deadLettered + pending`. A write here is one accepted change; an atomic group
 * of several is one write. A field that ends in `By` has the parts of the one without.
 */
export interface DatabaseStats {
  /** `db.state`. */
  readonly state: State;

  // ── writes ──
  /** Writes that got a sequence number. */
  readonly accepted: number;
  /** By what they do. */
  readonly acceptedBy: Readonly<Record<WriteOperation, number>>;
  /** Writes that were found in the log at open. */
  readonly recovered: number;
  /** Writes that took effect in SQLite. */
  readonly applied: number;
  /** Writes that a newer write of the same key made pointless before they reached SQLite. */
  readonly coalesced: number;
  /** Writes that SQLite refused for good. */
  readonly deadLettered: number;
  /** By why they were refused. */
  readonly deadLetteredBy: Readonly<Record<DeathReason, number>>;
  /** Writes that are neither applied nor dead. */
  readonly pending: number;
  /** Calls that were turned away before anything was accepted; for several writes at once, one. */
  readonly refused: number;
  /** By why they were turned away. */
  readonly refusedBy: Readonly<Record<RefusalReason, number>>;
  /** What the accepted writes counted in staging. */
  readonly bytesAccepted: number;
  /** What the writes that left staging, applied or dead, counted there, recovered ones included. */
  readonly bytesApplied: number;

  // ── staging ──
  /** What the pending writes count against `staging.maxBytes`. */
  readonly stagedBytes: number;
  /** How long the oldest pending write has been waiting; 0 where there is none. */
  readonly oldestPendingAgeMs: number;
  /** Whether a `set` would return `false`, or did and `drain` has not come yet. */
  readonly needsDrain: boolean;
  /** Awaitable writes that wait for room. */
  readonly waiting: number;
  /** Awaitable writes that have waited for room, whether or not they got it. */
  readonly waits: number;
  /** How long they have waited, together. */
  readonly waitedMs: number;
  /** The highest sequence number given to a write. */
  readonly lastSeq: number;
  /** Every write up to this one is on the disk, in the log or in SQLite. */
  readonly durableSeq: number;
  /** Every write up to this one is applied or dead. */
  readonly appliedSeq: number;
  /** Bytes of the log that are neither synced nor applied; all of staging at `durability: 'memory'`. */
  readonly unsyncedBytes: number;
  /** How long the oldest of them has been waiting; 0 where there is none. */
  readonly unsyncedAgeMs: number;

  // ── log ──
  /** Size of the log on the disk. */
  readonly logBytes: number;
  /** Files of the log. */
  readonly logSegments: number;
  /** Bytes written to the log. */
  readonly logBytesWritten: number;
  /** Files of the log that were deleted, all of it applied. */
  readonly logSegmentsDeleted: number;
  /** Syncs of the log. */
  readonly syncs: number;
  /** Syncs of the log that failed. */
  readonly syncFailures: number;
  /** Operations that the disk of the log refused, and what was made of it: waited, or the segment given up (`reopen`). */
  readonly logErrors: Readonly<Record<LogOperation, Readonly<Record<DiskClass, number>>>>;
  /** Room on the disk of the database, every 2 s; `undefined` where the system does not say. */
  readonly diskFreeBytes: number | undefined;

  // ── flush ──
  /** Batches committed. */
  readonly flushes: number;
  /** Attempts at a batch that failed and were, or will be, repeated. */
  readonly flushRetries: number;
  /** By what the failure means. */
  readonly flushRetriesBy: Readonly<Record<RetryClass, number>>;
  /** Attempts at the batch that is on its way that have failed so far. */
  readonly flushConsecutiveFailures: number;
  /** Times that a batch was run again, in parts or without a part, to find out which write is at fault. */
  readonly batchSplits: number;
  /** Time that the writer thread has spent on batches. */
  readonly flushBusyMs: number;
  /** How long the batch that is on its way to SQLite has been there; 0 while there is none. */
  readonly flushRunningMs: number;
  /** When the last batch was committed: milliseconds since 1970, `undefined` before the first. */
  readonly lastFlushAt: number | undefined;
  /** Why the flush stands still, if it does: see the event `stall`. */
  readonly stall: StallReason | undefined;

  // ── SQLite ──
  /** Attempts at a batch that failed, by the primary result code of SQLite; `other` where there was none. */
  readonly sqliteErrors: Readonly<Record<string, number>>;
  /** Size of SQLite's write-ahead log, as of the last report of the writer thread: after each batch, and every 2 s. */
  readonly walBytes: number;
  /** Pages in it, as of the same report … */
  readonly walFrames: number;
  /** … and how many of them are in the database file too. */
  readonly walFramesCheckpointed: number;
  /**
   * How often the writer thread has tried to carry all of that log into the database file: `partial` where a reader held it
   * up, `failed` where the disk did.
   */
  readonly checkpoints: CheckpointCounts;
  /** How often the writer thread was started again. */
  readonly writerRestarts: number;
  /** By why it had to be. */
  readonly writerRestartsBy: Readonly<Record<RestartReason, number>>;
  /** Statements run with `aexecute`. */
  readonly directStatements: number;
  /** Reads of a key, by where it was found; `miss` where it was nowhere. */
  readonly reads: Readonly<Record<ReadSource, number>>;
  /** Values in the read caches of all tables. */
  readonly cacheEntries: number;
  /** What they count against `cache.maxBytes`, with their keys. */
  readonly cacheBytes: number;
  /** Values that had to leave a read cache for want of room. */
  readonly cacheEvictions: number;

  /** Rows that were deleted because they had expired; those that a read finds expired are gone before that. */
  readonly expired: number;

  // ── dead letters and recovery ──
  /**
   * The dead-letter queue:
   * `entriesAtOpen + deadLettered + imported = entries + retried + superseded + cleared + evicted`.
   */
  readonly deadLetters: Readonly<DeadLetterCounters> & QueueState;
  /** What was found in the log at open. */
  readonly recovery: RecoveryNumbers;
}

/**
 * Where the value of a key was found. `staging` is also what knows that the key was deleted, `cache` what knows that it is
 * absent.
 */
export type ReadSource = 'staging' | 'cache' | 'sqlite' | 'miss';

/** What a recovery found and did. */
export interface RecoveryNumbers {
  /** Time to read and repair the log, and to stage what was in it. */
  readonly durationMs: number;
  /** Files of the log that were there. */
  readonly segments: number;
  /** Bytes of an unsynced tail that were cut off. */
  readonly tornBytes: number;
  /** Files that were set aside under another name. */
  readonly setAside: number;
  /** Whether the log was damaged, and went on all the same (`recovery: 'keep-prefix'`). */
  readonly damaged: boolean;
}
