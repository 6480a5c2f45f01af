import { join } from 'node:path';
import { notEncrypted, type ValueCipher } from '../../base/encryption/index.ts';
import { messageOf, SluiceError } from '../../base/errors.ts';
import type { FileSystem } from '../../base/file-system.ts';
import { copyFrame, type Frame, frameAt, isSealedFrame, openFrame } from '../../base/frame/index.ts';
import { type LogStart, writeAll } from './append-log.ts';
import {
  decodeHeader,
  isPromised,
  SEGMENT_HEADER_BYTES,
  type SegmentEnd,
  type SegmentHeader,
  saltOf,
  segmentNumber,
} from './segment.ts';

export interface RecoveryOptions {
  readonly fileSystem: FileSystem;
  readonly directory: string;
  readonly databaseId: string;
  readonly epoch: number;
  /** The watermark: what is at or below it is in the store. */
  readonly appliedSeq: number;
  readonly policy: RecoveryPolicy;
  /** Marks the names of files that are set aside. */
  readonly now: Date;
  /** Of an encrypted database. */
  readonly cipher?: ValueCipher | undefined;
}

/** What to do when the log is damaged where it had been synced. */
export type RecoveryPolicy = 'refuse' | 'keep-prefix';

/** What a recovery found and did. */
export interface RecoveryReport {
  /** Segments that were read. */
  readonly segments: number;
  /** Writes that were in the log and not yet in the database. */
  readonly writes: number;
  /** Bytes of an unsynced tail that were cut off: nothing acknowledged as synced was in them. */
  readonly tornBytes: number;
  /** Files that were set aside under another name: of another database, or damaged. */
  readonly setAside: readonly string[];
  /** What was wrong, where `recovery: 'keep-prefix'` went on all the same. */
  readonly damage: string | undefined;
}

/** A segment as the first pass saw it. */
export interface Segment {
  readonly name: string;
  readonly number: number;
  readonly header: SegmentHeader | undefined;
  readonly length: number;
  /** Where its whole frames end. */
  readonly end: number;
  /** Up to where it had been synced, by its own word. */
  readonly promised: number;
  /** Whether there is something bad at `end` that had been synced, by its own word. */
  readonly damaged: boolean;
  /** First and last sequence number in it; `first > last` where it has no frame. */
  readonly first: number;
  readonly last: number;
  readonly frames: number;
  /** Whether there is a whole frame at `end`, whose number does not follow. */
  readonly outOfOrder: boolean;
}

/** Where the segments are. */
export type LogPlace = Pick<RecoveryOptions, 'fileSystem' | 'directory'>;

/** What segments are judged by. */
export type LogOwner = Pick<RecoveryOptions, 'databaseId' | 'epoch' | 'appliedSeq'>;

export interface Plan {
  readonly keep: readonly Segment[];
  readonly tornBytes: number;
  /** Empty files whose header never reached the disk. */
  readonly remove: readonly string[];
  readonly foreign: readonly string[];
  readonly damage: Damage | undefined;
  readonly end: number;
  readonly highestNumber: number;
}

/** Where the prefix that can be kept ends. */
interface Damage {
  readonly message: string;
  /** Segments from here on are not part of it; the last kept one may be cut at its `end`. */
  readonly lost: readonly Segment[];
  readonly cut: Segment | undefined;
}

/**
 * Recovery in three steps, so that a refusal changes nothing and an interruption can be repeated.
 *
 * 1. `scan` reads every segment, one in memory at a time, and changes nothing. Segments end at the first bad frame.
 *    A bad frame is a torn tail if nothing vouches for it, and corruption if a later frame's synced-up-to offset or the
 *    header of the next segment does. What counts is an unbroken sequence above the watermark: below it, damage and
 *    gaps do not matter.
 * 2. `repair` truncates and fdatasyncs what is kept, so that an unsynced tail, which survived in the page cache, cannot
 *    be lost by the next power cut together with what is acknowledged after it; then it syncs the folder. Of a sync that
 *    failed in the process before this one the page cache shows nothing: what nothing vouches for is written again first.
 * 3. `frames` reads the kept segments again and hands over what is above the watermark.
 *
 * Rejected: one pass that applies while it validates (it would have applied a part of what it then refuses).
 */
export class Recovery {
  readonly #options: RecoveryOptions;
  readonly #plan: Plan;

  private constructor(options: RecoveryOptions, plan: Plan) {
    this.#options = options;
    this.#plan = plan;
  }

  static async scan(options: RecoveryOptions): Promise<Recovery> {
    const plan = await makePlan(options);
    if (plan.damage !== undefined && options.policy === 'refuse') throw corrupt(options, plan.damage.message);
    return new Recovery(options, plan);
  }

  get report(): RecoveryReport {
    return reportOf(this.#plan, this.#options.appliedSeq);
  }

  async repair(): Promise<void> {
    const { fileSystem, directory, now } = this.#options;
    const { keep, remove, foreign, damage } = this.#plan;
    const stamp = now.toISOString().replaceAll(/[:.]/g, '-');
    const path = (name: string) => join(directory, name);
    for (const name of foreign) await fileSystem.rename(path(name), path(`${name}.set-aside-${stamp}`));
    // The copy first, and the newest first: the segments that tell what is damaged are there until all of it is safe.
    if (damage?.cut !== undefined)
      await fileSystem.copy(path(damage.cut.name), path(`${damage.cut.name}.corrupt-${stamp}`));
    for (const { name } of [...(damage?.lost ?? [])].reverse())
      await fileSystem.rename(path(name), path(`${name}.corrupt-${stamp}`));
    for (const name of remove) await fileSystem.unlink(path(name));
    for (const [i, segment] of keep.entries()) {
      const { name, length, end } = segment;
      const doubtful = Math.max(segment.promised, vouchedBy(keep[i + 1], segment)?.offset ?? 0);
      const file = await fileSystem.openExisting(path(name));
      try {
        if (length > end) await file.truncate(end);
        if (doubtful < end)
          await writeAll(file, (await readSegment(this.#options, name)).subarray(doubtful, end), doubtful);
        await file.datasync();
      } finally {
        await file.close();
      }
    }
    if (keep.length + remove.length + foreign.length > 0 || damage !== undefined)
      await fileSystem.syncDirectory(directory);
  }

  /** The frames with writes above the watermark, in order. The first one may begin below it. */
  async *frames(): AsyncGenerator<Frame> {
    let expected = this.#options.appliedSeq + 1;
    for (const segment of this.#plan.keep) {
      if (segment.last < expected) continue;
      const bytes = await readSegment(this.#options, segment.name);
      const salt = saltOf(bytes);
      for (let offset = SEGMENT_HEADER_BYTES; offset < segment.end; ) {
        const frame = frameAt(bytes, offset, salt);
        if (frame === undefined) throw corrupt(this.#options, `${segment.name} has changed while it was read`);
        if (frame.lastSeq >= expected) {
          yield this.#opened(bytes.subarray(offset, offset + frame.length), segment.name);
          expected = frame.lastSeq + 1;
        }
        offset += frame.length;
      }
    }
  }

  #opened(bytes: Buffer, segment: string): Frame {
    const { cipher, databaseId, directory } = this.#options;
    try {
      if (isSealedFrame(bytes) && cipher !== undefined) return openFrame(bytes, cipher.keyring, databaseId);
      if (isSealedFrame(bytes)) throw new SluiceError('SLUICE_DECRYPT', 'it is encrypted: open with its key');
      if (cipher?.accepts === 'nothing') throw notEncrypted();
      return copyFrame(bytes);
    } catch (cause) {
      throw new SluiceError('SLUICE_DECRYPT', `${join(directory, segment)}: ${messageOf(cause)}`, { cause });
    }
  }

  /** Where the log goes on. */
  get start(): LogStart {
    const { keep, highestNumber } = this.#plan;
    const last = keep.at(-1);
    const lastSeq = Math.max(this.#options.appliedSeq, this.#plan.end);
    return {
      sealed: keep.map(({ number, last, end }) => ({ number, lastSeq: last, bytes: end })),
      end: last === undefined ? { number: 0, offset: 0, lastSeq } : { number: last.number, offset: last.end, lastSeq },
      highestNumber,
    };
  }
}

export function reportOf({ keep, tornBytes, damage, foreign, end }: Plan, appliedSeq: number): RecoveryReport {
  return {
    segments: keep.length,
    writes: Math.max(0, end - appliedSeq),
    tornBytes,
    setAside: [
      ...foreign,
      ...(damage?.lost ?? []).map(({ name }) => name),
      ...(damage?.cut === undefined ? [] : [damage.cut.name]),
    ],
    damage: damage?.message,
  };
}

async function makePlan(options: RecoveryOptions): Promise<Plan> {
  const segments: Segment[] = [];
  for (const name of await segmentNames(options)) segments.push(await scanSegment(options, name));
  return planOf(segments, options);
}

export async function segmentNames({ fileSystem, directory }: LogPlace): Promise<string[]> {
  return (await fileSystem.list(directory)).filter((name) => segmentNumber(name) !== undefined).sort();
}

export function isForeign({ header }: Segment, { databaseId, epoch }: LogOwner): boolean {
  return header !== undefined && (header.databaseId !== databaseId || header.epoch !== epoch);
}

export function planOf(segments: readonly Segment[], owner: LogOwner): Plan {
  const own = segments.filter((segment) => !isForeign(segment, owner));
  const foreign = segments.filter((segment) => isForeign(segment, owner)).map(({ name }) => name);
  const highestNumber = segments.reduce((highest, { number }) => Math.max(highest, number), 0);
  // Headers that never reached the disk: only the newest segments can have one, each a try to make the next, and then
  // nothing was in them.
  const newest = own.findLastIndex(({ header, damaged }) => header !== undefined || damaged);
  const candidates = own.slice(0, newest + 1);
  const empty = own.slice(newest + 1);
  const { keep, damage, end } = longestPrefix(candidates, owner.appliedSeq);
  const last = keep.at(-1);
  const tornBytes = last === undefined || damage !== undefined ? 0 : last.length - last.end;
  return { keep, damage, end, tornBytes, remove: empty.map(({ name }) => name), foreign, highestNumber };
}

/** How far the sequence goes on unbroken from the watermark. */
function longestPrefix(segments: readonly Segment[], appliedSeq: number): Pick<Plan, 'keep' | 'damage' | 'end'> {
  let end = appliedSeq;
  for (const [i, segment] of segments.entries()) {
    const { name, header, first, last } = segment;
    const lost = (message: string, from: number, cut?: Segment) => ({
      keep: segments.slice(0, from),
      end,
      damage: { message, lost: segments.slice(from), cut },
    });
    if (header === undefined) {
      // The next one that can be read says what there was before it: of several tries to make it, only the last has a header.
      const next = segments.slice(i + 1).find((other) => other.header !== undefined)?.header;
      if (next !== undefined && next.previous.lastSeq <= end) continue;
      return lost(`the header of ${name} is damaged`, i);
    }
    // What the header says counts too: of a segment that has no frame yet, it is all there is.
    const next = Math.max(first <= last ? first : 0, header.previous.lastSeq + 1);
    if (next > end + 1) {
      return lost(
        `${name} begins with write ${next}, but write ${end + 1} is missing: a segment is lost, or the database is older than its log`,
        i,
      );
    }
    end = Math.max(end, last);
    const vouched = vouchedBy(segments[i + 1], segment);
    const cutShort = vouched !== undefined && segment.end < vouched.offset;
    const matters = vouched === undefined || vouched.lastSeq > end;
    if ((segment.damaged || cutShort) && matters) {
      return lost(`${name} is damaged at byte ${segment.end}, which had been synced`, i + 1, segment);
    }
  }
  return { keep: segments, end, damage: undefined };
}

/** Where a segment ends by the word of the one after it. */
export function vouchedBy(next: Segment | undefined, { number }: Segment): SegmentEnd | undefined {
  return next?.header?.previous.number === number ? next.header.previous : undefined;
}

export async function scanSegment(options: LogPlace, name: string): Promise<Segment> {
  const bytes = await readSegment(options, name);
  const number = segmentNumber(name) as number;
  const header = decodeHeader(bytes);
  const salt = saltOf(bytes);
  if (header !== undefined && 'unknownFormat' in header) {
    throw new SluiceError(
      'SLUICE_UNSUPPORTED',
      `${join(options.directory, name)} has log format ${header.unknownFormat}, which this version does not know: open the database with the version that wrote it`,
    );
  }
  if (header === undefined) {
    // The header is synced before the first frame is written: whatever lies behind a bad one says that it was good.
    return {
      name,
      number,
      header,
      length: bytes.length,
      end: bytes.length,
      promised: 0,
      damaged: bytes.subarray(SEGMENT_HEADER_BYTES).some((byte) => byte !== 0),
      first: 1,
      last: 0,
      frames: 0,
      outOfOrder: false,
    };
  }
  let end = SEGMENT_HEADER_BYTES;
  let first = header.firstSeq;
  let last = header.firstSeq - 1;
  let promised = 0;
  let frames = 0;
  let outOfOrder = false;
  for (;;) {
    const frame = frameAt(bytes, end, salt);
    outOfOrder = frame !== undefined && end > SEGMENT_HEADER_BYTES && frame.firstSeq !== last + 1;
    if (frame === undefined || outOfOrder) break;
    frames++;
    if (end === SEGMENT_HEADER_BYTES) first = frame.firstSeq;
    last = frame.lastSeq;
    promised = Math.max(promised, frame.syncedUpTo);
    end += frame.length;
  }
  const damaged = end < bytes.length && (promised > end || isPromised(bytes, end, salt));
  return { name, number, header, length: bytes.length, end, promised, damaged, first, last, frames, outOfOrder };
}

async function readSegment({ fileSystem, directory }: LogPlace, name: string): Promise<Buffer> {
  try {
    const bytes = await fileSystem.read(join(directory, name));
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  } catch (error) {
    throw new SluiceError(
      'SLUICE_LOG_IO',
      `${join(directory, name)} cannot be read, and nothing was changed: ${messageOf(error)}`,
      {
        cause: error,
      },
    );
  }
}

export function corrupt(
  { directory, appliedSeq }: Pick<RecoveryOptions, 'directory' | 'appliedSeq'>,
  message: string,
): SluiceError {
  return new SluiceError(
    'SLUICE_LOG_CORRUPT',
    `the log in ${directory} is damaged: ${message}. Nothing was changed; the database holds everything up to write ${appliedSeq}. ` +
      "Restore the folder from a copy, or open once with recovery: 'keep-prefix' to keep what comes before the damage " +
      'and set the rest aside as .corrupt files.',
  );
}
