import { crc32 } from 'node:zlib';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { copyFrame, FRAME_HEADER_BYTES, type Frame, frameAt, stampFrame } from '../../dist/base/frame/index.js';
import { asStored, frameOf, Targets, type Write, write, writesOf } from '../support/writes.ts';

const writes = fc.array(write, { minLength: 1, maxLength: 12 });
const seq = fc.oneof(
  fc.integer({ min: 1, max: 1000 }),
  fc.integer({ min: 2 ** 31, max: Number.MAX_SAFE_INTEGER - 20 }),
);
const salt = fc.integer({ min: 0, max: 0xffffffff });

/** A buffer with the frame at an odd place between other bytes, as it lies in a segment. */
function inSegment(frame: Frame, at: number, after: number): Buffer {
  const segment = Buffer.alloc(at + frame.bytes.length + after, 0xa5);
  segment.set(frame.bytes, at);
  return segment;
}

function flipped(bytes: Buffer, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[bit >>> 3] = (copy[bit >>> 3] as number) ^ (1 << (bit & 7));
  return copy;
}

describe('a frame', () => {
  test('gives back what was put in, in order and under the numbers it was given', () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(writes, seq, salt, fc.nat(200), (given, firstSeq, segmentSalt, at) => {
        for (const each of given) seen.add(each.kind);
        const frame = frameOf(given, firstSeq);
        expect(frame.lastSeq).toBe(firstSeq + given.length - 1);
        stampFrame(frame.bytes, 4711, segmentSalt);
        const segment = inSegment(frame, at, 9);
        const found = frameAt(segment, at, segmentSalt);
        expect(found).toEqual({ length: frame.bytes.length, firstSeq, lastSeq: frame.lastSeq, syncedUpTo: 4711 });
        const copy = copyFrame(segment.subarray(at, at + frame.bytes.length));
        expect(copy).toMatchObject({ firstSeq, lastSeq: frame.lastSeq });
        for (const { bytes } of [frame, copy]) {
          expect(writesOf(bytes)).toEqual(given.map((each, i) => ({ seq: firstSeq + i, write: asStored(each) })));
        }
      }),
      { numRuns: 400 },
    );
    expect([...seen].sort()).toEqual(['append', 'clear', 'delete', 'ensure', 'group', 'put', 'stage']);
  });

  test('does not depend on the frames that the same targets were in before', () => {
    fc.assert(
      fc.property(fc.array(writes, { minLength: 2, maxLength: 4 }), (frames) => {
        const targets = new Targets();
        for (const given of frames) {
          const alone = frameOf(given, 1);
          expect(Buffer.compare(frameOf(given, 1, targets).bytes, alone.bytes)).toBe(0);
        }
      }),
      { numRuns: 100 },
    );
  });

  test('tells real numbers from integers, and keeps the sign of zero only where SQLite can', () => {
    const values = [1.5, -0, 0, 2 ** 53, -(2n ** 63n), 2n ** 63n - 1n, Number.MIN_SAFE_INTEGER, 1e308, 5e-324];
    const frame = frameOf([{ kind: 'append', table: 't', sql: 's', values }], 1);
    const read = writesOf(frame.bytes).map(({ write }) => (write.kind === 'append' ? write.values : undefined));
    expect(read[0]).toEqual([
      1.5,
      0n,
      0n,
      2 ** 53,
      -(2n ** 63n),
      2n ** 63n - 1n,
      BigInt(Number.MIN_SAFE_INTEGER),
      1e308,
      5e-324,
    ]);
  });

  test('is not accepted with the salt of another segment', () => {
    fc.assert(
      fc.property(writes, salt, salt, (given, mine, other) => {
        fc.pre(mine !== other);
        const frame = frameOf(given, 1);
        stampFrame(frame.bytes, 64, mine);
        expect(frameAt(frame.bytes, 0, mine)).toBeDefined();
        expect(frameAt(frame.bytes, 0, other)).toBeUndefined();
      }),
    );
  });

  test('is not found one byte off, nor inside a value that holds a frame of another segment', () => {
    const inner = frameOf([{ kind: 'put', table: 't', key: 'k', value: 'stale' }], 5);
    stampFrame(inner.bytes, 64, 1);
    const value = Uint8Array.from(inner.bytes);
    const outer = frameOf([{ kind: 'put', table: 't', key: 'k', value }], 9);
    stampFrame(outer.bytes, 64, 2);
    const found: number[] = [];
    for (let at = 0; at <= outer.bytes.length; at++) if (frameAt(outer.bytes, at, 2) !== undefined) found.push(at);
    expect(found).toEqual([0]);
  });
});

describe('a damaged frame is never taken for a whole one', () => {
  test('under any cut', () => {
    let cuts = 0;
    fc.assert(
      fc.property(writes, salt, fc.nat(70), (given, segmentSalt, at) => {
        const frame = frameOf(given, 1);
        stampFrame(frame.bytes, 64, segmentSalt);
        const segment = inSegment(frame, at, 0);
        for (let length = at; length < segment.length; length++) {
          if (frameAt(segment.subarray(0, length), at, segmentSalt) !== undefined) {
            throw new Error(`accepted with ${segment.length - length} bytes missing`);
          }
          cuts++;
        }
        // What a file system leaves behind when the length is on the disk and the data is not.
        for (const length of [0, 1, 4, 8, FRAME_HEADER_BYTES - 1, FRAME_HEADER_BYTES, frame.bytes.length - 1]) {
          if (segment.subarray(at + length).every((byte) => byte === 0)) continue;
          expect(frameAt(Buffer.from(segment).fill(0, at + length), at, segmentSalt)).toBeUndefined();
        }
      }),
      { numRuns: 60 },
    );
    expect(cuts).toBeGreaterThan(1000);
  });

  test('under any flip of one bit of a small one', () => {
    fc.assert(
      fc.property(fc.array(write, { minLength: 1, maxLength: 3 }), salt, fc.nat(70), (given, segmentSalt, at) => {
        const frame = frameOf(given, 1);
        stampFrame(frame.bytes, 64, segmentSalt);
        // Room behind it, so that a longer length would still lie within the segment.
        const segment = inSegment(frame, at, 600);
        for (let bit = at * 8; bit < (at + frame.bytes.length) * 8; bit++) {
          if (frameAt(flipped(segment, bit), at, segmentSalt) !== undefined)
            throw new Error(`accepted with bit ${bit}`);
        }
      }),
      { numRuns: 15 },
    );
  });

  test('under a sample of flips and overwritten stretches of a large one', () => {
    const body = fc.array(write, { minLength: 30, maxLength: 60 });
    const scars = fc.array(
      fc.record({
        at: fc.nat(10_000_000),
        length: fc.integer({ min: 1, max: 512 }),
      }),
      {
        minLength: 50,
        maxLength: 50,
      },
    );
    fc.assert(
      fc.property(body, salt, scars, (given: readonly Write[], segmentSalt, places) => {
        const frame = frameOf(given, 1);
        stampFrame(frame.bytes, 64, segmentSalt);
        for (const { at, length } of places) {
          const bit = at % (frame.bytes.length * 8);
          expect(frameAt(flipped(frame.bytes, bit), 0, segmentSalt)).toBeUndefined();
          const end = Math.min((bit >>> 3) + length, frame.bytes.length);
          const lost = Buffer.from(frame.bytes).fill(0, bit >>> 3, end);
          if (lost.equals(frame.bytes)) continue;
          expect(frameAt(lost, 0, segmentSalt)).toBeUndefined();
        }
      }),
      { numRuns: 20 },
    );
  });
});

describe('the checksum', () => {
  test('is CRC-32 as in ISO 3309, from byte 8 on, seeded with the salt', () => {
    expect(crc32(Buffer.from('123456789'))).toBe(0xcbf43926);
    const frame = frameOf([{ kind: 'delete', table: 't', key: 'k' }], 7);
    stampFrame(frame.bytes, 64, 0);
    expect(frame.bytes.readUInt32LE(4)).toBe(bitwiseCrc32(frame.bytes.subarray(8), 0));
    stampFrame(frame.bytes, 64, 0xdeadbeef);
    expect(frame.bytes.readUInt32LE(4)).toBe(bitwiseCrc32(frame.bytes.subarray(8), 0xdeadbeef));
  });
});

/** By the book, a bit at a time: so that another zlib, or another polynomial, cannot slip in. */
function bitwiseCrc32(bytes: Uint8Array, seed: number): number {
  let crc = ~seed >>> 0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}
