import { performance } from 'node:perf_hooks';
import type { Case, Contestant } from '../contest.ts';
import type { KeyValueDriver } from '../drivers/key-value.ts';
import { lmdb } from '../drivers/lmdb.ts';
import { rawLoop } from '../drivers/raw-sqlite.ts';
import { sluice } from '../drivers/sluice.ts';
import { WRITES_PER_TURN } from '../host.ts';
import { type Entry, uniqueObjects } from '../workload.ts';

const KEYS = 100_000;
const READS = 200_000;
const MANY = 100;

const entryOf = uniqueObjects(KEYS);
const keyOf = (i: number): string => (entryOf((i * 31) % KEYS) as Entry)[0];

interface Where {
  readonly name: string;
  /** Brings all keys to where they are to be read from. */
  readonly prepare: 'stage' | 'flush' | 'cache';
}

/** Reads what was written, one by one and 100 at a time. */
function reading(driver: KeyValueDriver, { name, prepare }: Where): Contestant {
  return {
    name,
    durability: '',
    async start(folder) {
      const store = await driver.open(folder);
      for (let i = 0; i < KEYS; i += WRITES_PER_TURN) await store.write(entryOf, i, i + WRITES_PER_TURN);
      await store.acknowledged();
      if (prepare !== 'stage') await store.applied?.();
      if (prepare === 'cache') for (let i = 0; i < KEYS; i++) store.get(keyOf(i));
      return async () => {
        const keys = Array.from({ length: READS }, (_, i) => keyOf(i));
        const start = performance.now();
        let found = 0;
        for (const key of keys) if (store.get(key) !== undefined) found++;
        const getMs = performance.now() - start;
        if (found !== READS) throw new Error(`${found} of ${READS} keys were found`);
        const startMany = performance.now();
        for (let i = 0; i < READS; i += MANY) await store.getMany?.(keys.slice(i, i + MANY));
        const manyMs = performance.now() - startMany;
        return { getPerSecond: (READS / getMs) * 1_000, getManyPerSecond: (READS / manyMs) * 1_000 };
      };
    },
  };
}

export const readsCase: Case = {
  name: 'reads',
  title: `${READS} reads of ${KEYS} keys`,
  contestants: [
    reading(sluice('sync', { flush: { mode: 'manual' } }), { name: 'sluice staging', prepare: 'stage' }),
    reading(sluice('sync', { cache: 'unbounded' }), { name: 'sluice cache', prepare: 'cache' }),
    reading(sluice('sync'), { name: 'sluice SQLite', prepare: 'flush' }),
    reading(lmdb('committed'), { name: 'lmdb', prepare: 'flush' }),
    reading(rawLoop(10_000), { name: 'better-sqlite3', prepare: 'flush' }),
  ],
};
