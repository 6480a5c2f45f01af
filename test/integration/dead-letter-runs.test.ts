import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import Sqlite from 'better-sqlite3';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { eventually } from '../support/eventually.ts';
import { HeldClock } from '../support/held-clock.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

/** A source that has given all that it ever will, and does not say so. */
async function* endless(signal: AbortSignal, lines: readonly string[] = []): AsyncGenerator<string, void> {
  yield* lines;
  await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
}

test('an import that is given up on lets the next run go, though its source never ends', async () => {
  const db = await open(join(tempDir(), 'a.db'));
  const cleanup = new AbortController();
  try {
    const importing = db.dlq.import(endless(cleanup.signal), { timeoutMs: 50 });
    await expect(importing).rejects.toMatchObject({ code: 'SLUICE_TIMEOUT' });
    expect(await db.dlq.clear('all', { timeoutMs: 5_000 })).toBe(0);
  } finally {
    cleanup.abort();
    await db.close();
  }
});

test('no timer of the queue is left when a database is closed while entries that are too old are dropped', async () => {
  const clock = new HeldClock();
  const db = await openOn(machine({ clock }), join(tempDir(), 'a.db'), {
    dlq: { overflow: 'evict-oldest', maxAgeMs: 1_000 },
  });
  clock.advance(60_000);
  await db.close();
  for (let turn = 0; turn < 10; turn++) await setImmediate();
  expect(clock.timers).toBe(0);
});

test('what lower limits leave over is dropped at open, also where the database is locked just then', async () => {
  const file = join(tempDir(), 'a.db');
  const first = await open(file);
  first.on('dead-letter', () => {});
  await first.aexecute('CREATE TABLE r (n INTEGER CHECK (n > 0))');
  for (let n = 0; n < 5; n++) first.rows('r').append({ n: -n });
  await first.close();
  const clock = new HeldClock();
  const db = await openOn(machine({ clock }), file, { dlq: { maxEntries: 2, overflow: 'evict-oldest' } });
  const other = new Sqlite(file);
  other.exec('BEGIN IMMEDIATE');
  const before = clock.timers;
  clock.advance(0);
  // It has been refused, and waits for another attempt.
  await eventually(() => clock.timers >= before, 'the attempt has failed');
  expect(db.dlq.size).toBe(5);
  other.exec('ROLLBACK');
  other.close();
  clock.advance(1_000);
  await eventually(() => db.dlq.size === 2, 'the oldest are dropped');
  expect(db.stats().deadLetters).toMatchObject({ entriesAtOpen: 5, evicted: 3, entries: 2 });
  await db.close();
});

test('an eviction that fails for good is told', async () => {
  const file = join(tempDir(), 'a.db');
  const first = await open(file);
  first.on('dead-letter', () => {});
  await first.aexecute('CREATE TABLE r (n INTEGER CHECK (n > 0))');
  for (let n = 0; n < 5; n++) first.rows('r').append({ n: -n });
  await first.close();
  const sqlite = new Sqlite(file);
  sqlite.exec(
    "CREATE TRIGGER keep BEFORE DELETE ON _sluice_dead_letters BEGIN SELECT RAISE(ABORT, 'these are kept'); END",
  );
  sqlite.close();
  const clock = new HeldClock();
  const db = await openOn(machine({ clock }), file, { dlq: { maxEntries: 2, overflow: 'evict-oldest' } });
  const failures: string[] = [];
  db.on('failure', ({ error }) => failures.push(error.message));
  clock.advance(0);
  await eventually(() => failures.length > 0, 'it is told');
  expect(failures[0]).toContain('these are kept');
  await db.close();
});
