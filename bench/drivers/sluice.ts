import { join } from 'node:path';
import { type Durability, type OpenOptions, open } from 'sluicedb';
import type { KeyValueDriver } from './key-value.ts';

const SAFETY: Readonly<Record<Durability, string>> = {
  memory: 'none',
  os: 'system has it',
  interval: 'on disk in 0.2 s',
  sync: 'on disk',
  applied: 'on disk, in SQLite',
};

/** `db.set`, and `db.adurable()` at the end. */
export function sluice(durability: Durability, options: OpenOptions = {}): KeyValueDriver {
  return {
    name: `sluice ${durability}`,
    durability: SAFETY[durability],
    async open(folder) {
      const db = await open(join(folder, 'sluice.db'), { durability, ...options });
      return {
        async write(entryOf, from, to) {
          let plenty = true;
          for (let i = from; i < to; i++) {
            const [key, value] = entryOf(i);
            plenty = db.set(key, value);
          }
          if (!plenty) await db.adrain();
        },
        acknowledged: () => db.adurable(),
        applied: () => db.aflush(),
        get: (key) => db.get(key),
        getMany: (keys) => db.getMany(keys),
        close: () => db.close(),
      };
    },
  };
}
