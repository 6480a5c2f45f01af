import type { SqlValue } from '../base/frame/index.ts';
import { type Encoded, type KeyMember, type Staged, TableTarget } from '../engine/index.ts';
import { expiryTableOf } from '../store/expiry-table.ts';
import type { Core } from './core.ts';

/**
 * When the rows of a key-value table expire. The moments are kept in a table of their own, which is written to in the same atomic
 * group as the rows: so they are in the log, in staging and in the dead-letter queue with them. Reads leave out what has
 * expired, wherever it is; the writer thread deletes it when it has time.
 *
 * A table that was opened without it, and has rows that expire, is read in the same way; what is written to it then does not
 * expire.
 */
export class Expiry {
  /** How long a row lives after it is written; `undefined` for ever. */
  readonly #ttlMs: number | undefined;
  readonly #core: Core;
  readonly #table: TableTarget;
  readonly #moments: TableTarget;
  /** Whether the store had moments of this table when it was opened, or a write of such was in the log. */
  #found: boolean;
  #recovered: boolean | undefined;

  constructor(core: Core, table: TableTarget, ttlMs: number | undefined) {
    this.#core = core;
    this.#table = table;
    this.#ttlMs = ttlMs;
    this.#moments = new TableTarget(expiryTableOf(table.table));
    this.#found = ttlMs !== undefined || core.store.sync.columns(this.#moments.table) !== undefined;
  }

  /** Whether a row of the table may expire. */
  get active(): boolean {
    if (this.#found) return true;
    // Nobody asks before the log has been read.
    this.#recovered ??= this.#core.engine.hasRecovered(this.#moments);
    return this.#recovered;
  }

  /** The moment that a read is about; `undefined` where no row expires. */
  now(): number | undefined {
    return this.active ? this.#core.clock.now() : undefined;
  }

  /** As of `Engine.lookup`; what has expired by `liveAt` is as good as deleted. */
  staged(key: string, liveAt: number | undefined): Staged {
    const { engine } = this.#core;
    const value = engine.lookup(this.#table, key);
    if (liveAt === undefined || value === undefined || value === null) return value;
    return hasExpired(engine.lookup(this.#moments, key), liveAt) ? null : value;
  }

  /** When the row of a key expires that the store has. */
  stored(key: string): number | undefined {
    return momentIn(this.#core.store.sync.get(this.#moments.table, key));
  }

  /** The same of several, from a reader thread. */
  async storedMany(keys: readonly string[]): Promise<(number | undefined)[]> {
    return (await this.#core.store.getMany(this.#moments.table, keys)).map(momentIn);
  }

  /** When the put expires that comes before a member of {@link Expiry.membersOf}. */
  momentOf(member: KeyMember | undefined): number | undefined {
    return member?.table === this.#moments ? momentIn(member.value) : undefined;
  }

  /** Puts with the moments at which they expire, counted from now: the members of an atomic group. */
  membersOf(writes: readonly { readonly key: string; readonly encoded: Encoded }[]): KeyMember[] {
    const puts = writes.map(({ key, encoded }) => ({ table: this.#table, key, value: encoded }));
    if (!this.active) return puts;
    const moment = this.#ttlMs === undefined ? null : String(Math.ceil(this.#core.clock.now() + this.#ttlMs));
    return puts.flatMap((put) => [put, { table: this.#moments, key: put.key, value: moment }]);
  }
}

/** Whether a staged moment has come; a row that has none does not expire. */
export function hasExpired(moment: Staged, liveAt: number): boolean {
  return typeof moment === 'string' && Number(moment) <= liveAt;
}

function momentIn(stored: SqlValue | undefined): number | undefined {
  return stored === undefined || stored === null ? undefined : Number(stored);
}
