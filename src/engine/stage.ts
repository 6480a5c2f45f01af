import { hashOf } from '../base/hash.ts';
import type { Encoded, StagedEntries } from './staged-entries.ts';

/** What staging knows of a key: its value, `null` for deleted, `undefined` for nothing. */
export type Staged = Encoded | null | undefined;

/** No entry. */
const NONE = -1;

const FIRST_SIZE = 16;

/**
 * The staged entries of one table in one generation: a hash table with chains, newest first. A write adds an entry, and does
 * not look whether its key is there already; a read finds the newest.
 *
 * The keys themselves are in {@link StagedEntries}, and are asked for only where all 32 bits of the hash agree. So nothing here
 * is seen by the garbage collector, and no step is long: a `Map` of strings took twice the time of all the rest of a write, with
 * the collections that it caused.
 */
export class Stage {
  readonly #entries: StagedEntries;
  /** By the low bits of the hash, the newest entry. */
  #heads: Int32Array;
  /** By entry: its hash, the one before it in its chain, and its place. */
  #hashes: Int32Array;
  #older: Int32Array;
  #places: Int32Array;
  #size = 0;
  /** Whether the table was cleared in this generation: then older generations and the store say nothing of it. */
  cleared = false;

  /** There will be about `expected` entries. */
  constructor(entries: StagedEntries, expected = 0) {
    this.#entries = entries;
    let size = FIRST_SIZE;
    while (size < expected) size *= 2;
    this.#heads = newHeads(size);
    this.#hashes = new Int32Array(size);
    this.#older = new Int32Array(size);
    this.#places = new Int32Array(size);
  }

  /** How many entries there are; of a key that was written twice there are two. */
  get size(): number {
    return this.#size;
  }

  keyAt(entry: number): string {
    return this.#entries.keyAt(this.#places[entry] as number);
  }

  valueAt(entry: number): Encoded | null {
    return this.#entries.valueAt(this.#places[entry] as number);
  }

  /** The newest value of a key with this hash, which is made once where a key is looked for in several stages. */
  get(key: string, hash: number): Staged {
    let entry = this.#heads[hash & (this.#heads.length - 1)] as number;
    for (; entry !== NONE; entry = this.#older[entry] as number) {
      if (this.#hashes[entry] === hash && this.keyAt(entry) === key) return this.valueAt(entry);
    }
    return undefined;
  }

  /** What is at a place is the newest of its key. */
  set(key: string, place: number): void {
    this.reserve(1);
    const entry = this.#size++;
    this.#hashes[entry] = hashOf(key);
    this.#places[entry] = place;
    this.#link(entry);
  }

  /** Makes room for so many more, so that none of them fails for want of it. */
  reserve(entries: number): void {
    while (this.#size + entries > this.#hashes.length) this.#grow();
  }

  clear(): void {
    this.#heads.fill(NONE);
    this.#size = 0;
    this.cleared = true;
  }

  #link(entry: number): void {
    const bucket = (this.#hashes[entry] as number) & (this.#heads.length - 1);
    this.#older[entry] = this.#heads[bucket] as number;
    this.#heads[bucket] = entry;
  }

  #grow(): void {
    const size = this.#hashes.length * 2;
    // All of them, or none: there may be no memory for one.
    const [hashes, older, places] = [grown(this.#hashes, size), grown(this.#older, size), grown(this.#places, size)];
    this.#heads = newHeads(size);
    this.#hashes = hashes;
    this.#older = older;
    this.#places = places;
    for (let entry = 0; entry < this.#size; entry++) this.#link(entry);
  }
}

/** A stage as reads see it. */
export type ReadonlyStage = Pick<Stage, 'cleared' | 'get' | 'keyAt' | 'size' | 'valueAt'>;

function newHeads(size: number): Int32Array {
  return new Int32Array(size).fill(NONE);
}

function grown(array: Int32Array, size: number): Int32Array {
  const larger = new Int32Array(size);
  larger.set(array);
  return larger;
}
