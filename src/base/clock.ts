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

/** The machine's own time. */
export const systemClock: Clock = {
  now: () => Date.now(),
  elapsed: () => performance.now(),
  after(delayMs, run, { hold = false } = {}) {
    const timer = setTimeout(run, delayMs);
    if (!hold) timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
};
