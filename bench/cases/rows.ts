import { join } from 'node:path';
import { open } from 'sluicedb';
import type { Case, Contestant } from '../contest.ts';
import { openSqlite, Transactions } from '../drivers/raw-sqlite.ts';
import { host, perSecondSince } from '../host.ts';
import { type Row, TEN_COLUMNS, THREE_COLUMNS, tenColumnRow, threeColumnRow } from '../workload.ts';

type Columns = Readonly<Record<string, 'integer' | 'real' | 'text'>>;

function appending(durability: 'sync' | 'os', count: number, columns: Columns, rowOf: (i: number) => Row): Contestant {
  return {
    name: `sluice ${durability}`,
    durability: durability === 'sync' ? 'on disk' : 'system has it',
    async start(folder) {
      return async () => {
        const db = await open(join(folder, 'sluice.db'), { durability });
        const rows = db.rows('readings', { columns });
        const write = (from: number, to: number) => {
          let plenty = true;
          for (let i = from; i < to; i++) plenty = rows.append(rowOf(i));
          return plenty ? undefined : db.adrain();
        };
        const { start, figures } = await host(count, write, () => db.adurable());
        await db.aflush();
        const appliedPerSecond = perSecondSince(start, count);
        await db.close();
        return { ...figures, appliedPerSecond };
      };
    },
  };
}

function inserting(perTransaction: number, count: number, columns: Columns, rowOf: (i: number) => Row): Contestant {
  const names = Object.keys(columns);
  const writes = perTransaction === 1 ? count / 50 : count;
  return {
    name: perTransaction === 1 ? 'better-sqlite3 one row' : `better-sqlite3 ${perTransaction}`,
    durability: 'on disk, in SQLite',
    async start(folder) {
      return async () => {
        const types = names.map((name) => `${name} ${columns[name]}`);
        const db = openSqlite(join(folder, 'raw.db'), `CREATE TABLE readings (${types.join(', ')})`);
        const insert = db.prepare(`INSERT INTO readings VALUES (${names.map(() => '?').join(', ')})`);
        const transactions = new Transactions(db, perTransaction);
        const write = (from: number, to: number) => {
          for (let i = from; i < to; i++) {
            const row = rowOf(i);
            transactions.run(() => insert.run(names.map((name) => row[name])));
          }
        };
        const { start, figures } = await host(writes, write, async () => transactions.end());
        const appliedPerSecond = perSecondSince(start, writes);
        db.close();
        return { ...figures, appliedPerSecond };
      };
    },
  };
}

function rowsCase(name: string, title: string, count: number, columns: Columns, rowOf: (i: number) => Row): Case {
  return {
    name,
    title,
    contestants: [
      appending('sync', count, columns, rowOf),
      appending('os', count, columns, rowOf),
      inserting(1, count, columns, rowOf),
      inserting(1_000, count, columns, rowOf),
      inserting(10_000, count, columns, rowOf),
    ],
  };
}

export const rows3Case: Case = rowsCase(
  'rows-3',
  '500,000 rows of three columns',
  500_000,
  THREE_COLUMNS,
  threeColumnRow,
);
export const rows10Case: Case = rowsCase('rows-10', '200,000 rows of ten columns', 200_000, TEN_COLUMNS, tenColumnRow);

/** What lasts: more than staging holds. */
export const sustainedRowsCase: Case = {
  ...rowsCase(
    'sustained-rows',
    '3,000,000 rows of three columns, until all are in the database',
    3_000_000,
    THREE_COLUMNS,
    threeColumnRow,
  ),
  rounds: 3,
};
