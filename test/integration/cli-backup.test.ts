import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { open, verify } from 'sluicedb';
import { expect, onTestFinished, test } from 'vitest';
import { contentOf, simple } from '../support/backups.ts';
import { sluice } from '../support/cli.ts';
import { killed, segmentsOf, WRITES, withDeadLetters } from '../support/left-behind.ts';
import { tempDir } from '../support/temp-dir.ts';

test('a backup has what the log holds, and is not written twice over', async () => {
  const file = await killed({ flushed: 5 });
  const copy = join(tempDir(), 'copy.db');
  const { code, stdout, stderr } = await sluice(['backup', file, copy]);
  expect([code, stderr]).toEqual([0, '']);
  expect(stdout).toBe(`${copy}: ${stdout.split(': ')[1]}`);
  expect(stdout).toContain(`everything up to write ${WRITES}`);
  expect(await verify(copy)).toMatchObject({ ok: true });
  expect(await contentOf(copy)).toEqual(await contentOf(file));
  const again = await sluice(['backup', file, copy]);
  expect([again.code, again.stdout, again.stderr]).toEqual([1, '', expect.stringContaining('SLUICE_CONFLICT')]);
  const { code: replaced, stdout: json } = await sluice(['backup', '--overwrite', '--json', file, copy]);
  expect([replaced, JSON.parse(json)]).toEqual([
    0,
    { path: copy, bytes: expect.any(Number), appliedSeq: WRITES, durationMs: expect.any(Number) },
  ]);
});

test('a file that is not there, or open, is not backed up', async () => {
  const copy = join(tempDir(), 'copy.db');
  const nowhere = join(tempDir(), 'nowhere.db');
  const missing = await sluice(['backup', nowhere, copy]);
  expect([missing.code, missing.stderr]).toEqual([1, expect.stringContaining('SLUICE_NOT_FOUND')]);
  expect(existsSync(nowhere)).toBe(false);
  const db = await open(join(tempDir(), 'a.db'));
  onTestFinished(async () => void (await db.close()));
  for (const args of [
    ['backup', db.path, copy],
    ['restore', db.path, await simple()],
  ]) {
    const { code, stderr } = await sluice(args);
    expect([code, stderr]).toEqual([1, expect.stringContaining('SLUICE_LOCKED')]);
  }
  expect(readdirSync(dirname(copy))).toEqual([]);
});

test('dead letters come along, or are a reason for none', async () => {
  const file = await withDeadLetters();
  const copy = join(tempDir(), 'copy.db');
  const refused = await sluice(['backup', '--refuse-dead-letters', file, copy]);
  expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('5 dead letters')]);
  expect((await sluice(['backup', file, copy])).code).toBe(0);
  expect((await verify(copy)).checked.deadLetters).toBe(5);
});

test('an encrypted database is backed up with its key from the environment, and restored without', async () => {
  const key = Buffer.alloc(32, 7).toString('base64');
  const db = await open(join(tempDir(), 'a.db'), { encryption: { key } });
  db.set('a', 1);
  await db.close();
  const copy = join(tempDir(), 'copy.db');
  expect((await sluice(['backup', db.path, copy])).stderr).toContain('SLUICE_DECRYPT');
  expect((await sluice(['backup', db.path, copy], { env: { SLUICE_ENCRYPTION_KEY: key } })).code).toBe(0);
  const file = join(tempDir(), 'b.db');
  expect((await sluice(['restore', file, copy])).code).toBe(0);
  expect(await contentOf(file, { encryption: { key } })).toEqual({ a: 1 });
});

test('a restore replaces a database, and its log with it', async () => {
  const file = await killed({ flushed: 5 });
  const segments = segmentsOf(file);
  const source = await simple();
  const { code, stdout, stderr } = await sluice(['restore', file, source]);
  expect([code, stderr, stdout]).toEqual([
    0,
    '',
    expect.stringMatching(/^\S+a\.db: restored from \S+backup\.db, \d+ bytes.*, epoch 2\n$/),
  ]);
  expect(await contentOf(file)).toEqual({ a: 'restored', b: 'restored' });
  expect(readdirSync(`${file}-log`).filter((name) => name.includes('set-aside'))).toHaveLength(segments.length);
  const { stdout: json } = await sluice(['restore', '--json', file, source]);
  expect(JSON.parse(json)).toMatchObject({ path: file, from: source, epoch: 3 });
});

test('a restore that is refused changes nothing', async () => {
  const file = await simple();
  const before = await contentOf(file);
  const wrong = join(tempDir(), 'wrong.db');
  writeFileSync(wrong, 'no database\n'.repeat(1_000));
  const { code, stdout, stderr } = await sluice(['restore', file, wrong]);
  expect([code, stdout, stderr]).toEqual([1, '', expect.stringContaining('is no SQLite database')]);
  expect(await contentOf(file)).toEqual(before);
});
