import { keyIdOf, type ValueCipher } from '../../../base/encryption/index.ts';
import { openWrite } from '../../../base/frame/index.ts';
import type {
  DeadLetter,
  DeadLetterFilter,
  DeadLetterGroup,
  DeadLetterRange,
  DeadLetterSummary,
  PortableDeadLetter,
} from '../../store.ts';
import type { Connection } from '../connection.ts';
import { SELECT_STATE, type StateRow } from '../schema.ts';
import { SUMMARY_COLUMNS } from './dead-letters.ts';
import { contentOf, decodeWrite } from './write-copy.ts';

/** What can be asked of the dead-letter table, on any connection. */

export function listSummaries(db: Connection, range: DeadLetterRange): DeadLetterSummary[] {
  return select(db, SUMMARY_COLUMNS, range) as DeadLetterSummary[];
}

export function listDeadLetters(db: Connection, range: DeadLetterRange, cipher: ValueCipher | undefined): DeadLetter[] {
  const rows = select(db, `${SUMMARY_COLUMNS}, write`, range) as (DeadLetterSummary & { write: Uint8Array })[];
  return rows.map(({ write, ...row }) => ({ ...row, ...contentOf(decodeWrite(openWrite(write, cipher)), cipher) }));
}

/** As they may leave the house: of what is encrypted only what is readable in the table. */
export function listPortable(db: Connection, range: DeadLetterRange): PortableDeadLetter[] {
  const { databaseId } = db.prepare(SELECT_STATE).get() as StateRow;
  const rows = select(db, `${SUMMARY_COLUMNS}, write, origin`, range) as (DeadLetterSummary & {
    write: Uint8Array;
    origin: string | null;
  })[];
  const overwritten = db.prepare('SELECT table_name, key FROM _sluice_dead_letters_overwritten WHERE id = ?').raw();
  return rows.map(({ origin, ...row }) => ({
    ...row,
    ...(keyIdOf(row.write) === undefined
      ? contentOf(decodeWrite(row.write), undefined)
      : { statement: null, payload: null }),
    origin: origin ?? `${databaseId}:${row.seq}`,
    overwritten: overwritten.all(row.id) as [string, string][],
  }));
}

export function getDeadLetter(db: Connection, id: number, cipher: ValueCipher | undefined): DeadLetter | undefined {
  return listDeadLetters(db, { filter: {}, after: id - 1, upTo: id, limit: 1 }, cipher)[0];
}

export function summarize(db: Connection, filter: DeadLetterFilter): DeadLetterGroup[] {
  const { where, values } = conditionsOf({ filter, limit: 0 });
  return db
    .prepare(
      `WITH alike AS (
         SELECT table_name, operation, error_code, count(*) AS entries, sum(length(write)) AS bytes, max(id) AS newest,
           min(first_failed_at) AS firstFailedAt, max(last_failed_at) AS lastFailedAt
         FROM _sluice_dead_letters WHERE ${where} GROUP BY table_name COLLATE NOCASE, operation, error_code)
       SELECT alike.table_name AS "table", alike.operation, alike.error_code AS errorCode, entries, bytes, firstFailedAt,
         lastFailedAt, error_message AS errorMessage
       FROM alike JOIN _sluice_dead_letters ON id = newest ORDER BY entries DESC, newest`,
    )
    .all(values) as DeadLetterGroup[];
}

function select(db: Connection, columns: string, range: DeadLetterRange): unknown[] {
  const { where, values } = conditionsOf(range);
  const order = range.newestFirst ? 'DESC' : 'ASC';
  return db
    .prepare(`SELECT ${columns} FROM _sluice_dead_letters WHERE ${where} ORDER BY id ${order} LIMIT ?`)
    .all([...values, range.limit]);
}

function conditionsOf({ filter, ids, after, upTo, newestFirst = false }: DeadLetterRange): {
  where: string;
  values: unknown[];
} {
  const conditions: [condition: string, ...values: unknown[]][] = [['TRUE']];
  const { table, operation, errorCode, since, until } = filter;
  if (ids !== undefined) conditions.push(['id IN (SELECT value FROM json_each(?))', JSON.stringify(ids)]);
  if (after !== undefined) conditions.push([newestFirst ? 'id < ?' : 'id > ?', after]);
  if (upTo !== undefined) conditions.push(['id <= ?', upTo]);
  if (table !== undefined) conditions.push(['table_name = ? COLLATE NOCASE', table]);
  if (operation !== undefined) conditions.push(['operation = ?', operation]);
  if (errorCode !== undefined)
    conditions.push([
      "(error_code = ? OR substr(error_code, 1, length(?) + 1) = ? || '_')",
      errorCode,
      errorCode,
      errorCode,
    ]);
  if (since !== undefined) conditions.push(['first_failed_at >= ?', since]);
  if (until !== undefined) conditions.push(['first_failed_at < ?', until]);
  return {
    where: conditions.map(([condition]) => condition).join(' AND '),
    values: conditions.flatMap(([, ...values]) => values),
  };
}
