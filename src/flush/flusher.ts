import { backoffMs } from '../base/backoff.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { SluiceError } from '../base/errors.ts';
import { Pause } from '../base/pause.ts';
import type { Random } from '../base/random.ts';
import { Deferred, type WaitOptions, waitFor } from '../base/waiting.ts';
import type { Emit, Engine, SealedGeneration } from '../engine/index.ts';
import { type BatchResult, type Store, StoreFailure } from '../store/store.ts';
import { FlushCounters } from './counters.ts';
import type { FlushEvents, RetryClass, Stall, StallReason } from './events.ts';

/**
 * When a flush starts by itself: `auto` by age, count or size, whichever comes first; `immediate` after each write,
 * `count` after a number of writes, `time` after a while, `manual` never. Barriers flush in every mode.
 */
export type FlushMode = 'auto' | 'immediate' | 'count' | 'time' | 'manual';

export interface FlusherOptions {
  readonly mode: FlushMode;
  readonly intervalMs: number;
  readonly maxWrites: number;
  readonly maxBytes: number;
}

/** What a flush did. */
export interface FlushResult {
  /** Writes that took effect in SQLite. */
  readonly applied: number;
  /** Writes that a newer write of the same key made pointless. */
  readonly coalesced: number;
  /** Writes that SQLite refused for good: they are in the dead-letter queue. */
  readonly dead: number;
  readonly durationMs: number;
}

/** Several generations go down together, up to this: larger batches gain less than they take in memory, and hold the writer for long. */
const BATCH_WRITES = 75_000;
const BATCH_BYTES = 48 * 1024 * 1024;

const REOPENS_MAX = 3;

/** What fails for this long is no passing moment. */
const STALL_MS = 5_000;

/** How often an idle store is asked again whether its watermark is durable by now, while the log waits for that. */
const CONFIRM_MS = 1_000;

/** How long the first and the longest pause before another attempt is. */
const PAUSES: Readonly<Record<StallReason, readonly [firstMs: number, maxMs: number]>> = {
  transient: [10, 1_000],
  space: [200, 5_000],
  reopen: [100, 1_000],
  // Somebody has to do something: looking often enough to go on by itself when it is done.
  config: [500, 5_000],
  breaker: [500, 5_000],
  'queue-full': [500, 5_000],
};

/** What does not pass by itself. */
const NEEDS_SOMEBODY: ReadonlySet<StallReason> = new Set<StallReason>(['config', 'breaker', 'queue-full']);

/**
 * Carries generations into the store, one batch at a time. While a batch is on its way, what gathers is the next one.
 *
 * A failed batch is tried again, for ever where the failure can pass, with the same frames: the watermark makes a second
 * application harmless. Only `fatal`, and a connection that cannot be trusted after several new ones, end the engine. A
 * flush that stands still says so, once, and has two ways on besides the cause going away: `takeStalled`, and whatever
 * somebody does on the writer meanwhile, after which they `nudge` it.
 */
export class Flusher {
  readonly #engine: Engine;
  readonly #store: Store;
  readonly #options: FlusherOptions;
  readonly #clock: Clock;
  readonly #pause: Pause;
  readonly #random: Random;
  readonly #emit: Emit<FlushEvents>;
  readonly #holds = new Set<Promise<unknown>>();
  #target = 0;
  #running: Promise<void> | undefined;
  #timer: Timer | undefined;
  #confirmation: Timer | undefined;
  #stopped = false;
  #cutShort: (() => void) | undefined;
  #failingSince: number | undefined;
  #stall: Stall | undefined;
  readonly #whenStalled = new Set<Deferred<void>>();
  #taking: Deferred<number> | undefined;
  #batchSince: number | undefined;

  /** Called with what each batch has done, before anybody is told. */
  onResult: (result: BatchResult) => void = () => {};
  /** Why no batch may go down now, if so. */
  obstacle: () => Error | undefined = () => undefined;
  readonly counters: FlushCounters = new FlushCounters();

  constructor(
    engine: Engine,
    store: Store,
    options: FlusherOptions,
    env: { clock: Clock; random: Random; emit: Emit<FlushEvents> },
  ) {
    this.#engine = engine;
    this.#store = store;
    this.#options = options;
    this.#clock = env.clock;
    this.#pause = new Pause(env.clock);
    this.#random = env.random;
    this.#emit = env.emit;
    engine.onAccepted = () => this.#onAccepted();
    engine.onAwaited = () => this.request();
    engine.health.onFailed(() => this.#stop());
  }

  /** How long the batch that is on its way has been there, its attempts and pauses included; 0 while there is none. */
  get runningMs(): number {
    return this.#batchSince === undefined ? 0 : this.#clock.elapsed() - this.#batchSince;
  }

  /** Flushes everything accepted so far and waits for it. */
  async barrier(what: string, wait: WaitOptions = {}): Promise<FlushResult> {
    this.#engine.assertMayWait(what);
    const start = this.#clock.elapsed();
    const before = { ...this.#engine.counters };
    const target = this.#engine.lastSeq;
    this.request();
    await waitFor(this.#engine.whenApplied(target), what, wait, this.#clock);
    const { applied, coalesced, deadLettered } = this.#engine.counters;
    return {
      applied: applied - before.applied,
      coalesced: coalesced - before.coalesced,
      dead: deadLettered - before.deadLettered,
      durationMs: this.#clock.elapsed() - start,
    };
  }

  /** As a barrier, but a flush that stands still is not waited for. */
  barrierOrStall(what: string, wait: WaitOptions = {}): Promise<void> {
    return this.#appliedOrStall(what, this.#engine.lastSeq, wait);
  }

  /** The same for the older half of what is pending: the other half goes down while its waiter goes on. */
  halveOrStall(what: string): Promise<void> {
    const { appliedSeq, pending } = this.#engine;
    return this.#appliedOrStall(what, appliedSeq + Math.ceil(pending / 2), {});
  }

  async #appliedOrStall(what: string, target: number, wait: WaitOptions): Promise<void> {
    this.#engine.assertMayWait(what);
    if (this.#stall !== undefined) return;
    this.request();
    const stalled = new Deferred<void>();
    this.#whenStalled.add(stalled);
    try {
      await waitFor(Promise.race([this.#engine.whenApplied(target), stalled.promise]), what, wait, this.#clock);
    } finally {
      this.#whenStalled.delete(stalled);
    }
  }

  /** Whether the flush stands still, and why. */
  get stall(): Stall | undefined {
    return this.#stall;
  }

  /** Something may have changed that a pause waits for: tries again at once. */
  nudge(): void {
    this.#pause.cutShort();
  }

  /**
   * Lets the batch that stands still go down, and every write that is in its way die; resolves to how many did. Rejects
   * where it fails all the same.
   */
  async takeStalled(): Promise<number> {
    if (this.#stall === undefined) return 0;
    this.#taking ??= new Deferred();
    this.nudge();
    return this.#taking.promise;
  }

  /** Starts a flush of everything accepted so far, now or right after the one that runs. */
  request(): void {
    this.#target = this.#engine.lastSeq;
    this.#start();
  }

  #start(): void {
    if (this.#stopped) return;
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#running === undefined) this.#keepBusyWith(this.#run());
  }

  /** One batch at a time is on its way: this one, and then what was asked for meanwhile. */
  #keepBusyWith(work: Promise<void>): void {
    this.#running = work.finally(() => {
      this.#running = undefined;
      // Somebody may have asked between the last look at the target and here.
      if (this.#engine.appliedSeq < this.#target) this.#start();
      else this.#onAccepted();
    });
  }

  /**
   * The store could not say that its watermark is durable, because a reader of another program held its checkpoint up:
   * asks again later, with a batch of nothing, so that the log gets its room back without another write.
   */
  confirmLater(): void {
    if (this.#confirmation !== undefined || this.#stopped) return;
    this.#confirmation = this.#clock.after(CONFIRM_MS, () => {
      this.#confirmation = undefined;
      if (this.#running !== undefined || this.#stopped) return this.confirmLater();
      this.#keepBusyWith(this.#confirm());
    });
  }

  async #confirm(): Promise<void> {
    const seq = this.#engine.appliedSeq;
    try {
      const { durable } = await this.#store.apply({ frames: [], afterSeq: seq, lastSeq: seq });
      if (durable) this.#engine.releaseLog();
      else this.confirmLater();
    } catch {
      // What is wrong shows with the next batch, which is tried until it is right.
      this.confirmLater();
    }
  }

  /** As a barrier, but a flush that stands still is an error. */
  async barrierUnlessStalled(what: string, wait: WaitOptions): Promise<void> {
    await this.barrierOrStall(what, wait);
    if (this.#engine.pending === 0 || this.#stall === undefined) return;
    throw new SluiceError(
      'SLUICE_STORE',
      `${what} needs everything applied that was accepted, and the flush stands still (${this.#stall.reason}): ${this.#stall.error.message}`,
      { cause: this.#stall.error },
    );
  }

  /** No batch goes down before `read` is settled: for a read that must see the store as it is now. */
  holdFor<T>(read: Promise<T>): Promise<T> {
    this.#holds.add(read);
    const release = () => this.#holds.delete(read);
    read.then(release, release);
    return read;
  }

  /** Ends between two batches, or in a pause. What is not applied stays in the log. */
  async close(): Promise<void> {
    this.#stop();
    await this.#running;
  }

  #stop(): void {
    this.#stopped = true;
    this.#cutShort?.();
    this.#timer?.cancel();
    this.#confirmation?.cancel();
    this.#pause.cutShort();
    const { cause } = this.#engine.health;
    this.#taking?.reject(
      cause === undefined
        ? new SluiceError('SLUICE_CLOSED', 'the database is closed, and nothing was taken')
        : new SluiceError('SLUICE_FAILED', `the database has failed, and nothing was taken: ${cause.message}`, {
            cause,
          }),
    );
  }

  /** On the hot path: after every write. What holds writes back starts a flush, or a count might never be reached. */
  #onAccepted(): void {
    if (this.#running !== undefined || this.#stopped || this.#engine.pending === 0) return;
    const { mode, intervalMs, maxWrites, maxBytes } = this.#options;
    if (mode === 'manual') return;
    const { pending, admission } = this.#engine;
    const full =
      mode === 'immediate' ||
      (mode !== 'time' && (pending >= maxWrites || admission.isHigh || this.#engine.isLogFull)) ||
      (mode === 'auto' && admission.bytes >= maxBytes);
    if (full) {
      this.request();
    } else if (mode !== 'count' && this.#timer === undefined) {
      this.#startTimer(intervalMs);
    }
  }

  /** Apart from the hot path, where the closure would be an object for each write. */
  #startTimer(intervalMs: number): void {
    this.#timer = this.#clock.after(intervalMs, () => this.request(), { hold: true });
  }

  async #run(): Promise<void> {
    // Let the writes of this turn gather.
    await Promise.resolve();
    while (!this.#stopped && this.#engine.appliedSeq < this.#target) {
      const batch = await this.#nextBatch();
      const last = batch.at(-1);
      if (last === undefined) return;
      if (this.#holds.size > 0) await Promise.allSettled(this.#holds);
      this.#batchSince = this.#clock.elapsed();
      await this.#applyUntilDone(batch, last.lastSeq);
      this.#batchSince = undefined;
    }
  }

  /** Seals what is open, and waits for the log too, which may be for ever where it has no room: stopping must cut that short. */
  async #nextBatch(): Promise<readonly SealedGeneration[]> {
    try {
      this.#engine.seal();
    } catch (error) {
      // A frame that cannot be built, for want of memory say.
      this.#engine.health.fail('flush', error as Error);
      return [];
    }
    const next = new Deferred<readonly SealedGeneration[]>();
    this.#cutShort = () => next.resolve([]);
    this.#engine.nextBatch(BATCH_WRITES, BATCH_BYTES).then(next.resolve, () => {
      // The log has failed, and the engine with it: everybody who waits has been told.
      next.resolve([]);
    });
    return next.promise;
  }

  async #applyUntilDone(batch: readonly SealedGeneration[], lastSeq: number): Promise<void> {
    const frames = batch.flatMap((generation) => generation.frames);
    const bytes = batch.reduce((total, generation) => total + generation.bytes, 0);
    const afterSeq = this.#engine.appliedSeq;
    let reopens = 0;
    for (let attempt = 1; !this.#stopped; attempt++) {
      const taking = this.#taking;
      const obstacle = taking === undefined ? this.obstacle() : undefined;
      if (obstacle !== undefined) {
        if (this.#stall === undefined) this.#engine.health.trouble('flush', 'degraded', obstacle);
        await this.#standStill('queue-full', obstacle, backoffMs(attempt, ...PAUSES['queue-full'], this.#random));
        continue;
      }
      try {
        const result = await this.#store.apply({ frames, afterSeq, lastSeq, take: taking !== undefined });
        this.#finish(result, { writes: lastSeq - afterSeq, bytes, lastSeq, since: batch[0]?.since ?? 0 });
        return;
      } catch (thrown) {
        // Closed while the batch waited for its turn: that is no failure.
        if (this.#stopped && thrown instanceof SluiceError && thrown.code === 'SLUICE_CLOSED') return;
        const error =
          thrown instanceof StoreFailure ? thrown : new StoreFailure('fatal', String(thrown), undefined, thrown);
        const { failure } = error;
        this.counters.failed(error);
        if (taking !== undefined) {
          this.#taking = undefined;
          taking.reject(error);
        }
        if (failure === 'fatal' || (failure === 'reopen' && ++reopens > REOPENS_MAX)) {
          return this.#engine.health.fail('flush', error);
        }
        if (this.#stopped) return;
        await this.#pauseBefore(attempt, failure, error);
        if (failure === 'reopen') await this.#store.reopen();
      }
    }
  }

  #finish(
    result: BatchResult,
    { writes, bytes, lastSeq, since }: { writes: number; bytes: number; lastSeq: number; since: number },
  ): void {
    const { applied, coalesced, deadSeqs, dead, superseded, evicted, untold, durable, durationMs } = result;
    if (!durable) this.confirmLater();
    const now = this.#clock.now();
    this.counters.committed(result, now);
    this.onResult(result);
    this.#engine.applied(lastSeq, { applied, coalesced, dead: deadSeqs, durable });
    // Not before: whoever hears of it may look at the numbers.
    this.#engine.health.recovered('flush');
    this.#goOn();
    this.#emit('flush', {
      writes,
      applied,
      coalesced,
      dead: deadSeqs.length,
      superseded: superseded.length + untold.superseded,
      bytes,
      durationMs,
      latencyMs: Math.max(0, now - since),
    });
    for (const letter of dead) this.#emit('dead-letter', letter);
    for (const letter of superseded) this.#emit('superseded', letter);
    for (const letter of evicted) this.#emit('evicted', letter);
    this.#taking?.resolve(deadSeqs.length);
    this.#taking = undefined;
  }

  async #pauseBefore(attempt: number, failure: RetryClass, error: StoreFailure): Promise<void> {
    this.counters.retries[failure]++;
    this.#engine.health.trouble('flush', failure === 'space' ? 'space' : 'degraded', error);
    const delayMs = backoffMs(attempt, ...PAUSES[failure], this.#random);
    this.#emit('retry', { failure, attempt, delayMs, error });
    await this.#standStill(failure, error, delayMs);
  }

  async #standStill(reason: StallReason, error: Error, delayMs: number): Promise<void> {
    const now = this.#clock.elapsed();
    this.#failingSince ??= now;
    const failingMs = now - this.#failingSince;
    if (this.#stall !== undefined) {
      this.#stall = { reason, error, since: this.#stall.since };
    } else if (NEEDS_SOMEBODY.has(reason) || failingMs >= STALL_MS) {
      this.#stall = { reason, error, since: this.#clock.now() - failingMs };
      this.#emit('stall', this.#stall);
      for (const waiter of this.#whenStalled) waiter.resolve();
    }
    if (this.#taking === undefined) await this.#pause.wait(delayMs);
  }

  #goOn(): void {
    const stall = this.#stall;
    this.#failingSince = undefined;
    if (stall === undefined) return;
    this.#stall = undefined;
    this.#emit('resume', { reason: stall.reason, stalledMs: Math.max(0, this.#clock.now() - stall.since) });
  }
}
