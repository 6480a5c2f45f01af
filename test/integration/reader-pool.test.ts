import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { type Database, type OpenOptions, open } from 'sluicedb';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { Child } from '../support/child.ts';
import { codeFrom, eventually, refusal } from '../support/eventually.ts';
import { machine, Threads } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

const counting = (rows: number) =>
  `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows}) SELECT count(*) AS n FROM n`;
/** Inside SQLite for so long, at least, where nothing can stop it. */
const STUCK_MS = 1_500;
const STUCK = counting(rowsIn(STUCK_MS));
/** Has no end, and comes to a row now and then, where it can be stopped. */
const ENDLESS = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i % 5000 = 0';
const STALE = { stale: true } as const;
/** More than a grace and a start of a thread take, on a machine that has much else to do. */
const SOON_MS = 10_000;

interface Opened {
  readonly db: Database;
  readonly file: string;
  readonly threads: Threads;
  /** Reader threads that run. */
  readonly running: () => number;
}

async function opened(readers: number, options: OpenOptions = {}): Promise<Opened> {
  const threads = new Threads({ maxOldGenerationSizeMb: 48 });
  const file = join(tempDir(), 'a.db');
  const db = await openOn(machine({ spawn: threads.spawn }), file, { readers, closeTimeoutMs: 300, ...options });
  onTestFinished(async () => void (await db.close()));
  await db.aset('a', 1);
  await db.aexecute('CREATE TABLE t (n INTEGER)');
  return { db, file, threads, running: () => threads.readers.filter(({ threadId }) => threadId !== -1).length };
}

const one = (db: Database, wait = {}) => db.afetchOne('SELECT 1 AS n', [], { ...STALE, timeoutMs: SOON_MS, ...wait });

function rowsIn(ms: number): number {
  const db = new Sqlite(':memory:');
  const times = Array.from({ length: 10 }, () => {
    const start = performance.now();
    db.prepare(counting(200_000)).get();
    return performance.now() - start;
  });
  db.close();
  return Math.round((200_000 * ms) / Math.min(...times));
}

interface Running {
  readonly stop: () => void;
  readonly code: Promise<string>;
  readonly isOver: () => boolean;
}

/** A query that takes too long, and can be called off. */
function slow(db: Database, sql: string): Running {
  const controller = new AbortController();
  const stop = () => controller.abort();
  let isOver = false;
  const code = codeFrom(() => db.afetchAll(sql, [], { ...STALE, signal: controller.signal })).finally(() => {
    isOver = true;
  });
  code.catch(() => undefined);
  onTestFinished(stop);
  return { stop, code, isOver: () => isOver };
}

test('one query that is stuck in SQLite holds nobody up: queries, key reads, scans, writes, flushes, transactions', async () => {
  const { db } = await opened(2);
  const stuck = slow(db, STUCK);
  await one(db);
  const reads = Array.from({ length: 20 }, () => Promise.all([one(db), db.aget('a'), db.asize()]));
  expect(await Promise.all(reads)).toEqual(reads.map(() => [{ n: 1 }, 1, 1]));
  const scanned: string[] = [];
  for await (const [key] of db.ascan()) scanned.push(key);
  for await (const { n } of db.aiterate('SELECT 2 AS n', [], STALE)) scanned.push(String(n));
  expect(scanned).toEqual(['a', '2']);
  await db.aset('b', 2);
  await db.aflush();
  await db.aexecute('INSERT INTO t VALUES (1)');
  await db.atransaction((tx) => tx.aexecute('INSERT INTO t VALUES (2)'), { sql: true });
  expect(await db.acount('t')).toBe(2);
  expect(await db.dlq.list()).toEqual([]);
  expect(db.get('b')).toBe(2);
  expect(stuck.isOver()).toBe(false);
  stuck.stop();
  expect(await stuck.code).toBe('SLUICE_ABORTED');
});

describe.each([1, 2])('with readers: %i', (readers) => {
  test('as many queries run at a time, the others in their order; nothing else waits for them', async () => {
    const { db, running } = await opened(readers);
    const taken = Array.from({ length: readers }, () => slow(db, ENDLESS));
    const order: number[] = [];
    const waiting = [0, 1, 2].map((n) => one(db).then(() => order.push(n)));
    expect(await Promise.all([db.aget('a'), db.agetMany(['a', 'b']), db.asize()])).toEqual([1, new Map([['a', 1]]), 1]);
    for await (const [key] of db.ascan()) expect(key).toBe('a');
    db.set('b', 2);
    await db.aflush();
    expect(order).toEqual([]);
    taken[0]?.stop();
    await Promise.all(waiting);
    expect(order).toEqual([0, 1, 2]);
    expect(running()).toBeLessThanOrEqual(2 * readers + 1);
    for (const { stop, code } of taken) {
      stop();
      expect(await code).toBe('SLUICE_ABORTED');
    }
  });

  test('one that waits for its turn can be called off, and times out with what to do', async () => {
    const { db, threads } = await opened(readers);
    const taken = Array.from({ length: readers }, () => slow(db, ENDLESS));
    const controller = new AbortController();
    const calledOff = codeFrom(() => one(db, { signal: controller.signal }));
    const tooLate = refusal(() => one(db, { timeoutMs: 20 }));
    const last = one(db);
    controller.abort();
    expect(await calledOff).toBe('SLUICE_ABORTED');
    const error = await tooLate;
    expect(error.code).toBe('SLUICE_TIMEOUT');
    expect(error.message).toContain(`(${readers})`);
    expect(error.message).toContain('raise readers');
    for (const { stop } of taken) stop();
    expect(await last).toEqual({ n: 1 });
    // They have noticed it by themselves: no thread had to be given up on.
    expect(threads.readers.length).toBe(readers);
  });

  test('the time limit and the signal end one that has no end, and its reader is free at once', async () => {
    const { db, threads } = await opened(readers);
    for (let i = 0; i < 4; i++) {
      expect(await codeFrom(() => db.afetchAll(ENDLESS, [], { ...STALE, timeoutMs: 20 }))).toBe('SLUICE_TIMEOUT');
      const { stop, code } = slow(db, ENDLESS);
      await one(db, { timeoutMs: 5 }).catch(() => undefined);
      stop();
      expect(await code).toBe('SLUICE_ABORTED');
      expect(await one(db)).toEqual({ n: 1 });
    }
    expect(threads.readers.length).toBeLessThanOrEqual(readers);
  });
});

test('a thread that does not come back is replaced, and as many may be lost as there are readers', async () => {
  const { db, threads, running } = await opened(1);
  await db.aexecute('INSERT INTO t VALUES (1)');
  const limit = { ...STALE, timeoutMs: 50 };
  expect(await codeFrom(() => db.afetchAll(STUCK, [], limit))).toBe('SLUICE_TIMEOUT');
  expect(await one(db)).toEqual({ n: 1 });
  expect([threads.readers.length, running()]).toEqual([2, 2]);
  // The second one is waited for: its turn ends when the call of the first or its own has come back.
  const where = `n < (${STUCK})`;
  expect(await codeFrom(() => db.acount('t', { where, strict: false, ...limit }))).toBe('SLUICE_TIMEOUT');
  expect((await refusal(() => one(db, { timeoutMs: 200 }))).message).toContain('did not begin');
  expect(await db.aget('a')).toBe(1);
  expect(await one(db, { timeoutMs: 30_000 })).toEqual({ n: 1 });
  await eventually(() => running() <= 2, 'the lost threads have ended');
});

test('a query that was given up on may end in an error: nobody hears of it, and the process goes on', async () => {
  const slowly = `WITH late AS MATERIALIZED (${STUCK}) SELECT abs(-9223372036854775807 - (n > 0)) AS n FROM late`;
  const child = new Child(`
    const db = await open(':memory:', { readers: 1 });
    await db.afetchAll(${JSON.stringify(slowly)}, [], { timeoutMs: 50 }).catch((error) => console.log(error.code));
    // The second one may not be given up on before the first one has come back.
    await db.afetchAll(${JSON.stringify(slowly)}, [], { timeoutMs: 50 }).catch((error) => console.log(error.code));
    console.log(await db.afetchOne('SELECT 1 AS n'));
    await db.close();
    console.log('closed');
  `);
  const { code, output, errors } = await child.ended;
  expect([code, errors, output]).toEqual([0, '', 'SLUICE_TIMEOUT\nSLUICE_TIMEOUT\n{ n: 1 }\nclosed\n']);
});

test('a page of a cursor that does not come is called off with it', async () => {
  const { db } = await opened(1, { scanMaxAgeMs: 100 });
  expect(
    await codeFrom(async () => {
      for await (const _ of db.aiterate(STUCK, [], STALE));
    }),
  ).toBe('SLUICE_TIMEOUT');
  expect(await one(db)).toEqual({ n: 1 });
});

test('a limit is one for the wait and the query together', async () => {
  const { db } = await opened(1, { flush: { mode: 'manual' } });
  const before = db.atransaction(() => new Promise((resolve) => setTimeout(resolve, 600)), { sql: true });
  await db.aset('b', 2);
  const start = performance.now();
  expect(await codeFrom(() => db.afetchAll(ENDLESS, [], { timeoutMs: 1_000 }))).toBe('SLUICE_TIMEOUT');
  expect(performance.now() - start).toBeLessThan(1_550);
  await before;
});

test.each(['a process that ends', 'a result that is too large'])(
  'a reader that dies takes its query along, no other: %s',
  async (why) => {
    const { db, threads } = await opened(1);
    if (why === 'a result that is too large') {
      const blob =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, printf('%.200c', 'x') || i AS text FROM n";
      const dying = db.afetchAll(blob, [], STALE);
      expect(await codeFrom(() => dying)).toBe('SLUICE_STORE');
    } else {
      const { code } = slow(db, ENDLESS);
      const behind = one(db);
      await eventually(() => threads.readers.length === 1, 'a reader has started');
      await threads.readers[0]?.terminate();
      expect(await code).toBe('SLUICE_STORE');
      expect(await behind).toEqual({ n: 1 });
    }
    expect([await one(db), await db.aget('a')]).toEqual([{ n: 1 }, 1]);
    expect(threads.readers.length).toBe(2);
  },
);

test('walks are shared out among the readers', async () => {
  const { db, threads } = await opened(2);
  await db.aexecuteMany('INSERT INTO t VALUES (?)', [[1], [2], [3]]);
  const walks = Array.from({ length: 6 }, () => db.aiterate('SELECT n FROM t', [], { pageSize: 1 }));
  for (const walk of walks) expect((await walk.next()).value).toEqual({ n: 1 });
  expect(threads.readers.length).toBe(2);
  await threads.readers[0]?.terminate();
  const ends = await Promise.allSettled(walks.map((walk) => walk.next()));
  expect(ends.filter(({ status }) => status === 'fulfilled').length).toBe(3);
  await Promise.all(walks.map((walk) => walk.return?.()));
});

test('close waits for a thread that a restore has waited for in vain', async () => {
  const { db, running } = await opened(1, { closeTimeoutMs: 20_000 });
  const backup = join(tempDir(), 'backup.db');
  await db.abackup(backup);
  const stuck = slow(db, STUCK);
  const controller = new AbortController();
  const restored = codeFrom(() => db.arestore(backup, { signal: controller.signal }));
  await db.aget('a');
  let isHeld = false;
  while (!isHeld) {
    const read = db.aget('a').then(() => false);
    isHeld = await Promise.race([read, new Promise<boolean>((resolve) => setTimeout(resolve, 200, true))]);
    expect(stuck.isOver()).toBe(false);
  }
  controller.abort();
  expect([await restored, stuck.isOver()]).toEqual(['SLUICE_ABORTED', false]);
  expect(await db.aget('a')).toBe(1);
  await db.close();
  expect(running()).toBe(0);
});

test('close comes by its deadline, whatever is stuck, lost or waiting', async () => {
  const { db, file } = await opened(1);
  expect(await codeFrom(() => db.afetchAll(STUCK, [], { ...STALE, timeoutMs: 20 }))).toBe('SLUICE_TIMEOUT');
  const stuck = slow(db, STUCK);
  const waiting = codeFrom(() => db.afetchAll('SELECT 1', [], STALE));
  await db.aget('a');
  const start = performance.now();
  await db.close();
  expect(performance.now() - start).toBeLessThan(6_000);
  expect(await waiting).toBe('SLUICE_CLOSED');
  expect(['SLUICE_STORE', 'SLUICE_CLOSED']).toContain(await stuck.code);
  const again = await open(file, { lockTimeoutMs: 30_000 });
  expect(again.get('a')).toBe(1);
  await again.close();
});
