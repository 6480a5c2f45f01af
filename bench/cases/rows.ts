import type { Case } from '../contest.ts';
import { rawRows } from '../drivers/raw-sqlite.ts';
import { rawRowsWorker } from '../drivers/raw-worker.ts';
import { sluiceRows } from '../drivers/sluice.ts';
import { type RowWorkload, tenColumns, threeColumns } from '../workload.ts';
import { writing } from './writing.ts';

function rowsCase<R extends object>(name: string, title: string, rounds: number, workload: RowWorkload<R>): Case {
  const drivers = [
    sluiceRows<R>('sync'),
    sluiceRows<R>('os'),
    rawRows<R>(1),
    rawRows<R>(1_000),
    rawRows<R>(10_000),
    rawRowsWorker<R>(10_000),
  ];
  return { name, title, rounds, contestants: drivers.map((driver) => writing(driver, workload)) };
}

export const rows3Case: Case = rowsCase('rows-3', '500,000 rows of three columns', 5, threeColumns(500_000));
export const rows10Case: Case = rowsCase('rows-10', '200,000 rows of ten columns', 3, tenColumns(200_000));
