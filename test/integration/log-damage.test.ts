import {
  appendFileSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
import { type Database, type OpenOptions, open, type RecoveryReport } from 'sluicedb';
import { describe, expect, test } from 'vitest';
import { FrameBuilder, frameAt, stampFrame, Target } from '../../dist/base/frame/index.js';
import { FRAME_HEADER_BYTES, Kind, offsets } from '../../dist/base/frame/layout.js';
import { nodeFileSystem } from '../../dist/base/node-file-system.js';
import { openOn } from '../../dist/db/open.js';
import { AppendLog, Recovery } from '../../dist/engine/log/index.js';
import { decodeHeader, encodeHeader, SEGMENT_HEADER_BYTES, saltOf } from '../../dist/engine/log/segment.js';
import { Child } from '../support/child.ts';
import { NO_PRELOAD } from '../support/compiled.ts';
import { eventually, refusal } from '../support/eventually.ts';
import { FaultFileSystem, type Operation } from '../support/fault-file-system.ts';
import { FaultShim } from '../support/fault-shim.ts';
import { fingerprint } from '../support/fingerprint.ts';
import { flip, imageOf, killed, segment, segmentsOf, WRITES } from '../support/left-behind.ts';
import { FRESH } from '../support/log-image.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';
import { writesOf } from '../support/writes.ts';

const MANUAL: OpenOptions = { flush: { mode: 'manual' } };

interface Frame {
  readonly offset: number;
  readonly end: number;
  readonly firstSeq: number;
  readonly lastSeq: number;
}

/** Where the frames of a segment lie, by a walk of the test's own. */
function framesIn(path: string): Frame[] {
  const bytes = readFileSync(path);
  const frames: Frame[] = [];
  for (let offset = SEGMENT_HEADER_BYTES; ; ) {
    const frame = frameAt(bytes, offset, saltOf(bytes));
    if (frame === undefined) return frames;
    frames.push({ offset, end: offset + frame.length, firstSeq: frame.firstSeq, lastSeq: frame.lastSeq });
    offset += frame.length;
  }
}

/** The log as it is, but for what each opener leaves in it. */
function logOf(file: string): Record<string, string> {
  const found = fingerprint(`${file}-log`);
  const segments = Object.entries(found).filter(([name]) => !/^(lock\.db.*|owner\.json)$/.test(name));
  // Not when they were written: recovery writes once more what no sync vouches for.
  return Object.fromEntries(segments.map(([name, facts]) => [name, facts.replace(/bytes, [\d.]+,/, 'bytes,')]));
}

/** `k1`, `k2` and so on, without a hole. */
function lastOf(db: Database): number {
  const last = db.size;
  for (let i = 1; i <= last; i++) expect(db.get(`k${i}`)).toBe('x'.repeat(5_000));
  return last;
}

/** It starts with `last` writes and goes on as if nothing had been: they and a fresh one are there after another crash. */
async function goesOn(file: string, last: number, options: OpenOptions = {}): Promise<RecoveryReport> {
  const db = await open(file, { ...MANUAL, ...options });
  const report = await new Promise<RecoveryReport>((resolve) => db.once('recovered', resolve));
  expect([lastOf(db), db.stats().recovered, report.writes]).toEqual([last, last, last]);
  await db.aset('fresh', 1);
  const image = imageOf(file);
  await db.close();
  const again = await open(image);
  expect([again.get('fresh'), again.delete('fresh'), lastOf(again)]).toEqual([1, true, last]);
  await again.close();
  return report;
}

/** Refused with a message about it, twice, with nothing changed. */
async function refused(file: string, code: string, message: RegExp): Promise<void> {
  const before = logOf(file);
  for (let round = 0; round < 2; round++) {
    const error = await refusal(() => open(file, MANUAL));
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(message)]);
    expect(logOf(file)).toEqual(before);
  }
}

/** With keep-prefix: what comes before the damage is there, and the segments from one on are kept under other names. */
async function keptUpTo(file: string, last: number, from: number): Promise<void> {
  const originals = segmentsOf(file)
    .slice(from)
    .map((name) => readFileSync(join(`${file}-log`, name)));
  const { damage, setAside } = await goesOn(file, last, { recovery: 'keep-prefix' });
  expect(damage).toBeDefined();
  expect(setAside.length).toBe(originals.length);
  const kept = readdirSync(`${file}-log`)
    .filter((name) => name.includes('.corrupt-'))
    .map((name) => readFileSync(join(`${file}-log`, name)));
  for (const original of originals) expect(kept.some((bytes) => bytes.equals(original))).toBe(true);
}

describe('the end of the log', () => {
  test('[fault 15] cut at every byte of its last segment: what comes before is there, and the next recovery finds nothing to do', async () => {
    const place = { databaseId: '00112233445566778899aabbccddeeff', epoch: 1, fileSystem: nodeFileSystem };
    const directory = tempDir();
    const log = new AppendLog({ ...place, directory, segmentBytes: 400 }, FRESH);
    for (let seq = 1; seq <= 8; seq++) {
      const builder = new FrameBuilder(0);
      builder.put(new Target('data'), `k${seq}`, 'value');
      log.append([builder.build(seq)]);
      await log.write();
      await log.sync();
    }
    await log.close();
    const name = readdirSync(directory).sort().at(-1) as string;
    const whole = readFileSync(join(directory, name));
    const frames = framesIn(join(directory, name));
    expect(frames.length).toBeGreaterThan(1);
    const before = (frames[0] as Frame).firstSeq - 1;
    expect(before).toBeGreaterThan(0);
    const outcomes = new Map<number, number>();
    for (let length = 0; length <= whole.length; length++) {
      writeFileSync(join(directory, name), whole.subarray(0, length));
      for (let round = 0; round < (length % 5 === 0 ? 2 : 1); round++) {
        const options = { ...place, directory, appliedSeq: 0, policy: 'refuse', now: new Date(0) } as const;
        const recovery = await Recovery.scan(options);
        await recovery.repair();
        let last = 0;
        for await (const { bytes } of recovery.frames())
          for (const { seq } of writesOf(bytes)) expect(seq).toBe(++last);
        const complete = frames.filter(({ end }) => end <= length);
        expect(last).toBe(complete.at(-1)?.lastSeq ?? before);
        const end = complete.at(-1)?.end ?? SEGMENT_HEADER_BYTES;
        expect(recovery.report).toMatchObject({ damage: undefined, setAside: [] });
        expect(recovery.report.tornBytes).toBe(round === 0 ? Math.max(0, length - end) : 0);
        outcomes.set(last, (outcomes.get(last) ?? 0) + 1);
      }
    }
    expect(outcomes.size).toBe(frames.length + 1);
  });

  test.each([1, 100, 5_000])('[fault 15] with %i bytes missing: told, counted, and gone on from', async (missing) => {
    const file = await killed();
    const last = segment(file, -1);
    truncateSync(last, statSync(last).size - missing);
    const lines: unknown[] = [];
    const line = (fields: object, message: string) => lines.push({ ...fields, message });
    const logger = { debug: () => {}, info: line, warn: line, error: line };
    const { tornBytes, damage } = await goesOn(file, WRITES - 1, { logger });
    expect([tornBytes > 0, damage]).toEqual([true, undefined]);
    expect(lines[0]).toMatchObject({ tornBytes, message: expect.stringContaining('cut off the end of the log') });
  });

  test.each([
    ['zeroes behind the last frame', (file: string) => appendFileSync(segment(file, -1), Buffer.alloc(4_096)), 4_096],
    ['a next segment of no bytes', (file: string) => writeFileSync(next(file), ''), 0],
    ['a next segment of zeroes', (file: string) => writeFileSync(next(file), Buffer.alloc(8_192)), 0],
    [
      'a next segment of a part of a header',
      (file: string) => writeFileSync(next(file), readFileSync(segment(file, -1)).subarray(0, 40)),
      0,
    ],
  ] as const)('[fault 16] %s: legal, and taken for the end', async (_, leave, tornBytes) => {
    const file = await killed();
    leave(file);
    expect(await goesOn(file, WRITES)).toMatchObject({ tornBytes, setAside: [], damage: undefined });
  });

  test('[fault 17] a hole where nothing was synced: what lies behind it is dropped and counted, however whole it is', async () => {
    const file = join(tempDir(), 'a.db');
    const child = new Child(
      `const db = await open(process.argv[2], { durability: 'os', flush: { mode: 'manual' } });
       for (let i = 1; i <= 6; i++) await db.aset('k' + i, 'x'.repeat(5_000));
       console.log('written');
       setInterval(() => {}, 1000);`,
      [file],
    );
    await child.says('written');
    child.process.kill('SIGKILL');
    await child.end();
    const path = segment(file, 0);
    const frames = framesIn(path);
    expect(frames).toHaveLength(6);
    const hole = frames[2] as Frame;
    const bytes = readFileSync(path);
    bytes.fill(0, hole.offset + 512, hole.offset + 1_024);
    writeFileSync(path, bytes);
    expect(await goesOn(file, 2)).toMatchObject({ damage: undefined, tornBytes: bytes.length - hole.offset });
  });
});

/** The name that the next segment would have. */
function next(file: string): string {
  const number = Number(basename(segment(file, -1), '.log')) + 1;
  return join(`${file}-log`, `${String(number).padStart(10, '0')}.log`);
}

describe('damage where the log had been synced', () => {
  test.each([
    ['in the third frame of the first segment', 0, (frames: Frame[]) => (frames[2] as Frame).offset + 600, 2],
    ['in the header of the first segment', 0, () => 20, 0],
    ['in the first frame of the last segment', -1, (frames: Frame[]) => (frames[0] as Frame).offset + 9, undefined],
  ] as const)(
    '[fault 18] a bit flips %s: refused, or kept up to there, but never skipped',
    async (_, index, where, last) => {
      const file = await killed();
      const path = segment(file, index);
      const frames = framesIn(path);
      flip(path, where(frames));
      await refused(file, 'SLUICE_LOG_CORRUPT', new RegExp(`${basename(path)}.*Nothing was changed.*keep-prefix`));
      await keptUpTo(file, last ?? (frames[0] as Frame).firstSeq - 1, index);
    },
  );

  test.each([0xffff_ffff, 0x7fff_fff0, 0x4000_0000, 0])(
    '[fault 19] a frame says that it is %i bytes long: no memory is asked for, and it is damage, or a torn tail',
    async (length) => {
      const file = await killed();
      const write = (path: string, { offset }: Frame) => {
        const bytes = readFileSync(path);
        bytes.writeUInt32LE(length, offset + offsets.length);
        writeFileSync(path, bytes);
      };
      const last = segment(file, -1);
      write(last, framesIn(last).at(-1) as Frame);
      const { rss } = process.memoryUsage();
      const image = imageOf(file);
      expect((await goesOn(image, WRITES - 1)).tornBytes).toBeGreaterThan(5_000);
      const first = segment(file, 0);
      write(first, framesIn(first)[3] as Frame);
      await refused(file, 'SLUICE_LOG_CORRUPT', /is damaged at byte/);
      // Nothing of what the frame spoke of.
      expect(process.memoryUsage().rss - rss).toBeLessThan(256 << 20);
      await keptUpTo(file, 3, 0);
    },
  );

  test('[fault 20] a segment of another format is refused by name, and so is a record of a kind that is not known', async () => {
    const file = await killed();
    const path = segment(file, 1);
    const original = readFileSync(path);
    const other = Buffer.from(original);
    other.writeUInt32LE(2, 4);
    other.writeUInt32LE(crc32(other.subarray(0, 60)), 60);
    writeFileSync(path, other);
    await refused(file, 'SLUICE_UNSUPPORTED', new RegExp(`${basename(path)} has log format 2.*open .* version`));
    for (const recovery of ['refuse', 'keep-prefix'] as const) {
      expect((await refusal(() => open(file, { recovery }))).code).toBe('SLUICE_UNSUPPORTED');
    }
    const strange = Buffer.from(original);
    writeFileSync(path, original);
    const { offset, end } = framesIn(path)[0] as Frame;
    const frame = strange.subarray(offset, end);
    expect(frame.readUInt32LE(FRAME_HEADER_BYTES) & 15).toBe(Kind.putText);
    frame.writeUInt32LE((frame.readUInt32LE(FRAME_HEADER_BYTES) & ~15) | 15, FRAME_HEADER_BYTES);
    stampFrame(frame, Number(frame.readBigUInt64LE(offsets.syncedUpTo)), saltOf(strange));
    writeFileSync(path, strange);
    await refused(file, 'SLUICE_UNSUPPORTED', /record of kind 15, .*open it with the version that wrote it/);
    writeFileSync(path, original);
    await goesOn(file, WRITES);
  });

  test.each([
    ['a segment in the middle is missing', (path: string) => rmSync(path)],
    [
      'a segment in the middle ends with a whole frame, but too early',
      (path: string) => truncateSync(path, (framesIn(path).at(-1) as Frame).offset),
    ],
    [
      'a segment in the middle ends in a frame',
      (path: string) => truncateSync(path, (framesIn(path).at(-1) as Frame).end - 7),
    ],
    ['a segment in the middle is empty', (path: string) => truncateSync(path, 0)],
  ] as const)('[fault 21] %s: refused, and nothing behind the hole is replayed', async (what, harm) => {
    const file = await killed();
    const path = segment(file, 1);
    const frames = framesIn(path);
    harm(path);
    await refused(file, 'SLUICE_LOG_CORRUPT', /damaged/);
    const kept = what.includes('ends') ? (frames.at(-2) as Frame).lastSeq : (frames[0] as Frame).firstSeq - 1;
    await keptUpTo(file, kept, 1);
  });
});

test('[fault 21] the last segment with writes is missing, and the next has none yet: what its header says is enough', async () => {
  const file = await killed();
  const path = segment(file, -1);
  const header = decodeHeader(readFileSync(path));
  if (header === undefined || 'unknownFormat' in header) throw new Error('no header');
  const { number, databaseId, epoch } = header;
  const { end, lastSeq, firstSeq } = { ...(framesIn(path).at(-1) as Frame), firstSeq: header.firstSeq };
  const previous = { number, offset: end, lastSeq };
  writeFileSync(next(file), encodeHeader({ databaseId, epoch, number: number + 1, firstSeq: lastSeq + 1, previous }));
  rmSync(path);
  await refused(file, 'SLUICE_LOG_CORRUPT', new RegExp(`write ${firstSeq} is missing`));
  await keptUpTo(file, firstSeq - 1, -1);
});

describe('a log that SQLite is ahead of', () => {
  test('[fault 22] a segment that had been deleted is there again: skipped, and no old value wins', async () => {
    const disk = new FaultFileSystem();
    const file = join(tempDir(), 'a.db');
    const db = await openOn(machine({ fileSystem: disk }), file, { ...MANUAL, log: { segmentBytes: 4_096 } });
    await db.aset('k', 'old');
    await db.aset('gone', 'soon');
    await db.aset('filler', 'x'.repeat(5_000));
    const first = segment(file, 0);
    const aside = join(tempDir(), basename(first));
    copyFileSync(first, aside);
    await db.aset('k', 'new');
    await db.adelete('gone');
    await db.aset('filler', 'y'.repeat(5_000));
    await db.aset('another', 1);
    await db.aflush();
    await eventually(() => segmentsOf(file).length === 1, 'the segments with the old and the new value are deleted');
    expect(existsSync(first)).toBe(false);
    await db.aset('last', 1);
    const image = imageOf(file);
    copyFileSync(aside, join(`${image}-log`, basename(first)));
    await db.close();
    const again = await open(image, MANUAL);
    expect(again.stats()).toMatchObject({ recovered: 1, deadLettered: 0 });
    const expected = { another: 1, filler: 'y'.repeat(5_000), k: 'new', last: 1 };
    expect(Object.fromEntries(again.entries())).toEqual(expected);
    await again.aflush();
    expect(Object.fromEntries(again.entries())).toEqual(expected);
    await again.close();
    expect(segmentsOf(image)).toEqual([]);
  });

  test('[fault 23] [fault 24] a crash between COMMIT and any step of deleting segments: it starts, and nothing is done twice', async () => {
    const disk = new FaultFileSystem();
    const file = join(tempDir(), 'a.db');
    const db = await openOn(machine({ fileSystem: disk }), file, { ...MANUAL, log: { segmentBytes: 4_096 } });
    const rows = db.rows('r', { columns: { n: 'integer' } });
    for (let n = 1; n <= 12; n++) {
      rows.append({ n });
      await db.aset('sum', n);
      await db.aset(`filler${n % 5}`, 'x'.repeat(2_000));
    }
    const segments = segmentsOf(file).length;
    expect(segments).toBeGreaterThan(4);
    const images: [step: string, path: string][] = [];
    disk.before = (operation, name) => {
      images.push([`${operation} ${name}`, imageOf(file)]);
    };
    await db.aflush();
    await eventually(() => images.some(([step]) => step.startsWith('syncDirectory')), 'the segments are deleted');
    images.push(['the end', imageOf(file)]);
    const steps = images.map(([step]) => step.split(' ')[0]);
    expect(steps.filter((step) => step === 'unlink').length).toBeGreaterThanOrEqual(segments - 1);
    expect(steps).toContain('syncDirectory');
    const { applied, coalesced } = db.stats();
    disk.before = () => {};
    await db.close();
    for (const [step, path] of images) {
      const again = await open(path, MANUAL);
      await again.aflush();
      // Applied in the life before: found in the log, perhaps, but neither recovered nor applied once more.
      expect(again.stats(), step).toMatchObject({ recovered: 0, applied: 0, coalesced: 0, pending: 0 });
      expect(await again.afetchOne('SELECT count(*) AS n, sum(n) AS sum FROM r'), step).toEqual({ n: 12, sum: 78 });
      expect([again.get('sum'), again.size], step).toEqual([12, 6]);
      await again.aset('fresh', 1);
      await again.aflush();
      expect(again.stats().appliedSeq, step).toBe(applied + coalesced + 1);
      await again.close();
    }
  });
});

describe('a recovery', () => {
  test.for([
    ['refuse', 0],
    ['keep-prefix', -1],
  ] as const)(
    '[fault 25] the disk cannot read a segment (%s): no start, an error that names it, and nothing is cut off',
    async ([recovery, index], context) => {
      if (NO_PRELOAD !== undefined) context.skip(NO_PRELOAD);
      const file = await killed();
      // A torn tail, so that there would be something to cut.
      appendFileSync(segment(file, -1), 'torn');
      const before = logOf(file);
      const path = segment(file, index);
      const shim = new FaultShim();
      shim.arm({ operation: 'read', file: `a.db-log/${basename(path)}`, error: 'EIO' });
      const child = new Child(
        `await open(process.argv[2], { recovery: process.argv[3] }).catch(({ code, message }) => console.log(code, message));`,
        [file, recovery],
        { env: shim.env },
      );
      const { output } = await child.end();
      expect(output).toMatch(
        new RegExp(`^SLUICE_LOG_IO .*${basename(path)} cannot be read, and nothing was changed: EIO`),
      );
      expect(shim.hits()[0]).toBe(1);
      expect(logOf(file)).toEqual(before);
      await goesOn(file, WRITES);
    },
  );

  test('[fault 26] what else lies in the folder is left alone; a folder in the place of a segment is refused by name', async () => {
    const file = await killed();
    const log = `${file}-log`;
    const strangers = [
      '0000000002.log.tmp',
      'notes.txt',
      '7.log',
      '0000000001.log.corrupt-then',
      '.nfs0001',
      'x'.repeat(200),
    ];
    for (const name of strangers) writeFileSync(join(log, name), 'not ours');
    mkdirSync(join(log, 'sub'));
    writeFileSync(join(log, 'sub', '0000000001.log'), 'not ours either');
    await goesOn(file, WRITES);
    for (const name of [...strangers, 'sub/0000000001.log']) {
      expect(readFileSync(join(log, name), 'utf8')).toMatch(/^not ours/);
    }
    mkdirSync(join(log, '0000009999.log'));
    const error = await refusal(() => open(file));
    expect([error.code, error.message]).toEqual([
      'SLUICE_LOG_IO',
      expect.stringMatching(/0000009999\.log cannot be read, and nothing was changed: EISDIR/),
    ]);
    rmSync(join(log, '0000009999.log'), { recursive: true });
    const db = await open(file);
    expect(db.get('fresh')).toBe(1);
    await db.close();
  });

  test('[fault 27] interrupted at each of its operations, once and twice, and repeated: the same in the end', async () => {
    const whole = await killed({ writes: 18 });
    flip(segment(whole, 0), (framesIn(segment(whole, 0))[8] as Frame).offset + 700);
    const changes: readonly Operation[] = [
      'copy',
      'rename',
      'unlink',
      'openExisting',
      'truncate',
      'datasync',
      'syncDirectory',
    ];
    const stopped = new Map<string, number>();
    const outcomes = new Set<number>();
    const attempt = async (file: string, operations: number): Promise<boolean> => {
      const disk = new FaultFileSystem();
      let seen = 0;
      disk.before = (operation, name) => {
        if (!changes.includes(operation) || name === basename(dirname(file)) || seen++ < operations) return;
        stopped.set(operation, (stopped.get(operation) ?? 0) + 1);
        throw Object.assign(new Error('the process dies here'), { code: 'EIO' });
      };
      try {
        const db = await openOn(machine({ fileSystem: disk }), file, {
          ...MANUAL,
          recovery: 'keep-prefix',
          closeTimeoutMs: 0,
        });
        disk.before = () => {};
        await db.close();
        return true;
      } catch {
        return false;
      }
    };
    for (let first = 0, done = false; !done; first++) {
      const file = join(tempDir(), 'a.db');
      cpSync(dirname(whole), dirname(file), { recursive: true });
      done = await attempt(file, first);
      if (!done) await attempt(file, first % 2 === 0 ? first / 2 : first);
      const db = await open(file, { ...MANUAL, recovery: 'keep-prefix' });
      outcomes.add(lastOf(db));
      await db.close();
    }
    expect([...outcomes]).toEqual([8]);
    expect([...stopped.keys()].sort()).toEqual(
      ['copy', 'datasync', 'openExisting', 'rename', 'syncDirectory', 'truncate'].sort(),
    );
  });
});

/** A segment as the first version wrote it, and its writes. */
const FIRST_VERSION = [
  'U0xTRwEAAAAAESIzRFVmd4iZqrvM3e7/AQAAAAEAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAjgYu5lNMRlK0ghITwwAAAAMAAAAB',
  'AAAAAAAAAEAAAAAAAAAADwAAAEQAAABNAAAAAgAAAAAAAAAAQI9AAQAAAAEAAAAGAAAAEgAAAAEAAAACAAAAJQAAAAMAAAACAAAAAQAAAAAA',
  'IAABAAAAAAAAAAAA4D8AAAAAW1siZGF0YSIsbnVsbF0sWyJkYXRhIixudWxsXSxbInIiLCJJTlNFUlQgSU5UTyByIFZBTFVFUyAoPywgPywg',
  'PykiXV3DvCJ0ZXh0ImIB/w==',
].join('');

test('[fault 29] a log as the first version wrote it is read, on a machine of any kind; one of the other byte order is refused', async () => {
  const directory = tempDir();
  const place = { databaseId: '00112233445566778899aabbccddeeff', epoch: 1, fileSystem: nodeFileSystem, directory };
  const options = { ...place, appliedSeq: 0, policy: 'refuse', now: new Date(0) } as const;
  const log = new AppendLog({ ...place, segmentBytes: 4_096 }, FRESH);
  const builder = new FrameBuilder(1_000);
  builder.put(new Target('data'), 'ü', '"text"');
  builder.put(new Target('data'), 'b', Uint8Array.of(1, 255));
  builder.append(new Target('r', 'INSERT INTO r VALUES (?, ?, ?)'), [2n ** 53n + 1n, 0.5, null]);
  log.append([builder.build(1)]);
  await log.write();
  await log.close();
  const path = join(directory, '0000000001.log');
  // Whatever writes differently must have another number.
  expect(readFileSync(path).toString('base64')).toBe(FIRST_VERSION);
  writeFileSync(path, Buffer.from(FIRST_VERSION, 'base64'));
  const found: unknown[] = [];
  for await (const { bytes } of (await Recovery.scan(options)).frames()) {
    for (const { seq, write } of writesOf(bytes)) found.push([seq, write]);
  }
  expect(found).toEqual([
    [1, { kind: 'put', table: 'data', key: 'ü', value: '"text"' }],
    [2, { kind: 'put', table: 'data', key: 'b', value: Uint8Array.of(1, 255) }],
    [3, expect.objectContaining({ kind: 'append', table: 'r', values: [2n ** 53n + 1n, 0.5, null] })],
  ]);
  const swapped = readFileSync(path).subarray(0, 196);
  swapped.swap32();
  writeFileSync(path, swapped);
  await expect(Recovery.scan(options)).rejects.toMatchObject({
    code: 'SLUICE_LOG_CORRUPT',
    message: expect.stringContaining('the header of 0000000001.log is damaged'),
  });
  expect(readFileSync(path)).toEqual(swapped);
});

test('[fault 31] a note of an owner that seems to be alive, and a lock file that nobody holds, keep nobody out', async () => {
  const file = await killed();
  // The number of the process that was killed has been given to another one.
  const owner = { pid: process.pid, host: hostname(), startedAt: new Date().toISOString() };
  writeFileSync(join(`${file}-log`, 'owner.json'), `${JSON.stringify(owner)}\n`);
  expect(existsSync(join(`${file}-log`, 'lock.db'))).toBe(true);
  await goesOn(file, WRITES);
});
