import type { Case } from '../contest.ts';
import { collectorCase } from './collector.ts';
import { growthCase } from './growth.ts';
import { latencyCase } from './latency.ts';
import { memoryCase } from './memory.ts';
import { mixed50Case, mixed90Case } from './mixed.ts';
import { producersCase } from './producers.ts';
import { readsCase } from './reads.ts';
import { recoveryCase } from './recovery.ts';
import { rows3Case, rows10Case } from './rows.ts';
import { scansCase } from './scans.ts';
import { sustainedCase, sustainedRowsCase } from './sustained.ts';
import { hotCase, strings4kCase, strings100Case, uniqueCase } from './writes.ts';

/** What `npm run bench:full` measures; `npm run bench` takes from it what the goals ask for. */
export const CASES: readonly Case[] = [
  uniqueCase,
  hotCase,
  strings100Case,
  strings4kCase,
  rows3Case,
  rows10Case,
  sustainedCase,
  sustainedRowsCase,
  latencyCase,
  producersCase,
  mixed90Case,
  mixed50Case,
  readsCase,
  scansCase,
  collectorCase,
  recoveryCase,
  memoryCase,
];

/** And what `npm run bench:growth` draws. */
export const ALL_CASES: readonly Case[] = [...CASES, growthCase];
