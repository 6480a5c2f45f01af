import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import Sqlite from 'better-sqlite3';
import {
  type Finding,
  type InspectReport,
  inspect,
  type OpenOptions,
  open,
  type RecoveryReport,
  type VerifyReport,
  verify,
} from 'sluicedb';
import { afterAll, expect } from 'vitest';
import { Child } from './child.ts';
import { refusal } from './eventually.ts';
import { fingerprint } from './fingerprint.ts';
import { tempDir } from './temp-dir.ts';

export const WRITES = 45;
export const SEGMENT = 64 * 1024;

/** Writes so many values, each in a frame of its own and about twelve in a segment, flushes some, and is killed. */
export const VICTIM = `
  const [file, writes, flushed] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
  const db = await open(file, { flush: { mode: 'manual' }, log: { segmentBytes: ${SEGMENT} } });
  for (let i = 1; i <= writes; i++) {
    await db.aset('k' + i, 'x'.repeat(5_000));
    if (i !== flushed) continue;
    // Somebody reads meanwhile, so that the WAL cannot be emptied.
    globalThis.reading = db.entries();
    reading.next();
    await db.aflush();
  }
  console.log('written');
  setInterval(() => {}, 1000);`;

/** A database with a backlog whose process was killed. The first `flushed` writes are applied, and in the WAL. */
export async function killed({ writes = WRITES, flushed = 0 } = {}): Promise<string> {
  const kind = `${writes}-${flushed}`;
  const folder = join(killedOnes, kind);
  if (!existsSync(folder)) await kill(folder, writes, flushed);
  const copy = tempDir();
  cpSync(folder, copy, { recursive: true, preserveTimestamps: true });
  return join(copy, 'a.db');
}

/** One of each kind, made once for all tests of a file. */
const killedOnes = mkdtempSync(join(tmpdir(), 'sluice-test-'));
afterAll(() => rmSync(killedOnes, { recursive: true, force: true }));

async function kill(folder: string, writes: number, flushed: number): Promise<void> {
  mkdirSync(folder);
  const file = join(folder, 'a.db');
  const child = new Child(VICTIM, [file, String(writes), String(flushed)]);
  await child.says('written');
  child.process.kill('SIGKILL');
  await child.end();
}

export async function closed(
  fill: (db: Awaited<ReturnType<typeof open>>) => unknown = () => undefined,
): Promise<string> {
  const file = join(tempDir(), 'a.db');
  const db = await open(file);
  db.on('dead-letter', () => undefined);
  await fill(db);
  await db.close();
  return file;
}

export async function withDeadLetters(): Promise<string> {
  return closed(async (db) => {
    await db.aexecute(`CREATE TABLE guarded (key TEXT PRIMARY KEY, value TEXT CHECK (value <> '"bad"'))`);
    await db.aexecute('CREATE TABLE r (n INTEGER NOT NULL)');
    db.table('guarded').set('a', 'bad');
    db.table('guarded').set('b', 'bad');
    db.table('guarded').setMany({ c: 'fine', d: 'bad' });
    db.rows('r').append({ n: null });
    db.stage('INSERT INTO r VALUES (?)', [null]);
    await db.aflush();
    expect((await db.agetDlq()).map(({ operation }) => operation)).toEqual(['put', 'put', 'group', 'append', 'sql']);
  });
}

/** What `inspect` reports. Must leave everything as it was. */
export async function inspected(file: string): Promise<InspectReport> {
  const before = fingerprint(dirname(file));
  const report = await inspect(file);
  expect(fingerprint(dirname(file))).toEqual(before);
  return report;
}

/** What `verify` reports. Must leave everything as it was. */
export async function verified(file: string): Promise<VerifyReport> {
  const before = fingerprint(dirname(file));
  const report = await verify(file);
  expect(fingerprint(dirname(file))).toEqual(before);
  expect(report.ok).toBe(report.findings.length === 0);
  return report;
}

export const kindsOf = (findings: readonly Finding[]) => findings.map(({ kind, subject }) => `${kind} ${subject}`);

export const segmentsOf = (file: string) => readdirSync(`${file}-log`).filter((name) => /^\d+\.log$/.test(name));
export const segment = (file: string, index: number) => join(`${file}-log`, segmentsOf(file).at(index) as string);

/** What `open` reports of its recovery. */
export async function recovered(file: string, options: OpenOptions = {}): Promise<RecoveryReport> {
  const db = await open(file, options);
  const report = await new Promise<RecoveryReport>((resolve) => db.once('recovered', resolve));
  await db.close();
  return report;
}

/** Holds what was foretold against what `open` then does: `keep-prefix` where it was to refuse. */
export async function expectForetold(file: string, { recovery, log }: InspectReport): Promise<RecoveryReport> {
  if (recovery === null) throw new Error('nothing was foretold');
  if (recovery.outcome === 'refuse') {
    const before = segmentsOf(file);
    const error = await refusal(() => open(file));
    expect({ code: error.code, message: error.message }).toEqual(recovery.refusal);
    expect(segmentsOf(file)).toEqual(before);
    if (recovery.keepPrefix === null) throw new Error('nothing can be kept');
    const report = await recovered(file, { recovery: 'keep-prefix' });
    expect(report).toMatchObject({ writes: recovery.keepPrefix.writes, setAside: recovery.keepPrefix.setAside });
    return report;
  }
  const report = await recovered(file);
  expect(report).toMatchObject({ writes: recovery.writes, tornBytes: recovery.cutBytes, setAside: recovery.setAside });
  expect(report.segments).toBe(log.segments.length - recovery.setAside.length - recovery.removed.length);
  expect(recovery.outcome).toBe(
    report.writes + report.tornBytes + report.setAside.length + recovery.removed.length === 0 ? 'nothing' : 'recover',
  );
  for (const name of recovery.removed) expect(existsSync(join(`${file}-log`, name))).toBe(false);
  return report;
}

export function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] as number) ^ 1;
  writeFileSync(path, bytes);
}

/** Changes a database that nobody has open behind Sluice's back. */
export function change(file: string, sql: string): void {
  const db = new Sqlite(file);
  db.exec(sql);
  db.close();
}

/** The files as they are now, as a process that starts after this one has died would find them. */
export function imageOf(file: string): string {
  const copy = join(tempDir(), 'a.db');
  // First what is deleted last. Nothing that is applied meanwhile is then missing, and twice is not too often.
  mkdirSync(`${copy}-log`);
  for (const name of readdirSync(`${file}-log`))
    if (!name.startsWith('lock.db')) copyIfThere(file, copy, `-log/${name}`);
  for (const suffix of ['-wal', '']) copyIfThere(file, copy, suffix);
  return copy;
}

function copyIfThere(file: string, copy: string, suffix: string): void {
  try {
    cpSync(`${file}${suffix}`, `${copy}${suffix}`, { recursive: true });
  } catch (error) {
    if ((error as { code?: string }).code !== 'ENOENT') throw error;
  }
}
