import type { Case, Contestant, Figures } from '../contest.ts';
import { classicLevel } from '../drivers/classic-level.ts';
import type { KeyValueDriver } from '../drivers/key-value.ts';
import { keyv } from '../drivers/keyv.ts';
import { lmdb } from '../drivers/lmdb.ts';
import { rawLoop, rawWorker } from '../drivers/raw-sqlite.ts';
import { sluice } from '../drivers/sluice.ts';
import { host, perSecondSince } from '../host.ts';
import { type EntryOf, hotKeys, strings, uniqueObjects } from '../workload.ts';

/** Whoever waits for the disk with each write makes so many of them. */
const SLOW_SHARE = 1 / 50;

const DRIVERS: readonly KeyValueDriver[] = [
  sluice('sync'),
  sluice('os'),
  lmdb('flushed'),
  lmdb('committed'),
  classicLevel(true),
  classicLevel(false),
  rawLoop(1),
  rawLoop(1_000),
  rawLoop(10_000),
  rawWorker(10_000),
  keyv,
];

function writing(driver: KeyValueDriver, count: number, entryOf: EntryOf): Contestant {
  const { name, durability, slow = false } = driver;
  const writes = slow ? count * SLOW_SHARE : count;
  return {
    name,
    durability,
    async start(folder) {
      return async (): Promise<Figures> => {
        const store = await driver.open(folder);
        const write = (from: number, to: number) => store.write(entryOf, from, to);
        const { start, figures } = await host(writes, write, () => store.acknowledged());
        await store.applied?.();
        const appliedPerSecond = perSecondSince(start, writes);
        await store.close();
        return { ...figures, appliedPerSecond };
      };
    },
  };
}

function writeCase(name: string, title: string, count: number, entryOf: EntryOf): Case {
  return { name, title, contestants: DRIVERS.map((driver) => writing(driver, count, entryOf)) };
}

export const uniqueCase: Case = writeCase('unique', '300,000 unique small objects', 300_000, uniqueObjects(300_000));
export const strings100Case: Case = writeCase(
  'strings-100',
  '300,000 strings of 100 B under unique keys',
  300_000,
  strings(300_000, 100),
);
export const strings4kCase: Case = writeCase(
  'strings-4k',
  '20,000 strings of 4 KiB under unique keys',
  20_000,
  strings(20_000, 4_096),
);
export const hotCase: Case = writeCase('hot', '1,000,000 updates of 10,000 keys', 1_000_000, hotKeys(10_000));

/** What lasts: as fast as staging is emptied. */
export const sustainedCase: Case = {
  name: 'sustained',
  title: '2,000,000 unique small objects, until all are in the database',
  rounds: 3,
  contestants: [sluice('sync'), rawLoop(1_000), rawLoop(10_000), rawLoop(50_000), rawWorker(10_000)].map((driver) =>
    writing(driver, 2_000_000, uniqueObjects(2_000_000)),
  ),
};
