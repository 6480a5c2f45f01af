import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { Child } from '../support/child.ts';
import { codeFrom, eventually } from '../support/eventually.ts';
import { machine, Threads } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

const HANGS_MS = 4_500;
/** As many as this machine counts in that time: longer than close may take, with all its grace. */
const ROWS = rowsIn(HANGS_MS);
const LONG = `WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < ${ROWS}) SELECT max(i) FROM c`;
const CLOSE_MS = 300;
const GRACE_MS = 2_000;
const OPTIONS = { flush: { mode: 'manual' }, closeTimeoutMs: CLOSE_MS } as const;

function rowsIn(ms: number): number {
  const db = new Sqlite(':memory:');
  const count = db.prepare(
    'WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 500000) SELECT max(i) FROM c',
  );
  const times = Array.from({ length: 10 }, () => {
    const start = performance.now();
    count.get();
    return performance.now() - start;
  });
  db.close();
  return Math.round((500_000 * ms) / Math.min(...times));
}

async function opened() {
  const threads = new Threads();
  const file = join(tempDir(), 'a.db');
  const db = await openOn(machine({ spawn: threads.spawn }), file, OPTIONS);
  await db.aexecute('CREATE TABLE slow (n INTEGER)');
  let ended = false;
  threads.writer.once('exit', () => {
    ended = true;
  });
  const failures: unknown[] = [];
  db.on('failure', ({ error }) => failures.push(error));
  return { db, file, threads, failures, hasEnded: () => ended };
}

test('[fault 50] a batch hangs in a native call: a watchdog number, close by its deadline, and the lock until it ends', async () => {
  const { db, file, hasEnded } = await opened();
  await db.aset('a', 1);
  db.stage(`INSERT INTO slow ${LONG}`);
  await db.aset('b', 2);
  const flushed = codeFrom(() => db.aflush());
  await eventually(() => db.stats().flushRunningMs > 400, 'the number grows while the batch hangs');
  expect(db.get('b')).toBe(2);
  const start = performance.now();
  expect(await db.close()).toEqual({ pending: 3 });
  expect(performance.now() - start).toBeGreaterThanOrEqual(CLOSE_MS);
  expect(performance.now() - start).toBeLessThan(CLOSE_MS + GRACE_MS + 1_000);
  expect(await flushed).toBe('SLUICE_CLOSED');
  expect(hasEnded()).toBe(false);
  expect(await codeFrom(() => open(file))).toBe('SLUICE_LOCKED');
  const again = await open(file, { lockTimeoutMs: 30_000 });
  expect(hasEnded()).toBe(true);
  // Whether or not the batch that hung was committed in the end, each of its writes took effect once.
  await again.aflush();
  expect([again.get('a'), again.get('b')]).toEqual([1, 2]);
  expect(await again.afetchAll('SELECT n FROM slow')).toEqual([{ n: ROWS }]);
  await again.aset('a', 'newer');
  await again.aflush();
  expect(again.stats()).toMatchObject({ pending: 0, deadLettered: 0 });
  expect(again.get('a')).toBe('newer');
  await again.close();
});

test('[fault 50] a direct statement hangs: its caller is told that nobody knows, what is staged is in the log', async () => {
  const { db, file, failures, hasEnded } = await opened();
  await db.aset('a', 1);
  await db.aflush();
  const hanging = codeFrom(() => db.aexecute(`INSERT INTO slow ${LONG}`));
  const behind = codeFrom(() => db.aexecute('INSERT INTO slow VALUES (-1)'));
  await eventually(() => db.stats().directStatements === 3, 'one is on the thread, the other waits for its turn');
  await db.aset('b', 2);
  const start = performance.now();
  expect(await db.close()).toEqual({ pending: 1 });
  expect(performance.now() - start).toBeLessThan(CLOSE_MS + GRACE_MS + 1_000);
  expect([await hanging, await behind]).toEqual(['SLUICE_OUTCOME_UNKNOWN', 'SLUICE_CLOSED']);
  // A batch that has not had its turn when its time is up has not failed.
  expect(failures).toEqual([]);
  expect(hasEnded()).toBe(false);
  expect(await codeFrom(() => open(file))).toBe('SLUICE_LOCKED');
  const again = await open(file, { lockTimeoutMs: 30_000 });
  expect(again.stats().recovered).toBe(1);
  expect([again.get('a'), again.get('b')]).toEqual([1, 2]);
  // The first may have been committed as its call returned; the second never began.
  const rows = await again.afetchAll('SELECT n FROM slow');
  expect([[], [{ n: ROWS }]]).toContainEqual(rows);
  await again.close();
});

test('[fault 50] a query that hangs on a reader thread does not hold close up either', async () => {
  const { db, file } = await opened();
  await db.aset('a', 1);
  const query = codeFrom(() => db.afetchAll(LONG));
  await eventually(() => db.stats().pending === 0, 'the query has begun');
  await new Promise((resolve) => setTimeout(resolve, 50));
  const start = performance.now();
  expect(await db.close()).toEqual({ pending: 0 });
  expect(performance.now() - start).toBeLessThan(CLOSE_MS + GRACE_MS + 1_000);
  expect(await query).toBe('SLUICE_STORE');
  expect(await codeFrom(() => open(file))).toBe('SLUICE_LOCKED');
  const again = await open(file, { lockTimeoutMs: 30_000 });
  expect(again.get('a')).toBe(1);
  await again.close();
});

test('[fault 50] the next process waits for the lock of one that hangs, and has everything', async () => {
  const file = join(tempDir(), 'a.db');
  const child = new Child(
    `const db = await open(process.argv[2], ${JSON.stringify(OPTIONS)});
     await db.aexecute('CREATE TABLE slow (n INTEGER)');
     await db.aset('a', 1);
     db.stage(${JSON.stringify(`INSERT INTO slow ${LONG}`)});
     db.aflush().catch(() => {});
     await new Promise((resolve) => setTimeout(resolve, 300));
     console.log('pending ' + (await db.close()).pending);`,
    [file],
  );
  await child.says('pending 2');
  expect(await codeFrom(() => open(file))).toBe('SLUICE_LOCKED');
  const db = await open(file, { lockTimeoutMs: 30_000 });
  await db.aflush();
  expect(db.get('a')).toBe(1);
  expect(await db.afetchAll('SELECT n FROM slow')).toEqual([{ n: ROWS }]);
  await db.close();
  // Node.js itself waits for its threads; nothing of ours keeps it longer.
  expect(await child.end()).toMatchObject({ code: 0, signal: null, errors: '' });
});
