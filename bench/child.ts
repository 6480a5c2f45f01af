/** One contestant of one case, in a process of its own: a round for each message. */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ALL_CASES } from './cases/index.ts';
import type { Figures, Round } from './contest.ts';

/** The answer to being started, and to each round. */
export type Answer = { readonly ready: true } | { readonly figures: Figures } | { readonly failed: string };

const [, , caseName, contestantName, folder = ''] = process.argv;
const contestant = ALL_CASES.find(({ name }) => name === caseName)?.contestants.find(
  ({ name }) => name === contestantName,
);
if (contestant === undefined) throw new Error(`no contestant ${contestantName} in case ${caseName}`);

// The parent has done with it, or is gone and cannot tidy up any more.
process.on('disconnect', () => process.exit());
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

await answer(async () => {
  const kept = join(folder, 'kept');
  mkdirSync(kept);
  const round = await contestant.start(kept);
  process.on('message', () => answer(async () => ({ figures: await measured(round) })));
  return { ready: true };
});

async function measured(round: Round): Promise<Figures> {
  const scratch = join(folder, 'scratch');
  mkdirSync(scratch);
  const figures = await round(scratch);
  // What is deleted is not written back to the disk while others are measured.
  rmSync(scratch, { recursive: true });
  globalThis.gc?.();
  return figures;
}

async function answer(work: () => Promise<Answer>): Promise<void> {
  try {
    process.send?.(await work());
  } catch (error) {
    process.send?.({ failed: error instanceof Error ? error.stack : String(error) });
  }
}
