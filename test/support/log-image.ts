import type { Frame } from '../../dist/base/frame/index.js';
import { Recovery } from '../../dist/engine/log/index.js';
import type { MemoryFileSystem } from './memory-file-system.ts';
import { frameOf, Targets, writesOf } from './writes.ts';

export const LOG = { directory: '/log', databaseId: '00112233445566778899aabbccddeeff', epoch: 1 };

/** How a new log begins. */
export const FRESH = { sealed: [], end: { number: 0, offset: 0, lastSeq: 0 }, highestNumber: 0 };

const targets = new Targets();

/** A frame of `writes` writes that each say their own number. */
export function numberedFrame(firstSeq: number, writes: number): Frame {
  const puts = Array.from({ length: writes }, (_, i) => ({
    kind: 'put' as const,
    table: 'data',
    key: `k${firstSeq + i}`,
    value: '',
  }));
  return frameOf(puts, firstSeq, targets);
}

/** The last write of the unbroken sequence that a recovery finds above `appliedSeq`. Throws on a hole or a refusal. */
export async function lastIn(fileSystem: MemoryFileSystem, appliedSeq: number): Promise<number> {
  const recovery = await Recovery.scan({ ...LOG, fileSystem, appliedSeq, policy: 'refuse', now: new Date(0) });
  let last = appliedSeq;
  for await (const frame of recovery.frames()) {
    for (const { seq } of writesOf(frame.bytes)) {
      if (seq <= appliedSeq) continue;
      if (seq !== last + 1) throw new Error(`write ${seq} follows write ${last}`);
      last = seq;
    }
  }
  return last;
}
