import { Sql, sql } from 'sluicedb';
import { expect, test } from 'vitest';
import { codeFrom, refusal } from '../support/eventually.ts';
import { openTemp } from '../support/open-temp.ts';

const parts = ({ text, values }: Sql) => [text, values];

test('values become parameters, lists several, and what sql has made is put in', () => {
  expect(parts(sql`SELECT ${1} AS a, ${'x; DROP'} AS b`)).toEqual(['SELECT ? AS a, ? AS b', [1, 'x; DROP']]);
  expect(parts(sql`a IN (${[1, 'b', null]})`)).toEqual(['a IN (?, ?, ?)', [1, 'b', null]]);
  expect(parts(sql`a IN (${[]})`)).toEqual(['a IN ()', []]);
  const inner = sql`b = ${2}`;
  expect(parts(sql`a = ${1} AND ${inner} AND c = ${3}`)).toEqual(['a = ? AND b = ? AND c = ?', [1, 2, 3]]);
  expect(parts(sql`${sql.id('a"b', 'order')} = ${[sql.id('c'), 1]}`)).toEqual(['"a""b"."order" = "c", ?', [1]]);
  expect(parts(sql.join([sql`a = ${1}`, sql`b = ${2}`], sql` AND `))).toEqual(['a = ? AND b = ?', [1, 2]]);
  expect(parts(sql`(${sql.join([1, sql.id('x'), [2, 3]])})`)).toEqual(['(?, "x", ?, ?)', [1, 2, 3]]);
  expect(parts(sql.join([], sql`;`))).toEqual(['', []]);
  expect(sql`SELECT 1`).toBeInstanceOf(Sql);
  const many = Array.from({ length: 200_000 }, (_, i) => i);
  expect(sql`${many}`.values).toHaveLength(200_000);
  expect(sql`${sql.join(many)}`.values).toHaveLength(200_000);
});

test('every call that takes a statement takes one of a template', async () => {
  const db = await openTemp('data.db', { flush: { mode: 'manual' } });
  const evil = `x'); DROP TABLE t; --"`;
  await db.aexecute(sql`CREATE TABLE t (a, b)`);
  expect(await db.aexecute(sql`INSERT INTO t VALUES (${evil}, ${1}) RETURNING a`)).toMatchObject({
    rows: [{ a: evil }],
  });
  db.stage(sql`INSERT INTO t VALUES (${'staged'}, ${[2]})`);
  await db.astage(sql`UPDATE t SET b = ${new Date(5)} WHERE a = ${'staged'}`);
  expect(await db.afetchAll(sql`SELECT b FROM t WHERE a IN (${['staged', 'z']})`)).toEqual([{ b: 5 }]);
  expect(await db.afetchOne(sql`SELECT ${sql.id('a')} FROM ${sql.id('t')} ORDER BY b`)).toEqual({ a: evil });
  const found: unknown[] = [];
  for await (const row of db.aiterate(sql`SELECT b FROM t WHERE b > ${0} ORDER BY b`)) found.push(row);
  expect(found).toEqual([{ b: 1 }, { b: 5 }]);
  expect(await db.acount('t', { where: sql`a = ${evil}` })).toBe(1);
  // The options stand where the parameters would.
  expect(await db.afetchAll(sql`SELECT a FROM t`, { maxRows: 1 })).toHaveLength(1);
  expect(await db.afetchAll(sql`SELECT a FROM t`, { stale: true, maxRows: 5 })).toHaveLength(2);
  expect(await db.aexecute(sql`SELECT ${1} AS a`, { ahead: true })).toMatchObject({ rows: [{ a: 1 }] });
  expect(await codeFrom(() => db.afetchAll(sql`SELECT ${1}`, { maxRow: 1 } as never))).toBe('SLUICE_INVALID_OPTION');
});

test('every call of an SQL transaction takes one, too', async () => {
  const db = await openTemp();
  await db.aexecute('CREATE TABLE t (a, b)');
  const evil = `x'); DROP TABLE t; --"`;
  await db.atransaction(
    async (tx) => {
      const inserted = await tx.aexecute(sql`INSERT INTO t VALUES (${evil}, ${1}), (${'y'}, ${[2]}) RETURNING a`);
      expect(inserted).toMatchObject({ changes: 2, rows: [{ a: evil }, { a: 'y' }] });
      expect(await tx.afetchAll<{ a: string }>(sql`SELECT a FROM t WHERE b IN (${[1, 3]})`)).toEqual([{ a: evil }]);
      expect(await tx.afetchOne(sql`SELECT b FROM ${sql.id('t')} WHERE a = ${'y'}`)).toEqual({ b: 2 });
      for (const call of [
        () => tx.aexecute(sql`DELETE FROM t WHERE a = '${'y'}'`),
        () => tx.afetchAll(sql`SELECT ${1}, ?`),
        () => (tx.afetchAll as (...given: unknown[]) => Promise<unknown>).call(tx, sql`SELECT ${1}`, [2]),
        () => (tx.aexecute as (...given: unknown[]) => Promise<unknown>).call(tx, sql`SELECT 1`, { ahead: true }),
      ]) {
        expect(await codeFrom(call)).toBe('SLUICE_INVALID_SQL');
      }
    },
    { sql: true },
  );
  expect(await db.acount('t')).toBe(2);
});

test('a value that would not be a value is refused', async () => {
  const db = await openTemp();
  const bad = [
    sql`SELECT '${'x'}'`,
    sql`SELECT "${'x'}"`,
    sql`SELECT 1 -- ${'x'}`,
    sql`SELECT 1 /* ${'x'} */`,
    sql`SELECT ? + ${1}`,
    sql`SELECT :a + ${1}`,
    sql`SELECT ${1} + ?2`,
    sql`SELECT 'open ${1}`,
  ];
  for (const statement of bad) {
    expect(await codeFrom(() => db.afetchAll(statement)), statement.text).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.aexecute(statement)), statement.text).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.aiterate(statement)), statement.text).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.stage(statement)), statement.text).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.acount({ where: statement })), statement.text).toBe('SLUICE_INVALID_SQL');
  }
  expect(await codeFrom(() => db.afetchAll(sql`SELECT ${1}`, [1] as never))).toBe('SLUICE_INVALID_SQL');
  expect(await codeFrom(() => db.afetchAll(sql`SELECT ${Number.NaN}`))).toBe('SLUICE_INVALID_VALUE');
  expect(await codeFrom(() => db.afetchAll(sql`SELECT ${undefined}`))).toBe('SLUICE_INVALID_VALUE');
  expect(await codeFrom(() => sql.id(''))).toBe('SLUICE_INVALID_SQL');
  expect(await codeFrom(() => sql.id('a\0'))).toBe('SLUICE_INVALID_SQL');
  expect(await codeFrom(() => sql.join([1], ',' as never))).toBe('SLUICE_INVALID_SQL');
  const call = sql as unknown as (text: unknown) => Sql;
  expect((await refusal(() => call('SELECT 1'))).message).toContain('template tag');
  expect(await codeFrom(() => call(['SELECT 1']))).toBe('SLUICE_INVALID_SQL');
  // A template with an escape that there is not has no text: https://tc39.es/ecma262/#sec-static-semantics-tv
  const strings = Object.assign([undefined], { raw: ['\\u'] });
  expect(await codeFrom(() => call(strings))).toBe('SLUICE_INVALID_SQL');
  // What only looks like it has its values.
  expect(await codeFrom(() => db.afetchAll({ text: 'SELECT 1', values: [] } as never))).toBe('SLUICE_INVALID_SQL');
});
