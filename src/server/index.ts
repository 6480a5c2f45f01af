/**
 * The collector: HTTP in front of a database.
 *
 * @packageDocumentation
 */
export type { HttpErrorCode } from './answer.ts';
export { type Collector, startCollector } from './collector.ts';
export type { RunRequest } from './dlq-request.ts';
export type { LineError } from './line-writer.ts';
export type { CollectorOptions } from './options.ts';
export type { ReadyAnswer } from './readiness.ts';
export type { WriteAnswer } from './write-route.ts';
