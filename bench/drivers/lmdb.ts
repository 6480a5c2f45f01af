import { join } from 'node:path';
import type { Driver, ReadStore } from '../driver.ts';
import type { KeyValueWorkload } from '../workload.ts';

/** lmdb-js with its own defaults: `put`, and at the end until it is `committed`, or also `flushed`. */
export function lmdb(until: 'committed' | 'flushed'): Driver<KeyValueWorkload, ReadStore> {
  return {
    name: `lmdb ${until}`,
    durability: until === 'flushed' ? 'on disk' : 'with the system',
    async open(folder, { entryOf }) {
      const { open } = await import('lmdb');
      const db = open({ path: join(folder, 'lmdb') });
      const safe = async (committed: Promise<boolean> | undefined) => {
        await committed;
        if (until === 'flushed') await db.flushed;
      };
      let last: Promise<boolean> | undefined;
      return {
        write(from, to) {
          for (let i = from; i < to; i++) {
            const [key, value] = entryOf(i);
            last = db.put(key, value);
          }
          return undefined;
        },
        put: (i) => safe(db.put(...entryOf(i))),
        acknowledged: () => safe(last),
        get: (key) => db.get(key),
        getMany: (keys) => db.getMany([...keys]),
        scan: (start, limit) => db.getRange({ start, limit }),
        count: () => db.getKeysCount(),
        close: () => db.close(),
      };
    },
  };
}
