export type { FlushEvents } from './events.ts';
export { Flusher, type FlusherOptions, type FlushMode, type FlushResult } from './flusher.ts';
