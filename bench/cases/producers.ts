import type { Case } from '../contest.ts';
import { classicLevel } from '../drivers/classic-level.ts';
import { lmdb } from '../drivers/lmdb.ts';
import { rawLoop } from '../drivers/raw-sqlite.ts';
import { sluice } from '../drivers/sluice.ts';
import { uniqueObjects } from '../workload.ts';
import { producing } from './producing.ts';

const workload = uniqueObjects(64_000);

export const producersCase: Case = {
  name: 'producers',
  title: '64 producers side by side, each awaiting its write before the next',
  rounds: 5,
  contestants: [
    sluice('sync'),
    sluice('os'),
    lmdb('flushed'),
    lmdb('committed'),
    classicLevel(true),
    classicLevel(false),
    rawLoop(1),
  ].map((driver) => producing(driver, workload, 64)),
};
