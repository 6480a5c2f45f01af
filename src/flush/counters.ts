import { COUNTED_CODES, countedCode, type DeathReason, deathReason } from '../base/failure.ts';
import type { BatchResult, StoreFailure } from '../store/store.ts';
import type { RetryClass } from './events.ts';

/** What a flusher has done so far. */
export class FlushCounters {
  /** Batches committed. */
  flushes = 0;
  /** When the last of them was: milliseconds since 1970. */
  lastFlushAt: number | undefined;
  /** Time spent on the writer thread. */
  busyMs = 0;
  /** How often a batch was run again, in parts or without a part. */
  splits = 0;
  /** Writes that died. */
  readonly dead: Record<DeathReason, number> = {
    constraint: 0,
    type: 0,
    size: 0,
    statement: 0,
    transaction: 0,
    other: 0,
  };
  /** Attempts at a batch that failed, by the primary code of SQLite. */
  readonly errors: Record<string, number> = Object.fromEntries(COUNTED_CODES.map((code) => [code, 0]));
  /** Those of them that were, or will be, repeated. */
  readonly retries: Record<RetryClass, number> = { transient: 0, space: 0, config: 0, breaker: 0, reopen: 0 };
  /** Attempts at the batch that is on its way that have failed so far. */
  consecutiveFailures = 0;

  /** A batch was committed at `now`. */
  committed({ durationMs, splits, dead, deadSeqs }: BatchResult, now: number): void {
    this.flushes++;
    this.lastFlushAt = now;
    this.busyMs += durationMs;
    this.splits += splits;
    for (const { errorCode } of dead) this.dead[deathReason(errorCode)]++;
    // Some may have been retried or cleared before the batch was answered.
    this.dead.other += deadSeqs.length - dead.length;
    this.consecutiveFailures = 0;
  }

  /** An attempt failed. */
  failed({ sqliteCode }: StoreFailure): void {
    const code = countedCode(sqliteCode);
    this.errors[code] = (this.errors[code] ?? 0) + 1;
    this.consecutiveFailures++;
  }
}
