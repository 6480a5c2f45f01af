import { LRUCache } from 'lru-cache';
import type { Clock } from '../base/clock.ts';
import type { SqlValue } from '../base/frame/index.ts';
import { isPlainObject, type OptionReader, show } from '../base/options.ts';
import type { Encoded } from '../engine/index.ts';
import { HeldValue } from './held-value.ts';

/** Which entries a read cache lets go. */
export type CacheStrategy = 'unbounded' | 'lru' | 'ttl';

/** How much a read cache may hold. */
export interface CacheLimits {
  /**
   * Most values that are held. Integer of at least 1.
   * @defaultValue no limit
   */
  readonly maxEntries?: number | undefined;
  /**
   * Most bytes that are held: keys and values as staging counts them, one for each character of the JSON text, and 100 for each
   * entry. A value that is larger than all of it is not held. Integer of at least 1 KiB.
   * @defaultValue no limit
   */
  readonly maxBytes?: number | undefined;
  /**
   * Most keys that are remembered to be absent, besides the values; the one that was not asked for for the longest time goes
   * first. Integer of at least 0; 0 remembers none. Keys of more than 1,024 characters are not remembered.
   * @defaultValue 10000
   */
  readonly maxAbsent?: number | undefined;
}

/**
 * A read cache, and which entries it lets go:
 *
 * - `'unbounded'` none; where it has a limit, the one that was written or loaded longest ago.
 * - `'lru'` at its limit, of which it needs at least one: the one that was not used for the longest time.
 * - `'ttl'` those that were written or loaded more than `ttlMs` ago (an integer of at least 1), whether or not they were read
 *   since; at its limits, if it has any, the oldest. With `persist` the rows themselves expire, and not only what is held of them.
 */
export type CacheOptions =
  | (CacheLimits & { readonly strategy: 'unbounded' })
  | (CacheLimits & { readonly strategy: 'lru' })
  | (CacheLimits & {
      readonly strategy: 'ttl';
      readonly ttlMs: number;
      readonly persist?: boolean | undefined;
    });

/** The options with everything filled in. */
export interface ResolvedCacheOptions {
  readonly strategy: CacheStrategy;
  readonly maxEntries: number | undefined;
  readonly maxBytes: number | undefined;
  readonly maxAbsent: number;
  /** Only with strategy `'ttl'`. */
  readonly ttlMs: number | undefined;
  readonly persist: boolean;
}

const STRATEGIES = ['unbounded', 'lru', 'ttl'] as const satisfies readonly CacheStrategy[];
const MAX = Number.MAX_SAFE_INTEGER;
const MAX_ABSENT = 10_000;

const UNBOUNDED: ResolvedCacheOptions = Object.freeze({
  strategy: 'unbounded',
  maxEntries: undefined,
  maxBytes: undefined,
  maxAbsent: MAX_ABSENT,
  ttlMs: undefined,
  persist: false,
});

/** Reads the option `cache`: `undefined` where it was not given, `null` for none. */
export function readCacheOptions(options: OptionReader): ResolvedCacheOptions | null | undefined {
  const given = options.any('cache');
  if (given === undefined || given === null) return given;
  if (given === 'unbounded') return UNBOUNDED;
  if (!isPlainObject(given)) {
    options.refuse('cache', `must be null, 'unbounded' or an object with a strategy, not ${show(given)}`);
    return undefined;
  }
  const cache = options.nested('cache');
  const strategy = cache.oneOf<CacheStrategy, undefined>('strategy', STRATEGIES, undefined);
  const has = (name: string) => given[name] !== undefined;
  if (!has('strategy')) cache.refuse('strategy', `must be given: ${STRATEGIES.map(show).join(', ')}`);
  if (strategy === 'lru' && !has('maxEntries') && !has('maxBytes')) {
    cache.refuse('strategy', "'lru' needs maxEntries or maxBytes");
  }
  if (strategy === 'ttl' && !has('ttlMs')) cache.refuse('ttlMs', "must be given with the strategy 'ttl'");
  for (const name of ['ttlMs', 'persist']) {
    if (strategy !== undefined && strategy !== 'ttl' && has(name)) {
      cache.refuse(name, "goes with the strategy 'ttl' only");
    }
  }
  return Object.freeze({
    strategy: strategy ?? 'unbounded',
    maxEntries: cache.integer('maxEntries', { min: 1, max: MAX, fallback: undefined }),
    maxBytes: cache.integer('maxBytes', { min: 1024, max: MAX, fallback: undefined }),
    maxAbsent: cache.integer('maxAbsent', { min: 0, max: MAX, fallback: MAX_ABSENT }),
    ttlMs: cache.integer('ttlMs', { min: 1, max: MAX, fallback: undefined }),
    persist: cache.boolean('persist', false),
  });
}

/** Whether two caches would hold the same. */
export function sameCacheOptions(a: ResolvedCacheOptions | undefined, b: ResolvedCacheOptions | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (Object.keys(a) as (keyof ResolvedCacheOptions)[]).every((name) => a[name] === b[name]);
}

/** What a cache has to know of the table that it is of. */
export interface CacheSource {
  readonly clock: Clock;
  /** Changes when something else than the writes of tables may have changed what is in them. */
  foreignChanges(): number;
  /** Grows with what the writer thread does, with each batch. */
  changes(): number;
  /** Whether a write, when it is applied, may change more of the table than the key that it names, or change it otherwise. */
  writesSpread(): boolean;
}

/** A walk over the table that fills the cache while writes go on. */
interface Load {
  /** Keys that something has happened to since it began. */
  readonly touched: Set<string>;
  over: boolean;
}

/** What an entry costs besides its key and value. */
const ENTRY_OVERHEAD_BYTES = 100;

/** A longer key is not remembered to be absent: whoever asks for keys that are not there chooses how long they are. */
const ABSENT_KEY_MAX = 1_024;

/** Expired entries that each new one clears away: more than one, so that they get fewer, and few enough to take no time. */
const EXPIRED_PER_ENTRY = 4;

/**
 * What is known of the keys of one table without asking SQLite: values, of which whoever reads gets a copy, and keys that are known to be absent.
 *
 * Reads look into staging first. What is written is put in here when it is staged, and stays right when it is applied. Three
 * things can make it wrong, and none may:
 *
 * - A value that was on its way from a reader thread when the key was written is older than the write: it is put in only if
 *   nothing has happened to the key since the read began.
 * - SQL, retried dead letters, and writes that die change keys behind the table's back: then everything is dropped. Which is
 *   looked for at each access, for there is nobody to tell.
 * - A trigger, a foreign key that cascades, or a table that was not made by Sluice may make of a write what nobody can know
 *   here: in such a database everything is dropped with each batch.
 */
export class ReadCache {
  readonly #source: CacheSource;
  readonly #options: ResolvedCacheOptions;
  readonly #values: LRUCache<string, HeldValue>;
  readonly #absent: LRUCache<string, true> | undefined;
  readonly #isLru: boolean;
  /** Which read a key is awaited from. */
  readonly #awaited = new Map<string, object>();
  readonly #loads = new Set<Load>();
  /** What the source said when all of this was right. */
  #foreign = Number.NaN;
  #changes = 0;
  #spreads: boolean | undefined;
  /** Values that had to go for want of room. */
  evictions = 0;

  constructor(options: ResolvedCacheOptions, source: CacheSource) {
    this.#source = source;
    this.#options = options;
    this.#isLru = options.strategy === 'lru';
    const lifetime = lifetimeOf(source.clock, options.ttlMs);
    this.#values = new LRUCache<string, HeldValue>({
      ...lifetime,
      // With a limit in sizes, and not in entries, it does not take the memory for all of them at once.
      maxSize: options.maxBytes ?? MAX,
      sizeCalculation: (value, key) => bytesOf(key, value.stored),
      dispose: (_value, _key, reason) => {
        if (reason === 'evict') this.evictions++;
      },
    });
    if (options.maxAbsent > 0) {
      this.#absent = new LRUCache<string, true>({
        ...lifetime,
        maxSize: options.maxAbsent,
        sizeCalculation: () => 1,
      });
    }
  }

  /** How many values are held. Those that have expired count until they are cleared away. */
  get entries(): number {
    return this.#values.size;
  }

  get bytes(): number {
    return this.#values.calculatedSize;
  }

  /** Whether another value would take the place of one. */
  get isFull(): boolean {
    const { maxEntries = MAX, maxBytes = MAX } = this.#options;
    this.#clearExpired();
    return this.entries >= maxEntries || this.bytes + ENTRY_OVERHEAD_BYTES > maxBytes;
  }

  /**
   * What is known of a key: its value, `null` for absent, `undefined` for nothing. `liveAt` is the moment that the read is about,
   * in a table whose rows can expire.
   */
  get(key: string, liveAt?: number): HeldValue | null | undefined {
    this.#checkForReading();
    const value = this.#isLru ? this.#values.get(key) : this.#values.peek(key, NOT_EXPIRED);
    if (value !== undefined) return liveAt !== undefined && value.expiresAt <= liveAt ? null : value;
    return this.#absent?.get(key, NOT_EXPIRED) === undefined ? undefined : null;
  }

  /** Whether something is known of a key. Asking does not count as a use. */
  has(key: string): boolean {
    this.#checkForReading();
    return this.#values.has(key) || this.#absent?.has(key) === true;
  }

  /** A write is staged; `null` for a deletion. */
  wrote(key: string, value: Encoded | null, expiresAt?: number): void {
    this.#check();
    this.found(key, value ?? undefined, expiresAt);
  }

  /** SQLite has said, in this turn, what there is. */
  found(key: string, stored: SqlValue | undefined, expiresAt?: number): void {
    this.#touch(key);
    this.#keep(key, stored, expiresAt);
  }

  /** What a reader thread finds, as it would have been given without a cache. Begins in the turn in which the read does. */
  async finds<V extends readonly (SqlValue | undefined)[]>(
    keys: readonly string[],
    read: Promise<V>,
    expiries?: Promise<readonly (number | undefined)[]>,
  ): Promise<V> {
    this.#check();
    const token = {};
    for (const key of keys) this.#awaited.set(key, token);
    try {
      const [stored, expiresAt] = await Promise.all([read, expiries]);
      this.#check();
      for (const [i, key] of keys.entries()) {
        if (this.#awaited.get(key) === token) this.found(key, stored[i], expiresAt?.[i]);
      }
      return stored;
    } finally {
      for (const key of keys) if (this.#awaited.get(key) === token) this.#awaited.delete(key);
    }
  }

  /** Nothing is known of a key any more, and what is on its way does not count. */
  forget(key: string): void {
    this.#touch(key);
    this.#values.delete(key);
    this.#absent?.delete(key);
  }

  /** Nothing is known any more, and what is on its way does not count. */
  clear(): void {
    this.#drop();
  }

  /** Takes what a walk in this turn finds, until something would have to go for it. Returns how many values are held then. */
  load(entries: Iterable<readonly [string, SqlValue]>): number {
    const load = this.#begin();
    try {
      for (const [key, value] of entries) if (!this.#take(load, key, value)) break;
      return this.entries;
    } finally {
      this.#loads.delete(load);
    }
  }

  /** The same of a walk that takes its time. Ends early where something drops what it has brought. */
  async loadAsync(entries: AsyncIterable<readonly [string, SqlValue]>): Promise<number> {
    const load = this.#begin();
    try {
      for await (const [key, value] of entries) if (!this.#take(load, key, value)) break;
      return this.entries;
    } finally {
      this.#loads.delete(load);
    }
  }

  #begin(): Load {
    this.#checkForReading();
    const load: Load = { touched: new Set(), over: false };
    this.#loads.add(load);
    return load;
  }

  /** Whether there is a point in going on. */
  #take(load: Load, key: string, value: SqlValue): boolean {
    this.#check();
    if (load.over) return false;
    if (load.touched.has(key) || this.#values.has(key)) return true;
    const { maxEntries = MAX, maxBytes = MAX } = this.#options;
    const bytes = bytesOf(key, value);
    if (bytes > maxBytes) return true;
    this.#clearExpired();
    if (this.entries >= maxEntries || this.bytes + bytes > maxBytes) return false;
    this.#keep(key, value);
    return true;
  }

  #keep(key: string, stored: SqlValue | undefined, expiresAt?: number): void {
    if (stored === undefined || stored === null) {
      this.#values.delete(key);
      if (key.length <= ABSENT_KEY_MAX) this.#absent?.set(key, true);
      return;
    }
    this.#absent?.delete(key);
    this.#clearExpired();
    this.#values.set(key, new HeldValue(stored, expiresAt));
    const { maxEntries = MAX } = this.#options;
    while (this.#values.size > maxEntries) this.#values.pop();
  }

  /** Entries of one lifetime expire in the order in which they came. */
  #clearExpired(): void {
    if (this.#options.ttlMs === undefined) return;
    for (let i = 0; i < EXPIRED_PER_ENTRY; i++) {
      const { value: oldest, done } = this.#values.rkeys().next();
      if (done === true || this.#values.has(oldest)) return;
      this.#values.delete(oldest);
    }
  }

  /** Something has happened to a key: what is on its way may be older. */
  #touch(key: string): void {
    this.#awaited.delete(key);
    for (const { touched } of this.#loads) touched.add(key);
  }

  #drop(): void {
    this.#values.clear();
    this.#absent?.clear();
    this.#awaited.clear();
    for (const load of this.#loads) load.over = true;
  }

  /** Drops everything if it may be wrong by now. Must not fail: a write that is accepted cannot be refused any more. */
  #check(): void {
    const foreign = this.#source.foreignChanges();
    const isForeign = foreign !== this.#foreign;
    if (!isForeign && (this.#spreads !== true || this.#source.changes() === this.#changes)) return;
    this.#drop();
    // SQL may have made a trigger, or dropped the last one.
    if (isForeign) this.#spreads = undefined;
    this.#foreign = foreign;
    this.#changes = this.#source.changes();
  }

  /** Nothing comes out before it is known whether writes spread; what has come in until then is dropped if they do. */
  #checkForReading(): void {
    this.#check();
    if (this.#spreads !== undefined) return;
    this.#spreads = this.#source.writesSpread();
    this.#check();
  }
}

function bytesOf(key: string, value: SqlValue): number {
  const length = typeof value === 'string' || value instanceof Uint8Array ? value.length : 8;
  return ENTRY_OVERHEAD_BYTES + key.length + length;
}

const NOT_EXPIRED = { allowStale: false };

/**
 * The time of the database, asked for each time; 0 would mean that an entry has none. Expired entries have to be named to be
 * cleared away.
 */
function lifetimeOf(clock: Clock, ttlMs: number | undefined) {
  if (ttlMs === undefined) return {};
  return { ttl: ttlMs, perf: { now: () => clock.elapsed() + 1 }, ttlResolution: 0 as const, allowStale: true };
}
