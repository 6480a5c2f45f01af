import { foldName } from '../../base/fold-name.ts';

/** A dead letter that newer writes can make pointless: a put, a delete, a group with such members, a `clear`. */
export interface KeyedLetter {
  readonly id: number;
  readonly seq: number;
  /** The keys in it that nobody has written since. */
  readonly keys: Set<TableKey>;
  /** The table that it clears, folded. */
  readonly clears: string | undefined;
  /** Whether it does not end with its keys: a group with rows, a `clear`. */
  readonly hasMore: boolean;
}

/** A key and its table in one string. No table name has a NUL. */
export type TableKey = `${string}\0${string}`;

export function tableKey(table: string, key: string): TableKey {
  return `${foldName(table)}\0${key}`;
}

export function tableOf(key: TableKey): string {
  return key.slice(0, key.indexOf('\0'));
}

interface TableLetters {
  /** All that have a key in the table. */
  readonly keyed: Set<KeyedLetter>;
  readonly clears: Set<KeyedLetter>;
}

const NONE: readonly KeyedLetter[] = [];

/**
 * Which keys have dead letters, in memory: every applied key has to be checked against it. Order among letters is that of
 * their writes, and for those of one number (imported ones) that of their ids.
 */
export class DeadLetterIndex {
  readonly #letters = new Map<number, KeyedLetter>();
  readonly #byKey = new Map<TableKey, Set<KeyedLetter>>();
  readonly #tables = new Map<string, TableLetters>();

  get isEmpty(): boolean {
    return this.#letters.size === 0;
  }

  get(id: number): KeyedLetter | undefined {
    return this.#letters.get(id);
  }

  add(letter: KeyedLetter): void {
    this.#letters.set(letter.id, letter);
    for (const key of letter.keys) {
      const others = this.#byKey.get(key);
      if (others === undefined) this.#byKey.set(key, new Set([letter]));
      else others.add(letter);
      this.#tableOf(tableOf(key)).keyed.add(letter);
    }
    if (letter.clears !== undefined) this.#tableOf(letter.clears).clears.add(letter);
  }

  remove(id: number): void {
    const letter = this.#letters.get(id);
    if (letter === undefined) return;
    for (const key of letter.keys) this.loseKey(letter, key);
    if (letter.clears !== undefined) this.#tables.get(letter.clears)?.clears.delete(letter);
    this.#letters.delete(id);
  }

  /** A newer write has taken a key over. */
  loseKey(letter: KeyedLetter, key: TableKey): void {
    letter.keys.delete(key);
    const others = this.#byKey.get(key);
    others?.delete(letter);
    if (others?.size === 0) this.#byKey.delete(key);
    const table = tableOf(key);
    for (const left of letter.keys) if (tableOf(left) === table) return;
    this.#tables.get(table)?.keyed.delete(letter);
  }

  ofKey(key: TableKey): Iterable<KeyedLetter> {
    return this.#byKey.get(key) ?? NONE;
  }

  clearsOf(table: string): Iterable<KeyedLetter> {
    return this.#tables.get(table)?.clears ?? NONE;
  }

  /** All that have a key in the table, or clear it. */
  ofTable(table: string): KeyedLetter[] {
    const letters = this.#tables.get(table);
    return letters === undefined ? [] : [...letters.keyed, ...letters.clears];
  }

  /**
   * A letter and all newer ones that are about its keys, and about theirs, newest first: in this order the newest write
   * of each key that can be applied is the one that is.
   */
  newestFirst(letter: KeyedLetter): KeyedLetter[] {
    const found = new Set([letter]);
    // The letter of each name from which on all are found: a key may have very many.
    const reached = new Map<string, KeyedLetter>();
    // A set hands out what is added while it is walked over.
    for (const each of found) {
      for (const [name, others] of this.#sharing(each)) {
        const from = reached.get(name);
        if (from !== undefined && !isOlder(each, from.seq, from.id)) continue;
        reached.set(name, each);
        for (const other of others) if (isOlder(each, other.seq, other.id)) found.add(other);
      }
    }
    return [...found].sort((a, b) => (isOlder(a, b.seq, b.id) ? 1 : -1));
  }

  /** What has something in common with a letter, by the name of it: a key has a NUL in its name. */
  *#sharing({ keys, clears }: KeyedLetter): Generator<[name: string, letters: Iterable<KeyedLetter>]> {
    for (const key of keys) {
      const table = tableOf(key);
      yield [key, this.ofKey(key)];
      yield [`clears ${table}`, this.clearsOf(table)];
    }
    if (clears !== undefined) yield [`all ${clears}`, this.ofTable(clears)];
  }

  #tableOf(name: string): TableLetters {
    let letters = this.#tables.get(name);
    if (letters === undefined) {
      letters = { keyed: new Set(), clears: new Set() };
      this.#tables.set(name, letters);
    }
    return letters;
  }
}

/** Whether a letter comes before the write `seq`, or before the letter `id` of that number. */
export function isOlder(letter: KeyedLetter, seq: number, id: number): boolean {
  return letter.seq < seq || (letter.seq === seq && letter.id < id);
}
