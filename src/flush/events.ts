import type { DeadLetterSummary, FailureClass } from '../store/store.ts';

/** What the flush tells, as it happens. Listeners are called synchronously: they must be quick and must not throw. */
export interface FlushEvents {
  /** A batch was committed in SQLite. */
  flush: [
    {
      readonly writes: number;
      readonly applied: number;
      readonly coalesced: number;
      readonly dead: number;
      readonly superseded: number;
      readonly bytes: number;
      /** Time on the writer thread. */
      readonly durationMs: number;
    },
  ];
  /** SQLite will never take this write: it is in the dead-letter queue now. While a key's newest write is dead, reads return the last applied value. */
  'dead-letter': [DeadLetterSummary];
  /** A batch could not be applied and is tried again. */
  retry: [
    { readonly failure: FailureClass; readonly attempt: number; readonly delayMs: number; readonly error: Error },
  ];
  /** The writer thread was started again. */
  'writer-restart': [{ readonly reason: string }];
}
