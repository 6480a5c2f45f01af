import { SluiceError } from '../base/errors.ts';
import { foldName } from '../base/fold-name.ts';
import { isPlainObject, OptionReader, show } from '../base/options.ts';
import type { WaitOptions } from '../base/waiting.ts';
import type { DeadLetterFilter, DeadLetterRange, DeadLetterSummary, WriteOperation } from '../store/store.ts';

/** Which dead letters: those that fit everything that is given. */
export interface DeadLetterQuery {
  /** For this table, whatever the case of its letters. */
  readonly table?: string | undefined;
  /** What the write wanted. */
  readonly operation?: WriteOperation | undefined;
  /** With this result code, or one that extends it: `'SQLITE_CONSTRAINT'` means constraints of every kind. */
  readonly errorCode?: string | undefined;
  /** First refused at this time or later: a date, or milliseconds since 1970. */
  readonly since?: Date | number | undefined;
  /** First refused before this time. */
  readonly until?: Date | number | undefined;
}

/** Dead letters by their ids, by what they are, or all of them. */
export type DeadLetterSelection = readonly number[] | DeadLetterQuery | 'all';

/** A page of the queue. */
export interface DeadLetterPage extends DeadLetterQuery {
  /** At most this many entries. Integer, 1 to 100,000. @defaultValue 1000 */
  readonly limit?: number | undefined;
  /** Entries behind the one with this id, in the order asked for: the last one of the page before. */
  readonly after?: number | undefined;
  /** @defaultValue 'oldest' */
  readonly order?: 'oldest' | 'newest' | undefined;
}

/** All that a write can do. */
export const WRITE_OPERATIONS: readonly WriteOperation[] = Object.keys({
  put: 0,
  delete: 0,
  clear: 0,
  append: 0,
  sql: 0,
  ensure: 0,
  group: 0,
} satisfies Record<WriteOperation, 0>) as WriteOperation[];

const LIMIT_MAX = 100_000;
const LIMIT_DEFAULT = 1_000;

/** What a selection comes down to. */
export interface Selected {
  readonly filter: DeadLetterFilter;
  readonly ids: ReadonlySet<number> | undefined;
}

export function readQuery(query: DeadLetterQuery, where: string): DeadLetterFilter {
  const options = new OptionReader(query);
  const filter = filterOf(options);
  options.finish(where);
  return filter;
}

export function readPage(
  page: DeadLetterPage & WaitOptions,
  where: string,
): { readonly range: DeadLetterRange; readonly wait: WaitOptions } {
  const options = new OptionReader(page);
  const wait = { signal: options.any('signal'), timeoutMs: options.any('timeoutMs') } as WaitOptions;
  const range: DeadLetterRange = {
    filter: filterOf(options),
    limit: options.integer('limit', { min: 1, max: LIMIT_MAX, fallback: LIMIT_DEFAULT }),
    newestFirst: options.oneOf('order', ['oldest', 'newest'], 'oldest') === 'newest',
    after: options.integer('after', { min: 0, max: Number.MAX_SAFE_INTEGER, fallback: undefined }),
  };
  options.finish(where);
  return { range, wait };
}

export function readSelection(selection: DeadLetterSelection, where: string): Selected {
  if (selection === 'all') return { filter: {}, ids: undefined };
  if (Array.isArray(selection)) return { filter: {}, ids: readIds(selection, where) };
  if (isPlainObject(selection)) {
    const filter = readQuery(selection, where);
    // Mostly a variable that nobody has set: what deletes everything has to be said.
    if (Object.values(filter).every((value) => value === undefined)) {
      throw new SluiceError(
        'SLUICE_INVALID_OPTION',
        `${where}: the filter is empty, say 'all' if all entries are meant`,
      );
    }
    return { filter, ids: undefined };
  }
  throw new SluiceError(
    'SLUICE_INVALID_OPTION',
    `${where}: pass a list of ids, a filter such as { table: 'cpu' }, or 'all', not ${show(selection)}`,
  );
}

/** Whether an entry fits, as the store sees it. */
export function fits({ filter, ids }: Selected, letter: DeadLetterSummary): boolean {
  const { table, operation, errorCode, since, until } = filter;
  return (
    (ids === undefined || ids.has(letter.id)) &&
    (table === undefined || (letter.table !== null && foldName(letter.table) === foldName(table))) &&
    (operation === undefined || letter.operation === operation) &&
    (errorCode === undefined || `${letter.errorCode}_`.startsWith(`${errorCode}_`)) &&
    (since === undefined || letter.firstFailedAt >= since) &&
    (until === undefined || letter.firstFailedAt < until)
  );
}

export function checkId(id: unknown, where: string): void {
  if (Number.isSafeInteger(id) && (id as number) >= 0) return;
  throw new SluiceError('SLUICE_INVALID_OPTION', `${where}: the id of a dead letter is an integer, not ${show(id)}`);
}

function readIds(ids: readonly unknown[], where: string): ReadonlySet<number> {
  for (const id of ids) checkId(id, where);
  return new Set((ids as number[]).toSorted((a, b) => a - b));
}

function filterOf(options: OptionReader): DeadLetterFilter {
  return {
    table: options.text('table', undefined),
    operation: options.oneOf<WriteOperation, undefined>('operation', WRITE_OPERATIONS, undefined),
    errorCode: options.text('errorCode', undefined),
    since: timeOf(options, 'since'),
    until: timeOf(options, 'until'),
  };
}

function timeOf(options: OptionReader, name: string): number | undefined {
  const time = options.any(name);
  if (time === undefined) return undefined;
  const ms = time instanceof Date ? time.getTime() : time;
  if (typeof ms === 'number' && Number.isFinite(ms)) return Math.ceil(ms);
  options.refuse(name, `must be a Date or milliseconds since 1970, not ${show(time)}`);
  return undefined;
}
