export type { FlushEvents, RetryClass, Stall, StallReason } from './events.ts';
export { Flusher, type FlusherOptions, type FlushMode, type FlushResult } from './flusher.ts';
