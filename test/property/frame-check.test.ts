import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { FrameReader, frameProblem } from '../../dist/base/frame/index.js';
import { frameOf, Targets, write, writesOf } from '../support/writes.ts';

const frames = fc
  .array(write, { minLength: 1, maxLength: 6 })
  .map((writes) => Buffer.from(frameOf(writes, 7, new Targets()).bytes));

/** On memory of its own, as the reader wants it. */
function aligned(bytes: Buffer): Buffer {
  const copy = Buffer.from(new ArrayBuffer(bytes.length));
  copy.set(bytes);
  return copy;
}

test('a frame that was built has no problem', () => {
  fc.assert(
    fc.property(frames, (bytes) => {
      expect(frameProblem(aligned(bytes))).toBeUndefined();
    }),
  );
});

test('of a frame with anything changed, the reader can walk over what passes, and the rest is told, and soon', () => {
  let told = 0;
  let passed = 0;
  fc.assert(
    fc.property(frames, fc.nat(), fc.integer({ min: 1, max: 255 }), (bytes, at, change) => {
      const damaged = aligned(bytes);
      const place = at % damaged.length;
      damaged[place] = (damaged[place] as number) ^ change;
      if (frameProblem(damaged) !== undefined) {
        told++;
        return;
      }
      passed++;
      const reader = new FrameReader(damaged);
      let records = 0;
      while (reader.next()) records++;
      expect(records).toBeGreaterThanOrEqual(writesOf(bytes).length);
    }),
    { numRuns: 2_000 },
  );
  expect(told).toBeGreaterThan(100);
  expect(passed).toBeGreaterThan(100);
});

test('a frame that is cut, or goes on, is told', () => {
  fc.assert(
    fc.property(frames, fc.nat(), (bytes, at) => {
      expect(frameProblem(aligned(bytes.subarray(0, at % bytes.length)))).toBeDefined();
      expect(frameProblem(aligned(Buffer.concat([bytes, Buffer.alloc((at % 9) + 1)])))).toBeDefined();
    }),
  );
});
