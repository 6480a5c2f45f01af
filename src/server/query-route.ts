import type { ServerResponse } from 'node:http';
import type { Database } from '../db/database.ts';
import { checkQuerySql } from '../db/sql-text.ts';
import { Refusal, send } from './answer.ts';
import type { QueryProcess } from './query-process.ts';

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
  const { sql, maxRows, stale } = readSearch(search);
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  if (!stale) await db.aflush({ timeoutMs: flushWaitMs });
  const reply = await child.run({ sql, maxRows, maxBytes: RESULT_BYTES_MAX }, gone.signal);
  if (!reply.ok) throw new Refusal(400, 'SLUICE_INVALID_SQL', reply.message);
  const { columns, rows, rowCount, truncated } = reply.result;
  const cut = truncated === undefined ? '"truncated":false' : `"truncated":true,"truncatedBy":"${truncated}"`;
  send(response, 200, `{"columns":${columns},"rowCount":${rowCount},${cut},"rows":${rows}}\n`);
}

function readSearch(search: URLSearchParams): { sql: string; maxRows: number; stale: boolean } {
  const names = [...search.keys()];
  const wrong = names.find((name, i) => !KNOWN.includes(name) || names.indexOf(name) !== i);
  if (wrong !== undefined) {
    throw bad(`the parameter ${JSON.stringify(wrong)} is not known, or is there twice: known are ${KNOWN.join(', ')}`);
  }
  const sql = search.get('sql');
  if (sql === null) throw bad('pass the statement as the parameter sql');
  checkQuerySql(sql);
  const limit = search.get('limit') ?? String(ROWS_DEFAULT);
  const maxRows = /^\d{1,5}$/.test(limit) ? Number(limit) : 0;
  if (maxRows < 1 || maxRows > ROWS_MAX) throw bad(`limit must be an integer from 1 to ${ROWS_MAX}`);
  const stale = search.get('stale') ?? '0';
  if (stale !== '0' && stale !== '1') throw bad('stale must be 0 or 1');
  return { sql, maxRows, stale: stale === '1' };
}

function bad(message: string): Refusal {
  return new Refusal(400, 'HTTP_BAD_REQUEST', message);
}
