import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { Child } from '../support/child.ts';
import { codeFrom, refusal } from '../support/eventually.ts';
import { tempDir } from '../support/temp-dir.ts';

const HOLDER = `
  const db = await open(process.argv[2], { flush: { mode: 'manual' } });
  await db.aset('held by', process.pid);
  console.log('open');
  process.on('SIGTERM', () => db.close().then(() => process.exit(0)));
  setInterval(() => {}, 1000);`;

test('[fault 30] a second open in the same process is refused, and works after close', async () => {
  const file = join(tempDir(), 'a.db');
  const db = await open(file);
  const error = await refusal(() => open(file));
  expect(error.code).toBe('SLUICE_LOCKED');
  expect(error.message).toContain(join(`${db.path}-log`, 'lock.db'));
  expect(error.message).toContain(`process ${process.pid}`);
  await db.aset('still', 'works');
  await db.close();
  const again = await open(file);
  expect(again.get('still')).toBe('works');
  await again.close();
});

test('[fault 30] of two opens at once, one has the database', async () => {
  const file = join(tempDir(), 'a.db');
  const results = await Promise.allSettled([open(file), open(file), open(file)]);
  const opened = results.filter((result) => result.status === 'fulfilled');
  expect(opened).toHaveLength(1);
  for (const result of results) {
    if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'SLUICE_LOCKED' });
    else await result.value.close();
  }
});

test('[fault 30] [fault 31] an open in another process is refused at once, by name; after SIGKILL the database is free', async () => {
  const file = join(tempDir(), 'a.db');
  const holder = new Child(HOLDER, [file]);
  await holder.says('open');
  const start = performance.now();
  const error = await refusal(() => open(file));
  expect(performance.now() - start).toBeLessThan(2_000);
  expect(error.code).toBe('SLUICE_LOCKED');
  expect(error.message).toContain('lock.db');
  expect(error.message).toContain(`process ${holder.process.pid}`);
  holder.process.kill('SIGKILL');
  await holder.end();
  const db = await open(file);
  expect(db.get('held by')).toBe(holder.process.pid);
  await db.close();
});

test('lockTimeoutMs waits for the holder to go, and no longer', async () => {
  const file = join(tempDir(), 'a.db');
  const holder = new Child(HOLDER, [file]);
  await holder.says('open');
  const start = performance.now();
  expect(await codeFrom(() => open(file, { lockTimeoutMs: 200 }))).toBe('SLUICE_LOCKED');
  expect(performance.now() - start).toBeGreaterThanOrEqual(200);
  const waiting = open(file, { lockTimeoutMs: 20_000 });
  await new Promise((resolve) => setTimeout(resolve, 150));
  holder.process.kill('SIGTERM');
  const db = await waiting;
  expect((await holder.end()).code).toBe(0);
  expect(db.get('held by')).toBe(holder.process.pid);
  await db.close();
});

test('a symbolic link is the same database, also one that was there before its file', async () => {
  const folder = tempDir();
  const file = join(folder, 'a.db');
  const link = join(folder, 'link.db');
  symlinkSync(file, link);
  const linked = await open(link, { flush: { mode: 'manual' }, closeTimeoutMs: 0 });
  expect(await codeFrom(() => open(file))).toBe('SLUICE_LOCKED');
  await linked.aset('through', 'the link');
  expect(await linked.close()).toEqual({ pending: 1 });
  const db = await open(file);
  expect(db.path).toBe(linked.path);
  expect(db.get('through')).toBe('the link');
  expect(await codeFrom(() => open(link))).toBe('SLUICE_LOCKED');
  await db.close();
  const otherFolder = join(tempDir(), 'folder');
  symlinkSync(folder, otherFolder);
  const again = await open(join(otherFolder, 'link.db'));
  expect(again.get('through')).toBe('the link');
  await again.close();
});

test('a link that leads nowhere but to itself is refused', async () => {
  const link = join(tempDir(), 'loop.db');
  symlinkSync(link, link);
  expect(await codeFrom(() => open(link))).toBe('SLUICE_INVALID_OPTION');
});

test('a folder that is not there is refused', async () => {
  expect(await codeFrom(() => open(join(tempDir(), 'no', 'such', 'a.db')))).toBe('SLUICE_INVALID_OPTION');
  expect(await codeFrom(() => open(''))).toBe('SLUICE_INVALID_OPTION');
  expect(await codeFrom(() => open(7 as never))).toBe('SLUICE_INVALID_OPTION');
});
