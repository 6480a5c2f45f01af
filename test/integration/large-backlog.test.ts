import { statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Child } from '../support/child.ts';
import { segmentsOf } from '../support/left-behind.ts';
import { tempDir } from '../support/temp-dir.ts';

const MIB = 1 << 20;
const WRITES = 800;
const SEGMENT = 8 * MIB;
const STAGING = 16 * MIB;

/** Values of 256 KiB that differ, so that nothing can be coalesced. */
const WRITER = `
  const db = await open(process.argv[2], {
    durability: 'os', flush: { mode: 'manual' }, staging: { maxBytes: ${2_000 * MIB} }, log: { segmentBytes: ${SEGMENT} },
  });
  for (let i = 0; i < ${WRITES}; i++) await db.aset('k' + i, String(i % 10).repeat(262_144));
  console.log('written');
  setInterval(() => {}, 1000);`;

const READER = `
  const other = await open(process.argv[3], JSON.parse(process.argv[4]));
  for (let i = 0; i < 300; i++) await other.aset('k' + i, String(i % 10).repeat(262_144));
  await other.close();
  const before = process.resourceUsage().maxRSS;
  const db = await open(process.argv[2], JSON.parse(process.argv[4]));
  const { recovered, pending, stagedBytes } = db.stats();
  // Taken while the rest of what was found is still going down.
  await db.aset('meanwhile', 1);
  await db.aflush();
  const grown = (process.resourceUsage().maxRSS - before) * 1024;
  let right = 0;
  for (let i = 0; i < ${WRITES}; i++) if ((await db.aget('k' + i)) === String(i % 10).repeat(262_144)) right++;
  console.log('report ' + JSON.stringify({ recovered, pending, stagedBytes, grown, right, meanwhile: db.get('meanwhile') }));
  await db.close();`;

test('[fault 28] a backlog many times larger than staging: open takes little memory, and has it all', {
  timeout: 120_000,
}, async () => {
  const [file, other] = [join(tempDir(), 'a.db'), join(tempDir(), 'b.db')];
  const writer = new Child(WRITER, [file]);
  await writer.says('written', 50_000);
  writer.process.kill('SIGKILL');
  await writer.end();
  const bytes = segmentsOf(file).reduce((total, name) => total + statSync(join(`${file}-log`, name)).size, 0);
  expect(bytes).toBeGreaterThan(200 * MIB);
  const options = JSON.stringify({ staging: { maxBytes: STAGING }, log: { segmentBytes: SEGMENT } });
  const { output, errors } = await new Child(READER, [file, other, options], {
    env: { NODE_OPTIONS: '--max-old-space-size=64' },
  }).end(60_000);
  expect(errors).toBe('');
  const report = JSON.parse(/report (.*)/.exec(output)?.[1] ?? '{}') as Record<string, number>;
  expect(report).toMatchObject({ recovered: WRITES, right: WRITES, meanwhile: 1 });
  expect(report['stagedBytes']).toBeLessThanOrEqual(STAGING);
  expect(report['grown']).toBeLessThan(bytes / 2);
});
