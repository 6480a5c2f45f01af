import { renameSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import type { Database, OpenOptions } from 'sluicedb';
import { expect, onTestFinished, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { lockFromOutside } from '../support/child.ts';
import { eventually } from '../support/eventually.ts';
import { FaultFileSystem, type Operation } from '../support/fault-file-system.ts';
import { machine, Threads } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

/** How long a fresh write may take when nothing is in its way any more: the longest pause is 5 s. */
const T_MS = 8_000;

interface Subject {
  readonly db: Database;
  readonly file: string;
  readonly disk: FaultFileSystem;
  readonly threads: Threads;
}

/** Brings a fault about, and waits until it is felt. Returns what takes it away. */
type Bring = (subject: Subject) => Promise<() => unknown>;

const SEGMENT = /\.log$/;

/** The disk of the log refuses an operation, some attempts long. */
const onLog =
  (operation: Operation, code: string, file = SEGMENT): Bring =>
  async ({ db, disk }) => {
    disk.fail(operation, code, { file });
    // Of two values one makes the segment full, and the other needs the next.
    db.set('during', 'x'.repeat(5_000));
    await db.adurable().catch(() => undefined);
    db.set('during too', 2);
    await eventually(() => disk.hit(operation) > 1, `${operation} fails twice`);
    return () => disk.heal();
  };

const FAULTS: readonly (readonly [name: string, bring: Bring, options?: OpenOptions])[] = [
  ['the log had no room to write', onLog('write', 'ENOSPC')],
  ['a quota was used up at a sync of the log', onLog('datasync', 'EDQUOT')],
  ['there were no descriptors for a segment', onLog('create', 'EMFILE')],
  ['the log folder could not be written to', onLog('create', 'EACCES')],
  [
    'segments could not be deleted, and the log was full',
    async ({ db, disk }) => {
      disk.fail('unlink', 'EIO');
      for (let i = 0; db.stats().logBytes < 8_192; i++) await db.aset(`k${i}`, 'x'.repeat(600));
      await db.aflush();
      await eventually(() => disk.hit('unlink') > 0, 'a segment cannot be deleted');
      return () => disk.heal();
    },
    { log: { segmentBytes: 4_096, maxBytes: 8_192 } },
  ],
  [
    'the log folder was away',
    async ({ db, file }) => {
      db.set('during', 'x'.repeat(5_000));
      await db.adurable();
      renameSync(`${file}-log`, `${file}-away`);
      db.set('during too', 'x'.repeat(5_000));
      await eventually(() => db.state === 'degraded', 'the log has no place');
      return () => renameSync(`${file}-away`, `${file}-log`);
    },
  ],
  [
    'another process had the lock',
    async ({ db, file }) => {
      const unlock = await lockFromOutside(file);
      db.set('during', 1);
      await eventually(() => db.stats().flushRetries > 2, 'the flush is locked out');
      return unlock;
    },
  ],
  [
    'the writer thread died again and again',
    async ({ db, threads }) => {
      let deaths = 0;
      threads.onWriter = (worker) => {
        if (++deaths < 3) void worker.terminate();
      };
      db.set('during', 1);
      await threads.writer.terminate();
      await eventually(() => deaths > 1, 'it dies again');
      return () => undefined;
    },
  ],
  [
    'the reader threads died',
    async ({ db, threads }) => {
      await db.aget('before');
      await Promise.all(threads.readers.map((reader) => reader.terminate()));
      return () => undefined;
    },
  ],
  [
    'staging was full, and writers waited',
    async ({ db, file }) => {
      const unlock = await lockFromOutside(file);
      const waiting = Array.from({ length: 30 }, (_, i) => db.aset(`k${i}`, i).catch(() => undefined));
      await eventually(() => db.stats().waiting > 0, 'writers wait');
      return async () => {
        await unlock();
        await Promise.all(waiting);
      };
    },
    { staging: { maxEntries: 10 } },
  ],
  [
    'the queue of dead letters was full',
    async ({ db }) => {
      for (let i = 0; i < 3; i++) db.stage('INSERT INTO guarded VALUES (-1)');
      await db.aflush().catch(() => undefined);
      db.set('during', 1);
      await eventually(() => db.stats().stall === 'queue-full', 'the flush waits for the queue');
      return () => db.dlq.clear('all');
    },
    { dlq: { maxEntries: 2 } },
  ],
  [
    'a table had lost a column',
    async ({ db }) => {
      await db.aexecute('ALTER TABLE data RENAME COLUMN value TO lost');
      db.set('during', 1);
      await eventually(() => db.stats().stall === 'config', 'the flush stands still');
      return () => db.aexecute('ALTER TABLE data RENAME COLUMN lost TO value', [], { ahead: true });
    },
  ],
  [
    'a reader held a snapshot',
    async ({ db, file }) => {
      const reader = new Sqlite(file, { readonly: true });
      onTestFinished(() => void reader.close());
      const rows = reader.prepare('SELECT * FROM data').iterate();
      rows.next();
      for (let i = 0; i < 5; i++) {
        db.set(`k${i}`, 'x'.repeat(50_000));
        await db.aflush();
      }
      await eventually(
        () => db.stats().checkpoints.partial + db.stats().checkpoints.complete > 0,
        'a checkpoint was tried',
      );
      return () => rows.return?.();
    },
  ],
];

test.each(FAULTS.map(([name, bring, options = {}]) => [name, bring, options] as const))(
  '[fault 67] %s: when that is over, a fresh write is applied in time',
  async (_, bring, options) => {
    const [disk, threads] = [new FaultFileSystem(), new Threads()];
    const file = join(tempDir(), 'a.db');
    const db = await openOn(machine({ fileSystem: disk, spawn: threads.spawn }), file, {
      flush: { intervalMs: 20 },
      log: { segmentBytes: 4_096 },
      ...options,
    });
    onTestFinished(async () => void (await db.close()));
    db.on('failure', () => {}).on('dead-letter', () => {});
    await db.aexecute('CREATE TABLE guarded (n INTEGER CHECK (n > 0))');
    await db.aset('before', 1);
    await db.aflush();
    const takeAway = await bring({ db, file, disk, threads });
    await takeAway();
    const start = performance.now();
    await db.aset('fresh', 1, { timeoutMs: T_MS });
    await db.aflush({ timeoutMs: T_MS });
    expect(performance.now() - start).toBeLessThan(T_MS);
    await eventually(() => db.state === 'ok', 'the state says so', T_MS);
    const { stall, waiting, pending, accepted, recovered, applied, coalesced, deadLettered } = db.stats();
    expect({ stall, waiting, pending }).toEqual({ stall: undefined, waiting: 0, pending: 0 });
    expect(accepted + recovered).toBe(applied + coalesced + deadLettered);
    // As others see it.
    const other = new Sqlite(file, { readonly: true });
    expect(other.prepare("SELECT value FROM data WHERE key = 'fresh'").pluck().get()).toBe('1');
    other.close();
  },
);
