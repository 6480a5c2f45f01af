import { SluiceError } from '../base/errors.ts';
import { show } from '../base/options.ts';
import type { KeyRange } from '../store/store.ts';

const KEY_BYTES_MAX = 64 * 1024;

/** A UTF-16 unit never takes more than this many bytes of UTF-8. */
const BYTES_PER_UNIT_MAX = 3;

/** Refuses what cannot be a key. The empty string can. */
export function checkKey(key: unknown): asserts key is string {
  if (typeof key !== 'string') {
    throw new SluiceError('SLUICE_INVALID_KEY', `a key must be a string, not ${show(key)}`);
  }
  if (!key.isWellFormed()) {
    throw new SluiceError(
      'SLUICE_INVALID_KEY',
      'a key must be well-formed Unicode: this one has a lone surrogate, which would not read back equal',
    );
  }
  if (key.length * BYTES_PER_UNIT_MAX > KEY_BYTES_MAX && Buffer.byteLength(key) > KEY_BYTES_MAX) {
    throw new SluiceError(
      'SLUICE_INVALID_KEY',
      `a key must not be longer than ${KEY_BYTES_MAX} bytes in UTF-8, this one has ${Buffer.byteLength(key)}`,
    );
  }
}

/**
 * Orders keys as SQLite's BINARY collation does, by their UTF-8 bytes. That is JavaScript's own order but for the
 * surrogates, which stand for code points above all others.
 */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return rank(x) - rank(y);
  }
  return a.length - b.length;
}

function rank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit >= 0xe000 ? unit - 0x800 : unit + 0x2000;
}

/** Which keys a scan is about. Without bounds, all. */
export interface ScanOptions {
  /** Keys that begin with this. Not together with the bounds. */
  readonly prefix?: string | undefined;
  /** Keys after this one. */
  readonly gt?: string | undefined;
  /** Keys from this one on. */
  readonly gte?: string | undefined;
  /** Keys before this one. */
  readonly lt?: string | undefined;
  /** Keys up to this one. */
  readonly lte?: string | undefined;
  /** From the last key to the first. @defaultValue false */
  readonly reverse?: boolean | undefined;
  /** At most this many entries. Integer of at least 0. @defaultValue no limit */
  readonly limit?: number | undefined;
}

const SCAN_OPTIONS: readonly string[] = ['prefix', 'gt', 'gte', 'lt', 'lte', 'reverse', 'limit'];

/** Checks the options of a scan; a prefix becomes a range. */
export function toRange(options: ScanOptions): KeyRange & { readonly limit: number } {
  if (typeof options !== 'object' || options === null) refuse(`options must be an object, not ${show(options)}`);
  for (const name of Object.keys(options)) {
    if (!SCAN_OPTIONS.includes(name)) refuse(`unknown option '${name}', known are ${SCAN_OPTIONS.join(', ')}`);
  }
  const { prefix, gt, gte, lt, lte, reverse = false, limit = Number.POSITIVE_INFINITY } = options;
  const bounds = { gt, gte, lt, lte };
  for (const [name, bound] of Object.entries({ prefix, ...bounds })) {
    if (bound !== undefined && (typeof bound !== 'string' || !bound.isWellFormed())) {
      refuse(`${name} must be a well-formed string, not ${show(bound)}`);
    }
  }
  if (limit !== Number.POSITIVE_INFINITY && !(Number.isInteger(limit) && limit >= 0)) {
    refuse(`limit must be an integer of at least 0, not ${show(limit)}`);
  }
  if (prefix === undefined) return { ...tighter(bounds), reverse, limit };
  if (Object.values(bounds).some((bound) => bound !== undefined)) refuse('prefix and bounds exclude each other');
  return { gte: prefix, lt: after(prefix), reverse, limit };
}

/** At most one bound on each side: SQLite looks for the first key by one of them, and goes from there. */
function tighter({ gt, gte, lt, lte }: KeyRange): KeyRange {
  const isAfter = gte === undefined || (gt !== undefined && compareKeys(gt, gte) >= 0);
  const isBefore = lte === undefined || (lt !== undefined && compareKeys(lt, lte) <= 0);
  return { ...(isAfter ? { gt } : { gte }), ...(isBefore ? { lt } : { lte }) };
}

/** Whether a key lies in a range. */
export function inRange(key: string, { gt, gte, lt, lte }: KeyRange): boolean {
  return (
    (gt === undefined || compareKeys(key, gt) > 0) &&
    (gte === undefined || compareKeys(key, gte) >= 0) &&
    (lt === undefined || compareKeys(key, lt) < 0) &&
    (lte === undefined || compareKeys(key, lte) <= 0)
  );
}

/** The first string behind all that begin with `prefix`; `undefined` where there is none. */
function after(prefix: string): string | undefined {
  const points = [...prefix];
  for (let last = points.pop(); last !== undefined; last = points.pop()) {
    const point = last.codePointAt(0) as number;
    if (point === 0x10ffff) continue;
    return points.join('') + String.fromCodePoint(point === 0xd7ff ? 0xe000 : point + 1);
  }
  return undefined;
}

function refuse(problem: string): never {
  throw new SluiceError('SLUICE_INVALID_OPTION', `scan: ${problem}`);
}
