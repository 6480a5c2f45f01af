import pLimit from 'p-limit';
import { backoffMs } from '../base/backoff.ts';
import type { Clock, Timer } from '../base/clock.ts';
import type { ValueCipher } from '../base/encryption/index.ts';
import { codeOf, SluiceError } from '../base/errors.ts';
import type { Random } from '../base/random.ts';
import { checkWait, Deferred, sleep, type WaitOptions, waitFor } from '../base/waiting.ts';
import type { Emit, EngineEvents } from '../engine/index.ts';
import type { FlushEvents } from '../flush/index.ts';
import {
  type BatchResult,
  type DeadLetter,
  type DeadLetterGroup,
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
  BATCH_SIZE,
  bound,
  type ClearProgress,
  forEachPage,
  lastId,
  type QueueRunOptions,
  type Run,
  readRun,
} from './run.ts';
import {
  checkId,
  type DeadLetterPage,
  type DeadLetterQuery,
  type DeadLetterSelection,
  fits,
  readPage,
  readQuery,
  readSelection,
} from './selection.ts';

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
  /** Entries that were there. A restore adds by how many it changes them, so that this may be below 0. */
  entriesAtOpen: number;
  /** Entries that an import has brought. */
  imported: number;
  /** Entries that SQLite took when they were retried. */
  retried: number;
  /** Attempts of a retry that SQLite refused again; the entries stay. */
  retriesFailed: number;
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
  readonly emit: Emit<EngineEvents & FlushEvents>;
  /** Resolves when everything accepted so far is applied, or when the flush stands still. */
  readonly settle: (what: string, wait: WaitOptions) => Promise<void>;
  /** Lets the flush look again whether it can go on. */
  readonly nudge: () => void;
  /** Lets the batch go that stands still. */
  readonly take: () => Promise<number>;
  readonly checkTarget: CheckTarget;
  /** Of an encrypted database. */
  readonly cipher: ValueCipher | undefined;
  /** Throws where the queue can be read no more. */
  readonly assertOpen: () => void;
  /** Throws where it can be changed no more. */
  readonly assertAccepting: () => void;
  /** Throws where the caller holds the writer, and would wait for it. */
  readonly assertMayWait: (what: string) => void;
}

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
      retriesFailed: 0,
      superseded: 0,
      cleared: 0,
      evicted: 0,
    };
    const { overflow, maxAgeMs } = parts.limits;
    if (overflow === 'evict-oldest' && parts.atOpen.entries > 0) this.#evictIn(0);
    else if (overflow === 'evict-oldest' && maxAgeMs !== undefined) this.#evictIn(EVICTION_MS);
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
    const upTo = await lastId(this.#parts.store, filter);
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
    const run = readRun(options, 'dlq.retry');
    return this.#exclusively(run, async (stop) => {
      const resolved = await bound(this.#parts.store, selected);
      const result = { applied: 0, failed: 0, superseded: 0, missing: resolved.missing };
      const failed = new Set<number>();
      const watch = (letter: DeadLetterSummary) => {
        failed.delete(letter.id);
        if (letter.id <= resolved.upTo && fits(selected, letter)) result.superseded++;
      };
      this.#watchers.add(watch);
      try {
        await this.#parts.settle(run.what, { signal: stop });
        await forEachPage(this.#parts, resolved, run, stop, async (page) => {
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
    const run = readRun(options, 'dlq.clear');
    return this.#exclusively(run, async (stop) => {
      let cleared = 0;
      const resolved = await bound(this.#parts.store, selected);
      await forEachPage(this.#parts, resolved, run, stop, async (ids) => {
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
    const run = readRun<never>(options, 'dlq.import');
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
          letters.push(fromLine(line, number, this.#parts.checkTarget, this.#parts.cipher));
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
    this.#parts.assertMayWait('dlq.take');
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

  /** @internal No run is under way while `work` is, and none begins. The signal calls it off while it waits for its turn. */
  whileIdle<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const calledOff = new Deferred<never>();
    const callOff = () => calledOff.reject(signal.reason);
    signal.addEventListener('abort', callOff);
    const turn = this.#oneAtATime(() => {
      signal.removeEventListener('abort', callOff);
      signal.throwIfAborted();
      return work();
    });
    return Promise.race([turn, calledOff.promise]);
  }

  /** @internal The queue is another one. */
  replaced(queue: QueueState): void {
    this.counters.entriesAtOpen += queue.entries - this.#state.entries;
    this.#state = queue;
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

  /** One at a time. What is given up on ends after the transaction that is under way. */
  #exclusively<T>(
    { what, wait }: Pick<Run<never>, 'what' | 'wait'>,
    work: (stop: AbortSignal) => Promise<T>,
  ): Promise<T> {
    this.#parts.assertAccepting();
    this.#parts.assertMayWait(what);
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

  /** Makes a change, as soon as the database can be written to. */
  async #change(change: QueueChange, stop: AbortSignal): Promise<QueueChanged> {
    const { store, random, clock } = this.#parts;
    for (let attempt = 1; ; attempt++) {
      try {
        const changed = await store.change(change);
        this.#book(changed);
        return changed;
      } catch (error) {
        const passes = error instanceof StoreFailure && (error.failure === 'transient' || error.failure === 'space');
        if (!passes || stop.aborted) throw toCallerError(error);
        await sleep(backoffMs(attempt, PAUSE_FIRST_MS, PAUSE_MAX_MS, random), clock, stop);
        stop.throwIfAborted();
      }
    }
  }

  #book(changed: QueueChanged): void {
    const { emit, nudge } = this.#parts;
    const { applied, failed, superseded, cleared, imported, evicted } = changed;
    this.counters.retried += applied.length;
    this.counters.retriesFailed += failed.length;
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

  /** Limits may be lower than they were when the database was open last, and entries get too old without a batch. */
  #evictIn(delayMs: number): void {
    const { clock } = this.#parts;
    this.#eviction = clock.after(delayMs, () => {
      this.#evict()
        .catch((error: Error) => {
          // That it is closed, or has failed, has been told.
          const isOver = ['SLUICE_CLOSED', 'SLUICE_FAILED'].includes(codeOf(error) ?? '');
          if (!isOver) this.#parts.emit('failure', { during: 'flush', error });
        })
        .finally(() => {
          if (!this.#closed && this.#parts.limits.maxAgeMs !== undefined) this.#evictIn(EVICTION_MS);
        });
    });
  }

  async #evict(): Promise<void> {
    await this.#exclusively({ what: 'the eviction of dead letters', wait: {} }, (stop) =>
      this.#change({ do: 'evict' }, stop),
    );
  }
}
