import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import * as fc from 'fast-check';
import type { Database, OpenOptions, ScanOptions, Table } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { assertOnEveryPath } from '../support/every-path.ts';
import { HeldClock } from '../support/held-clock.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

/** What a row should be: its value, and when it is gone, `Infinity` for never. */
interface Row {
  readonly value: number;
  readonly until: number;
}

class Model {
  readonly clock: HeldClock;
  readonly rows = new Map<string, Row>();
  ttlMs = Number.POSITIVE_INFINITY;

  constructor(clock: HeldClock) {
    this.clock = clock;
  }

  set(key: string, value: number): void {
    this.rows.set(key, { value, until: this.clock.now() + this.ttlMs });
  }

  get(key: string): number | undefined {
    const row = this.rows.get(key);
    return row === undefined || row.until <= this.clock.now() ? undefined : row.value;
  }

  delete(key: string): boolean {
    const there = this.get(key) !== undefined;
    this.rows.delete(key);
    return there;
  }

  entries(): [string, number][] {
    return KEYS.flatMap((key): [string, number][] => {
      const value = this.get(key);
      return value === undefined ? [] : [[key, value]];
    });
  }
}

interface Real {
  readonly clock: HeldClock;
  readonly path: string;
  db: Database;
  table: Table<number>;
  options: Options;
}

interface Options {
  readonly ttlMs: number | null;
  readonly asDefault: boolean;
  readonly mode: 'manual' | 'immediate' | 'count';
  readonly drain: boolean;
}

type Command = fc.AsyncCommand<Model, Real>;

/** Every rare path, counted, so that none is missed unseen. */
const tally = {
  commands: 0,
  goneInStaging: 0,
  goneInSqlite: 0,
  swept: 0,
  recovered: 0,
  recoveredGone: 0,
  plainOverExpiring: 0,
  expiringOverPlain: 0,
  writtenOverGone: 0,
  atTheLastMoment: 0,
  walksAcrossAnExpiry: 0,
};

const KEYS = ['', 'a', 'b', 'c', 'd', 'e', 'é', '\ue000', '😀'];
const key = fc.constantFrom(...KEYS);
const value = fc.nat(1_000);
const entries = fc.array(fc.tuple(key, value), { minLength: 1, maxLength: 4 });
const range: fc.Arbitrary<ScanOptions> = fc.record({ gte: key, reverse: fc.boolean() }, { requiredKeys: [] });
const options: fc.Arbitrary<Options> = fc.record({
  ttlMs: fc.constantFrom(1_000, 1_000, 5_000, null),
  asDefault: fc.boolean(),
  mode: fc.constantFrom('manual' as const, 'manual' as const, 'immediate' as const, 'count' as const),
  drain: fc.boolean(),
});

async function openReal(path: string, clock: HeldClock, given: Options): Promise<Real> {
  const { ttlMs, asDefault, mode, drain } = given;
  const cache = ttlMs === null ? null : ({ strategy: 'ttl', ttlMs, persist: true } as const);
  const common: OpenOptions<number> = {
    durability: 'os',
    flush: { mode, maxWrites: 3 },
    readers: 1,
    closeTimeoutMs: drain ? 20_000 : 0,
  };
  const db = await openOn<number>(machine({ clock }), path, asDefault ? { ...common, table: 't', cache } : common);
  return { clock, path, db, table: asDefault ? db : db.table<number>('t', { cache }), options: given };
}

/** What there is in the file, told by nobody. */
function inFile(path: string, sql: string): string[] {
  const file = new Sqlite(path, { readonly: true });
  try {
    return file.prepare(sql).pluck().all() as string[];
  } catch (error) {
    // Nothing was written yet.
    expect(String(error)).toContain('no such table');
    return [];
  } finally {
    file.close();
  }
}

/** The writer thread has looked after what has expired: it answers in the order in which it is asked. */
async function look({ clock, db }: Real): Promise<void> {
  // The writer answers in order: behind a statement, a look that is under way is done, and the next one has its time.
  const settled = async () => {
    await db.aexecute('SELECT 1', [], { ahead: true });
    await new Promise(setImmediate);
  };
  await settled();
  clock.advance(2_001);
  await settled();
}

function command<P>(
  name: string,
  parameters: P,
  run: (model: Model, real: Real, parameters: P) => void | Promise<void>,
): Command {
  return {
    check: () => true,
    async run(model, real) {
      tally.commands++;
      await run(model, real, parameters);
      const { accepted, recovered, applied, coalesced, deadLettered, pending } = real.db.stats();
      expect(accepted + recovered).toBe(applied + coalesced + deadLettered + pending);
      expect(deadLettered).toBe(0);
      expect(real.db.state).toBe('ok');
    },
    toString: () => `${name}(${fc.stringify(parameters)})`,
  };
}

function note(model: Model, written: string): void {
  const row = model.rows.get(written);
  if (row === undefined) return;
  if (row.until <= model.clock.now()) tally.writtenOverGone++;
  else if (model.ttlMs === Number.POSITIVE_INFINITY && row.until !== model.ttlMs) tally.plainOverExpiring++;
  else if (model.ttlMs !== Number.POSITIVE_INFINITY && row.until === Number.POSITIVE_INFINITY)
    tally.expiringOverPlain++;
}

/** Counts the rows that reads have to leave out, by where they are. */
function noteGone(model: Model, { db, path }: Real): void {
  const gone = [...model.rows].filter(([, { until }]) => until <= model.clock.now()).map(([k]) => k);
  const stored = new Set(inFile(path, 'SELECT key FROM t'));
  tally.goneInSqlite += gone.filter((k) => stored.has(k)).length;
  if (db.stats().pending > 0) tally.goneInStaging += gone.filter((k) => !stored.has(k)).length;
}

function written(model: Model, pairs: readonly (readonly [string, number])[]): void {
  for (const [k, v] of pairs) {
    note(model, k);
    model.set(k, v);
  }
}

function scanned(model: Model, { gte = '', reverse = false }: ScanOptions): [string, number][] {
  const found = model.entries().filter(([k]) => KEYS.indexOf(k) >= KEYS.indexOf(gte));
  return reverse ? found.reverse() : found;
}

async function reopen(model: Model, real: Real, next: Options, ms: number): Promise<void> {
  await real.db.close();
  model.clock.advance(ms);
  Object.assign(real, await openReal(real.path, real.clock, next));
  model.ttlMs = next.ttlMs ?? Number.POSITIVE_INFINITY;
  const { recovered } = real.db.stats();
  tally.recovered += recovered;
  if (recovered > 0 && model.entries().length < model.rows.size) tally.recoveredGone++;
}

const commands: fc.Arbitrary<Command>[] = [
  fc.tuple(key, value, fc.boolean()).map((p) =>
    command('set', p, async (model, { table }, [k, v, wait]) => {
      if (wait) await table.aset(k, v);
      else table.set(k, v);
      written(model, [[k, v]]);
    }),
  ),
  fc.tuple(entries, fc.constantFrom('setMany', 'asetMany', 'update', 'aupdate', 'setManyPartial')).map((p) =>
    command('write several', p, async (model, { table }, [pairs, how]) => {
      await table[how](pairs);
      // Of several for one key the last one counts, at the same moment.
      written(model, pairs);
    }),
  ),
  fc.tuple(key, fc.boolean()).map((p) =>
    command('delete', p, async (model, { table }, [k, wait]) => {
      expect(wait ? await table.adelete(k) : table.delete(k)).toBe(model.delete(k));
    }),
  ),
  fc.tuple(fc.uniqueArray(key, { maxLength: 3 }), fc.boolean()).map((p) =>
    command('deleteMany', p, async (model, { table }, [keys, wait]) => {
      const there = wait ? await table.adeleteMany(keys) : table.deleteMany(keys);
      expect(there).toBe(keys.filter((k) => model.delete(k)).length);
    }),
  ),
  fc.tuple(key, fc.boolean()).map((p) =>
    command('pop', p, async (model, { table }, [k, wait]) => {
      expect(wait ? await table.apop(k) : table.pop(k)).toBe(model.get(k));
      model.delete(k);
    }),
  ),
  fc.tuple(key, value, fc.boolean()).map((p) =>
    command('setDefault', p, async (model, { table }, [k, v, wait]) => {
      const expected = model.get(k) ?? v;
      if (model.get(k) === undefined) written(model, [[k, v]]);
      expect(wait ? await table.asetDefault(k, v) : table.setDefault(k, v)).toBe(expected);
    }),
  ),
  fc.constant(
    command('clear', undefined, (model, { table }) => {
      table.clear();
      model.rows.clear();
    }),
  ),
  fc.constant(
    command('read everything', undefined, async (model, real) => {
      const { table } = real;
      const expected = model.entries();
      noteGone(model, real);
      expect([...table.scan()]).toEqual(expected);
      expect([...(await table.acopy())]).toEqual(expected);
      expect([...table.keys()]).toEqual(expected.map(([k]) => k));
      expect(table.size).toBe(expected.length);
      expect(await table.asize()).toBe(expected.length);
      const many = await table.agetMany(KEYS);
      expect([...table.getMany(KEYS)]).toEqual([...many]);
      for (const k of KEYS) {
        expect(table.get(k)).toBe(model.get(k));
        expect(many.get(k)).toBe(model.get(k));
        expect(table.has(k)).toBe(model.get(k) !== undefined);
      }
    }),
  ),
  fc.tuple(range, fc.constantFrom(1, 1_000, 5_000), key, value).map((p) =>
    command('walk while time passes', p, async (model, { table, clock }, [bounds, ms, k, v]) => {
      const expected = scanned(model, bounds);
      const sync = table.scan(bounds);
      const async = table.ascan(bounds);
      const first = sync.next();
      const firstAsync = await async.next();
      clock.advance(ms);
      table.set(k, v);
      if (model.entries().length < expected.length) tally.walksAcrossAnExpiry++;
      written(model, [[k, v]]);
      expect(first.done === true ? [] : [first.value, ...sync]).toEqual(expected);
      const rest: [string, number][] = firstAsync.done === true ? [] : [firstAsync.value];
      for await (const entry of async) rest.push(entry);
      expect(rest).toEqual(expected);
    }),
  ),
  fc.constantFrom(1, 500, 999, 1_000, 4_000).map((p) =>
    command('time passes', p, (_, { clock }, ms) => {
      clock.advance(ms);
    }),
  ),
  fc.constant(
    command('time passes, until a row expires', undefined, async (model, real) => {
      const { table, clock } = real;
      const left = [...model.rows.values()].map(({ until }) => until - clock.now()).filter((ms) => ms > 0);
      const next = Math.min(...left);
      if (!Number.isFinite(next)) return;
      for (const ms of [next - 1, 1]) {
        clock.advance(ms);
        expect([...table.scan()]).toEqual(model.entries());
        expect(await table.asize()).toBe(model.entries().length);
      }
      tally.atTheLastMoment++;
      noteGone(model, real);
    }),
  ),
  fc.constant(command('aflush', undefined, async (_, { db }) => void (await db.aflush({ timeoutMs: 20_000 })))),
  fc.constant(
    command('look', undefined, async (_, real) => {
      const before = real.db.stats().expired;
      await look(real);
      tally.swept += real.db.stats().expired - before;
    }),
  ),
  fc.constant(
    command('flush, look, and compare the file', undefined, async (model, real) => {
      await real.db.aflush({ timeoutMs: 20_000 });
      await look(real);
      const live = model.entries().map(([k]) => k);
      const expiring = live.filter((k) => model.rows.get(k)?.until !== Number.POSITIVE_INFINITY);
      expect(inFile(real.path, 'SELECT key FROM t ORDER BY key')).toEqual(live);
      expect(inFile(real.path, 'SELECT key FROM _sluice_expiry_t ORDER BY key')).toEqual(expiring);
    }),
  ),
  fc
    .tuple(options, fc.constantFrom(0, 1_000))
    .map((p) => command('close and reopen', p, (model, real, [next, ms]) => reopen(model, real, next, ms))),
  fc.tuple(options, entries).map((p) =>
    command('reopen the other way, and write over what is there', p, async (model, real, [next, pairs]) => {
      await reopen(model, real, { ...next, ttlMs: real.options.ttlMs === null ? 1_000 : null }, 0);
      real.table.update(pairs);
      written(model, pairs);
    }),
  ),
];

test('rows are there until their time has come, and not a millisecond longer', { timeout: 180_000 }, async () => {
  const folder = tempDir();
  let runs = 0;
  await assertOnEveryPath(
    fc.asyncProperty(options, fc.commands(commands, { maxCommands: 80, size: 'max' }), async (given, steps) => {
      const clock = new HeldClock();
      const model = new Model(clock);
      model.ttlMs = given.ttlMs ?? Number.POSITIVE_INFINITY;
      let real: Real | undefined;
      const path = join(folder, `${runs++}.db`);
      try {
        await fc.asyncModelRun(async () => {
          real = await openReal(path, clock, given);
          return { model, real };
        }, steps);
      } finally {
        await real?.db.close();
      }
    }),
    { numRuns: 20 },
    tally,
  );
});
