import type { Case } from '../contest.ts';
import { latencyCase } from './latency.ts';
import { memoryCase } from './memory.ts';
import { readsCase } from './reads.ts';
import { recoveryCase } from './recovery.ts';
import { rows3Case, rows10Case, sustainedRowsCase } from './rows.ts';
import { hotCase, strings4kCase, strings100Case, sustainedCase, uniqueCase } from './writes.ts';

export const CASES: readonly Case[] = [
  uniqueCase,
  hotCase,
  strings100Case,
  strings4kCase,
  rows3Case,
  rows10Case,
  sustainedCase,
  sustainedRowsCase,
  readsCase,
  latencyCase,
  recoveryCase,
  memoryCase,
];
