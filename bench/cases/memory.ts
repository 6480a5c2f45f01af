import { join } from 'node:path';
import { open } from 'sluicedb';
import type { Case } from '../contest.ts';
import { host, perSecondSince } from '../host.ts';
import { uniqueObjects } from '../workload.ts';

const WRITES = 10_000_000;
const MIB = 1024 * 1024;
/** The default of `staging.maxBytes`. */
const STAGING_BYTES = 128 * MIB;

export const memoryCase: Case = {
  name: 'memory',
  title: `${WRITES} unique small objects, one process from its start`,
  rounds: 1,
  cold: true,
  contestants: [
    {
      name: 'sluice sync',
      durability: 'on disk',
      async start(folder) {
        return async () => {
          const entryOf = uniqueObjects(WRITES);
          const db = await open(join(folder, 'sluice.db'), { staging: { maxBytes: STAGING_BYTES } });
          const write = (from: number, to: number) => {
            let plenty = true;
            for (let i = from; i < to; i++) plenty = db.set(...entryOf(i));
            return plenty ? undefined : db.adrain();
          };
          const { start, figures } = await host(WRITES, write, () => db.adurable());
          await db.aflush();
          const appliedPerSecond = perSecondSince(start, WRITES);
          await db.close();
          const peak = process.resourceUsage().maxRSS * 1024;
          return {
            ...figures,
            appliedPerSecond,
            peakRssMiB: peak / MIB,
            aboveStagingMiB: (peak - STAGING_BYTES) / MIB,
          };
        };
      },
    },
  ],
};
