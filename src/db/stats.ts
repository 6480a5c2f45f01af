import type { DeadLetterQueue } from '../dlq/index.ts';
import type { DatabaseStats } from '../metrics/stats.ts';
import type { Core } from './core.ts';

/**
 * The numbers that NanaSQLite's `get_v2_metrics` has, under its names in camel case; those of {@link DatabaseStats} say more.
 * They are there without being switched on.
 */
export interface V2Metrics {
  /** Batches committed. */
  readonly flushCount: number;
  /** Writes that took effect in SQLite: counted after the commit, and without those that a newer write made pointless. */
  readonly kvsItemsFlushed: number;
  /** Statements run with `aexecute`. */
  readonly strictTasksExecuted: number;
  /** Writes that SQLite refused for good. */
  readonly dlqErrors: number;
  /** When the last batch was committed: seconds since 1970, `undefined` before the first. */
  readonly lastFlushTime: number | undefined;
  /** Time that the writer thread has spent on batches. */
  readonly totalFlushTimeMs: number;
  /** Writes that are neither applied nor dead. */
  readonly currentStagingCount: number;
  /** Always 0: a direct statement waits on the writer thread, and in no queue of its own. */
  readonly currentStrictQueueSize: number;
}

/** Reads plain fields, so that it is cheap enough for every scrape. */
export function readStats(
  { engine, flusher, store, clock, reads, caches }: Core,
  queue: DeadLetterQueue,
  own: Pick<DatabaseStats, 'writerRestartsBy' | 'directStatements' | 'recovery'>,
): DatabaseStats {
  const { counters, admission, commit, log, unsynced } = engine;
  const { recovered, applied, coalesced, deadLettered, bytesAccepted, bytesApplied } = counters;
  const age = (since: number | undefined) => (since === undefined ? 0 : Math.max(0, clock.now() - since));
  return {
    state: engine.health.state,
    accepted: sum(engine.accepted),
    acceptedBy: { ...engine.accepted },
    recovered,
    applied,
    coalesced,
    deadLettered,
    deadLetteredBy: { ...flusher.counters.dead },
    pending: engine.pending,
    refused: sum(admission.refused),
    refusedBy: { ...admission.refused },
    bytesAccepted,
    bytesApplied,
    stagedBytes: admission.bytes,
    oldestPendingAgeMs: age(engine.pendingSince),
    needsDrain: admission.needsDrain,
    waiting: admission.waiting,
    waits: admission.waits,
    waitedMs: admission.waitedMs,
    lastSeq: engine.lastSeq,
    durableSeq: engine.durableSeq,
    appliedSeq: engine.appliedSeq,
    unsyncedBytes: unsynced.bytes,
    unsyncedAgeMs: age(unsynced.since),
    logBytes: log.bytes,
    logSegments: log.segments,
    logBytesWritten: log.bytesWritten,
    logSegmentsDeleted: log.segmentsDeleted,
    syncs: commit?.syncs ?? 0,
    syncFailures: commit?.syncFailures ?? 0,
    logErrors: structuredClone(log.errors),
    flushes: flusher.counters.flushes,
    flushRetries: sum(flusher.counters.retries),
    flushRetriesBy: { ...flusher.counters.retries },
    flushConsecutiveFailures: flusher.counters.consecutiveFailures,
    batchSplits: flusher.counters.splits,
    flushBusyMs: flusher.counters.busyMs,
    flushRunningMs: flusher.runningMs,
    lastFlushAt: flusher.counters.lastFlushAt,
    stall: flusher.stall?.reason,
    sqliteErrors: { ...flusher.counters.errors },
    ...store.numbers,
    ...own,
    writerRestarts: sum(own.writerRestartsBy),
    reads: { ...reads },
    cacheEntries: caches.reduce((total, { entries }) => total + entries, 0),
    cacheBytes: caches.reduce((total, { bytes }) => total + bytes, 0),
    cacheEvictions: caches.reduce((total, { evictions }) => total + evictions, 0),
    deadLetters: { ...queue.counters, ...queue.state },
  };
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}

/** The same numbers under the names that they have in NanaSQLite. */
export function toV2Metrics(stats: DatabaseStats): V2Metrics {
  return {
    flushCount: stats.flushes,
    kvsItemsFlushed: stats.applied,
    strictTasksExecuted: stats.directStatements,
    dlqErrors: stats.deadLettered,
    lastFlushTime: stats.lastFlushAt === undefined ? undefined : stats.lastFlushAt / 1_000,
    totalFlushTimeMs: stats.flushBusyMs,
    currentStagingCount: stats.pending,
    currentStrictQueueSize: 0,
  };
}
