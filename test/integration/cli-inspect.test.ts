import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  cpSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { inspect, open, verify } from 'sluicedb';
import { describe, expect, test } from 'vitest';
import { Child, lockFromOutside } from '../support/child.ts';
import { sluice } from '../support/cli.ts';
import { codeFrom, eventually } from '../support/eventually.ts';
import { fingerprint } from '../support/fingerprint.ts';
import {
  change,
  closed,
  expectForetold,
  inspected,
  killed,
  recovered,
  SEGMENT,
  segment,
  segmentsOf,
  VICTIM,
  verified,
  WRITES,
  withDeadLetters,
} from '../support/left-behind.ts';
import { tempDir } from '../support/temp-dir.ts';

describe('a database that was closed', () => {
  test('with a file beside it that cannot be looked at is no database without one', async () => {
    const file = await closed((db) => db.set('a', 1));
    symlinkSync(`${file}-wal`, `${file}-wal`);
    await expect(inspect(file)).rejects.toMatchObject({
      code: 'SLUICE_INVALID_OPTION',
      message: expect.stringContaining('-wal cannot be looked at') as string,
    });
  });

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
    for (let round = 0; round < 4; round++) {
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

  test('a verification whose program is killed ends with it, and changes nothing', async () => {
    const file = await killed({ writes: 5, flushed: 5 });
    // It takes some time to read.
    change(
      file,
      `CREATE TABLE large (t TEXT);
       INSERT INTO large WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
         SELECT printf('%060d', i * 7919 % 1000003) FROM n;
       CREATE INDEX large_t ON large (t);`,
    );
    const again = new Child(VICTIM, [file, '2', '2']);
    await again.says('written');
    again.process.kill('SIGKILL');
    await again.end();
    const before = fingerprint(dirname(file));
    const verifying = new Child(
      `import child_process from 'node:child_process';
       import { syncBuiltinESMExports } from 'node:module';
       import { verify } from ${JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)};
       const { fork } = child_process;
       child_process.fork = (...args) => {
         const child = fork(...args);
         console.log('process ' + child.pid + ' reads');
         return child;
       };
       syncBuiltinESMExports();
       await verify(process.argv[2]);`,
      [file],
    );
    await verifying.says('reads');
    const pid = Number(/process (\d+) reads/.exec(verifying.output)?.[1]);
    await eventually(() => hasOpen(pid, `${file}-wal`), 'the file is being read');
    verifying.process.kill('SIGKILL');
    await verifying.end();
    await eventually(() => !isAlive(pid), 'the process that reads it is gone');
    expect(fingerprint(dirname(file))).toEqual(before);
    expect((await recovered(file)).writes).toBe(0);
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Whether a process has a file open, where the system tells; elsewhere that it is there must do. */
function hasOpen(pid: number, path: string): boolean {
  if (process.platform !== 'linux') return isAlive(pid);
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).some((name) => {
    try {
      return readlinkSync(join(folder, name)) === path;
    } catch {
      // Closed meanwhile.
      return false;
    }
  });
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
    const verdict = await sluice(['verify', file]);
    expect([verdict.code, verdict.stderr]).toEqual([0, '']);
    expect(verdict.stdout).toContain(`${file}: sound`);
    const { code, stdout } = await sluice(['inspect', '--json', file]);
    expect([code, JSON.parse(stdout)]).toEqual([0, await inspected(file)]);
  });
});

function fieldsOf(value: unknown): string[] {
  if (Array.isArray(value)) return value.flatMap(fieldsOf);
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, inner]) => [name, ...fieldsOf(inner)]);
}
