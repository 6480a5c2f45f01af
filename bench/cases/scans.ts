import { performance } from 'node:perf_hooks';
import type { Case, Contestant } from '../contest.ts';
import type { Driver, ReadStore } from '../driver.ts';
import { lmdb } from '../drivers/lmdb.ts';
import { rawLoop } from '../drivers/raw-sqlite.ts';
import { sluice } from '../drivers/sluice.ts';
import { inTurns, perSecondSince } from '../host.ts';
import { type KeyValueWorkload, uniqueObjects } from '../workload.ts';

const KEYS = 100_000;
const RANGES = 100;
const RANGE = 1_000;
const SHORT = 10;

const workload = uniqueObjects(KEYS);
const inOrder = Array.from({ length: KEYS }, (_, i) => workload.entryOf(i)[0]).sort();
/** Where ranges begin that are as long as they may be. */
const starts = Array.from({ length: RANGES }, (_, i) => inOrder[(i * 7_919) % (KEYS - RANGE)] as string);

/** Walks through entries in the order of their keys. Of the keys, `staged` are written once more and stay in staging. */
function scanning(name: string, driver: Driver<KeyValueWorkload, ReadStore>, staged = 0): Contestant {
  return {
    name,
    durability: 'only read',
    async start(folder) {
      const store = await driver.open(folder, workload);
      await inTurns(KEYS, store.write);
      await store.acknowledged();
      await store.applied?.();
      await inTurns(staged, store.write);
      await store.acknowledged();
      return async () => {
        const start = performance.now();
        let walked = 0;
        for (const from of starts) walked += lengthOf(store.scan(from, RANGE));
        const rangePerSecond = perSecondSince(start, walked);
        const startShort = performance.now();
        for (const from of starts) walked += lengthOf(store.scan(from, SHORT));
        const shortPerSecond = perSecondSince(startShort, starts.length);
        const startWhole = performance.now();
        const all = lengthOf(store.scan('', KEYS));
        if (walked !== RANGES * (RANGE + SHORT) || all !== KEYS)
          throw new Error(`${walked} and ${all} entries were found`);
        return { rangePerSecond, shortPerSecond, wholePerSecond: perSecondSince(startWhole, all) };
      };
    },
  };
}

function lengthOf(entries: Iterable<unknown>): number {
  let length = 0;
  for (const _ of entries) length++;
  return length;
}

export const scansCase: Case = {
  name: 'scans',
  title: '100 ranges of 1,000 entries, and of ten, and all 100,000',
  rounds: 5,
  contestants: [
    scanning('sluice SQLite', sluice('sync')),
    scanning('sluice merged, a tenth staged', sluice('sync', { flush: { mode: 'manual' } }), KEYS / 10),
    scanning('lmdb', lmdb('committed')),
    scanning('better-sqlite3', rawLoop(10_000)),
  ],
};
