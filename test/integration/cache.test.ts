import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { type CacheOptions, type Database, type OpenOptions, open, type Schema, type Table } from 'sluicedb';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { codeFrom, eventually, refusal } from '../support/eventually.ts';
import { HeldClock } from '../support/held-clock.ts';
import { HeldReads } from '../support/held-reads.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

type Cache = OpenOptions['cache'];

const STRATEGIES: readonly [string, Exclude<Cache, null | undefined>][] = [
  ['unbounded', 'unbounded'],
  ['lru', { strategy: 'lru', maxEntries: 1_000, maxBytes: 1 << 20 }],
  ['ttl', { strategy: 'ttl', ttlMs: 60_000 }],
];
const LRU = (maxEntries: number): CacheOptions => ({ strategy: 'lru', maxEntries });

interface Opened {
  readonly db: Database;
  readonly path: string;
  readonly clock: HeldClock;
  readonly reads: HeldReads;
}

/** A database that flushes when it is asked to, on a clock that stands still, with reads that can be held up. */
async function opened(cache: Cache, options: OpenOptions = {}): Promise<Opened> {
  const path = join(tempDir(), 'data.db');
  const clock = new HeldClock();
  const reads = new HeldReads();
  const db = await openOn<unknown>(machine({ clock, spawn: reads.spawn }), path, {
    cache,
    durability: 'os',
    flush: { mode: 'manual' },
    readers: 1,
    ...options,
  });
  db.on('dead-letter', () => {});
  onTestFinished(async () => {
    reads.release();
    await db.close();
  });
  return { db, path, clock, reads };
}

/** What another program does: the database cannot know of it, so that a cached read shows. */
function elsewhere({ path }: Opened, sql: string, ...values: unknown[]): void {
  const other = new Sqlite(path);
  other.prepare(sql).run(...values);
  other.close();
}

const change = (at: Opened, key: string, json: string) =>
  elsewhere(at, 'UPDATE data SET value = ? WHERE key = ?', json, key);

/** Where the reads of a call were answered. */
async function sources<R>({ db }: Opened, read: () => R | Promise<R>): Promise<[R, Record<string, number>]> {
  const before = db.stats().reads;
  const result = await read();
  const after = db.stats().reads;
  const used = Object.entries(after).map(([source, count]) => [source, count - before[source as keyof typeof before]]);
  return [result, Object.fromEntries(used.filter(([, count]) => count !== 0)) as Record<string, number>];
}

describe.each(STRATEGIES)('with the strategy %s', (_, cache) => {
  test('a read is answered without SQLite after the first one, present or absent, in both forms', async () => {
    const at = await opened(cache);
    const { db } = at;
    db.setMany({ a: 1, b: 2, nil: null, empty: new Uint8Array() });
    await db.aflush();
    db.clearCache();
    expect(await sources(at, () => db.get('a'))).toEqual([1, { sqlite: 1 }]);
    expect(await sources(at, () => db.get('a'))).toEqual([1, { cache: 1 }]);
    expect(await sources(at, () => db.aget('a'))).toEqual([1, { cache: 1 }]);
    expect(await sources(at, () => db.aget('b'))).toEqual([2, { sqlite: 1 }]);
    expect(await sources(at, () => db.get('b'))).toEqual([2, { cache: 1 }]);
    expect(await sources(at, () => db.has('none'))).toEqual([false, { miss: 1 }]);
    expect(await sources(at, () => db.get('none', 'fallback'))).toEqual(['fallback', { cache: 1 }]);
    expect(await sources(at, () => db.ahas('none'))).toEqual([false, { cache: 1 }]);
    expect(await sources(at, () => db.aget('none as well'))).toEqual([undefined, { miss: 1 }]);
    expect(await sources(at, () => db.get('none as well', undefined))).toEqual([undefined, { cache: 1 }]);
    // The absent, JSON's null and no bytes are three things.
    for (const source of ['sqlite', 'cache']) {
      expect(await sources(at, () => db.get('nil', 'fallback'))).toEqual([null, { [source]: 1 }]);
      expect(await sources(at, () => db.get('empty'))).toEqual([new Uint8Array(), { [source]: 1 }]);
    }
    const many = await sources(at, () => db.agetMany(['a', 'none', 'nil', 'a', 'b', 'new', 'new']));
    expect(many).toEqual([
      new Map<string, unknown>([
        ['a', 1],
        ['nil', null],
        ['b', 2],
      ]),
      { cache: 5, miss: 2 },
    ]);
    expect(db.isCached('new')).toBe(true);
  });

  test('every way to write leaves in the cache what it has written', async () => {
    const at = await opened(cache);
    const { db } = at;
    let seen = 0;
    /** Makes a write, carries it into SQLite, and compares what is read without SQLite with what is in it. */
    const write = async (keys: Record<string, unknown>, make: (table: Table) => unknown) => {
      await make(db);
      await db.aflush();
      for (const [key, value] of Object.entries(keys)) {
        expect(await sources(at, () => db.get(key)), key).toEqual([value, { cache: 1 }]);
        expect(await sources(at, () => db.aget(key)), key).toEqual([value, { cache: 1 }]);
        const row = await db.afetchOne<{ value: string }>('SELECT value FROM data WHERE key = ?', [key]);
        expect(row === undefined ? undefined : JSON.parse(row.value), key).toEqual(value);
        seen++;
      }
    };
    await write({ a: 1 }, (t) => t.set('a', 1));
    await write({ a: 2 }, (t) => t.aset('a', 2));
    await write({ a: 3, b: 3 }, (t) => t.update({ a: 3, b: 3 }));
    await write({ a: 4, b: 4 }, (t) => t.aupdate({ a: 4, b: 4 }));
    await write({ a: 6, b: 5 }, (t) =>
      t.setMany([
        ['a', 5],
        ['b', 5],
        ['a', 6],
      ]),
    );
    await write({ a: 7, b: 7 }, (t) => t.asetMany({ a: 7, b: 7 }));
    await write({ a: 8 }, (t) => t.setManyPartial({ a: 8, c: undefined }));
    await write({ a: 9 }, (t) => t.asetManyPartial({ a: 9, c: undefined }));
    await write({ c: 1, a: 9 }, (t) => [t.setDefault('c', 1), t.setDefault('a', 1)]);
    await write({ d: 1, a: 9 }, async (t) => [await t.asetDefault('d', 1), await t.asetDefault('a', 1)]);
    const schema: Schema<string> = { '~standard': { version: 1, vendor: 'test', validate: () => ({ value: 'made' }) } };
    await write({ a: 'made' }, (t) => t.setModel('a', 'given', schema));
    await write({ b: 'made' }, (t) => t.asetModel('b', 'given', schema));
    await write({ a: undefined, z: undefined }, (t) => [t.delete('a'), t.delete('z')]);
    await write({ b: undefined }, (t) => t.adelete('b'));
    await write({ c: undefined }, (t) => t.pop('c'));
    await write({ d: undefined }, (t) => t.apop('d'));
    db.setMany({ a: 1, b: 1, c: 1, d: 1 });
    await write({ a: undefined, b: undefined }, (t) => t.deleteMany(['a', 'b']));
    await write({ c: undefined, d: undefined }, (t) => t.adeleteMany(['c', 'd']));
    expect(seen).toBe(27);
    for (const clear of [() => db.clear(), () => db.aclear()]) {
      db.set('a', 1);
      db.set('b', 1);
      await db.aflush();
      await clear();
      expect([db.get('a'), await db.aget('b')]).toEqual([undefined, undefined]);
      db.set('b', 2);
      await db.aflush();
      expect([db.get('a'), await db.aget('b')]).toEqual([undefined, 2]);
    }
  });

  test('a write that has waited for room is in the cache when its turn has come', async () => {
    const at = await opened(cache, { staging: { maxEntries: 2 } });
    const { db } = at;
    db.setMany({ a: 0, b: 0, c: 0 });
    await db.aflush();
    db.update({ x: 1, y: 1 });
    const waiting = Promise.all([
      db.aset('a', 1),
      db.adelete('b'),
      db.asetMany({ c: 1, d: 1 }),
      db.aupdate({ e: 1, f: 1 }),
    ]);
    expect(db.stats().waiting).toBe(4);
    expect([db.get('a'), db.get('b'), db.get('c')]).toEqual([0, 0, 0]);
    let done = false;
    void waiting.finally(() => {
      done = true;
    });
    await eventually(async () => {
      await db.aflush();
      return done;
    }, 'all writes get room');
    await db.aflush();
    const keys = ['a', 'b', 'c', 'd', 'e', 'f'];
    const all = new Map([...keys].filter((key) => key !== 'b').map((key) => [key, 1]));
    expect(await sources(at, () => db.getMany(keys))).toEqual([all, { cache: 6 }]);
  });

  test('what a reader gets is its own, and so is what a writer keeps', async () => {
    const { db } = await opened(cache);
    const given = { list: [1] };
    const bytes = Uint8Array.of(1, 2, 3);
    db.setMany({ object: given, bytes });
    await db.aflush();
    for (const step of ['written', 'loaded']) {
      given.list.push(9);
      bytes.fill(9);
      for (let i = 0; i < 2; i++) {
        const object = db.get('object') as typeof given;
        const read = db.get('bytes') as Uint8Array;
        expect([object, read], step).toEqual([{ list: [1] }, Uint8Array.of(1, 2, 3)]);
        object.list.push(8);
        read.fill(8);
        const later = (await db.agetMany(['object', 'bytes'])) as Map<string, never>;
        expect([...later.values()], step).toEqual([{ list: [1] }, Uint8Array.of(1, 2, 3)]);
        (later.get('bytes') as unknown as Uint8Array).fill(7);
      }
      db.clearCache();
    }
  });

  test('each read of a value is as the first, and its own, whatever stored it', async () => {
    const at = await opened(cache);
    const { db } = at;
    const texts = [
      '{}',
      '{"a":1,"b":"two","c":true,"d":null}',
      '{"b":1,"a":2,"10":3,"9":4}',
      '{ "a" : 1.0, "a" : 2 }',
      '{"__proto__":1,"toJSON":2,"constructor":3}',
      '{"__proto__":{"a":1}}',
      '{"a":-0}',
      '{"a":1e999}',
      '{"a":"\\ud800 \\u0000 é 😀"}',
      '{"a":{"b":1}}',
      '{"a":[1]}',
      '[1,{"a":1}]',
      '"text"',
      'null',
      '-0',
      JSON.stringify(Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`field${i}`, i]))),
      // More shapes than are kept.
      ...Array.from({ length: 100 }, (_, i) => `{"shape${i}":${i}}`),
    ];
    db.set('first', 1);
    await db.aflush();
    for (const [i, json] of texts.entries()) elsewhere(at, 'INSERT INTO data VALUES (?, ?)', `k${i}`, json);
    for (let round = 0; round < 3; round++) {
      for (const [i, json] of texts.entries()) {
        const expected = JSON.parse(json) as unknown;
        const read = db.get(`k${i}`);
        expect(read).toStrictEqual(expected);
        expect(Object.keys(Object(read))).toEqual(Object.keys(Object(expected)));
        if (typeof read === 'object' && read !== null) (read as Record<string, unknown>)['a'] = 'changed';
        expect(db.transaction((tx) => tx.get(`k${i}`))).toStrictEqual(expected);
        expect(await db.aget(`k${i}`)).toStrictEqual(expected);
      }
    }
    expect(db.stats().reads.cache).toBeGreaterThan(texts.length * 6);
  });

  test('hooks and the validator see what they would see without it', async () => {
    const { db } = await opened(cache);
    const table = db.table<{ n: number }>('hooked', {
      validator: { '~standard': { version: 1, vendor: 'test', validate: () => ({ value: { n: 7 } }) } },
      coerce: true,
    });
    table.set('a', { n: 1 });
    await db.aflush();
    expect(table.get('a')).toEqual({ n: 7 });
    const heard: unknown[] = [];
    table.addHook({
      afterRead: (_, value) => ({ n: value.n + 1 }),
      onWriteSuccess: (_, value, old) => heard.push([value, old]),
      onDeleteSuccess: (_, old) => heard.push(old),
    });
    expect([table.get('a'), await table.aget('a'), table.getFresh('a'), table.get('a')]).toEqual(
      Array(4).fill({ n: 8 }),
    );
    table.set('a', { n: 2 });
    expect(table.pop('a')).toEqual({ n: 8 });
    expect(heard).toEqual([[{ n: 7 }, { n: 7 }], { n: 7 }]);
  });

  test('keys are keys: those that every object has, and those that differ in case', async () => {
    const { db } = await opened(cache);
    const keys = ['__proto__', 'constructor', 'toString', 'a', 'A', '', 'é', 'e\u0301'];
    for (const key of keys) expect([db.get(key), db.has(key)]).toEqual([undefined, false]);
    db.setMany(keys.map((key) => [key, key] as const));
    await db.aflush();
    for (const key of keys) expect(db.get(key)).toBe(key);
    db.clearCache();
    expect([...(await db.agetMany(keys))]).toEqual(keys.map((key) => [key, key]));
    db.delete('__proto__');
    expect([db.get('__proto__'), db.get('constructor')]).toEqual([undefined, 'constructor']);
  });
});

describe('what a cache lets go', () => {
  test('lru: what was not used for the longest time, and nothing that is still needed', async () => {
    const at = await opened(LRU(2));
    const { db } = at;
    db.set('a', 1);
    db.set('b', 2);
    await db.aflush();
    db.get('a');
    db.set('c', 3);
    // What is staged is not lost with its place in the cache.
    db.update({ d: 4, e: 5 });
    expect(db.getMany(['a', 'b', 'c', 'd', 'e']).size).toBe(5);
    await db.aflush();
    expect([...'abcde'].filter((key) => db.isCached(key)).length).toBe(2);
    db.clearCache();
    for (const key of ['a', 'b', 'a', 'c']) db.get(key);
    expect([...'abc'].filter((key) => db.isCached(key))).toEqual(['a', 'c']);
    await db.aget('a');
    await db.aget('b');
    expect([...'abc'].filter((key) => db.isCached(key))).toEqual(['a', 'b']);
    // Asking whether it is cached is no use of it.
    db.isCached('a');
    db.get('c');
    expect([...'abc'].filter((key) => db.isCached(key))).toEqual(['b', 'c']);
    expect(db.stats().cacheEntries).toBe(2);
    expect(db.stats().cacheEvictions).toBeGreaterThanOrEqual(4);
  });

  test('unbounded with a limit: what was written or loaded longest ago, used or not', async () => {
    const { db } = await opened({ strategy: 'unbounded', maxEntries: 2 });
    db.setMany({ a: 1, b: 2, c: 3 });
    await db.aflush();
    db.clearCache();
    for (const key of ['a', 'b', 'a', 'c']) db.get(key);
    expect([...'abc'].filter((key) => db.isCached(key))).toEqual(['b', 'c']);
  });

  test('unbounded without one: nothing', async () => {
    const { db } = await opened('unbounded');
    const all = Array.from({ length: 20_000 }, (_, i) => [`key ${i}`, i] as const);
    db.setMany(all);
    await db.aflush();
    expect(all.every(([key]) => db.isCached(key))).toBe(true);
    expect(db.stats()).toMatchObject({ cacheEntries: 20_000, cacheEvictions: 0 });
  });

  test('by size: as many as fit, and nothing that never would', async () => {
    const { db } = await opened({ strategy: 'lru', maxBytes: 1_024 });
    db.set('a', 'x'.repeat(200));
    expect(db.stats().cacheBytes).toBe(100 + 1 + 202);
    db.set('bytes', new Uint8Array(200));
    expect(db.stats().cacheBytes).toBe(303 + 100 + 5 + 200);
    db.set('c', 'x'.repeat(500));
    expect(db.stats().cacheBytes).toBeLessThanOrEqual(1_024);
    expect(db.stats()).toMatchObject({ cacheEntries: 2, cacheEvictions: 1 });
    db.set('c', 'x'.repeat(2_000));
    await db.aflush();
    // The value that it had before must not stay either.
    expect(db.isCached('c')).toBe(false);
    expect(db.get('c')).toBe('x'.repeat(2_000));
    expect(db.isCached('c')).toBe(false);
    expect(db.isCached('bytes')).toBe(true);
    db.delete('bytes');
    expect(db.stats()).toMatchObject({ cacheEntries: 0, cacheBytes: 0 });
  });

  test.each([undefined, 2])(
    'ttl with maxEntries %s: what was written or loaded too long ago, read or not',
    async (max) => {
      const at = await opened({ strategy: 'ttl', ttlMs: 1_000, maxEntries: max });
      const { db, clock } = at;
      db.set('a', 1);
      await db.aflush();
      db.get('absent');
      change(at, 'a', '2');
      elsewhere(at, 'INSERT INTO data VALUES (?, ?)', 'absent', '1');
      for (const ms of [400, 400, 200]) {
        clock.advance(ms);
        expect([db.get('a'), await db.aget('a'), db.get('absent'), db.isCached('a')]).toEqual([1, 1, undefined, true]);
      }
      clock.advance(1);
      expect([db.isCached('a'), db.isCached('absent')]).toEqual([false, false]);
      expect(await sources(at, () => db.get('a'))).toEqual([2, { sqlite: 1 }]);
      expect(db.get('absent')).toBe(1);
      // Counted from the load, and anew from a write.
      clock.advance(900);
      db.set('a', 3);
      await db.aflush();
      change(at, 'a', '4');
      clock.advance(900);
      expect(db.get('a')).toBe(3);
      clock.advance(101);
      expect(await db.aget('a')).toBe(4);
    },
  );

  test('ttl: what has expired makes room as others come', async () => {
    const { db, clock } = await opened({ strategy: 'ttl', ttlMs: 1_000 });
    for (let i = 0; i < 100; i++) db.set(`old ${i}`, i);
    clock.advance(1_001);
    expect(db.stats().cacheEntries).toBe(100);
    for (let i = 0; i < 100; i++) db.set(`new ${i}`, i);
    expect(db.stats()).toMatchObject({ cacheEntries: 100, cacheEvictions: 0 });
  });

  test('keys that are not there: the last few, none that is very long, and none at all at 0', async () => {
    const { db } = await opened({ strategy: 'unbounded', maxAbsent: 2 });
    for (const key of ['a', 'b', 'a', 'c']) db.get(key);
    expect([...'abc'].filter((key) => db.isCached(key))).toEqual(['a', 'c']);
    const long = 'x'.repeat(1_025);
    db.get(long);
    expect(db.isCached(long)).toBe(false);
    expect(db.isCached('a')).toBe(true);
    const without = db.table('without', { cache: { strategy: 'unbounded', maxAbsent: 0 } });
    without.get('a');
    without.set('b', 1);
    await db.aflush();
    without.get('b');
    expect([without.isCached('a'), without.isCached('b')]).toEqual([false, true]);

    const usual = db.table('usual', { cache: 'unbounded' });
    for (let i = 0; i < 10_010; i++) usual.get(`none ${i}`);
    let remembered = 0;
    for (let i = 0; i < 10_010; i++) if (usual.isCached(`none ${i}`)) remembered++;
    expect(remembered).toBe(10_000);
    expect(db.stats().cacheEvictions).toBe(0);
  });
});

describe('nothing in it is old', () => {
  test('a write that dies gives way to the value that SQLite has', async () => {
    const at = await opened('unbounded');
    const { db } = at;
    db.setMany({ a: 'first', b: 'taken' });
    await db.aexecute('CREATE UNIQUE INDEX one ON data (value)');
    await db.aset('c', 'only staged');
    expect([db.get('a'), db.get('b')]).toEqual(['first', 'taken']);
    db.set('a', 'taken');
    db.set('new', 'taken');
    db.delete('b');
    db.set('b', 'taken');
    // Read while it is staged, too: that must not make it stay.
    expect([db.get('a'), await db.aget('new')]).toEqual(['taken', 'taken']);
    const { dead } = await db.aflush();
    expect(dead).toBeGreaterThan(0);
    expect([db.get('a'), await db.aget('new'), db.get('b'), db.get('c')]).toEqual([
      'first',
      undefined,
      'taken',
      'only staged',
    ]);
    // Retried when nothing is in their way any more, they change keys again.
    db.delete('b');
    await db.aflush();
    expect([db.get('a'), db.has('new')]).toEqual(['first', false]);
    await db.aexecute('DROP INDEX one');
    expect([db.get('a'), db.has('new')]).toEqual(['first', false]);
    const { applied } = await db.dlq.retry('all');
    expect(applied).toBe(dead);
    expect([db.get('a'), db.get('new')]).toEqual(['taken', 'taken']);
  });

  test('SQL, run at once or staged, and rows that are appended, show', async () => {
    const at = await opened('unbounded');
    const { db } = at;
    const other = db.table('other');
    db.setMany({ a: 1, b: 1 });
    other.set('a', 1);
    await db.aflush();
    expect([db.get('a'), other.get('a'), db.get('none')]).toEqual([1, 1, undefined]);
    await db.aexecute("UPDATE data SET value = '2' WHERE key = 'a'");
    expect([db.get('a'), await db.aget('b')]).toEqual([2, 1]);
    await db.aexecute("UPDATE other SET value = '2'", { ahead: true });
    expect(other.get('a')).toBe(2);

    db.stage("UPDATE data SET value = '3' WHERE key = 'a'");
    db.stage("INSERT INTO data VALUES ('none', '3')");
    expect([db.get('a'), db.get('b'), db.get('none')]).toEqual([2, 1, undefined]);
    await db.aflush();
    expect([db.get('a'), await db.aget('b'), db.get('none')]).toEqual([3, 1, 3]);
    // With a write of the same key before it, and after it.
    db.set('a', 4);
    db.stage("UPDATE data SET value = '5'");
    db.set('b', 6);
    await db.aflush();
    expect([db.get('a'), db.get('b')]).toEqual([5, 6]);

    expect(db.get('row')).toBe(undefined);
    db.rows<{ key: string; value: string }>('data').append({ key: 'row', value: '7' });
    await db.aflush();
    expect(db.get('row')).toBe(7);
    await db.aexecute('DROP TABLE other');
    expect(other.get('a')).toBe(undefined);
    // What is left alone stays: this was about what is dropped, not about a cache that holds nothing.
    db.get('a');
    db.set('c', 1);
    await db.aflush();
    expect(await sources(at, () => db.get('a'))).toEqual([5, { cache: 1 }]);
  });

  test('SQL that was found in the log at open shows when it is applied', async () => {
    const path = join(tempDir(), 'data.db');
    const options: OpenOptions = { durability: 'os', flush: { mode: 'manual' }, closeTimeoutMs: 0, cache: 'unbounded' };
    const first = await open(path, { ...options, closeTimeoutMs: 10_000 });
    first.set('a', 1);
    await first.aflush();
    await first.astage("UPDATE data SET value = '2'");
    await first.astage("INSERT INTO data VALUES ('b', '2')");
    // What flushes here is not asked to, but by closing.
    await first.close();
    const second = await open(path, options);
    expect([second.get('a'), second.get('b')]).toEqual([2, 2]);
    await second.astage("UPDATE data SET value = '3'");
    await second.close();
    const third = await open(path, options);
    expect(third.stats().recovered).toBe(1);
    const before = third.get('a');
    expect([2, 3]).toContain(before);
    await third.aflush();
    expect(third.get('a')).toBe(3);
    await third.close();
  });

  test.each([
    [
      'a trigger',
      'CREATE TABLE log (n); CREATE TRIGGER t AFTER INSERT ON log BEGIN UPDATE data SET value = new.n; END',
      async (db: Database) => db.rows<{ n: number }>('log').append({ n: 2 }),
    ],
    [
      'a trigger of its own',
      "CREATE TRIGGER t AFTER UPDATE ON data WHEN new.key = 'b' BEGIN UPDATE data SET value = '2' WHERE key = 'a'; END",
      async (db: Database) => db.set('b', 5),
    ],
    [
      'a foreign key',
      'DROP TABLE data; CREATE TABLE parent (key TEXT PRIMARY KEY, value TEXT); ' +
        "INSERT INTO parent VALUES ('a', '1'); " +
        'CREATE TABLE data (key TEXT PRIMARY KEY REFERENCES parent (key) ON DELETE CASCADE, value TEXT); ' +
        "INSERT INTO data VALUES ('a', '1')",
      async (db: Database) => db.table('parent').delete('a'),
    ],
    [
      'an order of keys of its own',
      'DROP TABLE data; CREATE TABLE data (key TEXT COLLATE NOCASE PRIMARY KEY, value TEXT); ' +
        "INSERT INTO data VALUES ('a', '1')",
      async (db: Database) => db.set('A', 2),
    ],
    [
      'a constraint that makes room',
      'DROP TABLE data; CREATE TABLE data (key TEXT PRIMARY KEY, value TEXT UNIQUE ON CONFLICT REPLACE); ' +
        "INSERT INTO data VALUES ('a', '1')",
      async (db: Database) => db.set('new', 1),
    ],
  ])('what %s makes of a write shows', async (_, sql, write) => {
    const at = await opened('unbounded');
    const { db } = at;
    db.setMany({ a: 1, b: 1 });
    await db.aflush();
    for (const statement of sql.split(/; (?!END|UPDATE data SET value = '2' WHERE key = 'a'; END)/)) {
      await db.aexecute(statement);
    }
    expect([db.get('a'), await db.aget('a')]).toEqual([1, 1]);
    await write(db);
    await db.aflush();
    const row = await db.afetchOne<{ value: string }>("SELECT value FROM data WHERE key = 'a'");
    const now = row === undefined ? undefined : JSON.parse(row.value);
    expect(now).not.toBe(1);
    expect([db.get('a'), await db.aget('a')]).toEqual([now, now]);
  });

  test('a table of one writer stays in the cache where there are constraints without such effects', async () => {
    const at = await opened('unbounded');
    const { db } = at;
    await db.aexecute('CREATE TABLE parent (id INTEGER PRIMARY KEY)');
    await db.aexecute('CREATE TABLE child (id INTEGER REFERENCES parent (id))');
    await db.aexecute('CREATE TABLE IF NOT EXISTS "data" ("key" TEXT PRIMARY KEY, "value" TEXT)');
    db.set('a', 1);
    await db.aflush();
    db.get('a');
    db.set('b', 1);
    await db.aflush();
    expect(await sources(at, () => db.get('a'))).toEqual([1, { cache: 1 }]);
  });

  describe('a read that was on its way', () => {
    /** Has a read of `a`, that found 1, arrive when something else has happened. */
    async function late(cache: Cache, happens: (at: Opened) => unknown, keys = ['a']): Promise<Opened> {
      const at = await opened(cache);
      const { db, reads } = at;
      db.setMany({ a: 1, other: 1 });
      await db.aflush();
      db.clearCache();
      await db.aget('other');
      reads.hold();
      const read = db.agetMany(keys);
      await eventually(() => reads.waiting === 1, 'the answer is on its way');
      await happens(at);
      reads.release();
      expect((await read).get('a')).toBe(1);
      return at;
    }

    test('counts where nothing has happened', async () => {
      const at = await late('unbounded', ({ db }) => db.set('other', 2), ['a', 'none', 'a']);
      expect(await sources(at, () => [at.db.get('a'), at.db.get('none')])).toEqual([[1, undefined], { cache: 2 }]);
    });

    test.each<[string, Cache, (at: Opened) => unknown, unknown]>([
      ['written', 'unbounded', ({ db }) => db.set('a', 2), 2],
      ['written, and put out of the cache', LRU(1), ({ db }) => db.update({ a: 2, other: 3 }), 2],
      ['written in a group', LRU(1), ({ db }) => db.setMany({ a: 2, other: 3 }), 2],
      ['written and read again', LRU(1), ({ db }) => [db.set('a', 2), db.get('a'), db.set('other', 1)], 2],
      ['deleted', { strategy: 'unbounded', maxAbsent: 0 }, ({ db }) => db.delete('a'), undefined],
      ['deleted with all others', 'unbounded', ({ db }) => db.clear(), undefined],
      ['changed by SQL', 'unbounded', ({ db }) => db.aexecute("UPDATE data SET value = '2' WHERE key = 'a'"), 2],
      ['changed by staged SQL', 'unbounded', ({ db }) => db.astage("UPDATE data SET value = '2'"), 2],
      [
        'changed elsewhere and read afresh',
        LRU(1),
        (at) => [change(at, 'a', '2'), at.db.getFresh('a'), at.db.get('other')],
        2,
      ],
      ['changed elsewhere and forgotten', 'unbounded', (at) => [change(at, 'a', '2'), at.db.clearCache()], 2],
    ])('does not where the key was %s', async (_, cache, happens, now) => {
      const { db } = await late(cache, async (at) => {
        await happens(at);
        await at.db.aflush();
      });
      expect([db.get('a'), await db.aget('a')]).toEqual([now, now]);
    });

    test('does not in a database whose triggers may have changed the key', async () => {
      const { db } = await late('unbounded', async (at) => {
        await at.db.aexecute('CREATE TABLE log (n)');
        await at.db.aexecute('CREATE TRIGGER t AFTER INSERT ON log BEGIN UPDATE data SET value = new.n; END');
        at.db.has('warm up');
        at.db.rows<{ n: number }>('log').append({ n: 2 });
        await at.db.aflush();
      });
      expect(db.get('a')).toBe(2);
    });

    test('is told to all who asked for it', async () => {
      const { db, reads } = await opened('unbounded');
      db.set('a', 1);
      await db.aflush();
      db.clearCache();
      reads.hold();
      const all = [db.aget('a'), db.ahas('a'), db.agetMany(['a', 'a']), db.agetFresh('a'), db.aget('a')];
      await eventually(() => reads.waiting > 0, 'the answer is on its way');
      reads.release();
      expect(await Promise.all(all)).toEqual([1, true, new Map([['a', 1]]), 1, 1]);
      expect(db.isCached('a')).toBe(true);
    });

    test('and fails leaves nothing behind', async () => {
      const { db } = await opened('unbounded');
      db.set('a', 1);
      await db.aflush();
      await db.aexecute('ALTER TABLE data RENAME COLUMN value TO other');
      expect(await codeFrom(() => db.aget('a'))).toBe('SLUICE_STORE');
      expect(await codeFrom(() => db.get('a'))).toBe('SLUICE_STORE');
      expect(db.isCached('a')).toBe(false);
      await db.aexecute('ALTER TABLE data RENAME COLUMN other TO value');
      expect([await db.aget('a'), db.isCached('a')]).toEqual([1, true]);
    });
  });
});

describe('the methods', () => {
  test('isCached: staged, cached or known to be absent', async () => {
    const { db } = await opened('unbounded');
    const plain = db.table('plain', { cache: null });
    for (const table of [db, plain]) {
      expect(table.isCached('a')).toBe(false);
      table.set('a', 1);
      table.delete('b');
      expect([table.isCached('a'), table.isCached('b')]).toEqual([true, true]);
    }
    await db.aflush();
    expect([db.isCached('a'), db.isCached('b'), plain.isCached('a'), plain.isCached('b')]).toEqual([
      true,
      true,
      false,
      false,
    ]);
    expect(await codeFrom(() => db.isCached(3 as never))).toBe('SLUICE_INVALID_KEY');
  });

  test('refresh, getFresh: past the cache, which takes the answer; what is staged comes first', async () => {
    const at = await opened('unbounded');
    const { db } = at;
    db.setMany({ a: 1, b: 1 });
    await db.aflush();
    db.get('none');
    const changes = [
      () => db.refresh('a'),
      () => db.arefresh('a'),
      () => db.getFresh('a'),
      () => db.agetFresh('a'),
      () => db.refresh(),
      () => db.arefresh(),
      () => db.clearCache(),
    ];
    for (const [i, fresh] of changes.entries()) {
      change(at, 'a', `${i + 10}`);
      const old = db.get('a');
      expect(old).not.toBe(i + 10);
      const got = await fresh();
      if (got !== undefined) expect(got).toBe(i + 10);
      expect(db.isCached('a')).toBe(i < 4);
      expect(db.isCached('b')).toBe(i < 4);
      expect(await db.aget('a')).toBe(i + 10);
      db.get('b');
    }
    for (const fresh of [(key: string) => db.getFresh(key, 'd'), (key: string) => db.agetFresh(key, 'd')]) {
      expect(db.get('none')).toBe(undefined);
      elsewhere(at, "INSERT INTO data VALUES ('none', '1')");
      expect(db.get('none')).toBe(undefined);
      expect(await fresh('none')).toBe(1);
      elsewhere(at, "DELETE FROM data WHERE key = 'none'");
      expect(db.get('none')).toBe(1);
      expect([await fresh('none'), db.get('none')]).toEqual(['d', undefined]);
    }
    db.set('a', 'staged');
    change(at, 'a', '"older"');
    db.refresh('a');
    expect([db.getFresh('a'), await db.agetFresh('a'), db.get('a')]).toEqual(['staged', 'staged', 'staged']);
    await db.aflush();
    expect([db.get('a'), await db.aget('a')]).toEqual(['staged', 'staged']);
    for (const call of [db.refresh, db.arefresh, db.getFresh, db.agetFresh]) {
      expect(await codeFrom(() => (call as (key: unknown) => unknown).call(db, 3))).toBe('SLUICE_INVALID_KEY');
    }
  });

  test('without a cache they do what is left to do', async () => {
    const { db } = await opened(null);
    db.set('a', 1);
    await db.aflush();
    const reads = db.stats().reads;
    db.refresh('a');
    await db.arefresh('a');
    db.refresh();
    db.clearCache();
    expect([db.loadAll(), await db.aloadAll()]).toEqual([0, 0]);
    expect(db.stats().reads).toEqual(reads);
    expect([db.getFresh('a'), await db.agetFresh('a'), db.getFresh('b', 2)]).toEqual([1, 1, 2]);
    expect(db.stats().reads.cache).toBe(0);
  });

  test.each([
    ['loadAll', async (db: Database) => db.loadAll()],
    ['aloadAll', (db: Database) => db.aloadAll()],
  ])('%s: all there is, staged or applied, until the cache is full', async (_, load) => {
    const at = await opened('unbounded');
    const { db } = at;
    db.setMany(Array.from({ length: 1_000 }, (_, i) => [`key ${i}`, i] as const));
    await db.aflush();
    db.clearCache();
    db.delete('key 1');
    db.set('key 2', 'staged');
    expect(await load(db)).toBe(999);
    const all = await sources(at, () => db.getMany(Array.from({ length: 1_000 }, (_, i) => `key ${i}`)));
    expect([all[0].size, all[1]]).toEqual([999, { staging: 2, cache: 998 }]);
    await db.aflush();
    expect(await sources(at, () => [db.get('key 1'), db.get('key 2')])).toEqual([[undefined, 'staged'], { cache: 2 }]);

    const small = await opened(LRU(3));
    small.db.setMany({ a: 1, b: 2, c: 3, d: 4, e: 5 });
    await small.db.aflush();
    small.db.clearCache();
    small.db.get('e');
    const before = small.db.stats().cacheEvictions;
    expect(await load(small.db)).toBe(3);
    expect([...'abcde'].filter((key) => small.db.isCached(key))).toEqual(['a', 'b', 'e']);
    expect(small.db.stats().cacheEvictions).toBe(before);

    const bytes = await opened({ strategy: 'lru', maxBytes: 1_024 });
    bytes.db.setMany({ a: 'x'.repeat(2_000), b: 'x'.repeat(400), c: 'x'.repeat(400), d: 'x' });
    await bytes.db.aflush();
    bytes.db.clearCache();
    expect(await load(bytes.db)).toBe(2);
    expect([...'abcd'].filter((key) => bytes.db.isCached(key))).toEqual(['b', 'c']);

    const ttl = await opened({ strategy: 'ttl', ttlMs: 1_000, maxEntries: 3 });
    ttl.db.setMany({ a: 1, b: 2, c: 3 });
    await ttl.db.aflush();
    ttl.clock.advance(1_001);
    expect(await load(ttl.db)).toBe(3);
    expect([...'abc'].filter((key) => ttl.db.isCached(key))).toEqual(['a', 'b', 'c']);
  });

  test('aloadAll: what is written meanwhile is newer, and stays so', async () => {
    // So small that what is written leaves the cache before the old value comes.
    const { db, reads } = await opened({ strategy: 'unbounded', maxEntries: 3 });
    db.setMany({ a: 1, b: 1, c: 1 });
    await db.aflush();
    db.clearCache();
    await db.aget('a');
    db.clearCache();
    reads.hold();
    const loaded = db.aloadAll();
    await eventually(() => reads.waiting === 1, 'the walk is opened');
    reads.release(false);
    await eventually(() => reads.waiting === 1, 'the page is on its way');
    db.set('a', 2);
    db.delete('b');
    db.update({ x: 1, y: 1, z: 1 });
    expect(db.stats().cacheEvictions).toBe(1);
    db.deleteMany(['x', 'y', 'z']);
    await db.aflush();
    expect(db.isCached('a')).toBe(false);
    reads.release();
    expect(await loaded).toBe(1);
    expect(db.getMany(['a', 'b', 'c'])).toEqual(
      new Map([
        ['a', 2],
        ['c', 1],
      ]),
    );
  });

  test.each<[string, (db: Database) => unknown]>([
    ['SQL', (db) => db.aexecute("UPDATE data SET value = '2'")],
    ['a clear', (db) => db.clear()],
    ['refresh', (db) => db.refresh('a')],
  ])('aloadAll: %s meanwhile', async (_, happens) => {
    const at = await opened('unbounded');
    const { db, reads } = at;
    db.setMany({ a: 1, b: 1 });
    await db.aflush();
    db.clearCache();
    await db.aget('a');
    db.clearCache();
    reads.hold();
    const loaded = db.aloadAll();
    await eventually(() => reads.waiting === 1, 'the walk is opened');
    reads.release(false);
    await eventually(() => reads.waiting === 1, 'the page is on its way');
    await happens(db);
    await db.aflush();
    reads.release();
    await loaded;
    const rows = await db.afetchAll<{ key: string; value: string }>('SELECT key, value FROM data');
    expect(db.getMany(['a', 'b'])).toEqual(new Map(rows.map(({ key, value }) => [key, JSON.parse(value)])));
  });

  test('a closed database has neither a cache nor reads', async () => {
    const db = await open(join(tempDir(), 'data.db'), { cache: 'unbounded' });
    db.set('a', 1);
    expect(db.stats().cacheEntries).toBe(1);
    await db.close();
    expect(db.stats()).toMatchObject({ cacheEntries: 0, cacheBytes: 0 });
    for (const call of [
      () => db.get('a'),
      () => db.isCached('a'),
      () => db.refresh('a'),
      () => db.arefresh(),
      () => db.agetFresh('a'),
      () => db.loadAll(),
      () => db.aloadAll(),
      () => db.clearCache(),
    ]) {
      expect(await codeFrom(call)).toBe('SLUICE_CLOSED');
    }
  });
});

describe('rows that expire', () => {
  const TTL: Cache = { strategy: 'ttl', ttlMs: 1_000, persist: true };
  const both = (db: Database) => Promise.all([db.get('a'), db.aget('a'), db.has('a'), db.getMany(['a']).size]);

  test('are held, and for no reader longer than they live: written, and loaded in whatever way', async () => {
    const ways: [string, (db: Database) => unknown][] = [
      ['written', () => {}],
      ['read', (db) => [db.clearCache(), db.get('a')]],
      ['read by a thread', (db) => [db.clearCache(), db.aget('a')][1]],
      ['loaded', (db) => [db.clearCache(), db.loadAll()]],
      ['loaded by a thread', (db) => [db.clearCache(), db.aloadAll()][1]],
      ['refreshed', (db) => db.arefresh('a')],
    ];
    for (const [way, warm] of ways) {
      const at = await opened(TTL);
      const { db, clock } = at;
      db.set('a', 1);
      await db.aflush();
      clock.advance(600);
      await warm(db);
      expect([await sources(at, () => db.get('a')), db.stats().cacheEntries], way).toEqual([[1, { cache: 1 }], 1]);
      clock.advance(399);
      expect([await both(db), await sources(at, () => db.aget('a'))], way).toEqual([
        [1, 1, true, 1],
        [1, { cache: 1 }],
      ]);
      clock.advance(1);
      expect(await both(db), way).toEqual([undefined, undefined, false, 0]);
      // What is written again lives again.
      db.setMany({ a: 2 });
      await db.aflush();
      clock.advance(999);
      expect(await both(db), way).toEqual([2, 2, true, 1]);
      clock.advance(1);
      expect(await both(db), way).toEqual([undefined, undefined, false, 0]);
    }
  });

  test('are known to expire by a cache that has nothing to do with it', async () => {
    const path = join(tempDir(), 'data.db');
    const clock = new HeldClock();
    const options: OpenOptions = { durability: 'os', flush: { mode: 'manual' }, cache: TTL };
    const first = await openOn<unknown>(machine({ clock }), path, options);
    first.setMany({ a: 1, b: 1 });
    await first.close();
    const db = await openOn<unknown>(machine({ clock }), path, { ...options, cache: LRU(5) });
    onTestFinished(async () => void (await db.close()));
    expect([db.get('a'), await db.aget('b'), db.isCached('a'), db.isCached('b')]).toEqual([1, 1, true, true]);
    // What is written now stays.
    db.set('b', 2);
    await db.aflush();
    clock.advance(1_000);
    expect(await both(db)).toEqual([undefined, undefined, false, 0]);
    expect([db.get('b'), await db.aget('b')]).toEqual([2, 2]);
  });

  test('and that SQL has changed, expire as before', async () => {
    const { db, clock } = await opened(TTL);
    db.set('a', 1);
    await db.aflush();
    db.get('a');
    clock.advance(500);
    await db.aexecute("UPDATE data SET value = '2'");
    clock.advance(499);
    expect(await both(db)).toEqual([2, 2, true, 1]);
    clock.advance(1);
    expect(await both(db)).toEqual([undefined, undefined, false, 0]);
  });
});

test('what is encrypted is encrypted in the cache too, and read after its key was changed', async () => {
  const key = (n: number) => Buffer.alloc(32, n);
  const at = await opened('unbounded', { encryption: { key: key(1) } });
  const { db } = at;
  db.setMany({ a: { n: 1 }, b: 1 });
  await db.aflush();
  expect(await sources(at, () => db.get('a'))).toEqual([{ n: 1 }, { cache: 1 }]);
  await db.arotateKey({ key: key(2) });
  expect(db.stats().cacheEntries).toBe(0);
  for (let i = 0; i < 2; i++) expect([db.get('a'), await db.aget('b')]).toEqual([{ n: 1 }, 1]);
});

test('sizes, keys, scans and copies have every entry, however few the cache holds', async () => {
  for (const cache of [LRU(3), { strategy: 'ttl', ttlMs: 1_000 }] as const) {
    const { db, clock } = await opened(cache);
    const all: Record<string, number> = Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`k${i}`, i]));
    db.setMany(all);
    await db.aflush();
    db.set('k10', 10);
    all['k10'] = 10;
    db.loadAll();
    clock.advance(1_001);
    for (let i = 0; i < 2; i++) {
      expect(db.toDict()).toEqual(all);
      expect(await db.atoDict()).toEqual(all);
      expect(Object.fromEntries(db.copy())).toEqual(all);
      expect([...db.keys()].sort()).toEqual(Object.keys(all).sort());
      expect([...db.values()].length).toBe(11);
      expect([db.size, await db.asize()]).toEqual([11, 11]);
      for (const key of Object.keys(all)) expect(db.get(key)).toBe(all[key]);
    }
  }
});

describe('the option', () => {
  test('is inherited, replaced and taken away; each table has a cache of its own', async () => {
    const { db } = await opened(LRU(2));
    const child = db.table('child');
    const none = db.table('none', { cache: null });
    const own = db.table('own', { cache: { strategy: 'ttl', ttlMs: 5 } });
    expect(db.options.defaults.cache).toEqual({
      strategy: 'lru',
      maxEntries: 2,
      maxBytes: undefined,
      maxAbsent: 10_000,
      ttlMs: undefined,
      persist: false,
    });
    expect(child.tableOptions.cache).toBe(db.options.defaults.cache);
    expect(none.tableOptions.cache).toBe(undefined);
    expect(own.tableOptions.cache).toMatchObject({ strategy: 'ttl', ttlMs: 5 });
    for (const table of [db, child, none, own]) table.set('a', table.name);
    await db.aflush();
    child.clearCache();
    expect([db, child, none, own].map((table) => table.isCached('a'))).toEqual([true, false, false, true]);
    expect([db, child, none, own].map((table) => table.get('a'))).toEqual(['data', 'child', 'none', 'own']);
  });

  test('is part of what a table is: the same again is the same table, another one is refused', async () => {
    const { db } = await opened(null);
    const table = db.table('t', { cache: LRU(2) });
    expect(db.table('T', { cache: { strategy: 'lru', maxEntries: 2, maxAbsent: 10_000 } })).toBe(table);
    expect(db.table('t')).toBe(table);
    for (const cache of [LRU(3), null, 'unbounded', { strategy: 'unbounded', maxEntries: 2 }] as const) {
      expect(await codeFrom(() => db.table('t', { cache })), JSON.stringify(cache)).toBe('SLUICE_INVALID_OPTION');
    }
    expect(db.table('u', { cache: 'unbounded' })).toBe(db.table('u', { cache: { strategy: 'unbounded' } }));
    expect(await codeFrom(() => db.table('plain') && db.table('plain', { cache: 'unbounded' }))).toBe(
      'SLUICE_INVALID_OPTION',
    );
  });

  test('tells everything that is wrong with it at once', async () => {
    const problems = async (cache: unknown) =>
      (await refusal(() => open(':memory:', { cache: cache as never }))).problems;
    expect(await problems('lru')).toEqual(["cache must be null, 'unbounded' or an object with a strategy, not 'lru'"]);
    expect(await problems(new Map())).toEqual([
      "cache must be null, 'unbounded' or an object with a strategy, not a Map",
    ]);
    expect(await problems({})).toEqual(["cache.strategy must be given: 'unbounded', 'lru', 'ttl'"]);
    expect(await problems({ strategy: 'fifo' })).toEqual([
      "cache.strategy must be one of 'unbounded', 'lru', 'ttl', not 'fifo'",
    ]);
    expect(await problems({ strategy: 'lru' })).toEqual(["cache.strategy 'lru' needs maxEntries or maxBytes"]);
    expect(await problems({ strategy: 'ttl' })).toEqual(["cache.ttlMs must be given with the strategy 'ttl'"]);
    expect(
      await problems({ strategy: 'lru', maxEntry: 0, maxBytes: 3, ttlMs: 5, persist: true, maxAbsent: -1 }),
    ).toEqual([
      "cache.ttlMs goes with the strategy 'ttl' only",
      "cache.persist goes with the strategy 'ttl' only",
      expect.stringContaining('cache.maxBytes must be an integer from 1024 to'),
      expect.stringContaining('cache.maxAbsent must be an integer from 0 to'),
      "unknown option 'cache.maxEntry', did you mean 'cache.maxEntries'?",
    ]);
    const { db } = await opened(null);
    expect(await codeFrom(() => db.table('t', { cache: { strategy: 'ttl', ttlMs: 0 } }))).toBe('SLUICE_INVALID_OPTION');
  });
});
