import { join } from 'node:path';
import { type Durability as Level, type OpenOptions, open } from 'sluicedb';
import type { Durability } from '../contest.ts';
import type { Driver, ReadStore } from '../driver.ts';
import type { KeyValueWorkload, RowWorkload } from '../workload.ts';

const SAFETY: Readonly<Record<Level, Durability>> = {
  memory: 'in memory',
  os: 'with the system',
  interval: 'on disk within 0.2 s',
  sync: 'on disk',
  applied: 'on disk, in SQLite',
};

/** `db.set`, a pause where it says that staging is full, and `db.adurable()` at the end. */
export function sluice(level: Level, options: OpenOptions = {}): Driver<KeyValueWorkload, ReadStore> {
  return {
    name: `sluice ${level}`,
    durability: SAFETY[level],
    async open(folder, { entryOf }) {
      const db = await open(join(folder, 'sluice.db'), { durability: level, ...options });
      return {
        write(from, to) {
          let plenty = true;
          for (let i = from; i < to; i++) {
            const [key, value] = entryOf(i);
            plenty = db.set(key, value);
          }
          return plenty ? undefined : db.adrain();
        },
        put: (i) => db.aset(...entryOf(i)),
        acknowledged: () => db.adurable(),
        applied: () => db.aflush(),
        get: (key) => db.get(key),
        getMany: (keys) => db.getMany(keys),
        scan: (from, limit) => db.scan({ gte: from, limit }),
        count: () => db.size,
        close: () => db.close(),
      };
    },
  };
}

/** `rows.append`, likewise. */
export function sluiceRows<R extends object>(level: Level): Driver<RowWorkload<R>> {
  return {
    name: `sluice ${level}`,
    durability: SAFETY[level],
    async open(folder, { columns, rowOf }) {
      const db = await open(join(folder, 'sluice.db'), { durability: level });
      const rows = db.rows<R>('readings', { columns });
      return {
        write(from, to) {
          let plenty = true;
          for (let i = from; i < to; i++) plenty = rows.append(rowOf(i));
          return plenty ? undefined : db.adrain();
        },
        acknowledged: () => db.adurable(),
        applied: () => db.aflush(),
        count: async () => (await db.afetchOne<{ n: number }>('SELECT count(*) AS n FROM readings'))?.n ?? 0,
        close: () => db.close(),
      };
    },
  };
}
