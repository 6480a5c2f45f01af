import type { Clock } from '../base/clock.ts';
import { OptionReader, show } from '../base/options.ts';
import { checkWait, sleep, type WaitOptions } from '../base/waiting.ts';
import type { DeadLetterFilter, DeadLetterRange, DeadLetterStore } from '../store/store.ts';
import type { Selected } from './selection.ts';

/** Entries that are dealt with in one transaction, unless somebody wants it otherwise. */
export const BATCH_SIZE = 500;
const RATE_MIN = 0.001;

/** How `retry` and `clear` go about it. */
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

/** A retry or clear as it was asked for. */
export interface Run<Progress> {
  readonly what: string;
  readonly wait: WaitOptions;
  readonly ratePerSecond: number;
  readonly batchSize: number;
  readonly onProgress: (progress: Progress) => unknown;
}

/** A selection with its bounds. */
export interface Bounded extends Pick<DeadLetterRange, 'filter' | 'ids'> {
  readonly upTo: number;
  /** Ids that there is no entry for. */
  readonly missing: number;
  readonly total: number;
}

export function readRun<Progress>(given: QueueRunOptions<Progress>, where: string): Run<Progress> {
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

/** What a selection stands for now: what dies later is not part of it. */
export async function bound(store: DeadLetterStore, { filter, ids }: Selected): Promise<Bounded> {
  if (ids === undefined) {
    const [groups, upTo] = await Promise.all([store.summary(filter), lastId(store, filter)]);
    return { filter, upTo, missing: 0, total: groups.reduce((total, { entries }) => total + entries, 0) };
  }
  const found = await store.listSummaries({ filter, ids: [...ids], limit: Math.max(1, ids.size) });
  const known = found.map(({ id }) => id);
  return { filter, ids: known, upTo: known.at(-1) ?? 0, missing: ids.size - known.length, total: known.length };
}

/** The newest entry that fits, 0 for none. */
export async function lastId(store: DeadLetterStore, filter: DeadLetterFilter): Promise<number> {
  const [last] = await store.listSummaries({ filter, newestFirst: true, limit: 1 });
  return last?.id ?? 0;
}

/** Deals with a selection page by page, at the rate that was asked for, until it is stopped. */
export async function forEachPage<Progress extends ClearProgress>(
  { store, clock }: { readonly store: DeadLetterStore; readonly clock: Clock },
  selected: Bounded,
  { batchSize, ratePerSecond, onProgress }: Run<Progress>,
  stop: AbortSignal,
  deal: (ids: readonly number[]) => Promise<Omit<Progress, keyof ClearProgress>>,
): Promise<void> {
  const start = clock.elapsed();
  let done = 0;
  for await (const page of pagesOf(store, selected, batchSize)) {
    await sleep((done / ratePerSecond) * 1_000 - (clock.elapsed() - start), clock, stop);
    if (stop.aborted) return;
    const progress = await deal(page);
    done += page.length;
    if (stop.aborted) return;
    await onProgress({ ...progress, done, total: selected.total } as Progress);
  }
}

async function* pagesOf(
  store: DeadLetterStore,
  { filter, ids, upTo }: Bounded,
  limit: number,
): AsyncGenerator<readonly number[]> {
  if (ids !== undefined) {
    for (let at = 0; at < ids.length; at += limit) yield ids.slice(at, at + limit);
    return;
  }
  for (let after = 0; ; ) {
    const page = await store.listSummaries({ filter, after, upTo, limit });
    const last = page.at(-1);
    if (last === undefined) return;
    yield page.map(({ id }) => id);
    after = last.id;
  }
}
