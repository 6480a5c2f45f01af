/** A timer that can be called off. */
export interface Timer {
  cancel(): void;
}

/** Time, passed in so that a test can hold it still. */
export interface Clock {
  /** Wall-clock time in milliseconds since the Unix epoch. For people only: order never depends on it. */
  now(): number;
  /** Milliseconds from an arbitrary start, never going back. For durations and deadlines. */
  elapsed(): number;
  /**
   * Calls `run` once after `delayMs`. A timer with `hold: false` does not keep the process alive.
   */
  after(delayMs: number, run: () => void, options?: { hold?: boolean }): Timer;
}

/** Node.js takes a longer delay for one of 1 ms. */
const DELAY_MAX_MS = 2 ** 31 - 1;

/** The machine's own time. */
export const systemClock: Clock = {
  now: () => Date.now(),
  elapsed: () => performance.now(),
  after(delayMs, run, { hold = false } = {}) {
    const timer = setTimeout(run, Math.min(delayMs, DELAY_MAX_MS));
    if (!hold) timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
};
