import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { seededRandom } from '../support/seed.ts';
import { tempDir } from '../support/temp-dir.ts';

const MANUAL = { flush: { mode: 'manual' } } as const;
const ROWS = 4_096;
const random = seededRandom();

/** So many places, at random, of all. */
function places(count: number): Set<number> {
  const found = new Set<number>(count === ROWS ? Array.from({ length: ROWS }, (_, i) => i) : []);
  while (found.size < count) found.add(Math.floor(random() * ROWS));
  return found;
}

test.each([0, 1, 8, 64, ROWS])(
  '[fault 44] %i poison rows in a batch of 4096: each outcome exact, the others in order',
  async (count) => {
    const db = await open(join(tempDir(), 'a.db'), MANUAL);
    db.on('dead-letter', () => {});
    await db.aexecute('CREATE TABLE r (id INTEGER PRIMARY KEY AUTOINCREMENT, n INTEGER CHECK (n >= 0))');
    const poison = places(count);
    const rows = db.rows('r');
    for (let i = 0; i < ROWS; i++) rows.append({ n: poison.has(i) ? -i - 1 : i });
    expect(await db.aflush()).toMatchObject({ applied: ROWS - count, coalesced: 0, dead: count });
    const healthy = await db.afetchAll<{ n: number }>('SELECT n FROM r ORDER BY id');
    expect(healthy.map(({ n }) => n)).toEqual(Array.from({ length: ROWS }, (_, i) => i).filter((i) => !poison.has(i)));
    const letters = await db.agetDlq({ limit: ROWS });
    expect(letters.map(({ payload }) => (payload as unknown[])[0])).toEqual(
      [...poison].sort((a, b) => a - b).map((i) => -i - 1),
    );
    expect(new Set(letters.map(({ errorCode }) => errorCode))).toEqual(
      new Set(count === 0 ? [] : ['SQLITE_CONSTRAINT_CHECK']),
    );
    expect(db.stats()).toMatchObject({
      flushes: 1,
      flushRetries: 0,
      applied: ROWS - count,
      deadLettered: count,
      pending: 0,
    });
    await db.close();
  },
);

test.each([1, 8, 64, ROWS])(
  '[fault 44] %i poison values among 4096 of a few hundred keys: each key has its newest good one',
  async (count) => {
    const db = await open(join(tempDir(), 'a.db'), MANUAL);
    db.on('dead-letter', () => {});
    await db.aexecute('CREATE TABLE guarded (key TEXT PRIMARY KEY, value TEXT CHECK (CAST(value AS INTEGER) >= 0))');
    const table = db.table<number>('guarded');
    const poison = places(count);
    const newest = new Map<string, number>();
    /** Poison of each key that no good value has come after. */
    const dead = new Map<string, number>();
    let superseded = 0;
    for (let i = 0; i < ROWS; i++) {
      const key = `k${Math.floor(random() * 300)}`;
      table.set(key, poison.has(i) ? -i - 1 : i);
      if (poison.has(i)) dead.set(key, (dead.get(key) ?? 0) + 1);
      else {
        superseded += dead.get(key) ?? 0;
        dead.delete(key);
        newest.set(key, i);
      }
    }
    expect(await db.aflush()).toMatchObject({ dead: count });
    expect(Object.fromEntries(table.entries())).toEqual(Object.fromEntries(newest));
    const { applied, coalesced, deadLettered, deadLetters } = db.stats();
    expect([applied + coalesced, deadLettered]).toEqual([ROWS - count, count]);
    expect(deadLetters).toMatchObject({ superseded, entries: count - superseded });
    expect((await db.agetDlq({ limit: ROWS })).length).toBe(count - superseded);
    await db.close();
  },
);

test('[fault 46] a column of the key table is gone: a stall that goes on when it is back, and no dead letter', async () => {
  const db = await open(join(tempDir(), 'a.db'), MANUAL);
  const failures: string[] = [];
  db.on('failure', ({ error }) => failures.push(error.message));
  const kinds = new Set<string>();
  db.on('retry', ({ failure }) => kinds.add(failure));
  await db.aset('a', 1);
  await db.aflush();
  await db.aexecute('ALTER TABLE data RENAME COLUMN value TO gone');
  for (let i = 0; i < 500; i++) db.set(`k${i}`, i);
  const flushed = db.aflush();
  await eventually(() => failures.length >= 2, 'two attempts have failed');
  expect(db.state).toBe('degraded');
  expect(db.stats()).toMatchObject({ applied: 1, pending: 500, deadLettered: 0 });
  expect(failures[0]).toMatch(/no column named value|no such column/);
  execFileSync(process.execPath, [
    '-e',
    `const Sqlite = require(process.argv[1]); new Sqlite(process.argv[2]).exec('ALTER TABLE data RENAME COLUMN gone TO value')`,
    join(import.meta.dirname, '../../node_modules/better-sqlite3'),
    db.path,
  ]);
  await flushed;
  expect(kinds).toEqual(new Set(['config']));
  expect(db.stats()).toMatchObject({ state: 'ok', applied: 501, pending: 0, deadLettered: 0, writerRestarts: 0 });
  expect(db.size).toBe(501);
  await db.close();
});

test('[fault 46] the key table is dropped: made again by the next write', async () => {
  const db = await open(join(tempDir(), 'a.db'), MANUAL);
  await db.aset('a', 1);
  await db.aflush();
  await db.aexecute('DROP TABLE data');
  for (let i = 0; i < 100; i++) db.set(`k${i}`, i);
  expect(await db.aflush()).toMatchObject({ applied: 100, dead: 0 });
  expect(db.size).toBe(100);
  await db.close();
});
