import type { Clock } from '../base/clock.ts';
import type { Random } from '../base/random.ts';
import type { Engine } from '../engine/index.ts';
import type { Flusher } from '../flush/index.ts';
import type { ReadSource } from '../metrics/stats.ts';
import type { Store } from '../store/store.ts';
import type { ReadCache } from './cache.ts';

/** What tables, rows and the database itself share. */
export interface Core {
  readonly engine: Engine;
  readonly flusher: Flusher;
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly scanMaxAgeMs: number;
  /** Reads of a key so far. */
  readonly reads: Record<ReadSource, number>;
  /** Those of its tables that have one. */
  readonly caches: ReadCache[];
  /** The last write that may change keys, when it is applied, without going through their table. */
  readonly indirect: { lastSeq: number };
  /** Changes when something else than the writes of tables may have changed what is in them. */
  foreignChanges(): number;
  /** How often the data was replaced by other data. */
  restores(): number;
  /** Throws once the database is closed. */
  assertOpen(): void;
}
