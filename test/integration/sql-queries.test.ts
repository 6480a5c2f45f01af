import { type Database, open, type SqlPolicyOptions, sql } from 'sluicedb';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { codeFrom, refusal } from '../support/eventually.ts';
import { openTemp } from '../support/open-temp.ts';

const MANUAL = { flush: { mode: 'manual' } } as const;

/** A table of rows that are staged: whoever reads them has waited for the flush. */
async function withPeople(policy: SqlPolicyOptions = {}): Promise<Database> {
  const db = await openTemp('data.db', { ...MANUAL, sql: policy });
  addPeople(db);
  return db;
}

function addPeople(db: Database): void {
  const people = db.rows('people', { columns: { name: 'text', age: 'integer', limit: 'text' } });
  people.appendMany([
    { name: 'Änne', age: 30, limit: 'a' },
    { name: 'Bob', age: 40 },
    { name: 'Cleo', age: 50, limit: 'c' },
    { name: 'Dora', age: 50 },
  ]);
}

const names = (rows: readonly Record<string, unknown>[]) => rows.map(({ name }) => name);

describe('aquery', () => {
  test('has all rows as objects, staged ones too, of its own table where none is named', async () => {
    const db = await withPeople();
    expect(await db.aquery('people')).toHaveLength(4);
    db.set('k', { a: 1 });
    expect(await db.aquery()).toEqual([{ key: 'k', value: '{"a":1}' }]);
    expect(await db.aquery({ columns: ['key'], where: 'key = ?', parameters: ['k'] })).toEqual([{ key: 'k' }]);
    db.set('l', 1);
    expect(await db.aquery({ stale: true })).toHaveLength(1);
  });

  test('takes columns and expressions, with names of their own or as they were written', async () => {
    const db = await withPeople();
    const columns = [
      'name',
      'LIMIT',
      '"age"',
      'age * 2 AS twice',
      'upper(name)',
      "age AS 'a b'",
      sql`age + ${1} AS "n""q"`,
    ];
    expect(await db.aquery('people', { columns, where: 'age < :max', parameters: { max: 40 } })).toEqual(
      [{ name: 'Änne', LIMIT: 'a', age: 30, twice: 60, 'upper(name)': 'ÄNNE', 'a b': 30, 'n"q': 31 }]
        .map((row) => ({ ...row, 'upper(name)': 'Änne'.replace(/[a-z]+/g, (c) => c.toUpperCase()) }))
        .map(({ LIMIT, ...row }) => ({ ...row, limit: LIMIT })),
    );
    expect(await db.aquery('people', { columns: ['*'], limit: 1 })).toEqual([{ name: 'Änne', age: 30, limit: 'a' }]);
  });

  test('puts values where the parameters are, in the order of the clauses, by list, number or name', async () => {
    const db = await withPeople();
    const grouped = {
      columns: ['age + ? AS age', 'count(*) AS n'],
      where: 'age > ?',
      groupBy: 'age',
      having: 'count(*) >= ?',
      orderBy: 'abs(age - ?) DESC',
      parameters: [1, 30, 1, 50],
    };
    expect(await db.aquery('people', grouped)).toEqual([
      { age: 41, n: 1 },
      { age: 51, n: 2 },
    ]);
    expect(names(await db.aquery('people', { where: 'age = ?2 OR name = ?1', parameters: ['Bob', 30] }))).toEqual([
      'Änne',
      'Bob',
    ]);
    expect(
      names(await db.aquery('people', { where: 'age IN (:a, $b) AND age <> @a', parameters: { a: 30, b: 40 } })),
    ).toEqual(['Bob']);
    const ages = [30, 40];
    expect(
      names(await db.aquery('people', { where: sql`age IN (${ages}) AND ${sql.id('name')} <> ${'Bob'}` })),
    ).toEqual(['Änne']);
  });

  test('orders, groups, takes part of the rows and leaves out doubles', async () => {
    const db = await withPeople();
    expect(names(await db.aquery('people', { orderBy: 'age DESC, name' }))).toEqual(['Cleo', 'Dora', 'Bob', 'Änne']);
    expect(names(await db.aquery('people', { orderBy: ['limit ASC NULLS LAST', '-age'], limit: 3 }))).toEqual([
      'Änne',
      'Cleo',
      'Dora',
    ]);
    expect(await db.aquery('people', { columns: ['age'], distinct: true, orderBy: '1' })).toHaveLength(3);
    expect(names(await db.aquery('people', { orderBy: 'name COLLATE NOCASE DESC', limit: 1 }))).toEqual(['Änne']);
    expect(await db.aquery('people', { limit: 0 })).toEqual([]);
    for (const bad of [-1, 1.5, '1' as never, Number.NaN, 1e300]) {
      expect(await codeFrom(() => db.aquery('people', { limit: bad }))).toBe('SLUICE_INVALID_OPTION');
      expect(await codeFrom(() => db.aquery('people', { offset: bad }))).toBe('SLUICE_INVALID_OPTION');
    }
  });

  test('any name is a name, and nothing in it is SQL', async () => {
    const db = await openTemp();
    for (const name of ['a"b', "it's", 'select', 'ä; DROP TABLE data --', 'a]b', '`', 'x'.repeat(128), '$', '0']) {
      await db.acreateTable(name, { [name]: 'TEXT' });
      await db.asqlInsert(name, { [name]: 'v' });
      const quoted = `"${name.replaceAll('"', '""')}"`;
      expect(await db.aquery(name, { columns: [quoted], where: `${quoted} = ?`, parameters: ['v'] })).toEqual([
        { [name]: 'v' },
      ]);
    }
    for (const name of ['', 'a\0b', '\ud800', '_sluice_state', 'sqlite_schema', 5, null]) {
      expect(await codeFrom(() => db.aquery(name as string, {}))).toBe('SLUICE_INVALID_SQL');
    }
    expect(await codeFrom(() => db.aquery('none'))).toBe('SLUICE_STORE');
    expect(await codeFrom(() => db.aquery('data', { were: '1' } as never))).toBe('SLUICE_INVALID_OPTION');
  });
});

describe('aqueryWithPagination', () => {
  test('1.16-26: an offset needs no limit, and the total is of the same moment', async () => {
    const db = await withPeople();
    const inOrder = { columns: ['name'], orderBy: 'name' } as const;
    expect(names(await db.aqueryWithPagination('people', { ...inOrder, offset: 2 }))).toEqual(['Dora', 'Änne']);
    expect(names(await db.aqueryWithPagination('people', { ...inOrder, offset: 1, limit: 1 }))).toEqual(['Cleo']);
    const page = await db.aqueryWithPagination('people', { ...inOrder, limit: 1, offset: 99, withTotal: true });
    expect(page).toEqual({ rows: [], total: 4 });
    const filtered = { where: 'age > ?', orderBy: 'abs(age - ?)', parameters: [30, 40], limit: 2 };
    const found = await db.aqueryWithPagination('people', { ...filtered, withTotal: true });
    expect([names(found.rows)[0], found.total]).toEqual(['Bob', 3]);
    const groups = await db.aqueryWithPagination('people', {
      columns: ['age'],
      groupBy: 'age',
      limit: 1,
      withTotal: true,
    });
    expect(groups).toEqual({ rows: [{ age: 30 }], total: 3 });
    db.set('k', 1);
    expect(await db.aqueryWithPagination({ withTotal: true })).toEqual({ rows: [{ key: 'k', value: '1' }], total: 1 });
  });
});

test('acount and aexists count and find rows, staged ones too', async () => {
  const db = await withPeople();
  expect(await db.acount('people')).toBe(4);
  expect(await db.acount('people', { where: 'age = ?', parameters: [50] })).toBe(2);
  expect(await db.aexists('people', { where: 'age > ?', parameters: [49] })).toBe(true);
  expect(await db.aexists('people', { where: 'age > ?', parameters: [50] })).toBe(false);
  db.set('k', 1);
  expect([
    await db.acount(),
    await db.aexists(),
    await db.acount({ where: 'key = :k', parameters: { k: 'x' } }),
  ]).toEqual([1, true, 0]);
  expect(await codeFrom(() => db.acount('none'))).toBe('SLUICE_STORE');
});

describe('what a clause may say', () => {
  let db: Database;
  beforeAll(async () => {
    db = await open(':memory:');
    addPeople(db);
  });
  afterAll(() => db.close());

  test.each([
    'age IN (30, 40)',
    'age = 1 AND (name = 2)',
    'NOT (age = 1)',
    'age NOT IN (1)',
    'CASE WHEN (age > 1) THEN (1) ELSE (0) END = 1',
    'CAST(age AS INTEGER) > 1',
    'CAST (age AS TEXT) > 1',
    "name LIKE 'ä%' OR name NOT LIKE ('%b')",
    'age BETWEEN (1) AND (60)',
    'age IS DISTINCT FROM 3',
    'age IS NOT DISTINCT FROM (3)',
    "name = 'x; DROP TABLE people -- /* SELECT'",
    'name = "limit"',
    "name = 'ﾂ' || char(10) OR age & 1 OR age % 2",
    'age\n>\t1',
    'count > 1 OR 1',
    'age -> 1 IS NULL',
    'replace(name, 1, 2) = 1',
    "like('a', name)",
    'age = 0x1F OR age = 1_000 OR age = 1e3',
    "x'00ff' <> name",
    'name COLLATE NOCASE = 1 AND age ISNULL',
    '((((((age))))))',
  ])('1.16-24: %s is let through', async (where) => {
    const outcome = await db.aquery('people', { where }).then(
      () => 'there',
      (error: { code: string; message: string }) => `${error.code} ${error.message}`,
    );
    // One has a column that is not there: that is for SQLite to say.
    expect(outcome).toMatch(where.startsWith('count') ? /no such column: count/ : /^there$/);
  });

  test('1.16-24: orders, groups and columns are let through', async () => {
    for (const orderBy of [
      'age+1',
      '-age',
      'limit',
      'name COLLATE NOCASE',
      'CASE WHEN age IN (30) THEN 1 END DESC',
      'lower(name)',
    ]) {
      expect(await db.aquery('people', { orderBy })).toHaveLength(4);
    }
    for (const column of [
      'count(*) FILTER (WHERE age > 40) AS n',
      'count(DISTINCT age)',
      "group_concat(name, ', ' ORDER BY age)",
    ]) {
      expect(await db.aquery('people', { columns: [column] })).toHaveLength(1);
    }
    const column =
      'row_number() OVER (PARTITION BY (age) ORDER BY name ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS n';
    expect(await db.aquery('people', { columns: [column] })).toHaveLength(4);
  });

  test.each([
    '',
    ' ',
    '1; DROP TABLE people',
    '1;',
    '1 -- comment',
    '1 /* comment */',
    '1 /* comment',
    '1) OR (1',
    '(1',
    '1)',
    '1, 2',
    'id IN (SELECT 1)',
    'EXISTS (SELECT 1 FROM data)',
    '(VALUES (1))',
    'name IN data',
    'name IN main.data',
    'name IN "data"',
    'name IN json_each(1)',
    '(WITH a AS (SELECT 1) SELECT * FROM a)',
    '1 UNION SELECT 1',
    '1 ORDER BY 1',
    '1 LIMIT 1',
    '1 GROUP BY 1',
    '1 RETURNING 1',
    'DELETE',
    'a = drop',
    'attach',
    'pragma = 1',
    'limit > 1',
    'name = ?',
    'name = :x',
    "name = 'open",
    'name = "open',
    'name = [open',
    "x'0'",
    '1a',
    'a # b',
    'a \\ b',
    'a ! b',
    '\u0001',
    'a\0',
    '\ud800',
    '_sluice_state = 1',
    '"_SLUICE_state".a',
    'load_extension(1)',
    'random() > 1',
    '"random"()',
    '[random] ()',
    'RANDOM /* */ ()',
    'randomblob(1000000000)',
    'raise(IGNORE)',
    'changes()',
  ])('%j is refused', async (where) => {
    const refused = await refusal(() => db.aquery('people', { where }));
    expect(refused.code).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.acount('people', { where }))).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.aexists('people', { where }))).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.asqlDelete('people', { where }))).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.asqlUpdate('people', { age: 1 }, { where }))).toBe('SLUICE_INVALID_SQL');
    if (!/,|^limit|^attach|^DELETE/.test(where)) {
      expect(await codeFrom(() => db.aquery('people', { orderBy: where }))).toBe('SLUICE_INVALID_SQL');
      expect(await codeFrom(() => db.aquery('people', { groupBy: where }))).toBe('SLUICE_INVALID_SQL');
      expect(await codeFrom(() => db.aquery('people', { columns: [where] }))).toBe('SLUICE_INVALID_SQL');
    }
    expect(await db.acount('people')).toBe(4);
  });

  test('1.16-24: a subquery in where is let through where it is allowed, and only there', async () => {
    const where = 'age = (SELECT max(age) FROM people)';
    expect(await codeFrom(() => db.aquery('people', { where }))).toBe('SLUICE_INVALID_SQL');
    expect(names(await db.aquery('people', { where, strict: false, orderBy: 'name' }))).toEqual(['Cleo', 'Dora']);
    for (const bad of [
      '1; DROP TABLE people',
      '1 -- x',
      '1) OR (1',
      'DELETE FROM people',
      '(SELECT 1 FROM _sluice_state)',
    ]) {
      expect(await codeFrom(() => db.aquery('people', { where: bad, strict: false }))).toBe('SLUICE_INVALID_SQL');
    }
  });

  test('1.16-24: every refusal is one error, and says what to do', async () => {
    const message = async (where: string) => (await refusal(() => db.aquery('people', { where }))).message;
    expect(await message('random() = 1')).toContain('allowedFunctions');
    expect(await message('limit = 1')).toContain('"limit" in double quotes');
    expect(await message(`${'a'.repeat(1_001)}`)).toContain('maxClauseLength');
    expect(await message('a = ?')).toContain('no value for');
    const unused = await refusal(() => db.aquery('people', { where: 'age = ?', parameters: [1, 2] }));
    expect([unused.code, unused.message]).toEqual(['SLUICE_INVALID_SQL', expect.stringContaining('number 2')]);
    expect(await codeFrom(() => db.aquery('people', { where: 'age = :a', parameters: { a: 1, b: 2 } }))).toBe(
      'SLUICE_INVALID_SQL',
    );
    expect(await codeFrom(() => db.aquery('people', { where: 'age = ?', parameters: 5 as never }))).toBe(
      'SLUICE_INVALID_VALUE',
    );
    expect(await codeFrom(() => db.aquery('people', { where: 5 as never }))).toBe('SLUICE_INVALID_SQL');
  });
});

describe('the policy', () => {
  const calls = (db: Database, clause: string, policy: SqlPolicyOptions = {}) =>
    db.aquery('people', { where: clause, ...policy }).then(
      () => 'runs',
      ({ code }: { code: string }) => code,
    );

  test('of the database holds for every table and call, and a call can say otherwise', async () => {
    const db = await withPeople({ allowedFunctions: ['RANDOM'], forbiddenFunctions: ['upper'], maxClauseLength: 30 });
    expect(await calls(db, 'random() <> 0')).toBe('runs');
    expect(await calls(db, 'random() <> 0', { forbiddenFunctions: ['random'] })).toBe('SLUICE_INVALID_SQL');
    expect(await calls(db, 'Upper(name) = 1')).toBe('SLUICE_INVALID_SQL');
    // What a call forbids takes the place of what the database does.
    expect(await calls(db, 'upper(name) = 1', { forbiddenFunctions: [] })).toBe('runs');
    expect(await calls(db, 'upper(name) = 1', { allowedFunctions: ['upper'], strict: false })).toBe(
      'SLUICE_INVALID_SQL',
    );
    expect(await calls(db, 'changes() = 1')).toBe('SLUICE_INVALID_SQL');
    expect(await calls(db, 'changes() = 1', { allowedFunctions: ['changes'] })).toBe('runs');
    expect(await calls(db, 'random() <> changes()', { allowedFunctions: ['changes'] })).toBe('runs');
    expect(await calls(db, 'lower(name) = 1', { allowedFunctions: ['changes'], overrideAllowed: true })).toBe(
      'SLUICE_INVALID_SQL',
    );
    expect(await calls(db, 'changes() = 1', { allowedFunctions: ['changes'], overrideAllowed: true })).toBe('runs');
    expect(await calls(db, `age = ${'1'.repeat(30)}`)).toBe('SLUICE_INVALID_SQL');
    expect(await calls(db, `age = '${'1'.repeat(30)}'`, { maxClauseLength: 100 })).toBe('runs');
  });

  test('1.16-25: of the database holds for tables, too', async () => {
    const db = await openTemp('data.db', { sql: { forbiddenFunctions: ['*'] } });
    const table = db.table('other');
    await table.aset('k', 1);
    expect(await codeFrom(() => db.aquery('other', { where: 'upper(key) = 1' }))).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.asqlDelete('other', { where: 'upper(key) = 1' }))).toBe('SLUICE_INVALID_SQL');
    expect(await db.aquery('other', { where: 'key IN (?) AND (1)', parameters: ['k'] })).toHaveLength(1);
    expect(await codeFrom(() => db.aquery('other', { where: "key LIKE 'k'" }))).toBe('SLUICE_INVALID_SQL');
  });

  test('says how deeply a clause may be nested: what SQLite takes for it grows with the square of that', async () => {
    const db = await withPeople();
    const deep = (count: number) => [
      `${'~'.repeat(count)}age`,
      `${'- '.repeat(count)}age`,
      `${'NOT '.repeat(count)}age`,
      `${'('.repeat(count)}age${')'.repeat(count)}`,
      `${'-('.repeat(count / 2)}age${')'.repeat(count / 2)}`,
      `age = 1 OR ${'abs(+'.repeat(count / 2)}age${')'.repeat(count / 2)}`,
    ];
    for (const clause of deep(100)) expect(await calls(db, clause), clause).toBe('runs');
    for (const clause of deep(102)) expect(await calls(db, clause), clause).toBe('SLUICE_INVALID_SQL');
    for (const clause of deep(102)) expect(await calls(db, clause, { maxClauseDepth: 200 }), clause).toBe('runs');
    // Many beside each other are not deep.
    expect(await calls(db, `age = -1${' OR NOT age = (-2)'.repeat(50)}`)).toBe('runs');
    const shallow = await withPeople({ maxClauseDepth: 2 });
    expect(await calls(shallow, '((age)) = 1')).toBe('runs');
    expect(await calls(shallow, '(((age))) = 1')).toBe('SLUICE_INVALID_SQL');
    expect((await refusal(() => shallow.acount('people', { where: '(((age)))' }))).message).toContain('maxClauseDepth');
  });

  test('forbids an operator with its function, and sees names in quotes', async () => {
    const db = await withPeople();
    const forbiddenFunctions = ['like', 'glob'];
    for (const clause of [
      "name LIKE 'a'",
      "name NOT LIKE ('a')",
      "like('a', name)",
      "NOT like('a', name)",
      '"like"(1, 2)',
      "name GLOB 'a'",
    ]) {
      expect(await calls(db, clause), clause).toBe('runs');
      expect(await calls(db, clause, { forbiddenFunctions }), clause).toBe('SLUICE_INVALID_SQL');
    }
    expect(await calls(db, 'name = 1', { forbiddenFunctions })).toBe('runs');
  });

  test('is checked with all other options', async () => {
    for (const wrong of [
      { strict: 1 },
      { allowedFunctions: 'x' },
      { forbiddenFunctions: [1] },
      { maxClauseLength: 0 },
      { maxClauseDepth: 1_001 },
      { strickt: true },
    ]) {
      expect(await codeFrom(() => openTemp('data.db', { sql: wrong as never }))).toBe('SLUICE_INVALID_OPTION');
    }
    const db = await withPeople();
    expect(await codeFrom(() => db.aquery('people', { maxClauseLength: -1 }))).toBe('SLUICE_INVALID_OPTION');
    expect(await codeFrom(() => db.acount('people', { allowedFunctions: 'x' as never }))).toBe('SLUICE_INVALID_OPTION');
  });
});

test('1.16-27: a CTE, VALUES and RETURNING have their rows, whatever comes first in the text', async () => {
  const db = await withPeople();
  expect(await db.afetchAll('WITH a AS (SELECT age FROM people) SELECT max(age) AS m FROM a')).toEqual([{ m: 50 }]);
  expect(await db.afetchAll('/* first */ VALUES (1), (2)')).toEqual([{ column1: 1 }, { column1: 2 }]);
  expect((await db.aexecute("-- first\nDELETE FROM people WHERE name = 'Bob' RETURNING age")).rows).toEqual([
    { age: 40 },
  ]);
  expect(
    (await db.aexecute('WITH a(x) AS (VALUES (60)) INSERT INTO people (age) SELECT x FROM a RETURNING age')).rows,
  ).toEqual([{ age: 60 }]);
  expect(await db.afetchAll('EXPLAIN SELECT 1')).not.toEqual([]);
});

test('1.16-31: a part of a value has the type that it was stored with', async () => {
  const db = await openTemp('data.db', MANUAL);
  const value = { text: '123', word: 'true', yes: true, none: null, n: 1.5, list: [1] };
  db.set('k', value);
  for (const [name, part] of Object.entries(value)) expect((db.get('k') as typeof value)[name as 'text']).toEqual(part);
  const columns = ["value ->> '$.text' AS text", "typeof(value ->> '$.text') AS t", "value -> '$.list' AS list"];
  expect(await db.aquery({ columns })).toEqual([{ text: '123', t: 'text', list: '[1]' }]);
});
