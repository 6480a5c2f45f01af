import { EXPIRES_AT, ownerOfExpiries, SELECT_EXPIRY_TABLES } from '../../expiry-table.ts';
import { StoreFailure } from '../../store.ts';
import { quote, type Statement } from '../connection.ts';
import { classify } from '../result-codes.ts';
import { isKeyTable, SELECT_STATE, type StateRow, takenOver } from '../schema.ts';
import type { WriterParts } from './writer-parts.ts';

/** Rows deleted in one go: few enough that a batch that comes meanwhile hardly waits. */
const SWEEP_ROWS = 1_000;

/** What became of rows that have expired. */
export interface Swept {
  /** Rows deleted. */
  readonly expired: number;
  /** Whether there are more that could be deleted at once. */
  readonly more: boolean;
}

export const NOTHING_SWEPT: Swept = { expired: 0, more: false };

/**
 * Deletes rows that have expired. Reads do not wait for it: they never return such a row. A write that is staged is safe: it
 * comes later, with an expiry of its own.
 *
 * What goes wrong with one table (locked, full, dropped) holds up no other, and is tried again at the next sweep.
 */
export class Sweeper {
  readonly #parts: WriterParts;
  /** The table that had more than could be deleted in one go: the others come first, next time. */
  #last = '';

  constructor(parts: WriterParts) {
    this.#parts = parts;
  }

  /** `now` is the moment, milliseconds since 1970. */
  sweep(now: number): Swept {
    const tables = this.#parts.db.prepare(SELECT_EXPIRY_TABLES).pluck().all() as string[];
    const after = tables.findIndex((name) => name > this.#last);
    const inTurn = after < 0 ? tables : [...tables.slice(after), ...tables.slice(0, after)];
    let [expired, left] = [0, SWEEP_ROWS];
    for (const expiries of inTurn) {
      const swept = this.#sweepTable(expiries, now, left);
      expired += swept.expired;
      left -= swept.keys;
      if (left > 0) continue;
      this.#last = expiries;
      return { expired, more: true };
    }
    return { expired, more: false };
  }

  #sweepTable(expiries: string, now: number, limit: number): { readonly expired: number; readonly keys: number } {
    try {
      const due = this.#parts.db
        .prepare(`SELECT key FROM ${quote(expiries)} WHERE ${EXPIRES_AT} <= ? ORDER BY ${EXPIRES_AT} LIMIT ?`)
        .pluck();
      // Most of the time there is none, and no transaction to be made.
      if (due.get(now, 1n) === undefined) return NONE;
      return this.#parts.transactions.run(() => this.#sweepNow(expiries, due.all(now, BigInt(limit)) as string[]));
    } catch (error) {
      if (error instanceof StoreFailure && error.failure === 'fatal') throw error;
      return NONE;
    }
  }

  /** In a transaction, in which nothing can have moved a row out of reach. */
  #sweepNow(expiries: string, due: readonly string[]): { readonly expired: number; readonly keys: number } {
    const { db, owner, catalog } = this.#parts;
    catalog.refresh();
    if ((db.prepare(SELECT_STATE).get() as StateRow).owner !== owner) throw takenOver();
    const table = ownerOfExpiries(expiries) as string;
    // Something else may stand under its name by now.
    const rows = isKeyTable(db, table) ? catalog.keyTable(table).delete : undefined;
    const forget = db.prepare(`DELETE FROM ${quote(expiries)} WHERE key = ?`);
    const guarded = rows !== undefined && catalog.mayTrigger(table);
    let [expired, keys] = [0, 0];
    for (const key of due) {
      const deleted = rows === undefined ? 0 : guarded ? this.#tryDelete(rows, key) : rows.run(key).changes;
      if (deleted === undefined) continue;
      forget.run(key);
      expired += deleted;
      keys++;
    }
    return { expired, keys };
  }

  /** `undefined` where a trigger or a foreign key of the user's holds on to the row: it stays, unseen by those who read keys. */
  #tryDelete(rows: Statement, key: string): number | undefined {
    const { db } = this.#parts;
    db.exec('SAVEPOINT one_row');
    try {
      const { changes } = rows.run(key);
      db.exec('RELEASE one_row');
      return changes;
    } catch (error) {
      if (!db.inTransaction || classify(error, { ownStatement: true }).class !== 'permanent') throw error;
      db.exec('ROLLBACK TO one_row; RELEASE one_row');
      return undefined;
    }
  }
}

const NONE = { expired: 0, keys: 0 };
