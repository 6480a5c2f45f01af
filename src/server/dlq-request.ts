import { messageOf } from '../base/errors.ts';
import { OptionReader, show } from '../base/options.ts';
import type { DeadLetterPage, DeadLetterQuery, DeadLetterSelection, QueueRunOptions } from '../dlq/index.ts';
import { badRequest, integerOf, readSearch } from './search.ts';

/** How the body of `POST /dlq/retry` and `POST /dlq/clear` looks: one of the first three, and how to go about it. */
export interface RunRequest extends Pick<QueueRunOptions<never>, 'ratePerSecond' | 'batchSize'> {
  readonly ids?: readonly number[];
  /** Times as milliseconds since 1970, or as ISO 8601. */
  readonly filter?: Readonly<Record<string, unknown>>;
  readonly all?: true;
}

/** A run as the queue takes it. */
export interface Run {
  readonly selection: DeadLetterSelection;
  readonly options: Pick<QueueRunOptions<never>, 'ratePerSecond' | 'batchSize'>;
}

const FILTER: readonly string[] = ['table', 'operation', 'errorCode', 'since', 'until'];
const PAGE_DEFAULT = 1_000;
const PAGE_MAX = 10_000;

/** The filter in the parameters of a request. What it may hold is for the queue to say. */
export function readFilter(search: URLSearchParams): DeadLetterQuery {
  return filterOf(readSearch(search, FILTER));
}

export function readPage(search: URLSearchParams): DeadLetterPage {
  const given = readSearch(search, [...FILTER, 'limit', 'after', 'order']);
  return {
    ...filterOf(given),
    limit: integerOf(given, 'limit', { min: 1, max: PAGE_MAX, fallback: PAGE_DEFAULT }),
    after: integerOf(given, 'after', { min: 0, max: Number.MAX_SAFE_INTEGER, fallback: undefined }),
    order: given.get('order') as DeadLetterPage['order'],
  };
}

/** What a run is about. A body that does not say so clearly is refused: nothing is retried or cleared by accident. */
export function readRun(body: Buffer, where: string): Run {
  const options = new OptionReader(parse(body));
  const ids = options.any('ids');
  const filter = options.any('filter');
  const all = options.any('all');
  const ratePerSecond = options.any('ratePerSecond') as number | undefined;
  const batchSize = options.any('batchSize') as number | undefined;
  if ([ids, filter, all].filter((one) => one !== undefined).length !== 1) {
    options.refuse('ids, filter, all:', 'exactly one of them must be there');
  }
  if (ids !== undefined && !Array.isArray(ids)) options.refuse('ids', `must be a list, not ${show(ids)}`);
  if (filter !== undefined && !isFilter(filter)) {
    options.refuse(
      'filter',
      `must be an object with ${FILTER.join(', ')}, not empty: for all entries pass "all": true`,
    );
  }
  if (all !== undefined && all !== true) options.refuse('all', `must be true, not ${show(all)}`);
  options.finish(where);
  return {
    selection: isFilter(filter) ? withTimes(filter) : ((ids as number[] | undefined) ?? 'all'),
    options: { ratePerSecond, batchSize },
  };
}

/** Where the body may only be empty, or an object without fields. */
export function readNothing(body: Buffer, where: string): void {
  if (body.length > 0) new OptionReader(parse(body)).finish(where);
}

/** ISO 8601 with its zone, since this machine's means nothing to a client; a date is one of UTC. `undefined` for all else. */
export function readTime(text: string): number | undefined {
  if (/^\d{1,16}$/.test(text)) return Number(text);
  const isIso = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2}))?$/.test(text);
  const ms = isIso ? Date.parse(text) : Number.NaN;
  return Number.isNaN(ms) ? undefined : ms;
}

function filterOf(given: ReadonlyMap<string, string>): DeadLetterQuery {
  return {
    table: given.get('table'),
    operation: given.get('operation') as DeadLetterQuery['operation'],
    errorCode: given.get('errorCode'),
    since: timeOf(given.get('since'), 'since'),
    until: timeOf(given.get('until'), 'until'),
  };
}

function withTimes({ since, until, ...rest }: Readonly<Record<string, unknown>>): DeadLetterQuery {
  return { ...rest, since: timeOf(since, 'filter.since'), until: timeOf(until, 'filter.until') };
}

function timeOf(given: unknown, name: string): number | undefined {
  if (given === undefined) return undefined;
  const time = typeof given === 'string' ? readTime(given) : given;
  if (typeof time === 'number') return time;
  throw badRequest(`${name} must be ISO 8601 with its zone, such as 2026-03-01T12:00:00Z, or milliseconds since 1970`);
}

function isFilter(filter: unknown): filter is Readonly<Record<string, unknown>> {
  return (
    typeof filter === 'object' && filter !== null && !Array.isArray(filter) && Object.keys(filter as object).length > 0
  );
}

function parse(body: Buffer): unknown {
  let value: unknown;
  try {
    value = JSON.parse(body.toString());
  } catch (error) {
    throw badRequest(`the body is not JSON: ${messageOf(error)}`);
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw badRequest(`the body must be a JSON object, not ${show(value)}`);
}
