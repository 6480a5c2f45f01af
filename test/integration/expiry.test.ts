import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { type Database, type OpenOptions, open, type Table, type TableHook } from 'sluicedb';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { codeFrom, eventually, settle } from '../support/eventually.ts';
import { HeldClock } from '../support/held-clock.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

const TTL_MS = 60_000;
const EXPIRING = { cache: { strategy: 'ttl', ttlMs: TTL_MS, persist: true } } as const;
const MANUAL: OpenOptions = { flush: { mode: 'manual' } };

/** More than the store waits between two looks. */
const LOOK_MS = 2_001;

/** One file, opened again and again, by a clock that stands still. */
class Place {
  readonly clock = new HeldClock();
  readonly file = join(tempDir(), 'a.db');

  async open(options: OpenOptions = MANUAL): Promise<Database> {
    const db = await openOn(machine({ clock: this.clock }), this.file, options);
    db.on('dead-letter', () => {});
    onTestFinished(async () => void (await db.close()));
    return db;
  }

  /** What is in the file, whatever a reader gets. */
  raw(sql: string): Record<string, unknown>[] {
    const file = new Sqlite(this.file, { readonly: true });
    try {
      return file.prepare(sql).all() as Record<string, unknown>[];
    } finally {
      file.close();
    }
  }

  /** Runs a part of a test in which the writer thread cannot delete what has expired: reads have to leave it out. */
  async unswept<T>(work: () => Promise<T>): Promise<T> {
    const other = new Sqlite(this.file);
    try {
      other.exec('BEGIN IMMEDIATE');
      return await work();
    } finally {
      other.close();
    }
  }

  /** Lets the writer thread look after what has expired, until a condition holds. */
  async sweep(holds: () => boolean, what: string): Promise<void> {
    await eventually(async () => {
      this.clock.advance(LOOK_MS);
      await settle();
      return holds();
    }, what);
  }
}

/** What every way to read says of a table, which must be the same everywhere. */
async function seen(table: Table): Promise<Record<string, unknown>> {
  const wanted = ['a', 'b', 'c'];
  const found = Object.fromEntries(table.scan());
  const entries = Object.entries(found);
  const keys = Object.keys(found);
  const asynchronous: [string, unknown][] = [];
  for await (const entry of table.ascan()) asynchronous.push(entry);
  const asyncKeys: string[] = [];
  for await (const key of table.akeys()) asyncKeys.push(key);
  expect(asynchronous).toEqual(entries);
  expect(asyncKeys).toEqual(keys);
  expect([...table.keys()]).toEqual(keys);
  expect([...table.values()]).toEqual(Object.values(found));
  expect([...table.scan({ reverse: true, gte: 'a', lte: 'c' })]).toEqual([...entries].reverse());
  expect(Object.fromEntries(table.copy())).toEqual(found);
  expect(await table.atoDict()).toEqual(found);
  expect(table.size).toBe(keys.length);
  expect(await table.asize()).toBe(keys.length);
  expect(Object.fromEntries(table.getMany(wanted))).toEqual(found);
  expect(Object.fromEntries(await table.agetMany(wanted))).toEqual(found);
  for (const key of wanted) {
    expect(table.get(key)).toEqual(found[key]);
    expect(table.get(key, 'none')).toEqual(found[key] ?? 'none');
    expect(await table.aget(key)).toEqual(found[key]);
    expect(table.has(key)).toBe(key in found);
    expect(await table.ahas(key)).toBe(key in found);
  }
  return found;
}

describe('a row that has expired', () => {
  for (const where of ['staged', 'applied', 'mixed'] as const) {
    it(`is there for no read, ${where}, from its last millisecond on`, async () => {
      const place = new Place();
      const db = await place.open();
      const table = db.table('sessions', EXPIRING);
      table.set('a', 1);
      if (where !== 'staged') await db.aflush();
      place.clock.advance(10);
      table.setMany({ b: 2, c: new Uint8Array([3]) });
      if (where === 'applied') await db.aflush();

      await place.unswept(async () => {
        place.clock.advance(TTL_MS - 11);
        expect(await seen(table)).toEqual({ a: 1, b: 2, c: new Uint8Array([3]) });
        place.clock.advance(1);
        expect(await seen(table)).toEqual({ b: 2, c: new Uint8Array([3]) });
        place.clock.advance(10);
        expect(await seen(table)).toEqual({});
        const applied = { staged: 0, mixed: 1, applied: 3 }[where];
        expect(applied === 0 ? [] : place.raw('SELECT key FROM sessions')).toHaveLength(applied);
      });
    });

    it(`is not there for what deletes or replaces it, ${where}`, async () => {
      const place = new Place();
      const db = await place.open();
      const table = db.table('sessions', EXPIRING);
      table.setMany(['a', 'b', 'c', 'd', 'e', 'f', 'g'].map((key) => [key, key] as const));
      if (where !== 'staged') await db.aflush();
      if (where === 'mixed') table.update({ b: 'B', d: 'D' });
      await place.unswept(async () => {
        place.clock.advance(TTL_MS);
        expect(table.delete('a')).toBe(false);
        expect(await table.adelete('b')).toBe(false);
        expect(table.pop('c')).toBeUndefined();
        expect(await table.apop('d')).toBeUndefined();
        expect(table.deleteMany(['a', 'e'])).toBe(0);
        expect(await table.adeleteMany(['a', 'e'])).toBe(0);
        expect(table.setDefault('f', 'new')).toBe('new');
        expect(await table.asetDefault('g', 'new')).toBe('new');
        expect(await table.atoDict()).toEqual({ f: 'new', g: 'new' });
      });
      await db.aflush();
      expect(await table.atoDict()).toEqual({ f: 'new', g: 'new' });
      // What was deleted leaves no moment behind.
      expect(place.raw('SELECT key FROM _sluice_expiry_sessions').map(({ key }) => key)).toEqual(['f', 'g']);
      place.clock.advance(TTL_MS);
      expect(table.size).toBe(0);
    });
  }

  it('is no old value for a hook, and nothing that is deleted', async () => {
    const place = new Place();
    const db = await place.open();
    const told: unknown[] = [];
    const hook: TableHook = {
      beforeWrite: (key, value, table) => {
        told.push(['before', key, table.get(key), [...table.entries()].length]);
        return value;
      },
      onWriteSuccess: (key, value, old) => void told.push(['set', key, value, old]),
      beforeDelete: (key) => void told.push(['deleting', key]),
      onDeleteSuccess: (key, old) => void told.push(['deleted', key, old]),
    };
    const table = db.table('sessions', { ...EXPIRING, hooks: [hook] });
    table.set('a', 1);
    table.set('b', 1);
    await db.aflush();
    table.set('b', 2);
    await place.unswept(async () => {
      place.clock.advance(TTL_MS);
      told.length = 0;
      table.set('a', 3);
      table.delete('b');
      table.clear();
    });
    expect(told).toEqual([
      ['before', 'a', undefined, 0],
      ['set', 'a', 3, undefined],
      ['deleting', 'a'],
      ['deleted', 'a', 3],
    ]);
  });

  it('is or is not there for all of a walk, by the moment at which it began', async () => {
    const place = new Place();
    const db = await place.open();
    const table = db.table<number>('sessions', EXPIRING);
    table.setMany(Array.from({ length: 1_000 }, (_, i): [string, number] => [String(i).padStart(4, '0'), i]));
    await db.aflush();
    table.set('0500', -1);
    place.clock.advance(TTL_MS - 1);
    const sync = table.scan();
    const async = table.ascan();
    const later = table.scan();
    sync.next();
    await async.next();
    await place.unswept(async () => {
      place.clock.advance(1);
      expect([...sync].length).toBe(999);
      let left = 0;
      for await (const _ of async) left++;
      expect(left).toBe(999);
      // A walk begins when its first entry is asked for.
      expect([...later]).toEqual([]);
    });
  });
});

describe('when a row expires', () => {
  it('is counted from its last write, whatever reads it', async () => {
    const place = new Place();
    const db = await place.open();
    const table = db.table('sessions', EXPIRING);
    for (const flush of [true, false, true]) {
      table.set('a', 1);
      if (flush) await db.aflush();
      place.clock.advance(TTL_MS - 1);
      expect(await table.aget('a')).toBe(1);
    }
    place.clock.advance(1);
    expect(await table.aget('a')).toBeUndefined();
  });

  it('is counted from the moment at which a write that waits for room is staged', async () => {
    const place = new Place();
    const db = await place.open({ ...MANUAL, staging: { maxEntries: 4 } });
    const table = db.table('sessions', EXPIRING);
    for (let i = 0; i < 4; i++) table.set('full', i);
    const done = [
      table.aset('a', 1),
      table.asetMany({ b: 2 }),
      table.aupdate({ c: 3 }),
      table.asetManyPartial({ d: 4 }),
      table.asetDefault('e', 5),
    ];
    await eventually(() => db.stats().waiting === 5, 'all wait');
    place.clock.advance(20_000);
    await db.aflush();
    await eventually(async () => {
      await db.aflush();
      return db.stats().waiting === 0;
    }, 'room for all');
    await Promise.all(done);
    place.clock.advance(TTL_MS - 1);
    expect(Object.keys(table.toDict())).toEqual(['a', 'b', 'c', 'd', 'e']);
    place.clock.advance(1);
    expect(table.toDict()).toEqual({});
  });

  it('survives a close, and the recovery of what was not applied', async () => {
    const place = new Place();
    let db = await place.open({ ...MANUAL, closeTimeoutMs: 0 });
    db.table('sessions', EXPIRING).set('a', 1);
    await db.aflush();
    place.clock.advance(30_000);
    await db.table('sessions').asetMany({ b: 2, c: 3 });
    await db.close();

    place.clock.advance(10_000);
    db = await place.open();
    expect(db.stats().recovered).toBe(1);
    const table = db.table('sessions', EXPIRING);
    place.clock.advance(TTL_MS - 40_001);
    expect(await seen(table)).toEqual({ a: 1, b: 2, c: 3 });
    place.clock.advance(1);
    expect(await seen(table)).toEqual({ b: 2, c: 3 });
    await db.aflush();
    place.clock.advance(29_999);
    expect(await seen(table)).toEqual({ b: 2, c: 3 });
    place.clock.advance(1);
    expect(await seen(table)).toEqual({});
  });

  it('survives SIGKILL: the log has it', async () => {
    const file = join(tempDir(), 'killed.db');
    const ttlMs = 3_600_000;
    const options = JSON.stringify({ cache: { strategy: 'ttl', ttlMs, persist: true } });
    const program = `
      import { open } from 'sluicedb';
      const db = await open(${JSON.stringify(file)}, { flush: { mode: 'manual' } });
      const table = db.table('sessions', ${options});
      await table.aset('a', 1);
      await table.asetMany({ b: 2, c: 3 });
      console.log(Date.now());
      process.kill(process.pid, 'SIGKILL');`;
    const child = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' });
    expect(child.signal, child.stderr).toBe('SIGKILL');
    const written = Number(child.stdout);

    const clock = new HeldClock();
    clock.advance(written - clock.now() + ttlMs - 60_000);
    const db = await openOn(machine({ clock }), file, MANUAL);
    onTestFinished(async () => void (await db.close()));
    expect(db.stats().recovered).toBe(2);
    const table = db.table('sessions', JSON.parse(options));
    expect(await seen(table)).toEqual({ a: 1, b: 2, c: 3 });
    await db.aflush();
    clock.advance(60_001);
    expect(await seen(table)).toEqual({});
  });

  it('is inherited from the database, and can be switched off for a table', async () => {
    const place = new Place();
    const db = await place.open({ ...MANUAL, ...EXPIRING });
    db.set('a', 1);
    db.table('heir').set('a', 1);
    db.table('stays', { cache: null }).set('a', 1);
    db.table('longer', { cache: { strategy: 'ttl', ttlMs: TTL_MS * 2, persist: true } }).set('a', 1);
    await db.aflush();
    expect(await codeFrom(() => db.table('heir', { cache: null }))).toBe('SLUICE_INVALID_OPTION');
    place.clock.advance(TTL_MS);
    expect(['heir', 'stays', 'longer'].map((name) => db.table(name).has('a'))).toEqual([false, true, true]);
    expect(db.get('a')).toBeUndefined();
    place.clock.advance(TTL_MS);
    expect(db.table('longer').has('a')).toBe(false);
    expect(place.raw(`SELECT name FROM sqlite_master WHERE name LIKE '%expiry_stays'`)).toEqual([]);
  });

  it('holds for a name of any length and spelling, in any case', async () => {
    const place = new Place();
    const name = `Größe "${'x'.repeat(120)}`;
    let db = await place.open();
    db.table(name, EXPIRING).set('a', 1);
    await db.close();
    db = await place.open();
    const table = db.table(name.replaceAll('x', 'X'));
    expect(table.get('a')).toBe(1);
    place.clock.advance(TTL_MS);
    expect(await seen(table)).toEqual({});
    await place.sweep(() => db.stats().expired === 1, 'the row is deleted');
  });
});

describe('several rows as one write', () => {
  it('are there or gone together, and counted as one', async () => {
    const place = new Place();
    const db = await place.open();
    const table = db.table('sessions', EXPIRING);
    table.setMany({ a: 1, b: 2 });
    table.set('c', 3);
    table.update({ d: 4, e: 5 });
    const { accepted, acceptedBy } = db.stats();
    expect(accepted).toBe(4);
    expect(acceptedBy).toMatchObject({ group: 4, put: 0 });
    await db.aflush();
    const { applied, coalesced, deadLettered, pending } = db.stats();
    expect({ applied, coalesced, deadLettered, pending }).toEqual({
      applied: 4,
      coalesced: 0,
      deadLettered: 0,
      pending: 0,
    });
  });

  it('clear takes everything away, moments too', async () => {
    const place = new Place();
    const db = await place.open();
    const table = db.table('sessions', EXPIRING);
    table.setMany({ a: 1, b: 2 });
    await db.aflush();
    table.set('c', 3);
    table.clear();
    expect(await seen(table)).toEqual({});
    table.set('a', 4);
    expect(await seen(table)).toEqual({ a: 4 });
    await db.aflush();
    expect(await seen(table)).toEqual({ a: 4 });
    expect(place.raw('SELECT key FROM _sluice_expiry_sessions')).toEqual([{ key: 'a' }]);
    expect(db.stats().acceptedBy.clear).toBe(1);
  });
});

describe('the writer thread', () => {
  it('deletes what has expired, and counts it', async () => {
    const place = new Place();
    const db = await place.open();
    const table = db.table('sessions', EXPIRING);
    const stays = db.table('stays');
    stays.set('a', 1);
    table.setMany({ a: 1, b: 2 });
    await db.aflush();
    place.clock.advance(TTL_MS - 1);
    table.set('c', 3);
    await db.aflush();
    await settle();
    expect(db.stats().expired).toBe(0);
    expect(place.raw('SELECT key FROM sessions')).toHaveLength(3);
    await place.sweep(() => db.stats().expired === 2, 'two rows are deleted');
    expect(place.raw('SELECT key FROM sessions')).toEqual([{ key: 'c' }]);
    expect(place.raw('SELECT key FROM _sluice_expiry_sessions')).toEqual([{ key: 'c' }]);
    expect(stays.get('a')).toBe(1);
    const { accepted, recovered, applied, coalesced, deadLettered, pending } = db.stats();
    expect(accepted + recovered).toBe(applied + coalesced + deadLettered + pending);
  });

  it('deletes many rows of many tables, a part at a time', async () => {
    const place = new Place();
    const db = await place.open();
    const tables = ['x', 'y', 'z'].map((name) => db.table<number>(name, EXPIRING));
    for (const [i, table] of tables.entries()) {
      table.setMany(Array.from({ length: 1_500 * (i + 1) }, (_, n): [string, number] => [`${n}`, n]));
    }
    await db.aflush();
    place.clock.advance(TTL_MS);
    place.clock.advance(LOOK_MS);
    for (let expired = 1_000; expired <= 9_000; expired += 1_000) {
      await eventually(() => db.stats().expired >= expired, `${expired} rows are deleted`);
      expect(db.stats().expired).toBe(expired);
      // The rest does not wait for the next look.
      if (expired < 9_000) place.clock.advance(20);
    }
    await settle();
    place.clock.advance(20);
    expect(place.raw('SELECT * FROM x UNION ALL SELECT * FROM z')).toEqual([]);
  });

  it('leaves what was written again, staged or applied', async () => {
    const place = new Place();
    const db = await place.open();
    const table = db.table('sessions', EXPIRING);
    table.setMany({ a: 1, b: 1, c: 1 });
    await db.aflush();
    place.clock.advance(TTL_MS - 10);
    table.set('a', 2);
    await db.aflush();
    place.clock.advance(10);
    table.set('b', 2);
    await place.sweep(() => db.stats().expired === 2, 'the old b and c are deleted');
    expect(await seen(table)).toEqual({ a: 2, b: 2 });
    await db.aflush();
    expect(await seen(table)).toEqual({ a: 2, b: 2 });
    expect(place.raw('SELECT key FROM _sluice_expiry_sessions ORDER BY key')).toEqual([{ key: 'a' }, { key: 'b' }]);
  });

  it('waits for a lock, and tells nobody', async () => {
    const place = new Place();
    const db = await place.open();
    const failures: unknown[] = [];
    db.on('failure', (failure) => failures.push(failure));
    const table = db.table('sessions', EXPIRING);
    table.set('a', 1);
    await db.aflush();
    await place.unswept(async () => {
      place.clock.advance(TTL_MS);
      for (let i = 0; i < 5; i++) {
        place.clock.advance(LOOK_MS);
        // Answered behind the look.
        expect(await codeFrom(() => db.aexecute('SELECT * FROM nothing', { ahead: true }))).toBe('SLUICE_STORE');
      }
      expect(db.stats().expired).toBe(0);
      expect(table.has('a')).toBe(false);
    });
    await place.sweep(() => db.stats().expired === 1, 'the row is deleted');
    expect(failures).toEqual([]);
    expect(db.state).toBe('ok');
  });

  it('is not held up by a table that was dropped, has another shape, or holds on to its rows', async () => {
    const place = new Place();
    const db = await place.open();
    for (const name of ['dropped', 'held', 'other', 'sessions']) db.table(name, EXPIRING).setMany({ a: 1, b: 2 });
    await db.aflush();
    await db.aexecute('DROP TABLE dropped');
    await db.aexecute('DROP TABLE other');
    await db.aexecute('CREATE TABLE other (id INTEGER, key TEXT, value TEXT)');
    await db.aexecute("INSERT INTO other VALUES (1, 'a', 'no row of a key')");
    await db.aexecute(
      "CREATE TRIGGER hold BEFORE DELETE ON held WHEN OLD.key = 'a' BEGIN SELECT RAISE(FAIL, 'not this one'); END",
    );
    place.clock.advance(TTL_MS);
    await place.sweep(() => db.stats().expired === 3, 'one held row and two sessions are deleted');
    expect(place.raw('SELECT key FROM held')).toEqual([{ key: 'a' }]);
    expect(place.raw('SELECT key FROM other')).toEqual([{ key: 'a' }]);
    expect(place.raw('SELECT key FROM sessions')).toEqual([]);
    expect(place.raw('SELECT * FROM _sluice_expiry_dropped UNION ALL SELECT * FROM _sluice_expiry_other')).toEqual([]);
    expect(place.raw("SELECT name FROM sqlite_master WHERE name = 'dropped'")).toEqual([]);
    expect(db.table('held').has('a')).toBe(false);
    expect(db.state).toBe('ok');
    // The row that is held is tried again.
    await db.aexecute('DROP TRIGGER hold');
    await place.sweep(() => db.stats().expired === 4, 'the held row is deleted');
  });
});

describe('a table that is opened without it later', () => {
  it('has the rows that expire for as long as they would have been there, and writes rows that stay', async () => {
    for (const [applied, flushed] of [
      [true, true],
      [true, false],
      [false, true],
      [false, false],
    ]) {
      const place = new Place();
      let db = await place.open({ ...MANUAL, closeTimeoutMs: applied ? 30_000 : 0 });
      db.table('sessions', EXPIRING).update({ a: 1, b: 1, c: 1, d: 1 });
      await db.adurable();
      await db.close();

      db = await place.open();
      expect(db.stats().recovered).toBe(applied ? 0 : 4);
      const table = db.table('sessions');
      table.set('a', 2);
      await table.asetMany({ b: 2 });
      table.delete('d');
      if (flushed) await db.aflush();
      place.clock.advance(TTL_MS - 1);
      expect(await seen(table)).toEqual({ a: 2, b: 2, c: 1 });
      place.clock.advance(1);
      expect(await seen(table)).toEqual({ a: 2, b: 2 });
      await db.aflush();
      await place.sweep(() => db.stats().expired === 1, 'c is deleted');
      expect(await seen(table)).toEqual({ a: 2, b: 2 });
      await db.close();
      db = await place.open({ ...MANUAL, table: 'sessions' });
      expect(await seen(db)).toEqual({ a: 2, b: 2 });
    }
  });

  it('has them as the default table too, from the log and from the file', async () => {
    for (const closeTimeoutMs of [0, 30_000]) {
      const place = new Place();
      let db = await place.open({ ...MANUAL, ...EXPIRING, closeTimeoutMs });
      await db.asetMany({ a: 1, b: 1 });
      await db.close();
      db = await place.open();
      await db.aset('a', 2);
      place.clock.advance(TTL_MS);
      expect(await seen(db)).toEqual({ a: 2 });
      await db.aflush();
      expect(await seen(db)).toEqual({ a: 2 });
    }
  });

  it('writes rows that stay over what the log has brought, before that is applied', async () => {
    const place = new Place();
    let db = await place.open({ ...MANUAL, closeTimeoutMs: 0 });
    await db.table('sessions', EXPIRING).asetMany({ a: 1, b: 1 });
    await db.close();
    db = await place.open();
    // In one turn: nothing can have been applied.
    const table = db.table('sessions');
    table.set('a', 2);
    place.clock.advance(TTL_MS);
    expect(table.get('a')).toBe(2);
    expect(table.toDict()).toEqual({ a: 2 });
    expect(table.size).toBe(1);
    expect(db.stats().pending).toBe(2);
    await db.aflush();
    expect(await seen(table)).toEqual({ a: 2 });
  });

  it('can be given it: what was there before stays', async () => {
    const place = new Place();
    let db = await place.open({ ...MANUAL, closeTimeoutMs: 0 });
    const before = db.table('sessions');
    before.set('a', 1);
    await db.aflush();
    await before.aset('b', 1);
    await db.close();
    db = await place.open();
    const table = db.table('sessions', EXPIRING);
    table.set('c', 1);
    place.clock.advance(TTL_MS);
    expect(await seen(table)).toEqual({ a: 1, b: 1 });
    await db.aflush();
    expect(await seen(table)).toEqual({ a: 1, b: 1 });
  });
});

describe('a dead letter', () => {
  /** A table in which nothing can be put, and something is tried. */
  async function dead(place: Place, write: (table: Table) => void): Promise<Database> {
    const db = await place.open();
    await db.aexecute('CREATE TABLE sessions (key TEXT PRIMARY KEY, value TEXT)');
    await db.aexecute("CREATE TRIGGER no BEFORE INSERT ON sessions BEGIN SELECT RAISE(ABORT, 'no'); END");
    write(db.table('sessions', EXPIRING));
    await db.aflush();
    await db.aexecute('DROP TRIGGER no');
    return db;
  }

  it('of a row that expires is found under its table, and retried with its moment', async () => {
    const place = new Place();
    const db = await dead(place, (table) => table.set('a', 1));
    expect(await db.dlq.listSummaries({ table: 'sessions' })).toMatchObject([
      { table: 'sessions', operation: 'group' },
    ]);
    const table = db.table('sessions');
    expect(table.has('a')).toBe(false);
    place.clock.advance(TTL_MS - 1);
    expect((await db.dlq.retry('all')).applied).toBe(1);
    expect(await seen(table)).toEqual({ a: 1 });
    place.clock.advance(1);
    expect(await seen(table)).toEqual({});
  });

  it('that comes too late is no row any more', async () => {
    const place = new Place();
    const db = await dead(place, (table) => table.set('a', 1));
    place.clock.advance(TTL_MS);
    expect((await db.dlq.retry('all')).applied).toBe(1);
    expect(await seen(db.table('sessions'))).toEqual({});
    await place.sweep(() => db.stats().expired === 1, 'the row is deleted');
  });

  it('leaves the moment of a newer write alone, and the newer value', async () => {
    const place = new Place();
    const db = await dead(place, (table) => table.setMany({ a: 1, b: 1, c: 1 }));
    const table = db.table('sessions');
    place.clock.advance(10);
    table.set('a', 2);
    await db.aflush();
    table.delete('b');
    await db.aflush();
    expect((await db.dlq.retry('all')).applied).toBe(1);
    place.clock.advance(TTL_MS - 11);
    expect(await seen(table)).toEqual({ a: 2, c: 1 });
    place.clock.advance(1);
    expect(await seen(table)).toEqual({ a: 2 });
    place.clock.advance(10);
    expect(await seen(table)).toEqual({});
  });

  it('is superseded by a clear, and by writes of all its keys', async () => {
    const place = new Place();
    const db = await dead(place, (table) => {
      table.setMany({ a: 1, b: 1 });
      table.set('c', 1);
    });
    expect(db.dlq.size).toBe(2);
    const table = db.table('sessions');
    table.set('c', 2);
    await db.aflush();
    expect(db.dlq.size).toBe(1);
    table.clear();
    await db.aflush();
    expect(db.dlq.size).toBe(0);
    expect(db.stats().deadLetters.superseded).toBe(2);
  });

  it('brings no moment to a row that a table without expiry has written since', async () => {
    const place = new Place();
    let db = await dead(place, (table) => table.setMany({ a: 1, b: 1 }));
    await db.close();
    expect(place.raw("SELECT name FROM sqlite_master WHERE name GLOB '_sluice_expiry*'")).toEqual([]);
    db = await place.open();
    const table = db.table('sessions');
    table.set('a', 2);
    await db.aflush();
    expect((await db.dlq.retry('all')).applied).toBe(1);
    // The table has learnt nothing of the moments that are there now; the writer has.
    await table.aset('b', 2);
    await db.aflush();
    place.clock.advance(TTL_MS);
    for (let i = 0; i < 3; i++) await place.sweep(() => true, 'a look');
    expect(place.raw('SELECT * FROM _sluice_expiry_sessions')).toEqual([]);
    expect(await seen(table)).toEqual({ a: 2, b: 2 });
  });

  it('of a clear spares what was written since, with its moments', async () => {
    const place = new Place();
    const db = await place.open();
    const table = db.table('sessions', EXPIRING);
    table.setMany({ a: 1, b: 1 });
    await db.aflush();
    await db.aexecute("CREATE TRIGGER no BEFORE DELETE ON sessions BEGIN SELECT RAISE(ABORT, 'no'); END");
    table.clear();
    await db.aflush();
    expect(db.dlq.size).toBe(1);
    // A clear that was refused leaves rows that expire as before.
    expect(place.raw('SELECT key FROM _sluice_expiry_sessions')).toHaveLength(2);
    await db.aexecute('DROP TRIGGER no');
    place.clock.advance(10);
    table.set('a', 2);
    await db.aflush();
    expect((await db.dlq.retry('all')).applied).toBe(1);
    expect(await seen(table)).toEqual({ a: 2 });
    expect(place.raw('SELECT key FROM _sluice_expiry_sessions')).toEqual([{ key: 'a' }]);
    place.clock.advance(TTL_MS);
    expect(await seen(table)).toEqual({});
  });

  it('of an encrypted row has its moment, after a change of keys too', async () => {
    const place = new Place();
    // It had no key at first, so that what is not encrypted is accepted, and encrypted by the change.
    await (await place.open()).close();
    const db = await place.open({ ...MANUAL, encryption: { key: randomBytes(32) } });
    await db.aexecute('CREATE TABLE sessions (key TEXT PRIMARY KEY, value BLOB)');
    await db.aexecute(
      "CREATE TRIGGER no BEFORE INSERT ON sessions WHEN NEW.key = 'a' BEGIN SELECT RAISE(ABORT, 'no'); END",
    );
    const table = db.table('sessions', EXPIRING);
    table.update({ a: 1, b: 1 });
    await db.aflush();
    await db.aexecute('DROP TRIGGER no');
    expect(await db.arotateKey({ key: randomBytes(32) })).toMatchObject({ values: 1, deadLetters: 1 });
    expect((await db.dlq.retry('all')).applied).toBe(1);
    place.clock.advance(TTL_MS - 1);
    expect(await seen(table)).toEqual({ a: 1, b: 1 });
    place.clock.advance(1);
    expect(await seen(table)).toEqual({});
    await place.sweep(() => db.stats().expired === 2, 'both rows are deleted');
  });

  it('travels to another database', async () => {
    const place = new Place();
    const db = await dead(place, (table) => table.set('a', 1));
    const lines: string[] = [];
    for await (const line of db.dlq.export()) lines.push(line);
    const elsewhere = new Place();
    const other = await elsewhere.open();
    const table = other.table('sessions', EXPIRING);
    table.set('a', 0);
    await other.aflush();
    await other.dlq.import(lines);
    expect((await other.dlq.retry('all')).applied).toBe(1);
    expect(await seen(table)).toEqual({ a: 1 });
    elsewhere.clock.advance(TTL_MS);
    expect(await seen(table)).toEqual({});
  });
});

describe('the table of moments', () => {
  it('is out of reach of users', async () => {
    const place = new Place();
    const db = await place.open();
    db.table('sessions', EXPIRING).set('a', 1);
    await db.aflush();
    expect(await codeFrom(() => db.table('_sluice_expiry_sessions'))).toBe('SLUICE_INVALID_OPTION');
    expect(await codeFrom(() => db.stage('DELETE FROM _sluice_expiry_sessions'))).toBe('SLUICE_INVALID_SQL');
    expect(await codeFrom(() => db.aexecute('DROP TABLE "_sluice_expiry_sessions"'))).toBe('SLUICE_INVALID_SQL');
  });

  it('is left as it is by SQL', async () => {
    const place = new Place();
    const db = await place.open();
    const table = db.table<number>('sessions', EXPIRING);
    table.setMany({ a: 1, b: 1 });
    await db.aflush();
    await db.aexecute("DELETE FROM sessions WHERE key = 'a'");
    await db.aexecute("UPDATE sessions SET value = '2' WHERE key = 'b'");
    await db.aexecute("INSERT INTO sessions VALUES ('c', '3')");
    expect(await seen(table)).toEqual({ b: 2, c: 3 });
    await place.unswept(async () => {
      place.clock.advance(TTL_MS);
      // The moment of a row that SQL has deleted counts for nothing.
      expect(await seen(table)).toEqual({ c: 3 });
    });
    await place.sweep(() => db.stats().expired === 1, 'b is deleted');
    expect(place.raw('SELECT key FROM _sluice_expiry_sessions')).toEqual([]);
  });

  it('is asked through its index, by reads and by the writer', async () => {
    const place = new Place();
    const db = await place.open();
    db.table('sessions', EXPIRING).set('a', 1);
    await db.aflush();
    const plan = place.raw(
      'EXPLAIN QUERY PLAN SELECT key FROM _sluice_expiry_sessions WHERE CAST(value AS INTEGER) <= 5 ORDER BY CAST(value AS INTEGER) LIMIT 9',
    );
    expect(plan.map(({ detail }) => detail)).toEqual([
      'SEARCH _sluice_expiry_sessions USING INDEX _sluice_expires_sessions (<expr><?)',
    ]);
  });

  it('is not made for a table whose rows stay', async () => {
    const db = await open(join(tempDir(), 'a.db'));
    db.set('a', 1);
    const [{ count }] = (await db.afetchAll(
      "SELECT count(*) AS count FROM sqlite_master WHERE name LIKE '%expir%'",
    )) as [{ count: number }];
    await db.close();
    expect(count).toBe(0);
  });
});
