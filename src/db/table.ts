import { SluiceError } from '../base/errors.ts';
import { show } from '../base/options.ts';
import { checkWait, isWait, type WaitOptions, waitFor } from '../base/waiting.ts';
import { CheckedWrites } from './checked-writes.ts';
import { decodeValue, listOf } from './codec.ts';
import type { Core } from './core.ts';
import type { Entries } from './entries.ts';
import { type HookChain, type HookedStore, hookProblem, type PendingWrite, type TableHook } from './hooks.ts';
import { checkKey, type ScanOptions, toRange } from './keys.ts';
import { type Found, Keyspace, type Stored } from './keyspace.ts';
import { decoded, decodedAsync } from './scan.ts';
import { type Schema, schemaProblem, storable, validated } from './schema.ts';
import type { ResolvedTableOptions } from './table-options.ts';
import { runTransaction, runTransactionAsync, TransactionTable, type Work } from './transaction.ts';
import type { IncrementOptions, PatchOptions } from './transforms.ts';

/** Whoever changes one value gets through: of all that come between, one is always done. */
const CHANGE_RETRIES = 1_000;

/**
 * A key-value table: strings to JSON values or bytes. Made by {@link Database.table}; a {@link Database} is itself its
 * default table. What is read has the type `T`, what is written the type `In`: another one where a validator has defaults or
 * conversions, see {@link TableOptions.validator}.
 *
 * Writes are staged and return at once; `aX` is the promise form of `X` and resolves when the write is as safe as the
 * durability level of the database says. Reads see every write at once, staged or applied, in every method. Keys come in
 * the order of their UTF-8 bytes.
 *
 * A value is captured when the call returns, and what a read returns is the caller's own copy.
 *
 * Every write can throw (its promise form rejects with): `SLUICE_INVALID_KEY` for what is no key (a well-formed string of
 * at most 64 KiB in UTF-8, the empty one included), `SLUICE_INVALID_VALUE` for what JSON cannot hold, `SLUICE_FULL` when
 * staging is full, `SLUICE_CLOSED`, and `SLUICE_FAILED` after a failure that cannot pass. A refused write changes nothing.
 *
 * Every read of values can: `SLUICE_CLOSED`, `SLUICE_STORE` for what SQLite says, `SLUICE_INVALID_VALUE` for what another program has
 * stored that is no JSON, and `SLUICE_DECRYPT` for what none of the keys opens.
 *
 * Not promised: that a value written by other programs while the database is open is seen at once by scans in progress,
 * and anything about the order of keys between tables.
 */
export class Table<T = unknown, In = T> {
  /** Name of the table in SQLite: `(key TEXT PRIMARY KEY, value TEXT)`. */
  readonly name: string;
  /** @internal */
  protected readonly core: Core;
  readonly #keys: Keyspace;
  readonly #writes: CheckedWrites<T, In>;
  #options: ResolvedTableOptions;

  /** @internal */
  constructor(core: Core, name: string, options: ResolvedTableOptions) {
    this.core = core;
    this.name = name;
    this.#keys = new Keyspace(core, name, options);
    this.#options = options;
    const store: HookedStore<T> = {
      table: this,
      valueOf: (key) => {
        const stored = this.#keys.read(key);
        return isThere(stored) ? this.#decode(key, stored) : undefined;
      },
      stored: () => decoded(this.#keys.scan({}), this.#decode),
      get foreignChanges() {
        return core.foreignChanges();
      },
    };
    this.#writes = new CheckedWrites(core, store, options);
  }

  /** @internal What transactions work with. */
  get inside(): { readonly keys: Keyspace; readonly chain: HookChain<unknown> | undefined } {
    return { keys: this.#keys, chain: this.#writes.chain as unknown as HookChain<unknown> | undefined };
  }

  /** @internal What `db.table` was given, and what was added since. */
  get tableOptions(): ResolvedTableOptions {
    return this.#options;
  }

  /**
   * Adds a hook, behind those that are there and before the validator. Tables that have their hooks from this one keep those
   * that they got when they were made.
   *
   * Errors: `SLUICE_INVALID_OPTION`.
   */
  addHook(hook: TableHook<T, In>): void {
    const problem = hookProblem(hook);
    if (problem !== undefined) throw new SluiceError('SLUICE_INVALID_OPTION', `addHook: the hook ${problem}`);
    this.#options = { ...this.#options, hooks: [...this.#options.hooks, hook as TableHook<never>] };
    this.#writes.use(this.#options);
  }

  // ── one key ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Writes a value. Returns `false` when staging is filling up and it would be kind to wait for `drain`; the write is
   * accepted all the same.
   *
   * @example
   * ```ts
   * import { open } from 'sluicedb';
   *
   * const db = await open(':memory:');
   * db.set('room/1', { temperature: 21.5 });
   * console.log(db.get('room/1')); // { temperature: 21.5 }
   * await db.close();
   * ```
   */
  set(key: string, value: In): boolean {
    if (this.#writes.chain === undefined) return this.#keys.put(key, this.#writes.encode(key, value));
    const write = this.#writes.prepare(key, value);
    return this.#writes.stage([write], () => this.#keys.put(key, write.encoded));
  }

  /** Writes a value; resolves when it is as safe as the durability level says. All writes of a moment share a promise. */
  aset(key: string, value: In, wait?: WaitOptions): Promise<void> {
    try {
      return this.#putWithin(this.#writes.prepare(key, value), wait);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** {@link Table.aset} under the name that NanaSQLite has for it. Of a {@link Database} it is about rows. */
  aupsert(key: string, value: In, wait?: WaitOptions): Promise<unknown> {
    return this.aset(key, value, wait);
  }

  /**
   * The value of a key; `fallback`, `undefined` if left out, where there is none. (`?? fallback` would also take the place of a
   * stored `null`.) Looks into staging, then into SQLite on this thread.
   */
  get(key: string): T | undefined;
  get<D>(key: string, fallback: D): T | D;
  get(key: string, fallback?: unknown): unknown {
    checkKey(key);
    this.core.assertOpen();
    const stored = this.#keys.read(key);
    return !isThere(stored) ? fallback : this.#toReader(key, stored);
  }

  /**
   * {@link Table.get}. What is not staged is read by a reader thread.
   *
   * The limits of the wait come third, as in `aget(key, undefined, { timeoutMs: 500 })`: two arguments of which the second looks
   * like limits are `SLUICE_INVALID_OPTION`. A fallback that is to look like them has `{}` behind it.
   */
  aget(key: string): Promise<T | undefined>;
  aget<D>(key: string, fallback: D, wait?: WaitOptions): Promise<T | D>;
  async aget(key: string, fallback?: unknown, wait?: WaitOptions): Promise<unknown> {
    if (wait === undefined) assertFallback(fallback);
    const found = await this.agetMany([key], wait);
    return found.has(key) ? found.get(key) : fallback;
  }

  /** Whether the key is there. */
  has(key: string): boolean {
    checkKey(key);
    return this.#isThere(key);
  }

  /** Whether the key is there. What is not staged is looked up by a reader thread. */
  async ahas(key: string, wait: WaitOptions = {}): Promise<boolean> {
    checkKey(key);
    checkWait(wait);
    this.core.assertOpen();
    const [value] = await waitFor(this.#keys.readMany([key]), 'ahas', wait, this.core.clock);
    return isThere(value);
  }

  /** Deletes a key; returns whether it was there. */
  delete(key: string): boolean {
    this.#checkKeys([key]);
    this.core.engine.assertAcceptingWrite();
    const there = this.#isThere(key);
    this.#writes.stageDelete([key], () => this.#keys.remove(key));
    return there;
  }

  /** Deletes a key; resolves, when that is safe, to whether it was there. */
  async adelete(key: string, wait?: WaitOptions): Promise<boolean> {
    return (await this.adeleteMany([key], wait)) === 1;
  }

  /** Deletes a key and returns the value it had, `undefined` if it was not there. */
  pop(key: string): T | undefined {
    this.#checkKeys([key]);
    this.core.engine.assertAcceptingWrite();
    const value = this.get(key);
    this.#writes.stageDelete([key], () => this.#keys.remove(key));
    return value;
  }

  /** Deletes a key; resolves, when that is safe, to the value it had. */
  async apop(key: string, wait?: WaitOptions): Promise<T | undefined> {
    this.#checkKeys([key]);
    return this.#admitted(
      this.#keys.bytesOfRemoves([key]),
      async () => {
        this.core.engine.assertAcceptingWrite();
        const before = this.#keys.readMany([key], true);
        this.#writes.stageDelete([key], () => this.#keys.remove(key), before);
        const [[value]] = await Promise.all([before, this.core.engine.acknowledgement()]);
        return isThere(value) ? this.#toReader(key, value) : undefined;
      },
      wait,
    );
  }

  /** The value of a key; if there is none, writes and returns `value`. */
  setDefault(key: string, value: In): T {
    this.#checkKeys([key]);
    const present = this.get(key);
    if (present !== undefined) return present;
    const write = this.#writes.prepare(key, value);
    this.#writes.stage([write], () => this.#keys.put(key, write.encoded));
    return this.#afterRead(key, decodeValue(write.encoded) as T);
  }

  /** The value of a key; if there is none by the time it has been looked up, writes `value` and resolves to it when that is safe. */
  async asetDefault(key: string, value: In, wait: WaitOptions = {}): Promise<T> {
    // A value that can never be written is refused whether or not it is needed; hooks and a validator may make one of any.
    if (this.#writes.chain === undefined) this.#writes.encode(key, value);
    else this.#checkKeys([key]);
    const present = await this.aget(key, undefined, wait);
    if (present !== undefined) return present;
    const staged = this.#keys.staged(key);
    if (isThere(staged)) return this.#toReader(key, staged);
    const write = this.#writes.prepare(key, value);
    await this.#putWithin(write, wait);
    return this.#afterRead(key, decodeValue(write.encoded) as T);
  }

  /**
   * Adds to a number, or to a field of an object; returns the whole value as it is now. Nobody can come between the read and the
   * write.
   *
   * Errors: `SLUICE_NOT_FOUND` where there is no value, or no such field, and no `default`; `SLUICE_INVALID_VALUE` where it is no
   * number, or would not be a finite one.
   *
   * @example
   * ```ts
   * import { open } from 'sluicedb';
   *
   * const db = await open(':memory:');
   * db.increment('visits', 1, { default: 0 });
   * console.log(db.increment('visits', 41)); // 42
   * await db.close();
   * ```
   */
  increment(key: string, amount = 1, options: IncrementOptions = {}): T {
    return runTransaction(
      this.core,
      (work) => new TransactionTable<T, In>(work, work.whole, this),
      (table) => table.increment(key, amount, options),
    );
  }

  /** {@link Table.increment}; resolves when the write is safe. Begins anew where somebody else has come between. */
  aincrement(key: string, amount = 1, options: IncrementOptions = {}, wait: WaitOptions = {}): Promise<T> {
    return this.#changed(key, (table) => table.increment(key, amount, options), wait);
  }

  /**
   * Replaces some fields of an object, as `{ ...value, ...changes }`; returns the whole object as it is now. Nobody can come between
   * the read and the write.
   *
   * Errors: `SLUICE_NOT_FOUND` where there is no value, unless `create` is set; `SLUICE_INVALID_VALUE` where it is no object.
   */
  patch(key: string, changes: Partial<In> & object, options: PatchOptions = {}): T {
    return runTransaction(
      this.core,
      (work) => new TransactionTable<T, In>(work, work.whole, this),
      (table) => table.patch(key, changes, options),
    );
  }

  /** {@link Table.patch}; resolves when the write is safe. Begins anew where somebody else has come between. */
  apatch(key: string, changes: Partial<In> & object, options: PatchOptions = {}, wait: WaitOptions = {}): Promise<T> {
    return this.#changed(key, (table) => table.patch(key, changes, options), wait);
  }

  #changed(key: string, change: (table: TransactionTable<T, In>) => T, wait: WaitOptions): Promise<T> {
    const make = (work: Work) => new TransactionTable<T, In>(work, work.whole, this);
    const body = async (table: TransactionTable<T, In>) => {
      // So that SQLite is not read on this thread.
      await table.aget(key);
      return change(table);
    };
    return runTransactionAsync(this.core, make, body, { maxRetries: CHANGE_RETRIES, ...wait });
  }

  // ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Writes what a schema makes of a value, which is refused with `SLUICE_VALIDATION` where it does not fit: for a table in which
   * each key has a shape of its own. Where all have the same, give the table a `validator`.
   *
   * @example
   * ```ts
   * import { open, type Schema } from 'sluicedb';
   *
   * // Any Standard Schema: z.object({ celsius: z.number() }) of zod, say.
   * const Reading: Schema<{ celsius: number }> = {
   *   '~standard': {
   *     version: 1,
   *     vendor: 'example',
   *     validate: (value) => {
   *       const celsius = Number((value as { celsius?: unknown } | null)?.celsius);
   *       return Number.isNaN(celsius) ? { issues: [{ message: 'no number', path: ['celsius'] }] } : { value: { celsius } };
   *     },
   *   },
   * };
   * const db = await open(':memory:');
   * db.setModel('kitchen', { celsius: 21.5 }, Reading);
   * console.log(db.getModel('kitchen', Reading)?.celsius); // 21.5
   * await db.close();
   * ```
   */
  setModel<M, MIn = M>(key: string, value: NoInfer<MIn>, schema: Schema<M, MIn>): boolean {
    return this.set(key, this.#modelled(key, value, schema) as unknown as In);
  }

  /** {@link Table.setModel}; resolves when the write is as safe as the durability level says. */
  async asetModel<M, MIn = M>(
    key: string,
    value: NoInfer<MIn>,
    schema: Schema<M, MIn>,
    wait?: WaitOptions,
  ): Promise<void> {
    return this.aset(key, this.#modelled(key, value, schema) as unknown as In, wait);
  }

  /**
   * What a schema makes of the value of a key, `undefined` if there is none. A value that does not fit is `SLUICE_VALIDATION`: it
   * can be read with {@link Table.get}.
   */
  getModel<M>(key: string, schema: Schema<M, unknown>): M | undefined {
    const value = this.get(key);
    return value === undefined ? undefined : modelOf(key, value, schema);
  }

  /** {@link Table.getModel}. What is not staged is read by a reader thread. */
  async agetModel<M>(key: string, schema: Schema<M, unknown>, wait: WaitOptions = {}): Promise<M | undefined> {
    const value = await this.aget(key, undefined, wait);
    return value === undefined ? undefined : modelOf(key, value, schema);
  }

  #modelled<M>(key: string, value: unknown, schema: Schema<M, unknown>): M {
    try {
      return modelOf(key, value, schema, storable);
    } catch (error) {
      throw this.core.engine.countInvalid(error);
    }
  }

  // ── many keys ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Writes several entries, each a write of its own. All are accepted, or none: `SLUICE_FULL` where not all have room. */
  update(entries: Entries<In>): boolean {
    const { engine } = this.core;
    const writes = this.#writes.prepareAll(entries);
    try {
      engine.assertRoom(this.#keys.bytesOfPuts(writes), writes.length);
      let plenty = !engine.admission.needsDrain;
      for (const write of writes) {
        plenty = this.#writes.stage([write], () => this.#keys.put(write.key, write.encoded));
      }
      return plenty;
    } finally {
      this.#writes.settle(writes);
    }
  }

  /** Writes several entries, each a write of its own; resolves when all are safe. */
  async aupdate(entries: Entries<In>, wait?: WaitOptions): Promise<void> {
    checkWait(wait);
    const { engine } = this.core;
    engine.assertMayAwait();
    const writes = this.#writes.prepareAll(entries);
    try {
      for (const write of writes) {
        const { key, encoded } = write;
        const bytes = this.#keys.bytesOfPut(key, encoded);
        const put = () => this.#writes.stage([write], () => this.#keys.put(key, encoded));
        if (engine.admission.hasRoom(bytes)) put();
        else {
          for (const each of writes) each.waiting = true;
          await engine.whenRoom(bytes, put, wait ?? {});
        }
      }
    } finally {
      this.#writes.settle(writes);
    }
    return this.#settle(engine.acknowledgement(false), wait);
  }

  /**
   * Writes several entries as one atomic write: in the log, in SQLite and in the dead-letter queue there are all of them
   * or none. Counts as one write.
   */
  setMany(entries: Entries<In>): boolean {
    const writes = this.#writes.prepareAll(entries);
    return this.#writes.stage(writes, () => this.#keys.putMany(writes));
  }

  /** Writes several entries as one atomic write; resolves when it is safe. */
  async asetMany(entries: Entries<In>, wait?: WaitOptions): Promise<void> {
    return this.#groupWithin(this.#writes.prepareAll(entries), wait);
  }

  /**
   * Writes those of several entries that can be written, as one atomic write; returns the others: key and reason. What is
   * no entry at all is refused with the whole call.
   */
  setManyPartial(entries: Entries<In>): Map<string, SluiceError> {
    const { writes, refused } = this.#writes.prepareEach(entries);
    if (writes.length > 0) this.#writes.stage(writes, () => this.#keys.putMany(writes));
    return refused;
  }

  /** {@link Table.setManyPartial} in its promise form: resolves when what was accepted is safe. */
  async asetManyPartial(entries: Entries<In>, wait?: WaitOptions): Promise<Map<string, SluiceError>> {
    checkWait(wait);
    const { writes, refused } = this.#writes.prepareEach(entries);
    if (writes.length > 0) await this.#groupWithin(writes, wait);
    return refused;
  }

  /** The values of those of the keys that are there. */
  getMany(keys: Iterable<string>): Map<string, T> {
    const found = new Map<string, T>();
    for (const key of keys) {
      const value = this.get(key);
      if (value !== undefined) found.set(key, value);
    }
    return found;
  }

  /** The values of those of the keys that are there. What is not staged is read by a reader thread, in one message. */
  async agetMany(keys: Iterable<string>, wait: WaitOptions = {}): Promise<Map<string, T>> {
    const wanted = checkedKeys(keys);
    checkWait(wait);
    this.core.assertOpen();
    const values = await waitFor(this.#keys.readMany(wanted), 'the read', wait, this.core.clock);
    const found = new Map<string, T>();
    for (const [i, key] of wanted.entries()) {
      const value = values[i];
      if (isThere(value)) found.set(key, this.#toReader(key, value));
    }
    return found;
  }

  /** Deletes several keys as one atomic write; returns how many of them were there. */
  deleteMany(keys: Iterable<string>): number {
    const wanted = [...new Set(this.#checkKeys(keys))];
    this.core.engine.assertAcceptingWrite();
    const there = wanted.filter((key) => this.#isThere(key)).length;
    this.#writes.stageDelete(wanted, () => this.#keys.removeMany(wanted));
    return there;
  }

  /** Deletes several keys as one atomic write; resolves, when it is safe, to how many of them were there. */
  async adeleteMany(keys: Iterable<string>, wait?: WaitOptions): Promise<number> {
    const { engine } = this.core;
    const wanted = [...new Set(this.#checkKeys(keys))];
    return this.#admitted(
      this.#keys.bytesOfRemoves(wanted),
      async () => {
        engine.assertAcceptingWrite();
        const before = this.#keys.readMany(wanted, true);
        const [first = ''] = wanted;
        const remove = () => (wanted.length === 1 ? this.#keys.remove(first) : this.#keys.removeMany(wanted));
        this.#writes.stageDelete(wanted, remove, before);
        const [values] = await Promise.all([before, engine.acknowledgement()]);
        return values.filter(isThere).length;
      },
      wait,
    );
  }

  /** Deletes all keys of this table. Hooks that hear of deletions are called for each key that is there. */
  clear(): boolean {
    const keys = this.#writes.chain?.hearsOfDeletes === true ? [...this.keys()] : [];
    return this.#writes.stageDelete(keys, () => this.#keys.clear());
  }

  /** Deletes all keys of this table; resolves when that is safe. */
  async aclear(wait?: WaitOptions): Promise<void> {
    return this.#acknowledged(this.#keys.bytesOfRemoves(['']), () => this.clear(), wait);
  }

  // ── the read cache ────────────────────────────────────────────────────────────────────────────────────────────────

  /** Whether a read of the key needs no SQLite: it is staged, in the read cache, or known there to be absent. */
  isCached(key: string): boolean {
    checkKey(key);
    this.core.assertOpen();
    return this.#keys.isCached(key);
  }

  /**
   * Lets the read cache forget what it has of a key, and reads it again, on this thread; without a key, lets it forget all. For
   * what another program has changed: what happens in this one it sees by itself.
   */
  refresh(key?: string): void {
    if (key === undefined) return this.clearCache();
    checkKey(key);
    this.core.assertOpen();
    this.#keys.forget(key);
    if (this.#keys.hasCache) this.#keys.read(key);
  }

  /** {@link Table.refresh}, read by a reader thread. */
  async arefresh(key?: string, wait: WaitOptions = {}): Promise<void> {
    checkWait(wait);
    if (key === undefined) return this.clearCache();
    checkKey(key);
    this.core.assertOpen();
    this.#keys.forget(key);
    if (this.#keys.hasCache) await waitFor(this.#keys.readMany([key]), 'the read', wait, this.core.clock);
  }

  /** {@link Table.get}, past the read cache, which takes what is found. What is staged is newer than anything, and comes first. */
  getFresh(key: string): T | undefined;
  getFresh<D>(key: string, fallback: D): T | D;
  getFresh(key: string, fallback?: unknown): unknown {
    checkKey(key);
    this.core.assertOpen();
    this.#keys.forget(key);
    return this.get(key, fallback);
  }

  /** {@link Table.getFresh}. What is not staged is read by a reader thread. The arguments are those of {@link Table.aget}. */
  agetFresh(key: string): Promise<T | undefined>;
  agetFresh<D>(key: string, fallback: D, wait?: WaitOptions): Promise<T | D>;
  async agetFresh(key: string, fallback?: unknown, wait?: WaitOptions): Promise<unknown> {
    if (wait === undefined) assertFallback(fallback);
    checkKey(key);
    this.core.assertOpen();
    this.#keys.forget(key);
    return this.aget(key, fallback, wait ?? {});
  }

  /**
   * Fills the read cache in the order of the keys, until it is full: nothing has to go for it. Returns how many values the cache
   * then has; 0 for a table that has none. Reads on this thread: for large tables, {@link Table.aloadAll} is kinder.
   */
  loadAll(): number {
    this.core.assertOpen();
    return this.#keys.load();
  }

  /**
   * {@link Table.loadAll}, read by a reader thread. What is written meanwhile stays; SQL, and a `clear`, end it early, since the
   * cache begins anew then.
   */
  async aloadAll(): Promise<number> {
    this.core.assertOpen();
    return this.#keys.loadAsync();
  }

  /** Lets the read cache forget everything. What is staged stays. */
  clearCache(): void {
    this.core.assertOpen();
    this.#keys.clearCache();
  }

  // ── the whole table ───────────────────────────────────────────────────────────────────────────────────────────────

  /** How many keys there are. Counts in SQLite on this thread: for large tables, {@link Table.asize} is kinder. */
  get size(): number {
    this.core.assertOpen();
    return this.#keys.count();
  }

  /** How many keys there are, counted by a reader thread. */
  async asize(wait: WaitOptions = {}): Promise<number> {
    checkWait(wait);
    this.core.assertOpen();
    return waitFor(this.#keys.countAsync(), 'asize', wait, this.core.clock);
  }

  /** All keys, in order. Lazy: see {@link Table.scan}. */
  *keys(): IterableIterator<string> {
    for (const [key] of this.#keys.scan({ keysOnly: true })) yield key;
  }

  /** All keys, in order. Lazy: see {@link Table.ascan}. */
  async *akeys(): AsyncIterableIterator<string> {
    for await (const [key] of this.#keys.scanAsync({ keysOnly: true })) yield key;
  }

  /** All values, in the order of their keys. */
  *values(): IterableIterator<T> {
    for (const [, value] of this.scan()) yield value;
  }

  /** All values, in the order of their keys. */
  async *avalues(): AsyncIterableIterator<T> {
    for await (const [, value] of this.ascan()) yield value;
  }

  /** All entries, in the order of their keys. */
  entries(): IterableIterator<[key: string, value: T]> {
    return this.scan();
  }

  /** All entries, in the order of their keys. */
  aentries(): AsyncIterableIterator<[key: string, value: T]> {
    return this.ascan();
  }

  /** All entries, as they are now, in a `Map` of your own. Of a large table {@link Table.scan} holds less. */
  copy(): Map<string, T> {
    return new Map(this.scan());
  }

  /** {@link Table.copy}, read by a reader thread. */
  async acopy(): Promise<Map<string, T>> {
    const copy = new Map<string, T>();
    for await (const [key, value] of this.ascan()) copy.set(key, value);
    return copy;
  }

  /** {@link Table.copy} as an object, for JSON say. */
  toDict(): Record<string, T> {
    return Object.fromEntries(this.scan());
  }

  /** {@link Table.acopy} as an object, for JSON say. */
  async atoDict(): Promise<Record<string, T>> {
    return Object.fromEntries(await this.acopy());
  }

  /** {@link Table.entries}, for `for (const [key, value] of table)`. */
  [Symbol.iterator](): IterableIterator<[key: string, value: T]> {
    return this.scan();
  }

  /** {@link Table.aentries}, for `for await (const [key, value] of table)`. */
  [Symbol.asyncIterator](): AsyncIterableIterator<[key: string, value: T]> {
    return this.ascan();
  }

  /**
   * The entries of a range of keys, lazily, as they are at the moment when the first one is asked for: writes made while
   * the scan runs are not in it. A scan that stays open for longer than `scanMaxAgeMs` ends with `SLUICE_TIMEOUT`.
   *
   * Two rules come from SQLite: keys are ordered by their UTF-8 bytes (https://sqlite.org/datatype3.html, BINARY), and
   * an open scan keeps the WAL from shrinking (https://sqlite.org/wal.html).
   */
  scan(options: ScanOptions = {}): IterableIterator<[key: string, value: T]> {
    return decoded(this.#keys.scan(toRange(options)), (key, value) => this.#toReader(key, value));
  }

  /** The entries of a range of keys, read page by page by a reader thread. The same rules as for {@link Table.scan}. */
  ascan(options: ScanOptions = {}): AsyncIterableIterator<[key: string, value: T]> {
    return decodedAsync(this.#keys.scanAsync(toRange(options)), (key, value) => this.#toReader(key, value));
  }

  // ── inside ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #isThere(key: string): boolean {
    this.core.assertOpen();
    return isThere(this.#keys.read(key));
  }

  #putWithin(write: PendingWrite, wait: WaitOptions | undefined): Promise<void> {
    const { key, encoded } = write;
    const put = () => this.#writes.stage([write], () => this.#keys.put(key, encoded));
    return this.#writes.start([write], () => this.#acknowledged(this.#keys.bytesOfPut(key, encoded), put, wait));
  }

  #groupWithin(writes: readonly PendingWrite[], wait: WaitOptions | undefined): Promise<void> {
    const group = () => this.#writes.stage(writes, () => this.#keys.putMany(writes));
    const bytes = this.#keys.bytesOfPuts(writes);
    return this.#writes.start(writes, () => this.#acknowledged(bytes, group, wait));
  }

  readonly #decode = (key: string, stored: Found): T => this.#keys.decode(key, stored) as T;

  /** A stored value as a reader gets it. */
  #toReader(key: string, stored: Found): T {
    return this.#afterRead(key, this.#decode(key, stored));
  }

  #afterRead(key: string, value: T): T {
    return this.#writes.chain?.changesReads === true ? this.#writes.chain.afterRead(key, value) : value;
  }

  /** The keys of a write, checked. */
  #checkKeys(keys: Iterable<string>): string[] {
    try {
      return checkedKeys(keys);
    } catch (error) {
      throw this.core.engine.countInvalid(error);
    }
  }

  #acknowledged(bytes: number, write: () => boolean, wait: WaitOptions | undefined): Promise<void> {
    checkWait(wait);
    const { engine } = this.core;
    engine.assertMayAwait();
    if (engine.admission.hasRoom(bytes)) {
      write();
      return this.#settle(engine.acknowledgement(), wait);
    }
    return this.#admitted(
      bytes,
      () => {
        write();
        return engine.acknowledgement();
      },
      wait,
    );
  }

  /** Runs a write as soon as there is room for it: now, if there is. */
  #admitted<R>(bytes: number, write: () => Promise<R>, wait: WaitOptions = {}): Promise<R> {
    checkWait(wait);
    const { engine } = this.core;
    engine.assertMayAwait();
    const done = engine.admission.hasRoom(bytes) ? write() : engine.whenRoom(bytes, write, wait);
    return this.#settle(done, wait);
  }

  #settle<R>(done: Promise<R>, wait: WaitOptions | undefined): Promise<R> {
    return wait === undefined ? done : waitFor(done, 'the write', wait, this.core.clock);
  }
}

function modelOf<M>(key: string, value: unknown, schema: Schema<M, unknown>, make: typeof validated = validated): M {
  const problem = schemaProblem(schema);
  if (problem !== undefined) throw new SluiceError('SLUICE_INVALID_OPTION', `the schema ${problem}`);
  return make({ schema, coerce: true }, value, `the value of ${show(key)}`) as M;
}

/** Limits in the place of a fallback would be taken for one, and limit nothing: every other awaitable read has them second. */
function assertFallback(fallback: unknown): void {
  if (!isWait(fallback)) return;
  throw new SluiceError(
    'SLUICE_INVALID_OPTION',
    `the fallback has nothing but ${Object.keys(fallback).join(' and ')}: limits of the wait come third, (key, undefined, limits); if it is meant as a fallback, say (key, fallback, {})`,
  );
}

function isThere(value: Stored): value is Exclude<Found, null> {
  return value !== undefined && value !== null;
}

function checkedKeys(keys: Iterable<string>): string[] {
  const wanted = listOf(keys, 'keys');
  for (const key of wanted) checkKey(key);
  return wanted;
}
