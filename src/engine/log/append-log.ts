import { join } from 'node:path';
import type { Keyring } from '../../base/encryption/index.ts';
import type { DiskClass } from '../../base/failure.ts';
import type { FileSystem, LogFile } from '../../base/file-system.ts';
import { acceptedAtOf, type Frame, sealFrame, stampFrame } from '../../base/frame/index.ts';
import { LogFailure, type LogOperation } from './log-failure.ts';
import { encodeHeader, SEGMENT_HEADER_BYTES, type SegmentEnd, saltOf, segmentName } from './segment.ts';

export interface AppendLogOptions {
  readonly fileSystem: FileSystem;
  readonly directory: string;
  readonly databaseId: string;
  readonly epoch: number;
  /** A segment that has reached this size is sealed. */
  readonly segmentBytes: number;
  /** Encrypts the frames on their way to the disk. */
  readonly keyring?: Keyring | undefined;
}

/** A segment that is complete: it waits until everything in it is applied. */
export interface SealedSegment {
  readonly number: number;
  readonly lastSeq: number;
  readonly bytes: number;
}

/** What the log goes on from: the outcome of recovery. */
export interface LogStart {
  readonly sealed: readonly SealedSegment[];
  readonly end: SegmentEnd;
  /** Names up to this number are, or may be, taken. */
  readonly highestNumber: number;
}

/** What can be read of the log without asking the disk. */
export type LogNumbers = Pick<AppendLog, 'bytes' | 'segments' | 'bytesWritten' | 'segmentsDeleted' | 'errors'>;

interface OpenSegment {
  readonly number: number;
  readonly file: LogFile;
  readonly salt: number;
  offset: number;
  lastSeq: number;
  syncedOffset: number;
  syncedSeq: number;
}

/**
 * The log on the disk. Not safe for calls side by side: the group commit makes them one after the other.
 *
 *     append(frames)   they wait in `#waiting`
 *     write()          waiting → handed to the system, in `#unsynced`
 *     sync()           unsynced → on the disk, forgotten here
 *
 * Invariants
 * 1. A frame is in memory, here, until it is synced or applied: whatever fails, it can be written again.
 * 2. A segment is synced to its end, and the next one's header and name are synced, before the next one takes a frame.
 * 3. A file whose fdatasync has failed, or that may hold a part of a frame, is never written, synced or acknowledged
 *    from again: it validly ends where it was last synced, which the header of the next segment says; everything
 *    behind that point is written again there, with the same sequence numbers.
 *
 * After a failure of any call, calling `write()` and `sync()` again is the repair.
 *
 * Rejected: going on in the same file after a failed sync (the kernel reports a lost page once and then calls it
 * clean), and preallocated segments (a torn tail would have to be told from zeroes).
 */
export class AppendLog {
  readonly #options: AppendLogOptions;
  readonly #sealed: SealedSegment[];
  #epoch: number;
  #open: OpenSegment | undefined;
  #end: SegmentEnd;
  #highestNumber: number;
  #waiting: Frame[] = [];
  #unsynced: Frame[] = [];
  #sealedBytes: number;
  #syncedSeq: number;
  bytesWritten = 0;
  segmentsDeleted = 0;
  /** Operations that the disk refused. */
  readonly errors: Readonly<Record<LogOperation, Record<DiskClass, number>>> = {
    create: noErrors(),
    write: noErrors(),
    fsync: noErrors(),
    delete: noErrors(),
  };

  constructor(options: AppendLogOptions, start: LogStart) {
    this.#options = options;
    this.#epoch = options.epoch;
    this.#sealed = [...start.sealed];
    this.#sealedBytes = start.sealed.reduce((total, { bytes }) => total + bytes, 0);
    this.#end = start.end;
    // Recovery has synced every segment that it kept.
    this.#syncedSeq = start.end.lastSeq;
    this.#highestNumber = start.highestNumber;
  }

  /** Size of all segments on the disk. */
  get bytes(): number {
    return this.#sealedBytes + (this.#open?.offset ?? 0);
  }

  get segments(): number {
    return this.#sealed.length + (this.#open === undefined ? 0 : 1);
  }

  /** Whether frames wait to be written. */
  get hasWaiting(): boolean {
    return this.#waiting.length > 0;
  }

  /** Whether there is a segment that could be sealed. */
  get hasOpen(): boolean {
    return this.#open !== undefined;
  }

  get hasUnsynced(): boolean {
    return this.#unsynced.length > 0;
  }

  /** Every write up to this one is on the disk. */
  get syncedSeq(): number {
    return this.#syncedSeq;
  }

  /** Bytes that are neither on the disk nor forgotten, and when the first of them was accepted. */
  get unsynced(): { readonly bytes: number; readonly since: number | undefined } {
    const frames = [...this.#unsynced, ...this.#waiting];
    const [first] = frames;
    return {
      bytes: frames.reduce((total, frame) => total + frame.bytes.length, 0),
      since: first === undefined ? undefined : acceptedAtOf(first),
    };
  }

  append(frames: readonly Frame[]): void {
    this.#waiting.push(...frames);
  }

  /** Hands everything that waits to the operating system; returns how many bytes that were. */
  async write(): Promise<number> {
    let total = 0;
    while (this.#waiting.length > 0) {
      if (this.#open !== undefined && this.#open.offset >= this.#options.segmentBytes) await this.seal();
      const segment = this.#open ?? (await this.#create());
      const frame = this.#waiting[0] as Frame;
      const bytes = this.#bytesOf(frame);
      stampFrame(bytes, segment.syncedOffset, segment.salt);
      await this.#writeFrame(segment, bytes);
      segment.lastSeq = frame.lastSeq;
      this.#waiting.shift();
      this.#unsynced.push(frame);
      total += bytes.length;
    }
    return total;
  }

  /** Waits until everything written is on the disk. */
  async sync(): Promise<void> {
    const segment = this.#open;
    if (segment === undefined || segment.syncedOffset === segment.offset) return;
    try {
      await segment.file.datasync();
    } catch (error) {
      await this.#abandon(segment);
      throw this.#failure('fsync', error);
    }
    segment.syncedOffset = segment.offset;
    segment.syncedSeq = this.#syncedSeq = segment.lastSeq;
    this.#unsynced = [];
  }

  /** Ends the open segment, so that it can be deleted once everything in it is applied. */
  async seal(): Promise<void> {
    await this.sync();
    const segment = this.#open;
    if (segment === undefined) return;
    this.#retire(segment, segment.offset, segment.lastSeq);
    // It is synced to its end: whatever closing says, nothing depends on it.
    await segment.file.close().catch(ignore);
  }

  /** Frames up to `seq` are safe in the store: they need not be kept in memory any longer. */
  forget(seq: number): void {
    if (this.#unsynced.length > 0 && (this.#unsynced[0] as Frame).lastSeq <= seq) {
      this.#unsynced = this.#unsynced.filter((frame) => frame.lastSeq > seq);
    }
  }

  /** Deletes the sealed segments that hold nothing above `seq`, which must be durable in the store; returns how many. */
  async release(seq: number): Promise<number> {
    let released = 0;
    while (this.#sealed[0] !== undefined && this.#sealed[0].lastSeq <= seq) {
      const { number, bytes } = this.#sealed[0];
      await this.#options.fileSystem.unlink(this.#path(number)).catch((error: { code?: string }) => {
        if (error.code !== 'ENOENT') throw this.#failure('delete', error);
      });
      this.#sealed.shift();
      this.#sealedBytes -= bytes;
      this.segmentsDeleted++;
      released++;
    }
    if (released > 0) await this.#syncDirectory();
    return released;
  }

  /**
   * Goes on for other data, which has everything up to `seq`: in a new segment, for which the ones before do not count. To be
   * called with nothing that waits; they are deleted with the next release.
   */
  async renew(epoch: number, seq: number): Promise<void> {
    const segment = this.#open;
    if (segment !== undefined) {
      this.#retire(segment, segment.offset, segment.lastSeq);
      await segment.file.close().catch(ignore);
    }
    this.forget(seq);
    this.#epoch = epoch;
    this.#end = { number: 0, offset: 0, lastSeq: seq };
    this.#syncedSeq = seq;
  }

  async close(): Promise<void> {
    const segment = this.#open;
    this.#open = undefined;
    await segment?.file.close().catch(ignore);
  }

  async #create(): Promise<OpenSegment> {
    const { fileSystem, databaseId } = this.#options;
    const epoch = this.#epoch;
    const number = ++this.#highestNumber;
    const first = (this.#waiting[0] as Frame).firstSeq;
    const header = encodeHeader({ databaseId, epoch, number, firstSeq: first, previous: this.#end });
    let file: LogFile | undefined;
    try {
      file = await fileSystem.create(this.#path(number));
      await writeAll(file, header, 0);
      await file.datasync();
      await fileSystem.syncDirectory(this.#options.directory);
    } catch (error) {
      // Nothing depends on the half-made file: recovery knows an empty segment, and its number is not used again.
      await file?.close().catch(ignore);
      await fileSystem.unlink(this.#path(number)).catch(ignore);
      throw this.#failure('create', error);
    }
    this.#open = {
      number,
      file,
      salt: saltOf(header),
      offset: SEGMENT_HEADER_BYTES,
      lastSeq: this.#end.lastSeq,
      syncedOffset: SEGMENT_HEADER_BYTES,
      syncedSeq: this.#end.lastSeq,
    };
    return this.#open;
  }

  #bytesOf(frame: Frame): Buffer {
    const { keyring, databaseId } = this.#options;
    return keyring === undefined ? frame.bytes : sealFrame(frame, keyring, databaseId);
  }

  async #writeFrame(segment: OpenSegment, bytes: Buffer): Promise<void> {
    try {
      await writeAll(segment.file, bytes, segment.offset);
      segment.offset += bytes.length;
      this.bytesWritten += bytes.length;
    } catch (error) {
      const failure = this.#failure('write', error);
      // A part of the frame may be there. With room or descriptors short the file itself is sound: cut it off.
      const cut = failure.failure !== 'reopen' && (await succeeds(segment.file.truncate(segment.offset)));
      if (!cut) await this.#abandon(segment);
      throw failure;
    }
  }

  /** Gives a segment up: it ends where it was last synced, and the rest is to be written again. */
  async #abandon(segment: OpenSegment): Promise<void> {
    this.#retire(segment, segment.syncedOffset, segment.syncedSeq);
    this.#waiting = [...this.#unsynced, ...this.#waiting];
    this.#unsynced = [];
    await segment.file.close().catch(ignore);
  }

  #retire(segment: OpenSegment, offset: number, lastSeq: number): void {
    this.#open = undefined;
    this.#end = { number: segment.number, offset, lastSeq };
    this.#sealed.push({ number: segment.number, lastSeq, bytes: segment.offset });
    this.#sealedBytes += segment.offset;
  }

  async #syncDirectory(): Promise<void> {
    try {
      await this.#options.fileSystem.syncDirectory(this.#options.directory);
    } catch (error) {
      throw this.#failure('fsync', error);
    }
  }

  #failure(operation: LogOperation, cause: unknown): LogFailure {
    const failure = new LogFailure(operation, cause);
    this.errors[operation][failure.failure]++;
    return failure;
  }

  #path(number: number): string {
    return join(this.#options.directory, segmentName(number));
  }
}

/** `write` may take a part only, and a full disk shows first as a part: the rest must be asked for. */
export async function writeAll(file: LogFile, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const written = await file.write(done === 0 ? bytes : bytes.subarray(done), position + done);
    if (written <= 0) throw Object.assign(new Error('the disk took no bytes'), { code: 'EIO' });
    done += written;
  }
}

async function succeeds(operation: Promise<void>): Promise<boolean> {
  try {
    await operation;
    return true;
  } catch {
    return false;
  }
}

/** For operations on a file that is synced or given up: whatever they say changes nothing. */
function ignore(): void {}

function noErrors(): Record<DiskClass, number> {
  return { transient: 0, space: 0, config: 0, reopen: 0 };
}
