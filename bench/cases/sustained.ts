/** What lasts: more than staging holds, so that a store is as fast as the database below it. */
import type { Case } from '../contest.ts';
import { RARELY, rawLoop, rawRows } from '../drivers/raw-sqlite.ts';
import { rawRowsWorker, rawWorker } from '../drivers/raw-worker.ts';
import { sluice, sluiceRows } from '../drivers/sluice.ts';
import { threeColumns, uniqueObjects } from '../workload.ts';
import { writing } from './writing.ts';

const objects = uniqueObjects(1_200_000);
const rows = threeColumns(3_000_000);

export const sustainedCase: Case = {
  name: 'sustained',
  title: '1,200,000 unique small objects, until all are in the database',
  rounds: 3,
  cold: true,
  contestants: [
    sluice('sync'),
    rawLoop(1_000),
    rawLoop(10_000),
    rawLoop(50_000),
    rawWorker(10_000),
    rawWorker(50_000),
    rawLoop(50_000, RARELY),
    rawWorker(50_000, RARELY),
  ].map((driver) => writing(driver, objects)),
};

export const sustainedRowsCase: Case = {
  name: 'sustained-rows',
  title: '3,000,000 rows of three columns, until all are in the database',
  rounds: 3,
  cold: true,
  contestants: [
    sluiceRows('sync'),
    rawRows(1_000),
    rawRows(10_000),
    rawRows(50_000),
    rawRowsWorker(10_000),
    rawRowsWorker(50_000),
    rawRows(50_000, RARELY),
    rawRowsWorker(50_000, RARELY),
  ].map((driver) => writing(driver, rows)),
};
