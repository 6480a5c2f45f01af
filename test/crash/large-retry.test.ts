import { join } from 'node:path';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { Child } from '../support/child.ts';
import { tempDir } from '../support/temp-dir.ts';

test('[fault 71] a retry of 100,000 entries is batched, paced, called off, killed, and gone on with', {
  timeout: 120_000,
}, async () => {
  const file = join(tempDir(), 'many.db');
  const count = 100_000;
  const db = await open(file, { flush: { mode: 'manual' }, dlq: { breaker: { maxDeadShare: 1 } } });
  db.on('dead-letter', () => {});
  await db.aexecute('CREATE TABLE gate (shut INTEGER)');
  await db.aexecute('INSERT INTO gate VALUES (1)');
  await db.aexecute('CREATE TABLE log (n INTEGER)');
  await db.aexecute(`CREATE TRIGGER shut BEFORE INSERT ON log WHEN EXISTS (SELECT 1 FROM gate)
    BEGIN SELECT RAISE(ABORT, 'shut'); END`);
  const rows = db.rows('log');
  for (let n = 0; n < count; n++) rows.append({ n });
  await db.aflush();
  expect(db.dlq.size).toBe(count);
  const facts = () =>
    db.afetchOne(`SELECT min(id) AS first, max(id) AS last, sum(first_failed_at) AS failed, min(attempts) AS least,
      max(attempts) AS most FROM _sluice_dead_letters`);
  const before = await facts();
  const batches: number[] = [];
  const again = await db.dlq.retry('all', { batchSize: 10_000, onProgress: ({ done }) => batches.push(done) });
  expect(again).toEqual({ applied: 0, failed: count, superseded: 0, missing: 0 });
  expect(batches).toEqual(Array.from({ length: 10 }, (_, i) => (i + 1) * 10_000));
  expect(await facts()).toEqual({ ...before, least: 2, most: 2 });
  await db.aexecute('DELETE FROM gate');
  // Paced, and called off.
  const stop = new AbortController();
  const paced: number[] = [];
  const start = performance.now();
  const calledOff = db.dlq.retry('all', {
    ratePerSecond: 20_000,
    signal: stop.signal,
    onProgress: ({ done, applied }) => {
      paced.push(applied);
      if (done >= 8_000) stop.abort();
    },
  });
  await expect(calledOff).rejects.toMatchObject({ code: 'SLUICE_ABORTED' });
  expect(performance.now() - start).toBeGreaterThan(300);
  await db.aflush();
  expect(db.stats().deadLetters).toMatchObject({ retried: paced.at(-1), entries: count - (paced.at(-1) as number) });
  await db.close();

  const child = new Child(
    `const db = await open(process.argv[2]);
     await db.dlq.retry('all', { batchSize: 1_000, onProgress: ({ done }) => { if (done === 20_000) console.log('on its way'); } });
     console.log('to the end');`,
    [file],
  );
  await child.says('on its way');
  child.process.kill('SIGKILL');
  const { output } = await child.end();
  expect(output).not.toContain('to the end');

  const after = await open(file, { flush: { mode: 'manual' } });
  const left = after.dlq.size;
  expect(left).toBeLessThanOrEqual(count - (paced.at(-1) as number) - 20_000);
  expect(left).toBeGreaterThan(0);
  const sum = 'SELECT count(*) AS n, count(DISTINCT n) AS different FROM log';
  expect(await after.afetchOne(sum)).toEqual({ n: count - left, different: count - left });
  expect(await after.dlq.retry('all', { batchSize: 10_000 })).toEqual({
    applied: left,
    failed: 0,
    superseded: 0,
    missing: 0,
  });
  expect(await after.afetchOne(sum)).toEqual({ n: count, different: count });
  expect(after.dlq.size).toBe(0);
  await after.close();
});
