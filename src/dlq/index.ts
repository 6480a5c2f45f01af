export {
  type DeadLetterCounters,
  DeadLetterQueue,
  type ImportResult,
  type RetryProgress,
  type RetryResult,
} from './dead-letter-queue.ts';
export type { CheckTarget, NdjsonSource } from './ndjson.ts';
export type { ClearProgress, QueueRunOptions } from './run.ts';
export { type DeadLetterPage, type DeadLetterQuery, type DeadLetterSelection, WRITE_OPERATIONS } from './selection.ts';
