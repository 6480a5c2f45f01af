import { SluiceError } from '../base/errors.ts';
import type { SqlValue } from '../base/frame/index.ts';
import type { Entry, KeyRange } from '../store/store.ts';
import type { Core } from './core.ts';
import type { Expiry } from './expiry.ts';
import { Merger, overlayOf } from './merge.ts';

/** Rows taken from a snapshot at a time: enough to make the calls cheap, few enough to hold. The first time no more than are wanted. */
const PAGE_ROWS = 256;

/** Which entries a walk is about, and how many of them at most. */
export interface Walk extends KeyRange {
  readonly limit?: number | undefined;
}

/**
 * A lazy walk over the table at one moment: the generations that are not applied, over a snapshot of SQLite that says
 * itself how far it has come. Nothing is read before the first entry is asked for; the snapshot goes when the walk
 * ends, is left, or has lasted too long.
 */
export function* scanEntries(
  core: Core,
  table: string,
  { limit = Number.POSITIVE_INFINITY, ...keys }: Walk,
  expiry: Expiry,
): Generator<Entry, void, undefined> {
  let left = limit;
  if (left === 0) return;
  core.assertOpen();
  const range = { ...keys, liveAt: expiry.now() };
  const generations = core.engine.generations();
  const scan = core.store.sync.scan(table, range);
  const age = limitAge(core, scan);
  try {
    const merger = new Merger(overlayOf(generations, scan.appliedSeq, table, range), range.reverse ?? false);
    let rows = Math.min(PAGE_ROWS, limit);
    for (let isLast = false; !isLast; rows = PAGE_ROWS) {
      age.check();
      const page = scan.next(rows);
      isLast = page.length < rows;
      for (const entry of merger.merge(page, isLast)) {
        yield entry;
        if (--left === 0) return;
      }
    }
  } finally {
    age.end();
    scan.close();
  }
}

/** The same walk, read by a reader thread. */
export async function* scanEntriesAsync(
  core: Core,
  table: string,
  { limit = Number.POSITIVE_INFINITY, ...keys }: Walk,
  expiry: Expiry,
): AsyncGenerator<Entry, void, undefined> {
  let left = limit;
  if (left === 0) return;
  core.assertOpen();
  const range = { ...keys, liveAt: expiry.now() };
  const generations = core.engine.generations();
  const scan = await core.store.scan(table, range);
  const age = limitAge(core, scan);
  try {
    const merger = new Merger(overlayOf(generations, scan.appliedSeq, table, range), range.reverse ?? false);
    let rows = Math.min(PAGE_ROWS, limit);
    for (let isLast = false; !isLast; rows = PAGE_ROWS) {
      age.check();
      const page = await scan.next(rows).catch((error: unknown) => {
        age.check();
        throw error;
      });
      isLast = page.length < rows;
      for (const entry of merger.merge(page, isLast)) {
        yield entry;
        if (--left === 0) return;
      }
    }
  } finally {
    age.end();
    scan.close();
  }
}

/** The entries of a walk as a reader gets them. */
export function* decoded<T>(
  entries: Iterable<Entry>,
  toReader: (key: string, value: SqlValue) => T,
): IterableIterator<[string, T]> {
  for (const [key, value] of entries) yield [key, toReader(key, value)];
}

/** The same of a walk that a reader thread makes. */
export async function* decodedAsync<T>(
  entries: AsyncIterable<Entry>,
  toReader: (key: string, value: SqlValue) => T,
): AsyncIterableIterator<[string, T]> {
  for await (const [key, value] of entries) yield [key, toReader(key, value)];
}

/** Closes a snapshot that is left open: it would keep the WAL from shrinking, and staging in memory. */
export function limitAge(core: Core, scan: { close(): void }): { check(): void; end(): void } {
  let expired = false;
  const restores = core.restores();
  const timer = core.clock.after(core.scanMaxAgeMs, () => {
    expired = true;
    scan.close();
  });
  return {
    check() {
      core.assertOpen();
      if (core.restores() !== restores) {
        throw new SluiceError('SLUICE_CONFLICT', 'the database was restored while it was walked through: begin anew');
      }
      if (!expired) return;
      throw new SluiceError(
        'SLUICE_TIMEOUT',
        `the scan was open for more than ${core.scanMaxAgeMs} ms and has let its snapshot go: read faster, in ranges, or raise scanMaxAgeMs`,
      );
    },
    end: () => timer.cancel(),
  };
}
