import type { Database } from 'sluicedb';
import { expect, test } from 'vitest';
import { codeFrom, eventually } from '../support/eventually.ts';
import { openTemp } from '../support/open-temp.ts';

async function withRows(count: number, options = {}): Promise<Database> {
  const db = await openTemp('data.db', { flush: { mode: 'manual' }, ...options });
  db.rows('r', { columns: { n: 'integer' } }).appendMany(Array.from({ length: count }, (_, n) => ({ n })));
  return db;
}

const SELECT = 'SELECT n FROM r ORDER BY n';
const ENDLESS = 'WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c';

test('all rows come, whatever the size of a page, staged ones too', async () => {
  const db = await withRows(1_000);
  for (const pageSize of [undefined, 1, 7, 1_000, 1_001]) {
    const found: unknown[] = [];
    for await (const { n } of db.aiterate(SELECT, [], { pageSize })) found.push(n);
    expect(found).toEqual(Array.from({ length: 1_000 }, (_, n) => n));
  }
  const none: unknown[] = [];
  for await (const row of db.aiterate('SELECT n FROM r WHERE n > :n', { n: 5_000 })) none.push(row);
  expect(none).toEqual([]);
  db.rows('r').append({ n: 2n ** 60n });
  const stale: unknown[] = [];
  for await (const row of db.aiterate('SELECT max(n) AS n FROM r', [], { stale: true })) stale.push(row);
  for await (const row of db.aiterate('SELECT max(n) AS n FROM r')) stale.push(row);
  expect(stale).toEqual([{ n: 999 }, { n: 2n ** 60n }]);
});

test('they are of one moment, and read as they are asked for', async () => {
  const db = await withRows(100);
  const rows = db.aiterate<{ n: number }>(SELECT, [], { pageSize: 10 });
  expect((await rows.next()).value).toEqual({ n: 0 });
  await db.asqlDelete('r', { where: 'n > 5' });
  await db.adropTable('r');
  let count = 1;
  for await (const { n } of rows) expect(n).toBe(count++);
  expect(count).toBe(100);
  // What has no end is no harm to those who do not ask for it.
  const endless = db.aiterate<{ n: number }>(ENDLESS, [], { pageSize: 100 });
  for (let n = 1; n <= 1_000; n++) expect((await endless.next()).value).toEqual({ n });
  await endless.return?.();
  expect(await endless.next()).toEqual({ value: undefined, done: true });
});

test('a loop that is left lets its snapshot go, and its connection serves the next one', async () => {
  const db = await withRows(1_000, { readers: 1 });
  for (let i = 0; i < 50; i++) {
    for await (const { n } of db.aiterate(SELECT, [], { pageSize: 3 })) if (n === 10) break;
    await expect(
      (async () => {
        for await (const _ of db.aiterate(SELECT, [], { pageSize: 3 })) throw new Error('mine');
      })(),
    ).rejects.toThrow('mine');
  }
  // A checkpoint can bring over all of the WAL only where no snapshot is open.
  const isEmpty = () => db.stats().walBytes === 0;
  db.set('k', 1);
  await db.aflush();
  await eventually(isEmpty, 'nothing holds the WAL');
  const held = db.aiterate(SELECT, [], { pageSize: 3 });
  await held.next();
  db.set('k', 2);
  await db.aflush();
  const { partial } = db.stats().checkpoints;
  await eventually(() => db.stats().checkpoints.partial > partial, 'a snapshot holds the WAL');
  await held.return?.();
  await eventually(isEmpty, 'nothing holds the WAL any more');
});

test('one statement that fails half-way says so, and is no harm to the next', async () => {
  const db = await withRows(100, { readers: 1 });
  for (let i = 0; i < 5; i++) {
    const rows = db.aiterate('SELECT n, abs(CASE WHEN n = 50 THEN -9223372036854775808 ELSE n END) FROM r', [], {
      pageSize: 10,
    });
    let count = 0;
    const all = (async () => {
      for await (const _ of rows) count++;
    })();
    expect(await codeFrom(() => all)).toBe('SLUICE_STORE');
    expect(count).toBe(50);
    expect(await codeFrom(() => db.aiterate('SELECT * FROM none').next())).toBe('SLUICE_STORE');
    expect(await codeFrom(() => db.aiterate('SELECT ?').next())).toBe('SLUICE_STORE');
    expect(await codeFrom(() => db.aiterate('DELETE FROM r').next())).toBe('SLUICE_INVALID_SQL');
  }
  expect(await db.acount('r')).toBe(100);
});

test('it can be aborted, and ends when it takes too long, or the database is closed', async () => {
  const db = await withRows(100, { scanMaxAgeMs: 200 });
  const controller = new AbortController();
  const aborted = db.aiterate(ENDLESS, [], { signal: controller.signal, pageSize: 10 });
  await aborted.next();
  controller.abort();
  const rest = async () => {
    for await (const _ of aborted);
  };
  expect(await codeFrom(rest)).toBe('SLUICE_ABORTED');
  expect(await codeFrom(() => db.aiterate(SELECT, [], { signal: AbortSignal.abort() }).next())).toBe('SLUICE_ABORTED');

  const slow = db.aiterate(ENDLESS, [], { pageSize: 1 });
  const all = async () => {
    for await (const _ of slow);
  };
  expect(await codeFrom(all)).toBe('SLUICE_TIMEOUT');

  const closed = db.aiterate(ENDLESS, [], { pageSize: 1 });
  await closed.next();
  await db.close();
  expect(await codeFrom(() => closed.next())).toBe('SLUICE_CLOSED');
  expect(await codeFrom(() => db.aiterate(SELECT))).toBe('SLUICE_CLOSED');
});

test('its options are checked at the call', async () => {
  const db = await withRows(1);
  for (const options of [{ pageSize: 0 }, { pageSize: 1.5 }, { pageSize: 1e9 }, { page: 1 }, { timeoutMs: 0 }]) {
    expect(await codeFrom(() => db.aiterate(SELECT, [], options as never))).toBe('SLUICE_INVALID_OPTION');
  }
  expect(await codeFrom(() => db.aiterate('PRAGMA user_version'))).toBe('SLUICE_INVALID_SQL');
  expect(await codeFrom(() => db.aiterate(SELECT, 5 as never))).toBe('SLUICE_INVALID_VALUE');
});

test('a loop that the end of the database comes upon is told so, at whatever moment', async () => {
  const db = await openTemp();
  const endless = 'WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c';
  const walks = [1, 7, 256].map((pageSize) => db.aiterate(endless, [], { pageSize }));
  await Promise.all(walks.map((rows) => rows.next()));
  const ends = walks.map(async (rows) => {
    // It never comes to an end by itself.
    for (;;) if ((await rows.next()).done === true) return;
  });
  const codes = Promise.all(ends.map((end) => codeFrom(() => end)));
  await db.close();
  expect(await codes).toEqual(Array(3).fill('SLUICE_CLOSED'));
});
