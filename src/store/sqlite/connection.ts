import Database from 'better-sqlite3';
import { codeOf, messageOf, SluiceError } from '../../base/errors.ts';
import type { SqlValue } from '../../base/frame/index.ts';
import type { Parameters, SqlRow } from '../store.ts';

/** The part of better-sqlite3 that Sluice stands on. No other file imports it. */
export interface Connection {
  readonly inTransaction: boolean;
  prepare(sql: string): Statement;
  exec(sql: string): unknown;
  pragma(text: string, options?: { simple: true }): unknown;
  close(): unknown;
}

/** A connection as it is opened. */
export interface OpenedConnection extends Connection {
  /** SQLite's online backup; `progress` says how many pages come next. */
  backup(
    file: string,
    options: { progress(pages: { readonly totalPages: number; readonly remainingPages: number }): number },
  ): Promise<unknown>;
}

export interface Statement {
  /** Whether it returns rows. */
  readonly reader: boolean;
  /** Whether it leaves the database as it is. */
  readonly readonly: boolean;
  run(...parameters: unknown[]): { changes: number; lastInsertRowid: number | bigint };
  get(...parameters: unknown[]): unknown;
  all(...parameters: unknown[]): unknown[];
  iterate(...parameters: unknown[]): IterableIterator<unknown>;
  columns(): readonly { readonly name: string }[];
  pluck(on?: boolean): this;
  raw(on?: boolean): this;
  safeIntegers(on?: boolean): this;
}

export interface ConnectionOptions {
  readonly readonly: boolean;
  /** How long a call may block its thread while another connection holds the lock. */
  readonly busyTimeoutMs: number;
  /** Whether a file that is not there is an error instead of made. Always, of a read-only connection. */
  readonly mustExist?: boolean;
}

/** The bug that makes older versions unsafe here: https://sqlite.org/wal.html#walresetbug */
const OLDEST_VERSION = [3, 51, 3] as const;
const WITHDRAWN_VERSION = '3.52.0';

export function openConnection(
  path: string,
  { readonly, busyTimeoutMs, mustExist = readonly }: ConnectionOptions,
): OpenedConnection {
  try {
    return new Database(path, { readonly, fileMustExist: mustExist, timeout: busyTimeoutMs });
  } catch (error) {
    throw isNativeFailure(error) ? nativeError(error) : error;
  }
}

/** Throws unless the linked SQLite is one that a writer and a checkpointer may share a file in. */
export function checkVersion(connection: Connection): string {
  const version = connection.prepare('SELECT sqlite_version()').pluck().get() as string;
  const [major = 0, minor = 0, patch = 0] = version.split('.').map(Number);
  const [m, n, p] = OLDEST_VERSION;
  const tooOld = major !== m ? major < m : minor !== n ? minor < n : patch < p;
  if (tooOld || version === WITHDRAWN_VERSION) {
    throw new SluiceError(
      'SLUICE_UNSUPPORTED',
      `SQLite ${version} can lose committed data in WAL mode: install better-sqlite3 12.8 or newer (SQLite 3.51.3 or newer, not 3.52.0)`,
    );
  }
  return version;
}

/** A statement's rows as objects, with integers as numbers wherever a number can hold them. */
export function readRows(statement: Statement, parameters: Parameters, accept: (rows: number) => boolean): SqlRow[] {
  const rows: SqlRow[] = [];
  const { values, toRow } = iterateRows(statement, parameters);
  for (const row of values) {
    rows.push(toRow(row));
    if (!accept(rows.length)) break;
  }
  return rows;
}

/** The same, one after the other. better-sqlite3's own objects would lose a column `__proto__`. */
export function iterateRows(
  statement: Statement,
  parameters: Parameters,
): { readonly values: IterableIterator<SqlValue[]>; readonly toRow: (values: readonly SqlValue[]) => SqlRow } {
  const values = statement.raw().safeIntegers().iterate(parameters) as IterableIterator<SqlValue[]>;
  let names: readonly string[] | undefined;
  const toRow = (row: readonly SqlValue[]) => {
    names ??= namesOf(statement);
    return rowOf(names, row);
  };
  return { values, toRow };
}

/** The columns of a statement that has been run. Before that, SQLite may have a schema in mind that is an old one. */
export function namesOf(statement: Statement): readonly string[] {
  return statement.columns().map(({ name }) => name);
}

function rowOf(names: readonly string[], values: readonly SqlValue[]): SqlRow {
  const row: SqlRow = {};
  for (let i = 0; i < names.length; i++) {
    const name = names[i] as string;
    const value = narrow(values[i] as SqlValue);
    if (name === '__proto__') Object.defineProperty(row, name, { value, ...PLAIN });
    else row[name] = value;
  }
  return row;
}

const PLAIN = { configurable: true, enumerable: true, writable: true };

/** An integer as a number if that loses nothing. */
export function narrow(value: SqlValue): SqlValue {
  if (typeof value !== 'bigint') return value;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** An SQL identifier, whatever is in it. */
export function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

function isNativeFailure(error: unknown): boolean {
  const code = codeOf(error);
  return (
    code === 'ERR_DLOPEN_FAILED' ||
    code === 'MODULE_NOT_FOUND' ||
    messageOf(error).startsWith('Could not locate the bindings file')
  );
}

function nativeError(cause: unknown): SluiceError {
  return new SluiceError(
    'SLUICE_NATIVE',
    "the native part of better-sqlite3 did not load. Build it for this Node.js with 'npm rebuild better-sqlite3' " +
      "(npm 11 asks first: 'npm install-scripts approve better-sqlite3'), or with pnpm 'pnpm approve-builds better-sqlite3 && pnpm rebuild better-sqlite3'. " +
      'It needs Python 3, make and a C++ compiler where no prebuilt binary fits.',
    { cause },
  );
}
