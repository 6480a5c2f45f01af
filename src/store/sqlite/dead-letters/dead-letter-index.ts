import { foldName } from '../../../base/fold-name.ts';

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

function keyOf(key: TableKey): string {
  return key.slice(key.indexOf('\0') + 1);
}

/** The letters of one table. */
interface TableLetters {
  readonly byKey: Map<string, Set<KeyedLetter>>;
  readonly clears: Set<KeyedLetter>;
}

type Letters = ReadonlySet<KeyedLetter>;

const NONE: Letters = new Set();

/**
 * Which keys have dead letters, in memory: every applied key has to be checked against it. Order among letters is that of
 * their writes, and for those of one number (imported ones) that of their ids.
 */
export class DeadLetterIndex {
  readonly #letters = new Map<number, KeyedLetter>();
  readonly #tables = new Map<string, TableLetters>();

  get isEmpty(): boolean {
    return this.#letters.size === 0;
  }

  /** Whether a write of the key is about any letter. On the hot path: asked for every write while there are letters. */
  concerns(table: string, key: string): boolean {
    const letters = this.#tables.get(foldName(table));
    return letters !== undefined && (letters.clears.size > 0 || letters.byKey.has(key));
  }

  get(id: number): KeyedLetter | undefined {
    return this.#letters.get(id);
  }

  add(letter: KeyedLetter): void {
    this.#letters.set(letter.id, letter);
    for (const name of letter.keys) {
      const { byKey } = this.#tableOf(tableOf(name));
      const key = keyOf(name);
      const others = byKey.get(key);
      if (others === undefined) byKey.set(key, new Set([letter]));
      else others.add(letter);
    }
    if (letter.clears !== undefined) this.#tableOf(letter.clears).clears.add(letter);
  }

  /** Leaves the letter itself as it is. */
  remove(letter: KeyedLetter): void {
    for (const key of letter.keys) this.#removeKey(letter, key);
    if (letter.clears !== undefined) this.#tables.get(letter.clears)?.clears.delete(letter);
    this.#letters.delete(letter.id);
  }

  /** A newer write has taken a key over. */
  loseKey(letter: KeyedLetter, key: TableKey): void {
    letter.keys.delete(key);
    this.#removeKey(letter, key);
  }

  ofKey(name: TableKey): Letters {
    return this.#tables.get(tableOf(name))?.byKey.get(keyOf(name)) ?? NONE;
  }

  clearsOf(table: string): Letters {
    return this.#tables.get(table)?.clears ?? NONE;
  }

  /** All that have a key in the table, or clear it. */
  ofTable(table: string): Letters {
    return new Set(this.#allOf(table).flatMap((letters) => [...letters]));
  }

  /**
   * A letter and all newer ones that are about its keys, and about theirs, newest first: in this order the newest write
   * of each key that can be applied is the one that is.
   */
  newestFirst(letter: KeyedLetter): KeyedLetter[] {
    const found = new Set([letter]);
    // From which letter on the others are in already: a key may have thousands, and each would lead to all of them.
    const seen = new Map<Letters, KeyedLetter>();
    // A set hands out what is added while it is walked over.
    for (const each of found) {
      for (const others of this.#sharing(each)) {
        const from = seen.get(others);
        if (from !== undefined && !isOlder(each, from.seq, from.id)) continue;
        seen.set(others, each);
        for (const other of others) if (isOlder(each, other.seq, other.id)) found.add(other);
      }
    }
    return [...found].sort((a, b) => (isOlder(a, b.seq, b.id) ? 1 : -1));
  }

  *#sharing({ keys, clears }: KeyedLetter): Generator<Letters> {
    for (const key of keys) {
      yield this.ofKey(key);
      yield this.clearsOf(tableOf(key));
    }
    if (clears !== undefined) yield* this.#allOf(clears);
  }

  #allOf(table: string): Letters[] {
    const letters = this.#tables.get(table);
    return letters === undefined ? [] : [...letters.byKey.values(), letters.clears];
  }

  #removeKey(letter: KeyedLetter, name: TableKey): void {
    const byKey = this.#tables.get(tableOf(name))?.byKey;
    const others = byKey?.get(keyOf(name));
    others?.delete(letter);
    if (others?.size === 0) byKey?.delete(keyOf(name));
  }

  #tableOf(name: string): TableLetters {
    let letters = this.#tables.get(name);
    if (letters === undefined) {
      letters = { byKey: new Map(), clears: new Set() };
      this.#tables.set(name, letters);
    }
    return letters;
  }
}

/** Whether a letter comes before the write `seq`, or before the letter `id` of that number. */
export function isOlder(letter: KeyedLetter, seq: number, id: number): boolean {
  return letter.seq < seq || (letter.seq === seq && letter.id < id);
}
