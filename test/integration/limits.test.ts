import { join } from 'node:path';
import { type Database, inspect, type OpenOptions, open } from 'sluicedb';
import { expect, test, vi } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { lockFromOutside } from '../support/child.ts';
import { codeFrom, eventually, settle } from '../support/eventually.ts';
import { FaultFileSystem } from '../support/fault-file-system.ts';
import { imageOf, segmentsOf } from '../support/left-behind.ts';
import { machine } from '../support/machine.ts';
import { seededRandom } from '../support/seed.ts';
import { tempDir } from '../support/temp-dir.ts';

const MANUAL: OpenOptions = { flush: { mode: 'manual' } };
const SMALL_LOG: OpenOptions = { log: { segmentBytes: 4_096, maxBytes: 8_192 } };
const temp = () => join(tempDir(), 'a.db');

/** Nothing was applied twice, lost, or dropped; and no gauge is below nothing. */
function expectBooks(db: Database): void {
  const { accepted, recovered, applied, coalesced, deadLettered, pending, ...rest } = db.stats();
  expect(accepted + recovered).toBe(applied + coalesced + deadLettered + pending);
  const { stagedBytes, logBytes, logSegments, unsyncedBytes, waiting, cacheBytes, walBytes, deadLetters } = rest;
  const gauges = { pending, stagedBytes, logBytes, logSegments, unsyncedBytes, waiting, cacheBytes, walBytes };
  for (const [name, value] of Object.entries(gauges)) expect(value, name).toBeGreaterThanOrEqual(0);
  const { entriesAtOpen, imported, entries, retried, superseded, cleared, evicted, bytes } = deadLetters;
  expect(entriesAtOpen + deadLettered + imported).toBe(entries + retried + superseded + cleared + evicted);
  expect(entries).toBeGreaterThanOrEqual(0);
  expect(bytes).toBeGreaterThanOrEqual(0);
}

test('[fault 59] the log is at its limit, and its disk is full: who waits is told in time, and making room needs none', async () => {
  const disk = new FaultFileSystem();
  const file = temp();
  const db = await openOn(machine({ fileSystem: disk }), file, { ...MANUAL, ...SMALL_LOG, maxBlockMs: 150 });
  db.on('failure', () => {});
  let written = 0;
  for (; db.stats().logBytes < 8_192; written++) await db.aset(`k${written}`, 'x'.repeat(600));
  disk.fail('write', 'ENOSPC');
  disk.fail('create', 'ENOSPC');
  const start = performance.now();
  const codes = await Promise.all(Array.from({ length: 5 }, (_, i) => codeFrom(() => db.aset(`waits${i}`, i))));
  expect(codes).toEqual(Array(5).fill('SLUICE_TIMEOUT'));
  expect(performance.now() - start).toBeLessThan(5_000);
  expect(db.stats()).toMatchObject({ waiting: 0, accepted: written, refusedBy: { timeout: 5 } });
  // All of it is logged: it can be applied, and its segments deleted, while the log can write nothing.
  expect(await db.aflush({ timeoutMs: 10_000 })).toMatchObject({ applied: written });
  await eventually(() => db.stats().logBytes === 0, 'the log is deleted');
  expect(segmentsOf(file)).toEqual([]);
  // There is room in staging now, but not yet on the disk.
  const waits = db.aset('after', 1).catch(() => undefined);
  await eventually(() => disk.hit('create') > 0, 'the disk says so');
  expect(db.state).toBe('space');
  disk.heal();
  await waits;
  await db.adurable({ timeoutMs: 10_000 });
  expect(await db.close()).toEqual({ pending: 0 });
  const again = await open(file);
  expect([again.size, again.get('after')]).toEqual([written + 1, 1]);
  await again.close();
});

test('[fault 60] under a load that is too high every write is applied, overwritten, or refused to its caller, and none is dropped', async () => {
  const random = seededRandom(60);
  const db = await open<number>(temp(), {
    flush: { intervalMs: 1, maxWrites: 50 },
    staging: { maxEntries: 20 },
    maxBlockMs: 5,
    maxWaiting: 30,
  });
  const newest = new Map<string, number>();
  const accepted: number[] = [];
  const codes = new Map<string, number>();
  const refused = (error: { code: string }) => void codes.set(error.code, (codes.get(error.code) ?? 0) + 1);
  let n = 0;
  const producer = async () => {
    for (let i = 0; i < 60; i++) {
      const value = ++n;
      const key = `k${Math.floor(random() * 10)}`;
      try {
        if (random() < 0.3) db.set(key, value);
        else await db.aset(key, value);
        accepted.push(value);
      } catch (error) {
        refused(error as { code: string });
        continue;
      }
      // Of one key: what was accepted later has the larger value only if it did not wait.
      newest.set(key, value);
    }
  };
  await Promise.all(Array.from({ length: 80 }, producer));
  await db.aflush();
  expectBooks(db);
  const stats = db.stats();
  const refusals = [...codes.values()].reduce((total, count) => total + count, 0);
  expect(stats).toMatchObject({ accepted: accepted.length, refused: refusals, pending: 0, deadLettered: 0 });
  expect(stats.applied + stats.coalesced).toBe(accepted.length);
  expect(stats.refusedBy).toMatchObject({
    full: codes.get('SLUICE_FULL') ?? 0,
    timeout: codes.get('SLUICE_TIMEOUT') ?? 0,
  });
  expect([...codes.keys()].filter((code) => code !== 'SLUICE_FULL' && code !== 'SLUICE_TIMEOUT')).toEqual([]);
  expect(refusals).toBeGreaterThan(50);
  expect(accepted.length).toBeGreaterThan(50);
  // Whatever is there was accepted: nothing that was refused has been written.
  for (const value of db.values()) expect(accepted).toContain(value);
  expect([...db.keys()].sort()).toEqual([...newest.keys()].sort());
  await db.close();
});

test('[fault 61] limits below what is there already: it starts, carries it down, and goes on; raised again, it is as before', async () => {
  const first = await open(temp(), { ...MANUAL, log: { segmentBytes: 4_096 } });
  for (let i = 0; i < 100; i++) await first.aset(`k${i}`, 'x'.repeat(500));
  const file = imageOf(first.path);
  await first.close();
  const small: OpenOptions = {
    ...SMALL_LOG,
    staging: { maxEntries: 3, maxBytes: 2_000 },
    maxBlockMs: 10_000,
    flush: { intervalMs: 10 },
  };
  const db = await open(file, small);
  expect(db.stats().recovered).toBe(100);
  expectBooks(db);
  for (let i = 0; i < 20; i++) {
    await db.aset(`fresh${i}`, i);
    expectBooks(db);
  }
  await db.aflush();
  expect(db.size).toBe(120);
  expect(await codeFrom(() => db.set('large', 'x'.repeat(3_000)))).toBe('SLUICE_INVALID_VALUE');
  await db.close();
  expectBooks(db);
  const again = await open(file);
  again.set('large', 'x'.repeat(3_000));
  expect(again.size).toBe(121);
  await again.close();
});

test('[fault 61] the limits of the queue below what is in it: blocked and told, or evicted and counted', async () => {
  const dlq = (limits: OpenOptions['dlq']): OpenOptions => ({ ...MANUAL, dlq: limits });
  const file = temp();
  const listen = (db: Database) =>
    db
      .on('dead-letter', () => {})
      .on('evicted', () => {})
      .on('failure', () => {});
  const first = listen(await open(file, dlq({ maxEntries: 100 })));
  await first.aexecute('CREATE TABLE guarded (n INTEGER CHECK (n > 0))');
  for (let i = 0; i < 10; i++) first.rows('guarded').append({ n: -1 });
  await first.aflush();
  await first.close();
  const blocked = listen(await open(file, dlq({ maxEntries: 4 })));
  blocked.set('k', 1);
  const flushed = blocked.aflush();
  await eventually(() => blocked.stats().stall === 'queue-full', 'the flush waits for the queue');
  expectBooks(blocked);
  expect(blocked.stats()).toMatchObject({ pending: 1, deadLetters: { entries: 10, evicted: 0 } });
  await blocked.dlq.clear((await blocked.dlq.list()).slice(0, 7).map(({ id }) => id));
  await flushed;
  expectBooks(blocked);
  await blocked.close();
  const raised = listen(await open(file, dlq({ maxEntries: 100 })));
  for (let i = 0; i < 10; i++) raised.rows('guarded').append({ n: -1 });
  await raised.aflush();
  expect(raised.stats().deadLetters.entries).toBe(13);
  await raised.close();
  const evicting = listen(await open(file, dlq({ maxEntries: 4, overflow: 'evict-oldest' })));
  evicting.rows('guarded').append({ n: -1 });
  await evicting.aflush();
  expect(evicting.stats().deadLetters).toMatchObject({ entriesAtOpen: 13, entries: 4, evicted: 10 });
  expectBooks(evicting);
  await evicting.close();
});

test('a write that there is no memory for is refused whole, and costs nothing that was accepted before or after', async () => {
  const db = await open(temp(), { ...MANUAL, durability: 'sync' });
  const rows = db.rows('r', { columns: { text: 'text' } });
  await db.aset('before', 0);
  const tooLong = 'é'.repeat(4 << 20);
  // Of the whole machine's memory there may be enough for this, or so little that V8 ends the process.
  const allocate = Buffer.allocUnsafeSlow;
  let refused = 0;
  const allocating = vi.spyOn(Buffer, 'allocUnsafeSlow').mockImplementation((size) => {
    if (size < tooLong.length) return allocate(size);
    refused++;
    throw new RangeError('Array buffer allocation failed');
  });
  try {
    for (const write of [
      () => db.set('big', tooLong),
      () => db.setMany({ first: 1, second: tooLong }),
      () => rows.append({ text: tooLong }),
    ]) {
      expect(write).toThrow(RangeError);
      db.set(`after ${refused}`, refused);
      rows.append({ text: 'short' });
      await db.adurable();
    }
  } finally {
    allocating.mockRestore();
  }
  expect(refused).toBe(3);
  const entries = [
    ['after 1', 1],
    ['after 2', 2],
    ['after 3', 3],
    ['before', 0],
  ];
  expect([...db.scan()]).toEqual(entries);
  // The table of the rows is made by a write of its own.
  expect(await db.aflush()).toMatchObject({ applied: 8, coalesced: 0, dead: 0 });
  expect([...db.scan()]).toEqual(entries);
  expect(await db.afetchOne('SELECT count(*) AS n FROM r')).toEqual({ n: 3 });
  expectBooks(db);
  await db.close();
});

test.each(['os', 'sync', 'applied'] as const)(
  '[fault 62] close at %s, with a database that takes nothing: back by its deadline, nothing deleted, all there later',
  async (durability) => {
    const file = temp();
    const db = await open(file, { ...MANUAL, durability, closeTimeoutMs: 300, log: { segmentBytes: 4_096 } });
    db.on('failure', () => {});
    await db.aset('before', 1);
    await db.aflush();
    let logged = 0;
    db.on('commit', ({ writes }) => {
      logged += writes;
    });
    const unlock = await lockFromOutside(file);
    for (let i = 0; i < 50; i++) {
      db.set(`k${i}`, 'x'.repeat(500));
      // A frame of its own, so that there are several segments.
      await settle();
    }
    await eventually(() => logged === 50, 'all of it is logged');
    expect(db.stats().logBytes).toBeGreaterThan(25_000);
    const segments = segmentsOf(file);
    const start = performance.now();
    const { pending } = await db.close();
    // Its deadline is two seconds behind the time-out.
    expect(performance.now() - start).toBeLessThan(6_000);
    expect(pending).toBe(50);
    expect(segmentsOf(file)).toEqual(segments);
    await unlock();
    const again = await open(file);
    expect(again.stats().recovered).toBe(50);
    expect(again.size).toBe(51);
    await again.aflush();
    expectBooks(again);
    await again.close();
  },
);

test('[fault 63] close twice, and everything after it, leaves no rejection that nobody handles', async () => {
  const unhandled: unknown[] = [];
  const note = (error: unknown) => unhandled.push(error);
  process.on('unhandledRejection', note);
  try {
    const db = await open(temp(), { ...MANUAL, staging: { maxEntries: 2 } });
    for (const key of ['a', 'b']) db.set(key, 1);
    // Acknowledgements that nobody awaits, and one that waits for room for ever.
    void db.adurable();
    const waits = codeFrom(() => db.aset('c', 1));
    const [first, second] = [db.close(), db.close()];
    void db.adurable().catch(() => undefined);
    expect(second).toBe(first);
    expect(await waits).toBe('SLUICE_CLOSED');
    expect(await first).toEqual({ pending: 0 });
    expect(await db.close()).toEqual({ pending: 0 });
    for (const call of [
      () => db.set('d', 1),
      () => db.aset('d', 1),
      () => db.aflush(),
      () => db.adrain(),
      () => db.adurable(),
    ]) {
      expect(await codeFrom(call)).toBe('SLUICE_CLOSED');
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(unhandled).toEqual([]);
  } finally {
    process.off('unhandledRejection', note);
  }
});

test('[fault 66] after crashes of the whole database its counters are what a recount of its files finds', async () => {
  const random = seededRandom(6);
  let file = temp();
  const seen = { recovered: 0, dead: 0 };
  for (let cycle = 0; cycle < 6; cycle++) {
    const counted = cycle === 0 ? undefined : await inspect(file);
    const db = await open(file, { ...MANUAL, log: { segmentBytes: 4_096 } });
    db.on('dead-letter', () => {});
    const { recovered, pending, logSegments, deadLetters } = db.stats();
    if (counted !== undefined) {
      expect({ recovered, pending, logSegments, entries: deadLetters.entries }).toEqual({
        recovered: counted.recovery?.writes,
        pending: counted.recovery?.writes,
        logSegments: counted.log.segments.length - (counted.recovery?.removed.length ?? 0),
        entries: counted.deadLetters?.count,
      });
    }
    if (recovered > 0) seen.recovered++;
    if (deadLetters.entries > 0) seen.dead++;
    expectBooks(db);
    if (cycle === 0) await db.aexecute('CREATE TABLE guarded (n INTEGER CHECK (n > 0))');
    for (let i = 0; i < 5; i++) {
      await db.aset(`k${Math.floor(random() * 20)}`, 'x'.repeat(random() * 2_000));
      // Every fifth is refused.
      db.rows('guarded').append({ n: i });
      if (i === 1 + (cycle % 3)) await db.aflush();
      if (cycle === 3 && i === 0) await db.dlq.clear('all');
      expectBooks(db);
    }
    await db.adurable();
    file = imageOf(db.path);
    await db.close();
    expectBooks(db);
  }
  expect(seen.recovered).toBeGreaterThan(1);
  expect(seen.dead).toBeGreaterThan(1);
});
