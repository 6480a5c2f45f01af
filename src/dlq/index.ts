export {
  type ClearProgress,
  type DeadLetterCounters,
  DeadLetterQueue,
  type ImportResult,
  type QueueRunOptions,
  type RetryProgress,
  type RetryResult,
} from './dead-letter-queue.ts';
export { type CheckTarget, type NdjsonSource, toJson } from './ndjson.ts';
export type { DeadLetterPage, DeadLetterQuery, DeadLetterSelection } from './selection.ts';
