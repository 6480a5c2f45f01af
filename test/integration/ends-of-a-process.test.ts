import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { type Durability, open } from 'sluicedb';
import { expect, test } from 'vitest';
import { Child } from '../support/child.ts';
import { codeFrom, eventually } from '../support/eventually.ts';
import { RemoteDatabase } from '../support/remote-database.ts';
import { tempDir } from '../support/temp-dir.ts';

const LEVELS: readonly Durability[] = ['memory', 'os', 'interval', 'sync', 'applied'];

/** A database at each level: two hundred writes that are acknowledged, and ten that are not, and then something happens. */
const PROGRAM = `
  const [folder, how] = process.argv.slice(2);
  const levels = ${JSON.stringify(LEVELS)};
  // Nothing goes down by itself: what an acknowledgement promises is all there is.
  const options = { flush: { mode: 'manual' }, syncIntervalMs: 60_000 };
  const databases = await Promise.all(levels.map((durability) => open(folder + '/' + durability + '.db', { ...options, durability })));
  const close = () => Promise.all(databases.map((db) => db.close()));
  if (how.endsWith('with closeOnSignals')) for (const db of databases) closeOnSignals(db);
  if (how.endsWith('caught')) process.on('uncaughtException', () => close().then(() => process.exit(1)));
  for (const db of databases) {
    for (let i = 0; i < 200; i++) db.set('k' + i, i);
    await db.adurable();
    for (let i = 0; i < 10; i++) db.set('late' + i, i);
  }
  console.log('ready');
  if (how === 'process.exit') process.exit(3);
  if (how === 'process.exit after close') await close().then(() => process.exit(3));
  if (how.startsWith('uncaughtException')) setImmediate(() => { throw new Error('out of the blue'); });
  setInterval(() => {}, 1000);`;

interface End {
  readonly how: string;
  readonly signal?: NodeJS.Signals;
  /** Whether the program gives the databases the time to close. */
  readonly closes: boolean;
  readonly code: number | null;
}

const ENDS: readonly End[] = [
  { how: 'SIGTERM', signal: 'SIGTERM', closes: false, code: null },
  { how: 'SIGINT', signal: 'SIGINT', closes: false, code: null },
  { how: 'SIGTERM with closeOnSignals', signal: 'SIGTERM', closes: true, code: null },
  { how: 'SIGINT with closeOnSignals', signal: 'SIGINT', closes: true, code: null },
  { how: 'uncaughtException', closes: false, code: 1 },
  { how: 'uncaughtException, caught', closes: true, code: 1 },
  { how: 'process.exit', closes: false, code: 3 },
  { how: 'process.exit after close', closes: true, code: 3 },
];

test.each(ENDS.map((end) => [end.how, end] as const))(
  '[fault 64] %s: every level keeps what it promises',
  async (how, { signal, closes, code }) => {
    const folder = tempDir();
    const child = new Child(PROGRAM, [folder, how]);
    await child.says('ready');
    if (signal !== undefined) child.process.kill(signal);
    expect(await child.end()).toMatchObject({ code, signal: signal ?? null });
    const look = async (durability: Durability) => {
      const db = await open(join(folder, `${durability}.db`), { flush: { mode: 'manual' } });
      const { recovered, recovery } = db.stats();
      const acknowledged = Array.from({ length: 200 }, (_, i) => db.get(`k${i}`)).filter((value, i) => value === i);
      const late = Array.from({ length: 10 }, (_, i) => db.get(`late${i}`)).filter((value) => value !== undefined);
      const name = `${how} at ${durability}`;
      if (closes) {
        // Closed is applied, at every level.
        expect([acknowledged.length, late.length, recovered], name).toEqual([200, 10, 0]);
      } else if (durability === 'memory') {
        expect([db.size, recovered], name).toEqual([0, 0]);
      } else {
        expect(acknowledged.length, name).toBe(200);
        // What nobody was promised may be there too, but only from the front.
        expect(late, name).toEqual(Array.from({ length: late.length }, (_, i) => i));
        expect(recovered, name).toBe(late.length + (durability === 'applied' ? 0 : 200));
      }
      expect(recovery, name).toMatchObject({ damaged: false, setAside: 0 });
      await db.close();
    };
    await Promise.all(LEVELS.map(look));
  },
);

test('[fault 65] stopped for seconds and continued: nobody is taken for dead, no limit loses a write, nobody else gets in', async () => {
  const file = join(tempDir(), 'a.db');
  const db = await RemoteDatabase.open(file, {
    flush: { intervalMs: 20 },
    staging: { maxEntries: 50 },
    maxBlockMs: 1_000,
    scanMaxAgeMs: 1_000,
  });
  await db.run(`
    kept.acknowledged = [];
    kept.refused = [];
    kept.stop = false;
    kept.producers = Promise.all(Array.from({ length: 80 }, async (_, producer) => {
      for (let i = 0; !kept.stop; i++) {
        const key = producer + '/' + i;
        await db.aset(key, i).then(() => kept.acknowledged.push(key), ({ code }) => kept.refused.push([key, code]));
      }
    }));`);
  const { pid } = db.child.process;
  await eventually(async () => (await db.run<number>('return kept.acknowledged.length')) > 500, 'writes');
  process.kill(pid as number, 'SIGSTOP');
  await eventually(
    () =>
      execFileSync('ps', ['-o', 'stat=', '-p', String(pid)])
        .toString()
        .startsWith('T'),
    'stopped',
  );
  const stopped = performance.now();
  expect(await codeFrom(() => open(file, { lockTimeoutMs: 500 }))).toBe('SLUICE_LOCKED');
  // Longer than any limit that it was given.
  await new Promise((resolve) => setTimeout(resolve, 2_500 - (performance.now() - stopped)));
  process.kill(pid as number, 'SIGCONT');
  const result = await db.run<{ acknowledged: string[]; refused: [string, string][]; there: string[] }>(`
    kept.stop = true;
    await kept.producers;
    await db.aset('fresh', 1, { timeoutMs: 10_000 });
    await db.aflush({ timeoutMs: 10_000 });
    return { acknowledged: kept.acknowledged, refused: kept.refused, there: [...db.keys()] };`);
  expect(await db.stats()).toMatchObject({
    state: 'ok',
    writerRestarts: 0,
    flushRetries: 0,
    pending: 0,
    deadLettered: 0,
  });
  expect((await db.seen()).states).toEqual([]);
  // Who waited for room longer than allowed was told, and has written nothing.
  expect(new Set(result.refused.map(([, code]) => code)).size).toBeLessThanOrEqual(1);
  for (const [, code] of result.refused) expect(code).toBe('SLUICE_TIMEOUT');
  expect(result.there.sort()).toEqual([...result.acknowledged, 'fresh'].sort());
  db.child.process.kill('SIGKILL');
  await db.child.end();
  const again = await open(file);
  expect([...again.keys()].sort()).toEqual(result.there);
  await again.close();
});
