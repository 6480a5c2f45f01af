import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../support/seed.ts';
import { tempDir } from '../support/temp-dir.ts';

/**
 * SIGKILL at random moments, while the database is opened and recovered too. Each round goes on with the file that the
 * one before left behind, and first checks it against what had been acknowledged.
 */
const ROUNDS = Number(process.env['SLUICE_KILL_ROUNDS'] ?? 40);
const CHILD = join(import.meta.dirname, 'writer-child.mjs');

interface Round {
  readonly lines: readonly string[];
  readonly stderr: string;
}

/** When a round ends: so long after the start of the process, or after it has said that the database is open. */
interface Moment {
  readonly after: 'start' | 'opened';
  readonly delayMs: number;
}

function killAt({ after, delayMs }: Moment, args: readonly string[]): Promise<Round> {
  const child = spawn(process.execPath, [CHILD, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  let timer: NodeJS.Timeout | undefined;
  const arm = () => {
    timer ??= setTimeout(() => child.kill('SIGKILL'), delayMs);
  };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    if (stdout.includes('opened')) arm();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  if (after === 'start') arm();
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => {
      clearTimeout(timer);
      // The last line may be torn, like anything else.
      resolve({ lines: stdout.split('\n').slice(0, -1), stderr });
    });
  });
}

describe('SIGKILL at a random moment', () => {
  for (const [i, durability] of ['memory', 'os', 'interval', 'sync', 'applied'].entries()) {
    it(`${durability}: nothing acknowledged is missing, nothing is there twice, no hole in the order`, {
      timeout: 300_000,
    }, async () => {
      const random = seededRandom(i);
      const file = join(tempDir(), 'kill.db');
      const seen = { opened: 0, killedEarly: 0, recovered: 0, acknowledgements: 0, acked: 0 };
      for (let round = 1; round <= ROUNDS; round++) {
        const seed = Math.floor(random() * 0xffffffff);
        const moment: Moment =
          random() < 0.3 ? { after: 'start', delayMs: random() * 400 } : { after: 'opened', delayMs: random() * 120 };
        const { lines, stderr } = await killAt(moment, [file, durability, String(seen.acked), String(seed)]);
        expect(stderr, `round ${round}, seed of the run ${process.env['SLUICE_SEED']}`).toBe('');
        const wrong = lines.filter((line) => line.startsWith('wrong'));
        expect(wrong, `round ${round}, seed of the run ${process.env['SLUICE_SEED']}`).toEqual([]);
        const opened = lines
          .find((line) => line.startsWith('opened'))
          ?.split(' ')
          .map(Number);
        if (opened === undefined) {
          seen.killedEarly++;
          continue;
        }
        seen.opened++;
        if ((opened[1] as number) > 0) seen.recovered++;
        // What the child found is on the disk by now, or in the log: the next one must find it too.
        const acked = lines.filter((line) => line.startsWith('acked')).map((line) => Number(line.slice(6)));
        seen.acknowledgements += acked.length;
        seen.acked = durability === 'memory' ? 0 : Math.max(seen.acked, opened[2] as number, ...acked);
      }
      console.log(`${durability}: ${JSON.stringify(seen)}`);
      expect(seen.opened).toBeGreaterThan(ROUNDS / 4);
      expect(seen.acknowledgements).toBeGreaterThan(0);
      if (durability !== 'memory') {
        expect(seen.recovered, 'rounds that found something to recover').toBeGreaterThan(0);
        expect(seen.acked).toBeGreaterThan(0);
      }
    });
  }
});
