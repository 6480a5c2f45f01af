import { codeOf, messageOf, SluiceError } from '../../../base/errors.ts';
import { codelessMeaning } from '../../../base/failure.ts';
import type { SqlValue } from '../../../base/frame/index.ts';
import { EXPIRES_AT, expiryTableOf } from '../../expiry-table.ts';
import type {
  Column,
  CountOverlay,
  Entry,
  KeyRange,
  Parameters,
  SqlRow,
  Statement as SqlStatement,
  SyncReads,
  SyncScan,
} from '../../store.ts';
import {
  type Connection,
  iterateRows,
  narrow,
  openConnection,
  quote,
  readRows,
  type Statement,
} from '../connection.ts';
import { assertSameDatabase, type FileId } from '../file-identity.ts';
import { columnsOf, writesSpread } from '../schema.ts';

const STATEMENTS_MAX = 500;

/** A {@link ReadLock} costs as much as it saves on so few reads. */
const READS_UNTIL_LOCKED = 10;

/** SQL NULL, which Sluice never writes but another program may, reads as JSON's null. */
const VALUE = "ifnull(value, 'null')";

/**
 * Everything that is read from SQLite, on one thread. Point reads share a connection that is in a transaction only while several
 * of them are to be of one moment, so each sees the last commit; every scan has a connection of its own, pinned to its snapshot.
 */
export class SqliteReader implements SyncReads {
  readonly #path: string;
  readonly #busyTimeoutMs: number;
  #database: FileId;
  readonly #idle: Connection[] = [];
  readonly #scans = new Set<SqliteScan>();
  readonly #cursors = new Set<SqliteCursor>();
  readonly #statements = new Map<string, Statement>();
  /** The text of the point read of each table: one statement is found by it, and none is put together for a read. */
  readonly #pointReads = new Map<string, string>();
  /** By table, at a version of the schema. */
  readonly #spreads = new Map<string, boolean>();
  #spreadsAt: unknown;
  /** Tables with rows that can expire, as far as they were met. */
  readonly #expiring = new Set<string>();
  #db: Connection | undefined;
  #readsInTurn = 0;
  #readLock: ReadLock | undefined;

  /** `database` is the file that the writer has open: a connection made later must not be one to another file. */
  constructor(path: string, database: FileId, busyTimeoutMs: number) {
    this.#path = path;
    this.#database = database;
    this.#busyTimeoutMs = busyTimeoutMs;
  }

  get(table: string, key: string, liveAt?: number): SqlValue | undefined {
    // No closure: this is all that a synchronous read adds to SQLite's own time.
    try {
      if (++this.#readsInTurn === 1) queueMicrotask(this.#endTurn);
      else if (this.#readsInTurn === READS_UNTIL_LOCKED) this.#keepReadLock();
      return this.#get(table, key, liveAt);
    } catch (error) {
      throw readError(error);
    }
  }

  #get(table: string, key: string, liveAt: number | undefined): SqlValue | undefined {
    const sql = this.#pointReads.get(table) ?? this.#pointRead(table);
    if (liveAt === undefined || !this.#expires(table)) return this.#onTable(table, sql, key);
    return this.#onTable(table, `${sql} AND ${isLive(table)}`, key, liveAt);
  }

  #pointRead(table: string): string {
    const sql = `SELECT ${VALUE} FROM ${quote(table)} AS t WHERE key = ?`;
    this.#pointReads.set(table, sql);
    return sql;
  }

  /** All at one moment, so that an atomic write is there whole or not at all. */
  getMany(table: string, keys: readonly string[], liveAt?: number): (SqlValue | undefined)[] {
    if (keys.length === 1) return [this.get(table, keys[0] as string, liveAt)];
    return this.#atOneMoment(() => keys.map((key) => this.#get(table, key, liveAt)));
  }

  count(table: string, overlay: CountOverlay): number {
    if (overlay.cleared) return overlay.present.length;
    return this.#atOneMoment(() => this.#countNow(table, overlay));
  }

  scan(table: string, range: KeyRange): SqliteScan {
    return reading(() => {
      const db = this.#idle.pop() ?? this.#open();
      const scan = new SqliteScan(db, table, range, () => {
        this.#scans.delete(scan);
        this.#idle.push(db);
      });
      this.#scans.add(scan);
      return scan;
    });
  }

  columns(table: string): Column[] | undefined {
    return reading(() => columnsOf(this.#connection(), table));
  }

  writesSpread(table: string): boolean {
    return reading(() => {
      const db = this.#connection();
      const version = db.pragma('schema_version', { simple: true });
      if (version !== this.#spreadsAt) this.#spreads.clear();
      this.#spreadsAt = version;
      const known = this.#spreads.get(table);
      if (known !== undefined) return known;
      const spreads = writesSpread(db, table);
      this.#spreads.set(table, spreads);
      return spreads;
    });
  }

  query(sql: string, parameters: Parameters, isCalledOff: () => boolean, maxRows?: number): SqlRow[] {
    return reading(() => this.#query({ sql, parameters }, isCalledOff, maxRows));
  }

  /** All at one moment. */
  queryAll(statements: readonly SqlStatement[], isCalledOff: () => boolean): SqlRow[][] {
    return this.#atOneMoment(() => statements.map((statement) => this.#query(statement, isCalledOff)));
  }

  #query({ sql, parameters }: SqlStatement, isCalledOff: () => boolean, maxRows?: number): SqlRow[] {
    return readRows(prepareReading(this.#connection(), sql), parameters, (rows) => {
      checkGoesOn(rows, isCalledOff);
      return maxRows === undefined || rows < maxRows;
    });
  }

  cursor(statement: SqlStatement): SqliteCursor {
    return reading(() => {
      const db = this.#idle.pop() ?? this.#open();
      const cursor = new SqliteCursor(db, statement, () => {
        this.#cursors.delete(cursor);
        this.#idle.push(db);
      });
      this.#cursors.add(cursor);
      return cursor;
    });
  }

  /** Any other question, answered on the connection of the point reads. */
  ask<T>(question: (db: Connection) => T): T {
    return reading(() => question(this.#connection()));
  }

  close(): void {
    this.endScans();
    for (const db of this.#idle) db.close();
    this.#idle.length = 0;
    this.#db?.close();
    this.#db = undefined;
    this.#statements.clear();
    this.#expiring.clear();
    // Another database may come to the same version of its schema by another way.
    this.#spreads.clear();
  }

  /** Lets go of all snapshots; whoever walks over one gets an error. */
  endScans(): void {
    for (const open of [...this.#scans, ...this.#cursors]) open.close();
    this.#endReadLock();
  }

  /** Another file stands in the place of the one before: nothing of that is read any more. */
  replaced(database: FileId): void {
    this.close();
    this.#database = database;
  }

  #keepReadLock(): void {
    try {
      this.#readLock = new ReadLock(this.#idle.pop() ?? this.#open());
    } catch {
      // Reads take longer without it, and that is all: what is wrong with the file they say themselves.
    }
  }

  #endReadLock(): void {
    const db = this.#readLock?.release();
    if (db !== undefined) this.#idle.push(db);
    this.#readLock = undefined;
  }

  readonly #endTurn = (): void => {
    this.#readsInTurn = 0;
    this.#endReadLock();
  };

  /** Several statements in one transaction: the writer may commit between two of them. */
  #atOneMoment<T>(read: () => T): T {
    return reading(() => {
      const db = this.#connection();
      db.exec('BEGIN');
      try {
        return read();
      } finally {
        db.exec('COMMIT');
      }
    });
  }

  #countNow(table: string, { present, absent, liveAt }: CountOverlay): number {
    const count = this.#countLive(table, liveAt);
    if (typeof count !== 'number') return present.length;
    const isThere = (key: string) => this.#get(table, key, liveAt) !== undefined;
    return count + present.filter((key) => !isThere(key)).length - absent.filter(isThere).length;
  }

  #countLive(table: string, liveAt: number | undefined): SqlValue | undefined {
    const name = quote(table);
    if (liveAt === undefined || !this.#expires(table)) return this.#onTable(table, `SELECT count(key) FROM ${name}`);
    // There are few that have expired: they are being deleted.
    return this.#onTable(
      table,
      `SELECT (SELECT count(key) FROM ${name}) - (SELECT count(*) FROM ${quote(expiryTableOf(table))} AS e
         WHERE ${EXPIRES_AT} <= ? AND EXISTS (SELECT 1 FROM ${name} AS t WHERE t.key = e.key))`,
      liveAt,
    );
  }

  /** Whether rows of the table can expire: once they can, always. */
  #expires(table: string): boolean {
    if (this.#expiring.has(table)) return true;
    if (columnsOf(this.#connection(), expiryTableOf(table)) === undefined) return false;
    this.#expiring.add(table);
    return true;
  }

  /** The one value that a statement on a key-value table finds; `undefined` also while the table does not exist. */
  #onTable(table: string, sql: string, ...parameters: (string | number)[]): SqlValue | undefined {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      if (columnsOf(this.#connection(), table) === undefined) return undefined;
      if (this.#statements.size >= STATEMENTS_MAX) this.#statements.clear();
      statement = this.#connection().prepare(sql).pluck();
      this.#statements.set(sql, statement);
    }
    try {
      return statement.get(...parameters) as SqlValue | undefined;
    } catch (error) {
      // SQL may have dropped the table since the statement was prepared.
      this.#statements.delete(sql);
      this.#expiring.delete(table);
      if (columnsOf(this.#connection(), table) !== undefined) throw error;
      return undefined;
    }
  }

  #connection(): Connection {
    this.#db ??= this.#open();
    return this.#db;
  }

  #open(): Connection {
    assertSameDatabase(this.#path, this.#database);
    return openConnection(this.#path, { readonly: true, busyTimeoutMs: this.#busyTimeoutMs });
  }
}

/** What SQLite said to a read, as the error a caller gets. */
function readError(error: unknown): SluiceError {
  if (error instanceof SluiceError) return error;
  return new SluiceError('SLUICE_STORE', `a read failed: ${messageOf(error)}`, {
    cause: error,
    sqliteCode: codeOf(error) ?? codelessMeaning(error)?.code,
  });
}

function reading<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw readError(error);
  }
}

/** For whoever walks over a snapshot that a restore has ended. */
export function scansEnded(): SluiceError {
  return new SluiceError('SLUICE_CONFLICT', 'the database is being restored, which ends all scans: begin anew');
}

/**
 * SQLite's lock on a snapshot, held by a connection that nothing is read from. A read that stands alone takes this lock and gives it
 * back by two calls of the system, which are half of what it costs; both are left out while another connection of the process
 * has the same one (SQLite counts them). Each read still sees the last commit, for which a transaction around the reads would be too
 * old.
 *
 * It holds up checkpoints, so it is given back at the end of the turn.
 */
class ReadLock {
  readonly #db: Connection;

  constructor(db: Connection) {
    this.#db = db;
    try {
      db.exec('BEGIN; SELECT 1 FROM _sluice_state');
    } catch (error) {
      db.close();
      throw error;
    }
  }

  /** Returns the connection, unless something is wrong with it: there is nobody to be told, at the end of a turn. */
  release(): Connection | undefined {
    try {
      this.#db.exec('COMMIT');
      return this.#db;
    } catch {
      this.#db.close();
      return undefined;
    }
  }
}

/** One table at one moment, page by page. */
class SqliteScan implements SyncScan {
  readonly appliedSeq: number;
  readonly #db: Connection;
  readonly #release: () => void;
  #rows: IterableIterator<unknown> | undefined;
  #open = true;

  constructor(db: Connection, table: string, range: KeyRange, release: () => void) {
    this.#db = db;
    this.#release = release;
    try {
      db.exec('BEGIN');
      // The first read pins the snapshot that everything after it comes from.
      this.appliedSeq = db.prepare('SELECT applied_seq FROM _sluice_state').pluck().get() as number;
      if (columnsOf(db, table) !== undefined) this.#rows = selectRange(db, table, range);
    } catch (error) {
      db.close();
      throw error;
    }
  }

  next(count: number): Entry[] {
    return reading(() => this.#next(count));
  }

  #next(count: number): Entry[] {
    // Its rows would say that they have come to their end.
    if (!this.#open) throw scansEnded();
    const page: Entry[] = [];
    while (page.length < count) {
      const row = this.#rows?.next();
      if (row === undefined || row.done === true) break;
      const [key, value] = row.value as [SqlValue, SqlValue];
      // NanaSQLite may have left a NULL key, and a user a BLOB: neither can be named here.
      if (typeof key === 'string') page.push([key, narrow(value)]);
    }
    return page;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#rows?.return?.();
    this.#db.exec('COMMIT');
    this.#release();
  }
}

/** What one statement returns at one moment, page by page. Its connection is for nothing else until it is closed. */
export class SqliteCursor {
  readonly #db: Connection;
  readonly #release: () => void;
  readonly #rows: ReturnType<typeof iterateRows>;
  #open = true;

  constructor(db: Connection, { sql, parameters }: SqlStatement, release: () => void) {
    this.#db = db;
    this.#release = release;
    try {
      db.exec('BEGIN');
      // A statement sees the moment of the first read, which may be asked for later.
      db.prepare('SELECT 1 FROM _sluice_state').get();
      this.#rows = iterateRows(prepareReading(db, sql), parameters);
    } catch (error) {
      db.close();
      throw error;
    }
  }

  next(count: number, isCalledOff: () => boolean): SqlRow[] {
    return reading(() => {
      if (!this.#open) throw scansEnded();
      const page: SqlRow[] = [];
      while (page.length < count) {
        checkGoesOn(page.length, isCalledOff);
        const row = this.#rows.values.next();
        if (row.done === true) break;
        page.push(this.#rows.toRow(row.value));
      }
      return page;
    });
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#rows.values.return?.();
    this.#db.exec('COMMIT');
    this.#release();
  }
}

/** Its caller has been told already. */
function checkGoesOn(rows: number, isCalledOff: () => boolean): void {
  if (isCalledOff()) throw new SluiceError('SLUICE_ABORTED', `the query was called off after ${rows} rows`);
}

function prepareReading(db: Connection, sql: string): Statement {
  const statement = db.prepare(sql);
  if (statement.reader) return statement;
  throw new SluiceError('SLUICE_INVALID_SQL', 'the statement returns no rows: run it with aexecute');
}

/** SQL for a row `t` that has not expired by a moment, which is the parameter. */
function isLive(table: string): string {
  return `NOT EXISTS (SELECT 1 FROM ${quote(expiryTableOf(table))} AS e WHERE e.key = t.key AND ${EXPIRES_AT} <= ?)`;
}

function selectRange(db: Connection, table: string, range: KeyRange): IterableIterator<unknown> {
  const bounds = (
    [
      ['>', range.gt],
      // Of several lower bounds SQLite looks for the first key by one, which may be this one, and walks to the other.
      ['>=', range.gte ?? (range.gt === undefined ? '' : undefined)],
      ['<', range.lt],
      ['<=', range.lte],
    ] as const
  ).filter(([, key]) => key !== undefined);
  const conditions = bounds.map(([operator]) => `key ${operator} ?`);
  const parameters: unknown[] = bounds.map(([, key]) => key);
  if (range.liveAt !== undefined && columnsOf(db, expiryTableOf(table)) !== undefined) {
    conditions.push(isLive(table));
    parameters.push(range.liveAt);
  }
  const [where, order] = [conditions.join(' AND '), range.reverse ? 'DESC' : 'ASC'];
  return db
    .prepare(
      `SELECT key, ${range.keysOnly ? 'NULL' : VALUE} FROM ${quote(table)} AS t WHERE ${where} ORDER BY key ${order}`,
    )
    .raw()
    .safeIntegers()
    .iterate(parameters);
}
