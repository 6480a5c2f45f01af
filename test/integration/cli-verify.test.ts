import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { inspect, open, type SegmentFacts, verify } from 'sluicedb';
import { describe, expect, test } from 'vitest';
import { systemClock } from '../../dist/base/clock.js';
import { stampFrame, writeU64 } from '../../dist/base/frame/index.js';
import { nodeFileSystem } from '../../dist/base/node-file-system.js';
import { encodeHeader, saltOf, segmentName } from '../../dist/engine/log/segment.js';
import { acquireLock } from '../../dist/store/sqlite/index.js';
import { Child } from '../support/child.ts';
import { sluice } from '../support/cli.ts';
import { codeFrom, refusal } from '../support/eventually.ts';
import {
  change,
  closed,
  expectForetold,
  flip,
  inspected,
  killed,
  kindsOf,
  recovered,
  segment,
  segmentsOf,
  VICTIM,
  verified,
  WRITES,
  withDeadLetters,
} from '../support/left-behind.ts';
import { tempDir } from '../support/temp-dir.ts';

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
    const said = await sluice(['verify', file]);
    expect([said.code, said.stderr]).toEqual([1, '']);
    expect(said.stdout).toContain('1 finding');
    const { code, stdout } = await sluice(['verify', '--json', file]);
    expect([code, JSON.parse(stdout)]).toEqual([1, await verified(file)]);
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

  test('damage at the end of a log that is being written is not judged, anywhere else it is', async () => {
    const file = await killed();
    flip(segment(file, -1), 3_000);
    const lock = await acquireLock(`${file}-log`, file, 0, nodeFileSystem, systemClock);
    expect(await verify(file)).toMatchObject({ ok: true, open: true, findings: [] });
    expect((await inspect(file)).log.segments.at(-1)).toMatchObject({ damage: null });
    flip(segment(file, 1), 3_000);
    expect(kindsOf((await verify(file)).findings)).toEqual([`frame ${segmentsOf(file)[1]}`]);
    lock.release();
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

  test('a segment that is gone, before one that is still empty', async () => {
    const file = await killed();
    const [{ number, bytes, lastSeq, own }] = (await inspected(file)).log.segments.slice(-1) as [SegmentFacts];
    const { databaseId, epoch } = (await inspected(file)).state;
    const previous = { number, offset: bytes as number, lastSeq: lastSeq as number };
    const header = encodeHeader({ databaseId, epoch, number: number + 1, firstSeq: previous.lastSeq + 1, previous });
    writeFileSync(join(`${file}-log`, segmentName(number + 1)), header);
    expect([own, (await inspected(file)).recovery]).toMatchObject([true, { outcome: 'recover', writes: WRITES }]);
    expect(await verified(file)).toMatchObject({ ok: true });
    rmSync(segment(file, -2));
    const report = await inspected(file);
    expect(kindsOf((await verified(file)).findings)).toEqual([`gap ${segmentName(number + 1)}`]);
    expect(report.recovery?.outcome).toBe('refuse');
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
    const changes: readonly (readonly [id: number, change: string, message: string])[][] = [
      [
        [1, 'write = substr(write, 1, length(write) - 1)', 'does not decode'],
        [2, 'seq = seq + 100', 'its seq is'],
        [3, "write = 'text'", 'not stored as bytes'],
        [4, "operation = 'clear'", 'its operation is'],
        [5, "table_name = 'elsewhere'", 'its table_name is'],
      ],
      [
        [1, "key = 'another'", 'its key is'],
        [2, "write = x'00'", 'does not decode'],
        [3, "key = 'c'", 'its key is'],
        [5, 'write = (SELECT write FROM _sluice_dead_letters WHERE id = 4)', 'its seq is'],
      ],
    ];
    for (const set of changes) {
      const copy = join(tempDir(), 'a.db');
      copyFileSync(file, copy);
      for (const [id, what] of set) change(copy, `UPDATE _sluice_dead_letters SET ${what} WHERE id = ${id}`);
      const { ok, findings } = await verify(copy);
      expect([ok, kindsOf(findings)]).toEqual([false, set.map(([id]) => `dead-letter ${id}`)]);
      for (const [i, [, , message]] of set.entries()) expect(findings[i]?.message).toContain(message);
    }
  });
});

test('a state row that cannot be is found', async () => {
  const file = await closed((db) => db.set('a', 1));
  const cases: { sql: string; problems: string[]; log: boolean }[] = [
    {
      sql: `UPDATE _sluice_state SET owner = '', batch_after = 7, batch_result = '{'; DROP TABLE _sluice_dead_letters`,
      problems: ['owner', 'batch_after', 'batch_result', '_sluice_dead_letters is missing'],
      log: true,
    },
    {
      sql: `UPDATE _sluice_state SET database_id = 'mine', epoch = 0, format = 'x', applied_seq = -1, batch_after = -1`,
      problems: ['database_id', 'epoch', 'format', 'applied_seq'],
      log: false,
    },
    { sql: 'DELETE FROM _sluice_state', problems: ['0 rows'], log: false },
  ];
  for (const { sql, problems, log } of cases) {
    const copy = join(tempDir(), 'a.db');
    copyFileSync(file, copy);
    change(copy, sql);
    const { findings, notes } = await verify(copy);
    expect(kindsOf(findings), sql).toEqual(problems.map(() => 'state database'));
    for (const [i, problem] of problems.entries()) expect(findings[i]?.message).toContain(problem);
    expect(notes.length, sql).toBe(log ? 0 : 1);
    if (!log) expect(await codeFrom(() => inspect(copy))).toBe('SLUICE_STORE');
  }
});

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
