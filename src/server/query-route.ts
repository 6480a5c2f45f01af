import type { ServerResponse } from 'node:http';
import type { Database } from '../db/database.ts';
import { checkQuerySql } from '../db/sql/statements.ts';
import { Refusal, send } from './answer.ts';
import type { QueryProcess } from './query-process.ts';
import { badRequest, integerOf, readSearch } from './search.ts';

const ROWS_DEFAULT = 1_000;
const ROWS_MAX = 10_000;
const RESULT_BYTES_MAX = 16 * 1024 * 1024;
const KNOWN: readonly string[] = ['sql', 'limit', 'stale'];

/**
 * `GET /query?sql=…&limit=…`: one statement that reads. It sees everything accepted before the request, for which it waits
 * for a flush; with `stale=1` it reads what SQLite has now.
 */
export async function query(
  response: ServerResponse,
  search: URLSearchParams,
  { db, child, flushWaitMs }: { readonly db: Database; readonly child: QueryProcess; readonly flushWaitMs: number },
): Promise<void> {
  const { sql, maxRows, stale } = readQuery(search);
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  if (!stale) await db.aflush({ timeoutMs: flushWaitMs });
  const reply = await child.run({ sql, maxRows, maxBytes: RESULT_BYTES_MAX }, gone.signal);
  if (!reply.ok) throw new Refusal(400, 'SLUICE_INVALID_SQL', reply.message);
  const { columns, rows, rowCount, truncated } = reply.result;
  const cut = truncated === undefined ? '"truncated":false' : `"truncated":true,"truncatedBy":"${truncated}"`;
  send(response, 200, `{"columns":${columns},"rowCount":${rowCount},${cut},"rows":${rows}}\n`);
}

function readQuery(search: URLSearchParams): { sql: string; maxRows: number; stale: boolean } {
  const given = readSearch(search, KNOWN);
  const sql = given.get('sql');
  if (sql === undefined) throw badRequest('pass the statement as the parameter sql');
  checkQuerySql(sql);
  const maxRows = integerOf(given, 'limit', { min: 1, max: ROWS_MAX, fallback: ROWS_DEFAULT });
  return { sql, maxRows, stale: integerOf(given, 'stale', { min: 0, max: 1, fallback: 0 }) === 1 };
}
