import type { Durability, EngineEvents, State } from '../engine/index.ts';
import type { FlushEvents, FlushMode } from '../flush/index.ts';
import type { DatabaseStats } from './stats.ts';

/** The events that metrics listen to: one per group commit, batch and checkpoint. */
export type MetricsEvents = Pick<EngineEvents & FlushEvents, 'commit' | 'flush' | 'checkpoint' | 'state'>;

/**
 * What metrics need of a database, each member as `Database` has it. A database of `open` will do, and anything that counts in
 * the same way.
 */
export interface MetricsSource {
  readonly path: string;
  readonly state: State;
  readonly sqliteVersion: string;
  /** The limits that gauges are read against. */
  readonly options: {
    readonly durability: Durability;
    readonly flush: { readonly mode: FlushMode; readonly intervalMs: number };
    readonly staging: { readonly maxBytes: number; readonly maxEntries: number };
    readonly log: { readonly maxBytes: number };
    readonly dlq: { readonly maxEntries: number; readonly maxBytes: number };
  };
  /** What is counted, as of now. */
  stats(): DatabaseStats;
  /** Listens to what counters and histograms are made of, */
  on<Name extends keyof MetricsEvents>(event: Name, listener: (...payload: MetricsEvents[Name]) => void): unknown;
  /** and no longer. */
  off<Name extends keyof MetricsEvents>(event: Name, listener: (...payload: MetricsEvents[Name]) => void): unknown;
}
