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
} from 'kysely';
import { SluiceError } from '../base/errors.ts';
import type { Database } from '../db/database.ts';
import { directStatement } from '../db/sql/statements.ts';

/** Options of {@link SluiceDialect}. */
export interface SluiceDialectOptions {
  /** The database, open. It stays so when Kysely is destroyed. */
  readonly database: Runner;
}

/**
 * Runs what Kysely makes on a Sluice database: what only reads on a reader thread, everything else on the writer thread, both after
 * all writes that were accepted before. Streams are read page by page. The parameters are those of {@link Database.aexecute}.
 *
 * Errors, in a query: as of {@link Database.aexecute} and {@link Database.afetchAll}; `SLUICE_UNSUPPORTED` for `transaction()`.
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
export type Runner = Pick<Database, 'aexecute' | 'afetchAll' | 'aiterate'>;

class SluiceDriver implements Driver {
  readonly #connection: SluiceConnection;

  constructor(database: Runner) {
    this.#connection = new SluiceConnection(database);
  }

  async init(): Promise<void> {}

  /** One for all: what is asked at the same time is put into an order by the database. */
  async acquireConnection(): Promise<DatabaseConnection> {
    return this.#connection;
  }

  async beginTransaction(): Promise<void> {
    throw noTransactions();
  }

  async commitTransaction(): Promise<void> {
    throw noTransactions();
  }

  async rollbackTransaction(): Promise<void> {
    throw noTransactions();
  }

  async releaseConnection(): Promise<void> {}

  async destroy(): Promise<void> {}
}

class SluiceConnection implements DatabaseConnection {
  readonly #runner: Runner;

  constructor(runner: Runner) {
    this.#runner = runner;
  }

  async executeQuery<R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> {
    const { reads, inserts } = directStatement(sql);
    if (reads) return { rows: await this.#runner.afetchAll<R>(sql, parameters) };
    const { rows, changes, lastInsertRowid } = await this.#runner.aexecute(sql, parameters);
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

function noTransactions(): SluiceError {
  return new SluiceError(
    'SLUICE_UNSUPPORTED',
    'transactions are not there yet: several changes at once are one statement, or aexecuteMany of the database',
  );
}
