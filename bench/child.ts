/** One contestant of one case, in a process of its own: a round for each message. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CASES } from './cases/index.ts';

const [, , caseName, contestantName] = process.argv;
const contestant = CASES.find(({ name }) => name === caseName)?.contestants.find(({ name }) => name === contestantName);
if (contestant === undefined) throw new Error(`no contestant ${contestantName} in case ${caseName}`);

const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
mkdirSync(join(folder, 'round'));
const round = await contestant.start(join(folder, 'round'));
const kept = new Set(readdirSync(join(folder, 'round')));

process.on('message', async () => {
  const figures = await round();
  for (const name of readdirSync(join(folder, 'round'))) {
    if (!kept.has(name)) rmSync(join(folder, 'round', name), { recursive: true });
  }
  globalThis.gc?.();
  process.send?.(figures);
});
process.on('disconnect', () => process.exit());
process.send?.('ready');
