import { crc32 } from 'node:zlib';
import { sharedMemory } from './shared-memory.ts';

/**
 * A frame carries the writes of one group commit. It is encoded once; the same bytes go to the log file and, shared
 * and not copied, to the writer thread. These constants are part of the log's format: they change only together with
 * `LOG_FORMAT` (engine/log/segment.ts). All numbers are little-endian.
 *
 *      0  u32  magic "SLFR"
 *      4  u32  CRC-32 of everything from byte 8 on, seeded with the salt of the segment
 *      8  u32  length of the whole frame in bytes
 *     12  u32  count of writes: the frame holds the sequence numbers firstSeq … firstSeq + count - 1
 *     16  u64  firstSeq
 *     24  u64  synced-up-to: this segment was on the disk up to this offset when the frame was handed to the system
 *     32  u32  number of words W
 *     36  u32  length of the dictionary in UTF-16 units
 *     40  u32  length of the text in bytes T
 *     44  u32  length of the blobs in bytes
 *     48  f64  when the first write was accepted, milliseconds since 1970 (for people, never for order)
 *     56  W × u32   the records, see below
 *         T bytes   the dictionary (JSON), then all keys, values and text parameters, end to end, UTF-8
 *         …         all blobs, end to end
 *
 * A record is a word `kind | index << 4`, where the index names the target in the dictionary, and then:
 *
 *     putText  key length, value length (UTF-16 units)      append, stage  parameter count, then each parameter:
 *     putBlob  key length, value length (bytes)                null            0
 *     delete   key length                                      real            1, and two words
 *     clear    -                                               integer         2, and two words (int64)
 *     ensure   -                                               text            3 | length (units) << 3
 *     group    (index: how many records follow in it)          blob            4 | length (bytes) << 3
 *
 * Lengths of text are in UTF-16 units because the reader decodes the text in one call and then takes substrings of it:
 * three times as fast as decoding each string. The salt keeps a piece of another segment, which may well lie inside a
 * stored blob, from passing as a frame.
 *
 * Of an encrypted frame only the first 32 bytes are so, with the magic "SLFE"; what a keyring makes of the others follows, bound to
 * the database, to firstSeq and to the count.
 *
 * Rejected: one length-prefixed record after another (a call into the runtime per string), and MessagePack or JSON for
 * the whole (twice the time, and no place for a synced-up-to offset).
 */
export const FRAME_MAGIC = 0x52464c53;
export const SEALED_FRAME_MAGIC = 0x45464c53;
export const FRAME_HEADER_BYTES = 56;
export const FRAME_LENGTH_MAX = 0x7fffffff;

export const offsets = {
  magic: 0,
  checksum: 4,
  length: 8,
  count: 12,
  firstSeq: 16,
  syncedUpTo: 24,
  words: 32,
  dictionary: 36,
  text: 40,
  blobs: 44,
  acceptedAt: 48,
} as const;

/** What a record does. */
export const Kind = {
  putText: 1,
  putBlob: 2,
  delete: 3,
  clear: 4,
  append: 5,
  stage: 6,
  ensure: 7,
  group: 8,
} as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

/** How a parameter of a statement is written down. */
export const Tag = { null: 0, real: 1, integer: 2, text: 3, blob: 4 } as const;

/** A value as SQLite stores it. Whole numbers arrive as bigint, so that none is bound as a floating-point number. */
export type SqlValue = null | number | bigint | string | Uint8Array;

/** The encoded writes of one group commit. `bytes` lies on shared memory and must never be detached. */
export interface Frame {
  readonly bytes: Buffer;
  readonly firstSeq: number;
  readonly lastSeq: number;
}

/** When the first write of a frame was accepted: milliseconds since 1970. */
export function acceptedAtOf({ bytes }: Frame): number {
  return bytes.readDoubleLE(offsets.acceptedAt);
}

/** Marks a frame for its place in a segment, as the last thing before it is written there. */
export function stampFrame(bytes: Buffer, syncedUpTo: number, salt: number): void {
  writeU64(bytes, offsets.syncedUpTo, syncedUpTo);
  bytes.writeUInt32LE(checksumOf(bytes, salt), offsets.checksum);
}

/** Finds out whether a whole, undamaged frame of this segment starts at `offset`; `undefined` if not. */
export function frameAt(
  segment: Buffer,
  offset: number,
  salt: number,
): { length: number; firstSeq: number; lastSeq: number; syncedUpTo: number } | undefined {
  if (segment.length - offset < FRAME_HEADER_BYTES) return undefined;
  const magic = segment.readUInt32LE(offset + offsets.magic);
  if (magic !== FRAME_MAGIC && magic !== SEALED_FRAME_MAGIC) return undefined;
  const length = segment.readUInt32LE(offset + offsets.length);
  if (length < FRAME_HEADER_BYTES || length > segment.length - offset) return undefined;
  const bytes = segment.subarray(offset, offset + length);
  if (bytes.readUInt32LE(offsets.checksum) !== checksumOf(bytes, salt)) return undefined;
  const firstSeq = readU64(bytes, offsets.firstSeq);
  const count = bytes.readUInt32LE(offsets.count);
  return { length, firstSeq, lastSeq: firstSeq + count - 1, syncedUpTo: readU64(bytes, offsets.syncedUpTo) };
}

/** A frame of its own from bytes that lie in a larger buffer: on shared memory, and aligned for the reader. */
export function copyFrame(bytes: Uint8Array): Frame {
  const copy = sharedMemory(bytes.length);
  copy.set(bytes);
  const firstSeq = readU64(copy, offsets.firstSeq);
  return { bytes: copy, firstSeq, lastSeq: firstSeq + copy.readUInt32LE(offsets.count) - 1 };
}

export function writeU64(bytes: Buffer, offset: number, value: number): void {
  bytes.writeUInt32LE(value >>> 0, offset);
  bytes.writeUInt32LE(Math.floor(value / 0x1_0000_0000), offset + 4);
}

export function readU64(bytes: Buffer, offset: number): number {
  return bytes.readUInt32LE(offset + 4) * 0x1_0000_0000 + bytes.readUInt32LE(offset);
}

function checksumOf(bytes: Buffer, salt: number): number {
  return crc32(bytes.subarray(offsets.length), salt);
}
