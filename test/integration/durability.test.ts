import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { eventually, isPending, settle } from '../support/eventually.ts';
import { FaultFileSystem } from '../support/fault-file-system.ts';
import { HeldClock } from '../support/held-clock.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

const MANUAL = { flush: { mode: 'manual' } } as const;

/** Lets an operation on segments wait until it is told to go on. */
function gate(disk: FaultFileSystem, held: 'write' | 'datasync' | 'syncDirectory'): { open(): void; waits(): number } {
  let waiting = 0;
  let release = () => {};
  const opened = new Promise<void>((resolve) => {
    release = resolve;
  });
  disk.before = (operation) => {
    if (operation !== held) return;
    waiting++;
    return opened;
  };
  return {
    open: () => {
      disk.before = () => {};
      release();
    },
    waits: () => waiting,
  };
}

test("at 'sync' an acknowledgement waits for the fdatasync of its frame", async () => {
  const disk = new FaultFileSystem();
  const db = await openOn(machine({ fileSystem: disk }), join(tempDir(), 'a.db'), MANUAL);
  await db.aset('first', 1);
  const held = gate(disk, 'datasync');
  const done = db.aset('k', 1);
  await eventually(() => held.waits() > 0, 'a sync was asked for');
  expect(await isPending(done)).toBe(true);
  expect(db.get('k')).toBe(1);
  held.open();
  await done;
  expect(disk.recorded.at(-1)).toMatchObject({ operation: 'datasync' });
  await db.close();
});

test("at 'sync' the first acknowledgement waits for the name of the segment, too", async () => {
  const disk = new FaultFileSystem();
  const db = await openOn(machine({ fileSystem: disk }), join(tempDir(), 'a.db'), MANUAL);
  const held = gate(disk, 'syncDirectory');
  const done = db.aset('k', 1);
  await eventually(() => held.waits() > 0, 'the folder is synced');
  expect(await isPending(done)).toBe(true);
  held.open();
  await done;
  const steps = disk.recorded.filter(({ file }) => /\.log$|-log$/.test(file)).map(({ operation }) => operation);
  expect(steps.slice(-6)).toEqual(['create', 'write', 'datasync', 'syncDirectory', 'write', 'datasync']);
  await db.close();
});

test("at 'os' an acknowledgement waits for the write and for no fdatasync", async () => {
  const disk = new FaultFileSystem();
  const db = await openOn(machine({ fileSystem: disk }), join(tempDir(), 'a.db'), { ...MANUAL, durability: 'os' });
  await db.aset('first', 1);
  const syncs = disk.count('datasync');
  const held = gate(disk, 'write');
  const done = db.aset('k', 1);
  await eventually(() => held.waits() > 0, 'a write was asked for');
  expect(await isPending(done)).toBe(true);
  held.open();
  await done;
  expect(disk.count('datasync')).toBe(syncs);
  await db.close();
});

test("at 'interval' an acknowledgement waits for the write, and the sync comes within the interval", async () => {
  const disk = new FaultFileSystem();
  const clock = new HeldClock();
  const db = await openOn(machine({ fileSystem: disk, clock }), join(tempDir(), 'a.db'), {
    ...MANUAL,
    durability: 'interval',
    syncIntervalMs: 500,
  });
  await db.aset('a', 1);
  await db.aset('b', 1);
  const syncs = disk.count('datasync');
  clock.advance(499);
  await settle();
  expect(disk.count('datasync')).toBe(syncs);
  clock.advance(1);
  await eventually(() => disk.count('datasync') === syncs + 1, 'one sync for both');
  clock.advance(5_000);
  await settle();
  expect(disk.count('datasync')).toBe(syncs + 1);
  await db.aset('c', 1);
  clock.advance(500);
  await eventually(() => disk.count('datasync') === syncs + 2, 'the next interval');
  await db.close();
});

test("at 'memory' there are no segments, and an acknowledgement waits for nothing", async () => {
  const disk = new FaultFileSystem();
  const file = join(tempDir(), 'a.db');
  const db = await openOn(machine({ fileSystem: disk }), file, { ...MANUAL, durability: 'memory' });
  await db.aset('k', 1);
  expect(db.stats()).toMatchObject({ pending: 1, logSegments: 0, logBytes: 0 });
  await db.aflush();
  expect(disk.count('create')).toBe(0);
  expect(readdirSync(`${file}-log`).filter((name) => name.endsWith('.log'))).toEqual([]);
  await db.close();
});

test.each(['auto', 'manual', 'count', 'time', 'immediate'] as const)(
  "at 'applied' an acknowledgement is a barrier: it flushes in mode %s and is there when SQLite has it",
  async (mode) => {
    const db = await open(join(tempDir(), 'a.db'), {
      durability: 'applied',
      flush: { mode, intervalMs: 3_600_000, maxWrites: 1_000 },
    });
    await db.aset('k', 1, { timeoutMs: 5_000 });
    expect(db.stats()).toMatchObject({ applied: 1, pending: 0 });
    db.set('l', 1);
    await db.adurable({ timeoutMs: 5_000 });
    expect(db.stats()).toMatchObject({ applied: 2, pending: 0 });
    await db.close();
  },
);

test("at 'applied' a write that SQLite refuses rejects its own acknowledgement", async () => {
  const db = await open(join(tempDir(), 'a.db'), { durability: 'applied' });
  db.on('dead-letter', () => {});
  await db.aexecute('CREATE TABLE strict (n INTEGER CHECK (n > 0))');
  const rows = db.rows('strict');
  await rows.aappend({ n: 1 });
  await expect(rows.aappend({ n: -1 })).rejects.toMatchObject({ code: 'SLUICE_STORE' });
  expect(db.stats()).toMatchObject({ applied: 1, deadLettered: 1, pending: 0 });
  await db.close();
});

test('maxBlockMs is about room: a write that has got it waits for its sync as long as any other', async () => {
  const disk = new FaultFileSystem();
  const db = await openOn(machine({ fileSystem: disk }), join(tempDir(), 'a.db'), {
    ...MANUAL,
    staging: { maxEntries: 2 },
    maxBlockMs: 200,
  });
  await db.aset('a', 1);
  await db.aset('b', 1);
  const waiting = db.aset('c', 1);
  const held = gate(disk, 'datasync');
  await db.aflush();
  await eventually(() => held.waits() > 0, 'a sync was asked for');
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(await isPending(waiting)).toBe(true);
  held.open();
  await waiting;
  await db.close();
});

test('one fdatasync serves the acknowledgements of many producers', async () => {
  const disk = new FaultFileSystem();
  const db = await openOn(machine({ fileSystem: disk }), join(tempDir(), 'a.db'), MANUAL);
  const rounds = 40;
  let acknowledged = 0;
  await Promise.all(
    Array.from({ length: 50 }, async (_, producer) => {
      for (let i = 0; i < rounds; i++) {
        await db.aset(`${producer}/${i}`, i);
        acknowledged++;
      }
    }),
  );
  expect(acknowledged).toBe(50 * rounds);
  expect(disk.count('datasync')).toBeLessThan(acknowledged / 10);
  expect(db.stats().syncs).toBeGreaterThan(0);
  await db.close();
});

test.each([
  ['sync', 'memory'],
  ['os', 'applied'],
  ['interval', 'sync'],
  ['applied', 'os'],
] as const)('what a run at %s leaves in the log is recovered at %s', async (first, second) => {
  const file = join(tempDir(), 'a.db');
  const before = await open(file, { durability: first, flush: { mode: 'manual' }, closeTimeoutMs: 0 });
  before.set('a', 1);
  before.set('b', [2]);
  before.delete('a');
  expect(await before.close()).toEqual({ pending: 3 });
  const after = await open(file, { durability: second, flush: { mode: 'manual' } });
  expect(after.stats()).toMatchObject({ recovered: 3 });
  expect([...after.entries()]).toEqual([['b', [2]]]);
  await after.aset('c', 3);
  await after.aflush();
  expect(after.stats()).toMatchObject({ accepted: 1, recovered: 3, pending: 0 });
  await after.close();
  expect(readdirSync(`${file}-log`).filter((name) => name.endsWith('.log'))).toEqual([]);
  const last = await open(file);
  expect(last.stats().recovered).toBe(0);
  expect([...last.keys()]).toEqual(['b', 'c']);
  await last.close();
});

test('the report of a recovery can be listened to', async () => {
  const file = join(tempDir(), 'a.db');
  const before = await open(file, { flush: { mode: 'manual' }, closeTimeoutMs: 0 });
  await before.aset('a', 1);
  await before.close();
  const after = await open(file);
  const report = await new Promise((resolve) => after.once('recovered', resolve));
  expect(report).toMatchObject({ segments: 1, writes: 1, tornBytes: 0, damage: undefined });
  await after.close();
});
