import type { Connection, Statement } from './connection.ts';
import { type Classified, classify, toFailure } from './result-codes.ts';

/** A statement took the whole transaction with it (`RAISE(ROLLBACK)`, `OR ROLLBACK`). */
export class TransactionLost extends Error {
  readonly seq: number;
  readonly reason: Classified;

  constructor(seq: number, reason: Classified) {
    super(reason.message);
    this.seq = seq;
    this.reason = reason;
  }
}

/** COMMIT itself said no: a deferred foreign key is not satisfied. */
export class CommitRefused extends Error {
  readonly reason: Classified;

  constructor(reason: Classified) {
    super(reason.message);
    this.reason = reason;
  }
}

/** Runs work of the writer's in transactions of which nothing is left where they fail. */
export class Transactions {
  readonly #db: Connection;
  readonly #begin: Statement;
  readonly #commit: Statement;
  readonly #undo: () => void;

  /** `undo` forgets what memory has of a transaction that was rolled back. */
  constructor(db: Connection, undo: () => void) {
    this.#db = db;
    this.#begin = db.prepare('BEGIN IMMEDIATE');
    this.#commit = db.prepare('COMMIT');
    this.#undo = undo;
  }

  /**
   * BEGIN IMMEDIATE, so that nobody else can come between. Throws {@link TransactionLost}, {@link CommitRefused}, or a
   * {@link StoreFailure}; any of them leaves no transaction open.
   */
  run<T>(body: () => T): T {
    try {
      this.#begin.run();
      const result = body();
      this.#commitOrRefuse();
      return result;
    } catch (error) {
      this.#undo();
      if (this.#db.inTransaction) this.#db.exec('ROLLBACK');
      if (error instanceof TransactionLost || error instanceof CommitRefused) throw error;
      throw toFailure(error);
    }
  }

  #commitOrRefuse(): void {
    try {
      this.#commit.run();
    } catch (error) {
      const found = classify(error, { ownStatement: true });
      throw found.class === 'permanent' ? new CommitRefused(found) : error;
    }
  }
}
