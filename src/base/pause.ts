import type { Clock } from './clock.ts';

/** A pause between two attempts, which can be cut short. Holds the process: something is still to be done. */
export class Pause {
  readonly #clock: Clock;
  #end: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async wait(delayMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = this.#clock.after(delayMs, resolve, { hold: true });
      this.#end = () => {
        timer.cancel();
        resolve();
      };
    });
    this.#end = undefined;
  }

  /** Ends the pause that is being waited for, if there is one. */
  cutShort(): void {
    this.#end?.();
  }
}
