import { performance } from 'node:perf_hooks';
import type { Contestant } from '../contest.ts';
import type { Driver, PutStore } from '../driver.ts';
import { latencies, observed } from '../host.ts';
import type { KeyValueWorkload } from '../workload.ts';

/** So many loops beside each other, each of which awaits its write before it makes the next: how long does a write take? */
export function producing(
  driver: Driver<KeyValueWorkload, PutStore>,
  workload: KeyValueWorkload,
  producers: number,
): Contestant {
  const writes = Math.min(workload.writes, driver.atMost ?? Number.POSITIVE_INFINITY);
  return {
    name: driver.name,
    durability: driver.durability,
    async start() {
      return async (scratch) => {
        const store = await driver.open(scratch, workload);
        const us = new Float64Array(writes);
        const { perSecond, felt } = await observed(writes, () => timed(us, producers, store.put));
        await store.applied?.();
        const count = await store.count();
        if (count !== writes) throw new Error(`${count} keys after ${writes} writes`);
        await store.close();
        return { writes, acknowledgedPerSecond: perSecond, ...latencies(us), ...felt };
      };
    },
  };
}

/** How long each write takes, into `us`. */
export async function timed(us: Float64Array, producers: number, write: (i: number) => unknown): Promise<void> {
  let next = 0;
  const produce = async () => {
    for (let i = next++; i < us.length; i = next++) {
      const start = performance.now();
      await write(i);
      us[i] = (performance.now() - start) * 1_000;
    }
  };
  await Promise.all(Array.from({ length: producers }, produce));
}
