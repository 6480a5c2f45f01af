import { join } from 'node:path';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { codeFrom, eventually, isPending, refusal, settle } from '../support/eventually.ts';
import { tempDir } from '../support/temp-dir.ts';

const file = () => join(tempDir(), 'a.db');
const SMALL = { flush: { mode: 'manual' }, staging: { maxEntries: 10 } } as const;

test('set returns false from half of staging on, and drain tells when there is room again', async () => {
  const db = await open(file(), SMALL);
  let drains = 0;
  db.on('drain', () => drains++);
  const answers = Array.from({ length: 10 }, (_, i) => db.set(`k${i}`, i));
  expect(answers).toEqual([true, true, true, true, false, false, false, false, false, false]);
  expect(await codeFrom(() => db.set('k10', 10))).toBe('SLUICE_FULL');
  expect(db.needsDrain).toBe(true);
  expect(db.get('k10')).toBeUndefined();
  expect(drains).toBe(0);
  await db.aflush();
  expect(drains).toBe(1);
  expect(db.needsDrain).toBe(false);
  expect(db.set('k10', 10)).toBe(true);
  expect(db.stats()).toMatchObject({ accepted: 11, refused: 1 });
  await db.close();
});

test('adrain flushes and resolves when there is room', async () => {
  const db = await open(file(), SMALL);
  await db.adrain();
  for (let i = 0; i < 10; i++) db.set(`k${i}`, i);
  await db.adrain({ timeoutMs: 10_000 });
  expect(db.stats()).toMatchObject({ pending: 0 });
  await db.close();
});

test('adrain rejects when the database is closed before there is room', async () => {
  const db = await open(file(), { ...SMALL, closeTimeoutMs: 0, durability: 'sync' });
  for (let i = 0; i < 10; i++) db.set(`k${i}`, i);
  const drained = codeFrom(() => db.adrain());
  const { pending } = await db.close();
  if (pending > 0) expect(await drained).toBe('SLUICE_CLOSED');
});

test('[fault 59] who waits for room is served first come first served, and nobody overtakes', async () => {
  const db = await open<number>(file(), SMALL);
  for (let i = 0; i < 10; i++) db.set(`k${i}`, i);
  const order: number[] = [];
  const waiting = Array.from({ length: 25 }, (_, i) => db.aset('shared', i).then(() => order.push(i)));
  await eventually(() => db.stats().waiting === 25, 'all wait');
  expect(await codeFrom(() => db.set('overtake', 1))).toBe('SLUICE_FULL');
  for (let round = 0; round < 20 && order.length < 25; round++) await db.aflush();
  await Promise.all(waiting);
  expect(order).toEqual(Array.from({ length: 25 }, (_, i) => i));
  expect(db.get('shared')).toBe(24);
  expect(db.stats()).toMatchObject({ accepted: 35, waiting: 0 });
  await db.close();
});

test('a small write does not slip past a large one that waits', async () => {
  const db = await open(file(), { flush: { mode: 'manual' }, staging: { maxBytes: 10_000 } });
  db.set('a', 'x'.repeat(6_000));
  const order: string[] = [];
  const large = db.aset('large', 'x'.repeat(5_000)).then(() => order.push('large'));
  expect(await codeFrom(() => db.set('small', 1))).toBe('SLUICE_FULL');
  const small = db.aset('small', 1).then(() => order.push('small'));
  expect(db.stats().waiting).toBe(2);
  await db.aflush();
  await Promise.all([large, small]);
  expect(order).toEqual(['large', 'small']);
  await db.close();
});

test('one that gives up makes way for those behind it', async () => {
  const db = await open(file(), { flush: { mode: 'manual' }, staging: { maxBytes: 10_000 } });
  db.set('a', 'x'.repeat(6_000));
  const abort = new AbortController();
  const large = codeFrom(() => db.aset('large', 'x'.repeat(5_000), { signal: abort.signal }));
  const small = db.aset('small', 1);
  expect(await isPending(small)).toBe(true);
  abort.abort();
  await small;
  expect(await large).toBe('SLUICE_ABORTED');
  expect(db.has('large')).toBe(false);
  await db.close();
});

test('the awaitable forms of everything wait for room', async () => {
  const db = await open(file(), SMALL);
  const rows = db.rows('r', { columns: { n: 'integer' } });
  await db.aflush();
  for (let i = 0; i < 10; i++) db.set(`k${i}`, i);
  const waiting = [
    db.aset('a', 1),
    db.asetMany({ b: 1, c: 2 }),
    db.aupdate({ d: 1, e: 2 }),
    db.adelete('k0'),
    db.adeleteMany(['k1', 'k2']),
    db.apop('k3'),
    db.asetDefault('f', 1),
    rows.aappend({ n: 1 }),
    rows.aappendMany([{ n: 2 }, { n: 3 }]),
    db.astage('INSERT INTO r VALUES (?)', [4]),
    db.table('other').aset('x', 1),
  ];
  await eventually(() => db.stats().waiting === waiting.length, 'all wait');
  const flushing = (async () => {
    for (let i = 0; i < 50 && db.stats().accepted < 25; i++) await db.aflush();
  })();
  const results = await Promise.all(waiting);
  await flushing;
  expect([results[3], results[4], results[5], results[6]]).toEqual([true, 2, 3, 1]);
  expect((await db.afetchAll('SELECT n FROM r ORDER BY n')).map(({ n }) => n)).toEqual([1, 2, 3, 4]);
  expect([...db.keys()].join(' ')).toBe('a b c d e f k4 k5 k6 k7 k8 k9');
  await db.close();
});

test('[fault 59] waiting for room ends: after maxBlockMs, by its own limit, by its signal', async () => {
  const db = await open(file(), { ...SMALL, maxBlockMs: 50 });
  for (let i = 0; i < 10; i++) db.set(`k${i}`, i);
  expect(await codeFrom(() => db.aset('a', 1))).toBe('SLUICE_TIMEOUT');
  expect(await codeFrom(() => db.aset('a', 1, { timeoutMs: 5 }))).toBe('SLUICE_TIMEOUT');
  const abort = new AbortController();
  const aborted = refusal(() => db.aset('a', 1, { signal: abort.signal, timeoutMs: 60_000 }));
  abort.abort('enough');
  expect(await aborted).toMatchObject({ code: 'SLUICE_ABORTED', cause: 'enough' });
  expect(await codeFrom(() => db.aset('a', 1, { signal: AbortSignal.abort() }))).toBe('SLUICE_ABORTED');
  expect(db.stats()).toMatchObject({ waiting: 0, accepted: 10 });
  await db.aflush();
  expect(db.has('a')).toBe(false);
  await db.close();
});

test('a wait with a limit that cannot be one is refused, and writes nothing', async () => {
  const db = await open(file(), SMALL);
  expect(await codeFrom(() => db.aset('a', 1, { timeoutMs: 0 }))).toBe('SLUICE_INVALID_OPTION');
  expect(db.has('a')).toBe(false);
  for (let i = 0; i < 10; i++) db.set(`k${i}`, i);
  expect(await codeFrom(() => db.aset('b', 1, { timeoutMs: -1 }))).toBe('SLUICE_INVALID_OPTION');
  expect(db.stats().waiting).toBe(0);
  await db.aflush();
  expect(db.has('b')).toBe(false);
  expect(db.stats().accepted).toBe(10);
  await db.close();
});

test('how many may wait is bounded', async () => {
  const db = await open(file(), { ...SMALL, maxWaiting: 2 });
  for (let i = 0; i < 10; i++) db.set(`k${i}`, i);
  const waiting = [db.aset('a', 1), db.aset('b', 1)];
  expect(await codeFrom(() => db.aset('c', 1))).toBe('SLUICE_FULL');
  await db.aflush();
  await Promise.all(waiting);
  await db.close();
});

test("whenFull: 'reject' refuses at once", async () => {
  const db = await open(file(), { ...SMALL, whenFull: 'reject' });
  for (let i = 0; i < 10; i++) db.set(`k${i}`, i);
  expect(await codeFrom(() => db.aset('a', 1))).toBe('SLUICE_FULL');
  expect(db.stats()).toMatchObject({ waiting: 0, refused: 1 });
  await db.aflush();
  await db.aset('a', 1);
  await db.close();
});

test('who waits is turned away when the database closes', async () => {
  const db = await open(file(), { ...SMALL, maxWaiting: 5 });
  for (let i = 0; i < 10; i++) db.set(`k${i}`, i);
  const waiting = [codeFrom(() => db.aset('a', 1)), codeFrom(() => db.aset('b', 1))];
  await eventually(() => db.stats().waiting === 2, 'both wait');
  expect(await db.close()).toEqual({ pending: 0 });
  expect(await Promise.all(waiting)).toEqual(['SLUICE_CLOSED', 'SLUICE_CLOSED']);
});

test('bytes count as well as entries', async () => {
  const db = await open(file(), { flush: { mode: 'manual' }, staging: { maxBytes: 10_000 } });
  expect(db.set('a', 'x'.repeat(3_000))).toBe(true);
  expect(db.set('b', 'x'.repeat(3_000))).toBe(false);
  expect(await codeFrom(() => db.set('c', 'x'.repeat(5_000)))).toBe('SLUICE_FULL');
  db.set('d', 'x'.repeat(1_000));
  await db.aflush();
  expect(db.stats()).toMatchObject({ stagedBytes: 0, pending: 0 });
  await db.close();
});

test('[fault 11] a write larger than all of staging is refused by itself', async () => {
  const db = await open(file(), { staging: { maxBytes: 1_024 } });
  expect(await codeFrom(() => db.set('a', 'x'.repeat(2_000)))).toBe('SLUICE_INVALID_VALUE');
  expect(await codeFrom(() => db.aset('a', 'x'.repeat(2_000)))).toBe('SLUICE_INVALID_VALUE');
  expect(await codeFrom(() => db.setMany({ a: 'x'.repeat(500), b: 'x'.repeat(500) }))).toBe('SLUICE_INVALID_VALUE');
  expect(db.stats()).toMatchObject({ accepted: 0, pending: 0 });
  await db.aset('a', 1);
  await db.close();
});

test.each(['auto', 'count', 'time', 'immediate'] as const)(
  'mode %s does not wedge when staging is smaller than what it waits for',
  async (mode) => {
    const db = await open(file(), {
      flush: { mode, intervalMs: 200 },
      staging: { maxEntries: 10 },
      maxBlockMs: 10_000,
    });
    for (let i = 0; i < 100; i++) await db.aset(`k${i}`, i);
    expect(db.stats().accepted).toBe(100);
    await db.aflush();
    expect(db.size).toBe(100);
    await db.close();
  },
);

test('[fault 59] the log has a limit of its own, and gets over it', async () => {
  const db = await open(file(), {
    flush: { mode: 'auto', intervalMs: 20 },
    log: { segmentBytes: 4_096, maxBytes: 8_192 },
    maxBlockMs: 20_000,
  });
  let refused = 0;
  for (let i = 0; i < 300; i++) {
    try {
      db.set(`sync/${i % 7}`, 'x'.repeat(500));
    } catch {
      refused++;
    }
    await db.aset(`k${i}`, 'x'.repeat(500));
  }
  await db.aflush();
  expect(refused).toBeGreaterThan(0);
  await eventually(() => db.stats().logBytes < 8_192, 'the log is small again');
  expect(db.set('after', 1)).toBe(true);
  expect(db.stats()).toMatchObject({ waiting: 0 });
  await db.close();
});

test('[fault 59] the log limit alone holds writes back, and a flush lets them go on', async () => {
  const db = await open(file(), { flush: { mode: 'manual' }, log: { segmentBytes: 4_096, maxBytes: 8_192 } });
  while (db.stats().logBytes < 8_192) await db.aset(`k${db.stats().accepted}`, 'x'.repeat(600));
  // The acknowledgement comes first, the look at the size of the log right after it.
  await settle();
  expect(await codeFrom(() => db.set('more', 1))).toBe('SLUICE_FULL');
  const waits = db.aset('more', 1);
  expect(await isPending(waits)).toBe(true);
  await db.aflush();
  await waits;
  expect(db.get('more')).toBe(1);
  await db.close();
}, 60_000);

test('several writes at once are accepted together or not at all', async () => {
  const db = await open(join(tempDir(), 'many.db'), { staging: { maxEntries: 10 }, flush: { mode: 'manual' } });
  const rows = db.rows('log', { columns: { n: 'integer' } });
  await db.aflush();
  db.update({ a: 1, b: 2, c: 3, d: 4 });
  const seven = Array.from({ length: 7 }, (_, n) => ({ n }));
  expect(await codeFrom(() => rows.appendMany(seven))).toBe('SLUICE_FULL');
  expect(await codeFrom(() => db.update(seven.map(({ n }) => [`k${n}`, n] as const)))).toBe('SLUICE_FULL');
  expect(db.stats()).toMatchObject({ pending: 4, accepted: 5 });
  rows.appendMany(seven.slice(0, 6));
  expect(db.stats().pending).toBe(10);
  await db.aflush();
  const eleven = Array.from({ length: 11 }, (_, n) => ({ n }));
  expect(await codeFrom(() => rows.appendMany(eleven))).toBe('SLUICE_INVALID_VALUE');
  const appended = rows.aappendMany(eleven);
  await eventually(() => db.stats().waiting === 1, 'the eleventh waits');
  await db.aflush();
  await appended;
  expect(await db.afetchOne('SELECT count(*) AS n FROM log')).toEqual({ n: 17 });
  await db.close();
});

test('a table is one, whatever the case of the letters in its name', async () => {
  const db = await open(join(tempDir(), 'case.db'), { flush: { mode: 'manual' } });
  db.table('Rooms').set('a', 1);
  expect(db.table('rooms')).toBe(db.table('Rooms'));
  expect(db.table('ROOMS').get('a')).toBe(1);
  await db.aflush();
  expect([...db.table('rooms').keys()]).toEqual(['a']);
  await db.close();
});

test('after the end nobody is made to wait for room', async () => {
  const db = await open(file(), { ...SMALL, maxBlockMs: 60_000 });
  for (let i = 0; i < 10; i++) db.set(`k${i}`, i);
  const closing = db.close();
  expect(await codeFrom(() => db.aset('late', 1))).toBe('SLUICE_CLOSED');
  await closing;
});

test('a full log that was found at open, and is not kept any more, says when it has gone', async () => {
  const path = file();
  const before = await open(path, {
    durability: 'os',
    flush: { mode: 'manual' },
    log: { segmentBytes: 4_096, maxBytes: 8_192 },
    closeTimeoutMs: 0,
  });
  const text = 'x'.repeat(3_000);
  for (let i = 0; i < 3; i++) await before.aset(`k${i}`, text);
  expect((await before.close()).pending).toBe(3);
  const db = await open(path, {
    durability: 'memory',
    flush: { mode: 'time', intervalMs: 20 },
    log: { segmentBytes: 4_096, maxBytes: 8_192 },
  });
  expect(await codeFrom(() => db.set('k', 1))).toBe('SLUICE_FULL');
  // The writes may be applied some time before the log is deleted: each time there is somebody to wake.
  for (let tries = 0; tries < 100 && !db.has('k'); tries++) {
    await db.adrain({ timeoutMs: 5_000 });
    try {
      db.set('k', 1);
    } catch (error) {
      expect(error).toMatchObject({ code: 'SLUICE_FULL' });
    }
  }
  expect(db.get('k')).toBe(1);
  await db.close();
});
