import { SluiceError } from '../base/errors.ts';
import { show } from '../base/options.ts';
import type { HookedTable, TableHook } from './hooks.ts';
import { answersLate, isThenable } from './schema.ts';

/** The part of a value that a constraint is about: a field of it, or what a function makes of key and value. */
export type Part<T> = (keyof T & string) | ((key: string, value: T) => unknown);

/** What all constraints take. */
export interface ConstraintOptions {
  /** The keys that it is for. @defaultValue all */
  readonly keys?: TableHook['keys'];
  /** What the error says. @defaultValue what is wrong, and where */
  readonly message?: string | undefined;
}

/** Refuses, with `SLUICE_VALIDATION`, what a function says no to. */
export class CheckHook<T = unknown> implements TableHook<T> {
  readonly keys: TableHook['keys'];
  readonly #check: (key: string, value: T) => boolean;
  readonly #message: string | undefined;

  /**
   * @example
   * ```ts
   * import { CheckHook, open } from 'sluicedb';
   *
   * const cold = new CheckHook<number>((_, celsius) => celsius >= -273.15, { message: 'colder than possible' });
   * const db = await open<number>(':memory:', { hooks: [cold] });
   * try {
   *   db.set('kitchen', -300);
   * } catch (error) {
   *   console.log((error as Error).message); // colder than possible
   * }
   * await db.close();
   * ```
   */
  constructor(check: (key: string, value: T) => boolean, { keys, message }: ConstraintOptions = {}) {
    this.#check = check;
    this.#message = message;
    this.keys = keys;
  }

  checkWrite(key: string, value: T): void {
    const answer = this.#check(key, value);
    if (isThenable(answer)) throw answersLate('the check', answer);
    if (answer !== true) throw refusal(this.#message ?? `the value of ${show(key)} does not pass its check`);
  }
}

/**
 * Refuses, with `SLUICE_VALIDATION`, a value that refers to a key which the other table does not have, staged or applied. To its
 * own table, a value may also refer to its own key, and to an entry before it in the same call.
 */
export class ForeignKeyHook<T = unknown> implements TableHook<T> {
  readonly keys: TableHook['keys'];
  readonly #part: Part<T>;
  readonly #target: { readonly name: string; has(key: string): boolean };
  readonly #message: string | undefined;

  /**
   * `target` is the table that is referred to. A part that is `undefined` or `null` refers to nothing, and passes. Nothing is
   * done when the key that is referred to is deleted.
   *
   * @example
   * ```ts
   * import { ForeignKeyHook, open } from 'sluicedb';
   *
   * const db = await open(':memory:');
   * const rooms = db.table('rooms');
   * const readings = db.table<{ room: string }>('readings', { hooks: [new ForeignKeyHook('room', rooms)] });
   * rooms.set('kitchen', {});
   * readings.set('1', { room: 'kitchen' });
   * console.log([...readings.setManyPartial({ 2: { room: 'cellar' } }).keys()]); // [ '2' ]
   * await db.close();
   * ```
   */
  constructor(
    part: Part<T>,
    target: { readonly name: string; has(key: string): boolean },
    { keys, message }: ConstraintOptions = {},
  ) {
    this.#part = part;
    this.#target = target;
    this.#message = message;
    this.keys = keys;
  }

  checkWrite(key: string, value: T, table: HookedTable<T>): void {
    const reference = partOf(this.#part, key, value);
    if (reference === undefined || reference === null) return;
    if (typeof reference === 'string' && this.#isThere(reference, key, table)) return;
    throw refusal(
      this.#message ??
        `the value of ${show(key)} refers to ${show(reference)}, which ${this.#target.name} does not have`,
    );
  }

  #isThere(reference: string, key: string, table: HookedTable<T>): boolean {
    if (!table.is(this.#target)) return this.#target.has(reference);
    return reference === key || table.versions(reference).some(({ is }) => is !== 'waiting');
  }
}

/** An index is read anew when it has grown to this, or to twice of what was found: it also has what is not there any more. */
const INDEX_MIN = 1_000;

/** Which keys have which part: one, unless it was there before the hook. It says where to look, and no more. */
interface Index {
  readonly keysOf: Map<string, string | string[]>;
  readonly max: number;
  readonly foreignChanges: number;
}

/**
 * Refuses, with `SLUICE_VALIDATION`, a value whose part another key has: staged or applied, or before it in the same call. The
 * first write reads the whole table on this thread, to know where which value is.
 *
 * Not seen: what other programs write, and a staged SQL statement before it is applied. Not prevented: that a key gets its older
 * value back because the newer one became a dead letter, after another key took the older one.
 */
export class UniqueHook<T = unknown> implements TableHook<T> {
  readonly keys: TableHook['keys'];
  readonly #part: Part<T>;
  readonly #message: string | undefined;
  readonly #indexes = new WeakMap<HookedTable<T>, Index>();

  /**
   * A part that is `undefined` or `null` is no value, and may be there many times.
   *
   * @example
   * ```ts
   * import { open, UniqueHook } from 'sluicedb';
   *
   * interface User {
   *   email: string;
   * }
   * const db = await open(':memory:');
   * const users = db.table<User>('users', { hooks: [new UniqueHook('email')] });
   * users.set('ada', { email: 'ada@example.org' });
   * console.log([...users.setManyPartial({ bob: { email: 'ada@example.org' } }).keys()]); // [ 'bob' ]
   * await db.close();
   * ```
   */
  constructor(part: Part<T>, { keys, message }: ConstraintOptions = {}) {
    this.#part = part;
    this.#message = message;
    this.keys = keys;
  }

  checkWrite(key: string, value: T, table: HookedTable<T>): void {
    const wanted = this.#of(key, value);
    if (wanted === undefined) return;
    const { keysOf } = this.#indexOf(table);
    const others = [keysOf.get(wanted) ?? []].flat().filter((holder) => {
      if (holder === key) return false;
      // It may have been overwritten or deleted, or refused, since it was noted.
      const versions = table
        .versions(holder)
        .map(({ value, is }) => ({ is, isWanted: this.#of(holder, value) === wanted }));
      const last = versions.at(-1);
      const isTaken = last?.is === 'checked' ? last.isWanted : versions.some(({ isWanted }) => isWanted);
      // What an entry of this call takes the place of stays if the call is refused.
      if (!isTaken) return versions.some(({ isWanted }) => isWanted);
      throw refusal(this.#message ?? `the value of ${show(key)} is not unique: ${show(holder)} has it`);
    });
    keysOf.set(wanted, others.length === 0 ? key : [...others, key]);
  }

  #of(key: string, value: T): string | undefined {
    const part = partOf(this.#part, key, value);
    if (part === undefined || part === null) return undefined;
    // As it is stored: a Date comes back as a string.
    return typeof part === 'bigint' ? `${part}n` : JSON.stringify(part);
  }

  #indexOf(table: HookedTable<T>): Index {
    const { foreignChanges } = table;
    const known = this.#indexes.get(table);
    if (known?.foreignChanges === foreignChanges && known.keysOf.size < known.max) return known;
    const keysOf: Index['keysOf'] = new Map();
    for (const [key, value] of table.entries()) {
      const part = this.#of(key, value);
      if (part === undefined) continue;
      const others = keysOf.get(part);
      if (others === undefined) keysOf.set(part, key);
      else if (Array.isArray(others)) others.push(key);
      else keysOf.set(part, [others, key]);
    }
    const index = { keysOf, max: Math.max(INDEX_MIN, keysOf.size * 2), foreignChanges };
    this.#indexes.set(table, index);
    return index;
  }
}

function partOf<T>(part: Part<T>, key: string, value: T): unknown {
  if (typeof part === 'function') {
    const answer = part(key, value);
    if (isThenable(answer)) throw answersLate('the function of a constraint', answer);
    return answer;
  }
  return typeof value === 'object' && value !== null ? value[part] : undefined;
}

function refusal(message: string): SluiceError {
  return new SluiceError('SLUICE_VALIDATION', message);
}
