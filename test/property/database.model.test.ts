import { join } from 'node:path';
import * as fc from 'fast-check';
import {
  type Database,
  type EncryptionKey,
  type OpenOptions,
  open,
  type Rows,
  type ScanOptions,
  type TableHook,
  type Transaction,
} from 'sluicedb';
import { expect, test } from 'vitest';
import { assertOnEveryPath } from '../support/every-path.ts';
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
  /** What it is encrypted with by now. */
  encryption: EncryptionKey | undefined;
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
  'refused by a hook': 0,
  'not deleted, for a hook': 0,
  'opened with a key': 0,
  'encrypted anew': 0,
  transactions: 0,
  'taken back': 0,
  'parts taken back': 0,
  conflicts: 0,
};

// ── what goes in ──────────────────────────────────────────────────────────────────────────────────────────────────────

const KEYS = ['', 'a', 'ab', 'abc', 'b', 'é', '\ud7ff', '\ue000', '\uffff', '😀', '😀a', '\u{10ffff}', '\u{10ffff}x'];
const key = fc.oneof({ weight: 6, arbitrary: fc.constantFrom(...KEYS) }, fc.string({ unit: 'binary', maxLength: 3 }));
const value = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }),
  fc.uint8Array({ maxLength: 20 }),
  fc.string({ minLength: 200, maxLength: 900, size: 'max' }),
  // Four of them fill a segment of the log.
  fc.constantFrom('x', '€').map((char) => char.repeat(2500)),
);
const entries = fc.array(fc.tuple(key, value), { maxLength: 6 });
const event: fc.Arbitrary<Event> = fc.record({ n: fc.integer(), text: fc.option(fc.string({ unit: 'binary' })) });

type StepOf = readonly ['set' | 'delete' | 'append', string, unknown, Event];
const steps: fc.Arbitrary<StepOf[]> = fc.array(
  fc.tuple(fc.constantFrom('set', 'set', 'delete', 'append'), key, value, event),
  {
    maxLength: 5,
  },
);

const range: fc.Arbitrary<ScanOptions> = fc.oneof(
  fc.record({ gt: key, lt: key, reverse: fc.boolean(), limit: fc.nat(5) }, { requiredKeys: [] }),
  fc.record({ gte: key, lte: key, reverse: fc.boolean(), limit: fc.nat(5) }, { requiredKeys: [] }),
  fc.record({ prefix: key, reverse: fc.boolean(), limit: fc.nat(5) }, { requiredKeys: ['prefix'] }),
);

/** What a hook minds: one key, and one kind of value. */
const minds = (k: string, v: unknown) => k === 'b' || typeof v === 'boolean';
const HOLDS_ON_TO = 'ab';

const refusing: TableHook = {
  beforeWrite(k, v) {
    if (minds(k, v)) throw new Error('not this one');
    return v;
  },
  beforeDelete(k) {
    if (k === HOLDS_ON_TO) throw new Error('not this one');
  },
};

const encryption: fc.Arbitrary<EncryptionKey> = fc.record({
  key: fc.uint8Array({ minLength: 32, maxLength: 32 }),
  algorithm: fc.constantFrom('aes-256-gcm' as const, 'chacha20-poly1305' as const, 'fernet' as const),
});

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
    hooked: fc.boolean(),
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
      hooked,
      cache,
    }) => {
      // Whoever flushes by hand, or by a count that is never reached, makes sure that there is room for it.
      const byHand = mode === 'manual' || mode === 'count';
      return {
        durability,
        syncIntervalMs,
        readers,
        cache,
        hooks: hooked ? [refusing] : [],
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

/** Whether a hook lets a write be made: if not, it is refused, and costs nothing. */
async function isLet(
  { options, db }: Real,
  minded: readonly (readonly [string, unknown])[],
  deleted: readonly string[],
  write: () => Promise<unknown>,
): Promise<boolean> {
  const hooked = options.hooks?.length === 1;
  const refused = hooked && minded.some(([k, v]) => minds(k, v));
  const held = hooked && deleted.includes(HOLDS_ON_TO);
  if (!refused && !held) return true;
  tally[refused ? 'refused by a hook' : 'not deleted, for a hook']++;
  const { lastSeq } = db.stats();
  await expect((async () => write())()).rejects.toMatchObject({ code: 'SLUICE_VALIDATION' });
  expect(db.stats().lastSeq).toBe(lastSeq);
  return false;
}

async function openReal(path: string, given: OpenOptions, encryption: EncryptionKey | undefined): Promise<Real> {
  const db = await open(path, { ...given, encryption });
  if (encryption !== undefined) tally['opened with a key']++;
  await db.aexecute('CREATE TABLE IF NOT EXISTS data (key TEXT PRIMARY KEY, value TEXT)', [], { timeoutMs: 20_000 });
  const events = await whenRoom(db, () => db.rows<Event>('events', { columns: { n: 'integer', text: 'text' } }));
  return { db, events, path, options: given, encryption, left: { pending: 0, lastSeq: 0 } };
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
    command('set', p, async (model, real, [k, v, wait]) => {
      const { db } = real;
      const write = async () => (wait ? db.aset(k, v) : whenRoom(db, () => db.set(k, v)));
      if (!(await isLet(real, [[k, v]], [], write))) return;
      await write();
      model.keys.set(k, kept(v));
      expect(db.get(k)).toEqual(kept(v));
    }),
  ),
  fc.tuple(key, fc.boolean()).map((p) =>
    command('delete', p, async (model, real, [k, wait]) => {
      const { db } = real;
      const write = () => (wait ? db.adelete(k) : whenRoom(db, () => db.delete(k)));
      if (!(await isLet(real, [], model.keys.has(k) ? [k] : [], write))) return;
      expect(await write()).toBe(model.keys.delete(k));
    }),
  ),
  fc.tuple(key, fc.boolean()).map((p) =>
    command('pop', p, async (model, real, [k, wait]) => {
      const { db } = real;
      const write = () => (wait ? db.apop(k) : whenRoom(db, () => db.pop(k)));
      if (!(await isLet(real, [], model.keys.has(k) ? [k] : [], write))) return;
      expect(await write()).toEqual(model.keys.get(k));
      model.keys.delete(k);
    }),
  ),
  fc.tuple(key, value, fc.boolean()).map((p) =>
    command('setDefault', p, async (model, real, [k, v, wait]) => {
      const { db } = real;
      const write = () => (wait ? db.asetDefault(k, v) : whenRoom(db, () => db.setDefault(k, v)));
      if (!(await isLet(real, model.keys.has(k) ? [] : [[k, v]], [], write))) return;
      if (!model.keys.has(k)) model.keys.set(k, kept(v));
      expect(await write()).toEqual(model.keys.get(k));
    }),
  ),
  fc.tuple(entries, fc.boolean()).map((p) =>
    command('setMany', p, async (model, real, [pairs, wait]) => {
      const { db } = real;
      const write = async () => (wait ? db.asetMany(pairs) : whenRoom(db, () => db.setMany(pairs)));
      if (!(await isLet(real, pairs, [], write))) return;
      await write();
      for (const [k, v] of pairs) model.keys.set(k, kept(v));
    }),
  ),
  fc.tuple(fc.array(key, { maxLength: 4 }), fc.boolean()).map((p) =>
    command('deleteMany', p, async (model, real, [given, wait]) => {
      const { db } = real;
      const wanted = [...new Set(given)];
      const write = () => (wait ? db.adeleteMany(wanted) : whenRoom(db, () => db.deleteMany(wanted)));
      const there = wanted.filter((k) => model.keys.has(k));
      if (!(await isLet(real, [], there, write))) return;
      expect(await write()).toBe(wanted.filter((k) => model.keys.delete(k)).length);
    }),
  ),
  fc.tuple(entries).map((p) =>
    command('aupdate', p, async (model, real, [pairs]) => {
      const { db } = real;
      if (!(await isLet(real, pairs, [], () => db.aupdate(pairs)))) return;
      await db.aupdate(pairs);
      for (const [k, v] of pairs) model.keys.set(k, kept(v));
    }),
  ),
  fc.array(fc.tuple(key, value), { minLength: 2, maxLength: 12, size: 'max' }).map((p) =>
    command('many aset at a time', p, async (model, { db, options }, given) => {
      const pairs = options.hooks?.length === 1 ? given.filter(([k, v]) => !minds(k, v)) : given;
      const done = Promise.all(pairs.map(([k, v]) => db.aset(k, v)));
      if (db.stats().waiting > 1) tally.waited++;
      await done;
      for (const [k, v] of pairs) model.keys.set(k, kept(v));
    }),
  ),
  fc.array(fc.tuple(key, value), { minLength: 8, maxLength: 12, size: 'max' }).map((p) =>
    command('many set in one turn', p, async (model, { db, options }, pairs) => {
      for (const [k, v] of pairs) {
        if (options.hooks?.length === 1 && minds(k, v)) continue;
        await whenRoom(db, () => db.set(k, v));
        model.keys.set(k, kept(v));
      }
    }),
  ),
  fc.tuple(fc.boolean()).map((p) =>
    command('clear', p, async (model, real, [wait]) => {
      const { db } = real;
      const write = async () => (wait ? db.aclear() : whenRoom(db, () => db.clear()));
      if (!(await isLet(real, [], [...model.keys.keys()], write))) return;
      await write();
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
    command('a read across a change', p, async (model, { db, options }, [what, k, v, flush]) => {
      if (options.hooks?.length === 1) return;
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
    command('write during a scan', p, async (model, { db, options }, [bounds, k, v]) => {
      if (options.hooks?.length === 1) return;
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
  fc
    .tuple(steps, steps, fc.constantFrom('made', 'part thrown', 'thrown'), fc.constantFrom('sync', 'async', 'conflict'))
    .map((p) =>
      command('transaction', p, async (model, { db, options }, [first, part, outcome, kind]) => {
        const hooked = options.hooks?.length === 1;
        const isFine = ([what, k, v]: StepOf) => !hooked || !(what === 'set' ? minds(k, v) : k === HOLDS_ON_TO);
        let seen = new Map(model.keys);
        const perform = (
          tx: Transaction,
          steps: readonly StepOf[],
          into: { keys: Map<string, unknown>; rows: Event[] },
        ) => {
          for (const [what, k, v, row] of steps.filter(isFine)) {
            if (what === 'append') {
              tx.rows<Event>('events').append(row);
              into.rows.push(row);
            } else if (what === 'set') {
              tx.set(k, v);
              into.keys.set(k, kept(v));
            } else expect(tx.delete(k)).toBe(into.keys.delete(k));
            expect(tx.get(k)).toEqual(into.keys.get(k));
          }
        };
        const body = (tx: Transaction) => {
          const mine = { keys: new Map(seen), rows: [] as Event[] };
          perform(tx, first, mine);
          const thrown = new Error('thrown');
          try {
            tx.transaction(() => {
              const inner = { keys: new Map(mine.keys), rows: [...mine.rows] };
              perform(tx, part, inner);
              if (outcome === 'part thrown') throw thrown;
              Object.assign(mine, inner);
            });
          } catch (error) {
            if (error !== thrown) throw error;
            tally['parts taken back']++;
          }
          if (outcome === 'thrown') throw thrown;
          return mine;
        };
        let runs = 0;
        const asynchronous = async (tx: Transaction) => {
          seen = new Map(model.keys);
          expect(await tx.aget('a')).toEqual(seen.get('a'));
          if (kind === 'conflict' && runs++ === 0) {
            // Somebody else comes between: all of it begins anew.
            await db.aset('a', 'between');
            model.keys.set('a', 'between');
          }
          return body(tx);
        };
        const made =
          kind === 'sync' ? async () => whenRoom(db, () => db.transaction(body)) : () => db.atransaction(asynchronous);
        tally.transactions++;
        if (outcome === 'thrown') {
          await expect(made()).rejects.toThrow('thrown');
          tally['taken back']++;
          return;
        }
        const { keys, rows } = await made();
        if (runs > 1) tally.conflicts++;
        model.keys.clear();
        for (const [k, v] of keys) model.keys.set(k, v);
        model.rows.push(...rows);
      }),
    ),
  fc.tuple(encryption, fc.boolean()).map((p) =>
    command('arotateKey', p, async (_, real, [next, isNew]) => {
      if (real.encryption === undefined) return;
      await real.db.arotateKey(isNew ? next : undefined, { batchSize: 2 });
      if (isNew) real.encryption = next;
      tally['encrypted anew']++;
    }),
  ),
  fc.tuple(options, fc.option(encryption)).map((p) =>
    command('close and reopen', p, async (_, real, [next, key]) => {
      await closeReal(real);
      // One that is not encrypted may take a key whenever it is opened.
      const encryption = real.encryption ?? key ?? undefined;
      const { db, events } = await openReal(real.path, next, encryption);
      Object.assign(real, { db, events, options: next, encryption });
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
  await assertOnEveryPath(
    fc.asyncProperty(
      options,
      fc.option(encryption),
      fc.commands(commands, { maxCommands: 40, size: 'max' }),
      async (given, key, steps) => {
        let real: Real | undefined;
        const path = join(folder, `${runs++}.db`);
        const setup = async () => {
          real = await openReal(path, given, key ?? undefined);
          levels.add(`${given.durability} ${given.flush?.mode}`);
          return { model: { keys: new Map(), rows: [] } as Model, real };
        };
        try {
          await fc.asyncModelRun(setup, steps);
        } finally {
          if (real !== undefined) await closeReal(real);
        }
      },
    ),
    { numRuns: 38 },
    tally,
  );
  expect(levels.size).toBeGreaterThan(10);
});
