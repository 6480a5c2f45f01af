import { copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import BetterSqlite3 from 'better-sqlite3';
import { type Database, type DatabaseStats, type OpenOptions, open } from 'sluicedb';
import { expect, onTestFinished, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { eventually } from '../support/eventually.ts';
import { FaultFileSystem } from '../support/fault-file-system.ts';
import { machine, Threads } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

function closing<D extends Database>(db: D): D {
  for (const event of ['failure', 'dead-letter'] as const) db.on(event, () => {});
  onTestFinished(async () => void (await db.close()));
  return db;
}

const openTemp = async (options?: OpenOptions) => closing(await open(join(tempDir(), 'data.db'), options));

const codeOf = (error: unknown) => (error as { code?: string }).code;

/** The kinds that are not 0. */
const counted = (counts: Readonly<Record<string, number>>) =>
  Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0));

const law = (s: DatabaseStats) =>
  expect(s.accepted + s.recovered).toBe(s.applied + s.coalesced + s.deadLettered + s.pending);

test('accepted writes are counted by what they do', async () => {
  const db = await openTemp({ flush: { mode: 'manual' } });
  db.set('a', 1);
  db.update({ b: 2, c: 3 });
  await db.aset('d', 4);
  db.delete('a');
  db.pop('b');
  db.setMany({ x: 1, y: 2, z: 3 });
  await db.adeleteMany(['x', 'y']);
  db.clear();
  const rows = db.rows('readings', { columns: { celsius: 'real' }, onNewColumn: 'add' });
  rows.appendMany([{ celsius: 1 }, { celsius: 2 }]);
  rows.append({ celsius: 3, room: 'kitchen' });
  db.stage('DELETE FROM readings WHERE celsius = 2');
  const { acceptedBy, accepted, bytesAccepted, bytesApplied } = db.stats();
  expect(acceptedBy).toEqual({ put: 4, delete: 2, group: 2, clear: 1, ensure: 2, append: 3, sql: 1 });
  expect(accepted).toBe(15);
  expect(db.stats().lastSeq).toBe(15);
  expect([bytesAccepted > 0, bytesApplied]).toEqual([true, 0]);
  await db.aflush();
  expect(db.stats()).toMatchObject({ bytesAccepted, bytesApplied: bytesAccepted, stagedBytes: 0 });
  law(db.stats());
});

test('[fault 60] calls that are turned away are counted by why, once each, and cost nothing that was accepted', async () => {
  const db = await openTemp({
    flush: { mode: 'manual' },
    staging: { maxEntries: 10, maxBytes: 4_096 },
    maxBlockMs: 20,
  });
  const rows = db.rows('readings', { columns: { celsius: 'real' } });
  await db.aflush();
  const before = db.stats();
  const refusals: [reason: string, call: () => unknown][] = [
    ['invalid', () => db.set(null as never, 1)],
    ['invalid', () => db.set('key', undefined)],
    ['invalid', () => db.aset(7 as never, 1)],
    ['invalid', () => db.setDefault('new', (() => {}) as never)],
    ['invalid', () => db.setDefault(7 as never, 1)],
    ['invalid', () => db.update([['a', 1], 'no pair' as never])],
    ['invalid', () => db.delete(7 as never)],
    ['invalid', () => db.deleteMany(['a', 7 as never])],
    ['invalid', () => db.deleteMany('keys')],
    ['invalid', () => db.adeleteMany(null as never)],
    ['invalid', () => db.apop(7 as never)],
    ['invalid', () => db.stage('SELECT 1')],
    ['invalid', () => db.astage('DELETE FROM readings WHERE celsius = ?', [{ toJSON: () => 1n }])],
    ['invalid', () => rows.append(null as never)],
    ['invalid', () => rows.append({ kelvin: 1 } as never)],
    ['invalid', () => rows.aappendMany([{ celsius: 1 }, 5 as never])],
    ['too_large', () => db.set('large', 'x'.repeat(8_192))],
    ['too_large', () => db.aset('large', 'x'.repeat(8_192))],
    ['too_large', () => db.update(Array.from({ length: 11 }, (_, i) => [`${i}`, i] as const))],
  ];
  const expected: Record<string, number> = {};
  for (const [reason, call] of refusals) {
    expected[reason] = (expected[reason] ?? 0) + 1;
    await expect((async () => call())(), String(call)).rejects.toThrow();
    expect(counted(db.stats().refusedBy), String(call)).toEqual(expected);
  }
  expect(db.stats().accepted).toBe(before.accepted);

  for (let i = 0; i < 10; i++) db.set(`${i}`, i);
  expect(() => db.set('one more', 1)).toThrow(expect.objectContaining({ code: 'SLUICE_FULL' }));
  expect(() => db.update({ one: 1 })).toThrow(expect.objectContaining({ code: 'SLUICE_FULL' }));
  await expect(db.aset('waits', 1)).rejects.toThrow(expect.objectContaining({ code: 'SLUICE_TIMEOUT' }));
  const aborting = AbortSignal.timeout(5);
  await expect(db.aset('waits', 1, { signal: aborting })).rejects.toThrow(
    expect.objectContaining({ code: 'SLUICE_ABORTED' }),
  );
  expect(counted(db.stats().refusedBy)).toEqual({ ...expected, full: 2, timeout: 1, aborted: 1 });
  const { waits, waitedMs, waiting, needsDrain } = db.stats();
  expect({ waits, waiting, needsDrain }).toEqual({ waits: 2, waiting: 0, needsDrain: true });
  expect(waitedMs).toBeGreaterThan(15);

  const late = db.aset('late', 1, { timeoutMs: 10_000 });
  expect(db.stats().waiting).toBe(1);
  await db.aflush();
  await late;
  expect(db.stats()).toMatchObject({ waits: 3, waiting: 0, needsDrain: false });

  await db.close();
  expect(() => db.set('after', 1)).toThrow(expect.objectContaining({ code: 'SLUICE_CLOSED' }));
  await expect(db.apop('after')).rejects.toThrow(expect.objectContaining({ code: 'SLUICE_CLOSED' }));
  for (const call of [() => db.delete('after'), () => db.pop('after'), () => db.deleteMany(['after', 'all'])]) {
    expect(call).toThrow(expect.objectContaining({ code: 'SLUICE_CLOSED' }));
  }
  const last = db.stats();
  expect(last.refusedBy.closed).toBe(5);
  expect(last.refused).toBe(Object.values(last.refusedBy).reduce((a, b) => a + b, 0));
  law(last);
});

test('dead writes are counted by why they died', async () => {
  const db = await openTemp({ flush: { mode: 'manual' } });
  await db.aexecute('CREATE TABLE picky (id INTEGER PRIMARY KEY, n INTEGER CHECK (n > 0), t TEXT UNIQUE)');
  await db.aexecute('CREATE TABLE strict_one (n INTEGER) STRICT');
  await db.aexecute(
    "CREATE TRIGGER ends BEFORE INSERT ON picky WHEN NEW.t = 'end' BEGIN SELECT RAISE(ROLLBACK, 'no more'); END",
  );
  db.stage('INSERT INTO picky (n) VALUES (-1)');
  db.stage("INSERT INTO picky (n, t) VALUES (1, 'a')");
  db.stage("INSERT INTO picky (n, t) VALUES (1, 'a')");
  db.stage("INSERT INTO picky (n, t) VALUES (1, 'end')");
  db.stage("INSERT INTO picky (id, n) VALUES ('no number', 1)");
  db.stage('INSERT INTO strict_one (n) VALUES (?)', ['text']);
  db.stage('INSERT INTO picky (t) VALUES (zeroblob(2000000000))');
  db.stage('INSERT INTO nowhere (n) VALUES (1)');
  db.stage('INSERT INTO picky (n) VALUES (?)', [1, 2, 3]);
  await db.aflush();
  const { deadLettered, deadLetteredBy } = db.stats();
  expect(counted(deadLetteredBy)).toEqual({ constraint: 3, type: 3, size: 1, statement: 1 });
  expect(deadLettered).toBe(8);
  law(db.stats());
  // Each write that takes the transaction with it costs another run of the batch.
  expect(db.stats().batchSplits).toBe(1);
  await db.dlq.retry({ errorCode: 'SQLITE_CONSTRAINT_CHECK' });
  expect(db.stats().deadLetters).toMatchObject({ retriesFailed: 1, retried: 0, entries: 8 });
});

test('how far the log is behind: synced, unsynced, applied', async () => {
  const db = await openTemp({ durability: 'interval', syncIntervalMs: 300, flush: { mode: 'manual' } });
  expect(db.stats()).toMatchObject({ unsyncedBytes: 0, unsyncedAgeMs: 0, durableSeq: 0, oldestPendingAgeMs: 0 });
  await db.aset('a', 'x'.repeat(1_000));
  const after = db.stats();
  // A machine that was away for the whole interval has synced it already.
  if (after.durableSeq === 0) expect(after.unsyncedBytes).toBeGreaterThan(1_000);
  expect(after).toMatchObject({ lastSeq: 1, appliedSeq: 0, pending: 1 });
  expect(after.logBytesWritten).toBeGreaterThan(1_000);
  await eventually(() => db.stats().durableSeq === 1, 'the sync of the timer', 5_000);
  expect(db.stats()).toMatchObject({ unsyncedBytes: 0, unsyncedAgeMs: 0, appliedSeq: 0 });
  await eventually(() => db.stats().oldestPendingAgeMs > 100, 'a pending write that grows old', 5_000);
  await db.aflush();
  expect(db.stats()).toMatchObject({ oldestPendingAgeMs: 0, appliedSeq: 1, durableSeq: 1 });

  // More than one frame, of which the log has none yet.
  const bytesAtOnce = 3_000 * 1_000;
  for (let i = 0; i < 3_000; i++) db.set(`key ${i}`, 'x'.repeat(1_000));
  expect(db.stats().unsyncedBytes).toBeGreaterThan(bytesAtOnce);
  await eventually(() => db.stats().unsyncedBytes === 0, 'the sync of all of them', 10_000);

  const memory = closing(await open(':memory:', { flush: { mode: 'manual' } }));
  memory.set('a', 1);
  const { stagedBytes, unsyncedBytes, durableSeq } = memory.stats();
  expect([unsyncedBytes, durableSeq]).toEqual([stagedBytes, 0]);
  await memory.aflush();
  expect(memory.stats()).toMatchObject({ unsyncedBytes: 0, durableSeq: 1 });
});

test('what a crash left behind is as old as it is, and recovery says what it found', async () => {
  const path = join(tempDir(), 'data.db');
  const first = await open(path, { flush: { mode: 'manual' }, closeTimeoutMs: 0 });
  await first.aset('a', 1);
  await new Promise((resolve) => setTimeout(resolve, 50));
  for (let i = 0; i < 100; i++) first.set(`key ${i}`, i);
  await first.close();
  const [segment = ''] = readdirSync(`${path}-log`).filter((name) => name.endsWith('.log') || /^\d+/.test(name));
  const file = join(`${path}-log`, segment);
  writeFileSync(file, Buffer.concat([readFileSync(file), Buffer.from('half a frame')]));

  const db = closing(await open(path, { flush: { mode: 'manual' } }));
  const { recovered, recovery, oldestPendingAgeMs } = db.stats();
  expect(recovered).toBe(101);
  expect(recovery).toMatchObject({ segments: 1, tornBytes: 12, setAside: 0, damaged: false });
  expect(recovery.durationMs).toBeGreaterThan(0);
  expect(oldestPendingAgeMs).toBeGreaterThanOrEqual(50);
  law(db.stats());
  expect(db.get('key 1')).toBe(1);
  await db.aflush();
  law(db.stats());
  db.get('key 1');
  db.has('nowhere');
  await db.agetMany(['key 2', 'key 3', 'nowhere']);
  expect(db.stats().reads).toEqual({ staging: 1, cache: 0, sqlite: 3, miss: 2 });
});

test('a log that went on with its damage says so', async () => {
  const path = join(tempDir(), 'data.db');
  const first = await open(path, { flush: { mode: 'manual' }, closeTimeoutMs: 0 });
  for (let i = 0; i < 10; i++) await first.aset(`key ${i}`, 'x'.repeat(200));
  await first.close();
  const [segment = ''] = readdirSync(`${path}-log`).filter((name) => /^\d+/.test(name));
  const file = join(`${path}-log`, segment);
  const bytes = readFileSync(file);
  bytes[1_000] = (bytes[1_000] as number) ^ 0xff;
  writeFileSync(file, bytes);
  copyFileSync(file, `${path}.copy`);
  const db = closing(await open(path, { recovery: 'keep-prefix' }));
  const { recovery, recovered } = db.stats();
  expect(recovery.damaged).toBe(true);
  expect(recovery.setAside).toBeGreaterThan(0);
  expect(recovered).toBeLessThan(10);
  law(db.stats());
});

test('what the disk of the log refuses is counted by operation and meaning', async () => {
  const disk = new FaultFileSystem();
  const path = join(tempDir(), 'data.db');
  const db = closing(await openOn(machine({ fileSystem: disk }), path, { flush: { mode: 'manual' } }));
  disk.fail('create', 'ENOSPC', { times: 2 });
  await db.aset('a', 1).catch((error: unknown) => expect(codeOf(error)).toBe('SLUICE_LOG_IO'));
  await db.adurable().catch(() => undefined);
  await eventually(() => db.stats().durableSeq >= 1, 'the log is written after all', 10_000);
  disk.fail('write', 'ENOSPC', { times: 1 });
  await db.aset('b', 1).catch((error: unknown) => expect(codeOf(error)).toBe('SLUICE_LOG_IO'));
  await eventually(() => db.stats().durableSeq >= 2, 'and again', 10_000);
  disk.fail('datasync', 'EIO', { times: 1 });
  await db.aset('c', 1).catch((error: unknown) => expect(codeOf(error)).toBe('SLUICE_LOG_IO'));
  await eventually(() => db.stats().durableSeq >= 3, 'in a new segment', 10_000);
  const { logErrors, syncFailures } = db.stats();
  expect(logErrors).toEqual({
    create: { transient: 0, space: 2, config: 0, reopen: 0 },
    write: { transient: 0, space: 1, config: 0, reopen: 0 },
    fsync: { transient: 0, space: 0, config: 0, reopen: 1 },
    delete: { transient: 0, space: 0, config: 0, reopen: 0 },
  });
  expect(syncFailures).toBe(1);
  expect(disk.hits.get('create')).toBe(2);

  disk.fail('unlink', 'EACCES', { times: 1 });
  await db.aflush();
  await eventually(() => db.stats().logErrors.delete.config === 1, 'a segment that cannot be deleted', 10_000);
  await eventually(() => db.stats().logSegmentsDeleted > 0, 'and is deleted later', 15_000);
});

test('attempts that SQLite refuses are counted by code and meaning, and in a row until one is not', async () => {
  const db = await openTemp({ flush: { intervalMs: 5 } });
  await db.aset('a', 1);
  await db.aflush();
  const other = new BetterSqlite3(db.path);
  other.exec('BEGIN IMMEDIATE');
  db.set('a', 2);
  await eventually(() => db.stats().flushConsecutiveFailures >= 3, 'three attempts in vain', 10_000);
  const during = db.stats();
  expect(counted(during.flushRetriesBy)).toEqual({ transient: during.flushRetries });
  expect(counted(during.sqliteErrors)).toEqual({ SQLITE_BUSY: during.flushConsecutiveFailures });
  other.exec('ROLLBACK');
  await db.aflush();
  expect(db.stats().flushConsecutiveFailures).toBe(0);
  expect(db.stats().sqliteErrors['SQLITE_BUSY']).toBeGreaterThanOrEqual(3);

  // A reader holds its snapshot: the WAL cannot be emptied, and it shows how much of it is left.
  other.exec('BEGIN');
  other.prepare('SELECT * FROM data').all();
  for (let i = 0; i < 200; i++) db.set(`key ${i}`, 'x'.repeat(500));
  await db.aflush();
  await eventually(() => db.stats().checkpoints.partial > 0, 'a checkpoint that is held up', 10_000);
  const { walFrames, walFramesCheckpointed, walBytes, diskFreeBytes } = db.stats();
  expect(walFrames).toBeGreaterThan(walFramesCheckpointed);
  expect(walBytes).toBeGreaterThan(100_000);
  expect(diskFreeBytes).toBeGreaterThan(0);
  other.close();
});

test('a writer thread that dies is counted as that, and what was under way is counted under no code of SQLite', async () => {
  const threads = new Threads();
  const db = closing(await openOn(machine({ spawn: threads.spawn }), join(tempDir(), 'data.db'), {}));
  await db.aset('a', 1);
  await db.aflush();
  await threads.writer.terminate();
  await db.aset('b', 2);
  await db.aflush();
  const { writerRestartsBy, writerRestarts, applied } = db.stats();
  expect({ writerRestartsBy, writerRestarts, applied }).toEqual({
    writerRestartsBy: { death: 1, reopen: 0 },
    writerRestarts: 1,
    applied: 2,
  });
});

test("NanaSQLite's names for the same numbers", async () => {
  const db = await openTemp({ flush: { mode: 'manual' } });
  expect(await db.agetV2Metrics()).toEqual({
    flushCount: 0,
    kvsItemsFlushed: 0,
    strictTasksExecuted: 0,
    dlqErrors: 0,
    lastFlushTime: undefined,
    totalFlushTimeMs: 0,
    currentStagingCount: 0,
    currentStrictQueueSize: 0,
  });
  await db.aexecute('CREATE TABLE picky (n INTEGER CHECK (n > 0))');
  db.update({ a: 1, b: 2 });
  db.set('a', 3);
  db.stage('INSERT INTO picky VALUES (-1)');
  expect(await db.agetV2Metrics()).toMatchObject({ currentStagingCount: 4, strictTasksExecuted: 1, flushCount: 0 });
  await db.aflush();
  const metrics = await db.agetV2Metrics();
  expect(metrics).toMatchObject({ flushCount: 1, kvsItemsFlushed: 2, dlqErrors: 1, currentStagingCount: 0 });
  expect(metrics.totalFlushTimeMs).toBe(db.stats().flushBusyMs);
  expect(metrics.lastFlushTime).toBe((db.stats().lastFlushAt as number) / 1_000);
  expect(Math.abs((metrics.lastFlushTime as number) - Date.now() / 1_000)).toBeLessThan(60);
});
