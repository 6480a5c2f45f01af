import { join } from 'node:path';
import { ClassicLevel } from 'classic-level';
import type { KeyValueDriver } from './key-value.ts';

/** LevelDB with what a turn of the host writes as one batch, one after the other. */
export function classicLevel(sync: boolean): KeyValueDriver {
  return {
    name: `classic-level ${sync ? 'sync' : 'no sync'}`,
    durability: sync ? 'on disk' : 'system has it',
    async open(folder) {
      const db = new ClassicLevel<string, unknown>(join(folder, 'level'), { valueEncoding: 'json' });
      await db.open();
      return {
        async write(entryOf, from, to) {
          const batch = [];
          for (let i = from; i < to; i++) {
            const [key, value] = entryOf(i);
            batch.push({ type: 'put' as const, key, value });
          }
          await db.batch(batch, { sync });
        },
        acknowledged: () => undefined,
        get: (key) => db.getSync(key),
        close: () => db.close(),
      };
    },
  };
}
