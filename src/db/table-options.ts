import { OptionReader } from '../base/options.ts';
import { type CacheOptions, type ResolvedCacheOptions, readCacheOptions, sameCacheOptions } from './cache.ts';
import { readHookList, type TableHook } from './hooks.ts';
import { readSchema, type Schema } from './schema.ts';

/** Options of {@link Database.table}. What is left out is as the default table of the database has it, see {@link OpenOptions}. */
export interface TableOptions<T = unknown> {
  /**
   * Checks each value that is written, after the hooks; it is refused with `SLUICE_VALIDATION` and all issues. `null` for none.
   * @defaultValue as of the database
   */
  readonly validator?: Schema<T> | null | undefined;
  /**
   * Store what the validator made of a value (its defaults, its conversions) instead of the value as it was given.
   * @defaultValue as of the database, where it is false
   */
  readonly coerce?: boolean | undefined;
  /**
   * What looks at the writes and reads, in this order. `[]` for none.
   * @defaultValue as of the database
   */
  readonly hooks?: readonly TableHook<T>[] | undefined;
  /**
   * Holds what is read and written in memory, for reads of keys (scans and sizes do not use it). Each table has one of its own.
   * `'unbounded'` is short for `{ strategy: 'unbounded' }`; `null` for none: what is staged is in memory anyway, and SQLite has
   * its page cache.
   * @defaultValue as of the database, where it is null
   */
  readonly cache?: 'unbounded' | CacheOptions | null | undefined;
}

/** The options with everything filled in. */
export interface ResolvedTableOptions {
  readonly validator: Schema | undefined;
  readonly coerce: boolean;
  readonly hooks: readonly TableHook<never>[];
  readonly cache: ResolvedCacheOptions | undefined;
}

const NONE: ResolvedTableOptions = { validator: undefined, coerce: false, hooks: [], cache: undefined };

/** Reads the options of a table out of a reader that the caller finishes. */
export function readTableOptions(options: OptionReader, inherited: ResolvedTableOptions = NONE): ResolvedTableOptions {
  const validator = readSchema(options, 'validator');
  const cache = readCacheOptions(options);
  return Object.freeze({
    validator: validator === undefined ? inherited.validator : (validator ?? undefined),
    coerce: options.boolean('coerce', inherited.coerce),
    hooks: Object.freeze([...((readHookList(options) as readonly TableHook<never>[] | undefined) ?? inherited.hooks)]),
    cache: cache === undefined ? inherited.cache : (cache ?? undefined),
  });
}

export function resolveTableOptions<T>(given: TableOptions<T>, inherited: ResolvedTableOptions): ResolvedTableOptions {
  const options = new OptionReader(given);
  const resolved = readTableOptions(options, inherited);
  options.finish('table');
  return resolved;
}

/** Whether two tables would do the same with a value. */
export function sameTableOptions(a: ResolvedTableOptions, b: ResolvedTableOptions): boolean {
  const sameHooks = a.hooks.length === b.hooks.length && a.hooks.every((hook, i) => hook === b.hooks[i]);
  return sameHooks && a.validator === b.validator && a.coerce === b.coerce && sameCacheOptions(a.cache, b.cache);
}
