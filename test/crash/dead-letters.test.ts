import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { seededRandom } from '../support/seed.ts';
import { tempDir } from '../support/temp-dir.ts';

/** SIGKILL while dead letters are retried, cleared and imported, and rows are written and die. */
const ROUNDS = Number(process.env['SLUICE_KILL_ROUNDS'] ?? 50);
const CHILD = join(import.meta.dirname, 'dead-letters-child.mjs');
const OPERATIONS = ['retry', 'clear', 'import'] as const;

/** When a round ends: so long after the child has said this. */
interface Moment {
  readonly said: string;
  readonly delayMs: number;
}

function killAt({ said, delayMs }: Moment, args: readonly string[]): Promise<{ lines: string[]; stderr: string }> {
  const child = spawn(process.execPath, [CHILD, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  let timer: NodeJS.Timeout | undefined;
  // An operation may not come, where nothing dies.
  const limit = setTimeout(() => child.kill('SIGKILL'), 1_200);
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    if (stdout.includes(said)) timer ??= setTimeout(() => child.kill('SIGKILL'), delayMs);
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => {
      clearTimeout(timer);
      clearTimeout(limit);
      resolve({ lines: stdout.split('\n').slice(0, -1), stderr });
    });
  });
}

function numbersOf(lines: readonly string[], word: string): number[] {
  return lines.filter((line) => line.startsWith(`${word} `)).flatMap((line) => line.split(' ').slice(1).map(Number));
}

test('[fault 68] [fault 72] killed at any point of a retry, a clear or an import: each entry is in one place', {
  timeout: 300_000,
}, async () => {
  const random = seededRandom(68);
  const file = join(tempDir(), 'kill.db');
  const state = { acked: 0, cleared: [] as number[], keys: {} };
  const during = { retry: 0, clear: 0, import: 0, nothing: 0 };
  const seen = { opened: 0, withEntries: 0 };
  for (let round = 1; round <= ROUNDS; round++) {
    writeFileSync(`${file}.state`, JSON.stringify(state));
    const operation = OPERATIONS[Math.floor(random() * 3)] as (typeof OPERATIONS)[number];
    const moment: Moment =
      random() < 0.2
        ? { said: 'opened', delayMs: random() * 100 }
        : { said: `begin ${operation}`, delayMs: random() * (operation === 'clear' ? 20 : 5) };
    const seed = String(Math.floor(random() * 0xffffffff));
    const { lines, stderr } = await killAt(moment, [file, `${file}.state`, seed]);
    const where = `round ${round}, seed of the run ${process.env['SLUICE_SEED']}`;
    expect(stderr, where).toBe('');
    expect(
      lines.filter((line) => line.startsWith('wrong')),
      where,
    ).toEqual([]);
    const [opened] = lines.filter((line) => line.startsWith('opened'));
    if (opened !== undefined) seen.opened++;
    if (Number(opened?.split(' ')[1] ?? 0) > 0) seen.withEntries++;
    state.acked = Math.max(state.acked, ...numbersOf(lines, 'acked'));
    state.cleared.push(...numbersOf(lines, 'clearing'));
    const keys = lines.find((line) => line.startsWith('keys '));
    if (keys !== undefined) state.keys = JSON.parse(keys.slice(5)) as object;
    const last = lines.filter((line) => /^(begin|end) /.test(line)).at(-1);
    during[(last?.startsWith('begin') ? last.slice(6) : 'nothing') as keyof typeof during]++;
  }
  console.log(JSON.stringify({ ...seen, acked: state.acked, cleared: state.cleared.length, during }));
  expect(seen.opened).toBeGreaterThan(ROUNDS / 2);
  expect(seen.withEntries).toBeGreaterThan(ROUNDS / 4);
  expect(state.cleared.length).toBeGreaterThan(0);
  for (const operation of OPERATIONS)
    expect(during[operation], `killed in the middle of ${operation}`).toBeGreaterThan(0);
});
