import { rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { open } from 'sluicedb';
import { createMetrics } from 'sluicedb/metrics';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { eventually } from '../support/eventually.ts';
import { parseText, sumOf } from '../support/exposition.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';
import { wrappedWriter } from '../support/wrapped-writer.ts';

const SMALL = { flush: { mode: 'manual' }, log: { segmentBytes: 4_096 } } as const;

/** A reader of another program, which keeps the snapshot that it has. */
function pinnedReader(file: string): { release(): void } {
  const reader = new Sqlite(file);
  reader.exec('BEGIN');
  reader.prepare('SELECT count(*) FROM sqlite_master').get();
  return {
    release: () => {
      reader.exec('COMMIT');
      reader.close();
    },
  };
}

test('many reads in one turn keep a lock on the WAL, not a snapshot, and only for the turn', async () => {
  const file = join(tempDir(), 'a.db');
  const db = await open(file, SMALL);
  for (let i = 0; i < 50; i++) db.set(`k${i}`, i);
  await db.aflush();
  const other = new Sqlite(file, { timeout: 0 });
  const update = other.prepare('UPDATE data SET value = ? WHERE key = ?');
  const isHeldUp = () => (other.pragma('wal_checkpoint(TRUNCATE)') as [{ busy: number }])[0].busy;
  await eventually(() => db.stats().walBytes === 0, 'a checkpoint in a gap, and its report', 5_000);
  for (let i = 0; i < 50; i++) expect(db.get(`k${i}`)).toBe(i);
  for (let i = 0; i < 50; i++) {
    update.run(`${i + 1}`, `k${i}`);
    expect(db.get(`k${i}`)).toBe(i + 1);
  }
  expect(isHeldUp()).toBe(1);
  await Promise.resolve();
  expect(isHeldUp()).toBe(0);
  for (let i = 0; i < 50; i++) expect(db.get(`k${i}`)).toBe(i + 1);
  await db.close();
  other.close();
});

test('[fault 48] a reader pins a snapshot: the WAL grows and is seen to, partial checkpoints are counted, and it shrinks after', async () => {
  const file = join(tempDir(), 'a.db');
  const db = await open(file, SMALL);
  const metrics = createMetrics(db, { db: 'a' });
  const scraped = async (name: string, labels = {}): Promise<number> =>
    sumOf(parseText(await metrics.registry.metrics()), `sluice_${name}`, labels);
  await db.aset('first', 1);
  await db.aflush();
  await eventually(() => db.stats().walBytes === 0, 'a checkpoint in a gap, and its report', 5_000);
  expect(db.stats().checkpoints.complete).toBeGreaterThan(0);
  const reader = pinnedReader(file);
  let before = 0;
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 200; i++) db.set(`k${i}`, `${round}`.repeat(1_000));
    await db.aflush();
    const { walBytes } = db.stats();
    expect(walBytes).toBe(statSync(`${file}-wal`).size);
    expect(walBytes).toBeGreaterThan(before + 100_000);
    before = walBytes;
  }
  expect(await scraped('sqlite_wal_size_bytes')).toBe(before);
  await eventually(() => db.stats().checkpoints.partial > 0, 'a checkpoint that was held up', 5_000);
  expect(await scraped('checkpoints_total', { result: 'partial' })).toBeGreaterThan(0);
  expect(await scraped('checkpoints_total', { result: 'failed' })).toBe(0);
  const { complete } = db.stats().checkpoints;
  expect(db.stats().walBytes).toBe(before);
  reader.release();
  // By itself: nothing is written any more.
  await eventually(() => db.stats().walBytes === 0, 'the WAL is empty again', 10_000);
  expect(db.stats().checkpoints.complete).toBeGreaterThan(complete);
  expect(statSync(`${file}-wal`).size).toBe(0);
  expect(await scraped('sqlite_wal_size_bytes')).toBe(0);
  metrics.close();
  await db.close();
});

test('[fault 48] while the watermark is not durable, a pinned reader keeps every segment', async () => {
  const file = join(tempDir(), 'a.db');
  const first = await open(file, SMALL);
  await first.aset('first', 1);
  await first.close();
  const reader = pinnedReader(file);
  const start = performance.now();
  const db = await open(file, SMALL);
  // Not held up by what only its checkpoint waits for.
  expect(performance.now() - start).toBeLessThan(4_000);
  for (let i = 0; i < 20; i++) {
    await db.aset(`k${i}`, 'x'.repeat(2_000));
    await db.aflush();
  }
  const { logSegments, checkpoints, walBytes } = db.stats();
  expect(logSegments).toBeGreaterThan(5);
  expect(checkpoints).toMatchObject({ complete: 0 });
  expect(checkpoints.partial).toBeGreaterThanOrEqual(20);
  expect(walBytes).toBeGreaterThan(20 * 2_000);
  reader.release();
  await eventually(() => db.stats().logSegments <= 1, 'the segments are deleted');
  expect(db.stats().checkpoints.complete).toBeGreaterThan(0);
  await db.close();
});

test('a load without a gap: the WAL is carried between two batches, and that is counted', async () => {
  const file = join(tempDir(), 'a.db');
  // Without a log, only SQLite is in the way of the writes: the writer thread always has a batch.
  const db = await open(file, { durability: 'memory', flush: { intervalMs: 5 } });
  const before = db.stats().checkpoints.complete;
  const value = 'x'.repeat(300);
  let most = 0;
  for (let round = 0; round < 300 && db.stats().checkpoints.complete < before + 2; round++) {
    for (let i = 0; i < 2_000; i++) db.set(`key ${((round * 2_000 + i) * 7_919) % 600_000}`, value);
    if (db.needsDrain) await db.adrain();
    most = Math.max(most, db.stats().walBytes);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { checkpoints } = db.stats();
  expect(checkpoints.complete).toBeGreaterThanOrEqual(before + 2);
  expect(checkpoints.failed).toBe(0);
  // It begins at 16,000 pages of 4 KiB, after the batch that reaches them.
  expect(most).toBeGreaterThan(32 * 1024 * 1024);
  expect(most).toBeLessThan(256 * 1024 * 1024);
  await db.close();
});

/** While the switch is there, a checkpoint fails as a sync of the disk would make it. */
const FAILING_CHECKPOINT = (armed: string) => `
  const pragma = Sqlite.prototype.pragma;
  Sqlite.prototype.pragma = function (text, ...rest) {
    if (text.startsWith('wal_checkpoint') && fs.existsSync(${JSON.stringify(armed)})) {
      throw new Sqlite.SqliteError('disk I/O error', 'SQLITE_IOERR_FSYNC');
    }
    return pragma.call(this, text, ...rest);
  };`;

test('[fault 38] a sync fails in a checkpoint: no segment goes before a complete one', async () => {
  const folder = tempDir();
  const armed = join(folder, 'armed');
  const file = join(folder, 'a.db');
  const db = await openOn(machine({ spawn: wrappedWriter(FAILING_CHECKPOINT(armed)) }), file, SMALL);
  await db.aset('first', 1);
  await db.aflush();
  writeFileSync(armed, '');
  await eventually(() => db.stats().checkpoints.failed > 0, 'the checkpoint in the gap has failed', 5_000);
  const before = db.stats();
  for (let i = 0; i < 10; i++) {
    await db.aset(`k${i}`, 'x'.repeat(2_000));
    await db.aflush();
  }
  const { logSegments, checkpoints, applied, state } = db.stats();
  expect(logSegments).toBeGreaterThanOrEqual(before.logSegments + 4);
  expect(checkpoints.failed).toBeGreaterThanOrEqual(before.checkpoints.failed + 10);
  expect([applied, state]).toEqual([11, 'ok']);
  rmSync(armed);
  await eventually(() => db.stats().logSegments <= 1, 'the segments are deleted');
  expect(db.size).toBe(11);
  await db.close();
});
