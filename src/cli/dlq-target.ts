import type { DeadLetterPage, DeadLetterQuery, DeadLetterSelection, ImportResult, RetryResult } from '../dlq/index.ts';
import type { DeadLetter, DeadLetterGroup, DeadLetterSummary } from '../store/store.ts';

/** How far a run is. */
export interface RunProgress {
  readonly done: number;
  readonly total: number;
}

export interface RunOptions {
  readonly ratePerSecond?: number | undefined;
  readonly batchSize?: number | undefined;
  readonly onProgress: (progress: RunProgress) => void;
}

/** A dead-letter queue that commands work on: of a file, or of a running collector. */
export interface DlqTarget {
  list(page: DeadLetterPage): Promise<readonly DeadLetterSummary[]>;
  summary(query: DeadLetterQuery): Promise<readonly DeadLetterGroup[]>;
  /** From a collector, with integers and BLOBs as JSON has them. */
  get(id: number): Promise<DeadLetter | undefined>;
  /** NDJSON, cut anywhere. */
  export(query: DeadLetterQuery): AsyncIterable<string | Uint8Array>;
  retry(selection: DeadLetterSelection, options: RunOptions): Promise<RetryResult>;
  clear(selection: DeadLetterSelection, options: RunOptions): Promise<number>;
  take(): Promise<number>;
  import(source: AsyncIterable<string | Uint8Array>): Promise<ImportResult>;
  close(): Promise<void>;
}
