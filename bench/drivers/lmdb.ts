import { join } from 'node:path';
import { open } from 'lmdb';
import type { KeyValueDriver } from './key-value.ts';

/** lmdb-js with its own defaults: `put`, and at the end until it is `committed`, or also `flushed`. */
export function lmdb(until: 'committed' | 'flushed'): KeyValueDriver {
  return {
    name: `lmdb ${until}`,
    durability: until === 'flushed' ? 'on disk' : 'system has it',
    async open(folder) {
      const db = open({ path: join(folder, 'lmdb') });
      let last: Promise<boolean> | undefined;
      return {
        write(entryOf, from, to) {
          for (let i = from; i < to; i++) {
            const [key, value] = entryOf(i);
            last = db.put(key, value);
          }
        },
        async acknowledged() {
          await last;
          if (until === 'flushed') await db.flushed;
        },
        get: (key) => db.get(key),
        getMany: (keys) => db.getMany([...keys]),
        close: () => db.close(),
      };
    },
  };
}
