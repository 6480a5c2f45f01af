import { join } from 'node:path';
import { type Database, type DeadLetterSummary, open } from 'sluicedb';
import { expect, test } from 'vitest';
import { tempDir } from '../support/temp-dir.ts';

async function opened(): Promise<{ db: Database; file: string; dead: DeadLetterSummary[] }> {
  const file = join(tempDir(), 'a.db');
  const db = await open(file, { flush: { mode: 'manual' } });
  const dead: DeadLetterSummary[] = [];
  db.on('dead-letter', (letter) => dead.push(letter));
  return { db, file, dead };
}

/** The two sums that hold at all times. */
function balance(db: Database): void {
  const { accepted, recovered, applied, coalesced, deadLettered, pending, deadLetters } = db.stats();
  expect(accepted + recovered).toBe(applied + coalesced + deadLettered + pending);
  const { entriesAtOpen, entries, retried, superseded, cleared } = deadLetters;
  expect(entriesAtOpen + deadLettered).toBe(entries + retried + superseded + cleared);
}

const GUARD = `CREATE TABLE guarded (key TEXT PRIMARY KEY, value TEXT CHECK (value <> '"bad"'))`;

/** Lets go of the constraint of `guarded`, as a repair would. */
async function repair(db: Database): Promise<void> {
  await db.aexecute('ALTER TABLE guarded RENAME TO old');
  await db.aexecute('CREATE TABLE guarded (key TEXT PRIMARY KEY, value TEXT)');
  await db.aexecute('INSERT INTO guarded SELECT * FROM old');
  await db.aexecute('DROP TABLE old');
}

test('rows that break a constraint die alone, the others are applied', async () => {
  const { db, dead } = await opened();
  await db.aexecute('CREATE TABLE r (id INTEGER PRIMARY KEY, n INTEGER NOT NULL CHECK (n > 0), u TEXT UNIQUE)');
  const rows = db.rows('r');
  const bad = new Set<number>();
  for (let i = 1; i <= 1_000; i++) {
    const poison = i % 100 === 0;
    if (poison) bad.add(i);
    rows.append({ id: i, n: poison ? -i : i, u: `u${i}` });
  }
  rows.append({ id: 1_001, n: 1, u: 'u1' });
  rows.append({ id: 1, n: 1, u: 'other' });
  rows.append({ id: 1_002, n: null, u: 'null' });
  const result = await db.aflush();
  expect(result).toMatchObject({ applied: 990, coalesced: 0, dead: 13 });
  expect(await db.afetchOne('SELECT count(*) AS n FROM r')).toEqual({ n: 990 });
  expect(dead).toHaveLength(13);
  const letters = await db.agetDlq();
  expect(letters.map(({ id, seq }) => [id, seq])).toEqual(dead.map(({ id, seq }) => [id, seq]));
  expect(letters.slice(0, 10).map(({ payload }) => (payload as unknown[])[0])).toEqual([...bad]);
  expect(letters.slice(9).map(({ errorCode }) => errorCode)).toEqual([
    'SQLITE_CONSTRAINT_CHECK',
    'SQLITE_CONSTRAINT_UNIQUE',
    'SQLITE_CONSTRAINT_PRIMARYKEY',
    'SQLITE_CONSTRAINT_NOTNULL',
  ]);
  expect(letters[0]).toMatchObject({
    table: 'r',
    operation: 'append',
    key: null,
    attempts: 1,
    errorClass: 'permanent',
  });
  expect(JSON.stringify(dead)).not.toContain('payload');
  balance(db);
  await db.close();
});

test('staged statements that fail die alone, and leave no part behind', async () => {
  const { db } = await opened();
  await db.aexecute('CREATE TABLE t (n INTEGER UNIQUE ON CONFLICT FAIL)');
  await db.aexecute('CREATE TABLE rollback (n INTEGER UNIQUE ON CONFLICT ROLLBACK)');
  db.stage('INSERT INTO t VALUES (1)');
  db.stage('INSERT INTO t VALUES (2), (3), (1)');
  db.stage('INSERT INTO no_such_table VALUES (1)');
  db.stage('INSERT INTO t VALUES (?)', [1, 2]);
  db.stage('this is no SQL either, but REPLACE is in it'.replace('this', 'REPLACE'));
  db.stage('INSERT INTO rollback VALUES (1)');
  db.set('between', 1);
  db.stage('INSERT INTO rollback VALUES (1)');
  db.stage('INSERT OR ROLLBACK INTO t VALUES (1)');
  db.stage('INSERT INTO t VALUES (4) RETURNING n');
  expect(await db.aflush()).toMatchObject({ applied: 4, dead: 6 });
  expect((await db.afetchAll('SELECT n FROM t ORDER BY n')).map(({ n }) => n)).toEqual([1, 4]);
  expect(await db.afetchAll('SELECT n FROM rollback')).toEqual([{ n: 1 }]);
  expect(db.get('between')).toBe(1);
  const codes = (await db.agetDlq()).map(({ operation, errorCode }) => `${operation} ${errorCode}`);
  expect(codes).toEqual([
    'sql SQLITE_CONSTRAINT_UNIQUE',
    'sql SQLITE_ERROR',
    'sql BIND',
    'sql SQLITE_ERROR',
    'sql SQLITE_CONSTRAINT_UNIQUE',
    'sql SQLITE_CONSTRAINT_UNIQUE',
  ]);
  balance(db);
  await db.close();
});

test('triggers that raise, and a foreign key that is found broken at commit, cost only the guilty', async () => {
  const { db } = await opened();
  await db.aexecute('CREATE TABLE parent (id INTEGER PRIMARY KEY)');
  await db.aexecute('CREATE TABLE child (p INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)');
  await db.aexecute('CREATE TABLE raising (how TEXT, n INTEGER)');
  for (const how of ['ABORT', 'FAIL', 'ROLLBACK']) {
    await db.aexecute(
      `CREATE TRIGGER on_${how} AFTER INSERT ON raising WHEN new.how = '${how}' BEGIN SELECT RAISE(${how}, 'no'); END`,
    );
  }
  db.stage('INSERT INTO parent VALUES (1)');
  const raising = db.rows('raising');
  const child = db.rows('child');
  for (let i = 0; i < 40; i++) {
    raising.append({ how: i % 10 === 3 ? ['ABORT', 'FAIL', 'ROLLBACK'][i % 3] : 'fine', n: i });
    child.append({ p: i === 17 || i === 31 ? 99 : 1 });
  }
  const { dead } = await db.aflush();
  expect(dead).toBe(6);
  expect(await db.afetchOne('SELECT count(*) AS n FROM raising')).toEqual({ n: 36 });
  expect(await db.afetchOne('SELECT count(*) AS n FROM child WHERE p = 1')).toEqual({ n: 38 });
  expect((await db.agetDlq()).filter(({ table }) => table === 'child').map(({ errorCode }) => errorCode)).toEqual(
    Array(2).fill('SQLITE_CONSTRAINT_FOREIGNKEY'),
  );
  balance(db);
  await db.close();
});

test('a dead letter is applied again once the cause is repaired', async () => {
  const { db } = await opened();
  await db.aexecute(GUARD);
  const table = db.table('guarded');
  table.set('a', 'bad');
  table.set('b', 'good');
  await db.aflush();
  expect([table.get('a'), table.get('b')]).toEqual([undefined, 'good']);
  expect(await db.aretryDlq()).toEqual({ applied: 0, failed: 1, superseded: 0, missing: 0 });
  expect((await db.agetDlq())[0]).toMatchObject({ key: 'a', payload: '"bad"', operation: 'put', attempts: 2 });
  balance(db);
  await repair(db);
  expect(await db.aretryDlq()).toEqual({ applied: 1, failed: 0, superseded: 0, missing: 0 });
  expect(table.get('a')).toBe('bad');
  expect(await db.agetDlq()).toEqual([]);
  balance(db);
  await db.close();
});

test('dead letters survive, are paged, and can be cleared one by one', async () => {
  const { db, file } = await opened();
  await db.aexecute(GUARD);
  for (let i = 0; i < 5; i++) db.table('guarded').set(`k${i}`, 'bad');
  expect(await db.close()).toEqual({ pending: 0 });
  const again = await open(file);
  again.on('dead-letter', () => {});
  expect(again.stats().deadLetters.entries).toBe(5);
  const first = await again.agetDlq({ limit: 2 });
  const rest = await again.agetDlq({ after: first[1]?.id ?? 0 });
  expect([...first, ...rest].map(({ key }) => key)).toEqual(['k0', 'k1', 'k2', 'k3', 'k4']);
  expect(await again.aclearDlq([first[0]?.id ?? 0, 9_999])).toBe(1);
  expect(await again.aretryDlq([first[1]?.id ?? 0])).toEqual({ applied: 0, failed: 1, superseded: 0, missing: 0 });
  // A new number is never one that a dead letter has.
  await again.aset('new', 1);
  expect(again.stats().lastSeq).toBeGreaterThan(rest.at(-1)?.seq ?? 0);
  expect(await again.aclearDlq()).toBe(4);
  expect(again.stats().deadLetters).toMatchObject({ entriesAtOpen: 5, cleared: 5, entries: 0 });
  balance(again);
  await again.close();
});

test('a newer write of the key drops its older dead letter, and a retry never brings an old value back', async () => {
  const { db, dead } = await opened();
  await db.aexecute(GUARD);
  const table = db.table('guarded');
  for (const key of ['set', 'delete', 'clear', 'stays']) table.set(key, 'bad');
  await db.aflush();
  expect(dead).toHaveLength(4);
  table.set('set', 'new');
  table.delete('delete');
  await db.aflush();
  expect((await db.agetDlq()).map(({ key }) => key)).toEqual(['clear', 'stays']);
  balance(db);
  await repair(db);
  table.set('stays', 'new');
  // The retry waits for what is staged, and then finds that it is late.
  expect(await db.aretryDlq()).toEqual({ applied: 1, failed: 0, superseded: 1, missing: 0 });
  expect(Object.fromEntries(table.entries())).toEqual({ clear: 'bad', set: 'new', stays: 'new' });
  balance(db);
  await db.close();
});

test('clear drops the dead letters of its table', async () => {
  const { db } = await opened();
  await db.aexecute(GUARD);
  const table = db.table('guarded');
  table.set('a', 'bad');
  await db.aflush();
  table.clear();
  await db.aflush();
  expect(await db.agetDlq()).toEqual([]);
  expect(db.stats().deadLetters).toMatchObject({ superseded: 1, entries: 0 });
  balance(db);
  await db.close();
});

test('a newer dead letter of the key leaves the older one alone, and a retry applies them in order', async () => {
  const { db } = await opened();
  await db.aexecute(`CREATE TABLE guarded (key TEXT PRIMARY KEY, value TEXT CHECK (value NOT LIKE '"bad%'))`);
  const table = db.table('guarded');
  table.set('a', 'bad 1');
  table.set('a', 'bad 2');
  await db.aflush();
  expect(await db.agetDlq()).toHaveLength(2);
  await repair(db);
  await db.aretryDlq();
  expect(table.get('a')).toBe('bad 2');
  expect(await db.agetDlq()).toEqual([]);
  balance(db);
  await db.close();
});

test('of several writes to a key, the newest that SQLite takes is applied', async () => {
  const { db } = await opened();
  await db.aexecute(GUARD);
  const table = db.table('guarded');
  table.set('a', 'first');
  table.set('a', 'second');
  table.set('a', 'bad');
  await db.aflush();
  expect(table.get('a')).toBe('second');
  balance(db);
  await db.close();
});

test('a group dies as one, and what it had superseded on the way is still there', async () => {
  const { db } = await opened();
  await db.aexecute(GUARD);
  const table = db.table('guarded');
  table.set('a', 'bad');
  table.set('z', 'old');
  await db.aflush();
  balance(db);
  table.setMany({ a: 'new', b: 'new', c: 'bad', z: 'new' });
  expect(await db.aflush()).toMatchObject({ applied: 0, dead: 1 });
  expect(Object.fromEntries(table.entries())).toEqual({ z: 'old' });
  const letters = await db.agetDlq();
  expect(letters.map(({ operation, key, table: of }) => [operation, key, of])).toEqual([
    ['put', 'a', 'guarded'],
    ['group', null, 'guarded'],
  ]);
  expect(db.stats().deadLetters).toMatchObject({ entries: 2, superseded: 0 });
  balance(db);
  await repair(db);
  expect(await db.aretryDlq()).toMatchObject({ failed: 0 });
  expect(Object.fromEntries(table.entries())).toEqual({ a: 'new', b: 'new', c: 'bad', z: 'new' });
  balance(db);
  await db.close();
});

test('what nobody listens to is told to the process, once', async () => {
  const warnings: Error[] = [];
  const note = (warning: Error) => warnings.push(warning);
  process.on('warning', note);
  const db = await open(':memory:');
  await db.aexecute(GUARD);
  for (let i = 0; i < 3; i++) db.table('guarded').set(`k${i}`, 'bad');
  await db.aflush();
  await db.close();
  await new Promise((resolve) => setImmediate(resolve));
  process.off('warning', note);
  const own = warnings.filter(({ name }) => name === 'SluiceWarning');
  expect(own).toHaveLength(1);
  expect(own[0]?.message).toContain('CHECK constraint failed');
});
