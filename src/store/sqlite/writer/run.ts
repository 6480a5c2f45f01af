import { type FrameReader, Kind } from '../../../base/frame/index.ts';
import type { KeyTable } from './catalog.ts';
import { inKeyOrder } from './key-order.ts';

/** A longer run is no faster, and lies in memory. */
const KEYS_MAX = 25_000;

/** Lists of entries whose keys have the low bits of their hashes in common. */
const BUCKETS = 2 ** 15;
const NONE = -1;

/** The numbers of an entry: the next one in its bucket, its hash and table, and where the newest write of its key lies. */
const [NEXT, HASH, TABLE, FRAME, KIND, KEY, KEY_LENGTH, VALUE, VALUE_LENGTH, WIDTH] = [
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
] as const;

/** The keys of one table in a run. */
export interface TableRun {
  readonly statements: KeyTable;
  readonly table: string;
  readonly entries: number[];
}

/** A put or delete that is to be carried out. */
export interface NewestWrite {
  readonly key: string;
  /** `null` deletes. */
  readonly value: string | Uint8Array | null;
  readonly seq: number;
}

/**
 * Puts and deletes on plain tables, waiting to be coalesced: of each key the newest write.
 *
 * Where it lies is all that is kept of it, in numbers. Strings for its key and its value, an object and a place in a `Map` were half
 * of what a write of a hot key cost here, and made the garbage collector work while the host's wanted the same cores.
 */
export class Run {
  readonly #tables: TableRun[] = [];
  /** By their folded names: one table may be written to under several, and the order of its writes counts. */
  readonly #places = new Map<string, number>();
  /** Those of which there is an entry, and of how many. */
  readonly #frames: (FrameReader | undefined)[] = [];
  readonly #entriesOf: number[] = [];
  readonly #buckets = new Int32Array(BUCKETS).fill(NONE);
  readonly #entries = new Int32Array(KEYS_MAX * WIDTH);
  readonly #seqs = new Float64Array(KEYS_MAX);
  #keys = 0;
  #writes = 0;

  get tables(): readonly TableRun[] {
    return this.#tables;
  }

  /** How many different keys wait. */
  get keys(): number {
    return this.#keys;
  }

  /** How many writes are not carried out, as a newer one of their key is. */
  get coalesced(): number {
    return this.#writes - this.#keys;
  }

  /** Takes the write on which the reader stands; `false` where its key is one too many. */
  add(statements: KeyTable, reader: FrameReader): boolean {
    const table = this.#tableOf(statements, reader);
    const hash = reader.keyHash;
    const known = this.#find(hash, table, reader);
    if (known === undefined && this.#keys === KEYS_MAX) return false;
    const frame = this.#placeOf(reader);
    if (known !== undefined) this.#leave(this.#entries[known * WIDTH + FRAME] as number, frame);
    const entry = known ?? this.#insert(hash, table);
    const at = entry * WIDTH;
    (this.#entriesOf[frame] as number)++;
    this.#entries[at + FRAME] = frame;
    this.#entries[at + KIND] = reader.kind;
    this.#entries[at + KEY] = reader.keyStart;
    this.#entries[at + KEY_LENGTH] = reader.keyLength;
    this.#entries[at + VALUE] = reader.valueStart;
    this.#entries[at + VALUE_LENGTH] = reader.valueLength;
    this.#seqs[entry] = reader.seq;
    this.#writes++;
    return true;
  }

  /** The newest write of each key of a table, about in the order of the keys: see {@link inKeyOrder}. */
  newestOf({ entries }: TableRun): number[] {
    const keys = entries.map((entry) => this.#keyOf(entry));
    return inKeyOrder(keys).map((place) => entries[place] as number);
  }

  writeAt(entry: number): NewestWrite {
    return { key: this.#keyOf(entry), value: this.#valueOf(entry), seq: this.#seqs[entry] as number };
  }

  /** Forgets all of it: it was applied, or its transaction is gone. */
  reset(): void {
    for (let entry = 0; entry < this.#keys; entry++) this.#buckets[this.#bucketOf(entry)] = NONE;
    this.#tables.length = this.#frames.length = this.#entriesOf.length = 0;
    this.#places.clear();
    this.#keys = this.#writes = 0;
  }

  #tableOf(statements: KeyTable, { target }: FrameReader): number {
    const known = this.#places.get(statements.folded);
    if (known !== undefined) return known;
    const place = this.#tables.push({ statements, table: target.table as string, entries: [] }) - 1;
    this.#places.set(statements.folded, place);
    return place;
  }

  #placeOf(reader: FrameReader): number {
    const last = this.#frames.length - 1;
    if (this.#frames[last] === reader) return last;
    this.#entriesOf.push(0);
    return this.#frames.push(reader) - 1;
  }

  /** An entry goes over to another frame. One that has none any more would keep all its text for nothing. */
  #leave(frame: number, next: number): void {
    const left = --(this.#entriesOf[frame] as number);
    if (left === 0 && frame !== next) this.#frames[frame] = undefined;
  }

  #find(hash: number, table: number, reader: FrameReader): number | undefined {
    const entries = this.#entries;
    let entry = this.#buckets[hash & (BUCKETS - 1)] as number;
    for (; entry !== NONE; entry = entries[entry * WIDTH + NEXT] as number) {
      const at = entry * WIDTH;
      if (entries[at + HASH] !== hash || entries[at + TABLE] !== table) continue;
      if (reader.isKeyAt(this.#frameOf(entry), entries[at + KEY] as number, entries[at + KEY_LENGTH] as number))
        return entry;
    }
    return undefined;
  }

  #insert(hash: number, table: number): number {
    const entry = this.#keys++;
    const at = entry * WIDTH;
    const bucket = hash & (BUCKETS - 1);
    this.#entries[at + HASH] = hash;
    this.#entries[at + TABLE] = table;
    this.#entries[at + NEXT] = this.#buckets[bucket] as number;
    this.#buckets[bucket] = entry;
    (this.#tables[table] as TableRun).entries.push(entry);
    return entry;
  }

  #bucketOf(entry: number): number {
    return (this.#entries[entry * WIDTH + HASH] as number) & (BUCKETS - 1);
  }

  #frameOf(entry: number): FrameReader {
    return this.#frames[this.#entries[entry * WIDTH + FRAME] as number] as FrameReader;
  }

  #keyOf(entry: number): string {
    const at = entry * WIDTH;
    return this.#frameOf(entry).textAt(this.#entries[at + KEY] as number, this.#entries[at + KEY_LENGTH] as number);
  }

  #valueOf(entry: number): string | Uint8Array | null {
    const at = entry * WIDTH;
    const kind = this.#entries[at + KIND] as number;
    if (kind === Kind.delete) return null;
    const start = this.#entries[at + VALUE] as number;
    const length = this.#entries[at + VALUE_LENGTH] as number;
    return kind === Kind.putText
      ? this.#frameOf(entry).textAt(start, length)
      : this.#frameOf(entry).blobAt(start, length);
  }
}
