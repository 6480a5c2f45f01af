import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { open, type Schema, type SqlRow } from 'sluicedb';
import { expect, test } from 'vitest';
import { codeFrom, refusal } from '../support/eventually.ts';
import { openTemp } from '../support/open-temp.ts';
import { tempDir } from '../support/temp-dir.ts';

const MANUAL = { flush: { mode: 'manual' } } as const;
const opened = () => open(join(tempDir(), 'a.db'), MANUAL);

test('[fault 13] a row is stored with the types that the values have', async () => {
  const db = await opened();
  const rows = db.rows('r', {
    columns: { i: 'integer', r: 'real', t: 'text', b: 'blob', a: 'any', d: 'integer', o: 'text', big: 'integer' },
  });
  rows.append({
    i: true,
    r: 1.5,
    t: 'text ü',
    b: Uint8Array.of(1, 2),
    a: null,
    d: new Date(1_700_000_000_123),
    o: { x: [1] },
    big: 2n ** 63n - 1n,
  });
  rows.append({ i: 2 ** 53, r: 3, big: -(2n ** 63n), a: 5, o: [] });
  const found = await db.afetchAll(
    'SELECT *, typeof(i) AS ti, typeof(r) AS tr, typeof(a) AS ta, typeof(b) AS tb FROM r',
  );
  expect(found).toEqual([
    {
      i: 1,
      r: 1.5,
      t: 'text ü',
      b: Uint8Array.of(1, 2),
      a: null,
      d: 1_700_000_000_123,
      o: '{"x":[1]}',
      big: 2n ** 63n - 1n,
      ti: 'integer',
      tr: 'real',
      ta: 'null',
      tb: 'blob',
    },
    {
      i: BigInt(2 ** 53),
      r: 3,
      t: null,
      b: null,
      a: 5,
      d: null,
      o: '[]',
      big: -(2n ** 63n),
      ti: 'integer',
      tr: 'real',
      ta: 'integer',
      tb: 'null',
    },
  ]);
  await db.close();
});

test('what a row leaves out takes its default', async () => {
  const db = await opened();
  await db.aexecute("CREATE TABLE r (id INTEGER PRIMARY KEY, a TEXT DEFAULT 'none', b INTEGER DEFAULT 7)");
  const rows = db.rows('r');
  rows.append({ a: 'x' });
  rows.append({ a: undefined, b: 1 });
  rows.append({ b: null });
  expect(await db.afetchAll('SELECT * FROM r')).toEqual([
    { id: 1, a: 'x', b: 7 },
    { id: 2, a: 'none', b: 1 },
    { id: 3, a: 'none', b: null },
  ]);
  await db.close();
});

test('[fault 13] a row that cannot be stored is refused whole, before it is accepted', async () => {
  const db = await opened();
  const rows = db.rows<Record<string, unknown>>('r', { columns: { a: 'any', b: 'any' } });
  await db.aflush();
  const { accepted } = db.stats();
  const bad: unknown[] = [
    { a: Number.NaN },
    { a: Number.POSITIVE_INFINITY },
    { a: 2n ** 63n },
    { a: Symbol('s') },
    { a: () => 1 },
    { a: '\ud800' },
    { a: new Date(Number.NaN) },
    { a: new Map() },
    { a: { b: undefined } },
    { a: 1, unknown: 1 },
    {},
    { a: undefined },
    [1],
    null,
    5,
  ];
  for (const row of bad) {
    expect(await codeFrom(() => rows.append(row as never))).toBe('SLUICE_INVALID_VALUE');
    expect(await codeFrom(() => rows.aappend(row as never))).toBe('SLUICE_INVALID_VALUE');
    expect(await codeFrom(() => rows.appendMany([{ a: 1 }, row as never]))).toBe('SLUICE_INVALID_VALUE');
    expect(await codeFrom(() => rows.aappendMany([{ a: 1 }, row as never]))).toBe('SLUICE_INVALID_VALUE');
  }
  expect((await refusal(() => rows.append({ a: 1, unknown: 1 }))).message).toContain("no column 'unknown'");
  expect(db.stats().accepted).toBe(accepted);
  await db.close();
});

test("onNewColumn: 'add' adds columns, in the order of writes, and makes the table", async () => {
  const db = await opened();
  const rows = db.rows<Record<string, unknown>>('r', { onNewColumn: 'add' });
  rows.append({ a: 1 });
  rows.append({ a: 2, 'b "quoted"': 'x' });
  rows.append({ A: 3, c: 1.5, d: new Date(5) });
  expect(await db.afetchAll('SELECT * FROM r')).toEqual([
    { a: 1, 'b "quoted"': null, c: null, d: null },
    { a: 2, 'b "quoted"': 'x', c: null, d: null },
    { a: 3, 'b "quoted"': null, c: 1.5, d: 5 },
  ]);
  expect((await db.afetchAll("SELECT type FROM pragma_table_info('r')")).map(({ type }) => type)).toEqual([
    'INTEGER',
    'TEXT',
    'REAL',
    'INTEGER',
  ]);
  expect(await codeFrom(() => rows.append({ sqlite_x: 1 }))).toBe('SLUICE_INVALID_OPTION');
  await db.close();
});

test('columns that do not fit are refused at the call', async () => {
  const db = await opened();
  await db.aexecute('CREATE TABLE r (a)');
  expect(await codeFrom(() => db.rows('r', { columns: { a: 'any', b: 'any' } }))).toBe('SLUICE_INVALID_OPTION');
  expect(await codeFrom(() => db.rows('none'))).toBe('SLUICE_NOT_FOUND');
  expect(await codeFrom(() => db.rows('x', { columns: {} }))).toBe('SLUICE_INVALID_OPTION');
  expect(await codeFrom(() => db.rows('x', { columns: { a: 'varchar' as never } }))).toBe('SLUICE_INVALID_OPTION');
  expect(await codeFrom(() => db.rows('x', { columns: { a: 'any', A: 'any' } }))).toBe('SLUICE_INVALID_OPTION');
  expect((await refusal(() => db.rows('x', { colums: {} } as never))).message).toContain("did you mean 'columns'");
  db.rows('r', { columns: { a: 'any', b: 'any' }, onNewColumn: 'add' }).append({ a: 1, b: 2 });
  expect(await db.afetchAll('SELECT * FROM r')).toEqual([{ a: 1, b: 2 }]);
  await db.close();
});

test('a schema is asked about each row, and its issues come back', async () => {
  const db = await opened();
  interface Reading {
    room: string;
    celsius: number;
  }
  const schema: Schema<Reading> = {
    '~standard': {
      version: 1,
      vendor: 'by hand',
      validate(value) {
        const { celsius } = value as Reading;
        if (celsius > -273.15) return { value: value as Reading };
        return { issues: [{ message: 'is too cold', path: [{ key: 'celsius' }] }, { message: 'and odd' }] };
      },
    },
  };
  const rows = db.rows<Reading>('r', { columns: { room: 'text', celsius: 'real' }, schema });
  rows.append({ room: 'a', celsius: 20 });
  const error = await refusal(() => rows.append({ room: 'b', celsius: -300 }));
  expect(error).toMatchObject({ code: 'SLUICE_VALIDATION', problems: ['celsius: is too cold', 'and odd'] });
  expect(
    await codeFrom(() =>
      rows.appendMany([
        { room: 'c', celsius: 1 },
        { room: 'd', celsius: -300 },
      ]),
    ),
  ).toBe('SLUICE_VALIDATION');
  expect(await db.afetchAll('SELECT room FROM r')).toEqual([{ room: 'a' }]);
  const later = {
    '~standard': { version: 1, vendor: 'x', validate: () => Promise.reject(new Error('late')) },
  } as const;
  const slow = db.rows('r', { schema: later as unknown as Schema<Record<string, unknown>> });
  expect(await codeFrom(() => slow.append({ room: 'e' }))).toBe('SLUICE_UNSUPPORTED');
  expect(await codeFrom(() => db.rows('r', { schema: {} as never }))).toBe('SLUICE_INVALID_OPTION');
  await db.close();
});

test('rows can be piped in, with back-pressure, and a bad row ends the stream', async () => {
  const db = await open(join(tempDir(), 'a.db'), { flush: { mode: 'immediate' }, staging: { maxEntries: 100 } });
  const rows = db.rows<{ n: number }>('r', { columns: { n: 'integer' } });
  const count = 5_000;
  await pipeline(
    Readable.from(
      (function* () {
        for (let n = 0; n < count; n++) yield { n };
      })(),
    ),
    rows.writable(),
  );
  expect(await db.afetchOne('SELECT count(*) AS n, count(DISTINCT n) AS d FROM r')).toEqual({ n: count, d: count });
  const bad = pipeline(Readable.from([{ n: 1 }, { n: Number.NaN }]), rows.writable());
  await expect(bad).rejects.toMatchObject({ code: 'SLUICE_INVALID_VALUE' });
  await db.close();
});

test('stage takes DML only, one statement, and never a table of Sluice', async () => {
  const db = await opened();
  await db.aexecute('CREATE TABLE t (a, b)');
  const { accepted } = db.stats();
  const refused = [
    '',
    ' -- nothing\n',
    'SELECT 1',
    'CREATE TABLE x (a)',
    'DROP TABLE t',
    'ALTER TABLE t ADD COLUMN c',
    'PRAGMA journal_mode = DELETE',
    '/* INSERT */ PRAGMA synchronous = OFF',
    'BEGIN',
    'COMMIT',
    '-- INSERT\nROLLBACK',
    'SAVEPOINT s',
    "ATTACH 'x' AS y",
    'VACUUM',
    'EXPLAIN INSERT INTO t VALUES (1, 2)',
    'WITH c AS (SELECT 1) SELECT * FROM c',
    "WITH c AS (SELECT 1) SELECT replace('a', 'b', 'c') FROM c",
    'INSERT INTO t VALUES (1, 2); INSERT INTO t VALUES (3, 4)',
    'INSERT INTO t VALUES (1, 2);; -- more\n DELETE FROM t',
    'DELETE FROM _sluice_state',
    'DELETE FROM main._sluice_state',
    'DELETE FROM "_sluice_state"',
    'DELETE FROM main."_SLUICE_state"',
    'DELETE FROM [_sluice_dead_letters]',
    'DELETE FROM `_sluice_dead_letters`',
    "DELETE FROM '_sluice_state'",
    'DELETE /* */ FROM /* " */ _Sluice_State',
    "DELETE -- '\n FROM _sluice_state",
    "INSERT INTO t SELECT '''', owner FROM _sluice_state",
    'INSERT INTO t VALUES (1, 2)\0',
  ];
  for (const sql of refused) {
    expect(await codeFrom(() => db.stage(sql)), sql).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.astage(sql)), sql).toBe('SLUICE_INVALID_SQL');
  }
  expect(await codeFrom(() => db.stage(5 as never))).toBe('SLUICE_INVALID_SQL');
  expect(await codeFrom(() => db.stage('DELETE FROM t WHERE a = :a', { a: 1 } as never))).toBe('SLUICE_INVALID_VALUE');
  expect(await codeFrom(() => db.stage('DELETE FROM t WHERE a = ?', [Number.NaN]))).toBe('SLUICE_INVALID_VALUE');
  expect(db.stats().accepted).toBe(accepted);

  db.stage('INSERT INTO t VALUES (?, ?);', [1, { json: true }]);
  db.stage("insert or replace into t values (2, ';_x'), (3, '--')");
  await db.astage('WITH c(x) AS (SELECT 4) INSERT INTO t SELECT x, NULL FROM c');
  db.stage("/* first */ UPDATE t SET b = 'u' WHERE a = 3 -- last");
  db.stage('DELETE FROM t WHERE a = 2 RETURNING *');
  db.stage('REPLACE INTO t VALUES (?, ?)', [5, 2n ** 60n]);
  expect(await db.aflush()).toMatchObject({ applied: 6, dead: 0 });
  expect(await db.afetchAll('SELECT * FROM t ORDER BY a')).toEqual([
    { a: 1, b: '{"json":true}' },
    { a: 3, b: 'u' },
    { a: 4, b: null },
    { a: 5, b: 2n ** 60n },
  ]);
  await db.close();
});

test('staged SQL keeps its place among the other writes', async () => {
  const db = await opened();
  db.set('a', 1);
  await db.aflush();
  db.set('a', 2);
  db.stage("UPDATE data SET value = value || '0' WHERE key = 'a'");
  db.set('b', 1);
  db.stage("UPDATE data SET value = '9' WHERE key = 'b'");
  db.set('b', 2);
  await db.aflush();
  expect([db.get('a'), db.get('b')]).toEqual([20, 2]);
  await db.close();
});

test('aexecute and the fetches take lists and names, and integers of any size', async () => {
  const db = await opened();
  const big = 2n ** 62n + 1n;
  expect(await db.aexecute('CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)')).toMatchObject({ rows: [], changes: 0 });
  expect(await db.aexecute('INSERT INTO t (a, b) VALUES (?, ?), (?, ?)', [1, 'x', big, null])).toEqual({
    rows: [],
    changes: 2,
    lastInsertRowid: 2,
  });
  expect(
    await db.aexecute('INSERT INTO t (a, b) VALUES (:a, @b) RETURNING id, a', { a: true, b: new Date(7) }),
  ).toEqual({
    rows: [{ id: 3, a: 1 }],
    changes: 1,
    lastInsertRowid: 3,
  });
  await db.aexecute('INSERT INTO t (id, a) VALUES ($id, $a)', { id: 2n ** 62n, a: 0.5 });
  expect(await db.afetchAll('SELECT * FROM t WHERE id < ? ORDER BY id', [100])).toEqual([
    { id: 1, a: 1, b: 'x' },
    { id: 2, a: big, b: null },
    { id: 3, a: 1, b: 7 },
  ]);
  expect(await db.afetchOne('SELECT id, a FROM t WHERE id = :id', { id: 2n ** 62n })).toEqual({
    id: 2n ** 62n,
    a: 0.5,
  });
  expect(await db.afetchOne('SELECT 1 WHERE 0')).toBeUndefined();
  expect(await db.afetchAll('SELECT id FROM t', [], { maxRows: 2 })).toHaveLength(2);
  expect(await db.afetchOne('SELECT typeof(?) AS a, typeof(?) AS b', [1, 1.5])).toEqual({ a: 'integer', b: 'real' });
  await db.close();
});

test('direct statements are refused with codes, and change nothing', async () => {
  const db = await opened();
  await db.aexecute('CREATE TABLE t (a INTEGER UNIQUE)');
  await db.aexecute('INSERT INTO t VALUES (1)');
  const invalid = ['', 'BEGIN', ' /* */ COMMIT', 'PRAGMA user_version = 5', 'SELECT 1; SELECT 2'];
  for (const sql of invalid) {
    expect(await codeFrom(() => db.aexecute(sql)), sql).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.afetchAll(sql)), sql).toBe('SLUICE_INVALID_SQL');
  }
  expect(await codeFrom(() => db.aexecute('DROP TABLE _sluice_state'))).toBe('SLUICE_INVALID_SQL');
  expect(await db.afetchOne('SELECT count(*) AS n FROM _sluice_dead_letters')).toEqual({ n: 0 });
  expect(await codeFrom(() => db.afetchAll('DELETE FROM t'))).toBe('SLUICE_INVALID_SQL');
  expect(await codeFrom(() => db.afetchAll('DELETE FROM t RETURNING *'))).toBe('SLUICE_STORE');
  expect(await refusal(() => db.aexecute('INSERT INTO t VALUES (1)'))).toMatchObject({
    code: 'SLUICE_STORE',
    sqliteCode: 'SQLITE_CONSTRAINT_UNIQUE',
  });
  expect(await refusal(() => db.aexecute('INSERT OR ROLLBACK INTO t VALUES (1)'))).toMatchObject({
    code: 'SLUICE_STORE',
  });
  expect(await refusal(() => db.aexecute('SELECT * FROM none'))).toMatchObject({
    code: 'SLUICE_STORE',
    sqliteCode: 'SQLITE_ERROR',
  });
  expect(await refusal(() => db.afetchAll('SELECT * FROM none'))).toMatchObject({
    code: 'SLUICE_STORE',
    sqliteCode: 'SQLITE_ERROR',
  });
  expect(await codeFrom(() => db.aexecute('INSERT INTO t VALUES (?)', []))).toBe('SLUICE_STORE');
  expect(await codeFrom(() => db.aexecute('SELECT :a', { b: 1 }))).toBe('SLUICE_STORE');
  expect(await codeFrom(() => db.aexecute('SELECT ?', [2n ** 64n]))).toBe('SLUICE_INVALID_VALUE');
  expect(await codeFrom(() => db.aexecute('SELECT ?', 5 as never))).toBe('SLUICE_INVALID_VALUE');
  for (const maxRows of [0, -1, 1.5, '2' as never]) {
    expect(await codeFrom(() => db.afetchAll('SELECT 1', [], { maxRows }))).toBe('SLUICE_INVALID_OPTION');
  }
  expect(await codeFrom(() => db.afetchAll('SELECT 1', [], { stale: true, timeoutMs: 0 }))).toBe(
    'SLUICE_INVALID_OPTION',
  );
  const endless = 'WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT i FROM c';
  expect(await codeFrom(() => db.afetchAll(endless, [], { timeoutMs: 50 }))).toBe('SLUICE_TIMEOUT');
  expect(await db.afetchAll('SELECT a FROM t')).toEqual([{ a: 1 }]);
  expect(db.state).toBe('ok');
  await db.close();
});

test('what cannot be bound has the same code wherever it is run', async () => {
  const db = await opened();
  const page = async (sql: string, parameters: object) => {
    for await (const row of db.aiterate(sql, parameters as [])) return row;
    return undefined;
  };
  for (const [sql, parameters] of [
    ['SELECT ?', []],
    ['SELECT ?', [1, 2]],
    ['SELECT :a', { b: 1 }],
  ] as const) {
    for (const run of [
      () => db.aexecute(sql, parameters),
      () => db.afetchAll(sql, parameters),
      () => page(sql, parameters),
      () => db.atransaction((tx) => tx.afetchAll(sql, parameters), { sql: true }),
    ]) {
      expect(await refusal(run), sql).toMatchObject({ code: 'SLUICE_STORE', sqliteCode: 'BIND' });
    }
  }
});

test('VACUUM INTO is refused: its copy has the id of the database, and nobody has looked at it', async () => {
  const db = await openTemp();
  const copy = `${db.path}-copy`;
  for (const [sql, parameters] of [
    [`VACUUM INTO '${copy}'`, []],
    [`vacuum/**/"main" into '${copy}' -- all of it`, []],
    ['VACUUM main INTO ?', [copy]],
  ] as const) {
    const error = await refusal(() => db.aexecute(sql, parameters));
    expect([error.code, error.message], sql).toEqual(['SLUICE_INVALID_SQL', expect.stringContaining('abackup')]);
    expect(await codeFrom(() => db.aexecuteMany(sql, [parameters]))).toBe('SLUICE_INVALID_SQL');
  }
  expect(existsSync(copy)).toBe(false);
  await db.aexecute('VACUUM');
  await db.aexecute('VACUUM main');
});

test('nothing temporary takes the place of a table on the connection that writes', async () => {
  const db = await openTemp();
  db.set('a', 1);
  for (const statement of [
    'CREATE TEMP TABLE data (key TEXT PRIMARY KEY, value TEXT)',
    'create temporary view other AS SELECT 1',
    'CREATE /* x */ TEMP TRIGGER t AFTER INSERT ON data BEGIN SELECT RAISE(IGNORE); END',
    'CREATE TABLE temp.data (key TEXT PRIMARY KEY, value TEXT)',
    'CREATE TABLE IF NOT EXISTS "temp" . data (key TEXT PRIMARY KEY, value TEXT)',
    "CREATE VIEW 'Temp'.other AS SELECT 1",
    'CREATE VIRTUAL TABLE [temp].other USING fts5(a)',
    'CREATE TRIGGER IF NOT EXISTS temp.t AFTER INSERT ON data BEGIN SELECT RAISE(IGNORE); END',
    'CREATE UNIQUE INDEX temp.i ON data (value)',
  ]) {
    expect(await codeFrom(() => db.aexecute(statement)), statement).toBe('SLUICE_INVALID_SQL');
    const held = () => db.atransaction((tx) => tx.aexecute(statement), { sql: true });
    expect(await codeFrom(held), statement).toBe('SLUICE_INVALID_SQL');
  }
  // What only has such a name is none of it.
  await db.aexecute('CREATE TABLE main.temp (temp)');
  await db.aexecute('CREATE TABLE IF NOT EXISTS made AS SELECT temp.temp FROM temp');
  await db.aexecute('CREATE UNIQUE INDEX of_temp ON temp (temp)');
  await db.aexecute('CREATE TRIGGER after_temp AFTER INSERT ON temp BEGIN SELECT temp.temp FROM temp; END');
  expect(await db.afetchAll("SELECT name FROM sqlite_temp_schema WHERE type = 'table'")).toEqual([]);
});

test('a column named as something that every object inherits is empty where the row does not have it', async () => {
  const db = await opened();
  const columns = { a: 'integer', constructor: 'text', toString: 'text' } as const;
  const rows = db.rows('r', { columns });
  rows.append({ a: 1 });
  rows.append({ a: 2, constructor: 'x', toString: 'y' });
  expect(await db.afetchAll('SELECT a, constructor AS c, toString AS s FROM r')).toEqual([
    { a: 1, c: null, s: null },
    { a: 2, c: 'x', s: 'y' },
  ]);
  await db.close();
});

test('a column named __proto__ is in a row as any other, whichever way it is read', async () => {
  const db = await openTemp();
  await db.acreateTable(
    't',
    Object.fromEntries([
      ['a', 'INTEGER'],
      ['__proto__', 'ANY'],
    ]),
  );
  await db.aimportRows('t', [
    Object.fromEntries([
      ['a', 1],
      ['__proto__', 2n ** 60n],
    ]),
  ]);
  const sql = 'SELECT * FROM t';
  const iterated: SqlRow[] = [];
  for await (const row of db.aiterate(sql)) iterated.push(row);
  const exported = await db.aexportTable('t');
  const ways: readonly SqlRow[][] = [
    iterated,
    exported,
    await db.afetchAll(sql),
    await db.aquery('t'),
    (await db.aexecute('UPDATE t SET a = a RETURNING *')).rows,
    await db.atransaction((tx) => tx.afetchAll(sql), { sql: true }),
  ];
  for (const [row = {}] of ways) {
    expect(Object.entries(row)).toEqual([
      ['a', 1],
      ['__proto__', 2n ** 60n],
    ]);
    expect(Object.getPrototypeOf(row)).toBe(Object.prototype);
  }
  expect(await db.aimportRows('t', exported)).toBe(1);
  expect(await db.afetchOne('SELECT count(DISTINCT "__proto__") AS n, count(*) AS rows FROM t')).toEqual({
    n: 1,
    rows: 2,
  });
});

test('a row has the columns of the table as it is when it is read', async () => {
  const db = await openTemp('data.db', { readers: 1 });
  await db.acreateTable('t', { a: 'INTEGER' });
  await db.asqlInsert('t', { a: 1 });
  expect(await db.aexportTable('t')).toEqual([{ a: 1 }]);
  await db.aalterTableAddColumn('t', 'b', 'INTEGER', { default: 7 });
  expect(await db.aexportTable('t')).toEqual([{ a: 1, b: 7 }]);
});
