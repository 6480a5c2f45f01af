import { join } from 'node:path';
import { BroadcastChannel } from 'node:worker_threads';
import Sqlite from 'better-sqlite3';
import { open, type State } from 'sluicedb';
import { expect, test } from 'vitest';
import { type Machine, openOn } from '../../dist/db/open.js';
import { lockFromOutside } from '../support/child.ts';
import { codeFrom, eventually } from '../support/eventually.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';
import { wrappedWriter } from '../support/wrapped-writer.ts';

/** The longest time for which the main thread did nothing else. */
function watchMainThread(): () => number {
  let longest = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  }, 5);
  return () => {
    clearInterval(timer);
    return longest;
  };
}

test('[fault 33] another connection holds the database: degraded, nothing lost, nobody blocked, and it goes on by itself', async () => {
  const file = join(tempDir(), 'a.db');
  const db = await open(file, { flush: { intervalMs: 10 } });
  db.on('failure', () => {});
  const failures: string[] = [];
  db.on('retry', ({ failure }) => failures.push(failure));
  const states: State[] = [];
  db.on('state', ({ state }) => states.push(state));
  await db.aset('before', 1);
  await db.aflush();
  const unlock = await lockFromOutside(file);
  const blocked = watchMainThread();
  for (let i = 0; i < 500; i++) await db.aset(`k${i}`, i);
  const flushed = db.aflush();
  await eventually(() => failures.length >= 4, 'several attempts have failed');
  expect(db.state).toBe('degraded');
  expect(db.get('k499')).toBe(499);
  expect(await db.aget('before')).toBe(1);
  expect(db.size).toBe(501);
  expect(await codeFrom(() => db.aflush({ timeoutMs: 50 }))).toBe('SLUICE_TIMEOUT');
  expect(blocked()).toBeLessThan(200);
  await unlock();
  await flushed;
  expect(new Set(failures)).toEqual(new Set(['transient']));
  expect(states).toEqual(['degraded', 'ok']);
  expect(db.stats()).toMatchObject({ applied: 501, deadLettered: 0, pending: 0, writerRestarts: 0 });
  expect(db.stats().flushRetries).toBe(failures.length);
  expect(await db.agetDlq()).toEqual([]);
  await db.close();
});

test('close with a locked database returns at its limit, and the next open has what was left', async () => {
  const file = join(tempDir(), 'a.db');
  const db = await open(file, { flush: { mode: 'manual' }, closeTimeoutMs: 300 });
  db.on('failure', () => {});
  await db.aset('a', 1);
  const unlock = await lockFromOutside(file);
  db.set('b', 2);
  const start = performance.now();
  expect(await db.close()).toEqual({ pending: 2 });
  expect(performance.now() - start).toBeGreaterThanOrEqual(250);
  await unlock();
  const again = await open(file);
  expect(again.stats().recovered).toBe(2);
  expect(Object.fromEntries(again.entries())).toEqual({ a: 1, b: 2 });
  await again.close();
});

test('direct statements say that the database is locked, with a code; the queue waits for it', async () => {
  const file = join(tempDir(), 'a.db');
  const db = await open(file, { flush: { mode: 'manual' } });
  db.on('dead-letter', () => {});
  await db.aexecute('CREATE TABLE t (n INTEGER CHECK (n > 0))');
  db.rows('t').append({ n: -1 });
  await db.aflush();
  const unlock = await lockFromOutside(file);
  const refusal = { code: 'SLUICE_STORE', sqliteCode: 'SQLITE_BUSY' };
  await expect(db.aexecute('INSERT INTO t VALUES (1)')).rejects.toMatchObject(refusal);
  expect(await codeFrom(() => db.aretryDlq('all', { timeoutMs: 100 }))).toBe('SLUICE_TIMEOUT');
  expect(await codeFrom(() => db.aclearDlq('all', { timeoutMs: 100 }))).toBe('SLUICE_TIMEOUT');
  expect(await db.agetDlq()).toHaveLength(1);
  const retried = db.aretryDlq();
  await unlock();
  expect(await retried).toEqual({ applied: 0, failed: 1, superseded: 0, missing: 0 });
  expect(await db.aclearDlq()).toBe(1);
  await db.close();
});

/** The writer thread, with a limit on the size of its database that a message can change. */
function limitedWriter(channel: string): NonNullable<Machine['spawn']> {
  return wrappedWriter(`
    const pragma = Sqlite.prototype.pragma;
    const connections = [];
    Sqlite.prototype.pragma = function (...given) {
      if (!connections.includes(this)) connections.push(this);
      return pragma.apply(this, given);
    };
    const channel = new threads.BroadcastChannel(${JSON.stringify(channel)});
    channel.onmessage = ({ data }) => {
      for (const connection of connections) {
        const used = pragma.call(connection, 'page_count', { simple: true });
        pragma.call(connection, 'max_page_count = ' + (data === 'full' ? used : 1_000_000));
      }
      channel.postMessage('done');
    };
    channel.unref();
  `);
}

test('[fault 35] SQLITE_FULL: state space, no dead letters, and it goes on when there is room', async () => {
  const name = `space-${process.pid}`;
  const channel = new BroadcastChannel(name);
  let answers = 0;
  channel.onmessage = () => {
    answers++;
  };
  channel.unref();
  const file = join(tempDir(), 'a.db');
  const db = await openOn(machine({ spawn: limitedWriter(name) }), file, { flush: { mode: 'manual' } });
  db.on('failure', () => {});
  const failures: string[] = [];
  db.on('retry', ({ failure }) => failures.push(failure));
  await db.aset('before', 1);
  await db.aflush();
  channel.postMessage('full');
  await eventually(() => answers === 1, 'the database may not grow');
  for (let i = 0; i < 200; i++) db.set(`k${i}`, 'x'.repeat(1_000));
  const flushed = db.aflush();
  await eventually(() => failures.length >= 2, 'two attempts have failed');
  expect(db.state).toBe('space');
  expect(db.get('k199')).toBe('x'.repeat(1_000));
  channel.postMessage('room');
  await eventually(() => answers === 2, 'the database may grow');
  await flushed;
  expect(new Set(failures)).toEqual(new Set(['space']));
  expect(db.stats()).toMatchObject({ state: 'ok', applied: 201, deadLettered: 0, pending: 0, writerRestarts: 0 });
  expect(db.size).toBe(201);
  await db.close();
  channel.close();
});

test('[fault 48] a reader that holds the checkpoint up at open keeps the log, and its going lets the log go', async () => {
  const file = join(tempDir(), 'held.db');
  await (await open(file)).close();
  const reader = new Sqlite(file);
  reader.exec('BEGIN');
  reader.prepare('SELECT count(*) FROM sqlite_master').get();
  const db = await open(file, { log: { segmentBytes: 4_096, maxBytes: 1 << 20 } });
  for (let i = 0; i < 50; i++) await db.aset(`k${i}`, 'x'.repeat(500));
  await db.aflush();
  expect(db.stats().logSegments).toBeGreaterThan(2);
  reader.exec('COMMIT');
  reader.close();
  await eventually(() => db.stats().logSegments <= 1, 'the segments are deleted without another write');
  await db.close();
});
