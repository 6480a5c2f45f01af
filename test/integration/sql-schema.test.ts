import { describe, expect, test } from 'vitest';
import { codeFrom, refusal } from '../support/eventually.ts';
import { openTemp } from '../support/open-temp.ts';

const MANUAL = { flush: { mode: 'manual' } } as const;

describe('acreateTable', () => {
  test('1.16-30: types take defaults of any kind, and constraints', async () => {
    const db = await openTemp();
    await db.acreateTable('t', {
      id: 'INTEGER PRIMARY KEY AUTOINCREMENT',
      a: "TEXT NOT NULL DEFAULT 'x; -- it''s'",
      b: 'INTEGER DEFAULT -1',
      c: 'REAL DEFAULT (1 + 3 / 2.0)',
      d: "TEXT CHECK (d IN ('a', 'b')) COLLATE NOCASE",
      e: 'DECIMAL(10, 2)',
      f: 'TEXT GENERATED ALWAYS AS (upper(a)) VIRTUAL',
      g: "TEXT DEFAULT 'delete from t'",
      h: '',
      i: 'INTEGER REFERENCES t (id) ON DELETE SET NULL ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED',
      j: 'TEXT UNIQUE ON CONFLICT REPLACE',
    });
    await db.asqlInsert('t', { d: 'A' });
    expect(await db.aquery('t', { columns: ['a', 'b', 'c', 'd', 'f', 'g'] })).toEqual([
      { a: "x; -- it's", b: -1, c: 2.5, d: 'A', f: "X; -- IT'S", g: 'delete from t' },
    ]);
    expect((await refusal(() => db.asqlInsert('t', { d: 'c' }))).sqliteCode).toBe('SQLITE_CONSTRAINT_CHECK');
  });

  test('1.16-30: no type reaches beyond its column', async () => {
    const db = await openTemp();
    const bad = [
      'TEXT); DROP TABLE data; --',
      'TEXT, b TEXT',
      'TEXT) AS SELECT 1',
      'TEXT; DROP TABLE data',
      'TEXT -- x',
      'TEXT /* x */',
      "TEXT DEFAULT 'x",
      'TEXT DEFAULT (SELECT 1)',
      'TEXT DEFAULT ?',
      'TEXT REFERENCES _sluice_state (id)',
      '(',
      ')',
      'TEXT\0',
      5,
      null,
      'x'.repeat(10_001),
    ];
    for (const type of bad) {
      expect(await codeFrom(() => db.acreateTable('t', { a: type as string }))).toBe('SLUICE_INVALID_SQL');
      expect(await codeFrom(() => db.aalterTableAddColumn('t', 'a', type as string))).toBe('SLUICE_INVALID_SQL');
    }
    expect(await db.alistTables()).toEqual([]);
  });

  test('makes a primary key of one column or several, unless a type does', async () => {
    const db = await openTemp();
    await db.acreateTable('one', { a: 'TEXT', b: 'TEXT' }, { primaryKey: 'b' });
    await db.acreateTable('two', { a: 'TEXT', 'b"c': 'TEXT', d: 'TEXT' }, { primaryKey: ['a', 'b"c'] });
    await db.acreateTable(
      'own',
      { a: 'integer primary /**/ key'.replace('/**/ ', ''), b: 'TEXT' },
      { primaryKey: 'b' },
    );
    const keys = async (table: string) =>
      (await db.agetTableSchema(table)).filter(({ primaryKey }) => primaryKey).map(({ name }) => name);
    expect([await keys('one'), await keys('two'), await keys('own')]).toEqual([['b'], ['a', 'b"c'], ['a']]);
    await db.acreateTable('ONE', { other: 'TEXT' });
    expect(await keys('one')).toEqual(['b']);
    expect(await codeFrom(() => db.acreateTable('one', { a: 'TEXT' }, { ifNotExists: false }))).toBe('SLUICE_STORE');
    expect(await codeFrom(() => db.acreateTable('x', {}))).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.acreateTable('x', ['a'] as never))).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.acreateTable('x', { a: 'TEXT' }, { primaryKeys: 'a' } as never))).toBe(
      'SLUICE_INVALID_OPTION',
    );
    expect(await codeFrom(() => db.acreateTable('x', { a: 'TEXT' }, { primaryKey: 5 as never }))).toBe(
      'SLUICE_INVALID_SQL',
    );
  });
});

test('aalterTableAddColumn takes any value as the default, and no SQL', async () => {
  const db = await openTemp();
  await db.acreateTable('t', { id: 'INTEGER' });
  await db.asqlInsert('t', { id: 1 });
  const values = {
    a: "'active'",
    b: "it's okay",
    c: -1,
    d: 1.5e300,
    e: null,
    f: true,
    g: 2n ** 62n,
    h: Uint8Array.of(1, 255),
    i: '',
    j: [1],
  };
  for (const [name, value] of Object.entries(values)) await db.aalterTableAddColumn('t', name, '', { default: value });
  await db.aalterTableAddColumn('t', 'k l', 'TEXT NOT NULL', { default: '); DROP TABLE t --' });
  expect(await db.aexportTable('t')).toEqual([{ id: 1, ...values, f: 1, j: '[1]', 'k l': '); DROP TABLE t --' }]);
  expect(await codeFrom(() => db.aalterTableAddColumn('t', 'x', '', { default: 'a\0b' }))).toBe('SLUICE_INVALID_VALUE');
  expect(await codeFrom(() => db.aalterTableAddColumn('t', 'x', '', { default: Number.NaN }))).toBe(
    'SLUICE_INVALID_VALUE',
  );
  expect(await codeFrom(() => db.aalterTableAddColumn('none', 'x'))).toBe('SLUICE_STORE');
  expect(await codeFrom(() => db.aalterTableAddColumn('t', 'id'))).toBe('SLUICE_STORE');
});

describe('looking', () => {
  test('alistTables and atableExists know the user’s tables, staged ones too, and no others', async () => {
    const db = await openTemp('data.db', MANUAL);
    await db.acreateTable('b', { id: 'INTEGER PRIMARY KEY AUTOINCREMENT' });
    db.set('k', 1);
    db.rows('sluice_a', { columns: { n: 'integer' } });
    db.table('ttl', { cache: { strategy: 'ttl', ttlMs: 60_000, persist: true } }).set('k', 1);
    await db.aexecute('CREATE VIEW v AS SELECT 1');
    expect(await db.alistTables()).toEqual(['b', 'data', 'sluice_a', 'ttl']);
    expect([await db.atableExists('B'), await db.atableExists('v'), await db.atableExists('none')]).toEqual([
      true,
      false,
      false,
    ]);
    expect(await codeFrom(() => db.atableExists('_sluice_state'))).toBe('SLUICE_INVALID_SQL');
  });

  test('1.16-32: alistIndexes has the columns of each index', async () => {
    const db = await openTemp();
    await db.acreateTable('t', { a: 'TEXT UNIQUE', 'b "c"': 'TEXT', d: 'TEXT' });
    await db.acreateTable('u', { a: 'TEXT' });
    await db.acreateIndex('z', 't', ['d', 'b "c"'], { unique: true });
    await db.acreateIndex('y', 'u', 'a');
    await db.aexecute('CREATE INDEX x ON u (lower(a), a)');
    const indexes = await db.alistIndexes();
    expect(indexes.map(({ sql, ...index }) => [index, sql.replaceAll(/\s+/g, ' ')])).toEqual([
      [{ name: 'x', table: 'u', unique: false, columns: [null, 'a'] }, 'CREATE INDEX x ON u (lower(a), a)'],
      [{ name: 'y', table: 'u', unique: false, columns: ['a'] }, 'CREATE INDEX "y" ON "u" ("a")'],
      [
        { name: 'z', table: 't', unique: true, columns: ['d', 'b "c"'] },
        'CREATE UNIQUE INDEX "z" ON "t" ("d", "b ""c""")',
      ],
    ]);
    expect((await db.alistIndexes('T')).map(({ name }) => name)).toEqual(['z']);
    await db.acreateIndex('z', 't', 'd');
    expect(await codeFrom(() => db.acreateIndex('z', 't', 'd', { ifNotExists: false }))).toBe('SLUICE_STORE');
    expect(await codeFrom(() => db.acreateIndex('i', 't', []))).toBe('SLUICE_INVALID_SQL');
    // A name in quotes that is no column is not taken for a text.
    expect(await codeFrom(() => db.acreateIndex('i', 't', 'd DESC'))).toBe('SLUICE_STORE');
    await db.adropIndex('z');
    await db.adropIndex('z');
    expect(await codeFrom(() => db.adropIndex('z', { ifExists: false }))).toBe('SLUICE_STORE');
    expect(await db.alistIndexes('t')).toEqual([]);
  });

  test('agetTableSchema has the columns as they were declared', async () => {
    const db = await openTemp();
    await db.aset('k', 1);
    expect(await db.agetTableSchema()).toEqual([
      { cid: 0, name: 'key', type: 'TEXT', notNull: false, defaultValue: null, primaryKey: true },
      { cid: 1, name: 'value', type: 'TEXT', notNull: false, defaultValue: null, primaryKey: false },
    ]);
    await db.acreateTable('t', { a: "varchar(5) NOT NULL DEFAULT 'x'" });
    expect(await db.agetTableSchema('t')).toEqual([
      { cid: 0, name: 'a', type: 'varchar(5)', notNull: true, defaultValue: "'x'", primaryKey: false },
    ]);
    expect(await db.agetTableSchema('none')).toEqual([]);
  });
});

describe('the file', () => {
  test('apragma reads and sets what is on its list, and no more', async () => {
    const db = await openTemp();
    expect(await db.apragma('user_version', 7)).toBe(7);
    expect(await db.apragma('USER_VERSION' as 'user_version')).toBe(7);
    expect(await db.apragma('foreign_keys')).toBe(1);
    expect(await db.apragma('recursive_triggers', false)).toBe(0);
    expect(await db.apragma('secure_delete', 'FAST')).toBe(2);
    expect(await db.apragma('cache_size', -1_000)).toBe(-1_000);
    expect(await db.apragma('application_id', -(2 ** 31))).toBe(-(2 ** 31));
    expect([await db.apragma('foreign_keys', 'off'), await db.apragma('foreign_keys', true)]).toEqual([0, 1]);
    expect([await db.apragma('temp_store', 'file'), await db.apragma('temp_store', 2)]).toEqual([1, 2]);
    expect(await db.apragma('auto_vacuum', 'Incremental')).toBe(0);
    expect([await db.apragma('synchronous'), await db.apragma('journal_mode'), await db.apragma('encoding')]).toEqual([
      2,
      'wal',
      'UTF-8',
    ]);
    await db.acreateTable('a "b"', { c: 'TEXT UNIQUE' });
    expect(await db.apragma('table_info', 'a "b"')).toMatchObject([{ cid: 0, name: 'c' }]);
    expect(await db.apragma('index_info', 'sqlite_autoindex_a "b"_1')).toMatchObject([{ name: 'c' }]);
    expect(await db.apragma('integrity_check')).toEqual([{ integrity_check: 'ok' }]);
    const refused: [string, unknown?][] = [
      ['synchronous', 0],
      ['journal_mode', 'DELETE'],
      ['locking_mode', 'EXCLUSIVE'],
      ['query_only', 1],
      ['busy_timeout', 10],
      ['wal_autocheckpoint', 1],
      ['schema_version', 5],
      ['wal_checkpoint'],
      ['writable_schema', 1],
      ['key', 'x'],
      ['user_version = 8; --'],
      ['user_version', '8; DROP TABLE data'],
      ['user_version', 1.5],
      ['user_version', null],
      ['user_version', 'abc'],
      ['user_version', true],
      ['user_version', 2 ** 31],
      ['application_id', 'off'],
      ['cache_size', 'abc'],
      ['cache_size', -(2 ** 31) - 1],
      ['foreign_keys', 'abc'],
      ['foreign_keys', 7],
      ['recursive_triggers', 'fast'],
      ['secure_delete', 'abc'],
      ['secure_delete', 2],
      ['temp_store', 'abc'],
      ['temp_store', 9],
      ['auto_vacuum', 'on'],
      ['auto_vacuum', 3],
      ['user_version', {}],
      ['table_info', 5],
      [''],
    ];
    const apragma = db.apragma.bind(db) as (name: string, value?: unknown) => Promise<unknown>;
    for (const [name, value] of refused)
      expect(await codeFrom(() => apragma(name, value)), name).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => apragma(5 as never))).toBe('SLUICE_INVALID_SQL');
    expect((await refusal(() => apragma('tabel_info'))).message).toContain("did you mean 'table_info'");
    expect(await db.apragma('user_version')).toBe(7);
  });

  test('avacuum gives room back, between two batches', async () => {
    const db = await openTemp();
    const text = 'x'.repeat(1_000);
    for (let i = 0; i < 1_000; i++) db.set(`k${i}`, text);
    const full = await db.agetDbSize();
    expect(full).toBeGreaterThan(1_000_000);
    db.clear();
    await db.avacuum();
    db.set('k', 1);
    expect(await db.agetDbSize()).toBeLessThan(full / 10);
    expect(db.get('k')).toBe(1);
  });
});

describe('a table that is in use', () => {
  test('by keys is not made anew by hand', async () => {
    const db = await openTemp('data.db', MANUAL);
    db.table('Other');
    for (const name of ['data', 'DATA', 'other']) {
      expect(await codeFrom(() => db.acreateTable(name, { a: 'TEXT' }))).toBe('SLUICE_INVALID_OPTION');
    }
    db.set('k', 1);
    expect(await db.aflush()).toMatchObject({ applied: 1 });
  });

  test('by keys can be dropped, and is there again with the next write, its expiries gone', async () => {
    const db = await openTemp('data.db', MANUAL);
    const table = db.table('ttl', { cache: { strategy: 'ttl', ttlMs: 60_000, persist: true } });
    table.set('a', 1);
    db.set('x', 1);
    await db.adropTable('ttl');
    await db.adropTable('data');
    expect([table.get('a'), table.size, db.get('x'), db.size]).toEqual([undefined, 0, undefined, 0]);
    expect(await db.afetchAll("SELECT name FROM sqlite_schema WHERE name LIKE '%ttl%'")).toEqual([]);
    table.set('b', 2);
    db.set('y', 2);
    expect(await db.aflush()).toMatchObject({ dead: 0 });
    expect([table.toDict(), db.toDict()]).toEqual([{ b: 2 }, { y: 2 }]);
    expect((await db.alistTables()).sort()).toEqual(['data', 'ttl']);
    expect(db.state).toBe('ok');
  });

  test('by rows refuses them once it is dropped, until it is there again', async () => {
    const db = await openTemp('data.db', MANUAL);
    const rows = db.rows<Record<string, unknown>>('r', { columns: { a: 'integer' } });
    const growing = db.rows<Record<string, unknown>>('r', { onNewColumn: 'add' });
    rows.append({ a: 1 });
    const dropped = db.adropTable('r');
    expect(await codeFrom(() => rows.append({ a: 2 }))).toBe('SLUICE_NOT_FOUND');
    await dropped;
    expect(await codeFrom(() => rows.append({ a: 2 }))).toBe('SLUICE_NOT_FOUND');
    expect(await codeFrom(() => db.rows('r'))).toBe('SLUICE_NOT_FOUND');
    await db.acreateTable('r', { a: 'INTEGER', b: 'TEXT' });
    rows.append({ a: 3, b: 'x' });
    await db.adropTable('r');
    growing.append({ c: 4 });
    rows.append({ c: 5 });
    expect(await db.aexportTable('r')).toEqual([{ c: 4 }, { c: 5 }]);
    expect(await db.dlq.list()).toEqual([]);
  });

  test('by rows is still known where it could not be dropped', async () => {
    const db = await openTemp('data.db', MANUAL);
    const rows = db.rows('r', { columns: { a: 'integer' } });
    await db.aexecute('CREATE VIEW v AS SELECT 1');
    db.set('k', 1);
    expect(await codeFrom(() => db.adropTable('r', { signal: AbortSignal.abort() }))).toBe('SLUICE_ABORTED');
    await db.aflush();
    expect(await codeFrom(() => db.adropTable('r', { signal: AbortSignal.abort() }))).toBe('SLUICE_ABORTED');
    rows.append({ a: 1 });
    expect(await db.aexportTable('r')).toEqual([{ a: 1 }]);
    expect(await codeFrom(() => db.adropTable('v'))).toBe('SLUICE_STORE');
  });

  test('by rows takes a column that is added', async () => {
    const db = await openTemp('data.db', MANUAL);
    const rows = db.rows<Record<string, unknown>>('r', { columns: { a: 'integer' } });
    rows.append({ a: 1 });
    expect(await codeFrom(() => rows.append({ b: 1 }))).toBe('SLUICE_INVALID_VALUE');
    await db.aalterTableAddColumn('r', 'b', 'TEXT', { default: 'd' });
    rows.append({ a: 2, b: 'x' });
    expect(await db.aexportTable('r')).toEqual([
      { a: 1, b: 'd' },
      { a: 2, b: 'x' },
    ]);
  });

  test('by keys takes a column, an index and a constraint, which are minded from then on', async () => {
    const db = await openTemp('data.db', MANUAL);
    db.set('a', 1);
    await db.aalterTableAddColumn('data', 'note', 'TEXT', { default: 'n' });
    await db.acreateIndex('i', 'data', 'value', { unique: true });
    db.set('b', 2);
    db.set('c', 1);
    expect(await db.aflush()).toMatchObject({ applied: 1, dead: 1 });
    expect(await db.aquery({ orderBy: 'key' })).toEqual([
      { key: 'a', value: '1', note: 'n' },
      { key: 'b', value: '2', note: 'n' },
    ]);
  });
});
