import { Kind } from '../../../base/frame/index.ts';
import { expiryTableOf } from '../../expiry-table.ts';
import { StoreFailure } from '../../store.ts';
import { type Connection, quote, type Statement } from '../connection.ts';
import { tableKey, tableOf } from '../dead-letters/dead-letter-index.ts';
import { isOfKeyTable, type WriteCopy } from '../dead-letters/write-copy.ts';
import { type Classified, classify } from '../result-codes.ts';
import { columnsOf } from '../schema.ts';
import type { Catalog } from './catalog.ts';
import { TransactionLost } from './transaction.ts';

const ENDED_TRANSACTION: Classified = {
  class: 'permanent',
  code: 'TRANSACTION_ENDED',
  message: 'the statement ended the transaction it ran in',
};

/**
 * Applies single writes in the transaction that is open.
 *
 * SQLite's ABORT undoes the failing statement alone, so a poison row costs a catch, not a savepoint. Savepoints are for
 * what may leave a part of itself behind: the user's own SQL, tables whose writes may run a trigger (`RAISE(FAIL)`), groups.
 */
export class Executor {
  readonly #db: Connection;
  readonly #catalog: Catalog;

  constructor(db: Connection, catalog: Catalog) {
    this.#db = db;
    this.#catalog = catalog;
  }

  /**
   * Applies a write; returns why SQLite will never take it, if so, and then nothing of it is left behind. With `take`, it also
   * dies of what somebody could repair. Throws {@link TransactionLost}, or a {@link StoreFailure} where the write is not at
   * fault.
   */
  attempt(write: WriteCopy, take: boolean): Classified | undefined {
    const isGroup = write.kind === Kind.group;
    const guarded = this.#mayLeaveParts(write);
    if (guarded) this.#db.exec('SAVEPOINT one_write');
    let member = write;
    try {
      for (member of isGroup ? write.members : [write]) this.#perform(member);
      if (!this.#db.inTransaction) throw new TransactionLost(write.seq, ENDED_TRANSACTION);
      if (guarded) this.#db.exec('RELEASE one_write');
      return undefined;
    } catch (error) {
      if (error instanceof TransactionLost) throw error;
      const verdict = this.verdict(error, member, take);
      if (guarded) this.#db.exec('ROLLBACK TO one_write; RELEASE one_write');
      // Undone with it: the tables that its first members had made.
      if (isGroup) this.#catalog.forget();
      return verdict;
    }
  }

  /** Applies several rows with one statement; `false` where SQLite refuses one of them, and then nothing of any is left behind. */
  together(rows: Statement, values: readonly unknown[]): boolean {
    try {
      rows.run(...values);
      return true;
    } catch (error) {
      // Nobody's fault: a refusal leaves the transaction as it was.
      if (!this.#db.inTransaction) throw error;
      return false;
    }
  }

  /** Why the statement of a write failed, if the write is at fault; anything else goes up. */
  verdict(error: unknown, { seq, table, kind }: Pick<WriteCopy, 'seq' | 'table' | 'kind'>, take: boolean): Classified {
    const found = classify(error, { ownStatement: isOfKeyTable(kind) });
    const dies = found.class === 'permanent' || (take && found.class === 'config');
    if (!dies) {
      const what = `write ${seq}${table === null ? '' : ` to ${table}`}`;
      throw new StoreFailure(found.class as StoreFailure['failure'], `${what}: ${found.message}`, found.code, error);
    }
    if (!this.#db.inTransaction) throw new TransactionLost(seq, found);
    return found;
  }

  #perform(write: WriteCopy): void {
    const table = write.table as string;
    switch (write.kind) {
      case Kind.putText:
      case Kind.putBlob: {
        const { put, expiries } = this.#catalog.keyTable(table);
        put.run(write.key, write.value);
        // What the row expires at from now on, if it does, is said by the next member of its group.
        expiries?.delete.run(write.key);
        return;
      }
      case Kind.delete: {
        const rows = this.#catalog.keyTable(table);
        rows.delete.run(write.key);
        rows.expiries?.delete.run(write.key);
        return;
      }
      case Kind.clear:
        return this.#clear(table, write.sparing);
      case Kind.ensure:
        return this.#ensure(table, JSON.parse(write.statement as string) as Record<string, string>);
      case Kind.append:
      case Kind.stage: {
        const statement = this.#catalog.statement(write.statement as string);
        if (statement.reader) statement.all(write.parameters);
        else statement.run(write.parameters);
        return;
      }
      case Kind.group:
        throw new Error('a group is performed member by member');
      default:
        write.kind satisfies never;
    }
  }

  #clear(table: string, sparing: number | undefined): void {
    const { clear, expiries } = this.#catalog.keyTable(table);
    if (sparing === undefined) {
      clear.run();
      expiries?.clear.run();
      return;
    }
    for (const each of expiries === undefined ? [table] : [table, expiryTableOf(table)]) {
      this.#db
        .prepare(
          `DELETE FROM ${quote(each)} WHERE key NOT IN
             (SELECT key FROM _sluice_dead_letters_overwritten WHERE id = ? AND table_name = ?)`,
        )
        .run(sparing, tableOf(tableKey(table, '')));
    }
  }

  #ensure(table: string, columns: Record<string, string>): void {
    const present = columnsOf(this.#db, table);
    const definitions = Object.entries(columns).map(([name, type]) => ({ name, sql: `${quote(name)} ${type}` }));
    if (present === undefined) {
      this.#db.exec(`CREATE TABLE ${quote(table)} (${definitions.map(({ sql }) => sql).join(', ')})`);
    } else {
      const names = new Set(present.map(({ name }) => name.toLowerCase()));
      for (const { name, sql } of definitions) {
        if (!names.has(name.toLowerCase())) this.#db.exec(`ALTER TABLE ${quote(table)} ADD COLUMN ${sql}`);
      }
    }
    this.#catalog.forget();
  }

  #mayLeaveParts({ kind, table }: WriteCopy): boolean {
    if (kind === Kind.group || kind === Kind.stage || kind === Kind.ensure) return true;
    return table !== null && this.#catalog.mayTrigger(table);
  }
}
