import { type EncryptionOptions, type KeyMaterial, readEncryption, ValueCipher } from '../base/encryption/index.ts';
import { OptionReader } from '../base/options.ts';
import { type CacheOptions, type ResolvedCacheOptions, readCacheOptions, sameCacheOptions } from './cache.ts';
import { readHookList, type TableHook } from './hooks.ts';
import { readSchema, type Schema, type Stored } from './schema.ts';

/** Options of {@link Database.table}. What is left out is as the default table of the database has it, see {@link OpenOptions}. */
export interface TableOptions<T = unknown, In = T, Coerce extends boolean = boolean> {
  /**
   * Checks each value that is written, after the hooks; it is refused with `SLUICE_VALIDATION` and all issues. `null` for none.
   * What is written to the table has the type of its input, and what is read has that, too, or with `coerce: true` the type of its
   * output: say `coerce` here where these are two, even if it is as of the database. A type can also be written: `table<Reading>(…)`.
   * @defaultValue as of the database
   */
  readonly validator?: Schema<T, In> | null | undefined;
  /**
   * Store what the validator made of a value (its defaults, its conversions) instead of the value as it was given.
   * @defaultValue as of the database, where it is false
   */
  readonly coerce?: Coerce | undefined;
  /**
   * What looks at the writes and reads, in this order. `[]` for none.
   * @defaultValue as of the database
   */
  readonly hooks?: readonly TableHook<NoInfer<Stored<T, In, Coerce>>, NoInfer<In>>[] | undefined;
  /**
   * Holds what is read and written in memory, for reads of keys (scans and sizes do not use it). Each table has one of its own.
   * `'unbounded'` is short for `{ strategy: 'unbounded' }`; `null` for none: what is staged is in memory anyway, and SQLite has
   * its page cache. With `{ strategy: 'ttl', ttlMs, persist: true }` the rows expire `ttlMs` after they were written, across
   * restarts: they are there for no read any more, and are deleted. What another program changes is not seen until it is asked for
   * with {@link Table.getFresh}, or the entry has gone.
   * @defaultValue as of the database, where it is null
   */
  readonly cache?: 'unbounded' | CacheOptions | null | undefined;
  /**
   * A key for the values of this table alone, or `null` for none: see {@link OpenOptions.encryption}. `SLUICE_DECRYPT` where the
   * values that are there are encrypted in another way. Log and dead letters are encrypted as the database is, and with these
   * values in them as they are stored.
   * @defaultValue as of the database
   */
  readonly encryption?: EncryptionOptions | null | undefined;
}

/** The options with everything filled in. */
export interface ResolvedTableOptions {
  readonly validator: Schema | undefined;
  readonly coerce: boolean;
  readonly hooks: readonly TableHook<never>[];
  readonly cache: ResolvedCacheOptions | undefined;
  /** @internal What encrypts its values. */
  readonly cipher: ValueCipher | undefined;
}

const NONE: ResolvedTableOptions = {
  validator: undefined,
  coerce: false,
  hooks: [],
  cache: undefined,
  cipher: undefined,
};

/** Reads the options of a table out of a reader that the caller finishes. */
export function readTableOptions(options: OptionReader, inherited: ResolvedTableOptions = NONE): ResolvedTableOptions {
  const validator = readSchema(options, 'validator');
  const cache = readCacheOptions(options);
  return Object.freeze({
    validator: validator === undefined ? inherited.validator : (validator ?? undefined),
    coerce: options.boolean('coerce', inherited.coerce),
    hooks: Object.freeze([...((readHookList(options) as readonly TableHook<never>[] | undefined) ?? inherited.hooks)]),
    cache: cache === undefined ? inherited.cache : (cache ?? undefined),
    cipher: inherited.cipher,
  });
}

export function resolveTableOptions<T, In, C extends boolean>(
  given: TableOptions<T, In, C>,
  inherited: ResolvedTableOptions,
): ResolvedTableOptions {
  const options = new OptionReader(given);
  const resolved = readTableOptions(options, inherited);
  const keys = readEncryption(options);
  if (keys?.some((key) => key.isPassphrase)) {
    options.refuse('encryption.passphrase', 'is for open() alone, since it takes its time: give the table a key');
  }
  options.finish('table');
  if (keys === undefined) return resolved;
  const materials = keys?.map((key) => key.materialNow()) as [KeyMaterial, ...KeyMaterial[]] | undefined;
  return Object.freeze({ ...resolved, cipher: materials && new ValueCipher({ keys: materials, accepts: 'nothing' }) });
}

/** Whether two tables would do the same with a value. */
export function sameTableOptions(a: ResolvedTableOptions, b: ResolvedTableOptions): boolean {
  const sameHooks = a.hooks.length === b.hooks.length && a.hooks.every((hook, i) => hook === b.hooks[i]);
  const sameKey = a.cipher?.keyring.active.id === b.cipher?.keyring.active.id;
  const sameCache = sameCacheOptions(a.cache, b.cache);
  return sameHooks && sameKey && sameCache && a.validator === b.validator && a.coerce === b.coerce;
}
