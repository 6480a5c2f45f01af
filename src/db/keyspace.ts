import type { ValueCipher } from '../base/encryption/index.ts';
import type { AsciiText, SqlValue } from '../base/frame/index.ts';
import { bytesOfGroup, bytesOfPut, type Encoded, type KeyMember, TableTarget } from '../engine/index.ts';
import type { CountOverlay, Entry } from '../store/store.ts';
import { ReadCache } from './cache.ts';
import { decodeValue, keepEncoded } from './codec.ts';
import type { Core } from './core.ts';
import { Expiry } from './expiry.ts';
import { HeldValue, Shapes } from './held-value.ts';
import { countOverlay, overlayOf } from './merge.ts';
import { scanEntries, scanEntriesAsync, type Walk } from './scan.ts';
import type { ResolvedTableOptions } from './table-options.ts';

/** What staging, the read cache or SQLite has under a key; `null` known to be absent. */
export type Found = SqlValue | HeldValue;

/** The same; `undefined` in none of them. */
export type Stored = Found | undefined;

/** A put that is to be staged: the value as JSON text or bytes. */
export interface Put {
  readonly key: string;
  readonly encoded: Encoded;
}

/** A put, or a deletion where the value is `null`. */
export interface KeyWrite {
  readonly key: string;
  readonly encoded: Encoded | null;
}

/** Whether any of some keys was written since they were read. */
export class Watch {
  readonly #keys = new Set<string>();
  /** Stops watching. */
  readonly end: () => void;
  isChanged = false;

  constructor(end: () => void) {
    this.end = end;
  }

  add(key: string): void {
    this.#keys.add(key);
  }

  wrote(key: string): void {
    if (this.#keys.has(key)) this.isChanged = true;
  }
}

/**
 * The keys of one table, from staging through the read cache down to SQLite: what a {@link Table} checks, and lets its hooks look
 * at, comes here to be staged, and what it reads comes from here.
 *
 * Values are encrypted when they are staged, and not before: a write that waits for room would have been encrypted with a key that
 * may be an old one by then. What the read cache holds of an encrypted table is encrypted too.
 */
export class Keyspace {
  readonly #core: Core;
  readonly #target: TableTarget;
  readonly #cipher: ValueCipher | undefined;
  readonly #expiry: Expiry;
  /** `undefined` where there is none: the way of a read and a write is the shorter then. */
  readonly #cache: ReadCache | undefined;
  /** Whether values are staged as they come, and are not looked at again. */
  readonly #isPlain: boolean;
  readonly #shapes = new Shapes();
  readonly #watches = new Set<Watch>();

  constructor(core: Core, name: string, { cache, cipher }: ResolvedTableOptions) {
    this.#core = core;
    this.#target = new TableTarget(name);
    this.#cipher = cipher;
    this.#isPlain = cipher === undefined && cache === undefined;
    this.#expiry = new Expiry(core, this.#target, cache?.persist === true ? cache.ttlMs : undefined);
    if (cache === undefined) return;
    const { clock, engine, store, caches, foreignChanges } = core;
    this.#cache = new ReadCache(cache, {
      clock,
      foreignChanges,
      changes: () => engine.appliedSeq + store.numbers.expired,
      writesSpread: () => store.sync.writesSpread(name),
    });
    caches.push(this.#cache);
  }

  // ── writes: each is staged when the call returns, or throws ──

  put(key: string, value: Encoded | AsciiText): boolean {
    if (this.#expiry.active) return this.putMany([{ key, encoded: keepEncoded(value) }]);
    const stored = this.#isPlain ? value : this.#seal(key, keepEncoded(value));
    const plenty = this.#core.engine.put(this.#target, key, stored);
    this.#wrote(key, stored);
    return plenty;
  }

  remove(key: string): boolean {
    const plenty = this.#core.engine.delete(this.#target, key);
    this.#wrote(key, null);
    return plenty;
  }

  /** As one atomic write. */
  putMany(puts: readonly Put[]): boolean {
    return this.#group(this.#membersOf(puts));
  }

  /** As one atomic write. */
  removeMany(keys: readonly string[]): boolean {
    return this.#group(this.#removesOf(keys));
  }

  clear(): boolean {
    const plenty = this.#core.engine.clear(this.#target);
    this.#cache?.clear();
    for (const watch of this.#watches) watch.isChanged = true;
    return plenty;
  }

  /** Puts and deletions as members of a group that has others too; {@link Keyspace.wroteGroup} is to be told when it is staged. */
  membersOf(writes: readonly KeyWrite[]): KeyMember[] {
    return writes.flatMap(({ key, encoded }) =>
      encoded === null ? this.#removesOf([key]) : this.#membersOf([{ key, encoded }]),
    );
  }

  /** A group with these members, of this table and of others, is staged. */
  wroteGroup(members: readonly KeyMember[]): void {
    if (this.#cache === undefined && this.#watches.size === 0) return;
    for (const [i, { table, key, value }] of members.entries()) {
      if (table === this.#target) this.#wrote(key, value, this.#expiry.momentOf(members[i + 1]));
    }
  }

  /** Sees to it that somebody hears when a key is written. To be ended. */
  watch(): Watch {
    const watch = new Watch(() => this.#watches.delete(watch));
    this.#watches.add(watch);
    return watch;
  }

  /** What a put costs in staging. */
  bytesOfPut(key: string, value: Encoded): number {
    const bytes = this.#expiry.active
      ? bytesOfGroup(this.#expiry.membersOf([{ key, encoded: value }]))
      : bytesOfPut(key, value);
    return bytes + this.#growthOf(value);
  }

  /** What puts cost as one atomic write. */
  bytesOfPuts(puts: readonly Put[]): number {
    const growth = this.#cipher === undefined ? 0 : puts.reduce((total, put) => total + this.#growthOf(put.encoded), 0);
    return bytesOfGroup(this.#expiry.membersOf(puts)) + growth;
  }

  bytesOfRemoves(keys: readonly string[]): number {
    return bytesOfGroup(this.#removesOf(keys));
  }

  // ── reads: of what is stored, to be opened with `open` ──

  /** A stored value as {@link Put} has it; throws `SLUICE_DECRYPT`. */
  open(key: string, stored: Found): SqlValue {
    const value = stored instanceof HeldValue ? stored.stored : stored;
    return this.#cipher === undefined ? value : this.#cipher.open(this.#target.table, key, value);
  }

  /** A stored value as a copy for the reader; throws `SLUICE_DECRYPT`. */
  decode(key: string, stored: Found): unknown {
    const isCopied = stored instanceof HeldValue && this.#cipher === undefined;
    return isCopied ? stored.copy(this.#shapes) : decodeValue(this.open(key, stored));
  }

  /** On this thread. */
  read(key: string): Stored {
    const { store, reads } = this.#core;
    const liveAt = this.#expiry.now();
    const known = this.#known(key, liveAt);
    if (known !== undefined) return known;
    // First: a row that is deleted between the two is absent then, and not one that stays.
    const expiresAt = this.#cache === undefined || liveAt === undefined ? undefined : this.#expiry.stored(key);
    const stored = store.sync.get(this.#target.table, key, liveAt);
    reads[stored === undefined ? 'miss' : 'sqlite']++;
    this.#cache?.found(key, stored, expiresAt);
    return stored;
  }

  /** The values of keys as they are now; with `hold`, no batch goes down until they are read. */
  async readMany(keys: readonly string[], hold = false): Promise<Stored[]> {
    const { store, flusher, reads } = this.#core;
    const liveAt = this.#expiry.now();
    const known = keys.map((key) => this.#known(key, liveAt));
    const unknown = keys.filter((_, i) => known[i] === undefined);
    if (unknown.length === 0) return known;
    const cache = this.#cache;
    const expiries = cache === undefined || liveAt === undefined ? undefined : this.#expiry.storedMany(unknown);
    const asked = store.getMany(this.#target.table, unknown, liveAt);
    const read = hold ? flusher.holdFor(asked) : asked;
    const stored = await (cache === undefined ? read : cache.finds(unknown, read, expiries));
    const found = stored.filter((value) => value !== undefined).length;
    reads.sqlite += found;
    reads.miss += unknown.length - found;
    let next = 0;
    return known.map((value) => (value === undefined ? stored[next++] : value));
  }

  /** What staging alone has of a key. */
  staged(key: string): Stored {
    return this.#expiry.staged(key, this.#expiry.now());
  }

  count(): number {
    return this.#core.store.sync.count(this.#target.table, this.#countOverlay());
  }

  /** By a reader thread. */
  countAsync(): Promise<number> {
    // Both halves must be of the same moment: no batch goes down while SQLite counts.
    return this.#core.flusher.holdFor(this.#core.store.count(this.#target.table, this.#countOverlay()));
  }

  scan(walk: Walk): Iterable<Entry> {
    return scanEntries(this.#core, this.#target.table, walk, this.#expiry);
  }

  /** By a reader thread. */
  scanAsync(walk: Walk): AsyncIterable<Entry> {
    return scanEntriesAsync(this.#core, this.#target.table, walk, this.#expiry);
  }

  // ── the read cache ──

  /** Whether a read needs no SQLite. */
  isCached(key: string): boolean {
    return this.staged(key) !== undefined || this.#cache?.has(key) === true;
  }

  get hasCache(): boolean {
    return this.#cache !== undefined;
  }

  forget(key: string): void {
    this.#cache?.forget(key);
  }

  clearCache(): void {
    this.#cache?.clear();
  }

  /** Fills the cache until it is full; returns how many values it has then. */
  load(): number {
    const cache = this.#cache;
    if (cache === undefined) return 0;
    if (!this.#expiry.active) return cache.load(this.scan({}));
    // Of a row that expires, a walk does not say when.
    for (const [key] of this.scan({ keysOnly: true })) {
      if (cache.isFull) break;
      this.read(key);
    }
    return cache.entries;
  }

  async loadAsync(): Promise<number> {
    const cache = this.#cache;
    if (cache === undefined) return 0;
    if (!this.#expiry.active) return cache.loadAsync(this.scanAsync({}));
    for await (const [key] of this.scanAsync({ keysOnly: true })) {
      if (cache.isFull) break;
      await this.readMany([key]);
    }
    return cache.entries;
  }

  // ── inside ──

  /** What is known of a key without SQLite. */
  #known(key: string, liveAt: number | undefined): Stored {
    const { reads } = this.#core;
    const staged = this.#expiry.staged(key, liveAt);
    if (staged !== undefined) {
      reads.staging++;
      return staged;
    }
    const cached = this.#cache?.get(key, liveAt);
    if (cached !== undefined) reads.cache++;
    return cached;
  }

  #group(members: readonly KeyMember[]): boolean {
    const plenty = this.#core.engine.group(members);
    this.wroteGroup(members);
    return plenty;
  }

  #wrote(key: string, stored: Encoded | AsciiText | null, expiresAt?: number): void {
    this.#cache?.wrote(key, stored as Encoded | null, expiresAt);
    for (const watch of this.#watches) watch.wrote(key);
  }

  #removesOf(keys: readonly string[]): KeyMember[] {
    return keys.map((key) => ({ table: this.#target, key, value: null }));
  }

  #membersOf(puts: readonly Put[]): KeyMember[] {
    return this.#expiry.membersOf(
      this.#cipher === undefined ? puts : puts.map(({ key, encoded }) => ({ key, encoded: this.#seal(key, encoded) })),
    );
  }

  #seal(key: string, value: Encoded): Encoded {
    return this.#cipher === undefined ? value : this.#cipher.seal(this.#target.table, key, value);
  }

  /** How much longer a value is when it is encrypted, at most. */
  #growthOf(value: Encoded): number {
    if (this.#cipher === undefined) return 0;
    const length = typeof value === 'string' ? Buffer.byteLength(value) - value.length : 0;
    return length + this.#cipher.overheadBytes;
  }

  #countOverlay(): CountOverlay {
    const { engine } = this.#core;
    const liveAt = this.#expiry.now();
    return countOverlay(overlayOf(engine.generations(), engine.appliedSeq, this.#target.table, { liveAt }), liveAt);
  }
}
