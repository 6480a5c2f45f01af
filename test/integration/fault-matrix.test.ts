import { join } from 'node:path';
import { open, SluiceError } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { FaultFileSystem, type Operation } from '../support/fault-file-system.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

const OPTIONS = {
  flush: { mode: 'manual' },
  log: { segmentBytes: 4_096, maxBytes: 1_048_576 },
  closeTimeoutMs: 500,
} as const;
const WRITES = 7;
const ANY = /./;

interface Story {
  readonly accepted: string[];
  readonly acknowledged: string[];
  /** Whether `close` said that all is applied. */
  clean: boolean;
}

/** A short life on a disk: several segments, a flush in the middle, a close. Refusals are noted and lived with. */
async function live(disk: FaultFileSystem, file: string): Promise<Story> {
  const story: Story = { accepted: [], acknowledged: [], clean: false };
  const refused = (error: unknown) => expect(error, String(error)).toBeInstanceOf(SluiceError);
  let db: Awaited<ReturnType<typeof openOn>>;
  try {
    db = await openOn(machine({ fileSystem: disk }), file, OPTIONS);
  } catch (error) {
    refused(error);
    return story;
  }
  db.on('failure', () => {});
  for (let i = 0; i < WRITES; i++) {
    const key = `k${String(i).padStart(2, '0')}`;
    const before = db.stats().accepted;
    const done = db.aset(key, 'x'.repeat(1_500));
    if (db.stats().accepted > before) story.accepted.push(key);
    await done.then(() => story.acknowledged.push(key), refused);
    if (i === 3) await db.aflush({ timeoutMs: 5_000 }).catch(refused);
  }
  story.clean = (await db.close()).pending === 0;
  return story;
}

/** What the next open finds on a disk that is well. */
async function keysAfter(file: string): Promise<string[]> {
  const db = await open(file, OPTIONS);
  const keys = [...db.keys()];
  // It is a database like any other: it takes writes, and keeps them.
  await db.aset('later', 1);
  await db.close();
  const again = await open(file, OPTIONS);
  expect([...again.keys()]).toEqual([...keys, 'later']);
  await again.close();
  return keys;
}

async function operationsOf(operation: Operation): Promise<number> {
  const disk = new FaultFileSystem();
  const story = await live(disk, join(tempDir(), 'a.db'));
  expect(story.acknowledged).toHaveLength(WRITES);
  return disk.recorded.filter((one) => one.operation === operation).length;
}

test.each([
  ['write', 'EIO'],
  ['write', 'ENOSPC'],
  ['datasync', 'EIO'],
  ['datasync', 'ENOSPC'],
  ['create', 'EIO'],
  ['create', 'EMFILE'],
  ['close', 'EIO'],
  ['unlink', 'EIO'],
  ['syncDirectory', 'EIO'],
  ['makeDirectory', 'EACCES'],
  ['list', 'EIO'],
] as [Operation, string][])(
  'each %s of a life fails once with %s: nothing acknowledged is lost, and there is no hole',
  async (operation, code) => {
    const count = await operationsOf(operation);
    expect(count).toBeGreaterThan(0);
    let hits = 0;
    for (let n = 0; n < count; n++) {
      const disk = new FaultFileSystem();
      disk.fail(operation, code, { skip: n, times: 1, file: ANY });
      const file = join(tempDir(), 'a.db');
      const { accepted, acknowledged, clean } = await live(disk, file);
      hits += disk.hit(operation);
      const found = await keysAfter(file);
      const where = `${operation} ${n} of ${count}`;
      expect(accepted.slice(0, found.length), where).toEqual(found);
      expect(found, where).toEqual(expect.arrayContaining(acknowledged));
      if (clean) expect(found, where).toEqual(accepted);
      // A single fault is lived with, wherever it comes.
      if (accepted.length > 0) expect([where, accepted.length, clean]).toEqual([where, WRITES, true]);
    }
    expect(hits).toBe(count);
  },
);

test.each(['write', 'datasync', 'create', 'syncDirectory'] as const)(
  'from each %s of a life on, all fail: nothing acknowledged is lost, and there is no hole',
  async (operation) => {
    const count = await operationsOf(operation);
    for (let n = 0; n < count; n++) {
      const disk = new FaultFileSystem();
      disk.fail(operation, 'EIO', { skip: n, file: ANY });
      const file = join(tempDir(), 'a.db');
      const { accepted, acknowledged } = await live(disk, file);
      expect(disk.hit(operation)).toBeGreaterThan(0);
      const found = await keysAfter(file);
      const where = `${operation} from ${n} of ${count} on`;
      expect(accepted.slice(0, found.length), where).toEqual(found);
      expect(found, where).toEqual(expect.arrayContaining(acknowledged));
    }
  },
);
