import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { type Database, open } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { lockFromOutside } from '../support/child.ts';
import { eventually } from '../support/eventually.ts';
import { machine, Threads } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

const MANUAL = { flush: { mode: 'manual' }, closeTimeoutMs: 0 } as const;

test('[fault 57] old and new value of a key, in one batch and in the next, with failed attempts between: the newest wins', async () => {
  const file = join(tempDir(), 'a.db');
  const threads = new Threads();
  const db = await openOn(machine({ spawn: threads.spawn }), file, { flush: { intervalMs: 1 } });
  db.on('failure', () => {});
  let retries = 0;
  db.on('retry', () => retries++);
  const keys = ['a', 'b', 'c'];
  for (let round = 0; round < 6; round++) {
    const before = retries;
    const unlock = await lockFromOutside(file);
    // Twice in the batch that fails, and again while it does: that is the batch after it.
    for (const key of keys) db.set(key, `${round} old`);
    for (const key of keys) db.set(key, `${round} newer`);
    await eventually(() => retries > before, 'the batch is retried');
    if (round % 2 === 1) db.delete('c');
    for (const key of ['a', 'b']) db.set(key, `${round} newest`);
    if (round % 3 === 2) await threads.writer.terminate();
    await unlock();
    await db.aflush();
    const rows = await db.afetchAll('SELECT key, value FROM data ORDER BY key');
    expect(rows).toEqual([
      { key: 'a', value: JSON.stringify(`${round} newest`) },
      { key: 'b', value: JSON.stringify(`${round} newest`) },
      ...(round % 2 === 1 ? [] : [{ key: 'c', value: JSON.stringify(`${round} newer`) }]),
    ]);
  }
  expect(db.stats()).toMatchObject({ pending: 0, deadLettered: 0, writerRestarts: 2 });
  await db.close();
});

type Step =
  | { readonly do: 'set'; readonly key: string; readonly value: number }
  | { readonly do: 'delete'; readonly key: string }
  | { readonly do: 'clear' | 'flush' | 'flush without waiting' | 'crash' };

const key = fc.constantFrom('a', 'b', 'c');
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant('set' as const), key, value: fc.nat(9) }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('delete' as const), key }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constantFrom('flush' as const, 'flush without waiting' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('crash' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('clear' as const) }) },
);

const tally = { crashes: 0, recovered: 0, coalesced: 0 };

/**
 * What a SIGKILL would leave, as the database goes on from there. `cp` reads it: this process must not open SQLite's
 * files, nor the lock beside the log. A copy is an image of one moment if no batch is on its way, and if no checkpoint
 * empties the WAL meanwhile.
 */
async function crash(db: Database<number>, folder: string, flushes: readonly Promise<unknown>[]): Promise<string> {
  await db.adurable();
  await Promise.all(flushes);
  const pin = db.scan();
  pin.next();
  const image = tempDir();
  execFileSync('cp', ['-r', ...['a.db', 'a.db-wal', 'a.db-shm'].map((name) => join(folder, name)), image]);
  mkdirSync(join(image, 'a.db-log'));
  for (const name of readdirSync(join(folder, 'a.db-log')).filter((one) => one.endsWith('.log'))) {
    const path = join('a.db-log', name);
    try {
      writeFileSync(join(image, path), readFileSync(join(folder, path)));
    } catch (error) {
      // The flush before may still be deleting what is in SQLite.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  pin.return?.(undefined);
  tally.crashes++;
  tally.coalesced += db.stats().coalesced;
  await db.close();
  return image;
}

test('[fault 58] set, delete and set again, across flushes, crashes and replays: as a map does', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
      let folder = tempDir();
      let db = await open<number>(join(folder, 'a.db'), MANUAL);
      const map = new Map<string, number>();
      let flushes: Promise<unknown>[] = [];
      const contents = () => Object.fromEntries(db.entries());
      for (const given of [...steps, { do: 'crash' } as const]) {
        if (given.do === 'set') {
          db.set(given.key, given.value);
          map.set(given.key, given.value);
        } else if (given.do === 'delete') {
          db.delete(given.key);
          map.delete(given.key);
        } else if (given.do === 'clear') {
          db.clear();
          map.clear();
        } else if (given.do === 'flush') await db.aflush();
        else if (given.do === 'flush without waiting') flushes.push(db.aflush());
        else {
          folder = await crash(db, folder, flushes);
          flushes = [];
          db = await open<number>(join(folder, 'a.db'), MANUAL);
          tally.recovered += db.stats().recovered;
        }
        expect(contents()).toEqual(Object.fromEntries(map));
      }
      await db.aflush();
      const rows = await db.afetchAll<{ key: string; value: string }>('SELECT key, value FROM data').catch(() => []);
      expect(Object.fromEntries(rows.map((row) => [row.key, JSON.parse(row.value)]))).toEqual(Object.fromEntries(map));
      await db.close();
    }),
    { numRuns: 20 },
  );
  expect(tally.crashes).toBeGreaterThan(20);
  expect(tally.recovered).toBeGreaterThan(20);
  expect(tally.coalesced).toBeGreaterThan(20);
});
