import { UniqueHook } from 'sluicedb';
import { describe, expect, test } from 'vitest';
import { codeFrom, refusal } from '../support/eventually.ts';
import { openTemp } from '../support/open-temp.ts';

const MANUAL = { flush: { mode: 'manual' } } as const;

async function withTable(columns: Readonly<Record<string, string>>) {
  const db = await openTemp('data.db', MANUAL);
  await db.acreateTable('t', columns);
  return db;
}

describe('one row', () => {
  test('asqlInsert resolves to the rowid, and leaves out what is undefined', async () => {
    const db = await withTable({ id: 'INTEGER PRIMARY KEY', a: "TEXT DEFAULT 'x'", 'b "c"': 'ANY' });
    expect(await db.asqlInsert('t', { a: 'y', 'b "c"': { json: [1] } })).toBe(1);
    expect(await db.asqlInsert('t', { id: 2n ** 60n, a: undefined })).toBe(2n ** 60n);
    expect(await db.asqlInsert('t', { id: -5, 'b "c"': true })).toBe(-5);
    expect(await db.aexportTable('t')).toEqual([
      { id: -5, a: 'x', 'b "c"': 1 },
      { id: 1, a: 'y', 'b "c"': '{"json":[1]}' },
      { id: 2n ** 60n, a: 'x', 'b "c"': null },
    ]);
    await db.adropTable('t');
    await db.acreateTable('t', { a: 'INTEGER DEFAULT 7' });
    expect(await db.asqlInsert('t', {})).toBe(1);
    expect(await db.aexportTable('t')).toEqual([{ a: 7 }]);
    expect(await codeFrom(() => db.asqlInsert('t', { none: 1 }))).toBe('SLUICE_STORE');
    expect(await codeFrom(() => db.asqlInsert('t', { a: Number.NaN }))).toBe('SLUICE_INVALID_VALUE');
    expect(await codeFrom(() => db.asqlInsert('t', [1] as never))).toBe('SLUICE_INVALID_VALUE');
    expect(await codeFrom(() => db.asqlInsert('_sluice_state', { id: 1 }))).toBe('SLUICE_INVALID_SQL');
  });

  test('asqlUpdate and asqlDelete resolve to how many rows they meant, which must be said', async () => {
    const db = await withTable({ a: 'INTEGER', b: 'TEXT' });
    db.rows('t').appendMany([{ a: 1 }, { a: 2 }, { a: 3 }]);
    expect(
      await db.asqlUpdate(
        't',
        { b: 'x', a: 10 },
        { where: 'a > ? AND a < :no OR a = ?'.replace(':no', '?'), parameters: [1, 3, 9] },
      ),
    ).toBe(1);
    expect(await db.asqlUpdate('t', { b: 'y' }, { where: 'a = :a', parameters: { a: 1 } })).toBe(1);
    expect(await db.asqlUpdate('t', { b: null }, { where: 'a = 99' })).toBe(0);
    expect(await db.aquery('t', { orderBy: 'a' })).toEqual([
      { a: 1, b: 'y' },
      { a: 3, b: null },
      { a: 10, b: 'x' },
    ]);
    for (const options of [
      {},
      { all: false },
      { where: undefined },
      undefined,
      { where: '1', all: true },
      { were: '1' },
    ]) {
      expect(await codeFrom(() => db.asqlDelete('t', options as never))).toBe('SLUICE_INVALID_OPTION');
      expect(await codeFrom(() => db.asqlUpdate('t', { a: 1 }, options as never))).toBe('SLUICE_INVALID_OPTION');
    }
    expect(await codeFrom(() => db.asqlUpdate('t', {}, { all: true }))).toBe('SLUICE_INVALID_VALUE');
    expect(await db.asqlDelete('t', { where: 'a > ?', parameters: [2] })).toBe(2);
    expect(await db.asqlUpdate('t', { a: 5 }, { all: true })).toBe(1);
    expect(await db.asqlDelete('t', { all: true })).toBe(1);
    expect(await db.acount('t')).toBe(0);
  });

  test('what a trigger changes is not counted', async () => {
    const db = await withTable({ a: 'INTEGER' });
    await db.acreateTable('log', { a: 'INTEGER' });
    await db.aexecute('CREATE TRIGGER x AFTER UPDATE ON t BEGIN INSERT INTO log VALUES (new.a), (old.a); END');
    await db.aexecuteMany('INSERT INTO t VALUES (?)', [[1], [2]]);
    expect(await db.asqlUpdate('t', { a: 7 }, { all: true })).toBe(2);
    expect((await db.aexecute('UPDATE t SET a = 8')).changes).toBe(2);
    expect((await db.aexecute('UPDATE t SET a = 9 RETURNING a')).changes).toBe(2);
    expect((await db.aexecute('CREATE TABLE u (a)')).changes).toBe(0);
    expect(await db.acount('log')).toBe(12);
  });

  test('1.16-10: the rowid and the count are those of the call, whatever is written meanwhile', async () => {
    const db = await withTable({ id: 'INTEGER PRIMARY KEY', a: 'INTEGER' });
    const rowids: (number | bigint)[] = [];
    for (let i = 1; i <= 20; i++) {
      for (let k = 0; k < 50; k++) db.set(`k${i}-${k}`, k);
      const [rowid, count] = await Promise.all([
        db.asqlInsert('t', { a: i }),
        db.asqlUpdate('t', { a: 0 }, { where: 'a < 0' }),
      ]);
      expect(count).toBe(0);
      rowids.push(rowid);
    }
    expect(rowids).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
    expect(await db.agetLastInsertRowid()).toBe(20);
    db.set('another', 1);
    await db.aflush();
    await db.aexecute('UPDATE t SET a = 1');
    expect(await db.agetLastInsertRowid()).toBe(20);
    expect((await db.aexecute('INSERT INTO t (id) VALUES (70)')).lastInsertRowid).toBe(70);
    expect(await db.agetLastInsertRowid()).toBe(70);
  });
});

describe('aupsert', () => {
  test('changes the columns that are given, by the conflict columns or any unique constraint', async () => {
    const db = await withTable({ id: 'INTEGER PRIMARY KEY', mail: 'TEXT UNIQUE', name: 'TEXT' });
    expect(await db.aupsert('t', { id: 5, mail: 'a', name: 'n' }, { conflictColumns: ['id'] })).toBe(5);
    expect(await db.aupsert('t', { mail: 'a', name: 'm' }, { conflictColumns: ['MAIL'] })).toBe(5);
    expect(await db.aupsert('t', { id: 5, mail: 'b' })).toBe(5);
    expect(await db.aexportTable('t')).toEqual([{ id: 5, mail: 'b', name: 'm' }]);
    // Nothing but what it conflicts in: there is nothing to change.
    expect(await db.aupsert('t', { id: 5 }, { conflictColumns: ['id'] })).toBe(0);
    expect(await db.aupsert('t', { id: 6 }, { conflictColumns: ['id'] })).toBe(6);
    expect(await codeFrom(() => db.aupsert('t', { id: 7 }, { conflictColumns: ['name'] }))).toBe(
      'SLUICE_INVALID_VALUE',
    );
    expect(await codeFrom(() => db.aupsert('t', { id: 7, name: 'x' }, { conflictColumns: ['name'] }))).toBe(
      'SLUICE_STORE',
    );
    expect(await codeFrom(() => db.aupsert('t', { id: 7 }, { conflictColumns: [] }))).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.aupsert('t', {}))).toBe('SLUICE_INVALID_VALUE');
  });

  test('1.16-29: no name decides whether keys or rows are meant', async () => {
    const db = await openTemp('data.db', MANUAL);
    await db.acreateTable('users', { id: 'INTEGER PRIMARY KEY' });
    // The key of a table is a key, though there is a table of this name, and the value is an object.
    await db.table('other').aupsert('users', { id: 1 });
    await db.table('other').aupsert('data', { id: 2 });
    expect(db.table('other').toDict()).toEqual({ data: { id: 2 }, users: { id: 1 } });
    expect(await db.acount('users')).toBe(0);
    // Of the database it is a table, and where there is none, an error and no key.
    await db.aupsert('users', { id: 3 });
    expect(await db.aexportTable('users')).toEqual([{ id: 3 }]);
    expect(await codeFrom(() => db.aupsert('user', { id: 4 }))).toBe('SLUICE_STORE');
    expect(db.size).toBe(0);
  });
});

describe('many rows', () => {
  test('aexecuteMany is all of it or nothing', async () => {
    const db = await withTable({ id: 'INTEGER PRIMARY KEY', a: 'TEXT UNIQUE' });
    const sets = Array.from({ length: 1_000 }, (_, i) => [i, `a${i}`]);
    expect(await db.aexecuteMany('INSERT INTO t VALUES (?, ?)', sets)).toEqual({
      changes: 1_000,
      lastInsertRowid: 999,
    });
    expect(
      await db.aexecuteMany('UPDATE t SET a = :a WHERE id = :id', [
        { id: 1, a: 'x' },
        { id: 2, a: 'y' },
      ]),
    ).toMatchObject({ changes: 2 });
    const bad = [
      [2_000, 'z'],
      [2_001, 'z'],
    ];
    expect(await refusal(() => db.aexecuteMany('INSERT INTO t VALUES (?, ?)', bad))).toMatchObject({
      code: 'SLUICE_STORE',
      sqliteCode: 'SQLITE_CONSTRAINT_UNIQUE',
    });
    expect(await codeFrom(() => db.aexecuteMany('INSERT OR ROLLBACK INTO t VALUES (?, ?)', bad))).toBe('SLUICE_STORE');
    expect(await codeFrom(() => db.aexecuteMany('INSERT INTO t VALUES (?, ?)', [[3_000, 'w'], [1]]))).toBe(
      'SLUICE_STORE',
    );
    expect(
      await codeFrom(() =>
        db.aexecuteMany('INSERT INTO t VALUES (?, ?)', [
          [3_000, 'w'],
          [1, Number.NaN],
        ]),
      ),
    ).toBe('SLUICE_INVALID_VALUE');
    expect(await codeFrom(() => db.aexecuteMany('COMMIT', [[]]))).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.aexecuteMany('DELETE FROM t; DELETE FROM t', [[]]))).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.aexecuteMany('DELETE FROM t', 5 as never))).toBe('SLUICE_INVALID_VALUE');
    expect(await db.aexecuteMany('DELETE FROM t', [])).toMatchObject({ changes: 0 });
    expect(await db.acount('t')).toBe(1_000);
    // The writer is as it was.
    db.set('k', 1);
    expect(await db.aflush()).toMatchObject({ applied: 1 });
  });

  test('1.16-28: an import takes the columns of all rows, and refuses those that the table has not', async () => {
    const db = await withTable({ id: 'INTEGER PRIMARY KEY', name: "TEXT DEFAULT 'none'", age: 'INTEGER' });
    expect(await db.aimportRows('t', [{ id: 1 }, { ID: 2, name: 'b' }, { age: 3, id: 3, name: undefined }])).toBe(3);
    const rows = [
      { id: 1, name: null, age: null },
      { id: 2, name: 'b', age: null },
      { id: 3, name: null, age: 3 },
    ];
    expect(await db.aexportTable('t')).toEqual(rows);
    const error = await refusal(() => db.aimportRows('t', [{ id: 4 }, { id: 5, nmae: 'x' }]));
    expect([error.code, error.message]).toEqual(['SLUICE_INVALID_VALUE', expect.stringContaining("no column 'nmae'")]);
    expect(await codeFrom(() => db.aimportRows('t', [{ id: 4, ID: 5 }]))).toBe('SLUICE_INVALID_VALUE');
    expect(await codeFrom(() => db.aimportRows('t', [{ id: 4 }, null as never]))).toBe('SLUICE_INVALID_VALUE');
    expect(await codeFrom(() => db.aimportRows('t', [{}]))).toBe('SLUICE_INVALID_VALUE');
    expect(await codeFrom(() => db.aimportRows('none', [{ a: 1 }]))).toBe('SLUICE_NOT_FOUND');
    expect(await codeFrom(() => db.aimportRows('t', [{ id: 4 }, { id: 1 }]))).toBe('SLUICE_STORE');
    expect(await db.aexportTable('t')).toEqual(rows);
    expect(await db.aimportRows('t', [])).toBe(0);
    const copied = await db.aexportTable('t');
    await db.acreateTable('u', { id: 'INTEGER PRIMARY KEY', name: 'TEXT', age: 'INTEGER' });
    expect(await db.aimportRows('u', copied)).toBe(3);
    expect(await db.aexportTable('u')).toEqual(rows);
  });

  test('what an export has, an import takes: infinities, too', async () => {
    const db = await withTable({ id: 'INTEGER PRIMARY KEY', a: 'ANY' });
    await db.aexecute(
      "INSERT INTO t (a) VALUES (9e999), (-9e999), (1.5), (x'00'), ('x'), (NULL), (9223372036854775807)",
    );
    const rows = await db.aexportTable<{ a: unknown }>('t');
    expect(rows.map(({ a }) => a).slice(0, 2)).toEqual([Infinity, -Infinity]);
    await db.acreateTable('u', { id: 'INTEGER PRIMARY KEY', a: 'ANY' });
    expect(await db.aimportRows('u', rows)).toBe(rows.length);
    expect(await db.aexportTable('u')).toEqual(rows);
    // Elsewhere one that is written is likelier to be a slip. What the message says helps.
    const slip = await refusal(() => db.asqlInsert('t', { a: Infinity }));
    expect([slip.code, slip.message]).toEqual(['SLUICE_INVALID_VALUE', expect.stringContaining('9e999')]);
    expect(await codeFrom(() => db.aimportRows('t', [{ a: Number.NaN }]))).toBe('SLUICE_INVALID_VALUE');
  });

  test('an import with unique keys changes the rows that are there', async () => {
    const db = await withTable({ a: 'INTEGER', b: 'INTEGER', c: 'TEXT' });
    await db.acreateIndex('ab', 't', ['a', 'b'], { unique: true });
    const uniqueKeys = ['a', 'b'];
    expect(
      await db.aimportRows(
        't',
        [
          { a: 1, b: 1, c: 'x' },
          { a: 1, b: 2, c: 'y' },
        ],
        { uniqueKeys },
      ),
    ).toBe(2);
    expect(
      await db.aimportRows(
        't',
        [
          { a: 1, b: 2, c: 'z' },
          { a: 2, b: 2 },
        ],
        { uniqueKeys },
      ),
    ).toBe(2);
    expect(await db.aexportTable('t')).toEqual([
      { a: 1, b: 1, c: 'x' },
      { a: 1, b: 2, c: 'z' },
      { a: 2, b: 2, c: null },
    ]);
    expect(await db.aimportRows('t', [{ a: 1, b: 1 }], { uniqueKeys })).toBe(1);
    expect(await db.acount('t')).toBe(3);
    expect(await codeFrom(() => db.aimportRows('t', [{ a: 1 }], { uniqueKeys }))).toBe('SLUICE_INVALID_VALUE');
  });
});

test('statements come after what was accepted before them, and before what comes after', async () => {
  const db = await openTemp('data.db', MANUAL);
  const rows = db.rows('r', { columns: { n: 'integer' } });
  rows.append({ n: 1 });
  db.stage('INSERT INTO r VALUES (?)', [2]);
  expect(await db.asqlUpdate('r', { n: 10 }, { where: 'n < 10' })).toBe(2);
  rows.append({ n: 3 });
  expect(await db.asqlDelete('r', { where: 'n = 3' })).toBe(1);
  rows.append({ n: 4 });
  expect(await db.aimportRows('r', [{ n: 5 }])).toBe(1);
  expect((await db.aexportTable('r')).map(({ n }) => n)).toEqual([10, 10, 4, 5]);
  db.set('k', 1);
  expect(await db.asqlUpdate('data', { value: '2' }, { where: 'key = ?', parameters: ['k'] })).toBe(1);
  expect(db.get('k')).toBe(2);
});

test('what they change, constraints see', async () => {
  const db = await openTemp();
  db.addHook(new UniqueHook((_, value) => value));
  db.set('a', 'x');
  expect(await codeFrom(() => db.set('b', 'x'))).toBe('SLUICE_VALIDATION');
  await db.asqlDelete('data', { where: 'key = ?', parameters: ['a'] });
  db.set('b', 'x');
  await db.aimportRows('data', [{ key: 'c', value: '"y"' }]);
  expect(await codeFrom(() => db.set('d', 'y'))).toBe('SLUICE_VALIDATION');
  await db.aexecuteMany('DELETE FROM data WHERE key = ?', [['c']]);
  db.set('d', 'y');
});

test('what they change, caches forget', async () => {
  const db = await openTemp('data.db', { cache: 'unbounded' });
  const cached = async (value: unknown) => {
    db.set('a', value);
    await db.aflush();
    expect([db.get('a'), db.isCached('a')]).toEqual([value, true]);
  };
  await cached(1);
  await db.asqlUpdate('data', { value: '2' }, { where: "key = 'a'" });
  expect(db.get('a')).toBe(2);
  await cached(3);
  await db.aimportRows('data', [{ key: 'a', value: '4' }], { uniqueKeys: ['key'] });
  expect(db.get('a')).toBe(4);
  await cached(5);
  await db.aexecuteMany('UPDATE data SET value = ?', [['6'], ['7']]);
  expect(db.get('a')).toBe(7);
  await cached(8);
  await db.aupsert('data', { key: 'a', value: '9' }, { conflictColumns: ['key'] });
  expect(db.get('a')).toBe(9);
  await cached(10);
  await db.adropTable('data');
  expect([db.get('a'), db.has('a'), db.size]).toEqual([undefined, false, 0]);
  await cached(11);
});

test('they wait no longer than they are told to', async () => {
  const db = await openTemp('data.db', MANUAL);
  await db.acreateTable('t', { a: 'INTEGER' });
  const aborted = AbortSignal.abort();
  db.set('k', 1);
  const calls = [
    () => db.aquery('t', { signal: aborted }),
    () => db.aqueryWithPagination('t', { signal: aborted }),
    () => db.acount('t', { signal: aborted }),
    () => db.aexists('t', { signal: aborted }),
    () => db.asqlInsert('t', { a: 1 }, { signal: aborted }),
    () => db.asqlUpdate('t', { a: 1 }, { all: true, signal: aborted }),
    () => db.asqlDelete('t', { all: true, signal: aborted }),
    () => db.aupsert('t', { a: 1 }, { signal: aborted }),
    () => db.aexecuteMany('INSERT INTO t VALUES (?)', [[1]], { signal: aborted }),
    () => db.aimportRows('t', [{ a: 1 }], { signal: aborted }),
    () => db.aexportTable('t', { signal: aborted }),
    () => db.acreateTable('u', { a: 'TEXT' }, { signal: aborted }),
    () => db.adropTable('t', { signal: aborted }),
    () => db.aalterTableAddColumn('t', 'b', 'TEXT', { signal: aborted }),
    () => db.acreateIndex('i', 't', 'a', { signal: aborted }),
    () => db.adropIndex('i', { signal: aborted }),
    () => db.alistTables({ signal: aborted }),
    () => db.alistIndexes(undefined, { signal: aborted }),
    () => db.agetTableSchema('t', { signal: aborted }),
    () => db.atableExists('t', { signal: aborted }),
    () => db.avacuum({ signal: aborted }),
    () => db.agetDbSize({ signal: aborted }),
  ];
  for (const call of calls) {
    expect(await codeFrom(call), String(call)).toBe('SLUICE_ABORTED');
    db.set('k', 1);
  }
  const endless = 'WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT i FROM c';
  await db.aexecute(`CREATE VIEW endless AS ${endless}`);
  expect(await codeFrom(() => db.aquery('endless', { timeoutMs: 100 }))).toBe('SLUICE_TIMEOUT');
  expect(await db.acount('t')).toBe(0);
});
