/** A small seeded generator (mulberry32) for tests that are not properties, on the seed of the run. */
export function seededRandom(salt = 0): () => number {
  return randomFrom(Number(process.env['SLUICE_SEED'] ?? 1) ^ salt);
}

/** The same on a seed of one's own, such as a property draws. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}
