import { cpSync, readdirSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { Child } from '../support/child.ts';
import { seededRandom } from '../support/seed.ts';
import { tempDir } from '../support/temp-dir.ts';

const KEYS = 3_000;
const CUTS = 20;

/**
 * Two versions of all keys, far more than a flush begins at and than a frame of single writes holds; the older one is applied.
 * Says where in the log the newer one begins.
 */
const PROGRAM = `
  import { statSync } from 'node:fs';
  const [, , file, segment] = process.argv;
  const db = await open(file, { durability: 'os', flush: { mode: 'manual', maxWrites: 10 } });
  const all = (n) => Array.from({ length: ${KEYS} }, (_, i) => ['k' + i, n + ' '.repeat(1_000)]);
  await db.asetMany(all('1'));
  await db.aflush();
  console.log(statSync(segment).size);
  await db.asetMany(all('2'));
  process.kill(process.pid, 'SIGKILL');
`;

/** What a database has of the two versions, once the log is cut off at a place. */
async function versionsIn(folder: string, segment: string, bytes: number): Promise<unknown[]> {
  const copy = join(tempDir(), 'copy');
  cpSync(folder, copy, { recursive: true });
  truncateSync(join(copy, segment), bytes);
  const db = await open(join(copy, 'a.db'));
  try {
    expect(db.size).toBe(KEYS);
    return [...new Set([...db.values()].map(Number))];
  } finally {
    await db.close();
  }
}

test('1.16-8: SIGKILL, and a log that is torn anywhere, leave all of a setMany or none of it', async () => {
  const random = seededRandom(8);
  const folder = tempDir();
  const segment = join('a.db-log', '0000000001.log');
  const { signal, output } = await new Child(PROGRAM, [join(folder, 'a.db'), join(folder, segment)]).end();
  expect(signal).toBe('SIGKILL');
  expect(readdirSync(join(folder, 'a.db-log')).filter((name) => name.endsWith('.log'))).toHaveLength(1);
  const [from, to] = [Number(output), statSync(join(folder, segment)).size];
  expect(to - from).toBeGreaterThan(KEYS * 1_000);
  for (let i = 0; i < CUTS; i++) {
    const bytes = from + Math.floor(random() * (to - from));
    expect(await versionsIn(folder, segment, bytes), `cut at ${bytes}, from ${from} to ${to}`).toEqual([1]);
  }
  expect(await versionsIn(folder, segment, to)).toEqual([2]);
});
