import type { Connection, Statement } from '../connection.ts';
import { type Classified, classify, toFailure } from '../result-codes.ts';

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

/** SQLite will never take the newest write of a key in a run. It may take an older one, which the run does not have any more. */
export class RunRefused extends Error {}

/** What is kept in memory of the database: it goes with each transaction, or back with it. */
export interface Memory {
  committed(): void;
  rolledBack(): void;
}

/** Runs work of the writer's in transactions of which nothing is left where they fail. */
export class Transactions {
  readonly #db: Connection;
  readonly #begin: Statement;
  readonly #commit: Statement;
  readonly #memory: Memory;

  constructor(db: Connection, memory: Memory) {
    this.#db = db;
    this.#begin = db.prepare('BEGIN IMMEDIATE');
    this.#commit = db.prepare('COMMIT');
    this.#memory = memory;
  }

  /**
   * BEGIN IMMEDIATE, so that nobody else can come between. Throws {@link TransactionLost}, {@link CommitRefused},
   * {@link RunRefused}, or a {@link StoreFailure}; any of them leaves no transaction open.
   */
  run<T>(body: () => T): T {
    try {
      this.#begin.run();
      const result = body();
      this.#commitOrRefuse();
      this.#memory.committed();
      return result;
    } catch (error) {
      this.#memory.rolledBack();
      if (this.#db.inTransaction) this.#db.exec('ROLLBACK');
      const isKnown = error instanceof TransactionLost || error instanceof CommitRefused || error instanceof RunRefused;
      throw isKnown ? error : toFailure(error);
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
