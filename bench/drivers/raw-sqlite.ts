/** better-sqlite3 as a careful user would use it, on the host's own thread: WAL, `synchronous=FULL`, prepared statements. */
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import type { Durability } from '../contest.ts';
import type { Driver, ReadStore } from '../driver.ts';
import type { KeyValueWorkload, RowWorkload } from '../workload.ts';

/** A table and the statement that writes to it. */
export interface RawTable {
  readonly name: string;
  readonly schema: string;
  readonly insert: string;
}

export const KEYS: RawTable = {
  name: 'data',
  schema: 'CREATE TABLE data (key TEXT PRIMARY KEY, value TEXT)',
  insert: 'INSERT INTO data (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value',
};

export function rowsTable(columns: RowWorkload['columns']): RawTable {
  const names = Object.keys(columns);
  return {
    name: 'readings',
    schema: `CREATE TABLE readings (${names.map((name) => `${name} ${columns[name]}`).join(', ')})`,
    insert: `INSERT INTO readings VALUES (${names.map(() => '?').join(', ')})`,
  };
}

/** How a loop writes. */
export interface Loop {
  readonly perTransaction: number;
  /** How many pages the WAL may have before SQLite carries them into the database file, at a COMMIT. */
  readonly walPages: number;
}

/** SQLite's default, and what Sluice does. */
export const WAL_PAGES = 1_000;
export const RARELY = 16_000;

/** One connection, whose writes are committed every so many. */
export class RawConnection {
  readonly db: Sqlite.Database;
  readonly insert: Sqlite.Statement;
  readonly #perTransaction: number;
  readonly #begin: Sqlite.Statement;
  readonly #commit: Sqlite.Statement;
  #written = 0;

  constructor(path: string, { schema, insert }: RawTable, { perTransaction, walPages }: Loop) {
    this.db = new Sqlite(path);
    this.db.pragma('journal_mode = WAL');
    this.db.pragma('synchronous = FULL');
    this.db.pragma(`wal_autocheckpoint = ${walPages}`);
    this.db.exec(schema);
    this.insert = this.db.prepare(insert);
    this.#perTransaction = perTransaction;
    this.#begin = this.db.prepare('BEGIN IMMEDIATE');
    this.#commit = this.db.prepare('COMMIT');
  }

  /** Comes before each write: ends the transaction that is full, and begins the next. */
  next(): void {
    if (this.#perTransaction === 1) return;
    if (this.#written === this.#perTransaction) this.commit();
    if (this.#written++ === 0) this.#begin.run();
  }

  commit(): void {
    this.#written = 0;
    if (this.db.inTransaction) this.#commit.run();
  }
}

/** How many rows a table has, seen by a connection of its own. */
export function countIn(path: string, table: string): number {
  const db = new Sqlite(path, { readonly: true });
  try {
    return db.prepare(`SELECT count(*) FROM ${table}`).pluck().get() as number;
  } finally {
    db.close();
  }
}

/** How the loops are called, and what they share. */
export function rawDriver(
  { perTransaction, walPages }: Loop,
  where = '',
): { name: string; durability: Durability; atMost?: number } {
  const size = perTransaction === 1 ? 'one row' : perTransaction;
  return {
    name: `better-sqlite3 ${size}${where}${walPages === WAL_PAGES ? '' : ', rare checkpoints'}`,
    durability: 'on disk, in SQLite',
    ...(perTransaction === 1 ? { atMost: 6_000 } : {}),
  };
}

/** A loop of upserts, with a COMMIT every so many. */
export function rawLoop(perTransaction: number, walPages: number = WAL_PAGES): Driver<KeyValueWorkload, ReadStore> {
  const loop = { perTransaction, walPages };
  return {
    ...rawDriver(loop),
    async open(folder, { entryOf }) {
      const path = join(folder, 'raw.db');
      const raw = new RawConnection(path, KEYS, loop);
      const { db, insert } = raw;
      const select = db.prepare('SELECT value FROM data WHERE key = ?').pluck();
      const range = db.prepare('SELECT key, value FROM data WHERE key >= ? ORDER BY key LIMIT ?').raw();
      const get = (key: string) => {
        const value = select.get(key) as string | undefined;
        return value === undefined ? undefined : (JSON.parse(value) as unknown);
      };
      return {
        write(from, to) {
          for (let i = from; i < to; i++) {
            const [key, value] = entryOf(i);
            raw.next();
            insert.run(key, JSON.stringify(value));
          }
          return undefined;
        },
        put(i) {
          const [key, value] = entryOf(i);
          insert.run(key, JSON.stringify(value));
          return undefined;
        },
        acknowledged() {
          raw.commit();
          return undefined;
        },
        get,
        getMany: (keys) => new Map(keys.map((key) => [key, get(key)])),
        *scan(from, limit) {
          for (const [key, value] of range.iterate(from, limit) as Iterable<[string, string]>) {
            yield [key, JSON.parse(value)];
          }
        },
        count: () => countIn(path, KEYS.name),
        close() {
          db.close();
        },
      };
    },
  };
}

/** A loop of inserted rows, likewise. */
export function rawRows<R extends object>(
  perTransaction: number,
  walPages: number = WAL_PAGES,
): Driver<RowWorkload<R>> {
  const loop = { perTransaction, walPages };
  return {
    ...rawDriver(loop),
    async open(folder, { columns, rowOf, valuesOf }) {
      const path = join(folder, 'raw.db');
      const table = rowsTable(columns);
      const raw = new RawConnection(path, table, loop);
      return {
        write(from, to) {
          for (let i = from; i < to; i++) {
            raw.next();
            raw.insert.run(valuesOf(rowOf(i)));
          }
          return undefined;
        },
        acknowledged() {
          raw.commit();
          return undefined;
        },
        count: () => countIn(path, table.name),
        close() {
          raw.db.close();
        },
      };
    },
  };
}
