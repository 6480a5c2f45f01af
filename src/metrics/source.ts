import type { DeadLetterCounters } from '../dlq/index.ts';
import type { EngineEvents, State } from '../engine/index.ts';
import type { FlushEvents, StallReason } from '../flush/index.ts';
import type { CheckpointCounts, QueueState } from '../store/store.ts';

/**
 * The numbers that metrics are made of. What each means is said at `DatabaseStats`, which has them all: metrics lie below the
 * face and cannot name it, and the face must not reach for metrics.
 */
export interface MetricsStats {
  readonly state: State;
  readonly accepted: number;
  readonly recovered: number;
  readonly applied: number;
  readonly coalesced: number;
  readonly deadLettered: number;
  readonly pending: number;
  readonly refused: number;
  readonly waiting: number;
  readonly stagedBytes: number;
  readonly lastSeq: number;
  readonly appliedSeq: number;
  readonly logBytes: number;
  readonly logSegments: number;
  readonly syncs: number;
  readonly syncFailures: number;
  readonly flushes: number;
  readonly flushRetries: number;
  readonly flushBusyMs: number;
  readonly flushRunningMs: number;
  readonly lastFlushAt: number | undefined;
  readonly walBytes: number;
  readonly checkpoints: CheckpointCounts;
  readonly writerRestarts: number;
  readonly stall: StallReason | undefined;
  readonly deadLetters: Readonly<DeadLetterCounters> & QueueState;
}

/** What metrics need of a database. A `Database` of `open` has it; so has anything that counts in the same way. */
export interface MetricsSource {
  readonly path: string;
  readonly state: State;
  /** Must stay readable after the database is closed. */
  stats(): MetricsStats;
  on(event: 'commit', listener: (...payload: EngineEvents['commit']) => void): unknown;
  on(event: 'flush', listener: (...payload: FlushEvents['flush']) => void): unknown;
  off(event: 'commit', listener: (...payload: EngineEvents['commit']) => void): unknown;
  off(event: 'flush', listener: (...payload: FlushEvents['flush']) => void): unknown;
}
