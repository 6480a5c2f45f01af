import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
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
import { describe, expect, test } from 'vitest';
import { stampFrame, writeU64 } from '../../dist/base/frame/index.js';
import { saltOf } from '../../dist/engine/log/segment.js';
import { Child, lockFromOutside } from '../support/child.ts';
import { sluice } from '../support/cli.ts';
import { codeFrom, eventually, refusal } from '../support/eventually.ts';
import { fingerprint } from '../support/fingerprint.ts';
import { tempDir } from '../support/temp-dir.ts';

const WRITES = 45;
const SEGMENT = 64 * 1024;

/** Writes so many values, each in a frame of its own and about twelve in a segment, flushes some, and is killed. */
const VICTIM = `
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
async function killed({ writes = WRITES, flushed = 0 } = {}): Promise<string> {
  const file = join(tempDir(), 'a.db');
  const child = new Child(VICTIM, [file, String(writes), String(flushed)]);
  await child.says('written');
  child.process.kill('SIGKILL');
  await child.end();
  return file;
}

async function closed(fill: (db: Awaited<ReturnType<typeof open>>) => unknown = () => undefined): Promise<string> {
  const file = join(tempDir(), 'a.db');
  const db = await open(file);
  db.on('dead-letter', () => undefined);
  await fill(db);
  await db.close();
  return file;
}

async function withDeadLetters(): Promise<string> {
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
async function inspected(file: string): Promise<InspectReport> {
  const before = fingerprint(dirname(file));
  const report = await inspect(file);
  expect(fingerprint(dirname(file))).toEqual(before);
  return report;
}

/** `sluice verify --json`, which must leave everything as it was. */
async function verified(file: string): Promise<VerifyReport> {
  const before = fingerprint(dirname(file));
  const { code, stdout, stderr } = await sluice(['verify', '--json', file]);
  expect(stderr).toBe('');
  expect(fingerprint(dirname(file))).toEqual(before);
  const report = JSON.parse(stdout) as VerifyReport;
  expect(report.ok).toBe(report.findings.length === 0);
  expect(code).toBe(report.ok ? 0 : 1);
  return report;
}

const kindsOf = (findings: readonly Finding[]) => findings.map(({ kind, subject }) => `${kind} ${subject}`);

const segmentsOf = (file: string) => readdirSync(`${file}-log`).filter((name) => /^\d+\.log$/.test(name));
const segment = (file: string, index: number) => join(`${file}-log`, segmentsOf(file).at(index) as string);

/** What `open` reports of its recovery. */
async function recovered(file: string, options: OpenOptions = {}): Promise<RecoveryReport> {
  const db = await open(file, options);
  const report = await new Promise<RecoveryReport>((resolve) => db.once('recovered', resolve));
  await db.close();
  return report;
}

/** Holds what was foretold against what `open` then does: `keep-prefix` where it was to refuse. */
async function expectForetold(file: string, { recovery, log }: InspectReport): Promise<RecoveryReport> {
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

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] as number) ^ 1;
  writeFileSync(path, bytes);
}

/** Changes a database that nobody has open behind Sluice's back. */
function change(file: string, sql: string): void {
  const db = new Sqlite(file);
  db.exec(sql);
  db.close();
}

describe('a database that was closed', () => {
  test('is inspected and verified without a trace', async () => {
    const file = await closed((db) => db.set('a', 1));
    const report = await inspected(file);
    expect(report).toMatchObject({
      path: file,
      database: { bytes: statSync(file).size, walBytes: null, pageSize: 4096 },
      state: { epoch: 1, watermark: 1 },
      deadLetters: { count: 0, oldest: null },
      process: { open: false, owner: { pid: process.pid } },
      log: { segments: [], bytes: 0, otherFiles: [] },
      recovery: { outcome: 'nothing', writes: 0, refusal: null, keepPrefix: null },
    });
    expect(await verified(file)).toMatchObject({ ok: true, open: false, findings: [], notes: [] });
    await expectForetold(file, report);
  });

  test('without its log folder is what it is, and the folder is not made', async () => {
    const file = await closed((db) => db.set('a', 1));
    rmSync(`${file}-log`, { recursive: true });
    expect(await inspected(file)).toMatchObject({ process: { open: false, owner: null }, log: { segments: [] } });
    expect(await verified(file)).toMatchObject({ ok: true });
  });

  test('is found through a link', async () => {
    const file = await closed((db) => db.set('a', 1));
    const link = join(tempDir(), 'link.db');
    symlinkSync(file, link);
    expect(await inspect(link)).toMatchObject({ path: file, state: { watermark: 1 } });
  });

  test('in a folder that cannot be written to is read from a copy', async () => {
    const folder = tempDir();
    const file = join(folder, 'a.db');
    cpSync(await closed((db) => db.set('a', 1)), file);
    for (const path of [file, folder]) chmodSync(path, path === file ? 0o444 : 0o555);
    const before = fingerprint(folder);
    const main = join(import.meta.dirname, '..', '..', 'dist', 'cli', 'main.js');
    // Root may write wherever it likes.
    const user = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};
    const text = execFileSync(process.execPath, [main, 'inspect', '--json', file], { ...user, encoding: 'utf8' });
    expect(JSON.parse(text)).toMatchObject({ state: { watermark: 1 } });
    expect(fingerprint(folder)).toEqual(before);
    chmodSync(folder, 0o755);
  });
});

describe('a database whose process was killed', () => {
  test('is read with its WAL, which stays as it is; the backlog is foretold', async () => {
    const file = await killed({ flushed: 15 });
    expect(statSync(`${file}-wal`).size).toBeGreaterThan(5_000 * 15);
    // The database file alone does not know of the flush yet.
    const alone = join(tempDir(), 'alone.db');
    copyFileSync(file, alone);
    expect((await inspect(alone)).state.watermark).toBe(0);
    const report = await inspected(file);
    expect(report).toMatchObject({
      database: { walBytes: statSync(`${file}-wal`).size },
      state: { watermark: 15 },
      process: { open: false },
      recovery: { outcome: 'recover', writes: WRITES - 15, cutBytes: 0, setAside: [], removed: [] },
    });
    const { segments } = report.log;
    expect(segments.length).toBeGreaterThanOrEqual(3);
    expect(segments.map(({ name }) => name)).toEqual(segmentsOf(file));
    expect(segments.map(({ bytes }) => bytes)).toEqual(segments.map(({ validBytes }) => validBytes));
    // Segments that are wholly applied are gone.
    const first = segments[0]?.firstSeq ?? 0;
    expect(first).toBeGreaterThan(1);
    expect(first).toBeLessThanOrEqual(16);
    expect(segments.reduce((total, { writes }) => total + writes, 0)).toBe(WRITES - first + 1);
    expect(segments.at(-1)?.lastSeq).toBe(WRITES);
    const checked = { frames: WRITES - first + 1, segments: segments.length };
    expect(await verified(file)).toMatchObject({ ok: true, checked });
    // Copied without -shm, it is not made either.
    rmSync(`${file}-shm`);
    expect(await inspected(file)).toEqual(report);
    expect((await expectForetold(file, report)).writes).toBe(WRITES - 15);
  });

  test('with a torn tail is no finding, but a note', async () => {
    const file = await killed();
    const last = segment(file, -1);
    const whole = statSync(last).size;
    appendFileSync(last, readFileSync(last).subarray(64, 1_064));
    const report = await inspected(file);
    expect(report.recovery).toMatchObject({ outcome: 'recover', writes: WRITES, cutBytes: 1_000 });
    expect(report.log.segments.at(-1)).toMatchObject({ validBytes: whole, tornBytes: 1_000, damage: null });
    const { ok, notes } = await verified(file);
    expect([ok, notes]).toEqual([true, [expect.stringContaining('1000 of')]]);
    await expectForetold(file, report);
  });

  test('in the middle of making a segment is no finding, but a note', async () => {
    const file = await killed();
    const name = `${String(segmentsOf(file).length + 1).padStart(10, '0')}.log`;
    writeFileSync(join(`${file}-log`, name), Buffer.alloc(20));
    const report = await inspected(file);
    expect(report.recovery).toMatchObject({ outcome: 'recover', removed: [name] });
    expect(await verified(file)).toMatchObject({ ok: true, notes: [expect.stringContaining(name)] });
    await expectForetold(file, report);
  });

  test('with a dead letter above the watermark is recovered from that', async () => {
    const file = await killed({ writes: 10, flushed: 0 });
    const other = await withDeadLetters();
    change(
      file,
      `ATTACH '${other}' AS other;
       INSERT INTO main._sluice_dead_letters SELECT * FROM other._sluice_dead_letters WHERE seq = 2`,
    );
    const report = await inspected(file);
    expect(report.recovery?.writes).toBe(8);
    await expectForetold(file, report);
  });
});

describe('damage', () => {
  test('a bit flipped where it had been synced is found, and open refuses as foretold', async () => {
    const file = await killed({ flushed: 5 });
    flip(segment(file, 1), 9_000);
    const report = await inspected(file);
    expect(report.recovery).toMatchObject({ outcome: 'refuse', writes: 0, refusal: { code: 'SLUICE_LOG_CORRUPT' } });
    expect(report.recovery?.refusal?.message).toContain("recovery: 'keep-prefix'");
    expect(report.log.segments.map(({ damage }) => damage !== null)).toEqual(segmentsOf(file).map((_, i) => i === 1));
    const { findings } = await verified(file);
    expect(kindsOf(findings)).toEqual([`frame ${segmentsOf(file)[1]}`]);
    expect((await sluice(['verify', file])).stdout).toContain('1 finding');
    expect((await sluice(['inspect', file])).stdout).toContain('Open would refuse (SLUICE_LOG_CORRUPT)');
    const { setAside } = await expectForetold(file, report);
    expect(setAside.length).toBeGreaterThanOrEqual(2);
    expect((await inspected(file)).log.otherFiles.map(({ kind }) => kind)).toEqual(setAside.map(() => 'corrupt'));
    expect(await verified(file)).toMatchObject({ ok: true });
  });

  test('damage in the last segment, before what had been synced', async () => {
    const file = await killed();
    flip(segment(file, -1), 3_000);
    const report = await inspected(file);
    expect(kindsOf((await verified(file)).findings)).toEqual([`frame ${segmentsOf(file).at(-1)}`]);
    await expectForetold(file, report);
  });

  test('damage in what is applied is a finding, though recovery does not mind', async () => {
    const file = await killed();
    flip(segment(file, 0), 9_000);
    change(file, 'UPDATE _sluice_state SET applied_seq = 30');
    const report = await inspected(file);
    expect(report.recovery).toMatchObject({ outcome: 'recover', writes: WRITES - 30 });
    const { findings } = await verified(file);
    expect(kindsOf(findings)).toEqual([`frame ${segmentsOf(file)[0]}`]);
    expect(findings[0]?.message).toContain('no recovery needs it');
    expect((await recovered(file)).writes).toBe(WRITES - 30);
  });

  test('a segment in the middle that is cut short', async () => {
    const file = await killed();
    truncateSync(segment(file, 1), 20_000);
    const report = await inspected(file);
    expect(kindsOf((await verified(file)).findings)).toEqual([`frame ${segmentsOf(file)[1]}`]);
    expect(report.recovery?.outcome).toBe('refuse');
    await expectForetold(file, report);
  });

  test('a damaged header', async () => {
    const file = await killed();
    flip(segment(file, 1), 10);
    const report = await inspected(file);
    expect(kindsOf((await verified(file)).findings)).toEqual([`header ${segmentsOf(file)[1]}`]);
    await expectForetold(file, report);
  });

  test('a segment that is gone', async () => {
    const file = await killed();
    rmSync(segment(file, 1));
    const report = await inspected(file);
    const { findings } = await verified(file);
    expect(kindsOf(findings)).toEqual([`gap ${segmentsOf(file)[1]}`]);
    const [first, second] = report.log.segments;
    expect(findings[0]?.message).toContain(`writes ${(first?.lastSeq ?? 0) + 1} to ${(second?.firstSeq ?? 0) - 1}`);
    await expectForetold(file, report);
  });

  test('a database copied back from before its log', async () => {
    const file = join(tempDir(), 'a.db');
    const backup = join(tempDir(), 'backup.db');
    await (await open(file)).close();
    copyFileSync(file, backup);
    const db = await open(file);
    for (let i = 0; i < 7; i++) db.set(`k${i}`, i);
    await db.close();
    const child = new Child(VICTIM, [file, '3', '0']);
    await child.says('written');
    child.process.kill('SIGKILL');
    await child.end();
    for (const suffix of ['', '-wal', '-shm']) rmSync(file + suffix, { force: true });
    copyFileSync(backup, file);
    const report = await inspected(file);
    expect(report.state.watermark).toBe(0);
    const { findings } = await verified(file);
    expect(kindsOf(findings)).toEqual([`gap ${segmentsOf(file)[0]}`]);
    expect(findings[0]?.message).toContain('writes 1 to 7');
    await expectForetold(file, report);
  });

  test('a frame out of order', async () => {
    const file = await killed({ writes: 3 });
    const path = segment(file, -1);
    const bytes = readFileSync(path);
    const [, second] = framesOf(bytes);
    const again = Buffer.from(bytes.subarray(second?.start, second?.end));
    writeU64(again, 16, 9);
    stampFrame(again, 0, saltOf(bytes));
    appendFileSync(path, again);
    const report = await inspected(file);
    expect(kindsOf((await verified(file)).findings)).toEqual([`sequence ${segmentsOf(file)[0]}`]);
    await expectForetold(file, report);
  });

  test('a segment of a format that is not known, and one that cannot be read', async () => {
    const file = await killed();
    const bytes = readFileSync(segment(file, 1));
    bytes.writeUInt32LE(2, 4);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, 60)), 60);
    writeFileSync(segment(file, 1), bytes);
    expect(kindsOf((await verified(file)).findings)).toEqual([`format ${segmentsOf(file)[1]}`]);
    const report = await inspected(file);
    expect(report.recovery).toMatchObject({
      outcome: 'refuse',
      refusal: { code: 'SLUICE_UNSUPPORTED' },
      keepPrefix: null,
    });
    expect((await refusal(() => open(file))).message).toBe(report.recovery?.refusal?.message);
    const gone = segment(file, 1);
    rmSync(gone);
    mkdirSync(gone);
    expect(kindsOf((await verified(file)).findings)).toEqual([`unreadable ${segmentsOf(file)[1]}`]);
    expect((await inspected(file)).recovery).toMatchObject({ outcome: 'refuse', refusal: { code: 'SLUICE_LOG_IO' } });
    expect(await codeFrom(() => open(file))).toBe('SLUICE_LOG_IO');
  });

  test('a scribbled page of the database', async () => {
    const file = await closed((db) => {
      for (let i = 0; i < 500; i++) db.set(`k${i}`, 'x'.repeat(100));
    });
    const middle = Math.floor(statSync(file).size / 4096 / 2) * 4096;
    const descriptor = openSync(file, 'r+');
    writeSync(descriptor, Buffer.alloc(200, 0xee), 0, 200, middle);
    const { findings } = await verified(file);
    expect(findings.length).toBeGreaterThan(0);
    expect(new Set(kindsOf(findings))).toEqual(new Set(['integrity database']));
    expect((await inspected(file)).recovery?.outcome).toBe('nothing');
    // Now a page that Sluice itself needs.
    writeSync(descriptor, Buffer.alloc(1_000, 0xee), 0, 1_000, 100);
    expect(new Set(kindsOf((await verified(file)).findings))).toEqual(new Set(['integrity database']));
    expect(await codeFrom(() => inspect(file))).toBe('SLUICE_STORE');
  });
});

describe('what belongs to another database', () => {
  test('is told, set aside as foretold, and no finding', async () => {
    const [file, other] = [await killed(), await killed({ writes: 3 })];
    const name = '0000000099.log';
    copyFileSync(segment(other, 0), join(`${file}-log`, name));
    const report = await inspected(file);
    expect(report.log.segments.at(-1)).toMatchObject({ name, own: false, damage: null });
    expect(report.recovery).toMatchObject({ outcome: 'recover', writes: WRITES, setAside: [name] });
    expect(await verified(file)).toMatchObject({ ok: true, notes: [expect.stringContaining(name)] });
    await expectForetold(file, report);
    const [left] = (await inspected(file)).log.otherFiles;
    expect(left).toMatchObject({ kind: 'set-aside', name: expect.stringContaining(name) });
    writeFileSync(join(`${file}-log`, 'notes.txt'), 'mine');
    expect((await inspected(file)).log.otherFiles.map(({ kind }) => kind)).toEqual(['set-aside', 'other']);
  });
});

describe('dead letters', () => {
  test('are counted, and sound', async () => {
    const file = await withDeadLetters();
    const { deadLetters } = await inspected(file);
    expect(deadLetters).toMatchObject({ count: 5, oldest: { id: 1, seq: 1 } });
    expect(Date.now() - (deadLetters.oldest?.firstFailedAt ?? 0)).toBeLessThan(60_000);
    expect(await verified(file)).toMatchObject({ ok: true, checked: { deadLetters: 5 } });
  });

  test('whose write does not decode, or whose columns say something else, are found one by one', async () => {
    const file = await withDeadLetters();
    const changes: [change: string, message: string][] = [
      ['write = substr(write, 1, length(write) - 1)', 'does not decode'],
      ["write = 'text'", 'not stored as bytes'],
      ["write = x'00'", 'does not decode'],
      ['seq = seq + 100', 'its seq is'],
      ["operation = 'clear'", 'its operation is'],
      ["table_name = 'elsewhere'", 'its table_name is'],
      ["key = 'another'", 'its key is'],
    ];
    for (const [what, message] of changes) {
      for (const id of [1, 3]) {
        const copy = join(tempDir(), 'a.db');
        copyFileSync(file, copy);
        change(copy, `UPDATE _sluice_dead_letters SET ${what} WHERE id = ${id}`);
        const { findings, ok } = await verify(copy);
        expect([what, ok, kindsOf(findings)]).toEqual([what, false, [`dead-letter ${id}`]]);
        expect(findings[0]?.message).toContain(message);
      }
    }
  });
});

test('a state row that cannot be is found', async () => {
  const file = await closed((db) => db.set('a', 1));
  const changes: [change: string, finding: string, log: boolean][] = [
    ["UPDATE _sluice_state SET database_id = 'mine'", 'database_id', false],
    ['UPDATE _sluice_state SET epoch = 0', 'epoch', false],
    ['UPDATE _sluice_state SET applied_seq = -1', 'applied_seq', false],
    ["UPDATE _sluice_state SET format = 'x'", 'format', false],
    ["UPDATE _sluice_state SET owner = ''", 'owner', true],
    ['UPDATE _sluice_state SET batch_after = 7', 'batch_after', true],
    ["UPDATE _sluice_state SET batch_result = '{'", 'batch_result', true],
    ['DELETE FROM _sluice_state', '0 rows', false],
    ['DROP TABLE _sluice_dead_letters', '_sluice_dead_letters is missing', true],
  ];
  for (const [what, message, log] of changes) {
    const copy = join(tempDir(), 'a.db');
    copyFileSync(file, copy);
    change(copy, what);
    const { findings, notes } = await verify(copy);
    expect([what, findings[0]?.kind]).toEqual([what, 'state']);
    expect(findings.map((finding) => finding.message).join()).toContain(message);
    expect(notes.length, what).toBe(log ? 0 : 1);
    if (!log) expect(await codeFrom(() => inspect(copy))).toBe('SLUICE_STORE');
  }
});

describe('a database that is in use', () => {
  test('is inspected and verified while it is written, with nothing found', async () => {
    const file = join(tempDir(), 'a.db');
    const child = new Child(
      `const db = await open(process.argv[2], { log: { segmentBytes: ${SEGMENT} } });
       console.log('open');
       let ended = false;
       process.on('SIGTERM', () => { ended = true; });
       for (let i = 0; !ended; i++) {
         for (let j = 0; j < 20; j++) db.set('k' + (i % 7) + j, 'x'.repeat(2_000));
         await db.adurable();
         if (db.needsDrain) await db.adrain();
       }
       await db.close();`,
      [file],
    );
    await child.says('open');
    let segments = 0;
    for (let round = 0; round < 6; round++) {
      const report = await inspect(file);
      expect(report).toMatchObject({ process: { open: true, owner: { pid: child.process.pid } }, recovery: null });
      expect(report.log.segments.filter(({ damage }) => damage !== null)).toEqual([]);
      const { ok, open: isOpen, findings, notes } = await verify(file);
      expect([ok, isOpen, findings]).toEqual([true, true, []]);
      expect(notes.join()).toContain('was not judged');
      segments = Math.max(segments, report.log.segments.length);
    }
    expect(segments).toBeGreaterThan(1);
    expect((await sluice(['inspect', file])).stdout).toContain(`open: process ${child.process.pid}`);
    child.process.kill('SIGTERM');
    expect((await child.end()).code).toBe(0);
    expect(await verified(file)).toMatchObject({ ok: true, open: false });
  });

  test('by this very process keeps its lock and its place', async () => {
    const file = join(tempDir(), 'a.db');
    const db = await open(file, { flush: { mode: 'manual' } });
    await db.aset('a', 1);
    expect(await inspect(file)).toMatchObject({ process: { open: true, owner: { pid: process.pid } } });
    expect(await verify(file)).toMatchObject({ ok: true, open: true });
    const other = new Child('await open(process.argv[2]).catch((error) => console.log(error.code));', [file]);
    expect((await other.end()).output).toBe('SLUICE_LOCKED\n');
    expect(await db.aflush()).toMatchObject({ applied: 1 });
    await db.close();
  });

  test('by a program that is not Sluice, after a crash, is read beside it', async () => {
    const file = await killed({ writes: 5, flushed: 5 });
    const letGo = await lockFromOutside(file);
    expect(await inspect(file)).toMatchObject({ process: { open: false }, state: { watermark: 5 } });
    expect(await verify(file)).toMatchObject({ ok: true });
    await letGo();
  });

  test('a verification whose program is killed leaves nobody locked out', async () => {
    const file = await killed({ writes: 5, flushed: 5 });
    const before = fingerprint(dirname(file));
    // A database that it takes some time to read.
    const large = new Sqlite(file);
    large.exec(`CREATE TABLE large (t TEXT);
      INSERT INTO large WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
        SELECT printf('%060d', i * 7919 % 1000003) FROM n;
      CREATE INDEX large_t ON large (t);`);
    large.close();
    expect(fingerprint(dirname(file))).not.toEqual(before);
    const again = new Child(VICTIM, [file, '2', '2']);
    await again.says('written');
    again.process.kill('SIGKILL');
    await again.end();
    const entry = new URL('../../dist/index.js', import.meta.url).href;
    const verifying = new Child(
      `const { verify } = await import(${JSON.stringify(entry)}); console.log('begins'); await verify(process.argv[2]);`,
      [file],
    );
    await verifying.says('begins');
    await eventually(() => !canLock(file), 'the file is being read');
    verifying.process.kill('SIGKILL');
    await verifying.end();
    await eventually(() => canLock(file), 'the file is free');
    expect((await recovered(file)).writes).toBe(0);
  });
});

/** Whether nobody holds the whole file for himself. Leaves no trace in the WAL. */
function canLock(file: string): boolean {
  const db = new Sqlite(file, { readonly: true, timeout: 0 });
  try {
    db.prepare('SELECT count(*) FROM _sluice_state').get();
    return true;
  } catch {
    return false;
  } finally {
    db.close();
  }
}

/** Where the frames of a sound segment lie. */
function framesOf(bytes: Buffer): { start: number; end: number }[] {
  const frames: { start: number; end: number }[] = [];
  for (let start = 64; start < bytes.length; ) {
    const end = start + bytes.readUInt32LE(start + 8);
    frames.push({ start, end });
    start = end;
  }
  return frames;
}

describe('the commands', () => {
  test('say what is wrong with a file that is none, is not there, or has never been opened by Sluice', async () => {
    const folder = tempDir();
    const foreign = join(folder, 'foreign.db');
    change(foreign, 'CREATE TABLE t (a); INSERT INTO t VALUES (1)');
    const wal = join(folder, 'wal.db');
    change(wal, 'PRAGMA journal_mode = WAL; CREATE TABLE t (a)');
    const text = join(folder, 'text.txt');
    writeFileSync(text, 'not a database, '.repeat(100));
    const empty = join(folder, 'empty.db');
    writeFileSync(empty, '');
    const expected: [path: string, code: string][] = [
      [foreign, 'SLUICE_NOT_FOUND'],
      [wal, 'SLUICE_NOT_FOUND'],
      [empty, 'SLUICE_NOT_FOUND'],
      [join(folder, 'nothing.db'), 'SLUICE_NOT_FOUND'],
      [text, 'SLUICE_STORE'],
      [folder, 'SLUICE_INVALID_OPTION'],
      [':memory:', 'SLUICE_INVALID_OPTION'],
    ];
    const before = fingerprint(folder);
    for (const [path, code] of expected) {
      expect([path, await codeFrom(() => verify(path))]).toEqual([path, code]);
      const said = await sluice(['inspect', path]);
      expect([path, said.code, said.stdout]).toEqual([path, 1, '']);
      expect(said.stderr).toMatch(new RegExp(`^sluice: .*\\(${code}\\)\\n$`));
    }
    expect(fingerprint(folder)).toEqual(before);
    expect(await codeFrom(() => inspect(7 as never))).toBe('SLUICE_INVALID_OPTION');
  });

  test('document every field of --json in --help', async () => {
    const file = await killed({ writes: 2 });
    for (const [command, report] of [
      ['inspect', await inspected(file)],
      ['verify', await verified(file)],
    ] as const) {
      const { stdout } = await sluice([command, '--help']);
      const words = new Set(stdout.match(/[A-Za-z]+/g));
      for (const field of fieldsOf(report)) expect([field, words.has(field)]).toEqual([field, true]);
    }
  });

  test('speak to people, too', async () => {
    const file = await killed({ flushed: 15 });
    const said = (await sluice(['inspect', file])).stdout;
    for (const text of [
      file,
      'watermark     write 15',
      `replay ${WRITES - 15} writes`,
      '0000000002.log',
      'no process',
    ]) {
      expect(said).toContain(text);
    }
    expect((await sluice(['verify', file])).stdout).toContain(`${file}: sound`);
  });
});

function fieldsOf(value: unknown): string[] {
  if (Array.isArray(value)) return value.flatMap(fieldsOf);
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, inner]) => [name, ...fieldsOf(inner)]);
}
