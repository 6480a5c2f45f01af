import { SluiceError } from '../../../base/errors.ts';
import { StoreFailure } from '../../store.ts';
import { type Connection, readRows, type Statement } from '../connection.ts';
import { classify } from '../result-codes.ts';
import { SELECT_STATE, type StateRow, takenOver } from '../schema.ts';
import { perform } from './perform.ts';
import type { WriterParts } from './writer-parts.ts';
import type { HeldAnswer, HeldStatement } from './writer-protocol.ts';

/**
 * A transaction of the user's that is open over several calls. BEGIN IMMEDIATE holds the write lock, so nobody can take the
 * database over before its end: the owner is asked for once.
 */
export class HeldTransaction {
  readonly #db: Connection;
  readonly #owner: string;
  readonly #begin: Statement;
  readonly #commit: Statement;
  #isHeld = false;

  constructor({ db, owner }: WriterParts) {
    this.#db = db;
    this.#owner = owner;
    this.#begin = db.prepare('BEGIN IMMEDIATE');
    this.#commit = db.prepare('COMMIT');
  }

  begin(): void {
    if (this.#isHeld) throw new StoreFailure('fatal', 'a transaction was begun inside another one');
    this.#begin.run();
    this.#isHeld = true;
    const { owner } = this.#db.prepare(SELECT_STATE).get() as StateRow;
    if (owner === this.#owner) return;
    this.rollback();
    throw takenOver();
  }

  execute(statement: HeldStatement): HeldAnswer {
    // It would be committed by itself.
    if (!this.#isHeld) throw new StoreFailure('fatal', 'a statement of a transaction came after its end');
    try {
      const result = this.#perform(statement);
      return { result, isOpen: this.#look() };
    } catch (error) {
      if (error instanceof SluiceError) throw error;
      const { code, message } = classify(error, { ownStatement: false });
      return { refusal: { message, sqliteCode: code }, isOpen: this.#look() };
    }
  }

  #look(): boolean {
    this.#isHeld = this.#db.inTransaction;
    return this.#isHeld;
  }

  #perform({ sql, parameters, reading }: HeldStatement): NonNullable<HeldAnswer['result']> {
    const statement = this.#db.prepare(sql);
    if (reading === undefined) return perform(this.#db, statement, parameters);
    if (!statement.readonly || !statement.reader) {
      throw new SluiceError('SLUICE_INVALID_SQL', 'the statement does not only read: run it with aexecute');
    }
    const { maxRows } = reading;
    return { rows: readRows(statement, parameters, (rows) => rows < maxRows), changes: 0, lastInsertRowid: 0 };
  }

  /** Nothing of it is left where that fails. */
  commit(): void {
    try {
      this.#commit.run();
      this.#isHeld = false;
    } finally {
      this.rollback();
    }
  }

  rollback(): void {
    this.#isHeld = false;
    if (this.#db.inTransaction) this.#db.exec('ROLLBACK');
  }
}
