import type { Case } from '../contest.ts';
import { sluice } from '../drivers/sluice.ts';
import { STAGING_MIB } from '../goals.ts';
import { uniqueObjects } from '../workload.ts';
import { writing } from './writing.ts';

export const memoryCase: Case = {
  name: 'memory',
  title: '10,000,000 unique small objects, in a process of its own from its start',
  rounds: 1,
  cold: true,
  contestants: [
    writing(sluice('sync', { staging: { maxBytes: STAGING_MIB * 1024 * 1024 } }), uniqueObjects(10_000_000)),
  ],
};
