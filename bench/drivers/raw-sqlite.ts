import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import Sqlite from 'better-sqlite3';
import type { KeyValueDriver } from './key-value.ts';

const UPSERT = 'INSERT INTO data (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value';

export function openSqlite(path: string, schema: string): Sqlite.Database {
  const db = new Sqlite(path);
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  db.exec(schema);
  return db;
}

/** A loop of better-sqlite3 on the host's own thread: an upsert each, and a COMMIT every so many. */
export function rawLoop(perTransaction: number): KeyValueDriver {
  return {
    name: perTransaction === 1 ? 'better-sqlite3 one row' : `better-sqlite3 ${perTransaction}`,
    durability: 'on disk, in SQLite',
    slow: perTransaction === 1,
    async open(folder) {
      const db = openSqlite(join(folder, 'raw.db'), 'CREATE TABLE data (key TEXT PRIMARY KEY, value TEXT)');
      const upsert = db.prepare(UPSERT);
      const select = db.prepare('SELECT value FROM data WHERE key = ?').pluck();
      const transaction = new Transactions(db, perTransaction);
      return {
        write(entryOf, from, to) {
          for (let i = from; i < to; i++) {
            const [key, value] = entryOf(i);
            transaction.run(() => upsert.run(key, JSON.stringify(value)));
          }
        },
        async acknowledged() {
          transaction.end();
        },
        get: (key) => JSON.parse(select.get(key) as string) as unknown,
        getMany: (keys) => new Map(keys.map((key) => [key, JSON.parse(select.get(key) as string) as unknown])),
        close: () => {
          db.close();
        },
      };
    },
  };
}

/** Transactions of so many statements, across the turns of the host. */
export class Transactions {
  readonly #db: Sqlite.Database;
  readonly #size: number;
  readonly #begin: Sqlite.Statement;
  readonly #commit: Sqlite.Statement;
  #done = 0;

  constructor(db: Sqlite.Database, size: number) {
    this.#db = db;
    this.#size = size;
    this.#begin = db.prepare('BEGIN IMMEDIATE');
    this.#commit = db.prepare('COMMIT');
  }

  run(statement: () => void): void {
    if (this.#size === 1) return statement();
    if (this.#done === 0) this.#begin.run();
    statement();
    if (++this.#done === this.#size) this.end();
  }

  end(): void {
    this.#done = 0;
    if (this.#db.inTransaction) this.#commit.run();
  }
}

/** The same loop in a worker, which is sent what a turn writes, as JSON. */
export function rawWorker(perTransaction: number): KeyValueDriver {
  return {
    name: `better-sqlite3 ${perTransaction}, worker`,
    durability: 'on disk, in SQLite',
    async open(folder) {
      const worker = new Worker(new URL('./raw-worker.js', import.meta.url), {
        workerData: { path: join(folder, 'raw.db'), perTransaction, upsert: UPSERT },
      });
      await once(worker, 'message');
      const ask = async (message: unknown) => {
        worker.postMessage(message);
        await once(worker, 'message');
      };
      return {
        write(entryOf, from, to) {
          const entries: string[] = [];
          for (let i = from; i < to; i++) {
            const [key, value] = entryOf(i);
            entries.push(key, JSON.stringify(value));
          }
          worker.postMessage(entries);
        },
        acknowledged: () => ask('end'),
        get: () => undefined,
        close: async () => {
          await ask('close');
          await worker.terminate();
        },
      };
    },
  };
}
