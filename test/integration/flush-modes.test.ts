import { join } from 'node:path';
import { type Database, type FlushOptions, open } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { lockFromOutside } from '../support/child.ts';
import { codeFrom, eventually, refusal, settle } from '../support/eventually.ts';
import { HeldClock } from '../support/held-clock.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

async function opened(flush: FlushOptions): Promise<{ db: Database; clock: HeldClock }> {
  const clock = new HeldClock();
  const db = await openOn(machine({ clock }), join(tempDir(), 'a.db'), { flush });
  return { db, clock };
}

/** Gives a flush that should not come every chance to come. */
async function noFlush(db: Database, flushes: number): Promise<void> {
  await settle(50);
  await new Promise((resolve) => setTimeout(resolve, 30));
  expect(db.stats().flushes).toBe(flushes);
}

const flushed = (db: Database, flushes: number) =>
  eventually(() => db.stats().flushes === flushes && db.stats().pending === 0, `flush ${flushes}`);

test("'auto' flushes by age", async () => {
  const { db, clock } = await opened({ intervalMs: 100 });
  db.set('a', 1);
  clock.advance(60);
  db.set('b', 2);
  clock.advance(39);
  await noFlush(db, 0);
  clock.advance(1);
  await flushed(db, 1);
  expect(db.stats().applied).toBe(2);
  clock.advance(10_000);
  await noFlush(db, 1);
  await db.close();
});

test("'auto' flushes by count", async () => {
  const { db } = await opened({ intervalMs: 100, maxWrites: 10 });
  for (let i = 0; i < 9; i++) db.set(`k${i}`, i);
  await noFlush(db, 0);
  db.set('k9', 9);
  await flushed(db, 1);
  await db.close();
});

test("'auto' flushes by bytes", async () => {
  const { db } = await opened({ maxBytes: 10_000 });
  db.set('a', 'x'.repeat(8_000));
  await noFlush(db, 0);
  db.set('b', 'x'.repeat(2_000));
  await flushed(db, 1);
  await db.close();
});

test('of a key that is written again and again, one write a batch goes down', async () => {
  const [writes, keys] = [60_000, 100];
  const { db } = await opened({ mode: 'manual' });
  for (let i = 0; i < writes; i++) db.set(`k${i % keys}`, i);
  expect(await db.aflush()).toMatchObject({ applied: keys, coalesced: writes - keys, dead: 0 });
  expect(db.stats().flushes).toBe(1);
  expect([db.get('k0'), db.get('k99')]).toEqual([writes - keys, writes - 1]);
  await db.close();
});

test("'immediate' flushes after each write, and what gathers meanwhile is the next batch", async () => {
  const { db } = await opened({ mode: 'immediate' });
  db.set('a', 1);
  await flushed(db, 1);
  for (let i = 0; i < 1_000; i++) db.set(`k${i}`, i);
  await flushed(db, 2);
  await db.close();
});

test("'count' flushes by count and by nothing else", async () => {
  const { db, clock } = await opened({ mode: 'count', maxWrites: 10, maxBytes: 100, intervalMs: 1 });
  for (let i = 0; i < 9; i++) db.set(`k${i}`, 'x'.repeat(200));
  clock.advance(3_600_000);
  await noFlush(db, 0);
  db.set('k9', 9);
  await flushed(db, 1);
  await db.close();
});

test("'time' flushes by age and by nothing else", async () => {
  const { db, clock } = await opened({ mode: 'time', maxWrites: 10, maxBytes: 100, intervalMs: 1_000 });
  for (let i = 0; i < 50; i++) db.set(`k${i}`, 'x'.repeat(200));
  clock.advance(999);
  await noFlush(db, 0);
  clock.advance(1);
  await flushed(db, 1);
  await db.close();
});

test("'manual' flushes when asked, and only then", async () => {
  const { db, clock } = await opened({ mode: 'manual', maxWrites: 10, maxBytes: 100, intervalMs: 1 });
  for (let i = 0; i < 50; i++) db.set(`k${i}`, i);
  clock.advance(3_600_000);
  await noFlush(db, 0);
  expect(await db.aflush()).toMatchObject({ applied: 50, coalesced: 0, dead: 0 });
  db.set('a', 1);
  expect(await db.afetchOne('SELECT count(*) AS n FROM data')).toEqual({ n: 51 });
  db.set('b', 1);
  await db.aexecute('SELECT 1');
  expect(db.stats().flushes).toBe(3);
  db.set('c', 1);
  await db.aretryDlq();
  expect(db.stats()).toMatchObject({ flushes: 4, pending: 0 });
  db.set('d', 1);
  expect(await db.afetchOne('SELECT count(*) AS n FROM data', [], { stale: true })).toEqual({ n: 53 });
  expect(await db.aflush({ wait: false })).toMatchObject({ applied: 0 });
  await flushed(db, 5);
  await db.close();
});

test('aflush says what became of everything accepted before it', async () => {
  const db = await open(join(tempDir(), 'a.db'), { flush: { mode: 'manual' } });
  db.on('dead-letter', () => {});
  await db.aexecute('CREATE TABLE r (n INTEGER CHECK (n > 0))');
  for (let i = 0; i < 10; i++) db.set('same', i);
  db.rows('r').appendMany([{ n: 1 }, { n: -1 }]);
  const result = await db.aflush();
  expect(result).toMatchObject({ applied: 2, coalesced: 9, dead: 1 });
  expect(result.durationMs).toBeGreaterThanOrEqual(0);
  expect(await db.aflush()).toMatchObject({ applied: 0, coalesced: 0, dead: 0 });
  await db.close();
});

test('barriers one after the other, each at once after the one before, all come back', async () => {
  const db = await open(join(tempDir(), 'a.db'), { flush: { mode: 'manual' } });
  for (let i = 0; i < 200; i++) {
    db.set('a', i);
    const one = db.aflush({ timeoutMs: 10_000 });
    if (i % 3 === 0) await one;
    db.set('b', i);
    await Promise.all([one, db.aflush({ timeoutMs: 10_000 })]);
    expect(db.stats().pending).toBe(0);
  }
  await db.close();
});

test('a barrier gives up at its limit and at its signal; the flush goes on', async () => {
  const file = join(tempDir(), 'a.db');
  const db = await open(file, { flush: { mode: 'manual' } });
  db.on('failure', () => {});
  db.set('a', 1);
  const unlock = await lockFromOutside(file);
  const abort = new AbortController();
  const aborted = refusal(() => db.aflush({ signal: abort.signal }));
  const query = codeFrom(() => db.afetchAll('SELECT 1', [], { timeoutMs: 30 }));
  const direct = codeFrom(() => db.aexecute('SELECT 1', [], { timeoutMs: 30 }));
  expect(await codeFrom(() => db.aflush({ timeoutMs: 30 }))).toBe('SLUICE_TIMEOUT');
  abort.abort(new Error('no more'));
  expect(await aborted).toMatchObject({ code: 'SLUICE_ABORTED', cause: { message: 'no more' } });
  expect([await query, await direct]).toEqual(['SLUICE_TIMEOUT', 'SLUICE_TIMEOUT']);
  expect(await codeFrom(() => db.aflush({ signal: AbortSignal.abort() }))).toBe('SLUICE_ABORTED');
  expect(await codeFrom(() => db.aflush({ timeoutMs: 1.5 }))).toBe('SLUICE_INVALID_OPTION');
  expect(db.stats().pending).toBe(1);
  await unlock();
  await eventually(() => db.stats().pending === 0, 'the flush went on');
  await db.close();
});
