/** Memory that another thread can read. */
export function sharedMemory(length: number): Buffer {
  return Buffer.from(new SharedArrayBuffer(length));
}

/**
 * The same for a frame that was read, which is no garbage of anybody's writing. V8 leaves shared memory out of account when it
 * decides whether to collect garbage: frames that nobody needs any more gathered during a recovery until there was enough other
 * garbage. So each has a weight, a buffer of the same length that is not shared, that V8 does count. For frames that are built it is
 * not worth its memory: what is written is garbage enough.
 */
export function weighedMemory(length: number): Buffer {
  const bytes = sharedMemory(length);
  weights.set(bytes, new ArrayBuffer(length));
  return bytes;
}

const weights = new WeakMap<Buffer, ArrayBuffer>();
