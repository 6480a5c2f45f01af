import type { Contestant } from '../contest.ts';
import type { Driver } from '../driver.ts';
import { inTurns, observed, perSecondSince } from '../host.ts';
import type { Workload } from '../workload.ts';

/** Makes the writes of a workload as fast as the store takes them: until all are safe, and until all are applied. */
export function writing<W extends Workload>(driver: Driver<W>, workload: W): Contestant {
  const writes = Math.min(workload.writes, driver.atMost ?? Number.POSITIVE_INFINITY);
  return {
    name: driver.name,
    durability: driver.durability,
    async start() {
      return async (scratch) => {
        const store = await driver.open(scratch, workload);
        const {
          start,
          perSecond: acknowledgedPerSecond,
          felt,
        } = await observed(writes, async () => {
          await inTurns(writes, store.write);
          await store.acknowledged();
        });
        let appliedPerSecond = acknowledgedPerSecond;
        if (store.applied !== undefined) {
          await store.applied();
          appliedPerSecond = perSecondSince(start, writes);
        }
        const peakRssMiB = process.resourceUsage().maxRSS / 1024;
        const count = await store.count();
        if (count !== Math.min(writes, workload.distinct)) throw new Error(`${count} rows after ${writes} writes`);
        await store.close();
        return { writes, acknowledgedPerSecond, appliedPerSecond, ...felt, peakRssMiB };
      };
    },
  };
}
