import { type } from 'arktype';
import {
  CheckHook,
  type Database,
  ForeignKeyHook,
  type OpenOptions,
  type RowHook,
  type Schema,
  SluiceError,
  type TableHook,
  UniqueHook,
} from 'sluicedb';
import * as v from 'valibot';
import { describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { codeFrom, refusal, settle } from '../support/eventually.ts';
import { openTemp } from '../support/open-temp.ts';

interface Reading {
  room: string;
  celsius: number;
}

/** The same in three tongues: the room is trimmed, the temperature has a default. */
const SCHEMAS: Record<string, Schema<object>> = {
  zod: z.object({ room: z.string().trim(), celsius: z.number().default(20) }),
  valibot: v.object({ room: v.pipe(v.string(), v.trim()), celsius: v.optional(v.number(), 20) }),
  arktype: type({ room: 'string.trim', celsius: 'number = 20' }),
};

const manual = (options: OpenOptions = {}) => openTemp('data.db', { flush: { mode: 'manual' }, ...options });

const invalidOf = (db: Database) => db.stats().refusedBy.invalid;

/** What is thrown outside of all calls while a test runs. */
function strayErrors(): unknown[] {
  const stray: unknown[] = [];
  const listen = (error: unknown) => void stray.push(error);
  const events = ['uncaughtException', 'unhandledRejection'] as const;
  const before = events.map((event) => process.listeners(event as 'uncaughtException'));
  for (const event of events) process.removeAllListeners(event).on(event, listen);
  onTestFinished(() => {
    for (const [i, event] of events.entries()) {
      process.removeAllListeners(event);
      for (const listener of before[i] ?? []) process.on(event as 'uncaughtException', listener);
    }
  });
  return stray;
}

describe.each(Object.entries(SCHEMAS))('a schema of %s', (_, schema) => {
  test('keeps the input without coerce and stores the output with it, in tables', async () => {
    const db = await manual();
    const plain = db.table('plain', { validator: schema });
    const coerced = db.table('coerced', { validator: schema, coerce: true });
    const given = { room: ' a ' };
    for (const table of [plain, coerced]) {
      table.set('set', given);
      await table.aset('aset', given);
      table.setDefault('setDefault', given);
      await table.asetDefault('asetDefault', given);
      table.update({ update: given });
      await table.aupdate({ aupdate: given });
      table.setMany({ setMany: given });
      await table.asetMany({ asetMany: given });
      expect(table.setManyPartial({ setManyPartial: given }).size).toBe(0);
      expect((await table.asetManyPartial({ asetManyPartial: given })).size).toBe(0);
    }
    expect(new Set([...plain.values()].map((value) => JSON.stringify(value)))).toEqual(new Set(['{"room":" a "}']));
    expect([...coerced.values()]).toEqual(Array.from({ length: 10 }, () => ({ room: 'a', celsius: 20 })));
    expect(plain.size).toBe(10);
  });

  test('says what is wrong and where, and nothing of the call is accepted', async () => {
    const db = await manual();
    const table = db.table('readings', { validator: schema, coerce: true });
    const bad = { room: 'a', celsius: 'warm' };
    const calls = [
      () => table.set('a', bad),
      () => table.aset('a', bad),
      () => table.setDefault('a', bad),
      () => table.asetDefault('a', bad),
      () => table.update({ b: { room: 'b' }, a: bad }),
      () => table.aupdate({ b: { room: 'b' }, a: bad }),
      () => table.setMany({ b: { room: 'b' }, a: bad }),
      () => table.asetMany({ b: { room: 'b' }, a: bad }),
    ];
    for (const [i, call] of calls.entries()) {
      const error = await refusal(call);
      expect(error.code).toBe('SLUICE_VALIDATION');
      expect(error.message).toMatch(/^the value of 'a' does not fit its schema: .*celsius/);
      expect(error.problems).toHaveLength(1);
      expect(error.problems[0]).toMatch(/^celsius: /);
      expect(invalidOf(db)).toBe(i + 1);
    }
    const refused = table.setManyPartial({ a: bad, b: { room: 'b' }, c: { room: 3 } });
    expect([...refused.keys()]).toEqual(['a', 'c']);
    expect(refused.get('a')?.problems[0]).toMatch(/^celsius: /);
    expect([...table.keys()]).toEqual(['b']);
    expect(db.stats().accepted).toBe(1);
  });

  test('holds for rows', async () => {
    const db = await manual();
    const columns = { room: 'text', celsius: 'real' } as const;
    const plain = db.rows('plain', { columns, schema });
    const coerced = db.rows('coerced', { columns, schema, coerce: true });
    for (const rows of [plain, coerced]) {
      rows.append({ room: ' a ' });
      await rows.aappend({ room: ' a ' });
      rows.appendMany([{ room: ' a ' }]);
      await rows.aappendMany([{ room: ' a ' }]);
      const before = invalidOf(db);
      const bad = { room: 'a', celsius: 'warm' };
      expect((await refusal(() => rows.append(bad))).problems[0]).toMatch(/^celsius: /);
      expect(await codeFrom(() => rows.aappend(bad))).toBe('SLUICE_VALIDATION');
      expect(await codeFrom(() => rows.appendMany([{ room: 'b' }, bad]))).toBe('SLUICE_VALIDATION');
      expect(await codeFrom(() => rows.aappendMany([{ room: 'b' }, bad]))).toBe('SLUICE_VALIDATION');
      expect(invalidOf(db)).toBe(before + 4);
    }
    expect(await db.afetchAll('SELECT DISTINCT room, celsius, count(*) AS n FROM plain')).toEqual([
      { room: ' a ', celsius: null, n: 4 },
    ]);
    expect(await db.afetchAll('SELECT DISTINCT room, celsius, count(*) AS n FROM coerced')).toEqual([
      { room: 'a', celsius: 20, n: 4 },
    ]);
  });
});

test('a schema that throws refuses the value, and its error is the cause', async () => {
  const db = await manual();
  const cause = new Error('boom');
  const throws = (error: unknown): Schema => ({
    '~standard': {
      version: 1,
      vendor: 'test',
      validate: () => {
        throw error;
      },
    },
  });
  const error = await refusal(() => db.table('a', { validator: throws(cause) }).set('k', 1));
  expect(error).toMatchObject({ code: 'SLUICE_VALIDATION', cause });
  expect(error.message).toContain("'k'");
  const own = new SluiceError('SLUICE_UNSUPPORTED', 'mine');
  expect(await refusal(() => db.table('b', { validator: throws(own) }).set('k', 1))).toBe(own);
  const refused = db.table('c', { validator: throws(cause) }).setManyPartial({ k: 1 });
  expect(refused.get('k')?.code).toBe('SLUICE_VALIDATION');
  expect(db.stats()).toMatchObject({ accepted: 0, refusedBy: { invalid: 3 } });
});

describe('what answers with a promise', () => {
  const late = async (): Promise<never> => {
    throw new Error('too late');
  };
  const schemas: Record<string, Schema<string>> = {
    // One that rejects is let go by zod itself.
    zod: z.string().refine(async () => true),
    valibot: v.pipeAsync(v.string(), v.checkAsync(late)),
    'one of one’s own': { '~standard': { version: 1, vendor: 'test', validate: late } },
  };
  const hooks: Record<string, TableHook<string>> = {
    beforeWrite: { beforeWrite: late as never },
    keys: { keys: late as never, beforeWrite: (_, value) => value },
    CheckHook: new CheckHook<string>(late as never),
    UniqueHook: new UniqueHook<string>(late),
    ForeignKeyHook: new ForeignKeyHook<string>(late, { name: 'none', has: () => true }),
  };
  const all = [
    ...Object.entries(schemas).map(([name, validator]) => [`a schema: ${name}`, { validator }] as const),
    ...Object.entries(hooks).map(([name, hook]) => [`a hook: ${name}`, { hooks: [hook] }] as const),
  ];

  test.each(all)('is refused, and its end is nobody’s: %s', async (_, options) => {
    const stray = strayErrors();
    const db = await manual();
    const table = db.table<string>('t', options);
    expect(await codeFrom(() => table.set('a', 'x'))).toBe('SLUICE_UNSUPPORTED');
    expect(await codeFrom(() => table.asetMany({ a: 'x' }))).toBe('SLUICE_UNSUPPORTED');
    expect(db.stats()).toMatchObject({ accepted: 0, refusedBy: { invalid: 2 } });
    await settle();
    expect(stray).toEqual([]);
  });

  test('is refused at reads and deletions too', async () => {
    const stray = strayErrors();
    const db = await manual();
    const reads = db.table<number>('reads', { hooks: [{ afterRead: late as never }] });
    reads.set('a', 1);
    for (const read of [
      () => reads.get('a'),
      () => reads.aget('a'),
      () => [...reads.values()],
      () => reads.apop('a'),
    ]) {
      expect(await codeFrom(read)).toBe('SLUICE_UNSUPPORTED');
    }
    const deletes = db.table<number>('deletes', { hooks: [{ beforeDelete: late as never }] });
    deletes.set('a', 1);
    for (const remove of [
      () => deletes.delete('a'),
      () => deletes.apop('a'),
      () => deletes.adeleteMany(['a']),
      () => deletes.aclear(),
    ]) {
      expect(await codeFrom(remove)).toBe('SLUICE_UNSUPPORTED');
    }
    expect(deletes.get('a')).toBe(1);
    await settle();
    expect(stray).toEqual([]);
  });

  test('is an uncaught error where the write is staged already', async () => {
    const stray = strayErrors();
    const db = await manual();
    const table = db.table<number>('t', { hooks: [{ onWriteSuccess: late, onDeleteSuccess: late }] });
    table.set('a', 1);
    table.delete('a');
    const rows = db.rows('r', { columns: { n: 'integer' }, hooks: [{ onWriteSuccess: late }] });
    rows.append({ n: 1 });
    await settle();
    expect(stray.map((error) => (error as SluiceError).code)).toEqual(Array(3).fill('SLUICE_UNSUPPORTED'));
  });

  test('is refused by rows', async () => {
    const stray = strayErrors();
    const db = await manual();
    const columns = { n: 'integer' } as const;
    const hooked = db.rows('a', { columns, hooks: [{ beforeWrite: late as never }] });
    const checked = db.rows('b', { columns, schema: { '~standard': { version: 1, vendor: 'test', validate: late } } });
    for (const rows of [hooked, checked])
      expect(await codeFrom(() => rows.append({ n: 1 }))).toBe('SLUICE_UNSUPPORTED');
    await settle();
    expect(stray).toEqual([]);
  });
});

describe('what a table has from its database', () => {
  const even = z.number().refine((n) => n % 2 === 0, 'must be even');
  const positive = new CheckHook<number>((_, n) => n > 0, { message: 'must be positive' });

  test('is everything that it does not have itself, and null and [] are none', async () => {
    const db = await manual({ validator: even, hooks: [positive as TableHook] });
    const child = db.table<number>('child');
    expect((await refusal(() => child.set('a', -2))).message).toBe('must be positive');
    expect((await refusal(() => child.set('a', 3))).message).toContain('must be even');
    expect((await refusal(() => db.set('a', 3))).message).toContain('must be even');
    const unchecked = db.table<number>('unchecked', { validator: null });
    expect(unchecked.set('a', 3)).toBe(true);
    expect((await refusal(() => unchecked.set('a', -3))).message).toBe('must be positive');
    const unhooked = db.table<number>('unhooked', { hooks: [] });
    expect(unhooked.set('a', -2)).toBe(true);
    expect((await refusal(() => unhooked.set('a', 3))).message).toContain('must be even');
    expect(db.table<number>('bare', { hooks: [], validator: null }).set('a', -3)).toBe(true);
    const other = db.table<string>('other', { validator: z.string(), hooks: [] });
    expect(other.set('a', 'x')).toBe(true);
  });

  test('includes coerce', async () => {
    const db = await manual({ validator: z.string().trim(), coerce: true });
    const child = db.table<string>('child');
    const input = db.table<string>('input', { coerce: false });
    for (const table of [child, input]) table.set('a', ' x ');
    expect([child.get('a'), input.get('a')]).toEqual(['x', ' x ']);
  });

  test('is one table for one name, with the options that it was made with', async () => {
    const db = await manual({ hooks: [positive as TableHook] });
    const child = db.table<number>('child', { validator: even });
    expect(db.table('child')).toBe(child);
    expect(db.table('CHILD', { validator: even })).toBe(child);
    expect(db.table('child', { validator: even, hooks: [positive], coerce: false })).toBe(child);
    for (const options of [
      {},
      { validator: z.number() },
      { validator: even, coerce: true },
      { validator: even, hooks: [] },
    ]) {
      expect(await codeFrom(() => db.table('child', options))).toBe('SLUICE_INVALID_OPTION');
    }
    expect(db.table('data')).toBe(db);
  });

  test('is refused when it is none', async () => {
    const db = await manual();
    const wrong: Record<string, unknown>[] = [
      { validator: {} },
      { validator: (value: unknown) => value },
      { coerce: 'yes' },
      { hooks: positive },
      { hooks: [null] },
      { hooks: [{}] },
      { hooks: [{ beforeWrite: 'no' }] },
      { hooks: [{ beforeWrite: () => 1, keys: 'a' }] },
      { hook: [] },
    ];
    for (const options of wrong) expect(await codeFrom(() => db.table('t', options))).toBe('SLUICE_INVALID_OPTION');
    expect(await codeFrom(() => db.addHook({}))).toBe('SLUICE_INVALID_OPTION');
    for (const hook of [{ afterRead: () => 1 }, {}]) {
      const options = { columns: { n: 'integer' }, hooks: [hook as RowHook] } as const;
      expect(await codeFrom(() => db.rows('r', options))).toBe('SLUICE_INVALID_OPTION');
    }
  });
});

describe('a hook', () => {
  test.each([
    ['an Error', new Error('no'), 'SLUICE_VALIDATION', /a hook refused the key 'a': no$/],
    ['a string', 'no', 'SLUICE_VALIDATION', /a hook refused the key 'a': .*no/],
    ['undefined', undefined, 'SLUICE_VALIDATION', /a hook refused the key 'a'/],
    ['a SluiceError', new SluiceError('SLUICE_NOT_FOUND', 'mine'), 'SLUICE_NOT_FOUND', /^mine$/],
  ])('that throws %s refuses the call', async (_, thrown, code, message) => {
    const db = await manual();
    const no = () => {
      throw thrown;
    };
    const writes = db.table<number>('writes', { hooks: [{ beforeWrite: no }] });
    const deletes = db.table<number>('deletes', { hooks: [{ beforeDelete: no }] });
    const keys = db.table<number>('keys', {
      hooks: [{ keys: no, beforeWrite: (_, value) => value, beforeDelete() {} }],
    });
    deletes.set('a', 1);
    const calls = [
      () => writes.set('a', 1),
      () => writes.asetMany({ a: 1 }),
      () => writes.aset('a', 1),
      () => keys.set('a', 1),
      () => keys.aset('a', 1),
      () => deletes.delete('a'),
      () => deletes.adelete('a'),
      () => deletes.pop('a'),
      () => deletes.apop('a'),
      () => deletes.clear(),
      () => deletes.aclear(),
    ];
    for (const [i, call] of calls.entries()) {
      const error = await refusal(call);
      expect(error.code).toBe(code);
      expect(error.message).toMatch(message);
      if (code === 'SLUICE_VALIDATION') expect(error.cause).toBe(thrown);
      else expect(error).toBe(thrown);
      expect(invalidOf(db)).toBe(i + 1);
    }
    expect(writes.setManyPartial({ a: 1 }).get('a')?.code).toBe(code);
    expect(keys.setManyPartial({ a: 1 }).get('a')?.code).toBe(code);
    // A key that is not there is no business of theirs.
    expect(deletes.delete('b')).toBe(false);
    expect(deletes.get('a')).toBe(1);
  });

  test('that throws when the write is staged is heard outside of the call, and the write stays', async () => {
    const stray = strayErrors();
    const db = await manual();
    const boom = new Error('boom');
    const told: string[] = [];
    const no = () => {
      throw boom;
    };
    const table = db.table<number>('t', {
      hooks: [
        { onWriteSuccess: no, onDeleteSuccess: no },
        { keys: no, onWriteSuccess() {}, onDeleteSuccess() {} },
        {
          keys: /a/,
          onWriteSuccess: (key) => void told.push(`+${key}`),
          onDeleteSuccess: (key) => void told.push(`-${key}`),
        },
      ],
    });
    table.set('a', 1);
    expect(table.get('a')).toBe(1);
    await table.aset('b', 2);
    expect(table.pop('a')).toBe(1);
    await settle();
    expect([...table]).toEqual([['b', 2]]);
    expect(new Set(stray)).toEqual(new Set([boom]));
    // One for the hook that throws, one for the keys that do; those behind hear nothing of it.
    expect(stray.length).toBeGreaterThanOrEqual(3);
    expect(stray.length).toBeLessThanOrEqual(6);
  });

  test('may write to its own table', async () => {
    const db = await manual();
    const table: ReturnType<typeof db.table<number>> = db.table<number>('t', {
      hooks: [
        new UniqueHook<number>((_, value) => value),
        {
          keys: /^before/,
          beforeWrite(key, value) {
            table.set(`copy of ${key}`, value + 100);
            return value;
          },
        },
        {
          keys: /^after/,
          onWriteSuccess(key, value, oldValue) {
            if (value < 3) table.set(key, value + 1);
            table.set('last', (oldValue ?? 0) + 1000);
          },
        },
      ],
    });
    table.set('before', 50);
    table.set('after', 1);
    expect([...table]).toEqual([
      ['after', 3],
      ['before', 50],
      ['copy of before', 150],
      ['last', 1000],
    ]);
    table.setMany({ before: 60, before2: 70 });
    expect(await codeFrom(() => table.set('before', 70))).toBe('SLUICE_VALIDATION');
    expect(table.get('before')).toBe(60);
    await db.aflush();
    expect(table.get('copy of before2')).toBe(170);
  });

  test('is for the keys that match, wherever a regex has got to', async () => {
    const db = await manual();
    const seen: string[] = [];
    const keys = /a/g;
    keys.lastIndex = 1;
    const sticky = /b/y;
    const note = (key: string, value: number) => {
      seen.push(key);
      return value;
    };
    const table = db.table<number>('t', {
      hooks: [
        { keys, beforeWrite: note, afterRead: note },
        { keys: sticky, beforeWrite: note },
      ],
    });
    for (const key of ['a', 'a', 'xa', 'c', 'b', 'b', 'xb']) table.set(key, 1);
    expect(seen).toEqual(['a', 'a', 'xa', 'b', 'b']);
    seen.length = 0;
    expect(table.getMany(['a', 'xa', 'c']).size).toBe(3);
    expect(seen).toEqual(['a', 'xa']);
    expect(keys.lastIndex).toBe(1);
  });

  test('that was added comes behind the others, for this table only', async () => {
    const db = await manual({ hooks: [{ beforeWrite: (_, value) => `${value}1` }] });
    const early = db.table<string>('early');
    db.addHook({ beforeWrite: (_, value) => `${value}2` });
    const late = db.table<string>('late');
    for (const table of [early, late, db]) table.set('a', '');
    expect([early.get('a'), late.get('a'), db.get('a')]).toEqual(['1', '12', '12']);
    early.addHook({ afterRead: (_, value) => `${value}!` });
    expect([early.get('a'), await early.aget('a'), [...early.values()]]).toEqual(['1!', '1!', ['1!']]);
    expect(db.table('late')).toBe(late);
    expect(late.get('a')).toBe('12');
  });

  test('hears of a setMany with a key twice as of two writes', async () => {
    const db = await manual();
    const heard: unknown[] = [];
    const table = db.table<number>('t', {
      hooks: [{ onWriteSuccess: (key, value, old) => void heard.push([key, value, old]) }],
    });
    table.setMany([
      ['a', 1],
      ['b', 5],
      ['a', 2],
    ]);
    expect(heard).toEqual([
      ['a', 1, undefined],
      ['b', 5, undefined],
      ['a', 2, 1],
    ]);
  });

  test('hears of what was stored, not of what became of the object', async () => {
    const db = await manual({ staging: { maxEntries: 1 } });
    const heard: unknown[] = [];
    const table = db.table<Reading>('t', { hooks: [{ onWriteSuccess: (_, value) => void heard.push(value) }] });
    table.set('a', { room: 'a', celsius: 1 });
    const given = { room: 'b', celsius: 2 };
    const waiting = table.aset('b', given);
    given.celsius = 3;
    await db.aflush();
    await waiting;
    expect(heard).toEqual([
      { room: 'a', celsius: 1 },
      { room: 'b', celsius: 2 },
    ]);
  });
});

test('the last entry for a key decides what setManyPartial does with it', async () => {
  const db = await manual();
  const table = db.table<number>('t', { hooks: [new CheckHook<number>((_, n) => n > 0)] });
  const refused = await table.asetManyPartial([
    ['good', -1],
    ['good', 1],
    ['bad', 1],
    ['bad', -1],
  ]);
  expect([...refused.keys()]).toEqual(['bad']);
  expect([...table]).toEqual([['good', 1]]);
});

test('asetDefault takes what a hook or a schema makes a value of', async () => {
  const db = await manual();
  const table = db.table('t', { validator: z.number().default(3), coerce: true });
  expect(await table.asetDefault('a', undefined as never)).toBe(3);
  expect(table.setDefault('b', undefined as never)).toBe(3);
  expect(await codeFrom(() => table.asetDefault(3 as never, 1))).toBe('SLUICE_INVALID_KEY');
  expect(await codeFrom(() => db.asetDefault('c', undefined))).toBe('SLUICE_INVALID_VALUE');
  expect(invalidOf(db)).toBe(2);
});

describe('UniqueHook', () => {
  test('knows a date again', async () => {
    const db = await manual();
    const table = db.table<{ at: unknown }>('t', { hooks: [new UniqueHook<{ at: unknown }>('at')] });
    table.set('a', { at: new Date(5) });
    expect(await codeFrom(() => table.set('b', { at: new Date(5) }))).toBe('SLUICE_VALIDATION');
    await db.aflush();
    expect(await codeFrom(() => table.set('b', { at: new Date(5) }))).toBe('SLUICE_VALIDATION');
    for (const at of [1, '1', true, 'true', [1], null, null]) table.set(`k${table.size}`, { at });
    for (const at of [1, '1', true, 'true', [1]])
      expect(await codeFrom(() => table.set('z', { at }))).toBe('SLUICE_VALIDATION');
  });

  test('sees the rows that were appended to its table', async () => {
    const db = await manual();
    const table = db.table<number>('t', { hooks: [new UniqueHook<number>((_, value) => value)] });
    table.set('a', 1);
    await db.aflush();
    const rows = db.rows<{ key: string; value: string }>('t');
    rows.append({ key: 'b', value: '2' });
    expect(table.set('a', 1)).toBe(true);
    await db.aflush();
    expect(table.get('b')).toBe(2);
    expect(await codeFrom(() => table.set('c', 2))).toBe('SLUICE_VALIDATION');
  });

  test('refuses what two keys had before, as long as one of them has it', async () => {
    const db = await manual();
    const table = db.table<{ n: number }>('t');
    for (const key of ['a', 'b', 'c']) table.set(key, { n: 1 });
    table.addHook(new UniqueHook<{ n: number }>('n'));
    for (const key of ['c', 'b', 'a']) {
      expect(await codeFrom(() => table.set('d', { n: 1 }))).toBe('SLUICE_VALIDATION');
      table.delete(key);
    }
    expect(table.set('d', { n: 1 })).toBe(true);
  });

  /** A database without room, in which what waits is called off. */
  async function full() {
    const db = await manual({ staging: { maxEntries: 2 } });
    const unique = new UniqueHook<number>((_, value) => value);
    const table = db.table<number>('t', { hooks: [unique] });
    table.set('a', 1);
    const cancel = new AbortController();
    return { db, table, unique, signal: cancel.signal, cancel: () => cancel.abort() };
  }

  test('counts on no write that waits and may be called off', async () => {
    const { db, table, signal, cancel } = await full();
    table.set('z', 26);
    const other = db.table<number>('other');
    // It stands before the others, and is called off last.
    const lead = codeFrom(() => other.aset('x', 1, { signal }));
    const moved = codeFrom(() => table.aset('a', 2, { signal }));
    expect(await codeFrom(() => table.aset('b', 1))).toBe('SLUICE_VALIDATION');
    expect(await codeFrom(() => table.aset('b', 2))).toBe('SLUICE_VALIDATION');
    // A refused call for the same key does not make it forget the one that waits.
    expect(
      await codeFrom(() =>
        table.setMany([
          ['a', 3],
          ['b', 26],
        ]),
      ),
    ).toBe('SLUICE_VALIDATION');
    expect(await codeFrom(() => table.aset('b', 2))).toBe('SLUICE_VALIDATION');
    table.addHook({ beforeWrite: (_, value) => value });
    expect(await codeFrom(() => table.aset('b', 2))).toBe('SLUICE_VALIDATION');
    cancel();
    expect([await lead, await moved]).toEqual(['SLUICE_ABORTED', 'SLUICE_ABORTED']);
    expect(await codeFrom(() => table.aset('b', 1))).toBe('SLUICE_VALIDATION');
    await db.aflush();
    table.set('b', 2);
    expect([...table]).toEqual([
      ['a', 1],
      ['b', 2],
      ['z', 26],
    ]);
  });

  test('lets a value go from key to key in one call, and forgets nothing if the call is refused', async () => {
    const { table } = await full();
    expect(
      await codeFrom(() =>
        table.setMany([
          ['a', 2],
          ['b', 1],
          ['c', undefined as never],
        ]),
      ),
    ).toBe('SLUICE_INVALID_VALUE');
    expect(await codeFrom(() => table.set('c', 1))).toBe('SLUICE_VALIDATION');
    table.setMany([
      ['a', 2],
      ['b', 1],
    ]);
    expect([...table]).toEqual([
      ['a', 2],
      ['b', 1],
    ]);
  });
});

describe('ForeignKeyHook to its own table', () => {
  interface Person {
    readonly boss?: string;
  }
  async function people(options: OpenOptions = {}) {
    const db = await manual(options);
    const table = db.table<Person>('people');
    table.addHook(new ForeignKeyHook<Person>('boss', table));
    return { db, table };
  }

  test('sees the entries before it in the same call, and its own', async () => {
    const { db, table } = await people();
    table.setMany({ ada: {}, bob: { boss: 'ada' }, cy: { boss: 'bob' } });
    await table.aupdate({ dee: { boss: 'dee' }, eve: { boss: 'dee' } });
    table.set('fay', { boss: 'fay' });
    for (const call of [
      () => table.setMany({ gil: { boss: 'hal' }, hal: {} }),
      () => table.aupdate({ gil: { boss: 'hal' }, hal: {} }),
      () => table.set('gil', { boss: 'hal' }),
      () => table.setMany({ hal: {}, gil: { boss: 'none' } }),
      // What a refused call wanted to write is not there.
      () => table.set('gil', { boss: 'hal' }),
    ]) {
      expect(await codeFrom(call)).toBe('SLUICE_VALIDATION');
    }
    const refused = table.setManyPartial({ gil: { boss: 'ida' }, hal: { boss: 'gil' }, ida: {}, jo: { boss: 'ida' } });
    expect([...refused.keys()]).toEqual(['gil', 'hal']);
    await db.aflush();
    expect([...table.keys()]).toEqual(['ada', 'bob', 'cy', 'dee', 'eve', 'fay', 'ida', 'jo']);
  });

  test('counts on no write that waits and may be called off', async () => {
    const { db, table } = await people({ staging: { maxEntries: 1 } });
    table.set('ada', {});
    const off = new AbortController();
    const waits = codeFrom(() => table.aset('bob', {}, { signal: off.signal }));
    expect(await codeFrom(() => table.aset('cy', { boss: 'bob' }))).toBe('SLUICE_VALIDATION');
    const done = table.aset('cy', { boss: 'ada' });
    off.abort();
    expect(await waits).toBe('SLUICE_ABORTED');
    await db.aflush();
    await done;
    expect([...table.keys()]).toEqual(['ada', 'cy']);
  });

  test('is another matter than to a table of the same name in another database', async () => {
    const [one, other] = [await openTemp('one.db'), await openTemp('other.db')];
    const table = one.table<Person>('people', { hooks: [new ForeignKeyHook<Person>('boss', other.table('people'))] });
    expect(await codeFrom(() => table.set('ada', { boss: 'ada' }))).toBe('SLUICE_VALIDATION');
    expect(await codeFrom(() => table.setMany({ ada: {}, bob: { boss: 'ada' } }))).toBe('SLUICE_VALIDATION');
    other.table('people').set('ada', {});
    table.set('bob', { boss: 'ada' });
    expect([...table.keys()]).toEqual(['bob']);
  });
});

test('with coerce, what a schema leaves undefined is left out; without, and in a list, it is refused', async () => {
  const db = await manual();
  const schema = z.object({ a: z.string().optional(), deep: z.object({ b: z.number().optional() }).optional() });
  const coerced = db.table('coerced', { validator: schema, coerce: true });
  const given = { a: undefined, deep: { b: undefined } };
  const seen: unknown[] = [];
  coerced.addHook({ checkWrite: (_, value) => void seen.push(Object.keys(value as object)) });
  coerced.set('set', given);
  await coerced.asetMany({ asetMany: given });
  db.setModel('model', given, schema);
  await db.asetModel('amodel', given, schema);
  const rows = db.rows('r', { columns: { a: 'text', deep: 'text' }, schema, coerce: true });
  rows.append(given);
  expect(seen).toEqual([['deep'], ['deep']]);
  await db.aflush();
  expect(await db.afetchAll('SELECT value FROM coerced UNION SELECT value FROM data')).toEqual([
    { value: '{"deep":{}}' },
  ]);
  expect(await db.afetchAll('SELECT * FROM r')).toEqual([{ a: null, deep: '{}' }]);
  // What was given stays as it is, and what is no plain object is not looked into.
  expect(given).toEqual({ a: undefined, deep: { b: undefined } });
  const any = db.table('any', { validator: z.any(), coerce: true });
  const shared = { u: undefined };
  any.set('a', { at: new Date(0), one: shared, two: [shared, { u: 1 }] });
  expect(any.get('a')).toEqual({ at: '1970-01-01T00:00:00.000Z', one: {}, two: [{}, { u: 1 }] });
  const cycle: Record<string, unknown> = { u: undefined };
  cycle['self'] = [cycle, cycle];
  for (const value of [undefined, [undefined], { list: [1, undefined] }, cycle]) {
    expect(await codeFrom(() => any.set('b', value))).toBe('SLUICE_INVALID_VALUE');
  }
  const plain = db.table('plain', { validator: schema });
  expect(await codeFrom(() => plain.set('a', given))).toBe('SLUICE_INVALID_VALUE');
});

test('constraints look at what will be stored: after every hook, and after what the validator made of it', async () => {
  const db = await openTemp();
  const table = db.table<{ e: string }>('t', {
    validator: z.object({ e: z.string().toLowerCase() }),
    coerce: true,
    hooks: [
      new UniqueHook<{ e: string }>('e'),
      new CheckHook<{ e: string }>((_, { e }) => e === e.toLowerCase()),
      { beforeWrite: (_, { e }) => ({ e: e.trim() }) },
    ],
  });
  table.set('a', { e: ' X ' });
  expect(() => table.set('b', { e: 'x' })).toThrow(expect.objectContaining({ code: 'SLUICE_VALIDATION' }));
  expect(() => table.setMany({ c: { e: 'Y' }, d: { e: 'y ' } })).toThrow(
    expect.objectContaining({ code: 'SLUICE_VALIDATION' }),
  );
  table.set('b', { e: 'Z' });
  expect(table.toDict()).toEqual({ a: { e: 'x' }, b: { e: 'z' } });
});

test('an awaitable write with wrong wait options leaves nothing behind that a constraint could see', async () => {
  const db = await openTemp();
  const table = db.table<{ e: string }>('t', { hooks: [new UniqueHook<{ e: string }>('e')] });
  const wrong = { timeoutMs: -1 };
  for (const call of [() => table.aset('a', { e: 'x' }, wrong), () => table.asetMany({ a: { e: 'x' } }, wrong)]) {
    expect(await codeFrom(call)).toBe('SLUICE_INVALID_OPTION');
    table.set('b', { e: 'x' });
    table.delete('b');
  }
});
