import { describe, expect, test } from 'vitest';
import { decodeValue, encodeValue, toSqlValue } from '../../dist/db/codec.js';
import { checkKey, compareKeys, inRange, toRange } from '../../dist/db/keys.js';
import { checkDirectSql, checkStagedSql } from '../../dist/db/sql/statements.js';
import { seededRandom } from '../support/seed.ts';

const refuses = (call: () => unknown): string => {
  try {
    call();
  } catch (error) {
    expect((error as { code: string }).code).toBe('SLUICE_INVALID_VALUE');
    return (error as Error).message;
  }
  throw new Error('was not refused');
};

describe('values', () => {
  class Point {
    x = 1;
    readonly #hidden = 2;
    get sum(): number {
      return this.x + this.#hidden;
    }
  }

  test.each([
    [null, 'null'],
    [false, 'false'],
    [0, '0'],
    [-0, '0'],
    [1e21, '1e+21'],
    ['', '""'],
    ['\ud800', '"\\ud800"'],
    [[1, [2]], '[1,[2]]'],
    [{ a: { b: null } }, '{"a":{"b":null}}'],
    [Object.assign(Object.create(null) as object, { a: 1 }), '{"a":1}'],
    [new Date(0), '"1970-01-01T00:00:00.000Z"'],
    [{ toJSON: () => ({ own: 'form' }) }, '{"own":"form"}'],
    [new Point(), '{"x":1}'],
    [JSON.parse('{"__proto__":1}'), '{"__proto__":1}'],
  ])('%o is stored as %s', (value, text) => {
    expect(encodeValue(value)).toBe(text);
  });

  test.each([
    [undefined, 'value is undefined'],
    [1n, 'value is a bigint'],
    [() => 1, 'value is a function'],
    [Symbol('s'), 'value is a symbol'],
    [Number.NaN, 'value is NaN'],
    [Number.POSITIVE_INFINITY, 'value is Infinity'],
    [{ a: [0, Number.NEGATIVE_INFINITY] }, 'value.a[1] is -Infinity'],
    [{ a: undefined }, 'value.a is undefined'],
    // A hole.
    [Array(1), 'value[0] is undefined'],
    [{ a: { b: () => 1 } }, 'value.a.b is a function'],
    [new Map([[1, 2]]), 'value is a Map'],
    [{ s: new Set() }, 'value.s is a Set'],
    [[new Float64Array(1)], 'value[0] is a Float64Array'],
    [/x/, 'value is a RegExp'],
    [new Error('e'), 'value is a Error'],
    [new Number(Number.NaN), 'value is a Number'],
    [Promise.resolve(), 'value is a Promise'],
    [new Date(Number.NaN), 'value is an invalid date'],
    [{ toJSON: () => undefined }, 'value is undefined'],
    [{ toJSON: () => Number.NaN }, 'value is NaN'],
  ])('%o is refused: %s', (value, problem) => {
    expect(refuses(() => encodeValue(value))).toContain(problem);
  });

  test('what contains itself and what is too deep are told apart, in few words', () => {
    const cycle: Record<string, unknown> = {};
    cycle['itself'] = { again: cycle };
    expect(refuses(() => encodeValue(cycle))).toMatch(/contains itself$/);
    let deep: unknown = 1;
    for (let i = 0; i < 999; i++) deep = [deep];
    expect(decodeValue(encodeValue(deep) as string)).toEqual(deep);
    for (let i = 0; i < 5; i++) deep = [deep];
    const message = refuses(() => encodeValue(deep));
    expect(message).toMatch(/nested deeper than 1000 levels$/);
    expect(message.length).toBeLessThan(400);
  });

  test('bytes are copied, in and out', () => {
    const bytes = Buffer.from([1, 2, 3]);
    const stored = encodeValue(bytes.subarray(1)) as Uint8Array;
    bytes.fill(0);
    expect([...stored]).toEqual([2, 3]);
    const read = decodeValue(stored) as Uint8Array;
    read[0] = 9;
    expect([...stored]).toEqual([2, 3]);
    expect(read.constructor).toBe(Uint8Array);
  });

  test('what is no JSON is refused at the read', () => {
    expect(refuses(() => decodeValue('NaN'))).toContain('not JSON');
    expect(decodeValue(5)).toBe(5);
  });

  test.each([
    [true, 1],
    [-0, -0],
    [0.1, 0.1],
    [2n ** 63n - 1n, 2n ** 63n - 1n],
    [new Date(12), 12],
    [['x'], '["x"]'],
    [null, null],
  ])('%o is %o in a row', (value, stored) => {
    expect(toSqlValue(value, 'c')).toBe(stored);
  });

  test.each([undefined, Number.NaN, 2n ** 63n, -(2n ** 63n) - 1n, '\udfff', Symbol('s'), new Set()])(
    '%o cannot be in a row',
    (value) => {
      expect(refuses(() => toSqlValue(value, 'column c'))).toMatch(/^column c is|^column c must/);
    },
  );
});

describe('keys', () => {
  const random = seededRandom(1);
  const points = [0, 1, 0x61, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x1f600, 0x10ffff];
  const anyKey = () =>
    String.fromCodePoint(
      ...Array.from({ length: Math.floor(random() * 5) }, () => points[Math.floor(random() * points.length)] as number),
    );

  test('are ordered as their UTF-8 bytes', () => {
    let differs = 0;
    for (let i = 0; i < 20_000; i++) {
      const [a, b] = [anyKey(), anyKey()];
      expect(Math.sign(compareKeys(a, b)), JSON.stringify([a, b])).toBe(Buffer.compare(Buffer.from(a), Buffer.from(b)));
      if (a !== b && a < b !== compareKeys(a, b) < 0) differs++;
    }
    expect(differs).toBeGreaterThan(0);
  });

  test('a prefix is a range that holds just what begins with it', () => {
    let inside = 0;
    for (let i = 0; i < 20_000; i++) {
      const [prefix, key] = [anyKey(), anyKey()];
      const { limit, ...range } = toRange({ prefix });
      expect(limit).toBe(Number.POSITIVE_INFINITY);
      expect(inRange(key, range), JSON.stringify([prefix, key])).toBe(key.startsWith(prefix));
      expect(inRange(prefix + key, range)).toBe(true);
      if (key.startsWith(prefix) && prefix !== '') inside++;
    }
    expect(inside).toBeGreaterThan(0);
    expect(toRange({ prefix: '\u{10ffff}' })).toMatchObject({ gte: '\u{10ffff}', lt: undefined });
    expect(toRange({ prefix: 'a\u{10ffff}' })).toMatchObject({ lt: 'b' });
    expect(toRange({ prefix: '\ud7ff' })).toMatchObject({ lt: '\ue000' });
    expect(toRange({ prefix: '\uffff' })).toMatchObject({ lt: '\u{10000}' });
  });

  test('are at most 64 KiB in UTF-8', () => {
    for (const key of ['x'.repeat(65_536), 'ü'.repeat(32_768), '😀'.repeat(16_384), '']) checkKey(key);
    for (const key of ['x'.repeat(65_537), 'ü'.repeat(32_769), `${'😀'.repeat(16_384)}x`]) {
      expect(() => checkKey(key)).toThrow('must not be longer than 65536 bytes');
    }
  });
});

test.each([
  ['INSERT INTO t VALUES (1)', 't'],
  ['insert or ignore into "T t" values (1)', 'T t'],
  ['REPLACE INTO [t] VALUES (1)', 't'],
  ['UPDATE `t` SET a = 1', 't'],
  ['UPDATE OR ROLLBACK Readings SET a = 1', 'readings'],
  ['DELETE FROM t', 't'],
  ['WITH a(x) AS (SELECT 1), b AS (VALUES (1)) INSERT INTO t SELECT * FROM a', 't'],
  ['INSERT INTO main.t VALUES (1)', null],
  ["/* a */ INSERT -- b\n INTO /* ' */ t VALUES (';')", 't'],
])('%s is about the table %s', (sql, table) => {
  expect(checkStagedSql(sql)).toBe(table);
});

test.each([
  'SELECT 1',
  'CREATE TRIGGER IF NOT EXISTS x AFTER INSERT ON t BEGIN SELECT 1; END',
  'VACUUM',
  'ANALYZE',
  ' explain select 1 ;',
])('%s can be run directly', (sql) => {
  checkDirectSql(sql, 'write');
});
