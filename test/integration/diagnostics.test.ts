import { join } from 'node:path';
import { type Database, open } from 'sluicedb';
import { expect, test } from 'vitest';
import { diagnosticsOf } from '../../dist/db/diagnostics.js';
import { openOn } from '../../dist/db/open.js';
import { CHANNELS, listenTo } from '../support/channels.ts';
import { Child, lockFromOutside } from '../support/child.ts';
import { codeFrom, eventually } from '../support/eventually.ts';
import { FaultFileSystem } from '../support/fault-file-system.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

const MANUAL = { flush: { mode: 'manual' } } as const;

const isDuring = (begun: number) => (at: number) => at >= begun - 5 && at <= Date.now() + 5;

/** Counts attempts that failed, and keeps the process from warning of what is broken on purpose. */
function watched(db: Database): { db: Database; retries(): number } {
  let retries = 0;
  db.on('failure', () => {})
    .on('dead-letter', () => {})
    .on('retry', () => retries++);
  return { db, retries: () => retries };
}

test('each flush and each sync is a message that a span can be made of', async () => {
  const begun = Date.now();
  const flushes = listenTo('sluicedb:flush');
  const syncs = listenTo('sluicedb:sync');
  const db = await open(join(tempDir(), 'a.db'), MANUAL);
  for (let round = 0; round < 5; round++) {
    for (let i = 0; i < 100; i++) db.set(`k${i % 80}`, round);
    await db.adurable();
    await db.aflush();
  }
  await db.close();
  const sum = (field: 'writes' | 'applied' | 'coalesced' | 'dead') =>
    flushes.seen.reduce((total, message) => total + message[field], 0);
  expect(['writes', 'applied', 'coalesced', 'dead'].map((field) => sum(field as 'writes'))).toEqual([500, 400, 100, 0]);
  expect(flushes.seen).toHaveLength(5);
  expect(syncs.seen.reduce((total, { writes }) => total + writes, 0)).toBe(500);
  expect(syncs.seen.length).toBeGreaterThanOrEqual(5);
  for (const { path, startedAt, durationMs } of [...flushes.seen, ...syncs.seen]) {
    expect(path).toBe(db.path);
    expect(durationMs).toBeGreaterThan(0);
    expect([startedAt, startedAt + durationMs]).toSatisfy((times: number[]) => times.every(isDuring(begun)));
  }
});

test('one subscriber tells several databases apart, and hears nothing once it has unsubscribed', async () => {
  const flushes = listenTo('sluicedb:flush');
  const folder = tempDir();
  const [one, two] = [await open(join(folder, '1.db'), MANUAL), await open(join(folder, '2.db'), MANUAL)];
  one.set('a', 1);
  await one.aflush();
  for (const key of ['a', 'b']) two.set(key, 1);
  await two.aflush();
  expect(flushes.seen.map(({ path, writes }) => [path, writes])).toEqual([
    [one.path, 1],
    [two.path, 2],
  ]);
  flushes.end();
  one.set('b', 1);
  await one.aflush();
  expect(flushes.seen).toHaveLength(2);
  const again = listenTo('sluicedb:flush');
  await two.aset('c', 1);
  await Promise.all([one.close(), two.close()]);
  expect(again.seen.map(({ path }) => path)).toEqual([two.path]);
});

test('a message is made only where somebody has subscribed', () => {
  let made = 0;
  const now = () => ++made;
  const { commit, flush } = diagnosticsOf('a.db', { now });
  const event = { writes: 1, applied: 1, coalesced: 0, dead: 0, superseded: 0, bytes: 1, durationMs: 1 };
  const tell = () => {
    flush?.(event as never);
    commit?.({ writes: 1, bytes: 1, writeMs: 1, syncMs: 1 } as never);
  };
  tell();
  expect(made).toBe(0);
  const { seen, end } = listenTo('sluicedb:flush');
  tell();
  expect([made, seen.length]).toEqual([1, 1]);
  end();
  tell();
  expect(made).toBe(1);
});

test('a write that SQLite refuses for good is a message without what it wanted to write', async () => {
  const dead = listenTo('sluicedb:dead-letter');
  const flushes = listenTo('sluicedb:flush');
  const { db } = watched(await open(join(tempDir(), 'a.db'), MANUAL));
  await db.aexecute('CREATE TABLE guarded (key TEXT PRIMARY KEY, value TEXT CHECK (length(value) < 10))');
  const table = db.table('guarded');
  for (let i = 0; i < 10; i++) table.set(`k${i}`, i % 3 === 0 ? 'much too long for it' : 'ok');
  await db.aflush();
  expect(flushes.seen.at(-1)).toMatchObject({ writes: 10, applied: 6, dead: 4 });
  const entries = await db.dlq.listSummaries();
  expect(entries).toHaveLength(4);
  expect(dead.seen).toEqual(
    entries.map(({ key: _, ...entry }) => ({
      ...entry,
      path: db.path,
      startedAt: entry.acceptedAt,
      durationMs: entry.lastFailedAt - entry.acceptedAt,
    })),
  );
  expect(JSON.stringify(dead.seen)).not.toContain('much too long');
  await db.close();
});

test('a flush that stands still and goes on: a stall and a resume over the same time, and no flush in between', async () => {
  const begun = Date.now();
  const stalls = listenTo('sluicedb:stall');
  const resumes = listenTo('sluicedb:resume');
  const { db, retries } = watched(await open(join(tempDir(), 'a.db'), { flush: { intervalMs: 5 } }));
  await db.aset('before', 1);
  await db.aflush();
  await db.aexecute('ALTER TABLE data RENAME COLUMN value TO wrong');
  const flushes = listenTo('sluicedb:flush');
  db.set('k', 1);
  await eventually(() => stalls.seen.length > 0, 'it stands still');
  const [stall] = stalls.seen;
  expect(stall).toMatchObject({ path: db.path, reason: 'config', error: expect.any(Error) as Error });
  expect(stall?.startedAt).toSatisfy(isDuring(begun));
  await eventually(() => retries() > 1, 'it was tried again');
  expect([flushes.seen.length, resumes.seen.length]).toEqual([0, 0]);
  await db.aexecute('ALTER TABLE data RENAME COLUMN wrong TO value', { ahead: true });
  await db.aflush();
  expect(flushes.seen).toHaveLength(1);
  expect(stalls.seen).toHaveLength(1);
  expect(resumes.seen).toEqual([
    { path: db.path, reason: 'config', startedAt: expect.any(Number), durationMs: expect.any(Number) },
  ]);
  const [resume] = resumes.seen;
  expect(Math.abs((resume?.startedAt ?? 0) - (stall?.startedAt ?? 0))).toBeLessThan(50);
  expect(resume?.durationMs).toBeGreaterThan(0);
  await db.close();
});

test('a batch is one flush, however often it had to be tried', async () => {
  const file = join(tempDir(), 'a.db');
  const { db, retries } = watched(await open(file, MANUAL));
  await db.aset('before', 1);
  await db.aflush();
  const flushes = listenTo('sluicedb:flush');
  const unlock = await lockFromOutside(file);
  db.set('k', 1);
  const flushed = db.aflush();
  await eventually(() => retries() >= 3, 'several attempts have failed');
  expect(flushes.seen).toEqual([]);
  await unlock();
  await flushed;
  expect(flushes.seen.map(({ writes }) => writes)).toEqual([1]);
  await db.close();
});

test('a sync that fails is no message; the one that makes up for it is', async () => {
  const disk = new FaultFileSystem();
  const { db } = watched(await openOn(machine({ fileSystem: disk }), join(tempDir(), 'a.db'), MANUAL));
  await db.aset('before', 1);
  const syncs = listenTo('sluicedb:sync');
  disk.fail('datasync', 'EIO', { times: 1 });
  expect(await codeFrom(() => db.aset('k', 1))).toBe('SLUICE_LOG_IO');
  await db.aset('l', 1);
  expect(disk.hits.get('datasync')).toBe(1);
  expect(syncs.seen.reduce((total, { writes }) => total + writes, 0)).toBe(2);
  await db.close();
});

test('a group that is written and not synced is no sync', async () => {
  const syncs = listenTo('sluicedb:sync');
  const db = await open(join(tempDir(), 'a.db'), { ...MANUAL, durability: 'os', closeTimeoutMs: 0 });
  let commits = 0;
  db.on('commit', () => commits++);
  for (let i = 0; i < 3; i++) await db.aset(`k${i}`, i);
  expect([commits, syncs.seen.length]).toEqual([3, 0]);
  // Close syncs what is left in the log.
  await db.close();
  expect(syncs.seen).toMatchObject([{ path: db.path, writes: 0, bytes: 0 }]);
});

test('what a subscriber throws ends up with the process, and in the way of nobody', async () => {
  const child = new Child(
    `import { subscribe } from 'node:diagnostics_channel';
     const names = JSON.parse(process.argv[3]);
     const thrown = new Map(names.map((name) => [name, 0]));
     const seen = new Map(names.map((name) => [name, 0]));
     for (const name of names) {
       subscribe(name, () => { throw new Error(name); });
       subscribe(name, () => seen.set(name, seen.get(name) + 1));
     }
     process.on('uncaughtException', ({ message }) => thrown.set(message, thrown.get(message) + 1));
     const db = await open(process.argv[2], { flush: { intervalMs: 5 } });
     db.on('failure', () => {});
     db.on('dead-letter', () => {});
     const resumed = new Promise((resolve) => db.once('resume', resolve));
     await db.aexecute('CREATE TABLE t (n INTEGER NOT NULL)');
     db.stage('INSERT INTO t VALUES (NULL)');
     await db.aset('k', 1);
     await db.aflush();
     await db.aexecute('ALTER TABLE data RENAME COLUMN value TO wrong');
     const stalled = new Promise((resolve) => db.once('stall', resolve));
     await db.aset('l', 1);
     await stalled;
     await db.aexecute('ALTER TABLE data RENAME COLUMN wrong TO value', { ahead: true });
     await resumed;
     const { pending } = await db.close();
     const { applied, deadLettered, state } = db.stats();
     console.log(JSON.stringify({ pending, applied, deadLettered, thrown: [...thrown], seen: [...seen] }));`,
    [join(tempDir(), 'a.db'), JSON.stringify(CHANNELS)],
  );
  const { code, output, errors } = await child.end();
  expect([code, errors]).toEqual([0, '']);
  const said = JSON.parse(output) as { thrown: [string, number][]; seen: [string, number][] };
  expect(said).toMatchObject({ pending: 0, applied: 2, deadLettered: 1 });
  expect(said.thrown).toEqual(said.seen);
  for (const [name, count] of said.seen) expect(count, name).toBeGreaterThan(0);
});
