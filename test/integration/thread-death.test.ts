import { join } from 'node:path';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { lockFromOutside } from '../support/child.ts';
import { codeFrom, eventually, settle } from '../support/eventually.ts';
import { machine, Threads } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

async function opened(options: Parameters<typeof open>[1] = { flush: { mode: 'manual' } }) {
  const threads = new Threads();
  const file = join(tempDir(), 'a.db');
  const db = await openOn(machine({ spawn: threads.spawn }), file, options);
  db.on('failure', () => {});
  const restarts: string[] = [];
  db.on('writer-restart', ({ reason }) => restarts.push(reason));
  return { db, threads, file, restarts };
}

test('[fault 49] a writer thread that dies idle is started again when it is needed', async () => {
  const { db, threads, restarts } = await opened();
  await db.aset('a', 1);
  await db.aflush();
  await threads.writer.terminate();
  expect(restarts).toEqual([]);
  await db.aset('b', 2);
  await db.aflush();
  await db.aexecute('INSERT INTO data VALUES (?, ?)', ['c', '3']);
  expect(restarts).toEqual(['death']);
  expect(db.stats()).toMatchObject({ applied: 2, pending: 0, writerRestarts: 1, state: 'ok' });
  expect(Object.fromEntries(db.entries())).toEqual({ a: 1, b: 2, c: 3 });
  await db.close();
});

test('[fault 49] a writer thread that dies in the middle of a batch: the batch is applied once', async () => {
  const { db, threads, restarts } = await opened();
  const rows = db.rows('r', { columns: { n: 'integer', text: 'text' } });
  const count = 60_000;
  for (let i = 0; i < count; i++) rows.append({ n: i, text: 'x'.repeat(50) });
  const flushed = db.aflush();
  await db.adurable();
  // The batch is on the thread, and takes longer than this.
  await new Promise((resolve) => setTimeout(resolve, 15));
  expect(db.stats().applied).toBe(0);
  await threads.writer.terminate();
  expect(await flushed).toMatchObject({ applied: count + 1, dead: 0 });
  expect(restarts).toEqual(['death']);
  expect(await db.afetchOne('SELECT count(*) AS n, count(DISTINCT n) AS different FROM r')).toEqual({
    n: count,
    different: count,
  });
  expect(db.stats()).toMatchObject({ accepted: count + 1, applied: count + 1, pending: 0, state: 'ok' });
  await db.close();
});

test('[fault 49] deaths at many moments: everything is applied once', async () => {
  const { db, threads } = await opened({ flush: { mode: 'immediate' } });
  const rows = db.rows('r', { columns: { n: 'integer' } });
  let n = 0;
  for (let round = 0; round < 12; round++) {
    for (let i = 0; i < 2_000; i++) rows.append({ n: n++ });
    await new Promise((resolve) => setTimeout(resolve, round));
    await threads.writer.terminate();
    await db.aflush();
  }
  expect(threads.writers.length).toBeGreaterThan(6);
  expect(await db.afetchOne('SELECT count(*) AS n, count(DISTINCT n) AS different FROM r')).toEqual({
    n,
    different: n,
  });
  expect(db.stats()).toMatchObject({ applied: n + 1, coalesced: 0, pending: 0 });
  await db.close();
});

test('[fault 49] a thread that dies again and again ends in failed: who waits is told, reads are served, nothing is lost', async () => {
  const { db, threads, file, restarts } = await opened({ flush: { mode: 'manual' }, staging: { maxEntries: 4 } });
  await db.aset('a', 1);
  await db.aflush();
  threads.onWriter = (worker) => void worker.terminate();
  await threads.writer.terminate();
  for (const key of ['b', 'c', 'd', 'e']) db.set(key, key);
  const waiters = [db.aflush(), db.aset('f', 1), db.afetchAll('SELECT 1'), db.adrain(), db.aexecute('SELECT 1')];
  const codes = await Promise.all(waiters.map((waiter) => codeFrom(() => waiter)));
  expect(codes).toEqual(Array(5).fill('SLUICE_FAILED'));
  expect(db.state).toBe('failed');
  expect(restarts.length).toBe(5);
  expect(await codeFrom(() => db.set('x', 1))).toBe('SLUICE_FAILED');
  expect(await codeFrom(() => db.aexecute('SELECT 1'))).toBe('SLUICE_FAILED');
  expect([db.get('a'), db.get('b'), await db.aget('a')]).toEqual([1, 'b', 1]);
  expect([...db.keys()]).toEqual(['a', 'b', 'c', 'd', 'e']);
  expect(await db.close()).toEqual({ pending: 4 });
  const again = await open(file);
  expect(again.stats().recovered).toBe(4);
  expect([...again.keys()]).toEqual(['a', 'b', 'c', 'd', 'e']);
  await again.close();
});

test('many sets of parameters whose answer never comes are all there or none, and are not run again', async () => {
  const { db, threads } = await opened();
  await db.aexecute('CREATE TABLE n (n INTEGER)');
  const sets = Array.from({ length: 300_000 }, (_, n) => [n]);
  const answer = codeFrom(() => db.aexecuteMany('INSERT INTO n VALUES (?)', sets));
  await eventually(() => db.stats().directStatements === 2, 'the statement is on its way');
  await threads.writer.terminate();
  expect(await answer).toBe('SLUICE_OUTCOME_UNKNOWN');
  db.set('a', 1);
  expect([0, sets.length]).toContain(await db.acount('n'));
  expect(db.state).toBe('ok');
  await db.close();
});

test('a direct statement whose answer never comes has an unknown outcome, and is not run again', async () => {
  const { db, threads } = await opened();
  await db.aexecute('CREATE TABLE n (n INTEGER)');
  const long =
    'INSERT INTO n WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 3000000) SELECT i FROM c';
  const answer = codeFrom(() => db.aexecute(long));
  await new Promise((resolve) => setTimeout(resolve, 60));
  await threads.writer.terminate();
  expect(await answer).toBe('SLUICE_OUTCOME_UNKNOWN');
  await db.aset('a', 1);
  await db.aflush();
  expect([0, 3_000_000]).toContain((await db.afetchOne<{ n: number }>('SELECT count(*) AS n FROM n'))?.n);
  await db.close();
});

test('calls that were queued behind a death are answered', async () => {
  const { db, threads } = await opened();
  await db.aset('a', 1);
  await threads.writer.terminate();
  const results = await Promise.allSettled([
    db.aflush(),
    db.aexecute('SELECT 1 AS one'),
    db.aexecute('SELECT 2 AS two'),
    db.aretryDlq(),
  ]);
  expect(results.map(({ status }) => status)).toEqual(Array(4).fill('fulfilled'));
  expect(db.state).toBe('ok');
  await db.close();
});

test('[fault 49] a reader thread that dies is replaced at the next read', async () => {
  const { db, threads } = await opened();
  await db.aset('a', 1);
  await db.aflush();
  expect(await db.aget('a')).toBe(1);
  expect(threads.readers).toHaveLength(1);
  const inFlight = codeFrom(() =>
    db.afetchAll(
      'WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 20000000) SELECT max(i) FROM c',
    ),
  );
  await new Promise((resolve) => setTimeout(resolve, 30));
  await Promise.all(threads.readers.map((reader) => reader.terminate()));
  expect(await inFlight).toBe('SLUICE_STORE');
  expect(await db.aget('a')).toBe(1);
  expect(await db.afetchOne('SELECT 1 AS one')).toEqual({ one: 1 });
  expect(threads.readers.length).toBeGreaterThan(1);
  await db.close();
});

test('a scan whose thread dies, or whose database is closed, ends with an error and leaves no rejection behind', async () => {
  const rejections: unknown[] = [];
  const note = (error: unknown) => rejections.push(error);
  process.on('unhandledRejection', note);
  try {
    const { db, threads } = await opened();
    for (let i = 0; i < 2_000; i++) db.set(`k${i}`, i);
    await db.aflush();
    const scan = db.ascan();
    await scan.next();
    await Promise.all(threads.readers.map((reader) => reader.terminate()));
    expect(
      await codeFrom(async () => {
        for await (const _ of scan);
      }),
    ).toBe('SLUICE_STORE');
    const other = db.ascan();
    await other.next();
    const left = db.ascan();
    await left.next();
    const sync = db.scan();
    sync.next();
    await db.close();
    expect(
      await codeFrom(async () => {
        for await (const _ of other);
      }),
    ).toBe('SLUICE_CLOSED');
    await left.return?.();
    expect(
      await codeFrom(() => {
        for (const _ of sync);
      }),
    ).toBe('SLUICE_CLOSED');
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(rejections).toEqual([]);
  } finally {
    process.off('unhandledRejection', note);
  }
});

test('a thread that is started again while the database is locked: waited for, by everybody', async () => {
  const { db, threads, file, restarts } = await opened();
  await db.aset('a', 1);
  await db.aflush();
  const unlock = await lockFromOutside(file);
  await threads.writer.terminate();
  const direct = codeFrom(() => db.aexecute('SELECT 1'));
  await settle(3);
  // Goes to the thread that is about to start, and cannot.
  db.set('b', 2);
  const flushed = db.aflush();
  expect(await direct).toBe('SLUICE_STORE');
  expect(db.state).not.toBe('failed');
  await eventually(() => threads.writers.length > 2, 'another start');
  await unlock();
  await flushed;
  // It has died once, however often it could not be started.
  expect(restarts).toEqual(['death']);
  expect(db.stats()).toMatchObject({ applied: 2, pending: 0, state: 'ok' });
  await db.close();
});
