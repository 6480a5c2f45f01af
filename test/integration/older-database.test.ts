import { copyFileSync, cpSync, existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { type Database, open, type RecoveryReport } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { openDatabase } from '../../dist/store/sqlite/writer/writer.js';
import { UNLIMITED } from '../support/applier.ts';
import { refusal } from '../support/eventually.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';
import { wrappedWriter } from '../support/wrapped-writer.ts';

const SMALL = { flush: { mode: 'manual' }, log: { segmentBytes: 4_096 } } as const;
const text = (i: number) => `${i}`.padEnd(1_000, '.');

async function write(db: Database, from: number, to: number): Promise<void> {
  for (let i = from; i < to; i++) await db.aset(`k${i}`, text(i));
}

async function expectUpTo(db: Database, count: number): Promise<void> {
  await db.aflush();
  expect(db.size).toBe(count);
  for (let i = 0; i < count; i++) expect(db.get(`k${i}`)).toBe(text(i));
}

test('[fault 54] a database from an older backup: the segments that are still there are replayed', async () => {
  const file = join(tempDir(), 'a.db');
  const first = await open(file, SMALL);
  await write(first, 0, 10);
  await first.close();
  copyFileSync(file, `${file}.backup`);
  const second = await open(file, { ...SMALL, closeTimeoutMs: 0 });
  await write(second, 10, 30);
  expect(await second.close()).toEqual({ pending: 20 });
  cpSync(`${file}-log`, `${file}-log.kept`, { recursive: true });
  const third = await open(file, SMALL);
  await third.close();
  // Both as they were, but for the writes that SQLite has had since.
  copyFileSync(`${file}.backup`, file);
  rmSync(`${file}-log`, { recursive: true });
  cpSync(`${file}-log.kept`, `${file}-log`, { recursive: true });
  const db = await open(file, SMALL);
  expect(db.stats()).toMatchObject({ recovered: 20 });
  await expectUpTo(db, 30);
  await db.close();
});

/** A file with 35 writes, of which 30 are applied and 5 in the log, and beside it a `.backup` of the first 10. */
async function withBackup(): Promise<string> {
  const file = join(tempDir(), 'a.db');
  const first = await open(file, SMALL);
  await write(first, 0, 10);
  await first.close();
  copyFileSync(file, `${file}.backup`);
  const second = await open(file, { ...SMALL, closeTimeoutMs: 0 });
  await write(second, 10, 30);
  await second.aflush();
  await write(second, 30, 35);
  expect(await second.close()).toEqual({ pending: 5 });
  return file;
}

test('[fault 54] a database from an older backup, with a range that is nowhere any more: refused, with the range', async () => {
  const file = await withBackup();
  copyFileSync(file, `${file}.newer`);
  copyFileSync(`${file}.backup`, file);
  const before = readdirSync(`${file}-log`).sort();
  const error = await refusal(() => open(file, SMALL));
  expect(error.code).toBe('SLUICE_LOG_CORRUPT');
  expect(error.message).toMatch(/write 11 is missing.* up to write 10/);
  expect(readdirSync(`${file}-log`).sort()).toEqual(before);
  // The right file put back, everything is there.
  copyFileSync(`${file}.newer`, file);
  const db = await open(file, SMALL);
  await expectUpTo(db, 35);
  await db.close();
});

test('[fault 54] the same with recovery: keep-prefix goes on from the backup, and keeps what cannot be joined to it', async () => {
  const file = await withBackup();
  copyFileSync(`${file}.backup`, file);
  const db = await open(file, { ...SMALL, recovery: 'keep-prefix' });
  const report = await new Promise<RecoveryReport>((resolve) => db.once('recovered', resolve));
  expect(report.damage).toMatch(/write 11 is missing/);
  expect(report.setAside.length).toBeGreaterThan(0);
  expect(readdirSync(`${file}-log`).filter((name) => name.includes('.corrupt-')).length).toBeGreaterThan(0);
  await write(db, 10, 12);
  await expectUpTo(db, 12);
  await db.close();
});

test('[fault 55] the log folder is lost: new writes are numbered above the watermark, and none is taken for applied', async () => {
  const file = join(tempDir(), 'a.db');
  const first = await open(file, SMALL);
  await write(first, 0, 20);
  await first.close();
  rmSync(`${file}-log`, { recursive: true });
  const second = await open(file, { ...SMALL, closeTimeoutMs: 0 });
  expect(second.stats()).toMatchObject({ appliedSeq: 20, lastSeq: 20, recovered: 0 });
  await write(second, 20, 25);
  expect(second.stats()).toMatchObject({ lastSeq: 25, pending: 5 });
  expect(await second.close()).toEqual({ pending: 5 });
  const db = await open(file, SMALL);
  expect(db.stats()).toMatchObject({ recovered: 5 });
  await expectUpTo(db, 25);
  await db.close();
});

test('[fault 55] a log that ends below the watermark (an older copy of its folder): skipped whole, and gone on above', async () => {
  const file = join(tempDir(), 'a.db');
  const first = await open(file, { ...SMALL, closeTimeoutMs: 0 });
  await write(first, 0, 10);
  await first.close();
  cpSync(`${file}-log`, `${file}-log.kept`, { recursive: true });
  const second = await open(file, SMALL);
  await second.aset('k3', 'newer');
  await write(second, 10, 20);
  await second.close();
  rmSync(`${file}-log`, { recursive: true });
  cpSync(`${file}-log.kept`, `${file}-log`, { recursive: true });
  const third = await open(file, { ...SMALL, closeTimeoutMs: 0 });
  expect(third.stats()).toMatchObject({ recovered: 0, lastSeq: 21 });
  await third.aset('k4', 'newer');
  expect(await third.close()).toEqual({ pending: 1 });
  const db = await open(file, SMALL);
  await db.aflush();
  expect([db.size, db.get('k3'), db.get('k4')]).toEqual([20, 'newer', 'newer']);
  await db.close();
});

const START = {
  owner: 'me',
  takeOver: true,
  check: false,
  queueLimits: UNLIMITED.limits,
  breaker: UNLIMITED.breaker,
};

test('[fault 56] no write-ahead log, as on a network file system: refused at open', () => {
  // In memory SQLite has none either.
  expect(() => openDatabase({ ...START, path: ':memory:' })).toThrow(
    expect.objectContaining({ code: 'SLUICE_UNSUPPORTED', message: expect.stringMatching(/journal mode is memory/) }),
  );
});

/** Makes SQLite of the writer thread say something else than it does. */
const LYING: Readonly<Record<string, { readonly program: string; readonly error: object }>> = {
  'a SQLite that is too old': {
    program: lyingVersion('3.51.2'),
    error: { code: 'SLUICE_UNSUPPORTED', message: expect.stringMatching(/3\.51\.2 can lose .* better-sqlite3 12\.8/) },
  },
  'the SQLite that was withdrawn': {
    program: lyingVersion('3.52.0'),
    error: { code: 'SLUICE_UNSUPPORTED', message: expect.stringMatching(/3\.52\.0 can lose/) },
  },
  'a SQLite that does not keep synchronous=FULL': {
    program: `
      const pragma = Sqlite.prototype.pragma;
      Sqlite.prototype.pragma = function (text, ...rest) {
        return pragma.call(this, text === 'synchronous = FULL' ? 'synchronous = NORMAL' : text, ...rest);
      };`,
    error: { code: 'SLUICE_STORE', message: expect.stringMatching(/did not keep synchronous=FULL/) },
  },
};

function lyingVersion(version: string): string {
  return `
    const prepare = Sqlite.prototype.prepare;
    Sqlite.prototype.prepare = function (sql) {
      return prepare.call(this, sql.replace('sqlite_version()', "'${version}'"));
    };`;
}

test.each(Object.entries(LYING))(
  '[fault 56] %s: refused at open, and nothing is left behind',
  async (_, { program, error }) => {
    const file = join(tempDir(), 'a.db');
    await expect(openOn(machine({ spawn: wrappedWriter(program) }), file, {})).rejects.toMatchObject(error);
    // Nobody holds the lock, and the right SQLite opens it.
    const db = await open(file);
    await db.aset('a', 1);
    await db.close();
  },
);

test('[fault 56] a database that another program has put back into a rollback journal is put into WAL mode again', async () => {
  const file = join(tempDir(), 'a.db');
  await (await open(file)).close();
  const other = new Sqlite(file);
  expect(other.pragma('journal_mode = DELETE', { simple: true })).toBe('delete');
  other.close();
  const db = await open(file);
  await db.aset('a', 1);
  await db.aflush();
  expect(existsSync(`${file}-wal`)).toBe(true);
  await db.close();
});
