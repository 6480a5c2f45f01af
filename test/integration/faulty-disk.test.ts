import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Database, open, type State } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { codeFrom, eventually, isPending, refusal } from '../support/eventually.ts';
import { FaultFileSystem, type Operation } from '../support/fault-file-system.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

const MANUAL = { flush: { mode: 'manual' } } as const;
const SEGMENT = /\.log$/;

interface Subject {
  readonly disk: FaultFileSystem;
  readonly file: string;
  readonly db: Database;
  readonly states: State[];
}

async function opened(options: Parameters<typeof open>[1] = MANUAL): Promise<Subject> {
  const disk = new FaultFileSystem();
  const file = join(tempDir(), 'a.db');
  const db = await openOn(machine({ fileSystem: disk }), file, options);
  const states: State[] = [];
  db.on('state', ({ state }) => states.push(state));
  db.on('failure', () => {});
  return { disk, file, db, states };
}

/** What is in a database after the process would have died here: the files as they are, without close. */
async function afterCrash({ file }: Subject): Promise<Record<string, unknown>> {
  const copy = join(tempDir(), 'a.db');
  const { cpSync } = await import('node:fs');
  for (const suffix of ['', '-wal']) cpSync(`${file}${suffix}`, `${copy}${suffix}`);
  cpSync(`${file}-log`, `${copy}-log`, { recursive: true, filter: (name) => !name.includes('lock.db') });
  const db = await open(copy, MANUAL);
  const found = Object.fromEntries(db.entries());
  await db.close();
  return found;
}

test.each(['ENOSPC', 'EDQUOT', 'EFBIG'])(
  '[fault 2] %s on a write: no acknowledgement, state space, and it goes on by itself',
  async (code) => {
    const subject = await opened();
    const { db, disk, states } = subject;
    await db.aset('before', 1);
    disk.fail('write', code, { file: SEGMENT, times: 3 });
    const refused = await refusal(() => db.aset('during', 2));
    expect(refused.code).toBe('SLUICE_LOG_IO');
    expect(db.get('during')).toBe(2);
    expect(db.state).toBe('space');
    await eventually(() => db.state === 'ok', 'there is room again');
    expect(disk.hit('write')).toBe(3);
    await db.aset('after', 3);
    expect(states).toEqual(['space', 'ok']);
    expect(await afterCrash(subject)).toEqual({ before: 1, during: 2, after: 3 });
    expect(await db.close()).toEqual({ pending: 0 });
  },
);

test('[fault 1] a disk that takes a part and is then full leaves no part behind', async () => {
  const subject = await opened();
  const { db, disk } = subject;
  await db.aset('before', 1);
  disk.writeLimit = 20;
  disk.fail('write', 'ENOSPC', { file: SEGMENT, skip: 1, times: 1 });
  expect(await codeFrom(() => db.aset('during', 2))).toBe('SLUICE_LOG_IO');
  expect(disk.count('truncate')).toBe(1);
  await eventually(() => db.state === 'ok', 'there is room again');
  await db.aset('after', 3);
  // One segment is enough: the tail was cut off and written again.
  expect(db.stats().logSegments).toBe(1);
  expect(await afterCrash(subject)).toEqual({ before: 1, during: 2, after: 3 });
  await db.close();
});

test('a tail that cannot be cut off is left behind in a segment of the past', async () => {
  const subject = await opened();
  const { db, disk } = subject;
  await db.aset('before', 1);
  disk.writeLimit = 20;
  disk.fail('write', 'ENOSPC', { file: SEGMENT, skip: 1, times: 1 });
  disk.fail('truncate', 'EIO', { times: 1 });
  expect(await codeFrom(() => db.aset('during', 2))).toBe('SLUICE_LOG_IO');
  await eventually(() => db.state === 'ok', 'there is room again');
  await db.aset('after', 3);
  expect(db.stats().logSegments).toBe(2);
  expect(await afterCrash(subject)).toEqual({ before: 1, during: 2, after: 3 });
  await db.close();
});

test('[fault 1] short writes alone change nothing', async () => {
  const subject = await opened();
  const { db, disk } = subject;
  disk.writeLimit = 7;
  await db.aset('a', 'x'.repeat(1_000));
  expect(disk.count('write')).toBeGreaterThan(100);
  expect(await afterCrash(subject)).toEqual({ a: 'x'.repeat(1_000) });
  await db.close();
});

test.each(['write', 'datasync'] as const)(
  '[fault 3] [fault 4] EIO of %s once: not acknowledged, written again in a new segment',
  async (operation) => {
    const subject = await opened();
    const { db, disk, states } = subject;
    await db.aset('before', 1);
    const [damaged] = readdirSync(`${subject.file}-log`).filter((name) => SEGMENT.test(name));
    disk.fail(operation, 'EIO', { file: SEGMENT, times: 1 });
    expect(await codeFrom(() => db.aset('during', 2))).toBe('SLUICE_LOG_IO');
    const mark = disk.recorded.length;
    await db.aset('after', 3);
    // The file that failed is never written or synced again.
    const later = disk.recorded.slice(mark).filter(({ file, operation }) => file === damaged && operation !== 'close');
    expect(later).toEqual([]);
    expect(states).toEqual(['degraded', 'ok']);
    expect(db.stats()).toMatchObject({ logSegments: 2, syncFailures: operation === 'datasync' ? 1 : 0 });
    expect(await afterCrash(subject)).toEqual({ before: 1, during: 2, after: 3 });
    expect(await db.close()).toEqual({ pending: 0 });
  },
);

test.each([
  ['write', 'EIO'],
  ['datasync', 'EIO'],
  ['create', 'EROFS'],
  ['syncDirectory', 'EIO'],
] as const)(
  '[fault 3] [fault 5] [fault 7] %s failing with %s for ever: failed, everybody is told once, reads are served',
  async (operation, code) => {
    const subject = await opened({ ...MANUAL, log: { segmentBytes: 4_096 } });
    const { db, disk, states } = subject;
    await db.aset('before', 1);
    await db.aflush();
    // A segment that is full makes the next write create one.
    await db.aset('filler', 'x'.repeat(5_000));
    disk.fail(operation, code, operation === 'syncDirectory' ? {} : { file: SEGMENT });
    const waiters = [
      db.aset('during', 2),
      db.aset('during too', 3),
      db.adurable(),
      db.aflush(),
      db.afetchAll('SELECT 1'),
      db.aexecute('SELECT 1'),
    ].map((promise) => codeFrom(() => promise));
    const codes = await Promise.all(waiters);
    expect(codes.slice(0, 3).every((one) => one === 'SLUICE_LOG_IO' || one === 'SLUICE_FAILED')).toBe(true);
    expect(codes.slice(3)).toEqual(['SLUICE_FAILED', 'SLUICE_FAILED', 'SLUICE_FAILED']);
    await eventually(() => db.state === 'failed', 'the database gives up');
    expect(states.at(-1)).toBe('failed');
    expect(disk.hit(operation)).toBe(2);
    expect(await codeFrom(() => db.set('x', 1))).toBe('SLUICE_FAILED');
    expect(await codeFrom(() => db.aset('x', 1))).toBe('SLUICE_FAILED');
    expect(await codeFrom(() => db.delete('before'))).toBe('SLUICE_FAILED');
    expect(db.get('before')).toBe(1);
    expect(db.get('during')).toBe(2);
    expect(await db.aget('before')).toBe(1);
    expect([...db.keys()]).toEqual(['before', 'during', 'during too', 'filler']);
    expect(await db.afetchAll('SELECT key FROM data', [], { stale: true })).toEqual([{ key: 'before' }]);
    const { pending } = await db.close();
    expect(pending).toBe(3);
    disk.heal();
    const again = await open(subject.file, MANUAL);
    expect(again.get('before')).toBe(1);
    expect(again.get('filler')).toBe('x'.repeat(5_000));
    await again.close();
  },
);

test('[fault 7] the folder that cannot be synced once: no acknowledgement on the strength of that segment', async () => {
  const subject = await opened();
  const { db, disk } = subject;
  disk.fail('syncDirectory', 'EIO', { times: 1 });
  expect(await codeFrom(() => db.aset('during', 2))).toBe('SLUICE_LOG_IO');
  await db.aset('after', 3);
  expect(disk.hit('syncDirectory')).toBe(1);
  expect(disk.count('create')).toBe(2);
  expect(await afterCrash(subject)).toEqual({ during: 2, after: 3 });
  await db.close();
});

test.each(['EMFILE', 'ENFILE'])(
  '[fault 8] %s at the making of a segment: waited for, nothing is lost',
  async (code) => {
    const subject = await opened();
    const { db, disk, states } = subject;
    disk.fail('create', code, { times: 4 });
    expect(await codeFrom(() => db.aset('during', 2))).toBe('SLUICE_LOG_IO');
    await eventually(() => db.state === 'ok', 'there are descriptors again');
    await db.aset('after', 3);
    expect(states).toEqual(['degraded', 'ok']);
    expect(disk.hit('create')).toBe(4);
    expect(await afterCrash(subject)).toEqual({ during: 2, after: 3 });
    await db.close();
  },
);

test('a segment that cannot be deleted is deleted with the next one', async () => {
  const { db, disk, file } = await opened();
  disk.fail('unlink', 'EIO', { times: 1 });
  const failures: string[] = [];
  db.on('failure', ({ during }) => failures.push(during));
  await db.aset('a', 1);
  expect(await db.close()).toEqual({ pending: 0 });
  expect(disk.hit('unlink')).toBe(1);
  expect(failures).toEqual(['log']);
  const again = await open(file);
  expect(again.stats().recovered).toBe(0);
  expect(again.get('a')).toBe(1);
  await again.close();
  expect(readdirSync(`${file}-log`).filter((name) => SEGMENT.test(name))).toEqual([]);
});

test('barriers wait while the disk is full, and go on with it', async () => {
  const { db, disk } = await opened();
  disk.fail('write', 'ENOSPC', { file: SEGMENT });
  db.set('a', 1);
  const flushed = db.aflush();
  await eventually(() => disk.hit('write') >= 3, 'some attempts have failed');
  expect(await isPending(flushed)).toBe(true);
  expect(db.stats().applied).toBe(0);
  disk.heal();
  await flushed;
  expect(db.stats()).toMatchObject({ applied: 1, state: 'ok' });
  await db.close();
});

test('[fault 62] close with a disk that stays full returns at its limit and says what is left', async () => {
  const { db, disk, file } = await opened({ ...MANUAL, closeTimeoutMs: 200 });
  await db.aset('a', 1);
  disk.fail('write', 'ENOSPC', { file: SEGMENT });
  db.set('b', 1);
  const durable = codeFrom(() => db.adurable());
  const { pending } = await db.close();
  expect(pending).toBe(2);
  expect(['SLUICE_LOG_IO', 'SLUICE_CLOSED']).toContain(await durable);
  const again = await open(file);
  expect(again.get('a')).toBe(1);
  await again.close();
}, 15_000);

test.each([
  ['read', SEGMENT],
  ['openExisting', SEGMENT],
  ['truncate', SEGMENT],
  ['datasync', SEGMENT],
  ['list', /./],
  ['syncDirectory', /-log$/],
] as [Operation, RegExp][])(
  '[fault 25] %s failing at open refuses it, and the next open has everything',
  async (operation, file) => {
    const path = join(tempDir(), 'a.db');
    const before = await open(path, { ...MANUAL, closeTimeoutMs: 0 });
    await before.aset('a', 1);
    await before.close();
    const [segment] = readdirSync(`${path}-log`).filter((name) => SEGMENT.test(name));
    // A torn tail, so that there is something to cut off.
    writeFileSync(join(`${path}-log`, segment as string), 'torn', { flag: 'a' });
    const disk = new FaultFileSystem();
    disk.fail(operation, 'EIO', { file });
    expect(await codeFrom(() => openOn(machine({ fileSystem: disk }), path, MANUAL))).toBe('SLUICE_LOG_IO');
    expect(disk.hit(operation)).toBe(1);
    expect(disk.count('unlink') + disk.count('rename')).toBe(0);
    const after = await open(path, MANUAL);
    expect(after.stats().recovered).toBe(1);
    expect(after.get('a')).toBe(1);
    await after.close();
  },
);

test('a note that cannot be written is no reason not to open, and no lock stays behind', async () => {
  const path = join(tempDir(), 'a.db');
  const disk = new FaultFileSystem();
  disk.fail('writeNote', 'ENOSPC');
  const db = await openOn(machine({ fileSystem: disk }), path, MANUAL);
  expect(disk.hit('writeNote')).toBe(1);
  await db.aset('a', 1);
  await db.close();
  const again = await open(path);
  expect(again.get('a')).toBe(1);
  await again.close();
});

test('a lock file that is none is a refusal with a code', async () => {
  const path = join(tempDir(), 'a.db');
  await (await open(path)).close();
  writeFileSync(join(`${path}-log`, 'lock.db'), 'no SQLite file, and long enough to be seen as none'.repeat(100));
  expect(await refusal(() => open(path))).toMatchObject({ code: 'SLUICE_STORE', sqliteCode: 'SQLITE_NOTADB' });
});
