import { join } from 'node:path';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { NO_PRELOAD } from '../support/compiled.ts';
import { eventually } from '../support/eventually.ts';
import { FaultShim } from '../support/fault-shim.ts';
import { RemoteDatabase } from '../support/remote-database.ts';
import { tempDir } from '../support/temp-dir.ts';

/** By the kernel's clock of the process: ten years ahead, back again, a day behind. */
const JUMPS = [3, -5, 24 * 365 * 10, 0, -24, 1];

test('[fault 32] the clock jumps by hours, forth and back: order is by number, and no timer is early or late', async (context) => {
  if (NO_PRELOAD !== undefined) context.skip(NO_PRELOAD);
  const shim = new FaultShim();
  const file = join(tempDir(), 'a.db');
  const db = await RemoteDatabase.open(
    file,
    { durability: 'interval', syncIntervalMs: 50, flush: { intervalMs: 50 }, maxBlockMs: 5_000 },
    { env: shim.env },
  );
  // Somebody writes all the while, and takes the time of everything.
  await db.run(`
    await db.aexecute('CREATE TABLE log (id INTEGER PRIMARY KEY, n INTEGER)');
    const rows = db.rows('log');
    kept.times = [];
    db.on('commit', ({ writeMs, syncMs = 0, ackMs = 0 }) => kept.times.push(writeMs, syncMs, ackMs));
    db.on('flush', ({ durationMs }) => kept.times.push(durationMs));
    kept.n = 0;
    kept.writing = (async () => {
      while (!kept.stop) {
        rows.append({ n: ++kept.n });
        const from = performance.now();
        await db.aset('newest', kept.n, { timeoutMs: 10_000 });
        const { oldestPendingAgeMs, unsyncedAgeMs, flushRunningMs } = db.stats();
        kept.times.push(performance.now() - from, flushRunningMs);
        // Ages are of the clock on the wall: never below nothing, but as wrong as that was.
        if (!(oldestPendingAgeMs >= 0 && unsyncedAgeMs >= 0)) throw new Error('an age below nothing');
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    })();`);
  const seen: number[] = [];
  for (const hours of JUMPS) {
    shim.arm({ operation: 'clock', error: { hours } });
    const { now, n } = await db.run<{ now: number; n: number }>('return { now: Date.now(), n: kept.n }');
    seen.push(Math.round((now - Date.now()) / 3_600_000) + 0);
    const { flushes, syncs } = await db.stats();
    await eventually(
      async () => (await db.run<number>('return kept.n')) > n + 20,
      `writes go on at ${hours} hours`,
      5_000,
    );
    // The timers of sync and flush go by the other clock.
    const hasGoneOn = async () => {
      const now = await db.stats();
      return now.flushes > flushes + 1 && now.syncs > syncs + 1;
    };
    await eventually(hasGoneOn, `timers go on at ${hours} hours`, 5_000);
    expect(await db.stats()).toMatchObject({ state: 'ok', flushRetries: 0, writerRestarts: 0, deadLettered: 0 });
  }
  expect(seen).toEqual(JUMPS);
  expect(shim.hits()[0]).toBeGreaterThan(0);
  const { times, written } = await db.run<{ times: number[]; written: number }>(`
    kept.stop = true;
    await kept.writing;
    return { times: kept.times, written: kept.n };`);
  expect(times.length).toBeGreaterThan(500);
  expect(Math.min(...times)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...times)).toBeLessThan(5_000);
  await db.run("db.set('last', 1); db.rows('log').append({ n: ++kept.n }); await db.adurable();");
  db.child.process.kill('SIGKILL');
  await db.child.end();
  const again = await open(file);
  const rows = await again.afetchAll<{ n: number }>('SELECT n FROM log ORDER BY id');
  expect(rows.map(({ n }) => n)).toEqual(Array.from({ length: written + 1 }, (_, i) => i + 1));
  expect([again.get('newest'), again.get('last')]).toEqual([written, 1]);
  await again.close();
});
