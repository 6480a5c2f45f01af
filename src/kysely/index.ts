/**
 * A dialect for Kysely, https://kysely.dev: typed queries on a Sluice database. Kysely itself is for you to install.
 *
 * @packageDocumentation
 */

import {
  type CompiledQuery,
  type DatabaseConnection,
  type DatabaseIntrospector,
  type DatabaseMetadata,
  type DatabaseMetadataOptions,
  type Dialect,
  type DialectAdapter,
  type Driver,
  type Kysely,
  type QueryCompiler,
  type QueryResult,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
  type TableMetadata,
  type TransactionSettings,
} from 'kysely';
import { SluiceError } from '../base/errors.ts';
import type { Database } from '../db/database.ts';
import { directStatement } from '../db/sql/statements.ts';
import type { SqlTransaction } from '../db/sql-transaction.ts';

/** Options of {@link SluiceDialect}. */
export interface SluiceDialectOptions {
  /** The database, open. It stays so when Kysely is destroyed. */
  readonly database: Runner;
}

/**
 * Runs what Kysely makes on a Sluice database: what only reads on a reader thread, everything else on the writer thread, both after
 * all writes that were accepted before. Streams are read page by page. The parameters are those of {@link Database.aexecute}.
 *
 * Errors, in a query: as of {@link Database.aexecute} and {@link Database.afetchAll}. `transaction()` is held by the writer
 * thread, and is rolled back after ten seconds, as of {@link Database.atransaction} with `sql: true`; `SLUICE_UNSUPPORTED` for isolation
 * levels: a transaction has the database to itself.
 *
 * @example
 * ```ts
 * import { type Generated, Kysely } from 'kysely';
 * import { open } from 'sluicedb';
 * import { SluiceDialect } from 'sluicedb/kysely';
 *
 * interface Tables {
 *   readings: { id: Generated<number>; room: string; celsius: number };
 * }
 *
 * const database = await open(':memory:');
 * await database.acreateTable('readings', { id: 'INTEGER PRIMARY KEY', room: 'TEXT', celsius: 'REAL' });
 * const db = new Kysely<Tables>({ dialect: new SluiceDialect({ database }) });
 * await db.insertInto('readings').values({ room: 'kitchen', celsius: 21.5 }).execute();
 * console.log(await db.selectFrom('readings').selectAll().execute()); // [ { id: 1, room: 'kitchen', celsius: 21.5 } ]
 * await db.destroy();
 * await database.close();
 * ```
 */
export class SluiceDialect implements Dialect {
  readonly #database: Runner;

  constructor({ database }: SluiceDialectOptions) {
    this.#database = database;
  }

  /** @internal */
  createDriver(): Driver {
    return new SluiceDriver(this.#database);
  }

  /** @internal */
  createQueryCompiler(): QueryCompiler {
    return new SqliteQueryCompiler();
  }

  /** @internal */
  createAdapter(): DialectAdapter {
    return new SqliteAdapter();
  }

  /** @internal */
  createIntrospector(db: Kysely<unknown>): DatabaseIntrospector {
    return new SluiceIntrospector(db);
  }
}

/** What runs the statements of a connection: a {@link Database}. */
export type Runner = Pick<Database, 'aexecute' | 'afetchAll' | 'aiterate' | 'atransaction'>;

class SluiceDriver implements Driver {
  readonly #database: Runner;

  constructor(database: Runner) {
    this.#database = database;
  }

  async init(): Promise<void> {}

  /** A connection is no more than a name for the transaction that may be open on it. */
  async acquireConnection(): Promise<SluiceConnection> {
    return new SluiceConnection(this.#database);
  }

  async beginTransaction(connection: SluiceConnection, settings: TransactionSettings): Promise<void> {
    if (settings.isolationLevel !== undefined) {
      throw new SluiceError(
        'SLUICE_UNSUPPORTED',
        'a transaction has the database to itself: leave the isolation level out',
      );
    }
    await connection.begin();
  }

  async commitTransaction(connection: SluiceConnection): Promise<void> {
    await connection.commit();
  }

  async rollbackTransaction(connection: SluiceConnection): Promise<void> {
    await connection.rollback();
  }

  async releaseConnection(): Promise<void> {}

  async destroy(): Promise<void> {}
}

/** A transaction that is open on a connection. */
interface Held {
  readonly tx: SqlTransaction;
  readonly commit: () => void;
  readonly rollback: (reason: unknown) => void;
  /** Settled when it is committed or rolled back. */
  readonly done: Promise<void>;
}

class SluiceConnection implements DatabaseConnection {
  readonly #runner: Runner;
  #held: Held | undefined;

  constructor(runner: Runner) {
    this.#runner = runner;
  }

  /** Resolves when the transaction is the one whose turn it is. */
  begin(): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = this.#runner.atransaction(
        (tx) =>
          new Promise<void>((commit, rollback) => {
            this.#held = { tx, commit, rollback, done };
            resolve();
          }),
        { sql: true },
      );
      // Where it never begins; later on its end is told to whoever ends it.
      done.catch(reject);
    });
  }

  async commit(): Promise<void> {
    const held = this.#end();
    held.commit();
    await held.done;
  }

  async rollback(): Promise<void> {
    const held = this.#end();
    const reason = new Error('rolled back');
    held.rollback(reason);
    await held.done.catch((error: unknown) => {
      if (error !== reason) throw error;
    });
  }

  #end(): Held {
    const held = this.#held as Held;
    this.#held = undefined;
    return held;
  }

  async executeQuery<R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> {
    const { reads, inserts } = directStatement(sql);
    const runner = this.#held?.tx ?? this.#runner;
    if (reads) return { rows: await runner.afetchAll<R>(sql, parameters) };
    const { rows, changes, lastInsertRowid } = await runner.aexecute(sql, parameters);
    return {
      rows: rows as R[],
      numAffectedRows: BigInt(changes),
      ...(inserts && changes > 0 ? { insertId: BigInt(lastInsertRowid) } : {}),
    };
  }

  async *streamQuery<R>({ sql, parameters }: CompiledQuery, chunkSize = 256): AsyncIterableIterator<QueryResult<R>> {
    if (!directStatement(sql).reads) {
      throw new SluiceError('SLUICE_UNSUPPORTED', 'only a statement that reads can be streamed: use execute()');
    }
    if (this.#held !== undefined) {
      throw new SluiceError('SLUICE_UNSUPPORTED', 'nothing can be streamed in a transaction: use execute()');
    }
    let rows: R[] = [];
    for await (const row of this.#runner.aiterate<R>(sql, parameters, { pageSize: chunkSize })) {
      if (rows.push(row) < chunkSize) continue;
      yield { rows };
      rows = [];
    }
    if (rows.length > 0) yield { rows };
  }
}

/** As for any SQLite, without Sluice's own tables. */
class SluiceIntrospector extends SqliteIntrospector {
  override async getTables(options?: DatabaseMetadataOptions): Promise<TableMetadata[]> {
    return (await super.getTables(options)).filter(({ name }) => !/^_sluice_/i.test(name));
  }

  override async getMetadata(options?: DatabaseMetadataOptions): Promise<DatabaseMetadata> {
    return { tables: await this.getTables(options) };
  }
}
