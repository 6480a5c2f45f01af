import type { Checkpoint, DeadLetterSummary, FailureClass, RestartReason, SupersededLetter } from '../store/store.ts';

/** What a failed attempt at a batch means, where it is repeated: see `FailureClass`. */
export type RetryClass = Exclude<FailureClass, 'fatal'>;

/**
 * Why the flush stands still: what the store said (see `FailureClass`), or `queue-full`, a dead-letter queue that is at its
 * limits and must not be added to.
 */
export type StallReason = RetryClass | 'queue-full';

/** A flush that stands still. */
export interface Stall {
  readonly reason: StallReason;
  /** What is wrong; the message says what can be done. */
  readonly error: Error;
  /** Since when: milliseconds since 1970. */
  readonly since: number;
}

/** What the flush tells, as it happens. Listeners are called synchronously: they must be quick and must not throw. */
export interface FlushEvents {
  /** A batch was committed in SQLite. */
  flush: [
    {
      readonly writes: number;
      readonly applied: number;
      readonly coalesced: number;
      readonly dead: number;
      /** Dead letters that left the queue since a newer write of their keys was applied. */
      readonly superseded: number;
      readonly bytes: number;
      /** Time on the writer thread. */
      readonly durationMs: number;
      /** From the moment its oldest write was accepted to its commit. */
      readonly latencyMs: number;
    },
  ];
  /**
   * SQLite's write-ahead log was carried into the database file, or was tried to: `partial` where a reader held it up, `failed`
   * where the disk did. Told with the next batch, or within 2 seconds.
   */
  checkpoint: [Checkpoint];
  /** SQLite will never take this write: it is in the dead-letter queue now. While a key's newest write is dead, reads return the last applied value. */
  'dead-letter': [DeadLetterSummary];
  /**
   * A dead letter left the queue, since a newer write of its keys was applied: by a batch, or by a retry. Of more than 10,000
   * in one transaction the rest is only counted.
   */
  superseded: [SupersededLetter];
  /** A dead letter was dropped for good, to keep the queue within its limits (`overflow: 'evict-oldest'`). Counted as above. */
  evicted: [DeadLetterSummary];
  /**
   * The flush stands still: writes are accepted as long as there is room, and nothing is applied. Told once, at once where
   * somebody has to do something (`config`, `breaker`, `queue-full`), after 5 seconds of failing where it may pass by itself.
   */
  stall: [Stall];
  /** It goes on. */
  resume: [{ readonly reason: StallReason; readonly stalledMs: number }];
  /** A batch could not be applied and is tried again. */
  retry: [
    { readonly failure: FailureClass; readonly attempt: number; readonly delayMs: number; readonly error: Error },
  ];
  /** The writer thread was started again: it had died, or its connection could not be trusted any more. */
  'writer-restart': [{ readonly reason: RestartReason }];
}
