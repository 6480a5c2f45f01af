import { fork } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { open } from 'sluicedb';
import type { Case } from '../contest.ts';

const WRITES = 1_000_000;
/** Room for all of them, so that none has to be in SQLite before the database is open. */
export const ROOM = { maxBytes: 1024 * 1024 * 1024, maxEntries: 4 * WRITES };

/** A process that logs its writes and is killed before any is in SQLite; then the next start. */
export const recoveryCase: Case = {
  name: 'recovery',
  title: `open after a kill, with ${WRITES} logged writes`,
  rounds: 3,
  contestants: [
    {
      name: 'sluice sync',
      durability: 'on disk',
      async start(folder) {
        const left = join(folder, 'left');
        const victim = fork(new URL('../victim.js', import.meta.url), [left, String(WRITES)]);
        await once(victim, 'message');
        victim.kill('SIGKILL');
        await once(victim, 'exit');
        return async () => {
          const copy = join(folder, 'copy');
          cpSync(left, copy, { recursive: true });
          const start = performance.now();
          const db = await open(join(copy, 'sluice.db'), { staging: ROOM, flush: { mode: 'manual' } });
          const ms = performance.now() - start;
          const { recovered } = db.stats();
          if (recovered !== WRITES) throw new Error(`${recovered} of ${WRITES} writes were recovered`);
          await db.close();
          rmSync(copy, { recursive: true });
          return { recoveredPerSecond: (WRITES / ms) * 1_000 };
        };
      },
    },
  ],
};
