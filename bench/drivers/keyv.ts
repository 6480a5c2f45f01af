import { join } from 'node:path';
import type { Driver, PutStore } from '../driver.ts';
import type { KeyValueWorkload } from '../workload.ts';
import { countIn } from './raw-sqlite.ts';

/** Keyv on SQLite with its own defaults: each `set` a transaction of its own. */
export const keyv: Driver<KeyValueWorkload, PutStore> = {
  name: 'keyv',
  durability: 'on disk, in SQLite',
  atMost: 3_000,
  async open(folder, { entryOf }) {
    const [{ Keyv }, { default: KeyvSqlite }] = await Promise.all([import('keyv'), import('@keyv/sqlite')]);
    const path = join(folder, 'keyv.db');
    const db = new Keyv({ store: new KeyvSqlite(`sqlite://${path}`) });
    return {
      async write(from, to) {
        for (let i = from; i < to; i++) await db.set(...entryOf(i));
      },
      put: (i) => db.set(...entryOf(i)),
      acknowledged: () => undefined,
      count: () => countIn(path, 'keyv'),
      close: () => db.disconnect(),
    };
  },
};
