import { performance } from 'node:perf_hooks';
import { isDeepStrictEqual } from 'node:util';
import type { Case, Contestant } from '../contest.ts';
import type { Driver, ReadStore } from '../driver.ts';
import { lmdb } from '../drivers/lmdb.ts';
import { rawLoop } from '../drivers/raw-sqlite.ts';
import { sluice } from '../drivers/sluice.ts';
import { inTurns, perSecondSince } from '../host.ts';
import { type KeyValueWorkload, uniqueObjects } from '../workload.ts';

const KEYS = 100_000;
const READS = 100_000;
const MANY = 100;

const workload = uniqueObjects(KEYS);
const keys = Array.from({ length: READS }, (_, i) => workload.entryOf((i * 31) % KEYS)[0]);

/** Reads what was written, one by one and 100 at a time, from where `prepare` has brought it. */
function reading(
  name: string,
  driver: Driver<KeyValueWorkload, ReadStore>,
  prepare: (store: ReadStore) => Promise<unknown> | undefined = (store) => store.applied?.(),
): Contestant {
  return {
    name,
    durability: 'only read',
    async start(folder) {
      const store = await driver.open(folder, workload);
      await inTurns(KEYS, store.write);
      await store.acknowledged();
      await prepare(store);
      const [key, value] = workload.entryOf(KEYS - 1);
      if (!isDeepStrictEqual(store.get(key), value)) throw new Error('what was written is not what is read');
      return async () => {
        let found = 0;
        const start = performance.now();
        for (const key of keys) if (store.get(key) !== undefined) found++;
        const getPerSecond = perSecondSince(start, READS);
        if (found !== READS) throw new Error(`${found} of ${READS} keys were found`);
        const startMany = performance.now();
        for (let i = 0; i < READS; i += MANY) await store.getMany(keys.slice(i, i + MANY));
        return { getPerSecond, getManyPerSecond: perSecondSince(startMany, READS) };
      };
    },
  };
}

export const readsCase: Case = {
  name: 'reads',
  title: '100,000 keys, read one by one and 100 at a time',
  rounds: 5,
  contestants: [
    reading('sluice staging', sluice('sync', { flush: { mode: 'manual' } }), () => undefined),
    reading('sluice cache', sluice('sync', { cache: 'unbounded' }), async (store) => {
      await store.applied?.();
      for (const key of keys) store.get(key);
    }),
    reading('sluice SQLite', sluice('sync')),
    reading('lmdb', lmdb('committed')),
    reading('better-sqlite3', rawLoop(10_000)),
  ],
};
