/** What a write costs as the table grows, and as staging fills. Each round is the next window of one and the same database. */
import { performance } from 'node:perf_hooks';
import type { Case, Contestant } from '../contest.ts';
import type { Driver } from '../driver.ts';
import { rawLoop } from '../drivers/raw-sqlite.ts';
import { sluice } from '../drivers/sluice.ts';
import { inTurns } from '../host.ts';
import { type KeyValueWorkload, uniqueObjects } from '../workload.ts';
import { ALL_STAGED } from './recovery.ts';

/** Where the windows end in which the table grows. */
const TABLE: readonly number[] = [
  ...[1e4, 1e5].flatMap((scale) => [1, 2, 3, 5, 7].map((n) => n * scale)),
  ...[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((n) => n * 1e6),
];

/** And in which staging fills. */
const STAGING: readonly number[] = TABLE.map((_, i) => (i + 1) * 50_000);

function growing(
  name: string,
  driver: Driver<KeyValueWorkload>,
  ends: readonly number[],
  applied: boolean,
): Contestant {
  return {
    name,
    durability: driver.durability,
    async start(folder) {
      const workload = uniqueObjects(ends.at(-1) ?? 0);
      const store = await driver.open(folder, workload);
      const windows = ends.values();
      let before = 0;
      return async () => {
        const { value: rows, done } = windows.next();
        if (done) return {};
        const start = performance.now();
        const first = before;
        await inTurns(rows - first, (from, to) => store.write(first + from, first + to));
        await store.acknowledged();
        if (applied) await store.applied?.();
        const usPerWrite = ((performance.now() - start) * 1_000) / (rows - first);
        before = rows;
        const count = await store.count();
        if (count !== rows) throw new Error(`${count} rows after ${rows} writes`);
        return { rows, usPerWrite };
      };
    },
  };
}

export const growthCase: Case = {
  name: 'growth',
  title: 'what a write of a unique small object costs, window by window',
  rounds: TABLE.length,
  cold: true,
  contestants: [
    growing('sluice sync, applied', sluice('sync'), TABLE, true),
    // Each million takes it longer than the one before.
    growing(
      'better-sqlite3 10000',
      rawLoop(10_000),
      TABLE.filter((rows) => rows <= 4e6),
      true,
    ),
    growing('sluice sync, acknowledged', sluice('sync', ALL_STAGED), STAGING, false),
  ],
};
