import type { Write } from './writes.ts';

/**
 * The rules of the dead-letter queue, said as plainly as can be, together with the database that they are about.
 *
 * A value is `word#number`, and a word can be forbidden at any time. The key tables `guard` and `other` refuse a forbidden
 * word, and the delete of a key `k` where `del:k` is forbidden, by triggers; `plain` and `late` are plain tables, which
 * refuse a word only where the connection is told to find it too big. Rows go to `events` and `staged`, which have
 * triggers too, and to `owned`, where a row without an owner makes COMMIT fail.
 */
export const SCHEMA = `
  CREATE TABLE forbidden (word TEXT PRIMARY KEY, how TEXT);
  CREATE TABLE plain (key TEXT PRIMARY KEY, value TEXT);
  CREATE TABLE guard (key TEXT PRIMARY KEY, value TEXT);
  CREATE TABLE other (key TEXT PRIMARY KEY, value TEXT);
  CREATE TABLE events (value TEXT);
  CREATE TABLE staged (value TEXT);
  CREATE TABLE owner (key TEXT PRIMARY KEY);
  CREATE TABLE owned (value TEXT, owner TEXT REFERENCES owner (key) DEFERRABLE INITIALLY DEFERRED);
  ${['guard', 'other', 'events', 'staged'].map((table) => guardOn(table, 'INSERT', wordOf('NEW.value'))).join('')}
  ${['guard', 'other'].map((table) => guardOn(table, 'UPDATE', wordOf('NEW.value'))).join('')}
  ${['guard', 'other'].map((table) => guardOn(table, 'DELETE', "'del:' || OLD.key")).join('')}
`;

function wordOf(column: string): string {
  return `substr(${column}, 1, instr(${column}, '#') - 1)`;
}

/** After the row is there, so that FAIL would leave it there. */
function guardOn(table: string, on: string, word: string): string {
  return `CREATE TRIGGER ${table}_${on} AFTER ${on} ON ${table} BEGIN
    SELECT CASE (SELECT how FROM forbidden WHERE word = ${word})
      WHEN 'abort' THEN RAISE(ABORT, 'no') WHEN 'fail' THEN RAISE(FAIL, 'no') WHEN 'rollback' THEN RAISE(ROLLBACK, 'no')
    END; END;`;
}

export const APPEND_EVENT = 'INSERT INTO events VALUES (?)';
export const APPEND_OWNED = 'INSERT INTO owned VALUES (?, ?)';
/** The second row can be refused when the first is there already. */
export const STAGE_TWO = 'INSERT INTO staged VALUES (?), (?)';
/** Sees what has been written before it. */
export const STAGE_FROM_PLAIN = 'INSERT INTO staged SELECT ? || value FROM plain WHERE key = ?';

/** A table and a key in one string. */
export type Place = string;

export function placeOf({ table, key }: { table: string; key: string }): Place {
  return `${table.toLowerCase()}\0${key}`;
}

/** What SQLite holds, and what it refuses. */
export class World {
  tables = new Map<string, Map<string, string>>();
  rows = new Map<string, string[]>();
  readonly forbidden = new Map<string, string>();
  readonly owners = new Set<string>();
  /** What the plain tables refuse. */
  readonly tooBig = new Set<string>();

  /** All of it, or nothing. */
  perform(write: Write, spared: ReadonlySet<Place> = new Set()): boolean {
    const before = structuredClone({ tables: this.tables, rows: this.rows });
    if (this.#perform(write, spared)) return true;
    this.tables = before.tables;
    this.rows = before.rows;
    return false;
  }

  keys(table: string): Map<string, string> {
    return getOrMake(this.tables, table.toLowerCase(), () => new Map<string, string>());
  }

  #perform(write: Write, spared: ReadonlySet<Place>): boolean {
    switch (write.kind) {
      case 'put': {
        const value = write.value as string;
        if (this.#refuses(write.table, value)) return false;
        this.keys(write.table).set(write.key, value);
        return true;
      }
      case 'delete':
        return this.#delete(write.table, write.key);
      case 'clear':
        return [...this.keys(write.table).keys()]
          .filter((key) => !spared.has(placeOf({ table: write.table, key })))
          .every((key) => this.#delete(write.table, key));
      case 'group':
        return write.members.every((member) => this.#perform(member, spared));
      case 'append':
      case 'stage':
        return this.#insert(write.sql, write.values as string[]);
      default:
        throw new Error(`${write.kind} has no rule here`);
    }
  }

  #delete(table: string, key: string): boolean {
    const keys = this.keys(table);
    if (isGuarded(table) && keys.has(key) && this.forbidden.has(`del:${key}`)) return false;
    keys.delete(key);
    return true;
  }

  #insert(sql: string, [first = '', second = '']: string[]): boolean {
    switch (sql) {
      case APPEND_OWNED:
        getOrMake(this.rows, 'owned', () => []).push(first);
        return this.owners.has(second);
      case APPEND_EVENT:
        getOrMake(this.rows, 'events', () => []).push(first);
        return !this.#refuses('events', first);
      case STAGE_TWO:
        getOrMake(this.rows, 'staged', () => []).push(first, second);
        return !this.#refuses('staged', first) && !this.#refuses('staged', second);
      case STAGE_FROM_PLAIN: {
        const value = this.keys('plain').get(second);
        if (value === undefined) return true;
        getOrMake(this.rows, 'staged', () => []).push(first + value);
        return !this.#refuses('staged', first);
      }
      default:
        throw new Error(`no rule for ${sql}`);
    }
  }

  #refuses(table: string, value: string): boolean {
    const word = value.slice(0, value.indexOf('#'));
    return isPlain(table) ? this.tooBig.has(word) : this.forbidden.has(word);
  }
}

export function isPlain(table: string): boolean {
  return table.toLowerCase() === 'plain' || table.toLowerCase() === 'late';
}

function isGuarded(table: string): boolean {
  return table.toLowerCase() === 'guard' || table.toLowerCase() === 'other';
}

/** A write that waits in the queue. */
export interface Letter {
  readonly write: Write;
  readonly seq: number;
  /** Where it comes from, if it is another database. */
  readonly origin: string | undefined;
  /** As SQLite has it. */
  id: number;
  attempts: number;
  /** The keys in it, or below it where it is a `clear`, that have been written since. */
  readonly overwritten: Set<Place>;
}

/** What a change of the queue has done. */
export interface Done {
  readonly applied: number[];
  readonly failed: number[];
  readonly superseded: number[];
}

export const seen = { partlyOverwritten: 0, spared: 0, triedAlong: 0 };

/** The database and its queue: writes one by one, and a retry as it is promised. */
export class QueueModel {
  readonly world = new World();
  letters: Letter[] = [];
  /** The last write that is applied or dead. */
  appliedSeq = 0;
  #lastId = 0;

  /** One write: the letters that it has superseded, or the one that it has become. */
  apply(seq: number, write: Write): { readonly superseded: Letter[]; readonly died: Letter | undefined } {
    this.appliedSeq = seq;
    if (this.world.perform(write)) return { superseded: this.#supersede(write, seq, 0), died: undefined };
    const died = { write, seq, origin: undefined, id: ++this.#lastId, attempts: 1, overwritten: new Set<Place>() };
    this.letters.push(died);
    return { superseded: [], died };
  }

  /** Each step is one entry that was tried. */
  *retry(ids: readonly number[], done: Done): Generator<void> {
    for (const id of ids) {
      if (done.failed.includes(id)) continue;
      for (const letter of this.#newestFirst(id)) {
        if (done.failed.includes(letter.id) || !this.letters.includes(letter)) continue;
        if (letter.id !== id) seen.triedAlong++;
        this.#try(letter, done);
        yield;
      }
    }
  }

  clear(ids: readonly number[]): Letter[] {
    return this.#remove((letter) => ids.includes(letter.id));
  }

  /** Whether it is taken. */
  import(letter: Letter, origin: string | undefined): boolean {
    const known = this.letters.some((each) =>
      origin === undefined ? each.origin === undefined && each.seq === letter.seq : each.origin === origin,
    );
    if (known) return false;
    const seq = origin === undefined ? letter.seq : this.appliedSeq;
    const { write, attempts, overwritten } = letter;
    this.letters.push({ write, seq, origin, attempts, id: ++this.#lastId, overwritten: new Set(overwritten) });
    return true;
  }

  evict(maxEntries: number): Letter[] {
    const oldest = [...this.letters].sort((a, b) => a.id - b.id);
    const evicted = oldest.slice(0, Math.max(0, oldest.length - maxEntries));
    this.letters = this.letters.filter((letter) => !evicted.includes(letter));
    return evicted;
  }

  /** Takes the ids over that SQLite has given. */
  rename(idOf: (letter: Letter) => number): void {
    for (const letter of this.letters) letter.id = idOf(letter);
    this.#lastId = Math.max(this.#lastId, ...this.letters.map(({ id }) => id));
  }

  #try(letter: Letter, done: Done): void {
    const write = liveOf(letter);
    if (!this.world.perform(write, letter.overwritten)) {
      letter.attempts++;
      done.failed.push(letter.id);
      return;
    }
    if (letter.overwritten.size > 0) {
      if (write.kind === 'group') seen.partlyOverwritten++;
      else seen.spared++;
    }
    this.#remove((each) => each === letter);
    done.applied.push(letter.id);
    done.superseded.push(...this.#supersede(write, letter.seq, letter.id).map(({ id }) => id));
  }

  /** A write is applied: older letters lose its keys, and end with the last of them. */
  #supersede(write: Write, seq: number, id: number): Letter[] {
    const parts = write.kind === 'group' ? write.members : [write];
    return parts.flatMap((part) => {
      if (part.kind === 'put' || part.kind === 'delete') {
        for (const letter of this.letters) {
          if (isBefore(letter, seq, id) && (letter.write.kind === 'clear' ? clears(letter, part.table) : true)) {
            if (letter.write.kind === 'clear' || placesOf(letter).includes(placeOf(part))) {
              letter.overwritten.add(placeOf(part));
            }
          }
        }
        return this.#remove((letter) => isBefore(letter, seq, id) && isSpent(letter));
      }
      if (part.kind !== 'clear') return [];
      const older = this.letters.filter((letter) => isBefore(letter, seq, id));
      for (const letter of older) {
        for (const place of placesOf(letter)) {
          if (place.startsWith(`${part.table.toLowerCase()}\0`)) letter.overwritten.add(place);
        }
      }
      return this.#remove((letter) => older.includes(letter) && (clears(letter, part.table) || isSpent(letter)));
    });
  }

  /** A letter, the newer ones of its keys, the newer ones of theirs …, newest first. */
  #newestFirst(id: number): Letter[] {
    const first = this.letters.find((letter) => letter.id === id);
    if (first === undefined) return [];
    const found = new Set([first]);
    for (const each of found) {
      for (const other of this.letters) {
        if (isBefore(each, other.seq, other.id) && haveKeyInCommon(each, other)) found.add(other);
      }
    }
    return [...found].sort((a, b) => b.seq - a.seq || b.id - a.id);
  }

  #remove(which: (letter: Letter) => boolean): Letter[] {
    const removed = this.letters.filter(which);
    this.letters = this.letters.filter((letter) => !removed.includes(letter));
    return removed;
  }
}

function isBefore(letter: Letter, seq: number, id: number): boolean {
  return letter.seq < seq || (letter.seq === seq && letter.id < id);
}

function clears(letter: Letter, table: string): boolean {
  return letter.write.kind === 'clear' && letter.write.table.toLowerCase() === table.toLowerCase();
}

/** What is still to be applied. */
export function liveOf({ write, overwritten }: Letter): Write {
  if (write.kind !== 'group') return write;
  return {
    kind: 'group',
    members: write.members.filter(
      (member) => !((member.kind === 'put' || member.kind === 'delete') && overwritten.has(placeOf(member))),
    ),
  };
}

/** The keys that are still to be written. */
export function placesOf(letter: Letter): Place[] {
  const parts = letter.write.kind === 'group' ? letter.write.members : [letter.write];
  return parts
    .flatMap((part) => (part.kind === 'put' || part.kind === 'delete' ? [placeOf(part)] : []))
    .filter((place) => !letter.overwritten.has(place));
}

function isSpent(letter: Letter): boolean {
  const { write } = letter;
  if (write.kind === 'put' || write.kind === 'delete') return placesOf(letter).length === 0;
  if (write.kind !== 'group') return false;
  return placesOf(letter).length === 0 && write.members.every(({ kind }) => kind === 'put' || kind === 'delete');
}

function haveKeyInCommon(a: Letter, b: Letter): boolean {
  const places = placesOf(a);
  return (
    placesOf(b).some((place) => places.includes(place)) ||
    places.some((place) => clears(b, place.slice(0, place.indexOf('\0')))) ||
    placesOf(b).some((place) => clears(a, place.slice(0, place.indexOf('\0')))) ||
    (a.write.kind === 'clear' && clears(b, a.write.table))
  );
}

function getOrMake<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
