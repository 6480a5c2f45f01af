/** Shared with a reader thread, to which no message comes while it runs a query: the number of the one that is to stop. */
export type StopWord = Int32Array;

const NONE = -1;
const ALL = -2;

export function stopWord(): StopWord {
  return new Int32Array(new SharedArrayBuffer(4)).fill(NONE);
}

export function callOff(word: StopWord, query: number): void {
  Atomics.store(word, 0, query);
}

/** For a thread that is given up on: what waits on it has lost its callers. */
export function callOffAll(word: StopWord): void {
  Atomics.store(word, 0, ALL);
}

/** Looked at between two rows. */
export function isCalledOff(word: StopWord, query: number): boolean {
  const stopped = Atomics.load(word, 0);
  return stopped === query || stopped === ALL;
}
