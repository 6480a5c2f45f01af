import { randomInt } from 'node:crypto';

/** Nobody outside can easily choose texts that have the same hash. */
const SEED = randomInt(2 ** 31);

/** 32 bits that are the same for equal texts in this thread, of a part of a text or all of it. */
export function hashOf(text: string, start = 0, end: number = text.length): number {
  let hash = SEED;
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193);
  // Buckets are told by the low bits, on which the last characters have acted once only.
  return hash ^ (hash >>> 15);
}
