import type { Clock, Timer } from '../../dist/base/clock.js';

interface Waiting {
  readonly at: number;
  readonly run: () => void;
}

/** Time that stands still until it is told to go on. */
export class HeldClock implements Clock {
  #elapsed = 0;
  #waiting: Waiting[] = [];

  now(): number {
    return 1_700_000_000_000 + this.#elapsed;
  }

  elapsed(): number {
    return this.#elapsed;
  }

  after(delayMs: number, run: () => void): Timer {
    const timer: Waiting = { at: this.#elapsed + delayMs, run };
    this.#waiting.push(timer);
    return {
      cancel: () => {
        this.#waiting = this.#waiting.filter((other) => other !== timer);
      },
    };
  }

  /** How many timers are set. */
  get timers(): number {
    return this.#waiting.length;
  }

  /** How long it is until the next of them goes off; `undefined` for never. */
  get nextIn(): number | undefined {
    if (this.#waiting.length === 0) return undefined;
    return Math.max(0, Math.min(...this.#waiting.map(({ at }) => at)) - this.#elapsed);
  }

  /** Lets time pass: what falls due runs, in order. */
  advance(ms: number): void {
    this.#elapsed += ms;
    for (;;) {
      const due = this.#waiting.filter(({ at }) => at <= this.#elapsed).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) return;
      this.#waiting = this.#waiting.filter((other) => other !== due);
      due.run();
    }
  }
}
