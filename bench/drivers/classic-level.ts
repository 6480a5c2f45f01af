import { join } from 'node:path';
import type { Driver, PutStore } from '../driver.ts';
import type { KeyValueWorkload } from '../workload.ts';

/** LevelDB: what a turn of the host writes is one batch, and the next begins when that is done. */
export function classicLevel(sync: boolean): Driver<KeyValueWorkload, PutStore> {
  return {
    name: `classic-level ${sync ? 'sync' : 'no sync'}`,
    durability: sync ? 'on disk' : 'with the system',
    atMost: 100_000,
    async open(folder, { entryOf }) {
      const { ClassicLevel } = await import('classic-level');
      const db = new ClassicLevel<string, unknown>(join(folder, 'level'), { valueEncoding: 'json' });
      await db.open();
      return {
        write(from, to) {
          const batch = [];
          for (let i = from; i < to; i++) {
            const [key, value] = entryOf(i);
            batch.push({ type: 'put' as const, key, value });
          }
          return db.batch(batch, { sync });
        },
        put: (i) => db.put(...entryOf(i), { sync }),
        acknowledged: () => undefined,
        count: async () => (await db.keys().all()).length,
        close: () => db.close(),
      };
    },
  };
}
