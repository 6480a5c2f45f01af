import type { SqlValue } from '../../../base/frame/index.ts';
import type { ExecuteResult, Parameters, SqlRow } from '../../store.ts';
import { type Connection, narrow, readRows, type Statement } from '../connection.ts';

/** A statement with one set of parameters. Where SQLite says no, it throws. */
export function perform(db: Connection, statement: Statement, parameters: Parameters): ExecuteResult {
  const { rows, changes } = run(db, statement, parameters);
  const rowid = db.prepare('SELECT last_insert_rowid()').pluck().safeIntegers().get() as SqlValue;
  return { rows, changes, lastInsertRowid: narrow(rowid) as number | bigint };
}

function run(
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
