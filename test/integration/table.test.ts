import { join } from 'node:path';
import { type Database, open } from 'sluicedb';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { codeFrom, refusal } from '../support/eventually.ts';
import { tempDir } from '../support/temp-dir.ts';

const MANUAL = { flush: { mode: 'manual' } } as const;

/** Runs a test twice: on what is staged, and on what is applied. */
const onBoth = test.each([
  ['staged', async () => {}],
  ['applied', async (db: Database) => void (await db.aflush())],
] as const);

onBoth('every method and its promise form, on what is %s', async (_, down) => {
  const db = await open(join(tempDir(), 'a.db'), MANUAL);
  expect(db.set('a', 1)).toBe(true);
  await db.aset('b', { two: [2, null] });
  await down(db);
  expect([db.get('a'), db.get('b'), db.get('none')]).toEqual([1, { two: [2, null] }, undefined]);
  expect([await db.aget('a'), await db.aget('b'), await db.aget('none')]).toEqual([1, { two: [2, null] }, undefined]);
  expect([db.has('a'), db.has('none'), await db.ahas('b'), await db.ahas('none')]).toEqual([true, false, true, false]);
  expect(db.getMany(['a', 'none', 'b'])).toEqual(await db.agetMany(new Set(['a', 'none', 'b'])));
  expect([...db.getMany(['b', 'a']).keys()]).toEqual(['b', 'a']);

  db.update({ c: 3, d: 4 });
  db.update(new Map([['e', 5]]));
  await db.aupdate([['f', 6]]);
  db.setMany({ g: 7, h: 8 });
  await db.asetMany(new Map([['i', 9]]));
  expect(db.setDefault('i', 0)).toBe(9);
  expect(db.setDefault('j', 10)).toBe(10);
  expect(await db.asetDefault('j', 0)).toBe(10);
  expect(await db.asetDefault('k', 11)).toBe(11);
  await down(db);
  expect([...db.keys()].join('')).toBe('abcdefghijk');
  expect(db.size).toBe(11);
  expect(await db.asize()).toBe(11);

  expect([db.delete('a'), db.delete('a'), db.delete('none')]).toEqual([true, false, false]);
  expect([await db.adelete('b'), await db.adelete('b')]).toEqual([true, false]);
  expect([db.pop('c'), db.pop('c')]).toEqual([3, undefined]);
  expect([await db.apop('d'), await db.apop('d')]).toEqual([4, undefined]);
  expect(db.deleteMany(['e', 'none', 'e'])).toBe(1);
  expect(await db.adeleteMany(['f', 'g', 'none', 'f'])).toBe(2);
  await down(db);
  expect(Object.fromEntries(db.entries())).toEqual({ h: 8, i: 9, j: 10, k: 11 });
  expect([...db.values()]).toEqual([8, 9, 10, 11]);
  const values: unknown[] = [];
  for await (const value of db.avalues()) values.push(value);
  expect(values).toEqual([8, 9, 10, 11]);
  expect([...db]).toEqual([...db.scan()]);
  const entries: unknown[] = [];
  for await (const entry of db) entries.push(entry);
  expect(entries).toEqual([...db]);

  db.clear();
  db.set('after', 1);
  await down(db);
  expect([...db.keys()]).toEqual(['after']);
  expect([db.size, await db.asize()]).toEqual([1, 1]);
  await db.aclear();
  await down(db);
  expect([db.size, await db.asize(), [...db.keys()]]).toEqual([0, 0, []]);
  await db.close();
});

test('tables are apart from each other', async () => {
  const db = await open(join(tempDir(), 'a.db'), { ...MANUAL, table: 'mine' });
  const other = db.table('other "quoted"; name');
  expect(db.table('other "quoted"; name')).toBe(other);
  expect(db.table('mine')).toBe(db);
  db.set('k', 'mine');
  other.set('k', 'other');
  db.clear();
  await db.aflush();
  expect([db.size, other.get('k'), other.name]).toEqual([0, 'other', 'other "quoted"; name']);
  await db.close();
});

test('a value is captured at the call, and what a read returns is a copy', async () => {
  const db = await open(join(tempDir(), 'a.db'), MANUAL);
  const object = { list: [1] };
  const bytes = Uint8Array.of(1, 2, 3);
  const inRow = Uint8Array.of(9);
  db.set('object', object);
  db.set('bytes', bytes);
  const rows = db.rows('r', { columns: { b: 'blob', o: 'text' } });
  rows.append({ b: inRow, o: object });
  object.list.push(2);
  bytes[0] = 99;
  inRow[0] = 99;
  for (let round = 0; round < 2; round++) {
    const read = db.get('object') as { list: number[] };
    expect(read).toEqual({ list: [1] });
    read.list.push(3);
    const readBytes = db.get('bytes') as Uint8Array;
    expect(readBytes).toEqual(Uint8Array.of(1, 2, 3));
    readBytes[1] = 77;
    ((await db.aget('bytes')) as Uint8Array)[1] = 77;
    const [[, scanned]] = [...db.scan({ prefix: 'bytes' })] as [[string, Uint8Array]];
    scanned[1] = 77;
    expect(db.get('object')).toEqual({ list: [1] });
    expect(db.get('bytes')).toEqual(Uint8Array.of(1, 2, 3));
    const given = { deep: [1] };
    const kept = db.setDefault(`default ${round}`, given) as typeof given;
    kept.deep.push(2);
    given.deep.push(3);
    expect(db.get(`default ${round}`)).toEqual({ deep: [1] });
    await db.aflush();
  }
  expect(await db.afetchAll('SELECT b, o FROM r')).toEqual([{ b: Uint8Array.of(9), o: '{"list":[1]}' }]);
  await db.close();
});

test('[fault 13] values read back as they were written, staged and applied', async () => {
  const db = await open(join(tempDir(), 'a.db'), MANUAL);
  const values = [
    null,
    true,
    0,
    -0.5,
    1e300,
    2 ** 53,
    2 ** 53 + 2,
    '',
    'ü😀\0"\\',
    '\ud800 alone',
    [],
    {},
    [[[1]]],
    { __proto__x: 1, 'a.b': { c: null } },
    new Uint8Array(0),
    Uint8Array.of(0, 255),
  ];
  for (const [i, value] of values.entries()) db.set(`k${i}`, value);
  const staged = values.map((_, i) => db.get(`k${i}`));
  await db.aflush();
  expect(staged).toEqual(values);
  expect(values.map((_, i) => db.get(`k${i}`))).toEqual(values);
  expect([...(await db.agetMany(values.map((_, i) => `k${i}`))).values()]).toEqual(values);
  // JSON has one zero, and says so of both before and after the flush.
  db.set('zero', -0);
  // It has no dates, but toJSON.
  db.set('date', new Date(0));
  for (let round = 0; round < 2; round++) {
    expect(Object.is(db.get('zero'), 0)).toBe(true);
    expect(db.get('date')).toBe('1970-01-01T00:00:00.000Z');
    await db.aflush();
  }
  await db.close();
});

test('[fault 12] keys of every kind read back, staged and applied', async () => {
  const db = await open(join(tempDir(), 'a.db'), MANUAL);
  const keys = ['', '\0', 'a\0b', '__proto__', 'ü', '\ud7ff', '\ue000', '\uffff', '😀', 'x'.repeat(65_536)];
  for (const key of keys) db.set(key, key);
  for (let round = 0; round < 2; round++) {
    for (const key of keys) expect(db.get(key)).toBe(key);
    expect([...db.keys()]).toEqual([...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
    await db.aflush();
  }
  await db.close();
});

test('[fault 12] [fault 13] what cannot be a key or a value is refused with its code, and changes nothing', async () => {
  const db = await open(join(tempDir(), 'a.db'), MANUAL);
  db.set('kept', 1);
  for (const key of [
    undefined,
    null,
    1,
    {},
    '\ud800',
    '\ud801',
    'a\udc00',
    'x'.repeat(65_537),
    'ü'.repeat(32_769),
    'x'.repeat(10 << 20),
  ] as string[]) {
    for (const call of [
      () => db.set(key, 1),
      () => db.aset(key, 1),
      () => db.get(key),
      () => db.aget(key),
      () => db.has(key),
      () => db.ahas(key),
      () => db.delete(key),
      () => db.adelete(key),
      () => db.pop(key),
      () => db.apop(key),
      () => db.setDefault(key, 1),
      () => db.asetDefault(key, 1),
      () => db.getMany([key]),
      () => db.agetMany([key]),
      () => db.deleteMany(['kept', key]),
      () => db.adeleteMany(['kept', key]),
      () =>
        db.setMany([
          ['kept', 2],
          [key, 1],
        ]),
      () =>
        db.asetMany([
          ['kept', 2],
          [key, 1],
        ]),
      () =>
        db.update([
          ['kept', 2],
          [key, 1],
        ]),
      () =>
        db.aupdate([
          ['kept', 2],
          [key, 1],
        ]),
    ]) {
      expect(await codeFrom(call)).toBe('SLUICE_INVALID_KEY');
    }
  }
  for (const value of [undefined, 1n, () => 1, Symbol('s'), Number.NaN, { deep: [undefined] }, new Map()]) {
    for (const call of [
      () => db.set('kept', value),
      () => db.aset('kept', value),
      () => db.setDefault('other', value),
      () => db.asetDefault('other', value),
      () => db.setMany({ kept: 2, other: value }),
      () => db.asetMany({ kept: 2, other: value }),
      () => db.update({ kept: 2, other: value }),
      () => db.aupdate({ kept: 2, other: value }),
    ]) {
      expect(await codeFrom(call)).toBe('SLUICE_INVALID_VALUE');
    }
  }
  for (const entries of [null, 5, 'text'] as never[])
    expect(await codeFrom(() => db.setMany(entries))).toMatch(/INVALID/);
  expect(await codeFrom(() => db.scan({ limit: -1 }))).toBe('SLUICE_INVALID_OPTION');
  expect(await codeFrom(() => db.scan({ prefix: 'a', gt: 'b' }))).toBe('SLUICE_INVALID_OPTION');
  expect(await codeFrom(() => db.scan({ from: 'a' } as never))).toBe('SLUICE_INVALID_OPTION');
  expect(await codeFrom(() => db.ascan({ lt: '\udfff' }))).toBe('SLUICE_INVALID_OPTION');
  for (const name of ['', 'sqlite_x', '_sluice_state', '_SLUICE_x', 'a\0b', 'x'.repeat(129), 5] as string[]) {
    expect(await codeFrom(() => db.table(name))).toBe('SLUICE_INVALID_OPTION');
    expect(await codeFrom(() => db.rows(name, { columns: { a: 'any' } }))).toBe('SLUICE_INVALID_OPTION');
  }
  expect(db.stats()).toMatchObject({ accepted: 1, pending: 1 });
  await db.aflush();
  expect([...db.entries()]).toEqual([['kept', 1]]);
  await db.close();
});

test('a table of another shape is refused as a key-value table, wherever it is named', async () => {
  const file = join(tempDir(), 'a.db');
  const db = await open(file, MANUAL);
  await db.aexecute('CREATE TABLE log (at INTEGER, text TEXT)');
  expect(await codeFrom(() => db.table('log'))).toBe('SLUICE_INVALID_OPTION');
  // Also where the table of another shape is itself still staged.
  db.rows('readings', { columns: { at: 'integer' } });
  expect(await codeFrom(() => db.table('readings'))).toBe('SLUICE_INVALID_OPTION');
  db.table('pairs');
  expect(await codeFrom(() => db.rows('pairs', { columns: { at: 'integer' } }))).toBe('SLUICE_INVALID_OPTION');
  expect(await codeFrom(() => db.rows('data', { columns: { at: 'integer' } }))).toBe('SLUICE_INVALID_OPTION');
  await db.aset('still', 'works');
  await db.aflush({ timeoutMs: 5_000 });
  await db.close();
  const refused = await refusal(() => open(file, { table: 'log' }));
  expect(refused.code).toBe('SLUICE_INVALID_OPTION');
  await (await open(file)).close();
});

test('a table that SQL drops and makes again is read as it is', async () => {
  const db = await open(join(tempDir(), 'a.db'), MANUAL);
  const table = db.table('t');
  table.set('a', 1);
  await db.aflush();
  expect([table.get('a'), await table.aget('a'), table.size, await table.asize()]).toEqual([1, 1, 1, 1]);
  await db.aexecute('DROP TABLE t');
  expect([table.get('a'), await table.aget('a'), table.size, await table.asize()]).toEqual([
    undefined,
    undefined,
    0,
    0,
  ]);
  expect([...table.keys()]).toEqual([]);
  table.set('b', 2);
  await db.aflush();
  expect([table.get('a'), table.get('b'), await table.aget('b'), table.size]).toEqual([undefined, 2, 2, 1]);
  await db.close();
});

onBoth(
  'copies are the caller’s own, and a fallback stands in for what is not there, on what is %s',
  async (_, down) => {
    const db = await open(join(tempDir(), 'a.db'), MANUAL);
    const entries: [string, unknown][] = [
      ['10', { n: 1 }],
      ['9', null],
      ['__proto__', 'a key like any other'],
    ];
    db.update(entries);
    await down(db);
    db.set('gone', 1);
    db.delete('gone');
    const copies = [db.copy(), await db.acopy()];
    for (const copy of copies) expect([...copy]).toEqual(entries);
    for (const dict of [db.toDict(), await db.atoDict()]) {
      expect(Object.hasOwn(dict, '__proto__')).toBe(true);
      expect(new Map(Object.entries(dict))).toEqual(new Map(entries));
    }
    (copies[0]?.get('10') as { n: number }).n = 2;
    expect(db.get('10')).toEqual({ n: 1 });
    expect([db.get('9', 'fallback'), db.get('none', 'fallback'), db.get('none')]).toEqual([
      null,
      'fallback',
      undefined,
    ]);
    // Limits in the place of a fallback are refused; with limits behind them, they are one.
    const limits = { timeoutMs: 5_000 };
    for (const read of [db.aget.bind(db), db.agetFresh.bind(db)]) {
      expect([await read('9', 'fallback'), await read('none', {}), await read('none')]).toEqual([null, {}, undefined]);
      await expect(read('9', limits)).rejects.toThrow(/come third/);
      expect(await read('none', limits, {})).toBe(limits);
      expect(await read('none', { ...limits, port: 1 })).toEqual({ ...limits, port: 1 });
    }
    await db.close();
  },
);

onBoth('models: a schema makes what is written and what is read, on what is %s', async (_, down) => {
  const db = await open(join(tempDir(), 'a.db'), MANUAL);
  const Reading = z.object({ celsius: z.coerce.number(), unit: z.literal('C').default('C') });
  db.setModel('a', { celsius: '21.5' } as never, Reading);
  await db.asetModel('b', { celsius: 1, unit: 'C' }, Reading);
  db.set('c', { celsius: 'warm' });
  expect(db.get('a')).toEqual({ celsius: 21.5, unit: 'C' });
  const before = db.stats().refusedBy.invalid;
  expect(await codeFrom(() => db.setModel('d', { celsius: 'cold' } as never, Reading))).toBe('SLUICE_VALIDATION');
  expect(await codeFrom(() => db.asetModel('d', {} as never, Reading))).toBe('SLUICE_VALIDATION');
  expect(await codeFrom(() => db.setModel('d', { celsius: 1, unit: 'C' }, {} as never))).toBe('SLUICE_INVALID_OPTION');
  expect(db.stats().refusedBy.invalid).toBe(before + 3);
  await down(db);
  expect([db.getModel('a', Reading), await db.agetModel('b', Reading)]).toEqual([
    { celsius: 21.5, unit: 'C' },
    { celsius: 1, unit: 'C' },
  ]);
  expect([db.getModel('d', Reading), await db.agetModel('d', Reading)]).toEqual([undefined, undefined]);
  const refused = await refusal(() => db.getModel('c', Reading));
  expect(refused).toMatchObject({ code: 'SLUICE_VALIDATION', problems: [expect.stringContaining('celsius: ')] });
  expect(await codeFrom(() => db.agetModel('c', Reading))).toBe('SLUICE_VALIDATION');
  await db.close();
});
