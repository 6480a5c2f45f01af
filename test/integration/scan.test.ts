import { join } from 'node:path';
import { type Database, open, type ScanOptions } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { codeFrom } from '../support/eventually.ts';
import { HeldClock } from '../support/held-clock.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

const MANUAL = { flush: { mode: 'manual' } } as const;
const bytewise = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));

async function collect(db: Database, options: ScanOptions): Promise<[string, unknown][]> {
  const found: [string, unknown][] = [];
  for await (const entry of db.ascan(options)) found.push(entry);
  return found;
}

/** Keys around the places where the order of UTF-16 and that of UTF-8 differ. */
const KEYS = [
  '',
  '\0',
  'a',
  'a\0',
  'aa',
  'b',
  'z',
  'é',
  '\ud7ff',
  '\ue000',
  '\uffff',
  '\u{10000}',
  '😀',
  '😀a',
  '\u{10ffff}',
];

function expected(
  model: Map<string, unknown>,
  { prefix, gt, gte, lt, lte, reverse, limit }: ScanOptions,
): [string, unknown][] {
  const kept = [...model]
    .filter(
      ([key]) =>
        (prefix === undefined || key.startsWith(prefix)) &&
        (gt === undefined || bytewise(key, gt) > 0) &&
        (gte === undefined || bytewise(key, gte) >= 0) &&
        (lt === undefined || bytewise(key, lt) < 0) &&
        (lte === undefined || bytewise(key, lte) <= 0),
    )
    .sort(([a], [b]) => bytewise(a, b));
  if (reverse) kept.reverse();
  return kept.slice(0, limit);
}

const RANGES: ScanOptions[] = [
  {},
  { limit: 0 },
  { limit: 3 },
  ...KEYS.flatMap((key) => [
    { prefix: key },
    { gt: key },
    { gte: key },
    { lt: key },
    { lte: key },
    { gt: 'a', lte: key },
    { gt: 'b', gte: key, limit: 2 },
    { gte: 'a', lt: 'z', lte: key },
  ]),
];

test.each(['staged over applied', 'staged over a cleared table', 'applied', 'staged'])(
  'a scan of every range, in both directions: %s',
  async (how) => {
    const db = await open(join(tempDir(), 'a.db'), MANUAL);
    const model = new Map<string, unknown>();
    const set = (key: string, value: unknown) => {
      db.set(key, value);
      model.set(key, value);
    };
    for (const [i, key] of KEYS.entries()) if (i % 3 !== 0) set(key, `old ${i}`);
    if (how !== 'staged') await db.aflush();
    if (how.includes('cleared')) {
      db.clear();
      model.clear();
    }
    for (const [i, key] of KEYS.entries()) {
      if (i % 2 === 0) set(key, i);
      if (i % 5 === 1) {
        db.delete(key);
        model.delete(key);
      }
      // Several generations: a scan seals the open one.
      if (i % 6 === 5) db.scan().next();
    }
    if (how === 'applied') await db.aflush();
    for (const range of RANGES) {
      for (const reverse of [false, true]) {
        const options = { ...range, reverse };
        expect([...db.scan(options)], JSON.stringify(options)).toEqual(expected(model, options));
        expect(await collect(db, options), JSON.stringify(options)).toEqual(expected(model, options));
      }
    }
    expect([db.size, await db.asize()]).toEqual([model.size, model.size]);
    await db.close();
  },
);

test('what is wanted of a large table is found at once, wherever it lies', async () => {
  const rows = 100_000;
  const db = await open(join(tempDir(), 'a.db'));
  for (let i = 0; i < rows; i++) db.set(`k${String(i).padStart(6, '0')}`, i);
  await db.aflush();
  const fastestMs = (options: ScanOptions) =>
    Math.min(
      ...Array.from({ length: 20 }, () => {
        const start = performance.now();
        expect([...db.scan(options)]).toHaveLength(options.limit ?? 0);
        return performance.now() - start;
      }),
    );
  const first = fastestMs({ limit: 1 });
  // To walk there from the beginning takes a hundred times as long.
  for (const from of [{ gte: 'k099000' }, { gt: 'k099000' }, { prefix: 'k099' }, { gt: 'a', gte: 'k099000' }]) {
    expect(fastestMs({ ...from, limit: 1 }), JSON.stringify(from)).toBeLessThan(first * 10);
  }
  for (const to of [{ lte: 'k000999' }, { lt: 'k000999' }, { lt: 'z', lte: 'k000999' }]) {
    expect(fastestMs({ ...to, reverse: true, limit: 1 }), JSON.stringify(to)).toBeLessThan(first * 10);
  }
  await db.close();
});

test('a scan sees the table as it was at its first entry, while writes and flushes go on', async () => {
  const db = await open(join(tempDir(), 'a.db'), MANUAL);
  const before = new Map<string, number>();
  for (let i = 0; i < 3_000; i++) {
    const key = `k${String(i).padStart(5, '0')}`;
    db.set(key, i);
    before.set(key, i);
    if (i === 1_500) await db.aflush();
  }
  const sync = db.scan();
  const async = db.ascan();
  const seen: [string, unknown][] = [sync.next().value];
  const seenToo: [string, unknown][] = [(await async.next()).value];
  let n = 0;
  for (;;) {
    const one = sync.next();
    const two = await async.next();
    if (one.done && two.done) break;
    seen.push(one.value);
    seenToo.push(two.value);
    if (++n % 100 !== 0) continue;
    db.set(`k${String(n).padStart(5, '0')}`, -1);
    db.delete(`k${String(2_999 - n).padStart(5, '0')}`);
    db.set(`k${n}x`, -1);
    if (n % 500 === 0) await db.aflush();
    if (n === 1_000) db.clear();
  }
  expect(new Map(seen)).toEqual(before);
  expect(new Map(seenToo)).toEqual(before);
  expect(seen).toHaveLength(3_000);
  await db.close();
});

test('a scan that is open for too long ends, and lets its snapshot go', async () => {
  const clock = new HeldClock();
  const db = await openOn(machine({ clock }), join(tempDir(), 'a.db'), { ...MANUAL, scanMaxAgeMs: 1_000 });
  for (let i = 0; i < 1_000; i++) db.set(`k${i}`, i);
  await db.aflush();
  const sync = db.scan();
  const async = db.ascan();
  sync.next();
  await async.next();
  clock.advance(999);
  sync.next();
  await async.next();
  clock.advance(1);
  expect(await codeFrom(() => [...sync])).toBe('SLUICE_TIMEOUT');
  expect(
    await codeFrom(async () => {
      for await (const _ of async);
    }),
  ).toBe('SLUICE_TIMEOUT');
  expect([...db.keys()]).toHaveLength(1_000);
  await db.close();
});

test('a scan that is left early lets its snapshot go', async () => {
  const clock = new HeldClock();
  const db = await openOn(machine({ clock }), join(tempDir(), 'a.db'), MANUAL);
  for (let i = 0; i < 1_000; i++) db.set(`k${i}`, i);
  await db.aflush();
  const { timers } = clock;
  for (let i = 0; i < 20; i++) {
    for (const _ of db.scan()) break;
    for await (const _ of db.ascan()) break;
  }
  expect(clock.timers).toBe(timers);
  await db.close();
});
