import { join } from 'node:path';
import { open, type State } from 'sluicedb';
import { expect, test } from 'vitest';
import { lockFromOutside } from '../support/child.ts';
import { eventually } from '../support/eventually.ts';
import { tempDir } from '../support/temp-dir.ts';

/** How long the other process keeps its lock. The test mostly sleeps. */
const LOCKED_MS = Number(process.env['SLUICE_LOCKED_MS'] ?? 60_000);

test('[fault 33] another process locks the database for a minute: nothing lost, no block, no dead letter, resumes alone', async () => {
  const file = join(tempDir(), 'a.db');
  const db = await open(file, { flush: { intervalMs: 20 } });
  db.on('failure', () => {});
  const retries: { failure: string; delayMs: number }[] = [];
  db.on('retry', ({ failure, delayMs }) => retries.push({ failure, delayMs }));
  const states: State[] = [];
  db.on('state', ({ state }) => states.push(state));
  await db.aset('before', 0);
  await db.aflush();

  const unlock = await lockFromOutside(file);
  let [longest, slowestWrite, writes] = [0, 0, 0];
  let last = performance.now();
  const until = last + LOCKED_MS;
  const heartbeat = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  }, 10);
  while (performance.now() < until) {
    const start = performance.now();
    await db.aset(`k${writes}`, writes);
    slowestWrite = Math.max(slowestWrite, performance.now() - start);
    expect(db.get(`k${writes}`)).toBe(writes);
    writes++;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  clearInterval(heartbeat);
  console.log(
    `locked for ${LOCKED_MS} ms: ${writes} writes, slowest ${slowestWrite.toFixed(1)} ms, ${retries.length} attempts, longest block of the event loop ${longest.toFixed(1)} ms`,
  );
  expect(db.stats()).toMatchObject({ state: 'degraded', applied: 1, pending: writes, deadLettered: 0 });
  expect(db.stats().flushRunningMs).toBeGreaterThan(LOCKED_MS / 2);
  await unlock();

  await eventually(() => db.stats().pending === 0, 'it goes on by itself', 10_000);
  expect(states).toEqual(['degraded', 'ok']);
  expect(db.stats()).toMatchObject({ applied: writes + 1, deadLettered: 0, writerRestarts: 0 });
  expect(await db.agetDlq()).toEqual([]);
  expect(await db.afetchOne('SELECT count(*) AS n FROM data')).toEqual({ n: writes + 1 });
  expect(new Set(retries.map(({ failure }) => failure))).toEqual(new Set(['transient']));
  // Backed off to a second at most, and not in step.
  expect(retries.length).toBeGreaterThan(LOCKED_MS / 1_500);
  expect(retries.length).toBeLessThan(LOCKED_MS / 400 + 30);
  expect(new Set(retries.map(({ delayMs }) => delayMs)).size).toBeGreaterThan(retries.length / 2);
  // SQLite's own wait for a lock, had any thread of ours used it here, would be seconds long.
  expect(longest).toBeLessThan(1_000);
  await db.close();
}, 120_000);
