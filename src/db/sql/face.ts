import { SluiceError } from '../../base/errors.ts';
import { foldName } from '../../base/fold-name.ts';
import type { SqlValue } from '../../base/frame/index.ts';
import { isPlainObject, show } from '../../base/options.ts';
import { checkWait, type WaitOptions } from '../../base/waiting.ts';
import { expiryTableOf } from '../../store/expiry-table.ts';
import type { ExecutedAll, ExecuteResult, Parameters, RepeatedStatement, SqlRow } from '../../store/store.ts';
import type { Core } from '../core.ts';
import type { ResolvedOptions } from '../options.ts';
import type { RowShape } from '../rows.ts';
import { Table } from '../table.ts';
import type { ResolvedTableOptions } from '../table-options.ts';
import { type Clause, Clauses } from './clauses.ts';
import { columnList, columnType, isPrimaryKey, literal } from './definitions.ts';
import { DirectSql, type ExecuteOptions, given, type IterateOptions, type QueryOptions } from './direct.ts';
import { quoteName, quoteOwn } from './identifiers.ts';
import type { SqlParameters } from './parameters.ts';
import { POLICY_OPTIONS, policyOf, type SqlPolicy, type SqlPolicyOptions } from './policy.ts';
import { planPragma, type ReadablePragma, type SettablePragma, type TablePragma } from './pragmas.ts';
import { importOf, insertion, onConflict } from './row-values.ts';
import type { Sql } from './template.ts';
import { invalidSql } from './tokens.ts';

/** Which rows: those for which an expression is true. */
export interface WhereOptions extends WaitOptions, SqlPolicyOptions {
  /** An expression, such as `'celsius > ? AND room IN (?, ?)'`. @defaultValue all rows */
  readonly where?: Clause | undefined;
  /** The values of the parameters of all clauses: a list for `?`, an object for `:name`. */
  readonly parameters?: SqlParameters | undefined;
}

/** Options of {@link Database.acount} and {@link Database.aexists}. */
export interface CountOptions extends WhereOptions {
  /** As in {@link QueryOptions.stale}. @defaultValue false */
  readonly stale?: boolean | undefined;
}

/** Options of {@link Database.aquery}. */
export interface SelectOptions extends CountOptions {
  /** Names of columns, or expressions, with or without `AS name`. @defaultValue all columns */
  readonly columns?: readonly Clause[] | undefined;
  /** Expressions with `ASC` or `DESC`, and `NULLS FIRST` or `LAST`. @defaultValue no order */
  readonly orderBy?: Clause | readonly Clause[] | undefined;
  /** At most this many rows. Integer of at least 0. @defaultValue no limit */
  readonly limit?: number | undefined;
  /** Leave out as many rows first. Integer of at least 0. @defaultValue 0 */
  readonly offset?: number | undefined;
  /** Leave out rows that are there already. @defaultValue false */
  readonly distinct?: boolean | undefined;
  /** Expressions: one row for all rows in which they are equal. @defaultValue no groups */
  readonly groupBy?: Clause | readonly Clause[] | undefined;
  /** Which groups: those for which an expression is true. */
  readonly having?: Clause | undefined;
}

/** Options of {@link Database.aqueryWithPagination}. */
export interface PaginationOptions extends SelectOptions {
  /** Resolve to `{ rows, total }`: how many rows there would be without `limit` and `offset`, at the same moment. @defaultValue false */
  readonly withTotal?: boolean | undefined;
}

/** A part of the rows, and how many there are. */
export interface Page<R> {
  /** The rows of the page. */
  readonly rows: R[];
  /** How many there are in all pages. */
  readonly total: number;
}

/** Which rows {@link Database.asqlUpdate} and {@link Database.asqlDelete} are about: that has to be said. */
export interface ChangeOptions extends WhereOptions {
  /** In the place of `where`: all rows. @defaultValue false */
  readonly all?: boolean | undefined;
}

/** Options of {@link Database.aupsert}. */
export interface UpsertOptions extends WaitOptions {
  /** The columns that tell whether a row is there already. @defaultValue those of any unique constraint */
  readonly conflictColumns?: readonly string[] | undefined;
}

/** Options of {@link Database.acreateTable}. */
export interface CreateTableOptions extends WaitOptions {
  /** Do nothing where there is such a table. @defaultValue true */
  readonly ifNotExists?: boolean | undefined;
  /** The column that is the primary key, or the columns, unless the type of one says so itself. @defaultValue none */
  readonly primaryKey?: string | readonly string[] | undefined;
}

/** Options of {@link Database.acreateIndex}. */
export interface CreateIndexOptions extends WaitOptions {
  /** Do nothing where there is such an index. @defaultValue true */
  readonly ifNotExists?: boolean | undefined;
  /** Let no two rows have the same values. @defaultValue false */
  readonly unique?: boolean | undefined;
}

/** Options of {@link Database.adropTable} and {@link Database.adropIndex}. */
export interface DropOptions extends WaitOptions {
  /** Do nothing where there is none. @defaultValue true */
  readonly ifExists?: boolean | undefined;
}

/** Options of {@link Database.aalterTableAddColumn}. */
export interface AddColumnOptions extends WaitOptions {
  /** What the rows have that are there already, and those that do not say: any value that a row can have. */
  readonly default?: unknown;
}

/** Options of {@link Database.aimportRows}. */
export interface ImportOptions extends WaitOptions {
  /** Columns that tell whether a row is there already: then it is updated. @defaultValue every row is inserted */
  readonly uniqueKeys?: readonly string[] | undefined;
}

/** A column as {@link Database.agetTableSchema} has it. */
export interface ColumnSchema {
  /** Its place, from 0 on. */
  readonly cid: number;
  /** Its name. */
  readonly name: string;
  /** Its declared type, as it was written. */
  readonly type: string;
  /** Whether it takes no NULL. */
  readonly notNull: boolean;
  /** Its default as SQL, `null` for none. */
  readonly defaultValue: string | null;
  /** Whether it is the primary key, or a part of it. */
  readonly primaryKey: boolean;
}

/** An index as {@link Database.alistIndexes} has it. */
export interface IndexSchema {
  /** Its name. */
  readonly name: string;
  /** The table that it is on. */
  readonly table: string;
  /** Whether no two rows can have the same values. */
  readonly unique: boolean;
  /** The columns it is made of; `null` for an expression. */
  readonly columns: readonly (string | null)[];
  /** The statement that made it. */
  readonly sql: string;
}

const WHERE: readonly string[] = ['where', 'parameters', ...POLICY_OPTIONS];
const COUNT: readonly string[] = [...WHERE, 'stale'];
const SELECT: readonly string[] = [
  ...COUNT,
  ...['columns', 'orderBy', 'limit', 'offset', 'distinct', 'groupBy', 'having'],
];

/** @internal What the database knows of tables by their names, folded. */
export interface TablesInUse {
  /** What rows are appended to, if there is something. */
  rows(folded: string): RowShape | undefined;
  /** Whether keys are written to it. */
  hasKeys(folded: string): boolean;
}

/** What a {@link Database} can do with SQL, beside {@link Database.stage}. */
export class SqlFace<T, In = T> extends Table<T, In> {
  /** @internal */
  protected readonly direct: DirectSql;
  readonly #policy: SqlPolicy;
  readonly #inUse: TablesInUse;

  /** @internal */
  constructor(core: Core, options: ResolvedOptions, table: ResolvedTableOptions, inUse: TablesInUse) {
    super(core, options.table, table);
    this.direct = new DirectSql(core);
    this.#policy = options.sql;
    this.#inUse = inUse;
  }

  // ── statements ────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Runs one statement on the writer thread, after everything staged before it, in a transaction of its own; resolves when
   * it is committed, with its rows (of a `SELECT`, or through `RETURNING`), how many rows it changed, and the last rowid.
   *
   * Writes made after the call, before it resolves, may come before the statement as well as after it: await it first.
   *
   * Never run twice: if the thread dies before it answers, the error is `SLUICE_OUTCOME_UNKNOWN`.
   *
   * With `{ ahead: true }`, as the third argument or in the place of the parameters, it waits for nothing: a flush that stands
   * still, for a table that was dropped say, can be repaired, and goes on.
   *
   * Errors: `SLUICE_INVALID_SQL` for several statements, transaction control, `PRAGMA` and `ATTACH`; `SLUICE_STORE`, with
   * `sqliteCode`, where SQLite says no; `SLUICE_TIMEOUT` and `SLUICE_ABORTED` while it waits for its turn.
   */
  async aexecute(sql: string, parameters?: SqlParameters, options?: ExecuteOptions): Promise<ExecuteResult>;
  async aexecute(sql: string, options: ExecuteOptions & { readonly ahead: boolean }): Promise<ExecuteResult>;
  async aexecute(sql: Sql, options?: ExecuteOptions): Promise<ExecuteResult>;
  async aexecute(
    sql: string | Sql,
    parameters?: SqlParameters | ExecuteOptions,
    options?: ExecuteOptions,
  ): Promise<ExecuteResult> {
    if (typeof sql === 'string' && options === undefined && isExecuteOptions(parameters, sql)) {
      return this.direct.execute({ sql, parameters: [], options: parameters });
    }
    return this.direct.execute(given(sql, parameters, options));
  }

  /**
   * Runs one statement with one set of parameters after the other, in one transaction: all of them, or none. Resolves to what
   * they have changed together, and the last rowid.
   *
   * Errors: as {@link Database.aexecute}.
   */
  async aexecuteMany(
    sql: string,
    parameterSets: Iterable<SqlParameters>,
    wait: WaitOptions = {},
  ): Promise<ExecutedAll> {
    return this.direct.executeMany(sql, parameterSets, wait);
  }

  /**
   * The rows of a `SELECT`, as objects, read by a reader thread after everything accepted before the call is applied.
   * Integers that a number cannot hold exactly come as bigint. The limit of time holds for the wait and for the query; a query
   * that is given up on ends between two rows, for SQLite cannot be stopped inside one.
   */
  async afetchAll<R = SqlRow>(sql: string, parameters?: SqlParameters, options?: QueryOptions): Promise<R[]>;
  async afetchAll<R = SqlRow>(sql: Sql, options?: QueryOptions): Promise<R[]>;
  async afetchAll<R = SqlRow>(
    sql: string | Sql,
    parameters?: SqlParameters | QueryOptions,
    options?: QueryOptions,
  ): Promise<R[]> {
    return (await this.direct.fetch(given(sql, parameters, options))) as R[];
  }

  /** The first row of a `SELECT`, `undefined` if there is none. See {@link Database.afetchAll}. */
  async afetchOne<R = SqlRow>(sql: string, parameters?: SqlParameters, options?: QueryOptions): Promise<R | undefined>;
  async afetchOne<R = SqlRow>(sql: Sql, options?: QueryOptions): Promise<R | undefined>;
  async afetchOne<R = SqlRow>(
    sql: string | Sql,
    parameters?: SqlParameters | QueryOptions,
    options?: QueryOptions,
  ): Promise<R | undefined> {
    const request = given(sql, parameters, options);
    const rows = await this.direct.fetch({ ...request, options: { ...request.options, maxRows: 1 } });
    return rows[0] as R | undefined;
  }

  /**
   * The rows of a `SELECT`, one after the other, all as they are at one moment: read page by page by a reader thread, as they are
   * asked for. Nothing is read before the first one is. A loop that is left lets its snapshot go; one that takes longer than
   * `scanMaxAgeMs` ends with `SLUICE_TIMEOUT`. The limit of time holds for the wait before the first row.
   *
   * @example
   * ```ts
   * import { open } from 'sluicedb';
   *
   * const db = await open(':memory:');
   * db.rows('readings', { columns: { n: 'integer' } }).appendMany([{ n: 1 }, { n: 2 }, { n: 3 }]);
   * let sum = 0;
   * for await (const { n } of db.aiterate<{ n: number }>('SELECT n FROM readings WHERE n > ?', [1])) sum += n;
   * console.log(sum); // 5
   * await db.close();
   * ```
   */
  aiterate<R = SqlRow>(sql: string, parameters?: SqlParameters, options?: IterateOptions): AsyncIterableIterator<R>;
  aiterate<R = SqlRow>(sql: Sql, options?: IterateOptions): AsyncIterableIterator<R>;
  aiterate<R = SqlRow>(
    sql: string | Sql,
    parameters?: SqlParameters | IterateOptions,
    options?: IterateOptions,
  ): AsyncIterableIterator<R> {
    const request = given(sql, parameters, options);
    this.direct.checkIterate(request);
    return rowsOf<R>(this.direct.pages(request));
  }

  // ── rows by clauses ───────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * The rows of a table, the database's own if none is named, put together of clauses. Each clause is looked at by its tokens,
   * and can be nothing but an expression: see {@link SqlPolicyOptions}. Names are put in quotes.
   *
   * Errors: `SLUICE_INVALID_SQL` for a clause that is more than one, or more than the policy lets through; `SLUICE_STORE` where
   * SQLite says no, to an unknown table say.
   *
   * @example
   * ```ts
   * import { open } from 'sluicedb';
   *
   * const db = await open(':memory:');
   * const readings = db.rows('readings', { columns: { room: 'text', celsius: 'real' } });
   * readings.appendMany([{ room: 'kitchen', celsius: 21.5 }, { room: 'cellar', celsius: 12 }, { room: 'attic', celsius: 30 }]);
   * const rows = await db.aquery('readings', {
   *   columns: ['room'],
   *   where: 'celsius > ?',
   *   parameters: [20],
   *   orderBy: 'celsius DESC',
   * });
   * console.log(rows); // [ { room: 'attic' }, { room: 'kitchen' } ]
   * await db.close();
   * ```
   */
  async aquery<R = SqlRow>(table: string, options?: SelectOptions): Promise<R[]>;
  async aquery<R = SqlRow>(options?: SelectOptions): Promise<R[]>;
  async aquery<R = SqlRow>(table?: string | SelectOptions, options?: SelectOptions): Promise<R[]> {
    const [name, selected] = this.#tableAnd(table, options);
    const statements = [this.#select('aquery', name, selected).page];
    const [rows = []] = await this.direct.readAll('aquery', statements, waitOf(selected));
    return rows as R[];
  }

  /**
   * As {@link Database.aquery}. With `withTotal: true` it resolves to `{ rows, total }`: one page, and how many rows there are in
   * all of them.
   */
  async aqueryWithPagination<R = SqlRow>(
    table: string,
    options: PaginationOptions & { readonly withTotal: true },
  ): Promise<Page<R>>;
  async aqueryWithPagination<R = SqlRow>(options: PaginationOptions & { readonly withTotal: true }): Promise<Page<R>>;
  async aqueryWithPagination<R = SqlRow>(
    table: string,
    options?: PaginationOptions & { readonly withTotal?: false | undefined },
  ): Promise<R[]>;
  async aqueryWithPagination<R = SqlRow>(
    options?: PaginationOptions & { readonly withTotal?: false | undefined },
  ): Promise<R[]>;
  async aqueryWithPagination<R = SqlRow>(
    table?: string | PaginationOptions,
    options?: PaginationOptions,
  ): Promise<R[] | Page<R>> {
    const what = 'aqueryWithPagination';
    const [name, { withTotal = false, ...selected }] = this.#tableAnd<PaginationOptions>(table, options);
    const { page, all } = this.#select(what, name, selected);
    const total = { ...all, sql: `SELECT count(*) AS n FROM (${all.sql})` };
    const [rows = [], counted] = await this.direct.readAll(what, withTotal ? [page, total] : [page], waitOf(selected));
    return withTotal ? { rows: rows as R[], total: counted?.[0]?.['n'] as number } : (rows as R[]);
  }

  /** How many rows a table has, or how many of them are such. Of keys, {@link Table.asize} knows without waiting for a flush. */
  async acount(table: string, options?: CountOptions): Promise<number>;
  async acount(options?: CountOptions): Promise<number>;
  async acount(table?: string | CountOptions, options?: CountOptions): Promise<number> {
    const [row] = await this.#ask('acount', 'SELECT count(*) AS n FROM', '', table, options);
    return row?.['n'] as number;
  }

  /** Whether a table has a row, or such a row. */
  async aexists(table: string, options?: CountOptions): Promise<boolean>;
  async aexists(options?: CountOptions): Promise<boolean>;
  async aexists(table?: string | CountOptions, options?: CountOptions): Promise<boolean> {
    return (await this.#ask('aexists', 'SELECT 1 FROM', ' LIMIT 1', table, options)).length > 0;
  }

  /** Inserts a row; resolves to its rowid, when it is committed. Behind, and faster: {@link Rows.append}. */
  async asqlInsert(
    table: string,
    row: Readonly<Record<string, unknown>>,
    wait: WaitOptions = {},
  ): Promise<number | bigint> {
    this.core.engine.assertAccepting();
    checkWait(wait);
    const { columns, values, marks } = insertion(row);
    const into = `INSERT INTO ${quoteOwn(table, 'the name of a table')}`;
    const sql = columns.length === 0 ? `${into} DEFAULT VALUES` : `${into} (${columns.join(', ')}) VALUES (${marks})`;
    return (await this.#write('asqlInsert', sql, values, wait, true)).lastInsertRowid;
  }

  /** Changes the columns that are given, of the rows that are meant; resolves to how many rows that were, when it is committed. */
  async asqlUpdate(table: string, changes: Readonly<Record<string, unknown>>, options: ChangeOptions): Promise<number> {
    this.core.engine.assertAccepting();
    const { columns, values } = insertion(changes);
    if (columns.length === 0) throw new SluiceError('SLUICE_INVALID_VALUE', 'there is no column to change');
    const { where, parameters } = this.#meant('asqlUpdate', options);
    const set = columns.map((column) => `${column} = ?`).join(', ');
    const sql = `UPDATE ${quoteOwn(table, 'the name of a table')} SET ${set}${where}`;
    return (await this.#write('asqlUpdate', sql, [...values, ...parameters], waitOf(options))).changes;
  }

  /** Deletes the rows that are meant; resolves to how many that were, when it is committed. */
  async asqlDelete(table: string, options: ChangeOptions): Promise<number> {
    this.core.engine.assertAccepting();
    const { where, parameters } = this.#meant('asqlDelete', options);
    const sql = `DELETE FROM ${quoteOwn(table, 'the name of a table')}${where}`;
    return (await this.#write('asqlDelete', sql, parameters, waitOf(options))).changes;
  }

  /**
   * Inserts a row, or changes the one that is there: of that the columns that are given, and no others. Resolves to its rowid, and
   * to 0 where there was nothing to change. For keys and values there is {@link Table.aset}: no name decides which is meant.
   */
  override async aupsert(
    table: string,
    row: Readonly<Record<string, unknown>> | In,
    options: UpsertOptions = {},
  ): Promise<number | bigint> {
    this.core.engine.assertAccepting();
    checkWait(options, ['conflictColumns']);
    const { conflictColumns, ...wait } = options;
    const { names, columns, values, marks } = insertion(row as Readonly<Record<string, unknown>>);
    if (columns.length === 0) throw new SluiceError('SLUICE_INVALID_VALUE', 'a row must have at least one column');
    const into = `INSERT INTO ${quoteOwn(table, 'the name of a table')} (${columns.join(', ')}) VALUES (${marks})`;
    const sql = `${into} ${onConflict(names, conflictColumns, 'conflictColumns')} RETURNING rowid AS id`;
    const { rows } = await this.#write('aupsert', sql, values, wait, true);
    return (rows[0]?.['id'] as number | bigint | undefined) ?? 0;
  }

  /** All rows of a table, as they are now. Of a large one {@link Database.aiterate} holds less. */
  async aexportTable<R = SqlRow>(table: string = this.name, options: QueryOptions = {}): Promise<R[]> {
    return this.afetchAll<R>(`SELECT * FROM ${quoteOwn(table, 'the name of a table')}`, [], options);
  }

  /**
   * Inserts rows, all of them or none; resolves to how many. What a row leaves out is NULL; a column that the table has not is
   * refused. With `uniqueKeys`, rows that are there already are changed.
   *
   * Errors: `SLUICE_INVALID_VALUE`, `SLUICE_NOT_FOUND` where there is no such table, `SLUICE_STORE`.
   */
  async aimportRows(
    table: string,
    rows: Iterable<Readonly<Record<string, unknown>>>,
    options: ImportOptions = {},
  ): Promise<number> {
    this.core.engine.assertAccepting();
    checkWait(options, ['uniqueKeys']);
    const { uniqueKeys, ...wait } = options;
    const name = quoteOwn(table, 'the name of a table');
    const { names, sets } = importOf(rows);
    if (sets.length === 0) return 0;
    await this.core.flusher.barrier('aimportRows', wait);
    this.#assertColumns(table, names);
    const columns = names.map(quoteName).join(', ');
    const insert = `INSERT INTO ${name} (${columns}) VALUES (${names.map(() => '?').join(', ')})`;
    const sql = uniqueKeys === undefined ? insert : `${insert} ${onConflict(names, uniqueKeys, 'uniqueKeys')}`;
    await this.direct.runAll('aimportRows', [{ sql, sets }], wait, true);
    return sets.length;
  }

  // ── tables and indexes ────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Makes a table: `{ id: 'INTEGER PRIMARY KEY', name: "TEXT NOT NULL DEFAULT 'x'" }`. A type may have constraints; it ends with its
   * column. Tables for rows that are written behind, {@link Database.rows} can make too.
   *
   * Errors: `SLUICE_INVALID_SQL`, `SLUICE_INVALID_OPTION` for the name of a key-value table, `SLUICE_STORE`.
   */
  async acreateTable(
    table: string,
    columns: Readonly<Record<string, string>>,
    options: CreateTableOptions = {},
  ): Promise<void> {
    this.core.engine.assertAccepting();
    checkWait(options, ['ifNotExists', 'primaryKey']);
    const { ifNotExists = true, primaryKey, ...wait } = options;
    const name = quoteOwn(table, 'the name of a table');
    if (this.#inUse.hasKeys(foldName(table))) {
      throw new SluiceError(
        'SLUICE_INVALID_OPTION',
        `${show(table)} is a key-value table, which is made when it is first written to: choose another name`,
      );
    }
    if (!isPlainObject(columns) || Object.keys(columns).length === 0) {
      throw invalidSql(`columns must be an object with at least one column, not ${show(columns)}`);
    }
    const definitions = Object.entries(columns).map(
      ([column, type]) => `${quoteName(column)} ${columnType(type, column)}`,
    );
    if (primaryKey !== undefined && !Object.values(columns).some(isPrimaryKey)) {
      definitions.push(`PRIMARY KEY (${columnList(primaryKey, 'primaryKey')})`);
    }
    await this.#define(
      'acreateTable',
      `CREATE TABLE ${ifNotExists ? 'IF NOT EXISTS ' : ''}${name} (${definitions.join(', ')})`,
      wait,
    );
    this.#learn(table);
  }

  /**
   * Drops a table with all that is in it. What was accepted before goes with it. A key-value table is made anew by the next write
   * to it; rows are refused until it is.
   *
   * Errors: `SLUICE_STORE`.
   */
  async adropTable(table: string, options: DropOptions = {}): Promise<void> {
    this.core.engine.assertAccepting();
    checkWait(options, ['ifExists']);
    const { ifExists = true, ...wait } = options;
    const sql = `DROP TABLE ${ifExists ? 'IF EXISTS ' : ''}${quoteOwn(table, 'the name of a table')}`;
    const expiries = `DROP TABLE IF EXISTS ${quoteName(expiryTableOf(table))}`;
    // From here on: rows that are accepted would die.
    this.#inUse.rows(foldName(table))?.forget();
    try {
      await this.direct.runAll('adropTable', [sql, expiries].map(once), wait);
    } catch (error) {
      this.#learn(table);
      throw error;
    }
  }

  /** Adds a column. `default` is a value, and no SQL: `'x'` is the text x. */
  async aalterTableAddColumn(
    table: string,
    column: string,
    type: string = '',
    options: AddColumnOptions = {},
  ): Promise<void> {
    this.core.engine.assertAccepting();
    checkWait(options, ['default']);
    const { default: value, ...wait } = options;
    const definition = `${quoteName(column)} ${columnType(type, column)}`;
    const fallback = value === undefined ? '' : ` DEFAULT ${literal(value, 'default')}`;
    await this.#define(
      'aalterTableAddColumn',
      `ALTER TABLE ${quoteOwn(table, 'the name of a table')} ADD COLUMN ${definition}${fallback}`,
      wait,
    );
    this.#learn(table);
  }

  /** Makes an index on columns of a table. */
  async acreateIndex(
    index: string,
    table: string,
    columns: string | readonly string[],
    options: CreateIndexOptions = {},
  ): Promise<void> {
    this.core.engine.assertAccepting();
    checkWait(options, ['ifNotExists', 'unique']);
    const { ifNotExists = true, unique = false, ...wait } = options;
    const sql = `CREATE ${unique ? 'UNIQUE ' : ''}INDEX ${ifNotExists ? 'IF NOT EXISTS ' : ''}${quoteOwn(index, 'the name of an index')}
      ON ${quoteOwn(table, 'the name of a table')} (${columnList(columns, 'columns')})`;
    await this.#define('acreateIndex', sql, wait);
  }

  /** Drops an index. */
  async adropIndex(index: string, options: DropOptions = {}): Promise<void> {
    this.core.engine.assertAccepting();
    checkWait(options, ['ifExists']);
    const { ifExists = true, ...wait } = options;
    const sql = `DROP INDEX ${ifExists ? 'IF EXISTS ' : ''}${quoteOwn(index, 'the name of an index')}`;
    await this.#define('adropIndex', sql, wait);
  }

  /** The names of all tables but Sluice's own and SQLite's own, in order. */
  async alistTables(wait: WaitOptions = {}): Promise<string[]> {
    const rows = await this.#look('alistTables', `${USERS_TABLES} ORDER BY name`, [], wait);
    return rows.map(({ name }) => name as string);
  }

  /** Whether there is a table of this name, whatever the case of its letters. */
  async atableExists(table: string, wait: WaitOptions = {}): Promise<boolean> {
    this.core.assertOpen();
    quoteOwn(table, 'the name of a table');
    const sql = `SELECT 1 FROM (${USERS_TABLES}) WHERE name = ? COLLATE NOCASE`;
    return (await this.#look('atableExists', sql, [table], wait)).length > 0;
  }

  /** The columns of a table, the database's own if none is named; none where there is no such table. */
  async agetTableSchema(table: string = this.name, wait: WaitOptions = {}): Promise<ColumnSchema[]> {
    this.core.assertOpen();
    quoteOwn(table, 'the name of a table');
    const rows = await this.#look('agetTableSchema', 'SELECT * FROM pragma_table_info(?)', [table], wait);
    return rows.map(({ cid, name, type, notnull, dflt_value, pk }) => ({
      cid: cid as number,
      name: name as string,
      type: type as string,
      notNull: notnull === 1,
      defaultValue: dflt_value as string | null,
      primaryKey: (pk as number) > 0,
    }));
  }

  /** The indexes of a table, or of all tables, that were made by themselves: those of constraints are not in it. */
  async alistIndexes(table?: string, wait: WaitOptions = {}): Promise<IndexSchema[]> {
    this.core.assertOpen();
    if (table !== undefined) quoteOwn(table, 'the name of a table');
    const rows = await this.#look('alistIndexes', INDEXES, { table: table ?? null }, wait);
    return rows.map(({ name, on_table, is_unique, columns, sql }) => ({
      name: name as string,
      table: on_table as string,
      unique: is_unique === 1,
      columns: JSON.parse(columns as string) as (string | null)[],
      sql: sql as string,
    }));
  }

  // ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Rewrites the file without the room that deleted rows have left. Writes wait meanwhile. */
  async avacuum(wait: WaitOptions = {}): Promise<void> {
    this.core.engine.assertAccepting();
    checkWait(wait);
    await this.#define('avacuum', 'VACUUM', wait);
  }

  /**
   * Reads a setting of SQLite, or changes it; or asks about a table or an index (`table_info`, `index_list` …), which answers in rows.
   * A setting is that of the writer's connection; changed, it stays so until the database is closed or its thread is started anew,
   * but for those that are kept in the file (`user_version`, `application_id`, `auto_vacuum`). Those that durability stands on can
   * only be read.
   *
   * Errors: `SLUICE_INVALID_SQL` for a name that is not on the list, and for a value that cannot be one.
   */
  async apragma(name: TablePragma, about?: string): Promise<SqlRow[]>;
  async apragma(name: ReadablePragma): Promise<SqlValue | undefined>;
  async apragma(name: SettablePragma, value: number | boolean | string): Promise<SqlValue | undefined>;
  async apragma(name: string, value?: unknown): Promise<SqlRow[] | SqlValue | undefined> {
    this.core.assertOpen();
    const plan = planPragma(name, value);
    if (plan.do === 'rows') return this.#look('apragma', plan.sql, plan.parameters, {});
    this.core.engine.assertAccepting();
    if (plan.do === 'set') await this.direct.run('apragma', { sql: plan.sql, parameters: [] }, {});
    const sql = plan.do === 'set' ? plan.read : plan.sql;
    const { rows } = await this.direct.run('apragma', { sql, parameters: [] }, {});
    return Object.values(rows[0] ?? {})[0];
  }

  /** Size of the database in bytes, with what is still in its WAL. */
  async agetDbSize(wait: WaitOptions = {}): Promise<number> {
    const sql = 'SELECT page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size';
    const [row] = await this.#look('agetDbSize', sql, [], wait);
    return row?.['bytes'] as number;
  }

  /**
   * The rowid of the last row that a direct statement has inserted since the database was opened (`aexecute`, `asqlInsert` and
   * the like), 0 before the first. What is written behind does not move it. Surer is what the call itself resolves to.
   */
  async agetLastInsertRowid(): Promise<number | bigint> {
    this.core.assertOpen();
    return this.direct.lastInsertRowid;
  }

  // ── inside ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #tableAnd<O extends CountOptions>(table: string | O | undefined, options: O | undefined): [string, O] {
    if (typeof table === 'object' && options === undefined) return [this.name, table];
    return [table === undefined ? this.name : (table as string), options ?? ({} as O)];
  }

  #clauses(call: string, options: WhereOptions): Clauses {
    return new Clauses(policyOf(options, this.#policy, call), options.parameters);
  }

  /** The statement for a page, and the one for all pages. */
  #select(call: string, table: string, options: SelectOptions): Record<'page' | 'all', SelectStatement> {
    this.core.assertOpen();
    checkWait(options, SELECT);
    const { columns, where, orderBy, limit, offset, distinct = false, groupBy, having } = options;
    const clauses = this.#clauses(call, options);
    const selected = columns === undefined ? '*' : columnsOf(columns, clauses);
    let all = `SELECT ${distinct ? 'DISTINCT ' : ''}${selected} FROM ${quoteOwn(table, 'the name of a table')}`;
    if (where !== undefined) all += ` WHERE ${clauses.expression(where, 'where')}`;
    if (groupBy !== undefined) all += ` GROUP BY ${clauses.list(groupBy, 'groupBy')}`;
    if (having !== undefined) all += ` HAVING ${clauses.expression(having, 'having')}`;
    const before = clauses.values.length;
    const order = orderBy === undefined ? '' : ` ORDER BY ${clauses.order(orderBy, 'orderBy')}`;
    const parameters = clauses.finish();
    return {
      all: { sql: all, parameters: parameters.slice(0, before) },
      page: { sql: `${all}${order}${limits(limit, offset)}`, parameters },
    };
  }

  async #ask(
    call: string,
    select: string,
    end: string,
    table: string | CountOptions | undefined,
    given: CountOptions | undefined,
  ): Promise<SqlRow[]> {
    this.core.assertOpen();
    const [name, options] = this.#tableAnd(table, given);
    checkWait(options, COUNT);
    const clauses = this.#clauses(call, options);
    const where = options.where === undefined ? '' : ` WHERE ${clauses.expression(options.where, 'where')}`;
    const sql = `${select} ${quoteOwn(name, 'the name of a table')}${where}${end}`;
    const [rows = []] = await this.direct.readAll(call, [{ sql, parameters: clauses.finish() }], waitOf(options));
    return rows;
  }

  /** The rows that are to be changed: somebody who forgets to say which does not mean all of them. */
  #meant(call: string, options: ChangeOptions): { where: string; parameters: SqlValue[] } {
    checkWait(options, [...WHERE, 'all']);
    const { where, all = false } = options ?? {};
    if ((where === undefined) === (all !== true)) {
      throw new SluiceError('SLUICE_INVALID_OPTION', `${call}: pass where, or, for all rows, all: true`);
    }
    const clauses = this.#clauses(call, options);
    const text = where === undefined ? '' : ` WHERE ${clauses.expression(where, 'where')}`;
    return { where: text, parameters: clauses.finish() };
  }

  /** A statement of our own that changes rows. */
  #write(
    call: string,
    sql: string,
    parameters: Parameters,
    wait: WaitOptions,
    inserts = false,
  ): Promise<ExecuteResult> {
    return this.direct.run(call, { sql, parameters }, { signal: wait.signal, timeoutMs: wait.timeoutMs }, inserts);
  }

  async #define(call: string, sql: string, wait: WaitOptions): Promise<void> {
    await this.#write(call, sql, [], wait);
  }

  /** A statement of our own that looks something up. */
  async #look(call: string, sql: string, parameters: Parameters, wait: WaitOptions): Promise<SqlRow[]> {
    this.core.assertOpen();
    checkWait(wait);
    const [rows = []] = await this.direct.readAll(call, [{ sql, parameters }], wait);
    return rows;
  }

  /** Tells those who append to a table what it looks like now. */
  #learn(table: string): void {
    this.#inUse.rows(foldName(table))?.learn();
  }

  #assertColumns(table: string, names: readonly string[]): void {
    const columns = this.core.store.sync.columns(table);
    if (columns === undefined) throw new SluiceError('SLUICE_NOT_FOUND', `there is no table ${show(table)}`);
    const known = new Set(columns.map(({ name }) => foldName(name)));
    const unknown = names.filter((name) => !known.has(foldName(name)));
    if (unknown.length === 0) return;
    throw new SluiceError(
      'SLUICE_INVALID_VALUE',
      `table ${show(table)} has no column ${unknown.map(show).join(', ')}: its columns are ${columns.map(({ name }) => name).join(', ')}. Nothing was imported`,
    );
  }
}

interface SelectStatement {
  readonly sql: string;
  readonly parameters: SqlValue[];
}

const USERS_TABLES = `SELECT name FROM sqlite_schema
  WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_sluice\\_%' ESCAPE '\\'`;

const INDEXES = `
  SELECT s.name, s.tbl_name AS on_table, s.sql, l."unique" AS is_unique,
         (SELECT json_group_array(i.name ORDER BY i.seqno) FROM pragma_index_info(s.name) AS i) AS columns
    FROM sqlite_schema AS s JOIN pragma_index_list(s.tbl_name) AS l ON l.name = s.name
   WHERE s.type = 'index' AND s.sql IS NOT NULL AND s.name NOT LIKE '\\_sluice\\_%' ESCAPE '\\'
         AND s.tbl_name NOT LIKE '\\_sluice\\_%' ESCAPE '\\' AND (:table IS NULL OR s.tbl_name = :table COLLATE NOCASE)
   ORDER BY s.name`;

async function* rowsOf<R>(pages: AsyncIterable<SqlRow[]>): AsyncGenerator<R, void, undefined> {
  for await (const page of pages) yield* page as R[];
}

/** Whether what stands in the place of the parameters is meant as options. */
function isExecuteOptions(given: SqlParameters | ExecuteOptions | undefined, sql: string): given is ExecuteOptions {
  const isObject = typeof given === 'object' && given !== null && !Array.isArray(given);
  return isObject && typeof (given as ExecuteOptions).ahead === 'boolean' && !/[:@$]ahead\b/.test(sql);
}

function waitOf({ signal, timeoutMs, stale }: CountOptions): WaitOptions & { readonly stale?: boolean | undefined } {
  return { signal, timeoutMs, stale };
}

function columnsOf(columns: readonly Clause[], clauses: Clauses): string {
  if (!Array.isArray(columns) || columns.length === 0) {
    throw invalidSql(`columns must be a list with at least one column, not ${show(columns)}`);
  }
  return columns.map((column: Clause) => clauses.column(column)).join(', ');
}

function limits(limit: number | undefined, offset: number | undefined): string {
  for (const [name, value] of Object.entries({ limit, offset })) {
    if (value === undefined || (Number.isSafeInteger(value) && value >= 0)) continue;
    throw new SluiceError('SLUICE_INVALID_OPTION', `${name} must be an integer of at least 0, not ${show(value)}`);
  }
  if (offset === undefined) return limit === undefined ? '' : ` LIMIT ${limit}`;
  // SQLite has no OFFSET by itself.
  return ` LIMIT ${limit ?? -1} OFFSET ${offset}`;
}

function once(sql: string): RepeatedStatement {
  return { sql, sets: [[]] };
}
