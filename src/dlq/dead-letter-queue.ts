import pLimit from 'p-limit';
import type { DeadLetter, DeadLetterStore } from '../store/store.ts';

/** What `retry` did. */
export interface RetryResult {
  /** Entries that SQLite took this time: they have left the queue. */
  readonly applied: number;
  /** Entries that it refused again: they stay, with one attempt more. */
  readonly failed: number;
  /** Entries that had gone meanwhile, because a newer write of their key was applied or somebody else dealt with them. */
  readonly superseded: number;
}

/** Counters of the queue since open; they obey `entriesAtOpen + deadLettered = entries + retried + superseded + cleared`. */
export interface DeadLetterCounters {
  entriesAtOpen: number;
  retried: number;
  superseded: number;
  cleared: number;
}

/** Entries that travel to the writer in one message, so that batches get in between. */
const PAGE = 500;

/** The persistent queue of writes that SQLite refused for good. One retry or clear at a time. */
export class DeadLetterQueue {
  readonly counters: DeadLetterCounters;
  readonly #store: DeadLetterStore;
  readonly #flush: () => Promise<unknown>;
  readonly #oneAtATime = pLimit(1);

  constructor(store: DeadLetterStore, entriesAtOpen: number, flush: () => Promise<unknown>) {
    this.#store = store;
    this.#flush = flush;
    this.counters = { entriesAtOpen, retried: 0, superseded: 0, cleared: 0 };
  }

  size(): Promise<number> {
    return this.#store.size();
  }

  /** Entries, oldest first, after the entry `after`. */
  list({ after = 0, limit = 1_000 }: { readonly after?: number; readonly limit?: number } = {}): Promise<DeadLetter[]> {
    return this.#store.list(after, limit);
  }

  /**
   * Applies entries again, oldest first. Everything accepted before the call is applied first, so an entry whose key has
   * been written since has been superseded, and an old write never overwrites a newer one.
   */
  retry(ids: readonly number[] | 'all'): Promise<RetryResult> {
    return this.#oneAtATime(async () => {
      await this.#flush();
      const result = { applied: 0, failed: 0, superseded: 0 };
      for await (const page of this.#pages(ids)) {
        for (const outcome of await this.#store.retry(page)) {
          this.counters.superseded += outcome.superseded;
          if (outcome.result === 'applied') {
            result.applied++;
            this.counters.retried++;
          } else if (outcome.result === 'failed') result.failed++;
          else result.superseded++;
        }
      }
      return result;
    });
  }

  /** Deletes entries for good; returns how many. */
  clear(ids: readonly number[] | 'all'): Promise<number> {
    return this.#oneAtATime(async () => {
      let cleared = 0;
      for await (const page of this.#pages(ids)) {
        const gone = await this.#store.clear(page);
        this.counters.cleared += gone;
        cleared += gone;
      }
      return cleared;
    });
  }

  async *#pages(ids: readonly number[] | 'all'): AsyncGenerator<readonly number[]> {
    if (ids !== 'all') {
      for (let i = 0; i < ids.length; i += PAGE) yield ids.slice(i, i + PAGE);
      return;
    }
    for (let after = 0; ; ) {
      const page = (await this.#store.list(after, PAGE)).map(({ id }) => id);
      const last = page.at(-1);
      if (last === undefined) return;
      yield page;
      after = last;
    }
  }
}
