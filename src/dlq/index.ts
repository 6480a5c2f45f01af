export { type DeadLetterCounters, DeadLetterQueue, type RetryResult } from './dead-letter-queue.ts';
