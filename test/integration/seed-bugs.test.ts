import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { type Database, ForeignKeyHook, open, SluiceError, type Table, type TableHook, UniqueHook } from 'sluicedb';
import { describe, expect, test } from 'vitest';
import { Child, lockFromOutside } from '../support/child.ts';
import { codeFrom, eventually, refusal } from '../support/eventually.ts';
import { openTemp } from '../support/open-temp.ts';
import { tempDir } from '../support/temp-dir.ts';

/** What went wrong in NanaSQLite, by the numbers of docs/seed-bugs.md; what other tests show is named there. */

const manual = (options = {}) => openTemp('data.db', { flush: { mode: 'manual' }, ...options });

/** The file as another program finds it. */
function onDisk(file: string, table = 'data'): Map<unknown, unknown> {
  const sqlite = new Sqlite(file, { readonly: true });
  try {
    return new Map(sqlite.prepare(`SELECT key, value FROM "${table}"`).raw().all() as [unknown, unknown][]);
  } finally {
    sqlite.close();
  }
}

/** What the parts of Sluice have for each other. */
const INTERNAL = ['holdTransaction', 'inside', 'tableOptions', 'toStep'];

describe('write-behind', () => {
  test.each(['manual', 'immediate'] as const)(
    '1.16-1, 1.16-13: another process locks the file during a flush: nothing is lost, and nothing counted that is not committed (%s)',
    async (mode) => {
      const file = join(tempDir(), 'a.db');
      const db = await open(file, { flush: { mode } });
      db.on('failure', () => {});
      let attempts = 0;
      db.on('retry', () => attempts++);
      await db.aset('before', 1);
      await db.aflush();
      const unlock = await lockFromOutside(file);
      for (let i = 0; i < 20; i++) db.set(`k${i}`, i);
      const flushed = db.aflush();
      await eventually(() => attempts >= 3, 'several attempts have failed');
      expect(db.stats()).toMatchObject({ applied: 1, pending: 20, deadLettered: 0 });
      expect(await db.agetV2Metrics()).toMatchObject({ kvsItemsFlushed: 1, dlqErrors: 0 });
      expect(onDisk(file).size).toBe(1);
      await unlock();
      await flushed;
      expect(db.stats()).toMatchObject({ applied: 21, pending: 0, deadLettered: 0 });
      expect(onDisk(file).size).toBe(21);
      await db.close();
    },
  );

  test('1.16-5: a statement of one’s own that fails is told to its caller, is no dead letter, and stops nothing', async () => {
    const db = await manual();
    await db.aexecute('CREATE TABLE t (n INTEGER UNIQUE)');
    await db.aexecute('INSERT INTO t VALUES (1)');
    expect(await refusal(() => db.aexecute('INSERT INTO t VALUES (1)'))).toMatchObject({
      code: 'SLUICE_STORE',
      sqliteCode: 'SQLITE_CONSTRAINT_UNIQUE',
    });
    expect(await db.agetDlq()).toEqual([]);
    // What it was refused for is gone, and nobody runs it again.
    await db.aexecute('DELETE FROM t');
    expect(await db.aretryDlq()).toMatchObject({ applied: 0, failed: 0 });
    db.set('a', 1);
    await db.aflush();
    expect(await db.afetchOne('SELECT count(*) AS n FROM t')).toEqual({ n: 0 });
    expect([db.state, db.get('a')]).toEqual(['ok', 1]);
  });

  test('1.16-6: no table can end the database that it belongs to', async () => {
    const file = join(tempDir(), 'a.db');
    const db = await open(file, { flush: { mode: 'manual' } });
    const child = db.table('child');
    child.set('a', 1);
    for (const end of ['close', Symbol.dispose ?? 'dispose', Symbol.asyncDispose ?? 'asyncDispose']) {
      expect(end in child, String(end)).toBe(false);
    }
    await db.aset('b', 2);
    await db.aexecute('CREATE TABLE t (n)', [], { timeoutMs: 20_000 });
    await db.close();
    expect([onDisk(file, 'child'), onDisk(file)]).toEqual([new Map([['a', '1']]), new Map([['b', '2']])]);
  });

  test('1.16-7: what is staged is in every read, and to have looked before makes no difference', async () => {
    const db = await manual();
    const seen = async (table: Table) => ({
      has: [table.has('k'), await table.ahas('k')],
      get: [table.get('k'), await table.aget('k')],
      getMany: [table.getMany(['k']).size, (await table.agetMany(['k'])).size],
      size: [table.size, await table.asize()],
      keys: [[...table.keys()], await listed(table.akeys())],
      values: [[...table.values()], await listed(table.avalues())],
      entries: [[...table.entries()], await listed(table.aentries())],
      copy: [[...table.copy()], [...(await table.acopy())]],
      dict: [table.toDict(), await table.atoDict()],
      sql: (await db.afetchOne<{ n: number }>('SELECT count(*) AS n FROM data', [], { stale: true }))?.n,
    });
    const there = (value: unknown, sql: number) => ({
      has: [true, true],
      get: [value, value],
      getMany: [1, 1],
      size: [1, 1],
      keys: [['k'], ['k']],
      values: [[value], [value]],
      entries: [[['k', value]], [['k', value]]],
      copy: [[['k', value]], [['k', value]]],
      dict: [{ k: value }, { k: value }],
      sql,
    });
    const nothing = {
      has: [false, false],
      get: [undefined, undefined],
      getMany: [0, 0],
      size: [0, 0],
      keys: [[], []],
      values: [[], []],
      entries: [[], []],
      copy: [[], []],
      dict: [{}, {}],
    };
    await db.aset('k', 0);
    await db.adelete('k');
    await db.aflush();
    expect(await seen(db)).toEqual({ ...nothing, sql: 0 });
    db.set('k', 1);
    expect(await seen(db)).toEqual(there(1, 0));
    await db.aflush();
    expect(await seen(db)).toEqual(there(1, 1));
    db.set('k', 2);
    expect(await seen(db)).toEqual(there(2, 1));
    db.delete('k');
    expect(await seen(db)).toEqual({ ...nothing, sql: 1 });
    db.set('k', 3);
    // A query that is not told otherwise waits for what was accepted before it.
    expect(await db.afetchAll('SELECT key, value FROM data')).toEqual([{ key: 'k', value: '3' }]);
    expect(await seen(db)).toEqual(there(3, 1));
  });

  test('1.16-9: a statement that waits for its turn can be given up on, and leaves the database as it was', async () => {
    const file = join(tempDir(), 'a.db');
    const db = await open(file, { flush: { mode: 'manual' } });
    db.on('failure', () => {});
    await db.aset('a', 1);
    const unlock = await lockFromOutside(file);
    expect(await codeFrom(() => db.aexecute('CREATE TABLE t (n)', [], { timeoutMs: 100 }))).toBe('SLUICE_TIMEOUT');
    const off = new AbortController();
    const aborted = codeFrom(() => db.aexecute('CREATE TABLE t (n)', [], { signal: off.signal }));
    off.abort();
    expect(await aborted).toBe('SLUICE_ABORTED');
    await unlock();
    await db.aflush({ timeoutMs: 20_000 });
    expect(await db.afetchAll("SELECT name FROM sqlite_schema WHERE name = 't'")).toEqual([]);
    await db.close();
  });

  test('1.16-10: the rowid and the count that a statement answers with are its own, whatever is flushed meanwhile', async () => {
    const db = await openTemp('data.db', { flush: { mode: 'immediate' }, durability: 'os' });
    await db.aexecute('CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, n INTEGER)');
    const rows = db.rows('noise', { columns: { n: 'integer' } });
    const answers: { n: number; lastInsertRowid: unknown; changes: number }[] = [];
    const producer = async (first: number) => {
      for (let n = first; n < first + 25; n++) {
        for (let i = 0; i < 5; i++) {
          db.set(`k${n}/${i}`, n);
          rows.append({ n });
        }
        const { lastInsertRowid, changes } = await db.aexecute('INSERT INTO t (n) VALUES (?), (?)', [n, n]);
        answers.push({ n, lastInsertRowid, changes });
      }
    };
    await Promise.all([0, 100, 200, 300].map(producer));
    expect(answers).toHaveLength(100);
    expect(db.stats().flushes).toBeGreaterThan(20);
    const stored = new Map(
      (await db.afetchAll<{ id: number; n: number }>('SELECT * FROM t')).map(({ id, n }) => [id, n]),
    );
    for (const { n, lastInsertRowid, changes } of answers) {
      expect([stored.get(Number(lastInsertRowid)), changes]).toEqual([n, 2]);
    }
  });

  test('1.16-11: a process that is some other’s child opens, writes and closes without a warning', async () => {
    const child = new Child(
      `const db = await open(process.argv[2]);
       await db.aset('a', 1);
       await db.table('t').aset('b', 2);
       console.log((await db.close()).pending);`,
      [join(tempDir(), 'a.db')],
    );
    expect(await child.end()).toMatchObject({ code: 0, output: '0\n', errors: '' });
  });
});

describe('statements', () => {
  test('1.6-5: what returns rows returns them, however it begins', async () => {
    const db = await manual();
    db.set('a', 1);
    const reads = [
      'WITH all_of AS (SELECT * FROM data) SELECT value FROM all_of',
      '-- a comment\nSELECT value FROM data',
      '/* a comment */ SELECT value FROM data',
      "VALUES ('1')",
    ];
    for (const sql of reads) {
      expect(
        (await db.afetchAll(sql)).map((row) => Object.values(row)),
        sql,
      ).toEqual([['1']]);
      expect(
        (await db.aexecute(sql)).rows.map((row) => Object.values(row)),
        sql,
      ).toEqual([['1']]);
    }
    const { rows } = await db.aexecute(
      "WITH v(k) AS (VALUES ('b')) INSERT INTO data SELECT k, '2' FROM v RETURNING key",
    );
    expect([rows, db.get('b')]).toEqual([[{ key: 'b' }], 2]);
  });
});

describe('tables', () => {
  test('1.16-17, 1.10-2: one name is one table, so that none of two can be stale', async () => {
    const db = await manual();
    const table = db.table('t');
    expect([db.table('t'), db.table('T'), db.table('data')]).toEqual([table, table, db]);
    expect(db.table('t')).toBe(table);
    expect(db.table('DATA')).toBe(db);
  });

  test('1.16-34, 1.2-4: there is one order of keys, in every method, staged or applied, after an overwrite too', async () => {
    const db = await manual();
    for (const key of ['b', 'é', 'a', '😀', 'B', '10', '9', '']) db.set(key, key);
    db.set('a', 'a');
    const order = ['', '10', '9', 'B', 'a', 'b', 'é', '😀'];
    for (const state of ['staged', 'applied', 'overwritten']) {
      const lists = {
        keys: [...db.keys()],
        values: [...db.values()],
        entries: [...db.entries()].map(([key]) => key),
        scan: [...db.scan()].map(([key]) => key),
        copy: [...db.copy().keys()],
        akeys: await listed(db.akeys()),
        avalues: await listed(db.avalues()),
        aentries: (await listed(db.aentries())).map(([key]) => key),
        acopy: [...(await db.acopy()).keys()],
      };
      for (const [method, list] of Object.entries(lists)) expect(list, `${method}, ${state}`).toEqual(order);
      await db.aflush();
      db.set('b', 'b');
    }
  });
});

interface User {
  readonly mail: string;
}

describe('hooks', () => {
  const heardBy = (heard: unknown[][]): TableHook => ({
    beforeWrite: (key, value) => {
      heard.push(['before', key]);
      return value;
    },
    onWriteSuccess: (key, value, old) => void heard.push(['wrote', key, value, old]),
    beforeDelete: (key) => void heard.push(['before delete', key]),
    onDeleteSuccess: (key, old) => void heard.push(['deleted', key, old]),
    afterRead: (_, value) => [value],
  });

  test('1.16-33, 1.11-1, 1.11-3: hooks hear of every key of a call for many, before and after, also of clear', async () => {
    const heard: unknown[][] = [];
    const db = await manual();
    const table = db.table('t', { hooks: [heardBy(heard)] });
    table.set('a', 0);
    await db.aflush();
    const writes: ((entries: Record<string, unknown>) => unknown)[] = [
      (entries) => table.setMany(entries),
      (entries) => table.asetMany(entries),
      (entries) => table.setManyPartial(entries),
      (entries) => table.asetManyPartial(entries),
      (entries) => table.update(entries),
      (entries) => table.aupdate(entries),
    ];
    for (const [i, write] of writes.entries()) {
      heard.length = 0;
      await write({ a: i + 1, [`b${i}`]: i });
      expect(heard).toEqual([
        ['before', 'a'],
        ['before', `b${i}`],
        ['wrote', 'a', i + 1, i],
        ['wrote', `b${i}`, i, undefined],
      ]);
    }
    heard.length = 0;
    table.deleteMany(['b0', 'none']);
    await table.adeleteMany(['b1', 'none']);
    table.pop('b2');
    expect(heard).toEqual(
      [0, 1, 2].flatMap((i) => [
        ['before delete', `b${i}`],
        ['deleted', `b${i}`, i],
      ]),
    );
    heard.length = 0;
    table.clear();
    expect(heard.filter(([what]) => what === 'deleted').map(([, key]) => key)).toEqual(['a', 'b3', 'b4', 'b5']);
  });

  test('1.16-33, 1.11-2: what afterRead makes of a value comes out of every read', async () => {
    const db = await manual();
    const table = db.table('t', { hooks: [{ afterRead: (_, value) => [value] }] });
    table.set('a', 1);
    for (const state of ['staged', 'applied']) {
      const reads = {
        get: table.get('a'),
        aget: await table.aget('a'),
        getMany: table.getMany(['a']).get('a'),
        agetMany: (await table.agetMany(['a'])).get('a'),
        setDefault: table.setDefault('a', 0),
        asetDefault: await table.asetDefault('a', 0),
        values: [...table.values()][0],
        avalues: (await listed(table.avalues()))[0],
        entries: [...table.entries()][0]?.[1],
        aentries: (await listed(table.aentries()))[0]?.[1],
        scan: [...table.scan()][0]?.[1],
        ascan: (await listed(table.ascan()))[0]?.[1],
        iterator: [...table][0]?.[1],
        copy: table.copy().get('a'),
        acopy: (await table.acopy()).get('a'),
        toDict: table.toDict()['a'],
        atoDict: (await table.atoDict())['a'],
      };
      for (const [method, value] of Object.entries(reads)) expect(value, `${method}, ${state}`).toEqual([1]);
      await db.aflush();
    }
    expect([table.pop('a'), table.setDefault('b', 2), await table.apop('b')]).toEqual([[1], [2], [2]]);
  });

  test('1.16-33, 1.11-4: UniqueHook sees two equal values in one call', async () => {
    const db = await manual();
    const users = db.table<User>('users', { hooks: [new UniqueHook<User>('mail')] });
    const twice = { a: { mail: 'x' }, b: { mail: 'x' } };
    for (const call of [
      () => users.setMany(twice),
      () => users.asetMany(twice),
      () => users.update(twice),
      () => users.aupdate(twice),
    ]) {
      expect(await codeFrom(call)).toBe('SLUICE_VALIDATION');
    }
    expect(users.size).toBe(0);
    expect([...users.setManyPartial(twice).keys()]).toEqual(['b']);
    expect([...users.keys()]).toEqual(['a']);
  });

  test('1.16-33, 1.11-5: UniqueHook knows what calls for many have written and deleted', async () => {
    const db = await manual();
    const users = db.table<User>('users', { hooks: [new UniqueHook<User>('mail')] });
    users.set('first', { mail: 'first' });
    users.setMany({ a: { mail: 'a' }, b: { mail: 'b' } });
    await users.asetManyPartial({ c: { mail: 'c' } });
    for (const mail of ['first', 'a', 'b', 'c']) {
      expect(await codeFrom(() => users.set('other', { mail })), mail).toBe('SLUICE_VALIDATION');
    }
    users.deleteMany(['a', 'b']);
    users.set('other', { mail: 'a' });
    users.clear();
    users.setMany({ x: { mail: 'first' }, y: { mail: 'c' } });
    expect(await codeFrom(() => users.set('z', { mail: 'c' }))).toBe('SLUICE_VALIDATION');
  });

  test('1.16-33: UniqueHook reads the table once, and not at each write', async () => {
    const db = await manual();
    let asked = 0;
    const unique = new UniqueHook<User>((_, { mail }) => {
      asked++;
      return mail;
    });
    db.update(Array.from({ length: 500 }, (_, i) => [`k${i}`, { mail: `${i}` }] as const));
    await db.aflush();
    (db as Database as Table<User>).addHook(unique);
    db.set('first', { mail: 'first' });
    expect(asked).toBe(501);
    for (let i = 0; i < 50; i++) db.set(`n${i}`, { mail: `n${i}` });
    expect(await codeFrom(() => db.set('twice', { mail: '7' }))).toBe('SLUICE_VALIDATION');
    expect(asked).toBeLessThan(501 + 60);
  });

  test('1.11-6: a hook that two tables share keeps them apart', async () => {
    const db = await manual({ hooks: [new UniqueHook<User>('mail') as TableHook] });
    const [one, other] = [db.table('one'), db.table('other')];
    for (let i = 0; i < 3; i++) {
      one.set(`k${i}`, { mail: `${i}` });
      other.set(`n${i}`, { mail: `${i}` });
    }
    expect(await codeFrom(() => one.set('n', { mail: '1' }))).toBe('SLUICE_VALIDATION');
    expect(await codeFrom(() => other.set('k', { mail: '1' }))).toBe('SLUICE_VALIDATION');
  });

  test('1.16-33: ForeignKeyHook sees what is staged: a key that is there, and one that was deleted', async () => {
    const db = await manual();
    const rooms = db.table('rooms');
    const places = db.table<{ room: string }>('places', {
      hooks: [new ForeignKeyHook<{ room: string }>('room', rooms)],
    });
    rooms.set('a', 1);
    places.set('p', { room: 'a' });
    await db.aflush();
    rooms.delete('a');
    expect(await codeFrom(() => places.set('q', { room: 'a' }))).toBe('SLUICE_VALIDATION');
    rooms.set('a', 2);
    places.set('q', { room: 'a' });
    rooms.clear();
    expect(await codeFrom(() => places.set('q', { room: 'a' }))).toBe('SLUICE_VALIDATION');
  });
});

describe('encryption', () => {
  const key = Buffer.alloc(32, 7);

  test('1.12-1: an empty key is refused, and so is one that is not there', async () => {
    const file = join(tempDir(), 'a.db');
    const none = [{ key: '' }, { key: undefined }, { key: null }, { key: new Uint8Array() }, { passphrase: '' }, {}];
    for (const encryption of none as never[]) {
      expect(await codeFrom(() => open(file, { encryption }))).toBe('SLUICE_INVALID_OPTION');
    }
    const db = await manual({ encryption: { key } });
    for (const encryption of none as never[]) {
      expect(await codeFrom(() => db.table('t', { encryption }))).toBe('SLUICE_INVALID_OPTION');
    }
    expect(await codeFrom(() => db.arotateKey({ key: '' }))).toBe('SLUICE_INVALID_OPTION');
  });

  test('1.16-20, 1.10-1: a table has the key of its database: staged, applied, and with options of its own', async () => {
    const file = join(tempDir(), 'a.db');
    const db = await open(file, { encryption: { key }, flush: { mode: 'manual' } });
    const tables = [db, db.table('plain'), db.table('hooked', { hooks: [new UniqueHook<User>('mail') as TableHook] })];
    for (const table of tables) {
      table.set('a', { mail: 'xyzzyplugh' });
      table.setMany({ b: { mail: 'b' } });
      expect(table.get('a')).toEqual({ mail: 'xyzzyplugh' });
    }
    await db.aflush();
    for (const table of tables) expect(await table.aget('a')).toEqual({ mail: 'xyzzyplugh' });
    await db.close();
    for (const { name } of tables) {
      const stored = [...onDisk(file, name).values()];
      expect(stored).toHaveLength(2);
      for (const value of stored) {
        expect(value).toBeInstanceOf(Uint8Array);
        expect(Buffer.from(value as Uint8Array).includes('xyzzyplugh')).toBe(false);
      }
    }
    // As the original would: a table that is opened without the key.
    expect(await codeFrom(() => open(file, { table: 'plain' }))).toBe('SLUICE_DECRYPT');
  });
});

describe('transactions', () => {
  const SQL = { sql: true } as const;
  const isRolledBack = (error: unknown) => expect(String(error)).toContain('rolled back');

  test('1.6-7: there are transactions in write-behind, of keys and of SQL, and they know what is staged', async () => {
    const db = await manual();
    db.set('n', 1);
    db.transaction((tx) => tx.set('n', (tx.get('n') as number) + 1));
    await db.atransaction((tx) => tx.aexecute("UPDATE data SET value = value + 1 WHERE key = 'n'"), SQL);
    await db.abeginTransaction();
    expect(db.inTransaction).toBe(true);
    await db.acommit();
    expect([db.get('n'), onDisk(db.path)]).toEqual([3, new Map([['n', '3']])]);
  });

  test('1.13-1: what was rolled back is in no table’s cache', async () => {
    const db = await manual({ cache: 'unbounded' });
    const child = db.table('child');
    for (const table of [db, child]) table.set('a', 'before');
    await db.aflush();
    const read = () => [db.get('a'), child.get('a'), db.table('child').get('a')];
    expect(read()).toEqual(['before', 'before', 'before']);
    const keys = db.atransaction(async (tx) => {
      tx.set('a', 'taken back');
      tx.table('child').set('a', 'taken back');
      expect([tx.get('a'), read()]).toEqual(['taken back', ['before', 'before', 'before']]);
      throw new Error('rolled back');
    });
    await keys.catch(isRolledBack);
    const sql = db.atransaction(async (tx) => {
      for (const name of ['data', 'child']) await tx.aexecute(`UPDATE ${name} SET value = '"taken back"'`);
      // Whatever is read meanwhile may be kept.
      expect(read()).toEqual(['before', 'before', 'before']);
      expect(await child.agetFresh('a')).toBe('before');
      throw new Error('rolled back');
    }, SQL);
    await sql.catch(isRolledBack);
    expect(read()).toEqual(['before', 'before', 'before']);
    expect([await db.agetFresh('a'), await child.agetFresh('a')]).toEqual(['before', 'before']);
  });

  test('1.13-2: what another task has written is no part of a transaction: neither its end nor its rollback', async () => {
    const db = await manual();
    await db.aexecute('CREATE TABLE t (n INTEGER)');
    let others: Promise<unknown> | undefined;
    let begin: () => void = () => undefined;
    const begun = new Promise<void>((resolve) => {
      begin = resolve;
    });
    const task = begun.then(async () => {
      await db.aset('theirs', 1);
      others = db.aexecute('INSERT INTO t VALUES (1)');
    });
    const mine = db.atransaction(async (tx) => {
      await tx.aexecute('INSERT INTO t VALUES (2)');
      begin();
      await task;
      throw new Error('rolled back');
    }, SQL);
    await mine.catch(isRolledBack);
    await others;
    await db.aflush();
    expect(await db.afetchAll('SELECT n FROM t')).toEqual([{ n: 1 }]);
    expect(onDisk(db.path)).toEqual(new Map([['theirs', '1']]));
  });

  test('1.13-3: what writes many keys does so in a transaction too, and a transaction can have parts', async () => {
    const db = await manual();
    db.transaction((tx) => {
      tx.setMany({ a: 1, b: 2, c: 3 });
      tx.deleteMany(['b']);
      const part = () =>
        tx.transaction(() => {
          tx.set('a', 'taken back');
          throw new Error('rolled back');
        });
      expect(part).toThrow('rolled back');
    });
    await db.aexecute('CREATE TABLE t (n INTEGER UNIQUE)');
    await db.atransaction(async (tx) => {
      await tx.aexecute('INSERT INTO t VALUES (1), (2)');
      const part = tx.atransaction((inner) => inner.aexecute('INSERT INTO t VALUES (3), (1)'));
      expect(await codeFrom(() => part)).toBe('SLUICE_STORE');
    }, SQL);
    expect(db.toDict()).toEqual({ a: 1, c: 3 });
    expect(await db.afetchAll('SELECT n FROM t')).toEqual([{ n: 1 }, { n: 2 }]);
  });
});

describe('readers', () => {
  test('1.15-1: every reader of a temporary database reads that one, and what is staged', async () => {
    const db = await open(':memory:', { readers: 3, flush: { mode: 'manual' } });
    db.set('a', 1);
    const slow =
      'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) SELECT max(i), value FROM n, data';
    const queries = Array.from({ length: 6 }, () => db.afetchOne<{ value: string }>(slow));
    expect((await Promise.all(queries)).map((row) => row?.value)).toEqual(Array(6).fill('1'));
    await db.close();
  });

  test('1.15-2: what only reads cannot write, whichever call it is', async () => {
    const db = await manual();
    await db.aexecute('CREATE TABLE t (n INTEGER)');
    const inserts = [
      'INSERT INTO t VALUES (1)',
      'INSERT INTO t VALUES (1) RETURNING n',
      'WITH x AS (SELECT 1) INSERT INTO t SELECT 1 FROM x RETURNING n',
    ];
    // By its text, or by SQLite, which has opened the file for reading alone.
    const refused = ['SLUICE_INVALID_SQL', 'SLUICE_STORE'];
    for (const sql of inserts) {
      expect(refused).toContain(await codeFrom(() => db.afetchAll(sql)));
      expect(refused).toContain(await codeFrom(() => db.afetchOne(sql, [], { stale: true })));
      expect(refused).toContain(await codeFrom(async () => db.aiterate(sql).next()));
    }
    expect(await db.acount('t')).toBe(0);
  });
});

describe('the face', () => {
  test('1.16-34: an option that there is not is refused, wherever options are taken', async () => {
    const file = join(tempDir(), 'a.db');
    const db = await manual();
    const encrypted = await openTemp('encrypted.db', { encryption: { key: Buffer.alloc(32) } });
    const off = { no: 1 } as never;
    const calls: Record<string, () => unknown> = {
      open: () => open(file, off),
      'open flush': () => open(file, { flush: off }),
      'open staging': () => open(file, { staging: off }),
      'open log': () => open(file, { log: off }),
      'open dlq': () => open(file, { dlq: off }),
      'open encryption': () => open(file, { encryption: { key: Buffer.alloc(32), ...(off as object) } }),
      'open breaker': () => open(file, { dlq: { breaker: off } }),
      'open mode': () => open(file, { flush: { mode: 'never' as never } }),
      table: () => db.table('t', off),
      rows: () => db.rows('r', { columns: { n: 'any' }, ...(off as object) }),
      scan: () => db.scan(off),
      ascan: () => db.ascan(off),
      aflush: () => db.aflush(off),
      adrain: () => db.adrain(off),
      adurable: () => db.adurable(off),
      afetchAll: () => db.afetchAll('SELECT 1', [], off),
      afetchOne: () => db.afetchOne('SELECT 1', [], off),
      aexecute: () => db.aexecute('SELECT 1', [], off),
      arotateKey: () => encrypted.arotateKey({ key: Buffer.alloc(32, 1), ...(off as object) }),
      astage: () => db.astage('DELETE FROM data', [], off),
      aset: () => db.aset('k', 1, off),
      asetDefault: () => db.asetDefault('k', 1, off),
      aupdate: () => db.aupdate({ k: 1 }, off),
      asetMany: () => db.asetMany({ k: 1 }, off),
      asetManyPartial: () => db.asetManyPartial({ k: 1 }, off),
      adelete: () => db.adelete('k', off),
      adeleteMany: () => db.adeleteMany(['k'], off),
      apop: () => db.apop('k', off),
      aclear: () => db.aclear(off),
      aget: () => db.aget('k', undefined, off),
      'aget, limits second': () => db.aget('k', { timeoutMs: 5 }),
      agetFresh: () => db.agetFresh('k', undefined, off),
      'agetFresh, limits second': () => db.agetFresh('k', { signal: undefined }),
      arefresh: () => db.arefresh('k', off),
      'arefresh, all': () => db.arefresh(undefined, off),
      agetMany: () => db.agetMany(['k'], off),
      ahas: () => db.ahas('k', off),
      asize: () => db.asize(off),
      'dlq.list': () => db.dlq.list(off),
      'dlq.listSummaries': () => db.dlq.listSummaries(off),
      'dlq.get': () => db.dlq.get(1, off),
      'dlq.summary': () => db.dlq.summary({}, off),
      'dlq.retry': () => db.dlq.retry('all', off),
      'dlq.clear': () => db.dlq.clear('all', off),
      'dlq.take': () => db.dlq.take(off),
      'dlq.import': () => db.dlq.import([], off),
    };
    const answers: Record<string, string> = {};
    for (const [name, call] of Object.entries(calls)) {
      answers[name] = await codeFrom(call).catch((error: Error) => error.message);
    }
    expect(Object.entries(answers).filter(([, answer]) => answer !== 'SLUICE_INVALID_OPTION')).toEqual([]);
    // What was refused has written nothing.
    expect(db.stats().accepted).toBe(0);
    expect((await refusal(() => db.aget('k', undefined, { timeout: 5 } as never))).message).toContain(
      "did you mean 'timeoutMs'",
    );
  });

  test('1.16-34, 1.3-4: every method that reads or writes has an awaitable form under one rule', async () => {
    const db = await manual();
    const rows = db.rows('r', { columns: { n: 'any' } });
    // What does nothing that could be awaited, or is the way in.
    const alone = ['addHook', 'on', 'once', 'off', 'stats', 'state', 'table', 'rows', 'close', 'abeginTransaction'];
    const without: string[] = [];
    let pairs = 0;
    for (const object of [db, rows]) {
      const names = namesOf(object).filter((name) => !alone.includes(name));
      for (const name of names) {
        if (isAwaitable(object, name, names)) continue;
        if (names.includes(`a${name}`)) pairs++;
        else without.push(name);
      }
    }
    expect(pairs).toBeGreaterThan(20);
    // Numbers that are known, options, what looks into memory only, and a stream.
    const known = ['aiterate', 'clearCache', 'inTransaction', 'isCached', 'needsDrain', 'sqliteVersion', 'writable'];
    expect(without.sort()).toEqual([...known, ...INTERNAL].sort());
  });

  test('1.16-34, 1.3-5: what is closed says so in every method, with one code', async () => {
    const db = await open(join(tempDir(), 'a.db'));
    const table = db.table('t');
    const rows = db.rows('r', { columns: { n: 'integer' } });
    await db.close();
    const [pairs, keys] = [{ a: 1 }, ['a']];
    const given: Record<string, readonly unknown[]> = {
      setMany: [pairs],
      asetMany: [pairs],
      setManyPartial: [pairs],
      asetManyPartial: [pairs],
      update: [pairs],
      aupdate: [pairs],
      getMany: [keys],
      agetMany: [keys],
      deleteMany: [keys],
      adeleteMany: [keys],
      setModel: ['a', 1, ANYTHING],
      asetModel: ['a', 1, ANYTHING],
      getModel: ['a', ANYTHING],
      agetModel: ['a', ANYTHING],
      append: [{ n: 1 }],
      aappend: [{ n: 1 }],
      appendMany: [[{ n: 1 }]],
      aappendMany: [[{ n: 1 }]],
      set: ['a', 1],
      aset: ['a', 1],
      setDefault: ['a', 1],
      asetDefault: ['a', 1],
      table: ['other'],
      rows: ['r'],
      transaction: [() => 1],
      atransaction: [async () => 1],
      stage: ['DELETE FROM data'],
      astage: ['DELETE FROM data'],
      aexecute: ['SELECT 1'],
      afetchAll: ['SELECT 1'],
      afetchOne: ['SELECT 1'],
      aexecuteMany: ['SELECT ?', [[1]]],
      aiterate: ['SELECT 1'],
      aupsert: ['a', { a: 1 }],
      acreateTable: ['a', { a: 'TEXT' }],
      apragma: ['user_version'],
    };
    const noArgument =
      /^a?(vacuum|size|clear|keys|values|entries|scan|copy|toDict|durable|flush|drain|getDlq|retryDlq|clearDlq)$/i;
    // Numbers and listeners are there to the end, and after it.
    const open_ = ['addHook', 'on', 'once', 'off', 'stats', 'state', 'close', 'agetV2Metrics'];
    // Closing has ended whatever was begun.
    const over = ['acommit', 'arollback', 'inTransaction'];
    const notAsked = [...open_, ...over, 'needsDrain', 'sqliteVersion', ...INTERNAL, 'writable'];
    const answers: Record<string, string> = {};
    for (const [owner, object] of Object.entries({ db, table, rows })) {
      for (const name of namesOf(object)) {
        if (notAsked.includes(name)) continue;
        answers[`${owner}.${name}`] = await codeFrom(async () => {
          const member = (object as never)[name] as unknown;
          if (typeof member !== 'function') return member;
          const answer: unknown = member.apply(object, given[name] ?? (noArgument.test(name) ? [] : ['a']));
          const { next } = Object(answer) as Partial<Iterator<unknown>>;
          return next === undefined ? answer : next.call(answer);
        }).catch((error: Error) => error.message);
      }
    }
    expect(Object.keys(answers).length).toBeGreaterThan(80);
    expect(Object.entries(answers).filter(([, answer]) => answer !== 'SLUICE_CLOSED')).toEqual([]);
    expect(await codeFrom(() => db.dlq.list())).toBe('SLUICE_CLOSED');
    expect(await db.close()).toEqual({ pending: 0 });
  });

  test('1.16-34, 1.3-6: what is refused is a SluiceError with a code, and says it in one language', async () => {
    const db = await manual({ validator: { '~standard': { version: 1, vendor: 'test', validate: () => NO } } });
    const refused = db.setManyPartial({ a: 1 }).get('a');
    expect(refused).toBeInstanceOf(SluiceError);
    expect(refused).toMatchObject({ code: 'SLUICE_VALIDATION', problems: ['no'] });
    const folder = join(import.meta.dirname, '..', '..', 'dist');
    const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.js'));
    expect(files.length).toBeGreaterThan(50);
    const cjk = /[\u3040-\u30ff\u3400-\u9fff\uff00-\uffef]/;
    expect(files.filter((name) => cjk.test(readFileSync(join(folder, name), 'utf8')))).toEqual([]);
  });
});

const NO = { issues: [{ message: 'no' }] };
const ANYTHING = { '~standard': { version: 1, vendor: 'test', validate: (value: unknown) => ({ value }) } };

async function listed<T>(entries: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const entry of entries) list.push(entry);
  return list;
}

/** Public members of an object that its classes have. */
function namesOf(object: object): string[] {
  const names = new Set<string>();
  for (let at: object = Object.getPrototypeOf(object); at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const name of Object.getOwnPropertyNames(at)) names.add(name);
  }
  names.delete('constructor');
  return [...names];
}

/** What has no other form than the awaitable one, under names of NanaSQLite. */
const AWAITABLE = ['agetDlq', 'aretryDlq', 'aclearDlq'];

/** Whether it is `aset` to a `set`, or `aexecute`, which has no other form. */
function isAwaitable(object: object, name: string, names: readonly string[]): boolean {
  if (!name.startsWith('a') || names.includes(`a${name}`)) return false;
  const member = (object as Record<string, unknown>)[name];
  return names.includes(name.slice(1)) || AWAITABLE.includes(name) || member?.constructor.name === 'AsyncFunction';
}
