export {
  type ClearProgress,
  type DeadLetterCounters,
  DeadLetterQueue,
  type ImportResult,
  type QueueRunOptions,
  type RetryProgress,
  type RetryResult,
} from './dead-letter-queue.ts';
export type { CheckTarget, NdjsonSource } from './ndjson.ts';
export { DEAD_OPERATIONS, type DeadLetterPage, type DeadLetterQuery, type DeadLetterSelection } from './selection.ts';
