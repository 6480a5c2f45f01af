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
  readonly database: Database;
}

/**
 * Runs what Kysely makes on a Sluice database: what only reads on a reader thread, everything else on the writer thread, both after
 * all writes that were accepted before. Streams are read page by page. The parameters are those of {@link Database.aexecute}.
 *
 * Errors, in a query: as of {@link Database.aexecute} and {@link Database.afetchAll}. `transaction()` is held by the writer
 * thread, and is rolled back after ten seconds, as of {@link Database.atransaction} with `sql: true`; `SLUICE_UNSUPPORTED` for isolation
 * levels, and for read-only ones: a transaction has the database to itself. What is asked of Kysely itself in the function of a
 * transaction, and would wait for its end, is refused with `SLUICE_CONFLICT`. In a transaction nothing can be streamed.
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
    return new SluiceAdapter(this.#database);
  }

  /** @internal */
  createIntrospector(db: Kysely<unknown>): DatabaseIntrospector {
    return new SluiceIntrospector(db);
  }
}

/** What runs the statements of a connection: a {@link Database}. */
type Runner = Pick<Database, 'aexecute' | 'afetchAll' | 'aiterate' | 'holdTransaction'>;

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

  /** Not `async`: what Kysely calls next is the function of the transaction, which is inside it then. */
  beginTransaction(connection: SluiceConnection, settings: TransactionSettings): Promise<void> {
    const wish =
      settings.isolationLevel !== undefined
        ? 'a transaction has the database to itself: leave the isolation level out'
        : settings.accessMode === 'read only'
          ? 'a transaction holds the writer: leave the access mode out, or read without a transaction'
          : undefined;
    if (wish !== undefined) return Promise.reject(new SluiceError('SLUICE_UNSUPPORTED', wish));
    return connection.begin();
  }

  async commitTransaction(connection: SluiceConnection): Promise<void> {
    await connection.tx.acommit();
  }

  /** Harmless where something else has ended it, of which Kysely knows. */
  async rollbackTransaction(connection: SluiceConnection): Promise<void> {
    await connection.tx.arollback();
  }

  async savepoint(connection: SluiceConnection, name: string): Promise<void> {
    await connection.tx.asavepoint(name);
  }

  async rollbackToSavepoint(connection: SluiceConnection, name: string): Promise<void> {
    await connection.tx.arollbackTo(name);
  }

  async releaseSavepoint(connection: SluiceConnection, name: string): Promise<void> {
    await connection.tx.arelease(name);
  }

  async releaseConnection(): Promise<void> {}

  async destroy(): Promise<void> {}
}

class SluiceConnection implements DatabaseConnection {
  readonly #runner: Runner;
  #tx: SqlTransaction | undefined;

  constructor(runner: Runner) {
    this.#runner = runner;
  }

  /** Resolves when the transaction is the one whose turn it is. */
  begin(): Promise<void> {
    return this.#runner.holdTransaction('transaction()').then((tx) => {
      this.#tx = tx;
    });
  }

  /** The one that was begun. */
  get tx(): SqlTransaction {
    return this.#tx as SqlTransaction;
  }

  async executeQuery<R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> {
    const { reads, inserts } = directStatement(sql);
    if (reads) return { rows: await this.#read<R>(sql, parameters) };
    const { rows, changes, lastInsertRowid } = await (this.#tx ?? this.#runner).aexecute(sql, parameters);
    return {
      rows: rows as R[],
      numAffectedRows: BigInt(changes),
      ...(inserts && changes > 0 ? { insertId: BigInt(lastInsertRowid) } : {}),
    };
  }

  #read<R>(sql: string, parameters: readonly unknown[]): Promise<R[]> {
    return this.#tx === undefined ? this.#runner.afetchAll<R>(sql, parameters) : this.#tx.afetchAll<R>(sql, parameters);
  }

  async *streamQuery<R>({ sql, parameters }: CompiledQuery, chunkSize = 256): AsyncIterableIterator<QueryResult<R>> {
    if (!directStatement(sql).reads) {
      throw new SluiceError('SLUICE_UNSUPPORTED', 'only a statement that reads can be streamed: use execute()');
    }
    if (this.#tx !== undefined) {
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

/** Who migrates a database: it is open in one process alone. */
const migrating = new WeakMap<Runner, Promise<void>>();

/** As for any SQLite, which has one connection in Kysely, and so one migration at a time. */
class SluiceAdapter extends SqliteAdapter {
  readonly #database: Runner;
  #release = (): void => {};

  constructor(database: Runner) {
    super();
    this.#database = database;
  }

  override async acquireMigrationLock(): Promise<void> {
    const before = migrating.get(this.#database);
    let release = () => {};
    const done = new Promise<void>((resolve) => {
      release = resolve;
    });
    migrating.set(
      this.#database,
      Promise.all([before, done]).then(() => {}),
    );
    await before;
    this.#release = release;
  }

  override async releaseMigrationLock(): Promise<void> {
    this.#release();
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
