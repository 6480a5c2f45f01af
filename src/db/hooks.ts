import { messageOf, SluiceError } from '../base/errors.ts';
import { type OptionReader, show } from '../base/options.ts';
import type { Encoded } from '../engine/index.ts';
import { decodeValue } from './codec.ts';
import { answersLate, isThenable, storable, type Validation } from './schema.ts';
import { tell } from './tell.ts';

/** A value that a key has, or may come to have. */
export interface KeyVersion<T> {
  readonly value: T;
  /**
   * - `'stored'` the key has it
   * - `'waiting'` a write that waits for room, and may be called off
   * - `'checked'` an entry before this one in the same call: it is staged if this one is, and takes the place of all others
   */
  readonly is: 'stored' | 'waiting' | 'checked';
}

/**
 * The table that a hook is called for, as it is stored: without what `afterRead` makes of it. Writes that were checked and are
 * not staged yet (the entries before this one in a call for several, and those that wait for room) are there as well. The
 * same object for the same table at every call.
 */
export interface HookedTable<T> {
  readonly name: string;
  /** The value of a key, the newest one that was checked; `undefined` where there is none. */
  get(key: string): T | undefined;
  /** Whether there is one. */
  has(key: string): boolean;
  /** All that a key can have when this write is staged, the newest last. */
  versions(key: string): readonly KeyVersion<T>[];
  /** Whether it is this very table, which a table of the same name in another database is not. */
  is(table: unknown): boolean;
  /** All of it, in no order; a key may come several times, the newer value last. */
  entries(): Iterable<readonly [key: string, value: T]>;
  /**
   * Another number than before, if something else than the writes that the hook has seen may have changed the table: SQL, a
   * retried dead letter, a write that died.
   */
  readonly foreignChanges: number;
}

/**
 * Looks at what is written to a key-value table and read from it; changes it, or refuses it. Every part is optional, and
 * called at every way in and out, those for many keys included. All are synchronous: a promise is refused with
 * `SLUICE_UNSUPPORTED`. Hooks are called in the order in which they were given, with the table as the last argument.
 *
 * What `beforeWrite`, `checkWrite` or `beforeDelete` throws refuses the whole call: `SLUICE_VALIDATION` with what was thrown as its
 * `cause`, or the very `SluiceError` that was thrown. Nothing of a refused call is accepted.
 *
 * @example
 * ```ts
 * import { open, type TableHook } from 'sluicedb';
 *
 * interface Reading {
 *   celsius: number;
 *   at?: number;
 * }
 * const stamped: TableHook<Reading> = {
 *   beforeWrite(key, value) {
 *     if (!key.startsWith('room/')) throw new Error('keys begin with room/');
 *     return { ...value, at: 1_700_000_000_000 };
 *   },
 * };
 * const db = await open(':memory:');
 * const rooms = db.table<Reading>('rooms', { hooks: [stamped] });
 * rooms.set('room/kitchen', { celsius: 21.5 });
 * console.log(rooms.get('room/kitchen')); // { celsius: 21.5, at: 1700000000000 }
 * await db.close();
 * ```
 */
export interface TableHook<T = unknown, In = T> {
  /** The keys that it is for: those that match, or that it returns true for. @defaultValue all */
  readonly keys?: RegExp | ((key: string) => boolean) | undefined;
  /** Returns the value to write: the one it was given, or another one. */
  beforeWrite?(key: string, value: In, table: HookedTable<T>): In;
  /** Looks at the value as it will be stored, after all `beforeWrite` and the validator; throws to refuse it. */
  checkWrite?(key: string, value: T, table: HookedTable<T>): void;
  /**
   * The write is staged: every read sees it. `oldValue` is what the key had, `undefined` for nothing; looking it up costs a
   * read on this thread for each write. What it throws is thrown outside of the call, as by an event listener.
   */
  onWriteSuccess?(key: string, value: T, oldValue: T | undefined, table: HookedTable<T>): void;
  /** Returns the value that the reader gets. Does not see what is not there. */
  afterRead?(key: string, value: T, table: HookedTable<T>): T;
  /** A key that is there is about to be deleted. */
  beforeDelete?(key: string, table: HookedTable<T>): void;
  /** The deletion is staged. As of {@link TableHook.onWriteSuccess}. */
  onDeleteSuccess?(key: string, oldValue: T, table: HookedTable<T>): void;
}

const PARTS = ['beforeWrite', 'checkWrite', 'onWriteSuccess', 'afterRead', 'beforeDelete', 'onDeleteSuccess'] as const;

/** Reads the option `hooks`: a list of objects, each with at least one of some functions. */
export function readHookList(options: OptionReader, parts: readonly string[] = PARTS): readonly object[] | undefined {
  const hooks = options.any('hooks');
  if (hooks === undefined) return undefined;
  if (!Array.isArray(hooks)) {
    options.refuse('hooks', `must be a list of hooks, not ${show(hooks)}`);
    return undefined;
  }
  for (const [i, hook] of hooks.entries()) {
    const problem = hookProblem(hook, parts);
    if (problem !== undefined) options.refuse(`hooks[${i}]`, problem);
  }
  return hooks as object[];
}

/** What is wrong with a hook, if anything. */
export function hookProblem(hook: unknown, known: readonly string[] = PARTS): string | undefined {
  const parts = Object(hook) as Readonly<Record<string, unknown>>;
  const wrong = known.find((part) => parts[part] !== undefined && typeof parts[part] !== 'function');
  if (wrong !== undefined) return `must have a function as ${wrong}, not ${show(parts[wrong])}`;
  if (!known.some((part) => parts[part] !== undefined)) {
    return `must be an object with at least one of the functions ${known.join(', ')}, not ${show(hook)}`;
  }
  const { keys } = parts;
  if (keys === undefined || typeof keys === 'function' || keys instanceof RegExp) return undefined;
  return `must have a RegExp or a function as keys, not ${show(keys)}`;
}

/** A write that was checked and is not staged. */
export interface PendingWrite {
  readonly key: string;
  readonly encoded: Encoded;
  /** It is in a queue, and may be called off while others are staged. */
  waiting: boolean;
}

/** What hooks need of a table. */
export interface HookedStore<T> {
  readonly table: { readonly name: string };
  /** The value of a key as it is stored. */
  valueOf(key: string): T | undefined;
  stored(): Iterable<readonly [key: string, value: T]>;
  readonly foreignChanges: number;
}

/** What a table does with what goes through it: its hooks, and then its validator. */
export class HookChain<T> implements HookedTable<T> {
  readonly #store: HookedStore<T>;
  readonly #hooks: readonly TableHook<T>[];
  readonly #validation: Validation | undefined;
  readonly #pending: Map<string, readonly PendingWrite[]>;
  /** Whether somebody is told what was written, or deleted, and so what was there before. */
  readonly hearsOfWrites: boolean;
  readonly hearsOfDeletes: boolean;
  readonly changesReads: boolean;

  constructor(
    store: HookedStore<T>,
    hooks: readonly TableHook<T>[],
    validation: Validation | undefined,
    before: HookChain<T> | undefined,
  ) {
    this.#store = store;
    this.#pending = before === undefined ? new Map() : before.#pending;
    this.#hooks = hooks;
    this.#validation = validation;
    const has = (...parts: (typeof PARTS)[number][]) => hooks.some((hook) => parts.some((part) => hook[part]));
    this.hearsOfWrites = has('onWriteSuccess');
    this.hearsOfDeletes = has('beforeDelete', 'onDeleteSuccess');
    this.changesReads = has('afterRead');
  }

  // ── what a hook sees ──

  get name(): string {
    return this.#store.table.name;
  }

  get foreignChanges(): number {
    return this.#store.foreignChanges;
  }

  get(key: string): T | undefined {
    const last = this.#pending.get(key)?.at(-1);
    return last === undefined ? this.#store.valueOf(key) : this.#written(last);
  }

  has(key: string): boolean {
    return this.get(key) !== undefined;
  }

  versions(key: string): readonly KeyVersion<T>[] {
    const stored = this.#store.valueOf(key);
    const versions: KeyVersion<T>[] = stored === undefined ? [] : [{ value: stored, is: 'stored' }];
    for (const write of this.#pending.get(key) ?? []) {
      versions.push({ value: this.#written(write), is: write.waiting ? 'waiting' : 'checked' });
    }
    return versions;
  }

  is(table: unknown): boolean {
    return table === this.#store.table;
  }

  *entries(): Iterable<readonly [key: string, value: T]> {
    yield* this.#store.stored();
    for (const [key, writes] of this.#pending) for (const write of writes) yield [key, this.#written(write)];
  }

  // ── what a table calls ──

  /** The value to write: as the hooks make it, as the validator makes that, if no hook minds it. */
  beforeWrite(key: string, given: unknown): T {
    let value = given as T;
    for (const hook of refusing(refusedKey(key), () => this.#for('beforeWrite', key))) {
      value = refusing(refusedKey(key), () => hook.beforeWrite?.(key, value, this) as T);
    }
    if (this.#validation !== undefined) value = storable(this.#validation, value, `the value of ${show(key)}`);
    for (const hook of refusing(refusedKey(key), () => this.#for('checkWrite', key))) {
      refusing(refusedKey(key), () => hook.checkWrite?.(key, value, this));
    }
    return value;
  }

  /** A write is checked: hooks see it until it is settled. */
  pend(write: PendingWrite): void {
    this.#pending.set(write.key, [...(this.#pending.get(write.key) ?? []), write]);
  }

  /** A write is staged, or never will be. */
  settle(write: PendingWrite): void {
    const left = this.#pending.get(write.key)?.filter((other) => other !== write) ?? [];
    if (left.length === 0) this.#pending.delete(write.key);
    else this.#pending.set(write.key, left);
  }

  onWriteSuccess(key: string, value: T, oldValue: T | undefined): void {
    const hooks = tell(() => this.#for('onWriteSuccess', key)) ?? [];
    for (const hook of hooks) telling('onWriteSuccess', () => hook.onWriteSuccess?.(key, value, oldValue, this));
  }

  afterRead(key: string, stored: T): T {
    let value = stored;
    for (const hook of this.#for('afterRead', key)) value = hook.afterRead?.(key, value, this) as T;
    if (isThenable(value)) throw answersLate('the hook afterRead', value);
    return value;
  }

  beforeDelete(key: string): void {
    for (const hook of refusing(refusedKey(key), () => this.#for('beforeDelete', key))) {
      refusing(refusedKey(key), () => hook.beforeDelete?.(key, this));
    }
  }

  onDeleteSuccess(key: string, oldValue: T): void {
    const hooks = tell(() => this.#for('onDeleteSuccess', key)) ?? [];
    for (const hook of hooks) telling('onDeleteSuccess', () => hook.onDeleteSuccess?.(key, oldValue, this));
  }

  /** As it will be read, whatever became of the object that was given. */
  #written({ encoded }: PendingWrite): T {
    return decodeValue(encoded) as T;
  }

  #for(part: (typeof PARTS)[number], key: string): readonly TableHook<T>[] {
    return this.#hooks.filter((hook) => {
      if (hook[part] === undefined || hook.keys === undefined) return hook[part] !== undefined;
      // Unlike test(), it does not care where a regex with the flag g has got to.
      if (typeof hook.keys !== 'function') return key.search(hook.keys) >= 0;
      const answer = hook.keys(key);
      if (isThenable(answer)) throw answersLate('the function keys of a hook', answer);
      return answer;
    });
  }
}

/** Tells a hook what is done. Nothing waits for a promise, and what it ends with would be lost. */
export function telling(part: string, call: () => unknown): void {
  tell(() => {
    const answer = call();
    if (isThenable(answer)) throw answersLate(`the hook ${part}`, answer);
  });
}

const refusedKey = (key: string) => `a hook refused the key ${show(key)}`;

/** Calls a hook that may say no, by throwing. */
export function refusing<R>(what: string, call: () => R): R {
  let answer: R;
  try {
    answer = call();
  } catch (cause) {
    if (cause instanceof SluiceError) throw cause;
    throw new SluiceError('SLUICE_VALIDATION', `${what}: ${messageOf(cause)}`, { cause });
  }
  if (isThenable(answer)) throw answersLate('the hook', answer);
  return answer;
}
