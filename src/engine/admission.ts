import type { Clock } from '../base/clock.ts';
import { SluiceError, type SluiceErrorCode } from '../base/errors.ts';
import { checkWait, Deferred, type WaitOptions, waitFor } from '../base/waiting.ts';

export interface AdmissionOptions {
  readonly maxBytes: number;
  readonly maxEntries: number;
  /** Share of the limits above which `set` returns `false`; room is announced again at half of that. */
  readonly highWaterRatio: number;
  readonly whenFull: 'block' | 'reject';
  readonly maxBlockMs: number;
  readonly maxWaiting: number;
}

/** Well below what SQLite takes for one row (https://sqlite.org/limits.html), whatever the characters are. */
const WRITE_BYTES_MAX = 256 * 1024 * 1024;

/**
 * Why a write was turned away: `full` no room, `timeout` and `aborted` while it waited for room, `too_large` more than there can
 * ever be room for, `invalid` key, value, row or statement, `closed` and `failed` the state of the database.
 */
export type RefusalReason = 'full' | 'timeout' | 'aborted' | 'too_large' | 'invalid' | 'closed' | 'failed';

/** What admission needs to know of the rest, and has to tell it. */
export interface AdmissionEnvironment {
  /** Whether the log takes no more, whatever room staging has. Whoever changes that calls `admitWaiting`. */
  isLogFull(): boolean;
  onDrain(): void;
}

interface Waiter {
  readonly bytes: number;
  readonly admitted: Deferred<void>;
}

/**
 * Back-pressure: how much may be accepted and not yet applied. Whoever waits for room is served first come first
 * served, and nobody who does not wait may overtake.
 */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #clock: Clock;
  readonly #env: AdmissionEnvironment;
  readonly #waiting: Waiter[] = [];
  readonly #writeBytesMax: number;
  readonly #highBytes: number;
  readonly #highEntries: number;
  #needsDrain = false;
  #drained: Deferred<void> | undefined;
  #ended: SluiceError | undefined;
  /** Set while a write is made whose turn has come: room was kept for it, and who waits behind it does not count. */
  #serving = false;
  bytes = 0;
  entries = 0;
  /** Calls that were turned away, also by whoever stands before admission. */
  readonly refused: Record<RefusalReason, number> = {
    full: 0,
    timeout: 0,
    aborted: 0,
    too_large: 0,
    invalid: 0,
    closed: 0,
    failed: 0,
  };
  /** Writes that had to wait for room, and for how long together. */
  waits = 0;
  waitedMs = 0;

  constructor(options: AdmissionOptions, clock: Clock, env: AdmissionEnvironment) {
    this.#options = options;
    this.#clock = clock;
    this.#env = env;
    this.#writeBytesMax = Math.min(options.maxBytes, WRITE_BYTES_MAX);
    this.#highBytes = options.maxBytes * options.highWaterRatio;
    this.#highEntries = options.maxEntries * options.highWaterRatio;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get needsDrain(): boolean {
    return this.#needsDrain;
  }

  /** Whether staging is above its high mark, by what was recovered say. */
  get isHigh(): boolean {
    return this.bytes >= this.#highBytes || this.entries >= this.#highEntries;
  }

  hasRoom(bytes: number): boolean {
    return this.#waiting.length === 0 && this.#fits(bytes);
  }

  /** Refuses a write that there is no room for now, or never. */
  check(bytes: number): void {
    if (bytes > this.#writeBytesMax) {
      this.refused.too_large++;
      throw new SluiceError(
        'SLUICE_INVALID_VALUE',
        `a write of ${bytes} bytes is more than the ${this.#writeBytesMax} that one write may have: split it, or raise staging.maxBytes (up to ${WRITE_BYTES_MAX} of it count)`,
      );
    }
    if (this.#serving || this.hasRoom(bytes)) return;
    this.#refuse();
  }

  /** Refuses several writes of the caller's, so that they are accepted together or not at all. */
  checkMany(bytes: number, writes: number): void {
    const { maxBytes, maxEntries } = this.#options;
    if (bytes > maxBytes || writes > maxEntries) {
      this.refused.too_large++;
      throw new SluiceError(
        'SLUICE_INVALID_VALUE',
        `${writes} writes of ${bytes} bytes are more than staging holds at once: use the awaitable form, which goes on as there is room, or smaller parts`,
      );
    }
    if (this.#waiting.length > 0 || !this.#fits(bytes, writes)) this.#refuse();
  }

  #refuse(): never {
    this.refused.full++;
    this.#needsDrain = true;
    throw fullError();
  }

  /** Takes room; returns whether there is still plenty of it. */
  take(bytes: number): boolean {
    this.bytes += bytes;
    this.entries++;
    if (!this.isHigh) return true;
    this.#needsDrain = true;
    return false;
  }

  /** Gives room back, and lets in who waits. */
  release(bytes: number, entries: number): void {
    this.bytes -= bytes;
    this.entries -= entries;
    this.admitWaiting();
  }

  admitWaiting(): void {
    let first = this.#waiting[0];
    while (first !== undefined && this.#fits(first.bytes)) {
      this.#waiting.shift();
      first.admitted.resolve();
      // The write itself follows in a microtask, before any other code of the caller's: count it until then.
      this.bytes += first.bytes;
      this.entries++;
      first = this.#waiting[0];
    }
    const low = this.bytes <= this.#highBytes / 2 && this.entries <= this.#highEntries / 2;
    if (this.#needsDrain && low && this.#waiting.length === 0) {
      this.#needsDrain = false;
      this.#drained?.resolve();
      this.#drained = undefined;
      this.#env.onDrain();
    }
  }

  /**
   * Waits for room for a write, which is reserved until `use` has run: `use` makes the write, in the same turn in which
   * the room is given.
   */
  async whenRoom<T>(bytes: number, use: () => T | Promise<T>, wait: WaitOptions): Promise<T> {
    checkWait(wait);
    if (this.#ended !== undefined) throw this.#turnedAway(this.#ended);
    const { whenFull, maxWaiting, maxBlockMs } = this.#options;
    if (whenFull === 'reject' || this.#waiting.length >= maxWaiting || bytes > this.#writeBytesMax) this.check(bytes);
    this.#needsDrain = true;
    const waiter: Waiter = { bytes, admitted: new Deferred() };
    this.#waiting.push(waiter);
    const leave = () => {
      const place = this.#waiting.indexOf(waiter);
      if (place < 0) return;
      this.#waiting.splice(place, 1);
      this.admitWaiting();
    };
    const used = waiter.admitted.promise.then(() => {
      this.bytes -= bytes;
      this.entries--;
      this.#serving = true;
      try {
        return use();
      } finally {
        this.#serving = false;
        // It may have made no write after all: then nothing is applied that would let in the next ones.
        this.admitWaiting();
      }
    });
    used.catch(() => undefined);
    // The limit is about the room alone: what `use` waits for then has the caller's own.
    const limits = { signal: wait.signal, timeoutMs: wait.timeoutMs ?? maxBlockMs };
    const start = this.#clock.elapsed();
    try {
      await waitFor(waiter.admitted.promise, 'waiting for room', limits, this.#clock, leave);
    } catch (error) {
      throw this.#turnedAway(error as SluiceError);
    } finally {
      this.waits++;
      this.waitedMs += this.#clock.elapsed() - start;
    }
    return used;
  }

  #turnedAway(error: SluiceError): SluiceError {
    const reason = REASONS[error.code];
    if (reason !== undefined) this.refused[reason]++;
    return error;
  }

  /** Resolves when there is plenty of room, at once if there is. */
  async whenDrained(): Promise<void> {
    if (!this.#needsDrain) return;
    if (this.#ended !== undefined) throw this.#ended;
    this.#drained ??= new Deferred();
    await this.#drained.promise;
  }

  /** There will be no more room: turns away everybody who waits. */
  end(error: SluiceError): void {
    this.#ended = error;
    this.#drained?.reject(error);
    for (const waiter of this.#waiting.splice(0)) waiter.admitted.reject(error);
  }

  #fits(bytes: number, entries = 1): boolean {
    const { maxBytes, maxEntries } = this.#options;
    return !this.#env.isLogFull() && this.bytes + bytes <= maxBytes && this.entries + entries <= maxEntries;
  }
}

/** What ends a wait for room. */
const REASONS: Readonly<Partial<Record<SluiceErrorCode, RefusalReason>>> = {
  SLUICE_TIMEOUT: 'timeout',
  SLUICE_ABORTED: 'aborted',
  SLUICE_CLOSED: 'closed',
  SLUICE_FAILED: 'failed',
};

function fullError(): SluiceError {
  return new SluiceError(
    'SLUICE_FULL',
    "staging is full: SQLite is slower than the writes that come in. Wait for 'drain' (or await adrain()), use the awaitable form, or raise staging.maxBytes",
  );
}
