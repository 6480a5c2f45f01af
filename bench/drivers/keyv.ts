import { join } from 'node:path';
import KeyvSqlite from '@keyv/sqlite';
import { Keyv } from 'keyv';
import type { KeyValueDriver } from './key-value.ts';

/** Keyv on SQLite with its own defaults: each `set` a transaction of its own. */
export const keyv: KeyValueDriver = {
  name: 'keyv',
  durability: 'on disk',
  slow: true,
  async open(folder) {
    const store = new KeyvSqlite(`sqlite://${join(folder, 'keyv.db')}`);
    const db = new Keyv({ store });
    return {
      async write(entryOf, from, to) {
        for (let i = from; i < to; i++) {
          const [key, value] = entryOf(i);
          await db.set(key, value);
        }
      },
      acknowledged: () => undefined,
      get: (key) => db.get(key),
      close: () => db.disconnect(),
    };
  },
};
