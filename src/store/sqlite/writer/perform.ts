import type { SqlValue } from '../../../base/frame/index.ts';
import type { ExecuteResult, Parameters, SqlRow } from '../../store.ts';
import { type Connection, narrow, readRows, type Statement } from '../connection.ts';

/** A statement of the user's with one set of parameters, and all that it says afterwards. Where SQLite says no, it throws. */
export function perform(db: Connection, statement: Statement, parameters: Parameters): ExecuteResult {
  const { rows, changes } = runOnce(db, statement, parameters);
  return { rows, changes, lastInsertRowid: lastInsertRowid(db) };
}

/** The same, without asking for the rowid: for a statement that is run many times. */
export function runOnce(
  db: Connection,
  statement: Statement,
  parameters: Parameters,
): { readonly rows: SqlRow[]; readonly changes: number } {
  if (!statement.reader) return { rows: [], changes: statement.run(parameters).changes };
  const total = db.prepare('SELECT total_changes()').pluck();
  const before = total.get();
  const rows = readRows(statement, parameters, () => true);
  const isChanged = total.get() !== before;
  return { rows, changes: isChanged ? (db.prepare('SELECT changes()').pluck().get() as number) : 0 };
}

/** The rowid of the last row that this connection has inserted. */
export function lastInsertRowid(db: Connection): number | bigint {
  const rowid = db.prepare('SELECT last_insert_rowid()').pluck().safeIntegers().get() as SqlValue;
  return narrow(rowid) as number | bigint;
}
