import { crc32 } from 'node:zlib';
import { FRAME_MAGIC, frameAt, readU64, SEALED_FRAME_MAGIC, writeU64 } from '../../base/frame/index.ts';

/** Version of segment header and frame. A reader refuses what it does not know. */
export const LOG_FORMAT = 1;

/**
 * A segment is one log file: this header, then frames end to end. Little-endian.
 *
 *      0  u32      magic "SLSG"            32  u64  the first sequence number it may hold
 *      4  u32      format                  40  u64  where the previous segment validly ends, 0 for none
 *      8  16 bytes database id             48  u64  the last sequence number before this segment
 *     24  u32      epoch                   56  u32  number of the previous segment, 0 for none
 *     28  u32      number                  60  u32  CRC-32 of the 60 bytes before; salt of the frames' checksums
 *
 * The header is synced, with the name of the file, before the first frame is written, and so is all of the previous
 * segment. So a segment that has a header vouches for the one before it, up to the end it names.
 */
export const SEGMENT_HEADER_BYTES = 64;

const SEGMENT_MAGIC = 0x47534c53;

export interface SegmentHeader {
  readonly databaseId: string;
  readonly epoch: number;
  readonly number: number;
  readonly firstSeq: number;
  readonly previous: SegmentEnd;
}

/** Where a segment ends, as its successor knows it. */
export interface SegmentEnd {
  readonly number: number;
  readonly offset: number;
  readonly lastSeq: number;
}

export function encodeHeader({ databaseId, epoch, number, firstSeq, previous }: SegmentHeader): Buffer {
  const bytes = Buffer.alloc(SEGMENT_HEADER_BYTES);
  bytes.writeUInt32LE(SEGMENT_MAGIC, 0);
  bytes.writeUInt32LE(LOG_FORMAT, 4);
  bytes.write(databaseId, 8, 'hex');
  bytes.writeUInt32LE(epoch, 24);
  bytes.writeUInt32LE(number, 28);
  writeU64(bytes, 32, firstSeq);
  writeU64(bytes, 40, previous.offset);
  writeU64(bytes, 48, previous.lastSeq);
  bytes.writeUInt32LE(previous.number, 56);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 60)), 60);
  return bytes;
}

/** The header of a segment, `undefined` where it is damaged, and only its format where that is not ours. */
export function decodeHeader(bytes: Buffer): SegmentHeader | { readonly unknownFormat: number } | undefined {
  if (bytes.length < SEGMENT_HEADER_BYTES || bytes.readUInt32LE(0) !== SEGMENT_MAGIC) return undefined;
  if (bytes.readUInt32LE(60) !== crc32(bytes.subarray(0, 60))) return undefined;
  const format = bytes.readUInt32LE(4);
  if (format !== LOG_FORMAT) return { unknownFormat: format };
  return {
    databaseId: bytes.toString('hex', 8, 24),
    epoch: bytes.readUInt32LE(24),
    number: bytes.readUInt32LE(28),
    firstSeq: readU64(bytes, 32),
    previous: { offset: readU64(bytes, 40), lastSeq: readU64(bytes, 48), number: bytes.readUInt32LE(56) },
  };
}

/** Salt of the frames of a segment: the checksum of its header, readable even where the rest of the header is not. */
export function saltOf(segment: Buffer): number {
  return segment.length < SEGMENT_HEADER_BYTES ? 0 : segment.readUInt32LE(60);
}

export function segmentName(number: number): string {
  return `${String(number).padStart(10, '0')}.log`;
}

/** The number of a segment by its file name; `undefined` for any other file. */
export function segmentNumber(name: string): number | undefined {
  return /^\d{10}\.log$/.test(name) ? Number(name.slice(0, 10)) : undefined;
}

/**
 * Whether any whole frame at or behind `from` promises that the segment was synced beyond `from`: then what is bad at
 * `from` was once good, and on the disk.
 */
export function isPromised(segment: Buffer, from: number, salt: number): boolean {
  const magic = Buffer.alloc(4);
  for (const each of [FRAME_MAGIC, SEALED_FRAME_MAGIC]) {
    magic.writeUInt32LE(each);
    for (let at = segment.indexOf(magic, from); at >= 0; at = segment.indexOf(magic, at + 1)) {
      const frame = frameAt(segment, at, salt);
      if (frame !== undefined && frame.syncedUpTo > from) return true;
    }
  }
  return false;
}
