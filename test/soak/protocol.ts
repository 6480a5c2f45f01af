/** What the soak and one life of its program tell each other. */

export const WRITERS = 4;
/** Each writer counts its writes; number n goes to key n modulo this. */
export const KEYS = 1_000;
/** Every so many numbers a transaction of two keys. */
export const PAIR_EVERY = 7;
/** Every so many numbers a write that SQLite refuses. */
export const POISON_EVERY = 500;
/** Rows are deleted in steps of so many numbers, and this many steps are kept. */
export const PRUNE_EVERY = 5_000;
export const STEPS_KEPT = 2;
export const ACCOUNTS = 10;
export const BALANCE = 100;

/** What must be there, whatever has happened: by writer, the last number that was acknowledged … */
export interface Known {
  acked: number[];
  /** … up to which its dead letters have been cleared for certain … */
  cleared: number[];
  /** … and up to which they may have been, by a call that was cut off. */
  clearing: number[];
  /** Increments that were acknowledged. */
  increments: number;
}

/** How a life begins. */
export interface Birth {
  readonly path: string;
  readonly folder: string;
  readonly seed: number;
  readonly writesPerSecond: number;
  readonly known: Known;
}

/** How the process is, at a moment. */
export interface Sample {
  readonly rss: number;
  readonly heap: number;
  readonly descriptors: number;
  readonly accepted: number;
  readonly applied: number;
  readonly reads: number;
  readonly queries: number;
  readonly stopped: number;
  readonly transfers: number;
  readonly cleared: number;
  readonly writerRestarts: number;
  readonly flushRetries: number;
}

/** What a life says. */
export type Told =
  | { readonly kind: 'opened'; readonly recovered: number; readonly tookMs: number }
  | ({ readonly kind: 'known' } & Partial<Known>)
  | ({ readonly kind: 'sample' } & Sample)
  /** Everything is applied and nothing is under way: what is held now, is held. */
  | { readonly kind: 'resting'; readonly rss: number; readonly descriptors: number }
  | { readonly kind: 'failed'; readonly message: string }
  | { readonly kind: 'wrong'; readonly message: string }
  | { readonly kind: 'ended'; readonly rows: number; readonly deadLetters: number };

/** What the soak says to a life. */
export type Asked = { readonly do: 'rest' } | { readonly do: 'kill writer thread' } | { readonly do: 'end' };
