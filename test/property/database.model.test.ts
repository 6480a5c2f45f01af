import { join } from 'node:path';
import * as fc from 'fast-check';
import { type Database, type OpenOptions, open, type Rows, type ScanOptions } from 'sluicedb';
import { expect, test } from 'vitest';
import { tempDir } from '../support/temp-dir.ts';

/** What the database should hold: a map, and a list of rows. */
interface Model {
  readonly keys: Map<string, unknown>;
  readonly rows: Event[];
}

interface Event {
  readonly n: number;
  readonly text: string | null;
}

interface Real {
  db: Database;
  events: Rows<Event>;
  readonly path: string;
  options: OpenOptions;
  /** What the last close has left behind. */
  left: { readonly pending: number; readonly lastSeq: number };
}

type Command = fc.AsyncCommand<Model, Real>;

const tally = {
  commands: 0,
  coalesced: 0,
  recovered: 0,
  segments: 0,
  full: 0,
  waited: 0,
  cached: 0,
  evicted: 0,
  'loaded into the cache': 0,
};

// ── what goes in ──────────────────────────────────────────────────────────────────────────────────────────────────────

const KEYS = ['', 'a', 'ab', 'abc', 'b', 'é', '\ud7ff', '\ue000', '\uffff', '😀', '😀a', '\u{10ffff}', '\u{10ffff}x'];
const key = fc.oneof({ weight: 6, arbitrary: fc.constantFrom(...KEYS) }, fc.string({ unit: 'binary', maxLength: 3 }));
const value = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }),
  fc.uint8Array({ maxLength: 20 }),
  fc.string({ minLength: 200, maxLength: 900, size: 'max' }),
);
const entries = fc.array(fc.tuple(key, value), { maxLength: 6 });
const event: fc.Arbitrary<Event> = fc.record({ n: fc.integer(), text: fc.option(fc.string({ unit: 'binary' })) });

const range: fc.Arbitrary<ScanOptions> = fc.oneof(
  fc.record({ gt: key, lt: key, reverse: fc.boolean(), limit: fc.nat(5) }, { requiredKeys: [] }),
  fc.record({ gte: key, lte: key, reverse: fc.boolean(), limit: fc.nat(5) }, { requiredKeys: [] }),
  fc.record({ prefix: key, reverse: fc.boolean(), limit: fc.nat(5) }, { requiredKeys: ['prefix'] }),
);

/** So small that hardly anything stays for long. */
const cache: fc.Arbitrary<OpenOptions['cache']> = fc.oneof(
  fc.constantFrom<OpenOptions['cache']>(null, 'unbounded'),
  fc.record({
    strategy: fc.constantFrom('lru' as const, 'unbounded' as const),
    maxEntries: fc.constantFrom(1, 3, 8),
    maxBytes: fc.constantFrom(1_024, 1 << 20),
    maxAbsent: fc.constantFrom(0, 1, 10_000),
  }),
  fc.record({
    strategy: fc.constant('ttl' as const),
    ttlMs: fc.constantFrom(1, 5, 60_000),
    maxEntries: fc.constantFrom(undefined, 4),
    maxAbsent: fc.constantFrom(0, 1, 10_000),
  }),
);

/** Limits so small that everything that is rare otherwise happens all the time. */
const options: fc.Arbitrary<OpenOptions> = fc
  .record({
    durability: fc.constantFrom(
      'memory' as const,
      'os' as const,
      'interval' as const,
      'sync' as const,
      'applied' as const,
    ),
    syncIntervalMs: fc.constantFrom(1, 20),
    mode: fc.constantFrom('auto' as const, 'immediate' as const, 'count' as const, 'time' as const, 'manual' as const),
    intervalMs: fc.constantFrom(1, 5, 1000),
    maxWrites: fc.constantFrom(1, 3, 50),
    maxBytes: fc.constantFrom(100, 5000),
    logBytes: fc.constantFrom(8192, 1 << 30),
    maxEntries: fc.constantFrom(6, 1000),
    readers: fc.constantFrom(1, 3),
    drain: fc.boolean(),
    cache,
  })
  .map(
    ({
      durability,
      syncIntervalMs,
      mode,
      intervalMs,
      maxWrites,
      maxBytes,
      logBytes,
      maxEntries,
      readers,
      drain,
      cache,
    }) => {
      // Whoever flushes by hand, or by a count that is never reached, makes sure that there is room for it.
      const byHand = mode === 'manual' || mode === 'count';
      return {
        durability,
        syncIntervalMs,
        readers,
        cache,
        flush: { mode, intervalMs, maxWrites, maxBytes },
        log: { segmentBytes: 4096, maxBytes: byHand ? 1 << 30 : logBytes },
        staging: { maxEntries: byHand ? 100_000 : maxEntries },
        maxBlockMs: 20_000,
        // Without a log there is nothing to leave a backlog in.
        closeTimeoutMs: drain || durability === 'memory' ? 20_000 : 0,
      };
    },
  );

/** What comes back: a value that has been through JSON, or the same bytes. */
function kept(given: unknown): unknown {
  return given instanceof Uint8Array ? given : (JSON.parse(JSON.stringify(given)) as unknown);
}

function inOrder(model: Model): [string, unknown][] {
  return [...model.keys].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

function inRange(model: Model, { prefix, gt, gte, lt, lte, reverse, limit }: ScanOptions): [string, unknown][] {
  const order = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));
  const found = inOrder(model).filter(
    ([k]) =>
      (prefix === undefined || k.startsWith(prefix)) &&
      (gt === undefined || order(k, gt) > 0) &&
      (gte === undefined || order(k, gte) >= 0) &&
      (lt === undefined || order(k, lt) < 0) &&
      (lte === undefined || order(k, lte) <= 0),
  );
  return (reverse ? found.reverse() : found).slice(0, limit ?? found.length);
}

/** A write that returns at once, made again when there is room for it. */
async function whenRoom<T>(db: Database, write: () => T): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return write();
    } catch (error) {
      if ((error as { code?: string }).code !== 'SLUICE_FULL' || tries > 100) throw error;
      tally.full++;
      await db.adrain({ timeoutMs: 20_000 });
    }
  }
}

async function openReal(path: string, given: OpenOptions): Promise<Real> {
  const db = await open(path, given);
  await db.aexecute('CREATE TABLE IF NOT EXISTS data (key TEXT PRIMARY KEY, value TEXT)', [], { timeoutMs: 20_000 });
  const events = await whenRoom(db, () => db.rows<Event>('events', { columns: { n: 'integer', text: 'text' } }));
  return { db, events, path, options: given, left: { pending: 0, lastSeq: 0 } };
}

async function closeReal(real: Real): Promise<void> {
  const { coalesced, logSegments, lastSeq, reads, cacheEvictions } = real.db.stats();
  tally.cached += reads.cache;
  tally.evicted += cacheEvictions;
  tally.coalesced += coalesced;
  tally.segments = Math.max(tally.segments, logSegments - 1);
  const { pending } = await real.db.close();
  if (real.options.closeTimeoutMs !== 0) expect(pending).toBe(0);
  real.left = { pending, lastSeq };
}

// ── commands ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function checkLaw({ db }: Real): void {
  const { accepted, recovered, applied, coalesced, deadLettered, pending, deadLetters } = db.stats();
  expect(accepted + recovered).toBe(applied + coalesced + deadLettered + pending);
  expect(deadLettered).toBe(0);
  expect(deadLetters.entries).toBe(0);
  expect(db.state).toBe('ok');
}

/** A command whose parameters are shown when it is part of a counterexample. */
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
      checkLaw(real);
    },
    toString: () => `${name}(${fc.stringify(parameters)})`,
  };
}

const commands: fc.Arbitrary<Command>[] = [
  fc.tuple(key, value, fc.boolean()).map((p) =>
    command('set', p, async (model, { db }, [k, v, wait]) => {
      if (wait) await db.aset(k, v);
      else await whenRoom(db, () => db.set(k, v));
      model.keys.set(k, kept(v));
      expect(db.get(k)).toEqual(kept(v));
    }),
  ),
  fc.tuple(key, fc.boolean()).map((p) =>
    command('delete', p, async (model, { db }, [k, wait]) => {
      const there = wait ? await db.adelete(k) : await whenRoom(db, () => db.delete(k));
      expect(there).toBe(model.keys.delete(k));
    }),
  ),
  fc.tuple(key, fc.boolean()).map((p) =>
    command('pop', p, async (model, { db }, [k, wait]) => {
      expect(wait ? await db.apop(k) : await whenRoom(db, () => db.pop(k))).toEqual(model.keys.get(k));
      model.keys.delete(k);
    }),
  ),
  fc.tuple(key, value, fc.boolean()).map((p) =>
    command('setDefault', p, async (model, { db }, [k, v, wait]) => {
      if (!model.keys.has(k)) model.keys.set(k, kept(v));
      const got = wait ? await db.asetDefault(k, v) : await whenRoom(db, () => db.setDefault(k, v));
      expect(got).toEqual(model.keys.get(k));
    }),
  ),
  fc.tuple(entries, fc.boolean()).map((p) =>
    command('setMany', p, async (model, { db }, [pairs, wait]) => {
      if (wait) await db.asetMany(pairs);
      else await whenRoom(db, () => db.setMany(pairs));
      for (const [k, v] of pairs) model.keys.set(k, kept(v));
    }),
  ),
  fc.tuple(fc.array(key, { maxLength: 4 }), fc.boolean()).map((p) =>
    command('deleteMany', p, async (model, { db }, [given, wait]) => {
      const wanted = [...new Set(given)];
      const there = wait ? await db.adeleteMany(wanted) : await whenRoom(db, () => db.deleteMany(wanted));
      expect(there).toBe(wanted.filter((k) => model.keys.delete(k)).length);
    }),
  ),
  fc.tuple(entries).map((p) =>
    command('aupdate', p, async (model, { db }, [pairs]) => {
      await db.aupdate(pairs);
      for (const [k, v] of pairs) model.keys.set(k, kept(v));
    }),
  ),
  fc.array(fc.tuple(key, value), { minLength: 2, maxLength: 12, size: 'max' }).map((p) =>
    command('many aset at a time', p, async (model, { db }, pairs) => {
      const done = Promise.all(pairs.map(([k, v]) => db.aset(k, v)));
      if (db.stats().waiting > 1) tally.waited++;
      await done;
      for (const [k, v] of pairs) model.keys.set(k, kept(v));
    }),
  ),
  fc.array(fc.tuple(key, value), { minLength: 8, maxLength: 12, size: 'max' }).map((p) =>
    command('many set in one turn', p, async (model, { db }, pairs) => {
      for (const [k, v] of pairs) {
        await whenRoom(db, () => db.set(k, v));
        model.keys.set(k, kept(v));
      }
    }),
  ),
  fc.tuple(fc.boolean()).map((p) =>
    command('clear', p, async (model, { db }, [wait]) => {
      if (wait) await db.aclear();
      else await whenRoom(db, () => db.clear());
      model.keys.clear();
    }),
  ),
  fc.tuple(event, fc.boolean()).map((p) =>
    command('append', p, async (model, { db, events }, [row, wait]) => {
      if (wait) await events.aappend(row);
      else await whenRoom(db, () => events.append(row));
      model.rows.push(row);
    }),
  ),
  fc.tuple(event, fc.boolean()).map((p) =>
    command('stage', p, async (model, { db }, [row, wait]) => {
      const sql = 'INSERT INTO events (n, text) VALUES (?, ?)';
      if (wait) await db.astage(sql, [row.n, row.text]);
      else await whenRoom(db, () => db.stage(sql, [row.n, row.text]));
      model.rows.push(row);
    }),
  ),
  fc.tuple(key).map((p) =>
    command('stage, on keys', p, async (model, { db }, [from]) => {
      await db.astage('DELETE FROM data WHERE key >= ?', [from]);
      // Staged SQL is seen by key reads once it is applied.
      await db.aflush({ timeoutMs: 20_000 });
      for (const [k] of inRange(model, { gte: from })) model.keys.delete(k);
    }),
  ),
  fc.tuple(key).map((p) =>
    command('get and has', p, async (model, { db }, [k]) => {
      expect(db.get(k)).toEqual(model.keys.get(k));
      expect(await db.aget(k)).toEqual(model.keys.get(k));
      expect(db.has(k)).toBe(model.keys.has(k));
      expect(await db.ahas(k)).toBe(model.keys.has(k));
    }),
  ),
  fc.tuple(fc.array(key, { maxLength: 4 })).map((p) =>
    command('getMany', p, async (model, { db }, [wanted]) => {
      const found = new Map(wanted.filter((k) => model.keys.has(k)).map((k) => [k, model.keys.get(k)]));
      expect(db.getMany(wanted)).toEqual(found);
      expect(await db.agetMany(wanted)).toEqual(found);
    }),
  ),
  fc.tuple(fc.constantFrom('written', 'deleted', 'changed by SQL', 'cleared'), key, value, fc.boolean()).map((p) =>
    command('a read across a change', p, async (model, { db }, [what, k, v, flush]) => {
      // Whatever it finds, it must leave nothing old in a cache.
      const read = db.agetMany([k, 'a']);
      const load = db.aloadAll();
      if (what === 'deleted') await db.adelete(k);
      else if (what === 'cleared') await db.aclear();
      else if (what === 'changed by SQL') await db.aexecute('DELETE FROM data WHERE key = ?', [k]);
      else await db.aset(k, v);
      if (what === 'cleared') model.keys.clear();
      else if (what === 'written') model.keys.set(k, kept(v));
      else model.keys.delete(k);
      if (flush) await db.aflush({ timeoutMs: 20_000 });
      await read;
      if ((await load) > 0) tally['loaded into the cache']++;
      expect(db.get(k)).toEqual(model.keys.get(k));
      expect(await db.aget('a')).toEqual(model.keys.get('a'));
    }),
  ),
  fc.tuple(fc.constantFrom('refresh', 'fresh', 'load', 'clear'), key, fc.boolean()).map((p) =>
    command('cache', p, async (model, { db }, [what, k, wait]) => {
      const all = what === 'clear' && wait ? undefined : k;
      if (what === 'refresh' || what === 'clear') await (wait ? db.arefresh(all) : db.refresh(all));
      else if (what === 'load') expect(wait ? await db.aloadAll() : db.loadAll()).toBe(db.stats().cacheEntries);
      else expect(wait ? await db.agetFresh(k) : db.getFresh(k)).toEqual(model.keys.get(k));
      expect(db.get(k)).toEqual(model.keys.get(k));
      if (db.isCached(k)) expect(await db.aget(k)).toEqual(model.keys.get(k));
    }),
  ),
  fc.constant(
    command('size and keys', undefined, async (model, { db }) => {
      expect(db.size).toBe(model.keys.size);
      expect(await db.asize()).toBe(model.keys.size);
      expect([...db.keys()]).toEqual(inOrder(model).map(([k]) => k));
      expect([...db.values()]).toEqual(inOrder(model).map(([, v]) => v));
    }),
  ),
  fc.tuple(range, fc.boolean()).map((p) =>
    command('scan', p, async (model, { db }, [bounds, wait]) => {
      const found: unknown[] = [];
      if (wait) for await (const pair of db.ascan(bounds)) found.push(pair);
      else found.push(...db.scan(bounds));
      expect(found).toEqual(inRange(model, bounds));
    }),
  ),
  fc.tuple(range, key, value).map((p) =>
    command('write during a scan', p, async (model, { db }, [bounds, k, v]) => {
      const expected = inRange(model, bounds);
      const scan = db.ascan(bounds);
      const sync = db.scan(bounds);
      const first = sync.next();
      const firstAsync = await scan.next();
      await db.aset(k, v);
      await db.aclear();
      await db.aset(k, v);
      model.keys.clear();
      model.keys.set(k, kept(v));
      const rest = first.done ? [] : [first.value, ...sync];
      expect(rest).toEqual(expected);
      const restAsync = firstAsync.done ? [] : [firstAsync.value];
      for await (const pair of scan) restAsync.push(pair);
      expect(restAsync).toEqual(expected);
    }),
  ),
  fc.constant(
    command('SELECT', undefined, async (model, { db }) => {
      expect(await db.afetchAll('SELECT n, text FROM events ORDER BY rowid')).toEqual(model.rows);
    }),
  ),
  fc.constant(
    command('aflush', undefined, async (_, { db }) => {
      await db.aflush({ timeoutMs: 20_000 });
      expect(db.stats().pending).toBe(0);
    }),
  ),
  fc.constant(command('adurable', undefined, (_, { db }) => db.adurable({ timeoutMs: 20_000 }))),
  fc.tuple(options).map((p) =>
    command('close and reopen', p, async (_, real, [next]) => {
      await closeReal(real);
      const { db, events } = await openReal(real.path, next);
      Object.assign(real, { db, events, options: next });
      const { recovered, lastSeq } = real.db.stats();
      expect(recovered).toBe(real.left.pending);
      expect(lastSeq).toBeGreaterThanOrEqual(real.left.lastSeq);
      tally.recovered += recovered;
    }),
  ),
];

test('a database does what a map and a list would do, at every level and in every mode', async () => {
  const folder = tempDir();
  const levels = new Set<string | undefined>();
  let runs = 0;
  await fc.assert(
    fc.asyncProperty(options, fc.commands(commands, { maxCommands: 40, size: 'max' }), async (given, steps) => {
      let real: Real | undefined;
      const path = join(folder, `${runs++}.db`);
      const setup = async () => {
        real = await openReal(path, given);
        levels.add(`${given.durability} ${given.flush?.mode}`);
        return { model: { keys: new Map(), rows: [] } as Model, real };
      };
      try {
        await fc.asyncModelRun(setup, steps);
      } finally {
        if (real !== undefined) await closeReal(real);
      }
    }),
    { numRuns: 38 },
  );
  expect(levels.size).toBeGreaterThan(10);
  for (const [what, count] of Object.entries(tally)) expect(count, what).toBeGreaterThan(0);
});
