import { SluiceError } from '../base/errors.ts';
import type { AsciiText } from '../base/frame/index.ts';
import type { Encoded } from '../engine/index.ts';
import { decodeValue, encodeNow, encodeValue } from './codec.ts';
import type { Core } from './core.ts';
import { type Entries, entriesOf } from './entries.ts';
import { HookChain, type HookedStore, type PendingWrite, type TableHook } from './hooks.ts';
import { checkKey } from './keys.ts';
import type { ResolvedTableOptions } from './table-options.ts';

/**
 * What a table is given on its way to staging: past its hooks and its validator, which may refuse it, or make something else of it,
 * and which are told when it is staged. From the one to the other a write is pending, for hooks see it already: whoever prepares
 * a write sees to it that it is told of or settled, whatever happens.
 */
export class CheckedWrites<T, In> {
  readonly #engine: Core['engine'];
  readonly #store: HookedStore<T>;
  #chain: HookChain<T> | undefined;

  constructor({ engine }: Core, store: HookedStore<T>, options: ResolvedTableOptions) {
    this.#engine = engine;
    this.#store = store;
    this.use(options);
  }

  /** `undefined` where there is nothing to do: the path of a write is the shorter then. */
  get chain(): HookChain<T> | undefined {
    return this.#chain;
  }

  /** From now on these hooks, and this validator. */
  use({ hooks, validator, coerce }: ResolvedTableOptions): void {
    if (hooks.length === 0 && validator === undefined) return;
    const validation = validator === undefined ? undefined : { schema: validator, coerce };
    this.#chain = new HookChain(this.#store, hooks as readonly TableHook<T>[], validation, this.#chain);
  }

  /** What a write wants to write, where there is no chain: to be staged at once. */
  encode(key: string, value: In): Encoded | AsciiText {
    try {
      checkKey(key);
      return encodeNow(value);
    } catch (error) {
      throw this.#engine.countInvalid(error);
    }
  }

  /** What a write wants to write: checked, as the hooks and the validator leave it. */
  prepare(key: string, value: In): PendingWrite {
    try {
      return this.#checked(key, value);
    } catch (error) {
      throw this.#engine.countInvalid(error);
    }
  }

  prepareAll(entries: Entries<In>): PendingWrite[] {
    const writes: PendingWrite[] = [];
    try {
      for (const [key, value] of entriesOf(entries)) writes.push(this.#checked(key, value));
      return writes;
    } catch (error) {
      this.settle(writes);
      throw this.#engine.countInvalid(error);
    }
  }

  /** Those that can be written, and why the others cannot. Of several for one key the last one counts, as in a write. */
  prepareEach(entries: Entries<In>): { writes: PendingWrite[]; refused: Map<string, SluiceError> } {
    const writes: PendingWrite[] = [];
    const refused = new Map<string, SluiceError>();
    let pairs: readonly (readonly [string, In])[];
    try {
      pairs = entriesOf(entries);
    } catch (error) {
      throw this.#engine.countInvalid(error);
    }
    for (const [key, value] of new Map(pairs)) {
      try {
        writes.push(this.prepare(key, value));
      } catch (error) {
        if (!(error instanceof SluiceError)) throw error;
        refused.set(key, error);
      }
    }
    return { writes, refused };
  }

  /** Stages writes, and tells the hooks that hear of it. */
  stage<R>(writes: readonly PendingWrite[], stage: () => R): R {
    const chain = this.#chain;
    if (chain === undefined) return stage();
    const latest = new Map<string, T | undefined>();
    let result: R;
    try {
      if (chain.hearsOfWrites) for (const { key } of writes) latest.set(key, this.#store.valueOf(key));
      result = stage();
    } finally {
      this.settle(writes);
    }
    if (!chain.hearsOfWrites) return result;
    for (const { key, encoded } of writes) {
      const value = decodeValue(encoded) as T;
      chain.onWriteSuccess(key, value, latest.get(key));
      latest.set(key, value);
    }
    return result;
  }

  /** Writes are staged, or never will be: hooks see them as the table has them. */
  settle(writes: readonly PendingWrite[]): void {
    for (const write of writes) this.#chain?.settle(write);
  }

  /** Starts what stages writes, now or when there is room. Until then they may be called off. */
  start<R>(writes: readonly PendingWrite[], start: () => Promise<R>): Promise<R> {
    if (this.#chain === undefined) return start();
    try {
      const done = start();
      for (const write of writes) write.waiting = true;
      done.catch(() => this.settle(writes));
      return done;
    } catch (error) {
      this.settle(writes);
      throw error;
    }
  }

  /** Stages the deletion of keys, if the hooks let it; those that are not there are none of their business. */
  stageDelete<R>(keys: readonly string[], stage: () => R, alongside?: Promise<unknown>): R {
    const chain = this.#chain;
    if (chain?.hearsOfDeletes !== true) return stage();
    const there: [key: string, value: T][] = [];
    try {
      for (const key of keys) {
        const value = this.#store.valueOf(key);
        if (value === undefined) continue;
        there.push([key, value]);
        chain.beforeDelete(key);
      }
    } catch (error) {
      // Nobody waits any more for what was looked up for this.
      alongside?.catch(() => undefined);
      throw this.#engine.countInvalid(error);
    }
    const result = stage();
    for (const [key, value] of there) chain.onDeleteSuccess(key, value);
    return result;
  }

  #checked(key: string, value: In): PendingWrite {
    checkKey(key);
    if (this.#chain === undefined) return { key, encoded: encodeValue(value), waiting: false };
    const write = { key, encoded: encodeValue(this.#chain.beforeWrite(key, value)), waiting: false };
    this.#chain.pend(write);
    return write;
  }
}
