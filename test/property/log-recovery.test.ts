import { readdirSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { FileSystem } from '../../dist/base/file-system.js';
import type { Frame } from '../../dist/base/frame/index.js';
import { frameAt } from '../../dist/base/frame/index.js';
import { nodeFileSystem } from '../../dist/base/node-file-system.js';
import { AppendLog, Recovery, type RecoveryPolicy, type RecoveryReport } from '../../dist/engine/log/index.js';
import { SEGMENT_HEADER_BYTES, saltOf } from '../../dist/engine/log/segment.js';
import { errorOf, MemoryFileSystem } from '../support/memory-file-system.ts';
import { seededRandom } from '../support/seed.ts';
import { tempDir } from '../support/temp-dir.ts';
import { frameOf, Targets, writesOf } from '../support/writes.ts';

const DIRECTORY = '/log';
const PLACE = { databaseId: '00112233445566778899aabbccddeeff', epoch: 1 };
const FRESH = { sealed: [], end: { number: 0, offset: 0, lastSeq: 0 }, highestNumber: 0 };

/** How a log is written: frames of so many writes of such a size, and when it is synced. */
interface Step {
  readonly writes: number;
  readonly size: number;
  readonly sync: boolean;
}

const step: fc.Arbitrary<Step> = fc.record({
  writes: fc.integer({ min: 1, max: 3 }),
  size: fc.nat(60),
  sync: fc.boolean(),
});
const script = fc.array(step, { minLength: 1, maxLength: 14, size: 'max' });
const segmentBytes = fc.constantFrom(150, 300, 600, 100_000);

const targets = new Targets();

/** The frame of the writes from `firstSeq` on. Each write says its own number. */
function frameFrom(firstSeq: number, { writes, size }: Pick<Step, 'writes' | 'size'>): Frame {
  const puts = Array.from({ length: writes }, (_, i) => ({
    kind: 'put' as const,
    table: 'data',
    key: `k${firstSeq + i}`,
    value: 'x'.repeat(size),
  }));
  return frameOf(puts, firstSeq, targets);
}

/** Writes a log, and returns how far it was synced, as its writer knows. */
async function writeLog(
  fileSystem: FileSystem,
  steps: readonly Step[],
  limit: number,
  { start = FRESH, firstSeq = 1, directory = DIRECTORY, place = PLACE }: Partial<Parameters<typeof writeMore>[3]> = {},
): Promise<{ lastSeq: number; syncedSeq: number }> {
  return writeMore(fileSystem, steps, limit, { start, firstSeq, directory, place });
}

async function writeMore(
  fileSystem: FileSystem,
  steps: readonly Step[],
  limit: number,
  {
    start,
    firstSeq,
    directory,
    place,
  }: {
    start: ConstructorParameters<typeof AppendLog>[1];
    firstSeq: number;
    directory: string;
    place: typeof PLACE;
  },
): Promise<{ lastSeq: number; syncedSeq: number }> {
  const log = new AppendLog({ ...place, fileSystem, directory, segmentBytes: limit }, start);
  let next = firstSeq;
  let syncedSeq = firstSeq - 1;
  for (const each of steps) {
    log.append([frameFrom(next, each)]);
    next += each.writes;
    await log.write();
    if (!each.sync) continue;
    await log.sync();
    syncedSeq = next - 1;
  }
  await log.close();
  return { lastSeq: next - 1, syncedSeq };
}

interface Recovered {
  readonly report: RecoveryReport;
  /** The last write of the unbroken sequence that was found. */
  readonly last: number;
  readonly start: Recovery['start'];
}

interface RecoverOptions {
  readonly appliedSeq?: number;
  readonly policy?: RecoveryPolicy;
  readonly directory?: string;
  readonly at?: number;
}

/** A whole recovery. Fails on a hole, a repetition, or a write that is not the one that was written. */
async function recover(fileSystem: FileSystem, options: RecoverOptions = {}): Promise<Recovered> {
  const { appliedSeq = 0, policy = 'refuse', directory = DIRECTORY, at = 0 } = options;
  const now = new Date(1_700_000_000_000 + at);
  const recovery = await Recovery.scan({ ...PLACE, fileSystem, directory, appliedSeq, policy, now });
  await recovery.repair();
  let last = appliedSeq;
  for await (const frame of recovery.frames()) {
    for (const { seq, write } of writesOf(frame.bytes)) {
      if (seq <= last && last === appliedSeq) continue;
      expect(seq).toBe(last + 1);
      expect(write).toMatchObject({ kind: 'put', key: `k${seq}` });
      last = seq;
    }
  }
  expect(recovery.report.writes).toBe(last - appliedSeq);
  expect(recovery.start.end.lastSeq).toBe(last);
  return { report: recovery.report, last, start: recovery.start };
}

interface FoundFrame {
  readonly offset: number;
  readonly end: number;
  readonly lastSeq: number;
  readonly syncedUpTo: number;
}

interface FoundSegment {
  readonly path: string;
  readonly bytes: Buffer;
  readonly frames: readonly FoundFrame[];
}

/** The segments of a sound log, by a walk of the test's own. */
function segmentsOf(files: ReadonlyMap<string, Buffer>): FoundSegment[] {
  return [...files]
    .filter(([path]) => path.endsWith('.log'))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([path, bytes]) => {
      const frames: FoundFrame[] = [];
      for (let offset = SEGMENT_HEADER_BYTES; offset < bytes.length; ) {
        const frame = frameAt(bytes, offset, saltOf(bytes));
        if (frame === undefined) throw new Error(`${path} is not sound at ${offset}`);
        const { length, lastSeq, syncedUpTo } = frame;
        frames.push({ offset, end: offset + length, lastSeq, syncedUpTo });
        offset += length;
      }
      return { path, bytes, frames };
    });
}

async function soundLog(steps: readonly Step[], limit: number) {
  const fileSystem = new MemoryFileSystem();
  const { lastSeq } = await writeLog(fileSystem, steps, limit);
  const files = fileSystem.snapshot();
  return { files, lastSeq, segments: segmentsOf(files) };
}

function changed(files: ReadonlyMap<string, Buffer>, path: string, bytes: Buffer | undefined): MemoryFileSystem {
  const copy = new Map(files);
  if (bytes === undefined) copy.delete(path);
  else copy.set(path, bytes);
  return MemoryFileSystem.from(copy);
}

function flippedAt(bytes: Buffer, at: number, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] as number) ^ (1 << bit);
  return copy;
}

/** Whether the bytes of each of these files are still somewhere, under whatever name. */
function expectKept(fileSystem: MemoryFileSystem, originals: readonly Buffer[]): void {
  const present = [...fileSystem.snapshot().values()];
  for (const original of originals) expect(present.some((bytes) => bytes.equals(original))).toBe(true);
}

async function expectRefused(fileSystem: MemoryFileSystem, appliedSeq = 0): Promise<void> {
  const before = fileSystem.snapshot();
  await expect(recover(fileSystem, { appliedSeq })).rejects.toMatchObject({ code: 'SLUICE_LOG_CORRUPT' });
  expect(fileSystem.snapshot()).toEqual(before);
}

async function codeOfRecovery(fileSystem: MemoryFileSystem, appliedSeq = 0): Promise<string | number> {
  try {
    return (await recover(fileSystem, { appliedSeq })).last;
  } catch (error) {
    return (error as { code: string }).code;
  }
}

describe('a sound log', () => {
  test('is read back whole above any watermark, and goes on after it', async () => {
    let recoveries = 0;
    await fc.assert(
      fc.asyncProperty(script, script, segmentBytes, fc.nat(100), async (steps, more, limit, percent) => {
        const { files, lastSeq } = await soundLog(steps, limit);
        const appliedSeq = Math.floor((lastSeq * percent) / 100);
        const fileSystem = MemoryFileSystem.from(files);
        const { report, last, start } = await recover(fileSystem, { appliedSeq });
        expect(last).toBe(lastSeq);
        expect(report).toMatchObject({ tornBytes: 0, setAside: [], damage: undefined });
        expect(fileSystem.snapshot()).toEqual(files);
        const after = await writeLog(fileSystem, more, limit, { start, firstSeq: last + 1 });
        expect((await recover(fileSystem, { appliedSeq })).last).toBe(after.lastSeq);
        recoveries++;
      }),
      { numRuns: 60 },
    );
    expect(recoveries).toBeGreaterThan(0);
  });

  test('[fault 15] cut anywhere in its last segment gives the prefix before the cut, and goes on there', async () => {
    await fc.assert(
      fc.asyncProperty(script, segmentBytes, async (steps, limit) => {
        const { files, segments } = await soundLog(steps, limit);
        const { path, bytes, frames } = segments.at(-1) as FoundSegment;
        const before = segments.at(-2)?.frames.at(-1)?.lastSeq ?? 0;
        for (let length = 0; length < bytes.length; length++) {
          const fileSystem = changed(files, path, bytes.subarray(0, length));
          const whole = frames.filter(({ end }) => end <= length);
          const end = whole.at(-1)?.end ?? SEGMENT_HEADER_BYTES;
          const { report, last, start } = await recover(fileSystem);
          expect(last).toBe(whole.at(-1)?.lastSeq ?? before);
          expect(report).toMatchObject({ tornBytes: Math.max(0, length - end), setAside: [], damage: undefined });
          if (length % 7 !== 0) continue;
          await writeLog(fileSystem, [{ writes: 2, size: 5, sync: true }], limit, { start, firstSeq: last + 1 });
          expect((await recover(fileSystem)).last).toBe(last + 2);
        }
      }),
      { numRuns: 12 },
    );
  });

  test('[fault 15] on the disk of this machine, cut, gives the prefix too', async () => {
    const directory = tempDir();
    const steps = Array.from({ length: 9 }, () => ({ writes: 2, size: 20, sync: true }));
    await writeLog(nodeFileSystem, steps, 600, { directory });
    const names = readdirSync(directory).sort();
    expect(names.length).toBeGreaterThan(2);
    const path = join(directory, names.at(-1) as string);
    truncateSync(path, readFileSync(path).length - 1);
    const { report, last } = await recover(nodeFileSystem, { directory });
    expect(last).toBe(16);
    expect(report.tornBytes).toBeGreaterThan(0);
    expect((await recover(nodeFileSystem, { directory })).report.tornBytes).toBe(0);
  });

  test('[fault 17] never vouches for more than was synced: a power cut leaves a prefix that is never called damaged', async () => {
    let torn = 0;
    await fc.assert(
      fc.asyncProperty(script, segmentBytes, fc.nat(), async (steps, limit, salt) => {
        const fileSystem = new MemoryFileSystem();
        const { syncedSeq, lastSeq } = await writeLog(fileSystem, steps, limit);
        const random = seededRandom(salt);
        // Blocks smaller than any disk's, since the frames are.
        for (const data of ['prefix', 32, 512] as const) {
          const { last, report } = await recover(fileSystem.afterPowerCut({ data, names: 'none' }, random));
          expect(last).toBeGreaterThanOrEqual(syncedSeq);
          expect(last).toBeLessThanOrEqual(lastSeq);
          if (report.tornBytes > 0) torn++;
        }
      }),
      { numRuns: 150 },
    );
    expect(torn).toBeGreaterThan(50);
  });
});

describe('damage where the log had been synced', () => {
  test('[fault 18] is told from a torn tail at every byte', async () => {
    const outcomes = { torn: 0, refused: 0 };
    await fc.assert(
      fc.asyncProperty(script, segmentBytes, fc.nat(7), async (steps, limit, bit) => {
        const { files, segments } = await soundLog(steps, limit);
        for (const [i, { path, bytes, frames }] of segments.entries()) {
          const isLast = i === segments.length - 1;
          const before = segments[i - 1]?.frames.at(-1)?.lastSeq ?? 0;
          for (let at = 0; at < bytes.length; at++) {
            const fileSystem = changed(files, path, flippedAt(bytes, at, bit));
            const hit = frames.findIndex(({ end }) => at < end);
            const { offset } = frames[hit] as FoundFrame;
            const inHeader = at < SEGMENT_HEADER_BYTES;
            const vouched = inHeader || !isLast || frames.slice(hit + 1).some(({ syncedUpTo }) => syncedUpTo > offset);
            const kept = inHeader ? before : (frames[hit - 1]?.lastSeq ?? before);
            if (!vouched) {
              outcomes.torn++;
              expect(await codeOfRecovery(fileSystem), `${path} at ${at}`).toBe(kept);
              continue;
            }
            outcomes.refused++;
            expect(await codeOfRecovery(fileSystem), `${path} at ${at} of ${bytes.length}`).toBe('SLUICE_LOG_CORRUPT');
            if (at % 11 !== 0) continue;
            await expectRefused(fileSystem);
            const originals = [...fileSystem.snapshot().values()];
            const { last, report, start } = await recover(fileSystem, { policy: 'keep-prefix' });
            expect(last).toBe(kept);
            expect(report.damage).toContain(path.slice(DIRECTORY.length + 1));
            expect(report.setAside.length).toBeGreaterThan(0);
            expectKept(fileSystem, originals.slice(i));
            const again = await recover(fileSystem, { at: 1 });
            expect(again.last).toBe(kept);
            await writeLog(fileSystem, [{ writes: 1, size: 3, sync: true }], limit, { start, firstSeq: kept + 1 });
            expect((await recover(fileSystem, { at: 2 })).last).toBe(kept + 1);
          }
        }
      }),
      { numRuns: 12 },
    );
    expect(outcomes.torn).toBeGreaterThan(100);
    expect(outcomes.refused).toBeGreaterThan(100);
  });

  test('[fault 22] below the watermark does not matter, in any segment but the newest', async () => {
    let harmless = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 6, maxLength: 14 }),
        fc.nat(1000),
        fc.nat(7),
        async (steps, place, bit) => {
          const { files, segments, lastSeq } = await soundLog(steps, 200);
          fc.pre(segments.length > 1);
          const { path, bytes, frames } = segments[place % (segments.length - 1)] as FoundSegment;
          const fileSystem = changed(files, path, flippedAt(bytes, (place * 31) % bytes.length, bit));
          const { lastSeq: appliedSeq } = frames.at(-1) as FoundFrame;
          expect((await recover(fileSystem, { appliedSeq })).last).toBe(lastSeq);
          harmless++;
        },
      ),
      { numRuns: 60 },
    );
    expect(harmless).toBeGreaterThan(0);
  });

  test('[fault 21] a missing segment is refused above the watermark, and not missed below', async () => {
    const outcomes = { refused: 0, fine: 0 };
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 6, maxLength: 14 }), fc.nat(1000), async (steps, place) => {
        const { files, segments, lastSeq } = await soundLog(steps, 200);
        fc.pre(segments.length > 1);
        const index = place % (segments.length - 1);
        const missing = segments[index] as FoundSegment;
        const last = (missing.frames.at(-1) as FoundFrame).lastSeq;
        for (const appliedSeq of [0, last - 1, last, lastSeq]) {
          const fileSystem = changed(files, missing.path, undefined);
          if (appliedSeq >= last) {
            expect((await recover(fileSystem, { appliedSeq })).last).toBe(lastSeq);
            outcomes.fine++;
            continue;
          }
          await expectRefused(fileSystem, appliedSeq);
          const originals = [...fileSystem.snapshot().values()];
          const first = segments[index]?.frames[0]?.offset;
          const kept = await recover(fileSystem, { appliedSeq, policy: 'keep-prefix' });
          expect(kept.last).toBe(Math.max(appliedSeq, segments[index - 1]?.frames.at(-1)?.lastSeq ?? 0));
          expect(first).toBe(SEGMENT_HEADER_BYTES);
          expectKept(fileSystem, originals);
          outcomes.refused++;
        }
      }),
      { numRuns: 40 },
    );
    expect(outcomes.refused).toBeGreaterThan(0);
    expect(outcomes.fine).toBeGreaterThan(0);
  });

  test('a log that begins above the watermark is refused: the database is older than its log', async () => {
    const fileSystem = new MemoryFileSystem();
    await writeLog(fileSystem, [{ writes: 2, size: 1, sync: true }], 600, {
      start: { ...FRESH, end: { number: 0, offset: 0, lastSeq: 5 } },
      firstSeq: 6,
    });
    await expectRefused(fileSystem, 4);
    expect((await recover(fileSystem, { appliedSeq: 5 })).last).toBe(7);
  });

  test('[fault 25] a read that fails fails the recovery, and changes nothing', async () => {
    const { files, segments } = await soundLog(
      Array.from({ length: 8 }, () => ({ writes: 1, size: 40, sync: true })),
      200,
    );
    for (const { path } of segments) {
      const fileSystem = MemoryFileSystem.from(files);
      fileSystem.before = (operation) => {
        if (operation.name === 'read' && operation.path === path) throw errorOf('EIO', path);
      };
      await expect(recover(fileSystem, { policy: 'keep-prefix' })).rejects.toMatchObject({ code: 'SLUICE_LOG_IO' });
      expect(fileSystem.snapshot()).toEqual(files);
    }
  });
});

describe('a last segment in which nothing was', () => {
  const steps = Array.from({ length: 5 }, () => ({ writes: 2, size: 40, sync: true }));
  const headerOf = (segment: FoundSegment) => segment.bytes.subarray(0, SEGMENT_HEADER_BYTES);

  test.each([
    ['of no bytes', () => Buffer.alloc(0)],
    ['of a part of the header', (next: FoundSegment) => next.bytes.subarray(0, 40)],
    ['of zeroes in place of the header', () => Buffer.alloc(SEGMENT_HEADER_BYTES)],
    ['of a page of zeroes', () => Buffer.alloc(4096)],
    ['of the header', headerOf],
    ['of the header and zeroes', (next: FoundSegment) => Buffer.concat([headerOf(next), Buffer.alloc(100)])],
  ])('[fault 16] %s, once or several times, is no damage', async (_, make) => {
    const { files, segments } = await soundLog(steps, 200);
    const last = segments.at(-1) as FoundSegment;
    const before = (segments.at(-2) as FoundSegment).frames.at(-1) as FoundFrame;
    const number = segments.length;
    for (const extra of [0, 1, 2]) {
      const fileSystem = changed(files, last.path, make(last));
      const beyond = new Map(fileSystem.snapshot());
      for (let i = 1; i <= extra; i++)
        beyond.set(`${DIRECTORY}/${String(number + i).padStart(10, '0')}.log`, Buffer.alloc(0));
      const withExtra = MemoryFileSystem.from(beyond);
      const { last: recovered, report, start } = await recover(withExtra);
      expect(recovered).toBe(before.lastSeq);
      expect(report).toMatchObject({ setAside: [], damage: undefined });
      expect(start.highestNumber).toBe(number + extra);
      await writeLog(withExtra, steps, 200, { start, firstSeq: recovered + 1 });
      expect((await recover(withExtra)).last).toBe(recovered + 10);
    }
  });
});

test.each([1, 2, 3])(
  '%i tries to make a segment that nothing came of do not stand in the way of the one after them',
  async (tries) => {
    const steps = Array.from({ length: 5 }, () => ({ writes: 2, size: 40, sync: true }));
    const { files, segments, lastSeq } = await soundLog(steps, 200);
    // The disk was full and refused to delete them, or the power went before it was known that they are gone.
    const gap = new Map<string, Buffer>();
    for (const [path, bytes] of files) {
      const number = Number(/(\d+)\.log$/.exec(path)?.[1]);
      const isAfter = number === segments.length;
      gap.set(isAfter ? path.replace(/\d+(?=\.log$)/, String(number + tries).padStart(10, '0')) : path, bytes);
    }
    for (let i = 0; i < tries; i++) {
      gap.set(`${DIRECTORY}/${String(segments.length + i).padStart(10, '0')}.log`, Buffer.alloc(i === 1 ? 30 : 0));
    }
    const fileSystem = MemoryFileSystem.from(gap);
    const { last, report } = await recover(fileSystem);
    expect(last).toBe(lastSeq);
    expect(report).toMatchObject({ setAside: [], damage: undefined });
    // But what such a file stands for must not be missing: then its header was damaged.
    const missing = new Map(gap);
    missing.delete((segments.at(-2) as FoundSegment).path);
    await expectRefused(MemoryFileSystem.from(missing));
  },
);

describe('what a failed sync was to carry, and the next process still reads', () => {
  const LIMIT = 100_000;

  /** Writes up to 4, of which a sync has covered the first two, and was refused the others. */
  async function afterFailedSync(): Promise<{ fileSystem: MemoryFileSystem; log: AppendLog }> {
    const fileSystem = new MemoryFileSystem();
    const log = new AppendLog({ ...PLACE, fileSystem, directory: DIRECTORY, segmentBytes: LIMIT }, FRESH);
    for (const first of [1, 3]) {
      log.append([frameFrom(first, { writes: 2, size: 20 })]);
      await log.write();
      if (first === 3) fileSystem.before = ({ name }) => broken(name === 'datasync');
      await log.sync().catch(() => {});
    }
    fileSystem.before = () => {};
    return { fileSystem, log };
  }

  function broken(isBroken: boolean): void {
    if (isBroken) throw errorOf('EIO', DIRECTORY);
  }

  test('is on the disk when that has recovered it', async () => {
    const { fileSystem } = await afterFailedSync();
    const { last, start } = await recover(fileSystem);
    expect(last).toBe(4);
    expect((await recover(fileSystem.afterPowerCut())).last).toBe(4);
    await writeLog(fileSystem, [{ writes: 1, size: 5, sync: true }], LIMIT, { start, firstSeq: 5 });
    expect((await recover(fileSystem.afterPowerCut())).last).toBe(5);
  });

  test('is on the disk, too, where the next segment had begun to take it over', async () => {
    const { fileSystem, log } = await afterFailedSync();
    let writes = 0;
    // Its header is there, and of the frame nothing.
    fileSystem.before = ({ name }) => broken(name === 'write' && ++writes > 1);
    await log.write().catch(() => {});
    fileSystem.before = () => {};
    const { last, start } = await recover(fileSystem);
    expect(last).toBe(4);
    await writeLog(fileSystem, [{ writes: 1, size: 5, sync: true }], LIMIT, { start, firstSeq: 5 });
    expect((await recover(fileSystem.afterPowerCut())).last).toBe(5);
  });

  test('takes no more writing than what may be missing', async () => {
    const { fileSystem } = await afterFailedSync();
    const { last, start } = await recover(fileSystem);
    await writeLog(fileSystem, [{ writes: 1, size: 5, sync: true }], LIMIT, { start, firstSeq: last + 1 });
    const again = fileSystem.image();
    await recover(again);
    // Of the first segment nothing: the second one vouches for it.
    const paths = again.operations.filter(({ name }) => name === 'write').map(({ path }) => path);
    expect(paths).toEqual([`${DIRECTORY}/0000000002.log`]);
  });
});

test('segments of another database or epoch are set aside whole, and not replayed', async () => {
  const steps = [{ writes: 3, size: 10, sync: true }];
  for (const other of [{ databaseId: 'ff'.repeat(16) }, { epoch: 2 }]) {
    const fileSystem = new MemoryFileSystem();
    await writeLog(fileSystem, steps, 600, { place: { ...PLACE, ...other } });
    const [original] = fileSystem.snapshot().values();
    const { last, report } = await recover(fileSystem);
    expect(last).toBe(0);
    expect(report.setAside).toEqual(['0000000001.log']);
    expectKept(fileSystem, [original as Buffer]);
    expect([...fileSystem.snapshot().keys()].every((path) => !path.endsWith('.log'))).toBe(true);
  }
});

test('[fault 27] a recovery that is interrupted anywhere, and repeated, ends the same and keeps what it drops', async () => {
  let interruptions = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 6, maxLength: 14 }),
      fc.nat(100_000),
      fc.nat(7),
      async (steps, place, bit) => {
        const { files, segments } = await soundLog(steps, 200);
        const { path, bytes } = segments[place % segments.length] as FoundSegment;
        const at = (place * 7919) % bytes.length;
        const damaged = changed(files, path, flippedAt(bytes, at, bit)).snapshot();
        const whole = MemoryFileSystem.from(damaged);
        const { last, report } = await recover(whole, { policy: 'keep-prefix' });
        const keptLog = (fileSystem: MemoryFileSystem) =>
          new Map([...fileSystem.snapshot()].filter(([name]) => name.endsWith('.log')));
        for (let stopAt = 0, stopped = true; stopped; stopAt++) {
          stopped = false;
          const fileSystem = MemoryFileSystem.from(damaged);
          let operations = 0;
          fileSystem.before = (operation) => {
            if (operation.name === 'read' || operation.name === 'list') return;
            if (operations++ < stopAt) return;
            stopped = true;
            throw errorOf('EIO', operation.path);
          };
          await recover(fileSystem, { policy: 'keep-prefix', at: 1 }).catch((error: { code: string }) => {
            expect(error.code).toBe('EIO');
          });
          if (stopped) interruptions++;
          fileSystem.before = () => {};
          const again = await recover(fileSystem, { policy: 'keep-prefix', at: 2 });
          expect(again.last).toBe(last);
          expect(keptLog(fileSystem)).toEqual(keptLog(whole));
          if (report.damage !== undefined) expectKept(fileSystem, [...damaged.values()]);
        }
      },
    ),
    { numRuns: 40 },
  );
  expect(interruptions).toBeGreaterThan(100);
});
