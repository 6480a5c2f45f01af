import pLimit from 'p-limit';
import { backoffMs } from '../base/backoff.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { SluiceError } from '../base/errors.ts';
import { OptionReader, show } from '../base/options.ts';
import type { Random } from '../base/random.ts';
import { checkWait, Deferred, type WaitOptions, waitFor } from '../base/waiting.ts';
import type { Emit } from '../engine/index.ts';
import type { FlushEvents } from '../flush/index.ts';
import {
  type BatchResult,
  type DeadLetter,
  type DeadLetterFilter,
  type DeadLetterGroup,
  type DeadLetterRange,
  type DeadLetterStore,
  type DeadLetterSummary,
  type PortableDeadLetter,
  type QueueChange,
  type QueueChanged,
  type QueueLimits,
  type QueueState,
  StoreFailure,
  toCallerError,
} from '../store/store.ts';
import { type CheckTarget, fromLine, linesOf, type NdjsonSource, toLine } from './ndjson.ts';
import {
  checkId,
  type DeadLetterPage,
  type DeadLetterQuery,
  type DeadLetterSelection,
  fits,
  readPage,
  readQuery,
  readSelection,
  type Selected,
} from './selection.ts';

/** How {@link DeadLetterQueue.retry} and {@link DeadLetterQueue.clear} go about it. */
export interface QueueRunOptions<Progress> extends WaitOptions {
  /** At most this many entries a second. At least 0.001. @defaultValue no limit */
  readonly ratePerSecond?: number | undefined;
  /**
   * Entries that are dealt with in one transaction, between which batches of the flush get their turn. Integer, 1 to 10,000.
   * @defaultValue 500
   */
  readonly batchSize?: number | undefined;
  /** Called after each of these transactions; a promise is waited for. What it throws ends the run. */
  readonly onProgress?: ((progress: Progress) => unknown) | undefined;
}

/** How far it is. */
export interface ClearProgress {
  /** Entries that were dealt with. */
  readonly done: number;
  /** Entries that were selected when it began. */
  readonly total: number;
}

/** How far a retry is, and what it has done so far. */
export interface RetryProgress extends ClearProgress, RetryResult {}

/** What `retry` did. */
export interface RetryResult {
  /** Entries that SQLite took this time: they have left the queue. */
  readonly applied: number;
  /** Entries that it refused again: they stay, with one attempt more. */
  readonly failed: number;
  /** Entries that left the queue because a newer write of their key was applied, by the retry or meanwhile. */
  readonly superseded: number;
  /** Ids that there was no entry for. */
  readonly missing: number;
}

/** What `import` did. */
export interface ImportResult {
  /** Entries that are in the queue now. */
  readonly imported: number;
  /** Lines whose entry was in the queue already. */
  readonly duplicates: number;
}

/**
 * Counters of the queue since open. They obey
 * `entriesAtOpen + deadLettered + imported = entries + retried + superseded + cleared + evicted`.
 */
export interface DeadLetterCounters {
  entriesAtOpen: number;
  /** Entries that an import has brought. */
  imported: number;
  /** Entries that SQLite took when they were retried. */
  retried: number;
  /** Entries that left since a newer write of their keys was applied. */
  superseded: number;
  /** Entries that were deleted on request. */
  cleared: number;
  /** Entries that were dropped to keep the queue within its limits. */
  evicted: number;
}

/** @internal What the queue stands on. */
export interface QueueParts {
  readonly store: DeadLetterStore;
  readonly limits: QueueLimits;
  readonly atOpen: QueueState;
  readonly clock: Clock;
  readonly random: Random;
  readonly emit: Emit<FlushEvents>;
  /** Resolves when everything accepted so far is applied, or when the flush stands still. */
  readonly settle: (what: string, wait: WaitOptions) => Promise<void>;
  /** Lets the flush look again whether it can go on. */
  readonly nudge: () => void;
  /** Lets the batch go that stands still. */
  readonly take: () => Promise<number>;
  readonly checkTarget: CheckTarget;
  /** Throws where the queue can be read no more. */
  readonly assertOpen: () => void;
  /** Throws where it can be changed no more. */
  readonly assertAccepting: () => void;
}

const BATCH_SIZE = 500;
const RATE_MIN = 0.001;
const PAUSE_FIRST_MS = 20;
const PAUSE_MAX_MS = 1_000;
const EVICTION_MS = 60_000;

/**
 * The dead-letter queue of a database: writes that SQLite refused for good, kept in the database until somebody has dealt
 * with them. It is `db.dlq`.
 *
 * No old write overwrites a newer one. An entry whose key was written since, in staging, in SQLite or in another entry, ends
 * as `superseded`; of an atomic group, the members that nobody has written since are applied. What SQL statements change is
 * not tracked: to them, and to rows that were appended, order means nothing here.
 *
 * One `retry`, `clear` or `import` runs at a time; others wait for it. They go on while the flush stands still, and wait
 * while the database is locked or the disk is full: give them a `signal` or `timeoutMs`. Killed at any point, they leave
 * every entry in exactly one place.
 *
 * @example
 * ```ts
 * import { open } from 'sluicedb';
 *
 * const db = await open(':memory:');
 * try {
 *   db.on('dead-letter', () => {}); // page somebody
 *   await db.aexecute("CREATE TABLE room (key TEXT PRIMARY KEY, value TEXT CHECK (value <> 'null'))");
 *   db.table('room').set('kitchen', null);
 *   await db.aflush();
 *   console.log(db.dlq.size); // 1
 *   console.log(await db.dlq.retry('all')); // { applied: 0, failed: 1, superseded: 0, missing: 0 }
 *   await db.dlq.clear({ table: 'room', errorCode: 'SQLITE_CONSTRAINT_CHECK' });
 * } finally {
 *   await db.close();
 * }
 * ```
 */
export class DeadLetterQueue {
  /** @internal */
  readonly counters: DeadLetterCounters;
  readonly #parts: QueueParts;
  readonly #oneAtATime = pLimit(1);
  /** Told of every entry that is superseded, while a retry runs. */
  readonly #watchers = new Set<(letter: DeadLetterSummary) => void>();
  /** Of the runs that are under way, or wait for their turn. */
  readonly #stops = new Set<AbortController>();
  #state: QueueState;
  #eviction: Timer | undefined;
  #closed = false;

  /** @internal */
  constructor(parts: QueueParts) {
    this.#parts = parts;
    this.#state = parts.atOpen;
    this.counters = {
      entriesAtOpen: parts.atOpen.entries,
      imported: 0,
      retried: 0,
      superseded: 0,
      cleared: 0,
      evicted: 0,
    };
    // The limits may be lower than they were.
    this.#evictIn(parts.atOpen.entries > 0 ? 0 : EVICTION_MS);
  }

  /** How many entries there are, as far as the writer has reported. */
  get size(): number {
    return this.#state.entries;
  }

  /** @internal */
  get state(): QueueState {
    return this.#state;
  }

  // ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Entries in the order in which they died, in pages: pass the id of the last entry of a page as `after` for the next.
   *
   * Errors: `SLUICE_INVALID_OPTION`, `SLUICE_CLOSED`, `SLUICE_TIMEOUT`, `SLUICE_ABORTED`.
   */
  async list(page: DeadLetterPage & WaitOptions = {}): Promise<DeadLetter[]> {
    const { range, wait } = readPage(page, 'dlq.list');
    return this.#reading('dlq.list', wait, (store) => store.list(range));
  }

  /** As {@link DeadLetterQueue.list}, without statements and payloads, which may hold secrets. */
  async listSummaries(page: DeadLetterPage & WaitOptions = {}): Promise<DeadLetterSummary[]> {
    const { range, wait } = readPage(page, 'dlq.listSummaries');
    return this.#reading('dlq.listSummaries', wait, (store) => store.listSummaries(range));
  }

  /**
   * One entry; `undefined` where there is none, or no more.
   *
   * Errors: as of {@link DeadLetterQueue.list}.
   */
  async get(id: number, wait: WaitOptions = {}): Promise<DeadLetter | undefined> {
    checkId(id, 'dlq.get');
    return this.#reading('dlq.get', wait, (store) => store.get(id));
  }

  /**
   * What is in the queue, counted by table, operation and error code, the most frequent first. Without any payload.
   *
   * Errors: as of {@link DeadLetterQueue.list}.
   */
  async summary(query: DeadLetterQuery = {}, wait: WaitOptions = {}): Promise<DeadLetterGroup[]> {
    const filter = readQuery(query, 'dlq.summary');
    return this.#reading('dlq.summary', wait, (store) => store.summary(filter));
  }

  /**
   * The entries as lines of NDJSON, for a backup, for a look with jq, or to be imported elsewhere. They stay in the queue.
   * What dies after it has begun is not part of it.
   *
   * Errors, as it is read: `SLUICE_INVALID_OPTION`, `SLUICE_CLOSED`.
   *
   * @example
   * ```ts
   * import { createWriteStream } from 'node:fs';
   * import { pipeline } from 'node:stream/promises';
   * import { open } from 'sluicedb';
   *
   * const db = await open(':memory:');
   * await pipeline(db.dlq.export({ table: 'cpu' }), createWriteStream('/dev/null'));
   * await db.close();
   * ```
   */
  async *export(query: DeadLetterQuery = {}): AsyncGenerator<string, void> {
    const filter = readQuery(query, 'dlq.export');
    const upTo = await this.#lastId(filter);
    for (let after = 0; ; ) {
      const range = { filter, after, upTo, limit: BATCH_SIZE };
      const page = await this.#reading('dlq.export', {}, (store) => store.listPortable(range));
      for (const letter of page) yield toLine(letter);
      const last = page.at(-1);
      if (last === undefined) return;
      after = last.id;
    }
  }

  // ── changing ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Applies entries again, oldest first, on the writer thread. Everything accepted before the call is applied first,
   * unless the flush stands still. Newer entries of the same keys are tried along, newest first, so that of each key the
   * newest write that can be applied is what stays. An entry that fails again keeps its id and `firstFailedAt`.
   *
   * Errors: `SLUICE_INVALID_OPTION`; `SLUICE_STORE` where SQLite can change nothing at all; `SLUICE_TIMEOUT`,
   * `SLUICE_ABORTED` and, at close, `SLUICE_CLOSED`, after the transaction that is under way: what was done stays done.
   */
  async retry(selection: DeadLetterSelection, options: QueueRunOptions<RetryProgress> = {}): Promise<RetryResult> {
    const selected = readSelection(selection, 'dlq.retry');
    const run = this.#readRun(options, 'dlq.retry');
    return this.#exclusively(run, async (stop) => {
      const resolved = await this.#resolve(selected);
      const result = { applied: 0, failed: 0, superseded: 0, missing: resolved.missing };
      const failed = new Set<number>();
      const watch = (letter: DeadLetterSummary) => {
        failed.delete(letter.id);
        if (letter.id <= resolved.upTo && fits(selected, letter)) result.superseded++;
      };
      this.#watchers.add(watch);
      try {
        await this.#parts.settle(run.what, { signal: stop });
        await this.#forEachPage(resolved, run, stop, async (page) => {
          for (let complete = false; !complete && !stop.aborted; ) {
            // Those that have failed before, as newer entries of an earlier page say, have had their attempt.
            const ids = page.filter((id) => !failed.has(id));
            const changed = await this.#change({ do: 'retry', ids }, stop);
            // An entry may have more than one attempt, along with older ones of its keys.
            for (const id of changed.failed) failed.add(id);
            for (const id of changed.applied) failed.delete(id);
            result.applied += changed.applied.length;
            result.failed = failed.size;
            result.superseded += changed.untold.superseded;
            complete = changed.complete;
          }
          return { ...result };
        });
      } finally {
        this.#watchers.delete(watch);
      }
      return result;
    });
  }

  /**
   * Deletes entries for good; resolves to how many.
   *
   * Errors: as of {@link DeadLetterQueue.retry}.
   */
  async clear(selection: DeadLetterSelection, options: QueueRunOptions<ClearProgress> = {}): Promise<number> {
    const selected = readSelection(selection, 'dlq.clear');
    const run = this.#readRun(options, 'dlq.clear');
    return this.#exclusively(run, async (stop) => {
      let cleared = 0;
      await this.#forEachPage(await this.#resolve(selected), run, stop, async (ids) => {
        cleared += (await this.#change({ do: 'clear', ids }, stop)).cleared;
        return {};
      });
      return cleared;
    });
  }

  /**
   * Takes the entries of an export in. What is in the queue already is not taken twice, so an import that was interrupted
   * can be made again. A write of this database keeps its place in the order; one of another database comes after everything
   * that is applied now, and before everything that is not. Import what you have exported and cleared, or have from elsewhere:
   * of an entry that has been applied or superseded since its export nothing is known here, and a retry of it may bring an old
   * value back.
   *
   * Errors: `SLUICE_INVALID_VALUE` with the number of a line that is no dead letter; what came before it is imported.
   * `SLUICE_FULL` where the queue is at its limits. Otherwise as of {@link DeadLetterQueue.retry}.
   */
  async import(source: NdjsonSource, options: WaitOptions = {}): Promise<ImportResult> {
    const run = this.#readRun<never>(options, 'dlq.import');
    return this.#exclusively(run, async (stop) => {
      const result = { imported: 0, duplicates: 0 };
      let letters: PortableDeadLetter[] = [];
      const takeIn = async () => {
        const obstacle = this.obstacle();
        if (obstacle !== undefined) throw new SluiceError('SLUICE_FULL', obstacle.message);
        const { imported } = await this.#change({ do: 'import', letters }, stop);
        result.imported += imported;
        result.duplicates += letters.length - imported;
        letters = [];
      };
      const lines = linesOf(source, (part) => waitFor(part, run.what, { signal: stop }, this.#parts.clock));
      try {
        for await (const { number, line } of lines) {
          letters.push(fromLine(line, number, this.#parts.checkTarget));
          if (letters.length === BATCH_SIZE) await takeIn();
        }
      } catch (error) {
        // What came before the bad line; not what takeIn itself has failed with, nor for somebody who has given up.
        if (letters.length > 0 && letters.length < BATCH_SIZE && !stop.aborted) await takeIn();
        throw error;
      }
      if (letters.length > 0 && !stop.aborted) await takeIn();
      return result;
    });
  }

  /**
   * Lets a batch go that stands still because of its own writes (stall `config` or `breaker`), or because the queue is at
   * its limits (`queue-full`): what can be applied is applied, and what cannot goes to the queue, however much it is. Resolves
   * to how many writes died, 0 where nothing stands still.
   *
   * Errors: `SLUICE_STORE` where the batch fails all the same, since the database as a whole is at fault.
   */
  async take(wait: WaitOptions = {}): Promise<{ readonly dead: number }> {
    this.#parts.assertAccepting();
    checkWait(wait);
    try {
      return { dead: await waitFor(this.#parts.take(), 'dlq.take', wait, this.#parts.clock) };
    } catch (error) {
      throw toCallerError(error);
    }
  }

  // ── for the flush ─────────────────────────────────────────────────────────────────────────────────────────────────

  /** @internal Why no batch may go down, if so. */
  obstacle(): Error | undefined {
    const { limits, clock } = this.#parts;
    const { entries, bytes, oldestAt } = this.#state;
    if (limits.overflow !== 'block' || entries === 0) return undefined;
    const tooOld = limits.maxAgeMs !== undefined && oldestAt !== undefined && oldestAt < clock.now() - limits.maxAgeMs;
    if (entries < limits.maxEntries && bytes < limits.maxBytes && !tooOld) return undefined;
    const limit =
      entries >= limits.maxEntries
        ? `dlq.maxEntries: ${limits.maxEntries}`
        : bytes >= limits.maxBytes
          ? `dlq.maxBytes: ${limits.maxBytes}`
          : `dlq.maxAgeMs: ${limits.maxAgeMs}`;
    return new Error(
      `the dead-letter queue is at its limit (${limit}) with ${entries} entries of ${bytes} bytes: retry or clear entries with db.dlq, raise the limit, or open with dlq.overflow: 'evict-oldest'`,
    );
  }

  /** @internal A batch is done. */
  onBatch(result: BatchResult): void {
    this.#depart(result);
  }

  /** @internal */
  close(): void {
    this.#closed = true;
    this.#eviction?.cancel();
    for (const stop of this.#stops) stop.abort();
  }

  #reading<T>(what: string, wait: WaitOptions, read: (store: DeadLetterStore) => Promise<T>): Promise<T> {
    this.#parts.assertOpen();
    checkWait(wait);
    return waitFor(read(this.#parts.store), what, wait, this.#parts.clock);
  }

  #readRun<Progress>(given: QueueRunOptions<Progress>, where: string): Run<Progress> {
    const options = new OptionReader(given);
    const wait = { signal: options.any('signal'), timeoutMs: options.any('timeoutMs') } as WaitOptions;
    const ratePerSecond = options.any('ratePerSecond') ?? Number.POSITIVE_INFINITY;
    const onProgress = options.any('onProgress') ?? (() => undefined);
    const batchSize = options.integer('batchSize', { min: 1, max: 10_000, fallback: BATCH_SIZE });
    if (typeof ratePerSecond !== 'number' || !(ratePerSecond >= RATE_MIN)) {
      options.refuse('ratePerSecond', `must be a number of at least ${RATE_MIN}, not ${show(ratePerSecond)}`);
    }
    if (typeof onProgress !== 'function') {
      options.refuse('onProgress', `must be a function, not ${show(onProgress)}`);
    }
    options.finish(where);
    checkWait(wait);
    return {
      what: where,
      wait,
      ratePerSecond: ratePerSecond as number,
      // Steps of a tenth of a second, rather than a burst and a long pause.
      batchSize: Math.max(1, Math.min(batchSize, Math.floor((ratePerSecond as number) / 10))),
      onProgress: onProgress as Run<Progress>['onProgress'],
    };
  }

  /** One at a time. What is given up on ends after the transaction that is under way. */
  #exclusively<T>({ what, wait }: Run<never>, work: (stop: AbortSignal) => Promise<T>): Promise<T> {
    this.#parts.assertAccepting();
    const stop = new AbortController();
    const closed = new Deferred<never>();
    stop.signal.addEventListener('abort', () =>
      closed.reject(new SluiceError('SLUICE_CLOSED', `${what} was ended by close: what was done stays done`)),
    );
    this.#stops.add(stop);
    const body = Promise.race([this.#oneAtATime(() => work(stop.signal)), closed.promise]).finally(() =>
      this.#stops.delete(stop),
    );
    return waitFor(body, what, wait, this.#parts.clock, () => stop.abort());
  }

  /** What a selection stands for now: what dies later is not part of it. */
  async #resolve({ filter, ids }: Selected): Promise<Resolved> {
    const { store } = this.#parts;
    if (ids === undefined) {
      const [groups, upTo] = await Promise.all([store.summary(filter), this.#lastId(filter)]);
      return { filter, upTo, missing: 0, total: groups.reduce((total, { entries }) => total + entries, 0) };
    }
    const found = await store.listSummaries({ filter, ids: [...ids], limit: Math.max(1, ids.size) });
    const known = found.map(({ id }) => id);
    return { filter, ids: known, upTo: known.at(-1) ?? 0, missing: ids.size - known.length, total: known.length };
  }

  async #lastId(filter: DeadLetterFilter): Promise<number> {
    const [last] = await this.#parts.store.listSummaries({ filter, newestFirst: true, limit: 1 });
    return last?.id ?? 0;
  }

  /** Deals with a selection page by page, at the rate that was asked for, until it is stopped. */
  async #forEachPage<Progress extends ClearProgress>(
    resolved: Resolved,
    { batchSize, ratePerSecond, onProgress }: Run<Progress>,
    stop: AbortSignal,
    deal: (ids: readonly number[]) => Promise<Omit<Progress, keyof ClearProgress>>,
  ): Promise<void> {
    const { clock } = this.#parts;
    const start = clock.elapsed();
    let done = 0;
    for await (const page of this.#pages(resolved, batchSize)) {
      await this.#sleep((done / ratePerSecond) * 1_000 - (clock.elapsed() - start), stop);
      if (stop.aborted) return;
      const progress = await deal(page);
      done += page.length;
      if (stop.aborted) return;
      await onProgress({ ...progress, done, total: resolved.total } as Progress);
    }
  }

  async *#pages({ filter, ids, upTo }: Resolved, limit: number): AsyncGenerator<readonly number[]> {
    if (ids !== undefined) {
      for (let at = 0; at < ids.length; at += limit) yield ids.slice(at, at + limit);
      return;
    }
    for (let after = 0; ; ) {
      const page = await this.#parts.store.listSummaries({ filter, after, upTo, limit });
      const last = page.at(-1);
      if (last === undefined) return;
      yield page.map(({ id }) => id);
      after = last.id;
    }
  }

  /** Makes a change, as soon as the database can be written to. */
  async #change(change: QueueChange, stop: AbortSignal): Promise<QueueChanged> {
    const { store, random } = this.#parts;
    for (let attempt = 1; ; attempt++) {
      try {
        const changed = await store.change(change);
        this.#book(changed);
        return changed;
      } catch (error) {
        const passes = error instanceof StoreFailure && (error.failure === 'transient' || error.failure === 'space');
        if (!passes || stop.aborted) throw toCallerError(error);
        await this.#sleep(backoffMs(attempt, PAUSE_FIRST_MS, PAUSE_MAX_MS, random), stop);
        stop.throwIfAborted();
      }
    }
  }

  #book(changed: QueueChanged): void {
    const { emit, nudge } = this.#parts;
    const { applied, superseded, cleared, imported, evicted } = changed;
    this.counters.retried += applied.length;
    this.counters.cleared += cleared;
    this.counters.imported += imported;
    this.#depart(changed);
    for (const letter of superseded) emit('superseded', letter);
    for (const letter of evicted) emit('evicted', letter);
    nudge();
  }

  #depart({ superseded, evicted, untold, queue }: BatchResult | QueueChanged): void {
    this.counters.superseded += superseded.length + untold.superseded;
    this.counters.evicted += evicted.length + untold.evicted;
    this.#state = queue;
    for (const letter of superseded) for (const watch of this.#watchers) watch(letter);
  }

  /** Entries get too old without a batch, too. */
  #evictIn(delayMs: number): void {
    const { limits, clock } = this.#parts;
    const isDue = delayMs === 0 || limits.maxAgeMs !== undefined;
    if (this.#closed || limits.overflow !== 'evict-oldest' || !isDue) return;
    this.#eviction = clock.after(delayMs, () => {
      this.#oneAtATime(() => this.#change({ do: 'evict' }, AbortSignal.abort()))
        // It is tried again, and a real fault shows with the next batch.
        .catch(() => undefined)
        .finally(() => this.#evictIn(EVICTION_MS));
    });
  }

  #sleep(delayMs: number, stop: AbortSignal): Promise<void> {
    if (delayMs <= 0 || stop.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const end = () => {
        timer.cancel();
        stop.removeEventListener('abort', end);
        resolve();
      };
      const timer = this.#parts.clock.after(delayMs, end, { hold: true });
      stop.addEventListener('abort', end);
    });
  }
}

interface Run<Progress> {
  readonly what: string;
  readonly wait: WaitOptions;
  readonly ratePerSecond: number;
  readonly batchSize: number;
  readonly onProgress: (progress: Progress) => unknown;
}

/** A selection with its bounds. */
interface Resolved extends Pick<DeadLetterRange, 'filter' | 'ids'> {
  readonly upTo: number;
  readonly missing: number;
  readonly total: number;
}
