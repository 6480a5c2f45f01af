export {
  type DeadLetterCounters,
  DeadLetterQueue,
  type ImportResult,
  type RetryProgress,
  type RetryResult,
} from './dead-letter-queue.ts';
export type { CheckTarget, NdjsonSource } from './ndjson.ts';
export type { ClearProgress, QueueRunOptions } from './run.ts';
export { DEAD_OPERATIONS, type DeadLetterPage, type DeadLetterQuery, type DeadLetterSelection } from './selection.ts';
