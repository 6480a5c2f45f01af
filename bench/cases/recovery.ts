import { fork } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { type OpenOptions, open } from 'sluicedb';
import type { Case } from '../contest.ts';
import { perSecondSince } from '../host.ts';

export const WRITES = 1_000_000;

/** Room for all of them, and no flush: so that none has to be in SQLite before the database is open. */
export const ALL_STAGED: OpenOptions = {
  staging: { maxBytes: 1024 * 1024 * 1024, maxEntries: 4 * WRITES },
  flush: { mode: 'manual' },
};

/** A process that logs its writes and is killed before any is in SQLite; then the next start. */
export const recoveryCase: Case = {
  name: 'recovery',
  title: 'open after a kill, with 1,000,000 logged writes',
  rounds: 3,
  contestants: [
    {
      name: 'sluice sync',
      durability: 'on disk',
      async start(folder) {
        const left = join(folder, 'left');
        mkdirSync(left);
        const victim = fork(new URL('./victim.js', import.meta.url), [join(left, 'sluice.db')]);
        const [word] = await Promise.race([once(victim, 'message'), once(victim, 'exit')]);
        if (word !== 'logged') throw new Error(`the process to be killed ended by itself: ${word}`);
        victim.kill('SIGKILL');
        await once(victim, 'exit');
        return async (scratch) => {
          cpSync(left, scratch, { recursive: true });
          const start = performance.now();
          const db = await open(join(scratch, 'sluice.db'), ALL_STAGED);
          const recoveredPerSecond = perSecondSince(start, WRITES);
          const { recovered } = db.stats();
          if (recovered !== WRITES) throw new Error(`${recovered} of ${WRITES} writes were recovered`);
          await db.close();
          return { recoveredPerSecond };
        };
      },
    },
  ],
};
