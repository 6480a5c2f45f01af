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
  await db.run(`
    await db.aexecute('CREATE TABLE log (id INTEGER PRIMARY KEY, n INTEGER)');
    kept.n = 0;
    kept.rows = db.rows('log');
    kept.slowest = 0;`);
  const seen: number[] = [];
  for (const hours of JUMPS) {
    shim.arm({ operation: 'clock', error: { hours } });
    const { now, ages } = await db.run<{ now: number; ages: number[] }>(`
      const ages = [];
      for (let i = 0; i < 20; i++) {
        kept.rows.append({ n: ++kept.n });
        const from = performance.now();
        await db.aset('newest', kept.n, { timeoutMs: 10_000 });
        kept.slowest = Math.max(kept.slowest, performance.now() - from);
        const { oldestPendingAgeMs, unsyncedAgeMs, flushRunningMs } = db.stats();
        ages.push(oldestPendingAgeMs, unsyncedAgeMs, flushRunningMs);
      }
      return { now: Date.now(), ages };`);
    seen.push(Math.round((now - Date.now()) / 3_600_000) + 0);
    // Ages are of the clock on the wall, and never below nothing.
    expect(Math.min(...ages)).toBeGreaterThanOrEqual(0);
    // The timers of sync and flush go by the other clock.
    await eventually(async () => (await db.stats()).pending === 0, `flushed at ${hours} hours`, 5_000);
    expect(await db.stats()).toMatchObject({ state: 'ok', flushRetries: 0, writerRestarts: 0, deadLettered: 0 });
  }
  expect(seen).toEqual(JUMPS);
  expect(await db.run('return kept.slowest')).toBeLessThan(5_000);
  expect(shim.hits()[0]).toBeGreaterThan(0);
  await db.run("db.set('last', 1); kept.rows.append({ n: ++kept.n }); await db.adurable();");
  db.child.process.kill('SIGKILL');
  await db.child.end();
  const again = await open(file);
  const rows = await again.afetchAll<{ n: number }>('SELECT n FROM log ORDER BY id');
  expect(rows.map(({ n }) => n)).toEqual(Array.from({ length: JUMPS.length * 20 + 1 }, (_, i) => i + 1));
  expect([again.get('newest'), again.get('last')]).toEqual([JUMPS.length * 20, 1]);
  await again.close();
});
