import type { Case } from '../contest.ts';
import type { Driver } from '../driver.ts';
import { classicLevel } from '../drivers/classic-level.ts';
import { keyv } from '../drivers/keyv.ts';
import { lmdb } from '../drivers/lmdb.ts';
import { rawLoop } from '../drivers/raw-sqlite.ts';
import { rawWorker } from '../drivers/raw-worker.ts';
import { sluice } from '../drivers/sluice.ts';
import { hotKeys, type KeyValueWorkload, strings, uniqueObjects } from '../workload.ts';
import { writing } from './writing.ts';

const DRIVERS: readonly Driver<KeyValueWorkload>[] = [
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

function writeCase(name: string, title: string, rounds: number, workload: KeyValueWorkload): Case {
  return { name, title, rounds, contestants: DRIVERS.map((driver) => writing(driver, workload)) };
}

const unique = writeCase('unique', '300,000 unique small objects', 5, uniqueObjects(300_000));

export const uniqueCase: Case = {
  ...unique,
  contestants: [
    ...unique.contestants,
    ...(['interval', 'memory', 'applied'] as const).map((level) => writing(sluice(level), uniqueObjects(300_000))),
  ],
};

export const hotCase: Case = writeCase(
  'hot',
  '1,000,000 updates of 10,000 small objects',
  5,
  hotKeys(1_000_000, 10_000),
);

export const strings100Case: Case = writeCase(
  'strings-100',
  '300,000 strings of 100 B under unique keys',
  3,
  strings(300_000, 100),
);

/** 40 MB: half of what staging may hold is where Sluice asks the host to wait for SQLite, and `sustained` is about that. */
export const strings4kCase: Case = writeCase(
  'strings-4k',
  '10,000 strings of 4 KiB under unique keys',
  3,
  strings(10_000, 4_096),
);
