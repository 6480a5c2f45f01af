/** A random number in [0, 1), passed in so that a test can repeat a run. */
export type Random = () => number;

/** The machine's own random numbers. */
export const systemRandom: Random = Math.random;
