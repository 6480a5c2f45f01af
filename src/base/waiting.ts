import type { Clock } from './clock.ts';
import { SluiceError } from './errors.ts';
import { isPlainObject, show, unknownOption } from './options.ts';

/** What every waiting promise of Sluice takes. */
export interface WaitOptions {
  /** Gives up waiting when aborted: `SLUICE_ABORTED`, with the signal's reason as `cause`. What was accepted stays accepted. */
  readonly signal?: AbortSignal | undefined;
  /** Gives up waiting after this many milliseconds: `SLUICE_TIMEOUT`. Integer of at least 1. @defaultValue no limit */
  readonly timeoutMs?: number | undefined;
}

/** A promise with its two ends outside. `Promise.withResolvers` needs Node 22. */
export class Deferred<T> {
  readonly promise: Promise<T>;
  resolve!: (value: T) => void;
  reject!: (reason: unknown) => void;

  constructor() {
    this.promise = new Promise<T>((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // Whoever awaits the promise still sees the rejection; nobody awaiting it is no accident of the process.
    this.promise.catch(ignore);
  }
}

function ignore(): void {}

const WAIT_OPTIONS: readonly string[] = ['signal', 'timeoutMs'];

/**
 * Refuses a limit that cannot be one, and what is neither a limit nor one of the `others`. Whoever accepts something and then
 * waits checks it first.
 */
export function checkWait(wait: WaitOptions = {}, others: readonly string[] = []): void {
  if (!isPlainObject(wait)) {
    throw new SluiceError('SLUICE_INVALID_OPTION', `options of a wait must be an object, not ${show(wait)}`);
  }
  for (const name of Object.keys(wait)) {
    if (WAIT_OPTIONS.includes(name) || others.includes(name)) continue;
    throw new SluiceError('SLUICE_INVALID_OPTION', unknownOption(name, [...WAIT_OPTIONS, ...others]));
  }
  const { signal, timeoutMs }: WaitOptions = wait;
  if (signal !== undefined && typeof (signal as Partial<AbortSignal> | null)?.addEventListener !== 'function') {
    throw new SluiceError('SLUICE_INVALID_OPTION', 'signal must be an AbortSignal');
  }
  if (timeoutMs === undefined || (Number.isInteger(timeoutMs) && timeoutMs >= 1)) return;
  throw new SluiceError('SLUICE_INVALID_OPTION', `timeoutMs must be an integer of at least 1, not ${show(timeoutMs)}`);
}

/** Whether something looks like limits of a wait: it has nothing else. */
export function isWait(given: unknown): given is WaitOptions {
  if (!isPlainObject(given)) return false;
  const names = Object.keys(given);
  return names.length > 0 && names.every((name) => WAIT_OPTIONS.includes(name));
}

/** Whether `promise` is settled within a time, either way. Holds the process: its caller waits for the answer. */
export function settledWithin(promise: Promise<unknown>, limitMs: number, clock: Clock): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = clock.after(limitMs, () => resolve(false), { hold: true });
    const settled = () => {
      timer.cancel();
      resolve(true);
    };
    promise.then(settled, settled);
  });
}

/**
 * `promise`, given up on when the signal aborts or the time is over. The work behind it goes on: `onGiveUp` is where a
 * caller calls it off.
 */
export function waitFor<T>(
  promise: Promise<T>,
  what: string,
  { signal, timeoutMs }: WaitOptions,
  clock: Clock,
  onGiveUp?: () => void,
): Promise<T> {
  if (signal === undefined && timeoutMs === undefined) return promise;
  checkWait({ signal, timeoutMs });
  return new Promise<T>((resolve, reject) => {
    const giveUp = (error: SluiceError) => {
      finish();
      onGiveUp?.();
      reject(error);
    };
    const onAbort = () =>
      giveUp(new SluiceError('SLUICE_ABORTED', `${what} was aborted by its signal`, { cause: signal?.reason }));
    const timer =
      timeoutMs === undefined
        ? undefined
        : clock.after(
            timeoutMs,
            () => giveUp(new SluiceError('SLUICE_TIMEOUT', `${what} did not finish within ${timeoutMs} ms`)),
            { hold: true },
          );
    const finish = () => {
      timer?.cancel();
      signal?.removeEventListener('abort', onAbort);
    };
    if (signal?.aborted) {
      promise.catch(ignore);
      return onAbort();
    }
    signal?.addEventListener('abort', onAbort);
    promise.then(
      (value) => {
        finish();
        resolve(value);
      },
      (error: unknown) => {
        finish();
        reject(error);
      },
    );
  });
}

/** Limits of which a part is used up: asked later, what is left of them. */
export function limitsFrom({ signal, timeoutMs }: WaitOptions, clock: Clock): () => WaitOptions {
  const start = clock.elapsed();
  return () => ({ signal, timeoutMs: timeoutMs && Math.max(1, Math.ceil(timeoutMs - (clock.elapsed() - start))) });
}

/**
 * Work that can be called off, within the limits of whoever waits for it. Unlike {@link waitFor} it does not leave the work
 * behind: it rejects when that has come to its end.
 */
export async function stoppable<T>(
  what: string,
  wait: WaitOptions,
  clock: Clock,
  stop: AbortController,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const done = new Deferred<void>();
  waitFor(done.promise, what, wait, clock).catch((error: unknown) => stop.abort(error));
  try {
    // A signal that is aborted already says so in a microtask.
    await Promise.resolve();
    stop.signal.throwIfAborted();
    return await work(stop.signal);
  } catch (error) {
    throw stop.signal.aborted ? stop.signal.reason : error;
  } finally {
    done.resolve();
  }
}

/** Resolves after a time, or when the signal aborts, which whoever sleeps looks at then. Holds the process. */
export function sleep(delayMs: number, clock: Clock, signal?: AbortSignal): Promise<void> {
  if (delayMs <= 0 || signal?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = () => {
      timer.cancel();
      signal?.removeEventListener('abort', end);
      resolve();
    };
    const timer = clock.after(delayMs, end, { hold: true });
    signal?.addEventListener('abort', end);
  });
}
