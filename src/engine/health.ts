import { SluiceError } from '../base/errors.ts';
import type { Emit, EngineEvents, State } from './events.ts';

/** The parts that can be in trouble by themselves. */
export type Part = 'log' | 'flush';

type Trouble = 'degraded' | 'space';

/** The state of the database as one word, put together from its parts. */
export class Health {
  readonly #emit: Emit<EngineEvents>;
  readonly #troubles = new Map<Part, Trouble>();
  readonly #whenFailed: (() => void)[] = [];
  #phase: 'open' | 'failed' | 'closing' | 'closed' = 'open';
  #state: State = 'ok';
  /** What ended it, in the state `failed`. */
  cause: Error | undefined;

  constructor(emit: Emit<EngineEvents>) {
    this.#emit = emit;
  }

  get state(): State {
    return this.#state;
  }

  /** A part cannot do its work now and goes on trying. */
  trouble(part: Part, trouble: Trouble, error: Error): void {
    this.#emit('failure', { during: part, error });
    this.#troubles.set(part, trouble);
    this.#update(error.message);
  }

  recovered(part: Part): void {
    if (this.#troubles.delete(part)) this.#update(undefined);
  }

  /** Calls `stop` when there is no going on. */
  onFailed(stop: () => void): void {
    this.#whenFailed.push(stop);
  }

  fail(part: Part, error: Error): void {
    if (this.#phase === 'failed' || this.#phase === 'closed') return;
    this.cause = error;
    this.#phase = 'failed';
    this.#emit('failure', { during: part, error });
    this.#update(error.message);
    for (const stop of this.#whenFailed) stop();
  }

  close(phase: 'closing' | 'closed'): void {
    if (this.#phase === 'failed' && phase === 'closing') return;
    this.#phase = phase;
    this.#update(undefined);
  }

  /** Throws once everything is closed. */
  assertOpen(): void {
    if (this.#phase !== 'closed') return;
    throw new SluiceError('SLUICE_CLOSED', 'the database is closed: open it again to use it');
  }

  #update(reason: string | undefined): void {
    const troubles = [...this.#troubles.values()];
    const trouble = troubles.includes('space') ? 'space' : troubles.length > 0 ? 'degraded' : 'ok';
    const state = this.#phase === 'open' ? trouble : this.#phase;
    if (state === this.#state) return;
    const previous = this.#state;
    this.#state = state;
    this.#emit('state', { state, previous, reason });
  }
}
