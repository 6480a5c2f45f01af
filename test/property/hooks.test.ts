import { setMaxListeners } from 'node:events';
import { join } from 'node:path';
import * as fc from 'fast-check';
import {
  CheckHook,
  type Database,
  ForeignKeyHook,
  open,
  SluiceError,
  type SluiceErrorCode,
  type Table,
  type TableHook,
  UniqueHook,
} from 'sluicedb';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { eventually } from '../support/eventually.ts';
import { assertOnEveryPath } from '../support/every-path.ts';
import { tempDir } from '../support/temp-dir.ts';

interface Item {
  readonly code: string | null;
  readonly n: number;
  readonly ref?: string | null | undefined;
  readonly tag?: string | undefined;
}

/** What a table must hold, and what has changed in it past its hooks. */
interface Side {
  readonly name: 'rooms' | 'places';
  readonly stored: Map<string, Item>;
  /** Writes that wait for room, in their order. */
  waiting: [key: string, value: Item][];
  /** How it got there, as the tally has it. */
  readonly foreign: Map<string, Foreign>;
}

interface Model {
  readonly rooms: Side;
  readonly places: Side;
  /** What the hooks must have heard. */
  readonly heard: unknown[];
  invalid: number;
}

interface Real {
  db: Database;
  rooms: Table<Item>;
  places: Table<Item>;
  heard: unknown[];
  readonly path: string;
}

type Command = fc.AsyncCommand<Model, Real>;
type Name = Side['name'];
type Pair = readonly [key: string, value: Item];

type Foreign = 'SQL wrote' | 'a staged statement wrote' | 'came back when a write died' | 'a retry brought';

const LIMIT = { timeoutMs: 20_000 };

const tally: Record<string, number> = Object.fromEntries(
  [
    'not unique',
    'not unique with what SQL wrote',
    'not unique with what a staged statement wrote',
    'not unique with what came back when a write died',
    'not unique with what a retry brought',
    'not unique with a write that waits',
    'not unique with a write before it in the call',
    'handed on in one call',
    'refused by the check',
    'refused by the foreign key',
    'refused by the schema',
    'refused by beforeDelete',
    'partly refused',
    'refused key',
    'full',
    'waited',
    'called off',
    'died',
    'retried',
    'written since it died',
    'staged a statement',
    'unique as long as the statement is staged',
    'recovered',
    'old value',
    'key twice in a call',
    'changed by beforeWrite',
    'changed by afterRead',
    'changed by coerce',
  ].map((what) => [what, 0]),
);
const hit = (what: string) => {
  expect(tally).toHaveProperty([what]);
  tally[what] = (tally[what] ?? 0) + 1;
};

// ── the rules, once as hooks and once by hand ─────────────────────────────────────────────────────────────────────────

const SCHEMA = z.object({
  code: z.string().nullable(),
  n: z.number(),
  ref: z.string().nullish(),
  tag: z.string().trim().default('none'),
});

const POISON = 13;

function hooksFor(name: Name, heard: unknown[], rooms?: Table<Item>): TableHook<Item>[] {
  return [
    { keys: /^t/g, beforeWrite: (_, value) => ({ ...value, code: value.code?.toUpperCase() ?? null }) },
    { keys: (key) => key.endsWith('r'), afterRead: (_, value) => ({ ...value, tag: `${value.tag}, read` }) },
    new CheckHook<Item>((_, value) => value.n >= 0),
    new UniqueHook<Item>('code'),
    ...(rooms === undefined ? [] : [new ForeignKeyHook<Item>('ref', rooms)]),
    {
      keys: /^p/,
      beforeDelete(key, table) {
        if (table.get(key)?.n === 7) throw new Error('is kept');
      },
    },
    {
      onWriteSuccess: (key, value, old) => void heard.push(['write', name, key, value, old]),
      onDeleteSuccess: (key, old) => void heard.push(['delete', name, key, old]),
    },
  ];
}

class Refused extends Error {
  readonly code: SluiceErrorCode;
  constructor(code: SluiceErrorCode, what: string) {
    super(what);
    this.code = code;
    hit(what);
  }
}

/** What a write stores; `before` are those before it in the same call. */
function checked(model: Model, side: Side, [key, given]: Pair, before: ReadonlyMap<string, Item>): Item {
  if (!key.isWellFormed()) throw new Refused('SLUICE_INVALID_KEY', 'refused key');
  const value = key.startsWith('t') ? { ...given, code: given.code?.toUpperCase() ?? null } : given;
  if (!(value.n >= 0)) throw new Refused('SLUICE_VALIDATION', 'refused by the check');
  if (value.code !== null) assertUnique(side, key, value.code, before);
  if (side.name === 'places' && value.ref != null && !model.rooms.stored.has(value.ref)) {
    throw new Refused('SLUICE_VALIDATION', 'refused by the foreign key');
  }
  const { data } = SCHEMA.safeParse(value);
  if (data === undefined) throw new Refused('SLUICE_VALIDATION', 'refused by the schema');
  if (value.code !== given.code) hit('changed by beforeWrite');
  if (data.tag !== value.tag) hit('changed by coerce');
  return JSON.parse(JSON.stringify(data)) as Item;
}

function assertUnique(side: Side, key: string, code: string, before: ReadonlyMap<string, Item>): void {
  for (const [other, { code: taken }] of before) {
    if (other !== key && taken === code) {
      throw new Refused('SLUICE_VALIDATION', 'not unique with a write before it in the call');
    }
  }
  for (const [other, { code: taken }] of side.waiting) {
    if (other !== key && !before.has(other) && taken === code) {
      throw new Refused('SLUICE_VALIDATION', 'not unique with a write that waits');
    }
  }
  for (const [other, { code: taken }] of side.stored) {
    if (other === key || taken !== code) continue;
    if (before.has(other)) {
      hit('handed on in one call');
      continue;
    }
    const foreign = side.foreign.get(other);
    throw new Refused('SLUICE_VALIDATION', foreign === undefined ? 'not unique' : `not unique with what ${foreign}`);
  }
}

/** All of them, or a refusal. */
function allChecked(model: Model, side: Side, pairs: readonly Pair[]): Pair[] {
  const before = new Map<string, Item>();
  const writes: Pair[] = [];
  for (const pair of pairs) {
    const value = checked(model, side, pair, before);
    if (before.has(pair[0])) hit('key twice in a call');
    before.set(pair[0], value);
    writes.push([pair[0], value]);
  }
  return writes;
}

function staged(model: Model, side: Side, [key, value]: Pair): void {
  const old = side.stored.get(key);
  if (old !== undefined) hit('old value');
  model.heard.push(['write', side.name, key, value, old]);
  side.stored.set(key, value);
  side.foreign.delete(key);
}

function assertDeletable(side: Side, keys: readonly string[]): void {
  for (const key of keys) {
    if (!key.isWellFormed()) throw new Refused('SLUICE_INVALID_KEY', 'refused key');
  }
  for (const key of keys) {
    if (key.startsWith('p') && side.stored.get(key)?.n === 7) {
      throw new Refused('SLUICE_VALIDATION', 'refused by beforeDelete');
    }
  }
}

function deleted(model: Model, side: Side, keys: readonly string[]): number {
  const there = [...new Set(keys)].filter((key) => side.stored.has(key));
  for (const key of there) {
    model.heard.push(['delete', side.name, key, side.stored.get(key)]);
    side.stored.delete(key);
  }
  return there.length;
}

function seen(key: string, value: Item | undefined): Item | undefined {
  if (value === undefined || !key.endsWith('r')) return value;
  hit('changed by afterRead');
  return { ...value, tag: `${value.tag}, read` };
}

function inOrder({ stored }: Side): [string, Item][] {
  return [...stored.keys()].sort().map((key) => [key, seen(key, stored.get(key)) as Item]);
}

/** Codes that more than one key has: SQL and dead letters can do that, a write of the table cannot. */
function doubles({ stored }: Side): Set<string> {
  const codes = [...stored.values()].map(({ code }) => code).filter((code) => code !== null);
  return new Set(codes.filter((code, i) => codes.indexOf(code) !== i));
}

// ── both at a time ────────────────────────────────────────────────────────────────────────────────────────────────────

function checkSame(model: Model, real: Real): void {
  for (const name of ['rooms', 'places'] as const) expect([...real[name].entries()]).toEqual(inOrder(model[name]));
  expect(real.heard).toEqual(model.heard);
  expect(real.db.stats().refusedBy.invalid).toBe(model.invalid);
  expect(real.db.state).toBe('ok');
}

/** What an awaitable call ends with, with flushes as long as it waits. */
async function settled<T>(db: Database, call: () => Promise<T>): Promise<T> {
  let done = false;
  const result = call().finally(() => {
    done = true;
  });
  result.catch(() => undefined);
  // Some have to look something up before they wait for room.
  await eventually(async () => {
    if (done) return true;
    if (db.stats().waiting === 0) return false;
    hit('waited');
    await db.aflush(LIMIT);
    return done;
  }, 'a call that waits for room');
  return result;
}

/** A call that returns at once: a refusal for want of room must leave no trace. */
async function whenRoom<T>(model: Model, real: Real, call: () => T): Promise<T> {
  try {
    return call();
  } catch (error) {
    if ((error as SluiceError).code !== 'SLUICE_FULL') throw error;
    hit('full');
    checkSame(model, real);
    await real.db.aflush(LIMIT);
    return call();
  }
}

/** The same call on both: the same answer or the same refusal, of which nothing is left. */
async function both<T>(model: Model, expected: () => T, call: () => T | Promise<T>): Promise<void> {
  const before = [doubles(model.rooms), doubles(model.places)];
  let wanted: { readonly value: T } | { readonly code: SluiceErrorCode };
  try {
    wanted = { value: expected() };
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    wanted = { code: error.code };
  }
  let got: typeof wanted;
  try {
    got = { value: await call() };
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    got = { code: error.code };
  }
  expect(got).toEqual(wanted);
  if ('code' in wanted) model.invalid++;
  for (const [i, side] of [model.rooms, model.places].entries()) {
    for (const code of doubles(side)) expect(before[i]).toContain(code);
  }
}

function command<P>(
  name: string,
  parameters: P,
  run: (model: Model, real: Real, parameters: P) => Promise<void>,
): Command {
  return {
    check: () => true,
    async run(model, real) {
      await run(model, real, parameters);
      checkSame(model, real);
    },
    toString: () => `${name}(${fc.stringify(parameters)})`,
  };
}

// ── what goes in ──────────────────────────────────────────────────────────────────────────────────────────────────────

const KEYS = ['a', 'b', 'ar', 'ta', 'tr', 'p1', 'pr'];
const side = fc.constantFrom<Name>('rooms', 'places');
const goodKey = fc.constantFrom(...KEYS);
const key = fc.oneof({ weight: 30, arbitrary: goodKey }, { weight: 1, arbitrary: fc.constant('\ud800') });
const value: fc.Arbitrary<Item> = fc.record(
  {
    code: fc.oneof(
      { weight: 1, arbitrary: fc.constant(null) },
      { weight: 4, arbitrary: fc.constantFrom('u', 'U', 'v', 'W', 'x', 'y', 'z') },
    ),
    n: fc.oneof({ weight: 12, arbitrary: fc.constantFrom(1, 2, 7) }, { weight: 1, arbitrary: fc.constant(-1) }),
    ref: fc.oneof({ weight: 4, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: goodKey }),
    tag: fc.oneof(
      { weight: 12, arbitrary: fc.constantFrom(' a', 'b') },
      { weight: 1, arbitrary: fc.constant(3 as never as string) },
    ),
  },
  { requiredKeys: ['code', 'n'] },
);
const pairs = fc.array(fc.tuple(key, value), { maxLength: 4 });

// ── commands ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const writeOne = fc.tuple(side, key, value, fc.constantFrom('set', 'aset', 'setDefault', 'asetDefault')).map((p) =>
  command('write', p, async (model, real, [name, k, v, how]) => {
    const table = real[name];
    const mine = model[name];
    const isDefault = how === 'setDefault' || how === 'asetDefault';
    const write = async (): Promise<unknown> => {
      if (how === 'set') return whenRoom(modelBefore, real, () => typeof table.set(k, v));
      if (how === 'setDefault') return whenRoom(modelBefore, real, () => table.setDefault(k, v));
      if (how === 'asetDefault') return settled(real.db, () => table.asetDefault(k, v));
      return (await settled(real.db, () => table.aset(k, v))) ?? 'boolean';
    };
    const modelBefore = structuredClone(model);
    await both<unknown>(
      model,
      () => {
        if (isDefault && mine.stored.has(k)) return seen(k, mine.stored.get(k));
        const stored = checked(model, mine, [k, v], new Map());
        staged(model, mine, [k, stored]);
        return isDefault ? seen(k, stored) : 'boolean';
      },
      write,
    );
  }),
);

const writeMany = fc.tuple(side, pairs, fc.constantFrom('update', 'aupdate', 'setMany', 'asetMany')).map((p) =>
  command('write many', p, async (model, real, [name, given, how]) => {
    const table = real[name];
    const modelBefore = structuredClone(model);
    await both<unknown>(
      model,
      () => {
        for (const write of allChecked(model, model[name], given)) staged(model, model[name], write);
        return undefined;
      },
      async () => {
        if (how === 'update') await whenRoom(modelBefore, real, () => table.update(given));
        else if (how === 'setMany') await whenRoom(modelBefore, real, () => table.setMany(given));
        else if (how === 'aupdate') await settled(real.db, () => table.aupdate(given));
        else await settled(real.db, () => table.asetMany(given));
        return undefined;
      },
    );
  }),
);

/** One call takes a code from one key and gives it to another, or is refused half-way: then the code stays where it is. */
const handOn = fc.tuple(side, goodKey, fc.boolean(), fc.boolean()).map((p) =>
  command('hand on', p, async (model, real, [name, heir, atomic, refused]) => {
    const mine = model[name];
    const [holder, item] = [...mine.stored].find(([k, { code }]) => k !== heir && code !== null) ?? [];
    if (holder === undefined || item === undefined) return;
    await real.db.aflush(LIMIT);
    const given: Pair[] = [
      [holder, { code: null, n: 1 }],
      [heir, { code: item.code, n: refused ? -1 : 1 }],
    ];
    await both<unknown>(
      model,
      () => {
        for (const write of allChecked(model, mine, given)) staged(model, mine, write);
        return 'boolean';
      },
      () => typeof (atomic ? real[name].setMany(given) : real[name].update(given)),
    );
    if (refused) return;
    // Who had it has it no more.
    const again: Pair = [holder, { code: item.code, n: 1 }];
    await both<unknown>(
      model,
      () => {
        staged(model, mine, [holder, checked(model, mine, again, new Map())]);
        return 'boolean';
      },
      () => typeof real[name].set(...again),
    );
  }),
);

const writePartly = fc.tuple(side, pairs, fc.boolean()).map((p) =>
  command('write partly', p, async (model, real, [name, given, waits]) => {
    // A call that has to be made again would count its refusals again.
    if (!waits) await real.db.aflush(LIMIT);
    const before = new Map<string, Item>();
    const wanted = new Map<string, SluiceErrorCode>();
    for (const [k, v] of new Map(given)) {
      try {
        before.set(k, checked(model, model[name], [k, v], before));
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        wanted.set(k, error.code);
        model.invalid++;
      }
    }
    if (before.size > 0 && wanted.size > 0) hit('partly refused');
    for (const write of before) staged(model, model[name], write);
    const table = real[name];
    const refused = waits ? await settled(real.db, () => table.asetManyPartial(given)) : table.setManyPartial(given);
    expect(new Map([...refused].map(([k, { code }]) => [k, code]))).toEqual(wanted);
  }),
);

const remove = fc
  .tuple(
    side,
    fc.array(key, { minLength: 1, maxLength: 3 }),
    fc.constantFrom('delete', 'adelete', 'pop', 'apop', 'deleteMany', 'adeleteMany'),
  )
  .map((p) =>
    command('remove', p, async (model, real, [name, keys, how]) => {
      const table = real[name];
      const mine = model[name];
      const many = how === 'deleteMany' || how === 'adeleteMany';
      const wanted = many ? keys : keys.slice(0, 1);
      const [k = ''] = wanted;
      const modelBefore = structuredClone(model);
      await both<unknown>(
        model,
        () => {
          assertDeletable(mine, wanted);
          const value = seen(k, mine.stored.get(k));
          const count = deleted(model, mine, wanted);
          if (many) return count;
          return how === 'pop' || how === 'apop' ? value : count === 1;
        },
        (): unknown => {
          if (how === 'delete') return whenRoom(modelBefore, real, () => table.delete(k));
          if (how === 'pop') return whenRoom(modelBefore, real, () => table.pop(k));
          if (how === 'deleteMany') return whenRoom(modelBefore, real, () => table.deleteMany(keys));
          if (how === 'adelete') return settled(real.db, () => table.adelete(k));
          if (how === 'apop') return settled(real.db, () => table.apop(k));
          return settled(real.db, () => table.adeleteMany(keys));
        },
      );
    }),
  );

const clear = fc.tuple(side, fc.boolean()).map((p) =>
  command('clear', p, async (model, real, [name, waits]) => {
    const keys = [...model[name].stored.keys()].sort();
    const modelBefore = structuredClone(model);
    await both<unknown>(
      model,
      () => {
        assertDeletable(model[name], keys);
        deleted(model, model[name], keys);
        return undefined;
      },
      async () => {
        if (waits) await settled(real.db, () => real[name].aclear());
        else await whenRoom(modelBefore, real, () => real[name].clear());
        return undefined;
      },
    );
  }),
);

const read = fc.tuple(side, fc.array(goodKey, { maxLength: 3 })).map((p) =>
  command('read', p, async (model, real, [name, keys]) => {
    const table = real[name];
    const mine = model[name];
    for (const k of keys) {
      const wanted = seen(k, mine.stored.get(k));
      expect(table.get(k)).toEqual(wanted);
      expect(await table.aget(k)).toEqual(wanted);
      expect(table.has(k)).toBe(wanted !== undefined);
      expect(await table.ahas(k)).toBe(wanted !== undefined);
    }
    const all = inOrder(mine);
    const found = new Map(all.filter(([k]) => keys.includes(k)));
    expect(table.getMany(keys)).toEqual(found);
    expect(await table.agetMany(keys)).toEqual(found);
    expect([...table.keys()]).toEqual(all.map(([k]) => k));
    expect([...table.values()]).toEqual(all.map(([, v]) => v));
    const [gte = ''] = keys;
    expect([...table.scan({ gte, limit: 3 })]).toEqual(all.filter(([k]) => k >= gte).slice(0, 3));
    const scanned: unknown[] = [];
    for await (const pair of table.ascan({ gte, reverse: true })) scanned.push(pair);
    expect(scanned).toEqual(all.filter(([k]) => k >= gte).reverse());
  }),
);

/** Fills staging, and lets writes wait behind it: some are called off, the others are staged. */
const queue = fc
  .tuple(side, fc.array(fc.tuple(goodKey, value, fc.boolean()), { minLength: 2, maxLength: 6, size: 'max' }))
  .map((p) =>
    command('queue', p, async (model, real, [name, writes]) => {
      const mine = model[name];
      const table = real[name];
      const off = new AbortController();
      setMaxListeners(20, off.signal);
      const calls: { readonly pair: Pair; readonly calledOff: boolean; readonly done: Promise<void> }[] = [];
      for (let i = 0; real.db.stats().waiting === 0 && i < 50; i++) {
        const done = real.db.aset(`filler ${i}`, 1, LIMIT);
        done.catch(() => undefined);
      }
      for (const [k, v, calledOff] of writes) {
        let stored: Item | undefined;
        try {
          stored = checked(model, mine, [k, v], new Map());
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
          model.invalid++;
        }
        const done = table.aset(k, v, calledOff ? { ...LIMIT, signal: off.signal } : LIMIT);
        done.catch(() => undefined);
        if (stored === undefined) {
          await expect(done).rejects.toBeInstanceOf(SluiceError);
          continue;
        }
        mine.waiting.push([k, stored]);
        calls.push({ pair: [k, stored], calledOff, done });
      }
      expect(real.db.stats().waiting).toBe(calls.length + 1);
      expect(() => table.set('never', { code: 'never', n: 1 })).toThrow(
        expect.objectContaining({ code: 'SLUICE_FULL' }),
      );
      hit('full');
      checkSame(model, real);
      off.abort();
      for (const { calledOff, done } of calls) {
        if (!calledOff) continue;
        hit('called off');
        await expect(done).rejects.toMatchObject({ code: 'SLUICE_ABORTED' });
      }
      mine.waiting = [];
      for (const { calledOff, pair } of calls) if (!calledOff) staged(model, mine, pair);
      for (let i = 0; real.db.stats().waiting > 0 && i < 100; i++) await real.db.aflush(LIMIT);
      await Promise.all(calls.filter(({ calledOff }) => !calledOff).map(({ done }) => done));
    }),
  );

const sql = fc.tuple(side, goodKey, value, fc.boolean()).map((p) =>
  command('SQL', p, async (model, real, [name, k, { code }, insert]) => {
    const mine = model[name];
    if (insert) {
      const stored = { code, n: 1000, tag: 'sql' };
      await real.db.aexecute(`INSERT OR REPLACE INTO ${name} (key, value) VALUES (?, ?)`, [k, JSON.stringify(stored)]);
      mine.stored.set(k, stored);
      mine.foreign.set(k, 'SQL wrote');
      await real.db.aflush(LIMIT);
      const other: Pair = [KEYS.find((each) => each !== k) as string, { code, n: 1 }];
      await both(
        model,
        () => {
          staged(model, mine, [other[0], checked(model, mine, other, new Map())]);
          return 'boolean';
        },
        () => typeof real[name].set(...other),
      );
    } else {
      await real.db.aexecute(`DELETE FROM ${name} WHERE key = ?`, [k]);
      mine.stored.delete(k);
    }
  }),
);

/** A write dies in SQLite, after another key got the code that comes back with what it replaced. */
const die = fc.tuple(side, goodKey, goodKey, value).map((p) =>
  command('die', p, async (model, real, [name, k, heir, v]) => {
    const mine = model[name];
    const table = real[name];
    await real.db.aflush(LIMIT);
    const old = mine.stored.get(k);
    const poison = { ...v, n: POISON };
    const write = (pair: Pair) => () => {
      staged(model, mine, [pair[0], checked(model, mine, pair, new Map())]);
      return true;
    };
    const { dead, deadLettered } = { dead: real.db.stats().deadLettered, deadLettered: model.heard.length };
    const set = (pair: Pair) => () => typeof table.set(...pair) === 'boolean';
    await both(model, write([k, poison]), set([k, poison]));
    const isStaged = model.heard.length > deadLettered;
    if (isStaged && old?.code && heir !== k) {
      const inherited: Pair = [heir, { code: old.code, n: 2 }];
      await both(model, write(inherited), set(inherited));
    }
    checkSame(model, real);
    await real.db.aflush(LIMIT);
    expect(real.db.stats().deadLettered - dead).toBe(isStaged ? 1 : 0);
    if (!isStaged) return;
    hit('died');
    await real.db.dlq.clear('all');
    if (old === undefined) mine.stored.delete(k);
    else mine.stored.set(k, old);
    mine.foreign.set(k, 'came back when a write died');
    if (!old?.code) return;
    // Whether or not the heir has it too, it is taken.
    const third = KEYS.find((other) => other !== k && other !== heir) as string;
    for (const pair of [
      [heir, { code: null, n: 1 }],
      [third, { code: old.code, n: 1 }],
    ] as const) {
      await both(model, write(pair), set(pair));
    }
  }),
);

/** A write dies, and is applied after all once SQLite takes it: unless its key was written since. */
const retry = fc.tuple(side, goodKey, goodKey, value, fc.boolean()).map((p) =>
  command('retry', p, async (model, real, [name, k, other, v, isNewer]) => {
    if (other === k) return;
    const mine = model[name];
    const set = async (pair: Pair) => {
      const isRefused = model.invalid;
      await both(
        model,
        () => {
          staged(model, mine, [pair[0], checked(model, mine, pair, new Map())]);
          return true;
        },
        () => typeof real[name].set(...pair) === 'boolean',
      );
      return model.invalid === isRefused;
    };
    await real.db.aflush(LIMIT);
    const old = mine.stored.get(k);
    if (!(await set([k, { ...v, n: POISON }]))) return;
    const dead = mine.stored.get(k) as Item;
    await real.db.aflush(LIMIT);
    if (old === undefined) mine.stored.delete(k);
    else mine.stored.set(k, old);
    mine.foreign.set(k, 'came back when a write died');
    const newer = isNewer && (await set([k, { code: null, n: 2 }]));
    if (newer) hit('written since it died');
    // What a constraint knows of the table is not older than this: only the retry itself can make it look again.
    await real.db.aexecute('UPDATE poison SET armed = 0');
    await set([other, { code: 'w', n: 1 }]);
    await real.db.aflush(LIMIT);
    expect(await real.db.dlq.retry('all', LIMIT)).toMatchObject({ applied: newer ? 0 : 1, failed: 0 });
    if (!newer) {
      hit('retried');
      mine.stored.set(k, dead);
      mine.foreign.set(k, 'a retry brought');
    }
    checkSame(model, real);
    if (dead.code !== null) await set([other, { code: dead.code, n: 1 }]);
    await real.db.aexecute('UPDATE poison SET armed = 1');
  }),
);

/** Key reads and constraints see what a staged statement does when it is applied. */
const stage = fc.tuple(side, goodKey, goodKey, value, fc.boolean(), fc.boolean()).map((p) =>
  command('stage', p, async (model, real, [name, k, other, { code }, insert, isSame]) => {
    if (other === k) return;
    const mine = model[name];
    const set = (pair: Pair) =>
      both(
        model,
        () => {
          staged(model, mine, [pair[0], checked(model, mine, pair, new Map())]);
          return true;
        },
        () => typeof real[name].set(...pair) === 'boolean',
      );
    await real.db.aflush(LIMIT);
    const stored = { code, n: 1000, tag: 'staged' };
    if (insert) {
      real.db.stage(`INSERT OR REPLACE INTO ${name} (key, value) VALUES (?, ?)`, [k, JSON.stringify(stored)]);
    } else {
      real.db.stage(`DELETE FROM ${name} WHERE key = ?`, [k]);
    }
    hit('staged a statement');
    const before = model.invalid;
    await set([other, { code: isSame ? code : 'w', n: 1 }]);
    if (insert && isSame && code !== null && model.invalid === before) hit('unique as long as the statement is staged');
    checkSame(model, real);
    await real.db.aflush(LIMIT);
    if (insert) {
      mine.stored.set(k, stored);
      mine.foreign.set(k, 'a staged statement wrote');
    } else mine.stored.delete(k);
    const third = KEYS.find((each) => each !== k && each !== other) as string;
    await set([third, { code, n: 1 }]);
  }),
);

/** What comes next finds no room. */
const fill = fc.constant(
  command('fill', undefined, async (_, { db }) => {
    await expect(async () => {
      for (let i = 0; i < 10; i++) db.set(`filler ${i}`, 2);
    }).rejects.toMatchObject({ code: 'SLUICE_FULL' });
  }),
);

const flush = fc.constant(command('flush', undefined, async (_, { db }) => void (await db.aflush(LIMIT))));

const reopen = fc.constant(
  command('reopen', undefined, async (model, real) => {
    const { pending } = await real.db.close();
    Object.assign(real, await openReal(real.path));
    expect(real.db.stats().recovered).toBe(pending);
    if (pending > 0) hit('recovered');
    model.heard.length = 0;
    model.invalid = 0;
  }),
);

async function openReal(path: string): Promise<Real> {
  const heard: unknown[] = [];
  const db = await open(path, {
    flush: { mode: 'manual' },
    durability: 'os',
    staging: { maxEntries: 4 },
    closeTimeoutMs: 0,
  });
  db.on('dead-letter', () => {});
  const isNew = (await db.afetchOne("SELECT 1 FROM sqlite_schema WHERE name = 'poison'")) === undefined;
  if (isNew) {
    await db.aexecute('CREATE TABLE poison AS SELECT 1 AS armed');
    for (const name of ['rooms', 'places']) {
      await db.aexecute(`CREATE TABLE ${name} (key TEXT PRIMARY KEY, value TEXT)`);
      for (const event of ['INSERT', 'UPDATE']) {
        await db.aexecute(
          `CREATE TRIGGER ${name}_${event} BEFORE ${event} ON ${name}
           WHEN NEW.value ->> 'n' = ${POISON} AND (SELECT armed FROM poison)
           BEGIN SELECT RAISE(ABORT, 'poison'); END`,
        );
      }
    }
  }
  const rooms = db.table<Item>('rooms', { validator: SCHEMA as never, coerce: true, hooks: hooksFor('rooms', heard) });
  const places = db.table<Item>('places', {
    validator: SCHEMA as never,
    coerce: true,
    hooks: hooksFor('places', heard, rooms),
  });
  return { db, rooms, places, heard, path };
}

test('what goes through hooks, constraints and a schema does what a plain map and the rules by hand would do', {
  timeout: 180_000,
}, async () => {
  const folder = tempDir();
  let runs = 0;
  const often = [
    writeOne,
    writeMany,
    writePartly,
    handOn,
    remove,
    clear,
    read,
    queue,
    sql,
    fill,
    flush,
    writeOne,
    writeMany,
  ];
  const commands = [...often, ...often, remove, remove, stage, stage, retry, retry, die, die, reopen];
  await assertOnEveryPath(
    fc.asyncProperty(fc.commands(commands, { maxCommands: 150, size: 'max' }), async (steps) => {
      let real: Real | undefined;
      const path = join(folder, `${runs++}.db`);
      const setup = async () => {
        real = await openReal(path);
        const sideOf = (name: Name): Side => ({ name, stored: new Map(), waiting: [], foreign: new Map() });
        return { model: { rooms: sideOf('rooms'), places: sideOf('places'), heard: [], invalid: 0 } as Model, real };
      };
      try {
        await fc.asyncModelRun(setup, steps);
      } finally {
        await real?.db.close();
      }
    }),
    { numRuns: 12 },
    tally,
  );
});
