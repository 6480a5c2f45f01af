/** Above 32 MiB the allocator takes new pages of the system, which are not there before somebody touches them. */
const WEIGHT_BYTES = 33 * 1024 * 1024;

let unweighed = 0;
const weights = new WeakMap<Buffer, ArrayBuffer>();

/**
 * Memory that another thread can read.
 *
 * V8 leaves it out of account when it decides whether to collect garbage: a gigabyte of frames that nobody needed any more gathered,
 * while 30 MiB were in use. So for every 33 MiB there is a weight: a buffer of as many bytes that is not shared, which V8 does count, and
 * which lives as long as one of those frames. Nobody touches its pages, and so there are none.
 */
export function sharedMemory(length: number): Buffer {
  const bytes = Buffer.from(new SharedArrayBuffer(length));
  unweighed += length;
  if (unweighed >= WEIGHT_BYTES) weigh(bytes);
  return bytes;
}

function weigh(bytes: Buffer): void {
  try {
    weights.set(bytes, new ArrayBuffer(unweighed));
  } catch {
    // Where the address space is limited, garbage is found later: no reason to refuse a write.
  }
  unweighed = 0;
}
