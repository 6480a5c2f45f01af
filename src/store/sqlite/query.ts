import { SluiceError } from '../../base/errors.ts';
import type { SqlValue } from '../../base/frame/index.ts';
import { toJsonValue } from '../../base/json.ts';
import { type Connection, namesOf, narrow, openConnection } from './connection.ts';
import { type FileId, fileIdOf } from './file-identity.ts';

/** How long a query may wait for a lock, which in WAL mode it hardly ever has to. */
const BUSY_TIMEOUT_MS = 1_000;

/** All the memory that SQLite may take in the process: one huge value must not take the machine's. */
const HEAP_BYTES = 256 * 1024 * 1024;

/** What a query may return. */
export interface ResultLimits {
  readonly maxRows: number;
  readonly maxBytes: number;
}

/** A result as JSON text, ready to be sent. */
export interface QueryResult {
  readonly columns: string;
  readonly rows: string;
  readonly rowCount: number;
  /** Which limit cut the result off, if one did. */
  readonly truncated: 'rows' | 'bytes' | undefined;
}

/**
 * A connection for statements of people who need not be trusted: it reads only, and its memory is limited. It has no time
 * limit: SQLite cannot be stopped from within its thread, so let it run in a process that can be killed.
 */
export class QueryConnection {
  readonly #path: string;
  #database: FileId;
  #db: Connection;

  constructor(path: string) {
    this.#path = path;
    this.#database = fileIdOf(path);
    this.#db = openReading(path);
  }

  run(sql: string, { maxRows, maxBytes }: ResultLimits): QueryResult {
    this.#follow();
    const statement = this.#db.prepare(sql);
    if (!statement.reader || !statement.readonly) {
      throw new SluiceError('SLUICE_INVALID_SQL', 'only a statement that reads, and returns rows, can be queried');
    }
    let columns: readonly string[] | undefined;
    const rows: string[] = [];
    let bytes = 0;
    let truncated: QueryResult['truncated'];
    for (const row of statement.raw().safeIntegers().iterate() as IterableIterator<SqlValue[]>) {
      if (rows.length === maxRows) truncated = 'rows';
      columns ??= namesOf(statement);
      const names = columns;
      const text =
        truncated ?? JSON.stringify(Object.fromEntries(row.map((value, i) => [names[i], toJsonValue(narrow(value))])));
      bytes += text.length;
      if (truncated === undefined && bytes > maxBytes) truncated = 'bytes';
      if (truncated !== undefined) break;
      rows.push(text);
    }
    columns ??= namesOf(statement);
    return { columns: JSON.stringify(columns), rows: `[${rows.join(',\n')}]`, rowCount: rows.length, truncated };
  }

  /** A restore puts another file in the place of the one that is open here. */
  #follow(): void {
    const { dev, ino } = fileIdOf(this.#path);
    if (dev === this.#database.dev && ino === this.#database.ino) return;
    this.#db.close();
    this.#database = { dev, ino };
    this.#db = openReading(this.#path);
  }
}

function openReading(path: string): Connection {
  const db = openConnection(path, { readonly: true, busyTimeoutMs: BUSY_TIMEOUT_MS });
  db.pragma('query_only = ON');
  db.pragma('trusted_schema = OFF');
  // Large sorts stay within the memory limit instead of filling the disk.
  db.pragma('temp_store = MEMORY');
  db.pragma(`hard_heap_limit = ${HEAP_BYTES}`);
  return db;
}
