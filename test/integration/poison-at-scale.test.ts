import { join } from 'node:path';
import { type Database, open } from 'sluicedb';
import { describe, expect, test } from 'vitest';
import type { Frame } from '../../dist/base/frame/index.js';
import { type Connection, openConnection, type Statement } from '../../dist/store/sqlite/connection.js';
import { DeadLetters } from '../../dist/store/sqlite/dead-letters/dead-letters.js';
import { claimState } from '../../dist/store/sqlite/schema.js';
import { type Batch, LISTED_MAX, StoreFailure } from '../../dist/store/store.js';
import { writerOn } from '../support/applier.ts';
import { seededRandom } from '../support/seed.ts';
import { tempDir } from '../support/temp-dir.ts';
import { frameOf, Targets, type Write } from '../support/writes.ts';

const WRITES = 10_000;

/** So many numbers from 0 up to `below`, in order. */
function pick(count: number, below: number, salt = 0): number[] {
  const random = seededRandom(salt);
  const found = new Set<number>();
  if (count === below) for (let i = 0; i < below; i++) found.add(i);
  while (found.size < count) found.add(Math.floor(random() * below));
  return [...found].sort((a, b) => a - b);
}

function without(bad: readonly number[], below = WRITES): number[] {
  const poison = new Set(bad);
  return Array.from({ length: below }, (_, i) => i).filter((i) => !poison.has(i));
}

describe('[fault 44] [fault 40] a batch of 10,000, each outcome exact', () => {
  const kinds: Record<string, { schema: string; code: string; write: (db: Database) => (n: number) => unknown }> = {
    rows: {
      schema: 'CREATE TABLE t (n INTEGER CHECK (n >= 0))',
      code: 'SQLITE_CONSTRAINT_CHECK',
      write(db) {
        const rows = db.rows('t');
        return (n) => rows.append({ n });
      },
    },
    puts: {
      schema: 'CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT CHECK (CAST(value AS INTEGER) >= 0))',
      code: 'SQLITE_CONSTRAINT_CHECK',
      write(db) {
        const table = db.table('t');
        return (n) => table.set(`k${(Math.abs(n) * 7_919) % WRITES}`, n);
      },
    },
    'staged SQL': {
      schema: 'CREATE TABLE t (n ANY NOT NULL) STRICT',
      code: 'SQLITE_CONSTRAINT_NOTNULL',
      write: (db) => (n) => db.stage('INSERT INTO t VALUES (nullif(max(?, -1), -1))', [n]),
    },
  };
  for (const [kind, { schema, code, write }] of Object.entries(kinds)) {
    test.each([0, 1, 64, WRITES])(`${kind}, %i of them bad`, async (count) => {
      const db = await open(join(tempDir(), 'a.db'), { flush: { mode: 'manual' } });
      const heard: number[] = [];
      db.on('dead-letter', ({ seq }) => heard.push(seq));
      await db.aexecute(schema);
      const bad = pick(count, WRITES, kind.length);
      const poison = new Set(bad);
      const each = write(db);
      const first = db.stats().lastSeq + 1;
      // One more than the number, so that there is a negative of it.
      for (let i = 0; i < WRITES; i++) each(poison.has(i) ? -(i + 1) : i + 1);
      expect(await db.aflush()).toMatchObject({ applied: WRITES - count, coalesced: 0, dead: count });

      const column = kind === 'puts' ? 'CAST(value AS INTEGER)' : 'n';
      const applied = await db.afetchAll<{ n: number }>(`SELECT ${column} AS n FROM t ORDER BY rowid`);
      expect(applied.map(({ n }) => n - 1)).toEqual(without(bad));
      expect(heard).toEqual(bad.map((i) => first + i));
      const letters = await db.afetchAll<{ seq: number; code: string }>(
        'SELECT seq, error_code AS code FROM _sluice_dead_letters ORDER BY id',
      );
      expect(letters).toEqual(bad.map((i) => ({ seq: first + i, code })));
      expect((await db.dlq.list({ limit: 1 })).map(({ payload }) => Number(payload))).toEqual(
        bad.slice(0, 1).map((i) => -(i + 1)),
      );
      await db.close();
    });
  }
});

/** A connection that counts. */
class Counting implements Connection {
  begins = 0;
  commits = 0;
  /** Writes that were guarded by a savepoint. */
  guarded = 0;
  readonly #db: Connection;

  constructor(db: Connection) {
    this.#db = db;
  }

  get inTransaction(): boolean {
    return this.#db.inTransaction;
  }

  prepare(sql: string): Statement {
    const statement = this.#db.prepare(sql);
    if (sql !== 'BEGIN IMMEDIATE' && sql !== 'COMMIT') return statement;
    const { run } = statement;
    statement.run = (...parameters) => {
      if (sql === 'COMMIT') this.commits++;
      else this.begins++;
      return run.apply(statement, parameters);
    };
    return statement;
  }

  exec(sql: string): unknown {
    if (sql === 'SAVEPOINT one_write') this.guarded++;
    return this.#db.exec(sql);
  }

  pragma(text: string, options?: { simple: true }): unknown {
    return options === undefined ? this.#db.pragma(text) : this.#db.pragma(text, options);
  }

  close(): unknown {
    return this.#db.close();
  }
}

function database(schema: string): Counting {
  const db = new Counting(openConnection(join(tempDir(), 'a.db'), { readonly: false, busyTimeoutMs: 0 }));
  // Nothing here is about what survives a power cut.
  db.pragma('synchronous = OFF');
  claimState(db, 'test', true);
  db.exec(schema);
  return db;
}

function batchOf(writes: readonly Write[], afterSeq = 0): Batch {
  const targets = new Targets();
  const frames: Frame[] = [];
  for (let i = 0; i < writes.length; i += 1_000) {
    frames.push(frameOf(writes.slice(i, i + 1_000), afterSeq + i + 1, targets));
  }
  return { frames, afterSeq, lastSeq: afterSeq + writes.length };
}

function stage(sql: string, ...values: number[]): Write {
  return { kind: 'stage', table: null, sql, values: values.map(BigInt) };
}

function numbers(db: Connection, sql: string): number[] {
  return db.prepare(sql).pluck().all() as number[];
}

describe('[fault 42] writes that take the transaction with them, in a batch of 10,000', () => {
  const ways: Record<string, { schema: string; sql: string; code: string }> = {
    'OR ROLLBACK': {
      schema: 'CREATE TABLE t (n INTEGER CHECK (n >= 0))',
      sql: 'INSERT OR ROLLBACK INTO t VALUES (?)',
      code: 'SQLITE_CONSTRAINT_CHECK',
    },
    'RAISE(ROLLBACK)': {
      schema: `CREATE TABLE t (n INTEGER);
        CREATE TRIGGER no AFTER INSERT ON t WHEN NEW.n < 0 BEGIN SELECT RAISE(ROLLBACK, 'no'); END`,
      sql: 'INSERT INTO t VALUES (?)',
      code: 'SQLITE_CONSTRAINT_TRIGGER',
    },
  };
  for (const [way, { schema, sql, code }] of Object.entries(ways)) {
    test.each([1, 64, WRITES])(`${way}, %i of them: no write is run more than nine times`, (count) => {
      const db = database(schema);
      const { applier } = writerOn(db);
      const bad = pick(count, WRITES, way.length);
      const poison = new Set(bad);
      const writes = Array.from({ length: WRITES }, (_, i) => stage(sql, poison.has(i) ? -(i + 1) : i));
      const result = applier.apply(batchOf(writes));
      expect(result).toMatchObject({ applied: WRITES - count, coalesced: 0, queue: { entries: count } });
      expect(result.dead.map(({ seq, errorCode }) => [seq, errorCode])).toEqual(bad.map((i) => [i + 1, code]));
      expect(numbers(db, 'SELECT n FROM t ORDER BY rowid')).toEqual(without(bad));
      // It did get lost, once for each; the good ones are committed in few transactions, not one for each.
      expect(db.begins - db.commits).toBe(count);
      expect(db.commits).toBeLessThanOrEqual(count / 8 + 1);
      expect(db.guarded).toBeGreaterThan(WRITES - count);
      expect(db.guarded).toBeLessThanOrEqual(9 * WRITES);
      db.close();
    });
  }

  test('the large queue that they find is not read again for each of them', () => {
    const db = database('CREATE TABLE t (n INTEGER CHECK (n >= 0))');
    db.exec(manyLetters(50_000, `'k' || value`));
    const { applier } = writerOn(db);
    const writes = Array.from({ length: 1_000 }, () => stage('INSERT OR ROLLBACK INTO t VALUES (-1)'));
    const loads = countLoads(db, () => {
      const { queue } = applier.apply(batchOf(writes));
      expect(queue.entries).toBe(51_000);
    });
    expect(loads).toBe(1);
    db.close();
  });
});

/** Puts that died long ago, in numbers that would take long to let die. */
function manyLetters(count: number, key: string): string {
  return `WITH RECURSIVE series (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM series WHERE value < ${count})
    INSERT INTO _sluice_dead_letters (seq, table_name, operation, key, accepted_at, first_failed_at, last_failed_at,
      attempts, error_class, error_code, error_message, write)
    SELECT -value, 'kv', 'put', ${key}, 1, 1, 1, 1, 'permanent', 'SQLITE_CONSTRAINT_CHECK', 'no', zeroblob(8)
    FROM series`;
}

/** How often something reads the whole queue. */
function countLoads(db: Counting, work: () => void): number {
  let loads = 0;
  const prepare = db.prepare.bind(db);
  db.prepare = (sql) => {
    if (sql.includes("operation IN ('put'")) loads++;
    return prepare(sql);
  };
  work();
  return loads;
}

describe('[fault 43] a deferred foreign key that is found broken at COMMIT', () => {
  const SCHEMA = `PRAGMA foreign_keys = ON; CREATE TABLE parent (id INTEGER PRIMARY KEY); INSERT INTO parent VALUES (1);
    CREATE TABLE child (n INTEGER, p INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)`;

  /** Of 2^13 writes, so that the bound is a whole number. */
  const n = 8_192;
  test.each([
    ['the first', [0]],
    ['the last', [n - 1]],
    ['one', pick(1, n, 43)],
    ['five', pick(5, n, 5)],
  ])('%s of 8,192: the guilty alone, within k(2 log2 n + 1) attempts', (_, bad) => {
    const db = database(SCHEMA);
    const { applier } = writerOn(db);
    const poison = new Set(bad);
    const writes = Array.from({ length: n }, (_, i) =>
      stage('INSERT INTO child VALUES (?, ?)', i, poison.has(i) ? 99 : 1),
    );
    const result = applier.apply(batchOf(writes));
    expect(result.applied).toBe(n - bad.length);
    expect(result.dead.map(({ seq, errorCode }) => [seq, errorCode])).toEqual(
      bad.map((i) => [i + 1, 'SQLITE_CONSTRAINT_FOREIGNKEY']),
    );
    expect(numbers(db, 'SELECT n FROM child ORDER BY rowid')).toEqual(without(bad, n));
    // A transaction that only buries a write tries nothing.
    const attempts = db.commits - bad.length;
    expect(attempts).toBeGreaterThan(13);
    expect(attempts).toBeLessThanOrEqual(bad.length * (2 * 13 + 1));
    db.close();
  });
});

test('[fault 35] a full database in the middle of a poisoned batch is nobody’s fault', () => {
  const db = database('CREATE TABLE t (n INTEGER CHECK (n >= 0), filler TEXT)');
  const { applier } = writerOn(db);
  const bad = pick(100, WRITES, 35);
  const poison = new Set(bad);
  const writes = Array.from({ length: WRITES }, (_, i) =>
    stage('INSERT INTO t VALUES (?, hex(zeroblob(100)))', poison.has(i) ? -(i + 1) : i),
  );
  db.pragma('max_page_count = 300');
  for (let attempt = 0; attempt < 2; attempt++) {
    const failure = failureOf(() => applier.apply(batchOf(writes)));
    expect([failure.failure, failure.sqliteCode]).toEqual(['space', 'SQLITE_FULL']);
    expect(numbers(db, 'SELECT count(*) FROM t UNION ALL SELECT count(*) FROM _sluice_dead_letters')).toEqual([0, 0]);
  }
  db.pragma('max_page_count = 1000000');
  const result = applier.apply(batchOf(writes));
  expect(result).toMatchObject({ applied: WRITES - 100, queue: { entries: 100 } });
  expect(result.dead.map(({ seq }) => seq - 1)).toEqual(bad);
  expect(numbers(db, 'SELECT n FROM t ORDER BY rowid')).toEqual(without(bad));
  db.close();
});

function failureOf(work: () => unknown): StoreFailure {
  try {
    work();
  } catch (error) {
    if (error instanceof StoreFailure) return error;
    throw error;
  }
  throw new Error('nothing failed');
}

test('a transaction that is lost takes back what memory knew of the queue', () => {
  const db = database(`CREATE TABLE allowed (value TEXT); INSERT INTO allowed VALUES ('new'), ('other');
    CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT);
    CREATE TRIGGER guard BEFORE INSERT ON kv WHEN NEW.value NOT IN (SELECT value FROM allowed)
      BEGIN SELECT RAISE(ABORT, 'not allowed'); END;
    CREATE TABLE harsh (n UNIQUE ON CONFLICT ROLLBACK); INSERT INTO harsh VALUES (1)`);
  const { applier, queue } = writerOn(db);
  const put = (key: string, value: string): Write => ({ kind: 'put', table: 'kv', key, value });
  const lost = stage('INSERT INTO harsh VALUES (1)');
  // 1 to 3 die: a put, a put, and a group of two puts.
  applier.apply(
    batchOf([put('a', 'bad'), put('b', 'bad'), { kind: 'group', members: [put('c', 'bad'), put('d', 'bad')] }]),
  );
  // One is superseded, one key of the group is overwritten, another dies: and then all of it is lost, twice.
  const result = applier.apply(batchOf([put('a', 'new'), put('c', 'new'), put('e', 'bad'), lost, lost], 3));
  expect(db.begins - db.commits).toBe(2);
  expect(result.superseded.map(({ seq }) => seq)).toEqual([1]);
  expect(result.dead.map(({ seq }) => seq)).toEqual([6, 7, 8]);
  expect(result.queue).toEqual(new DeadLetters(db, undefined).state);
  expect(numbers(db, 'SELECT seq FROM _sluice_dead_letters ORDER BY id')).toEqual([2, 3, 6, 7, 8]);
  // The newer one of 'e' finds the older one, and of the group only 'd' is applied.
  expect(applier.apply(batchOf([put('e', 'other')], 8)).superseded.map(({ seq }) => seq)).toEqual([6]);
  db.exec(`DROP TRIGGER guard`);
  const ids = numbers(db, 'SELECT id FROM _sluice_dead_letters WHERE seq <= 3');
  expect(queue.change('repaired', { do: 'retry', ids })).toMatchObject({ applied: ids, failed: [] });
  expect(db.prepare('SELECT key, value FROM kv ORDER BY key').raw().all()).toEqual([
    ['a', 'new'],
    ['b', 'bad'],
    ['c', 'new'],
    ['d', 'bad'],
    ['e', 'other'],
  ]);
  db.close();
});

test('one write supersedes 200,000 entries of its key: all are counted, some are listed', () => {
  const db = database('CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT)');
  db.exec(manyLetters(200_000, `'hot'`));
  const { applier } = writerOn(db);
  const result = applier.apply(batchOf([{ kind: 'put', table: 'kv', key: 'hot', value: 'good' }]));
  expect(result).toMatchObject({ applied: 1, queue: { entries: 0 } });
  expect(result.superseded).toHaveLength(LISTED_MAX);
  expect(result.untold).toEqual({ superseded: 200_000 - LISTED_MAX, evicted: 0 });
  expect(numbers(db, 'SELECT count(*) FROM _sluice_dead_letters')).toEqual([0]);
  db.close();
});

test('a retry of 10,000 entries of one key tries each of them once', () => {
  const db = database(`CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT CHECK (value <> 'bad'))`);
  const { applier, queue } = writerOn(db);
  const writes = Array.from({ length: WRITES }, (): Write => ({ kind: 'put', table: 'kv', key: 'hot', value: 'bad' }));
  const ids = applier.apply(batchOf(writes)).dead.map(({ id }) => id);
  const { failed } = queue.change('once', { do: 'retry', ids: ids.slice(0, 500) });
  expect(failed).toEqual([...ids].reverse());
  expect(numbers(db, 'SELECT DISTINCT attempts FROM _sluice_dead_letters')).toEqual([2]);
  db.close();
});
