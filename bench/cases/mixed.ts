import type { Case, Contestant } from '../contest.ts';
import type { Driver, ReadStore } from '../driver.ts';
import { lmdb } from '../drivers/lmdb.ts';
import { rawLoop } from '../drivers/raw-sqlite.ts';
import { sluice } from '../drivers/sluice.ts';
import { inTurns, observed } from '../host.ts';
import { hotKeys, type KeyValueWorkload } from '../workload.ts';

const KEYS = 100_000;
const OPERATIONS = 200_000;

const workload = hotKeys(OPERATIONS, KEYS);

/** Of ten operations so many are reads; the others write. Each read sees what was written before it, where the store can do that. */
function mixing(driver: Driver<KeyValueWorkload, ReadStore>, readsOfTen: number): Contestant {
  return {
    name: driver.name,
    durability: driver.durability,
    async start(folder) {
      const store = await driver.open(folder, workload);
      await inTurns(KEYS, store.write);
      await store.acknowledged();
      await store.applied?.();
      return async () => {
        let found = 0;
        let reads = 0;
        const operate = (from: number, to: number) => {
          let wait: Promise<unknown> | undefined;
          for (let i = from; i < to; i++) {
            if ((i * 7) % 10 < readsOfTen) {
              reads++;
              if (store.get(workload.entryOf((i * 31) % KEYS)[0]) !== undefined) found++;
            } else wait = store.write(i, i + 1);
          }
          return wait;
        };
        const { perSecond, felt } = await observed(OPERATIONS, async () => {
          await inTurns(OPERATIONS, operate);
          await store.acknowledged();
        });
        if (found !== reads) throw new Error(`${found} of ${reads} keys were found`);
        // What is still to be done must not be done in the round of the next contestant.
        await store.applied?.();
        return { operationsPerSecond: perSecond, ...felt };
      };
    },
  };
}

function mixedCase(name: string, readsOfTen: number): Case {
  return {
    name,
    title: `200,000 operations on 100,000 keys, ${readsOfTen * 10} % of them reads`,
    rounds: 5,
    contestants: [sluice('sync'), sluice('os'), lmdb('flushed'), lmdb('committed'), rawLoop(10_000)].map((driver) =>
      mixing(driver, readsOfTen),
    ),
  };
}

export const mixed90Case: Case = mixedCase('mixed-90-10', 9);
export const mixed50Case: Case = mixedCase('mixed-50-50', 5);
