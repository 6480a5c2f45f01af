import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import Sqlite from 'better-sqlite3';
import { CheckHook, type Database, ForeignKeyHook, type OpenOptions, open, SluiceError, UniqueHook } from 'sluicedb';
import { describe, expect, test } from 'vitest';
import { codeFrom } from '../support/eventually.ts';
import { openTemp } from '../support/open-temp.ts';
import { tempDir } from '../support/temp-dir.ts';

// What NanaSQLite can do, and docs/matrix.md has no other test for: each of these goes by one row of it.

const MANUAL = { flush: { mode: 'manual' } } as const;
const manual = (options: OpenOptions = {}) => openTemp('data.db', { ...MANUAL, durability: 'os', ...options });

/** Runs a test twice: on what is staged, and on what is applied. */
const onBoth = test.each([
  ['staged', async () => {}],
  ['applied', async (db: Database) => void (await db.aflush())],
] as const);

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

describe('connection and lifetime', () => {
  test('a file is opened, written, closed, and opened again', async () => {
    const file = join(tempDir(), 'a.db');
    const db = await open(file);
    await db.aset('a', 1);
    await db.close();
    const again = await open(file);
    expect(again.path.endsWith('a.db')).toBe(true);
    expect(again.get('a')).toBe(1);
    await again.close();
  });

  test('reads go on while the writer thread is busy, and while one of the readers is', async () => {
    const db = await openTemp('data.db', { readers: 2 });
    await db.aset('a', 1);
    await db.aflush();
    const ended: string[] = [];
    const counting = (rows: number) =>
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows}) SELECT count(*) AS n FROM n`;
    await db.aexecute('CREATE TABLE slow (n INTEGER)');
    const query = (rows: number) => db.afetchOne(counting(rows), [], { stale: true });
    // Both readers are started: from here on none of the two has to be.
    await Promise.all([query(10_000), query(10_000)]);
    const writing = db.aexecute(`INSERT INTO slow ${counting(5_000_000)}`).then(() => ended.push('writer'));
    const reading = query(5_000_000).then(() => ended.push('reader'));
    expect([db.get('a'), await db.aget('a')]).toEqual([1, 1]);
    expect(ended).toEqual([]);
    await Promise.all([writing, reading]);
  });

  test('the number of reader threads is an option, and nothing else is taken for one', async () => {
    expect((await openTemp('a.db')).options.readers).toBe(2);
    expect((await openTemp('b.db', { readers: 5 })).options.readers).toBe(5);
    for (const readers of [0, 17, 1.5, '2']) {
      expect(await codeFrom(() => open(':memory:', { readers } as never))).toBe('SLUICE_INVALID_OPTION');
    }
    expect(await codeFrom(() => open(':memory:', { max_workers: 5 } as never))).toBe('SLUICE_INVALID_OPTION');
  });

  test('the state is one word, and says when it closes and is closed', async () => {
    const db = await manual();
    expect(db.state).toBe('ok');
    db.set('a', 1);
    expect(db.stats()).toMatchObject({ state: 'ok', pending: 1 });
    const closing = db.close();
    expect(db.state).toBe('closing');
    await closing;
    expect(db.state).toBe('closed');
  });

  test('a file is in WAL mode, and foreign keys hold', async () => {
    const db = await manual();
    await db.aexecute('CREATE TABLE parent (id INTEGER PRIMARY KEY)');
    await db.aexecute('CREATE TABLE child (parent INTEGER REFERENCES parent)');
    const refused = await db.aexecute('INSERT INTO child VALUES (1)').catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: 'SLUICE_STORE', sqliteCode: 'SQLITE_CONSTRAINT_FOREIGNKEY' });
    const beside = new Sqlite(db.path, { readonly: true });
    expect(beside.pragma('journal_mode', { simple: true })).toBe('wal');
    beside.close();
  });

  test('one object has the synchronous and the awaitable form of everything', async () => {
    const names = new Set(['size']);
    for (let each: object = await manual(); each !== Object.prototype; each = Object.getPrototypeOf(each) as object) {
      for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(each))) {
        if (typeof value === 'function' && name !== 'constructor') names.add(name);
      }
    }
    const isTwin = (name: string) => names.has(name.slice(1)) && name.startsWith('a');
    const alone = [...names].filter((name) => !names.has(`a${name}`) && !isTwin(name)).sort();
    // What answers at once and waits for nothing, and what cannot but wait.
    const atOnce = ['addHook', 'clearCache', 'isCached', 'off', 'on', 'once', 'rows', 'stats', 'table'];
    const waits = ['adrain', 'adurable', 'aexecute', 'afetchAll', 'afetchOne', 'aflush', 'arotateKey', 'close'];
    const nana = ['aclearDlq', 'agetDlq', 'agetV2Metrics', 'aretryDlq'];
    const sql =
      `aquery aqueryWithPagination acount aexists asqlInsert asqlUpdate asqlDelete aupsert aexecuteMany aiterate aimportRows
      aexportTable acreateTable adropTable aalterTableAddColumn acreateIndex adropIndex alistTables alistIndexes agetTableSchema
      atableExists apragma avacuum agetDbSize agetLastInsertRowid`.split(/\s+/);
    const whole = ['abackup', 'arestore', 'abeginTransaction', 'acommit', 'arollback'];
    const inner = ['holdTransaction'];
    expect(alone).toEqual([...atOnce, ...waits, ...nana, ...sql, ...whole, ...inner].sort());
    expect([...names].filter(isTwin).length).toBeGreaterThan(20);
  });
});

describe('a key-value table', () => {
  onBoth('get has a fallback, has says whether a key is there, and null is a value: %s', async (_, down) => {
    const db = await manual();
    db.set('nothing', null);
    await down(db);
    expect([db.get('nothing', 'fallback'), db.get('absent', 'fallback')]).toEqual([null, 'fallback']);
    expect([await db.aget('nothing'), await db.aget('absent')]).toEqual([null, undefined]);
    expect([await db.aget('nothing', 'fallback'), await db.aget('absent', 'fallback')]).toEqual([null, 'fallback']);
    expect(await db.aget('absent', 'fallback', { timeoutMs: 5_000 })).toBe('fallback');
    expect([db.has('nothing'), db.has('absent')]).toEqual([true, false]);
    expect([await db.ahas('nothing'), await db.ahas('absent')]).toEqual([true, false]);
  });

  onBoth('delete says whether the key was there, in place of an error: %s', async (_, down) => {
    const db = await manual();
    db.set('a', 1);
    await down(db);
    expect([db.delete('absent'), db.delete('a'), db.has('a'), db.delete('a')]).toEqual([false, true, false, false]);
    expect(await db.adelete('absent')).toBe(false);
  });

  onBoth('size, keys, values, entries and both loops have what is %s, in the order of the keys', async (_, down) => {
    const db = await manual();
    db.update({ b: 2, c: 3, a: 1 });
    await down(db);
    db.set('b', 20);
    db.delete('c');
    expect([db.size, await db.asize()]).toEqual([2, 2]);
    expect([[...db.keys()], [...db.values()], [...db.entries()], [...db]]).toEqual([
      ['a', 'b'],
      [1, 20],
      Object.entries({ a: 1, b: 20 }),
      Object.entries({ a: 1, b: 20 }),
    ]);
    expect(await collect(db.akeys())).toEqual(['a', 'b']);
    expect(await collect(db.avalues())).toEqual([1, 20]);
    expect(await collect(db.aentries())).toEqual([...db]);
    expect(await collect(db)).toEqual([...db]);
  });

  onBoth('pop returns what was there, and undefined is the one thing that never was: %s', async (_, down) => {
    const db = await manual();
    db.update({ a: 1, nothing: null });
    await down(db);
    expect([db.pop('a'), db.pop('a'), await db.apop('nothing'), await db.apop('nothing')]).toEqual([
      1,
      undefined,
      null,
      undefined,
    ]);
    expect(db.size).toBe(0);
  });

  onBoth('the first entry of a scan is the one to pop, where any will do: %s', async (_, down) => {
    const db = await manual();
    db.update({ b: 2, a: 1 });
    await down(db);
    const popped: unknown[] = [];
    for (let i = 0; i < 3; i++) {
      for (const [key, value] of db.scan({ limit: 1 })) {
        db.delete(key);
        popped.push([key, value]);
      }
    }
    expect(popped).toEqual([
      ['a', 1],
      ['b', 2],
    ]);
  });

  test('update takes an object, a Map or pairs, in one write for each', async () => {
    const db = await manual();
    db.update({ a: 1, b: { two: 2 } });
    db.update(new Map([['c', 3]]));
    await db.aupdate([['d', 4]]);
    expect(db.toDict()).toEqual({ a: 1, b: { two: 2 }, c: 3, d: 4 });
    expect(db.stats().accepted).toBe(4);
  });

  onBoth('setDefault writes only where nothing is, and null is something: %s', async (_, down) => {
    const db = await manual();
    db.update({ a: 1, nothing: null });
    await down(db);
    expect([db.setDefault('a', 2), db.setDefault('nothing', 2), db.setDefault('b', 3)]).toEqual([1, null, 3]);
    expect([await db.asetDefault('b', 4), await db.asetDefault('c', 5)]).toEqual([3, 5]);
    expect(db.toDict()).toEqual({ a: 1, b: 3, c: 5, nothing: null });
  });

  onBoth('clear takes everything, and what is written after it stays: %s', async (_, down) => {
    const db = await manual();
    const other = db.table('other');
    db.update({ a: 1, b: 2 });
    other.set('a', 1);
    await down(db);
    db.clear();
    db.set('after', 1);
    expect(db.toDict()).toEqual({ after: 1 });
    await down(db);
    expect([db.toDict(), other.toDict(), db.size]).toEqual([{ after: 1 }, { a: 1 }, 1]);
  });

  onBoth('is equal to a mapping when its copy is: %s', async (_, down) => {
    const db = await manual();
    db.update({ a: 1, b: { c: [2] } });
    await down(db);
    expect(isDeepStrictEqual(db.toDict(), { b: { c: [2] }, a: 1 })).toBe(true);
    db.set('a', 2);
    expect(isDeepStrictEqual(await db.acopy(), new Map(Object.entries({ a: 1, b: { c: [2] } })))).toBe(false);
  });

  onBoth('a nested value comes back as it was, and a part of it by a path: %s', async (_, down) => {
    const db = await manual();
    db.set('ada', { name: 'Ada', address: { lines: ['1 St James', 'London'], zip: '0123' } });
    await down(db);
    expect(db.get('ada')).toEqual({ name: 'Ada', address: { lines: ['1 St James', 'London'], zip: '0123' } });
    const address = await db.afetchOne("SELECT value ->> '$.address.zip' AS zip FROM data WHERE key = ?", ['ada']);
    expect(address).toEqual({ zip: '0123' });
  });

  onBoth('many are read, written and deleted in one call: %s', async (_, down) => {
    const db = await manual();
    db.setMany({ a: 1, b: 2, c: 3 });
    await down(db);
    expect(Object.fromEntries(db.getMany(['a', 'absent', 'c']))).toEqual({ a: 1, c: 3 });
    expect(Object.fromEntries(await db.agetMany(['absent', 'b']))).toEqual({ b: 2 });
    expect([db.deleteMany(['a', 'absent']), await db.adeleteMany(['b', 'absent'])]).toEqual([1, 1]);
    expect([db.getMany([]).size, db.deleteMany([])]).toEqual([0, 0]);
    expect(db.toDict()).toEqual({ c: 3 });
  });

  test('of a setMany with one bad value nothing is written, of a setManyPartial the others', async () => {
    const db = await manual();
    const entries = { a: 1, bad: Number.NaN, c: 3 };
    expect(await codeFrom(() => db.setMany(entries))).toBe('SLUICE_INVALID_VALUE');
    expect(await codeFrom(() => db.asetMany(entries))).toBe('SLUICE_INVALID_VALUE');
    expect(db.size).toBe(0);
    const refused = db.setManyPartial(entries);
    expect([...refused].map(([key, { code }]) => [key, code])).toEqual([['bad', 'SLUICE_INVALID_VALUE']]);
    expect(refused.get('bad')).toBeInstanceOf(SluiceError);
    expect(await db.asetManyPartial({ d: 4 })).toEqual(new Map());
    expect(db.toDict()).toEqual({ a: 1, c: 3, d: 4 });
  });

  test('a key that is the name of a table is a key like any other', async () => {
    const db = await manual();
    db.set('data', { key: 'x', value: 'y' });
    db.set('data', { key: 'x', value: 'z' });
    expect(db.toDict()).toEqual({ data: { key: 'x', value: 'z' } });
  });

  test('what a caller does to a value, before or after it is read, changes nothing that is stored', async () => {
    const db = await manual();
    const value = { list: [1] };
    db.set('a', value);
    value.list.push(2);
    (db.get('a') as typeof value).list.push(3);
    for (const [, read] of db) (read as typeof value).list.push(4);
    expect([db.get('a'), db.getMany(['a']).get('a')]).toEqual([{ list: [1] }, { list: [1] }]);
  });
});

describe('writing behind', () => {
  test('of several writes to a key one is applied, and the flush says how many were spared', async () => {
    const db = await manual();
    for (let i = 0; i < 10; i++) db.set('a', i);
    db.set('b', 1);
    db.delete('b');
    expect(await db.aflush()).toMatchObject({ applied: 2, coalesced: 10, dead: 0 });
    const beside = new Sqlite(db.path, { readonly: true });
    expect(beside.prepare('SELECT key, value FROM data').all()).toEqual([{ key: 'a', value: '9' }]);
    beside.close();
  });

  test('a flush that is not waited for has begun, and can be waited for later', async () => {
    const db = await manual();
    db.set('a', 1);
    expect(await db.aflush({ wait: false })).toEqual({ applied: 0, coalesced: 0, dead: 0, durationMs: 0 });
    await db.aflush();
    expect(db.stats()).toMatchObject({ pending: 0, applied: 1 });
  });

  test('what is staged is in every read: one key, many, counts, scans, copies and SQL', async () => {
    const db = await manual();
    db.update({ a: 1, b: 2 });
    await db.aflush();
    db.set('c', 3);
    db.delete('a');
    const there = { b: 2, c: 3 };
    expect([db.get('c'), db.has('a'), db.size, await db.asize()]).toEqual([3, false, 2, 2]);
    expect(Object.fromEntries(await db.agetMany(['a', 'b', 'c']))).toEqual(there);
    for (const all of [db.toDict(), await db.atoDict(), Object.fromEntries(db.scan())]) expect(all).toEqual(there);
    // Nothing so far has needed a flush; SQL waits for one.
    expect(db.stats().pending).toBe(2);
    expect(await db.afetchOne('SELECT count(*) AS n, max(value) AS value FROM data')).toEqual({ n: 2, value: '3' });
    expect(db.stats().pending).toBe(0);
  });

  test('tables share one order of writes, one flush and one queue of dead letters, and are closed with their database', async () => {
    const db = await manual();
    const [users, sessions] = [db.table('users'), db.table('sessions')];
    users.set('ada', 1);
    sessions.set('s', { user: 'ada' });
    db.stage('DELETE FROM users');
    users.set('grace', 2);
    expect(await db.aflush()).toMatchObject({ applied: 4, dead: 0 });
    expect([users.toDict(), sessions.toDict()]).toEqual([{ grace: 2 }, { s: { user: 'ada' } }]);
    expect('close' in users).toBe(false);
    await db.close();
    expect(await codeFrom(() => users.set('ada', 1))).toBe('SLUICE_CLOSED');
    expect(await codeFrom(() => sessions.get('s'))).toBe('SLUICE_CLOSED');
  });

  test('the options of the engine are read together, and a misspelt one is an error', async () => {
    const flush = { mode: 'count', intervalMs: 3_000, maxWrites: 100 } as const;
    const db = await openTemp('data.db', { flush, dlq: { maxEntries: 1_000, overflow: 'evict-oldest' } });
    expect(db.options.flush).toMatchObject(flush);
    expect(db.options.dlq).toMatchObject({ maxEntries: 1_000, overflow: 'evict-oldest' });
    expect(await codeFrom(() => open(':memory:', { v2_mode: true } as never))).toBe('SLUICE_INVALID_OPTION');
    expect(await codeFrom(() => open(':memory:', { flush: { flush_count: 1 } } as never))).toBe(
      'SLUICE_INVALID_OPTION',
    );
  });

  test('an error in a direct statement goes to its caller, and to no queue', async () => {
    const db = await manual();
    await db.aexecute('CREATE TABLE picky (n INTEGER UNIQUE)');
    await db.aexecute('INSERT INTO picky VALUES (1)');
    expect(await codeFrom(() => db.aexecute('INSERT INTO picky VALUES (1)'))).toBe('SLUICE_STORE');
    expect(db.dlq.size).toBe(0);
  });

  test('a SELECT behind WITH, a VALUES and a RETURNING give their rows', async () => {
    const db = await manual();
    await db.aexecute('CREATE TABLE t (n INTEGER)');
    expect(await db.afetchAll('WITH x AS (SELECT 1 AS n) SELECT n FROM x')).toEqual([{ n: 1 }]);
    expect((await db.aexecute('INSERT INTO t VALUES (1), (2) RETURNING n')).rows).toEqual([{ n: 1 }, { n: 2 }]);
    expect(await db.afetchAll('/* two */ VALUES (1), (2)')).toHaveLength(2);
  });
});

describe('caches', () => {
  test('what is in the cache can be seen, counted and let go', async () => {
    const db = await manual({ cache: 'unbounded' });
    db.setMany({ a: 1, b: 2 });
    await db.aflush();
    expect([db.isCached('a'), db.isCached('absent')]).toEqual([true, false]);
    db.clearCache();
    expect([db.isCached('a'), db.stats().cacheEntries]).toEqual([false, 0]);
    expect([db.get('a'), db.get('a'), await db.aget('absent'), await db.aget('absent')]).toEqual([
      1,
      1,
      undefined,
      undefined,
    ]);
    expect(db.stats()).toMatchObject({ cacheEntries: 1, reads: { sqlite: 1, cache: 2, miss: 1 } });
    expect([db.isCached('a'), db.isCached('absent')]).toEqual([true, true]);
  });

  test('all in memory, and flushed now and then: reads need no SQLite, and SQL sees what is staged', async () => {
    const file = join(tempDir(), 'a.db');
    const options: OpenOptions = { cache: 'unbounded', flush: { mode: 'time', intervalMs: 60_000 } };
    const before = await open(file, options);
    before.setMany(Array.from({ length: 1_000 }, (_, i) => [`k${i}`, i] as const));
    await before.close();
    const db = await open(file, options);
    expect(await db.aloadAll()).toBe(1_000);
    db.set('k0', 'newer');
    for (let i = 0; i < 1_000; i++) expect(db.get(`k${i}`)).toBe(i === 0 ? 'newer' : i);
    expect(db.stats()).toMatchObject({ pending: 1, flushes: 0, reads: { staging: 1, cache: 999, sqlite: 0 } });
    expect(await db.afetchOne("SELECT value FROM data WHERE key = 'k0'")).toEqual({ value: '"newer"' });
    await db.close();
  });
});

describe('hooks', () => {
  class Reading {
    readonly celsius: number;
    constructor({ celsius }: { celsius: number }) {
      this.celsius = celsius;
    }
    get fahrenheit(): number {
      return this.celsius * 1.8 + 32;
    }
  }

  onBoth('one that makes instances of a class of what is read: %s', async (_, down) => {
    const db = await manual();
    const readings = db.table<Reading>('readings', { hooks: [{ afterRead: (_key, value) => new Reading(value) }] });
    readings.set('kitchen', new Reading({ celsius: 20 }));
    await down(db);
    for (const read of [readings.get('kitchen'), ...readings.values(), await readings.aget('kitchen')]) {
      expect(read).toBeInstanceOf(Reading);
      expect(read?.fahrenheit).toBe(68);
    }
  });

  test('CheckHook refuses what its function does not say true to, with its message', async () => {
    const db = await manual();
    const ages = db.table<number>('ages', {
      hooks: [new CheckHook<number>((_, age) => age >= 0, { message: 'too young' })],
    });
    ages.set('ada', 36);
    expect(() => ages.set('bob', -1)).toThrow(
      expect.objectContaining({ code: 'SLUICE_VALIDATION', message: 'too young' }),
    );
    expect(await codeFrom(() => ages.aset('bob', -1))).toBe('SLUICE_VALIDATION');
    expect([...ages.setManyPartial({ eve: 20, bob: -1 }).keys()]).toEqual(['bob']);
    expect(ages.toDict()).toEqual({ ada: 36, eve: 20 });
  });

  onBoth('UniqueHook knows what is %s, what comes before it in the same call, and what has gone', async (_, down) => {
    const db = await manual();
    const users = db.table<{ email?: string }>('users', { hooks: [new UniqueHook<{ email?: string }>('email')] });
    users.set('ada', { email: 'a@example.org' });
    await down(db);
    expect(await codeFrom(() => users.set('bob', { email: 'a@example.org' }))).toBe('SLUICE_VALIDATION');
    expect(await codeFrom(() => users.setMany({ x: { email: 'x' }, y: { email: 'x' } }))).toBe('SLUICE_VALIDATION');
    users.setMany({ ada: { email: 'a@example.org' }, none: {}, neither: {} });
    expect(await codeFrom(() => users.aset('bob', { email: 'a@example.org' }))).toBe('SLUICE_VALIDATION');
    users.delete('ada');
    users.set('bob', { email: 'a@example.org' });
    expect([...users.keys()]).toEqual(['bob', 'neither', 'none']);
  });

  onBoth('ForeignKeyHook wants the key that is referred to, and finds it when it is %s', async (_, down) => {
    const db = await manual();
    const users = db.table('users');
    const hook = new ForeignKeyHook<{ user?: string }>('user', users);
    const sessions = db.table<{ user?: string }>('sessions', { hooks: [hook] });
    expect(await codeFrom(() => sessions.set('s', { user: 'ada' }))).toBe('SLUICE_VALIDATION');
    users.set('ada', 1);
    await down(db);
    sessions.setMany({ s: { user: 'ada' }, anonymous: {} });
    users.delete('ada');
    expect(await codeFrom(() => sessions.asetMany({ t: { user: 'ada' } }))).toBe('SLUICE_VALIDATION');
    expect([...sessions.keys()]).toEqual(['anonymous', 's']);
  });

  onBoth('hear of each way to write, to read and to delete, those for many keys too: %s', async (_, down) => {
    const db = await manual();
    const heard: unknown[][] = [];
    const table = db.table<number>('table', {
      hooks: [
        {
          beforeWrite: (_key, value) => value * 10,
          onWriteSuccess: (key, value, old) => void heard.push(['written', key, value, old]),
          afterRead: (_key, value) => value + 1,
          beforeDelete: (key) => void heard.push(['going', key]),
          onDeleteSuccess: (key, old) => void heard.push(['gone', key, old]),
        },
      ],
    });
    table.set('a', 1);
    table.setMany({ a: 2, b: 3 });
    expect(heard.splice(0)).toEqual([
      ['written', 'a', 10, undefined],
      ['written', 'a', 20, 10],
      ['written', 'b', 30, undefined],
    ]);
    await down(db);
    for (const all of [table.toDict(), Object.fromEntries(table.getMany(['a', 'b'])), await table.atoDict()]) {
      expect(all).toEqual({ a: 21, b: 31 });
    }
    expect(table.pop('a')).toBe(21);
    table.deleteMany(['b', 'absent']);
    table.set('c', 1);
    heard.splice(3);
    expect(heard.splice(0)).toEqual([
      ['going', 'a'],
      ['gone', 'a', 20],
      ['going', 'b'],
    ]);
    table.clear();
    expect(heard).toEqual([
      ['going', 'c'],
      ['gone', 'c', 10],
    ]);
  });
});
