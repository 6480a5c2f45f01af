import { messageOf, SluiceError } from '../base/errors.ts';
import type { AsciiText, SqlValue } from '../base/frame/index.ts';
import { show } from '../base/options.ts';
import type { Encoded } from '../engine/index.ts';
import { AsciiJson } from './ascii-json.ts';

/** How deep a value may be nested. As SQLite's own JSON functions: https://sqlite.org/json1.html */
export const DEPTH_MAX: number = 1_000;

const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;

/**
 * A value as it is stored: JSON text, or the bytes of a `Uint8Array`. Captured: later changes of the caller's object
 * make no difference. What JSON would drop or change without a word is refused.
 */
export function encodeValue(value: unknown): Encoded {
  if (value instanceof Uint8Array) return Uint8Array.from(value);
  return toJson(value, 'value');
}

/** The same for a write that is staged before anything else is done: the JSON of plain values is not made a string. */
export function encodeNow(value: unknown): Encoded | AsciiText {
  return asciiJson.encode(value) ?? encodeValue(value);
}

const asciiJson = new AsciiJson();

/** What {@link encodeNow} has made of a value, for later. */
export function keepEncoded(value: Encoded | AsciiText): Encoded {
  return typeof value === 'string' || value instanceof Uint8Array ? value : String(value);
}

/** A stored value as the caller's own copy. */
export function decodeValue(stored: SqlValue): unknown {
  if (typeof stored === 'string') {
    try {
      return JSON.parse(stored) as unknown;
    } catch (cause) {
      throw new SluiceError(
        'SLUICE_INVALID_VALUE',
        `the stored value is not JSON (${messageOf(cause)}): something else wrote it, read it with afetchOne`,
        { cause },
      );
    }
  }
  return stored instanceof Uint8Array ? Uint8Array.from(stored) : stored;
}

/** A value of a row, or a parameter of a statement, as SQLite stores it. */
export function toSqlValue(value: unknown, name: string): SqlValue {
  switch (typeof value) {
    case 'string':
      if (!value.isWellFormed()) throw invalid(`${name} must be well-formed Unicode: it has a lone surrogate`);
      return value;
    case 'number':
      if (Number.isFinite(value)) return value;
      throw invalid(
        Number.isNaN(value)
          ? `${name} is NaN, which SQLite has no number for: store null instead`
          : `${name} is ${value}, which is hardly meant: store null instead, or say 9e999 in SQL`,
      );
    case 'boolean':
      return value ? 1 : 0;
    case 'bigint':
      if (value < INT64_MIN || value > INT64_MAX)
        throw invalid(`${name} is ${value}n, which does not fit into 64 bits`);
      return value;
    case 'object':
      return value === null ? null : objectToSqlValue(value, name);
    default:
      throw invalid(`${name} is ${show(value)}, which cannot be stored`);
  }
}

/** What an iterable has, as a list. */
export function listOf<T>(given: Iterable<T>, what: string): T[] {
  if (typeof given !== 'object' || given === null || !(Symbol.iterator in given)) {
    throw invalid(`${what} must be an iterable, not ${show(given)}`);
  }
  return [...given];
}

function objectToSqlValue(value: object, name: string): SqlValue {
  if (value instanceof Uint8Array) return Uint8Array.from(value);
  if (value instanceof Date) {
    const time = value.getTime();
    if (Number.isNaN(time)) throw invalid(`${name} is an invalid date`);
    return time;
  }
  return toJson(value, name);
}

function toJson(value: unknown, name: string): string {
  // A fraction of what JSON.stringify takes for long text.
  if (typeof value === 'string' && asciiJson.isPlain(value)) return `"${value}"`;
  const fault = faultOf(value, 0);
  if (fault !== undefined) throw invalid(`${name}${fault}`);
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined) throw invalid(`${name} has no JSON form`);
  return text;
}

/** What in a value JSON cannot hold, with the way to it: `.list[3] is NaN`. */
function faultOf(value: unknown, depth: number): string | undefined {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return undefined;
    case 'number':
      return Number.isFinite(value) ? undefined : ` is ${value}, which JSON cannot hold: store null instead`;
    case 'object':
      return value === null ? undefined : faultOfObject(value, depth);
    case 'undefined':
      return ' is undefined, which JSON cannot hold: leave it out, or store null';
    default:
      return ` is a ${typeof value}, which JSON cannot hold`;
  }
}

function faultOfObject(value: object & { toJSON?: unknown }, depth: number): string | undefined {
  if (depth > DEPTH_MAX) return tooDeep(value);
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const fault = faultOf(value[i], depth + 1);
      if (fault !== undefined) return `[${i}]${fault}`;
    }
    return undefined;
  }
  if (value instanceof Date && Number.isNaN(value.getTime())) return ' is an invalid date';
  if (typeof value.toJSON === 'function') return faultOf(value.toJSON(''), depth + 1);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) {
    // A Map, a Set, a typed array: their content is not in their properties, JSON would store an empty object.
    const tag = Object.prototype.toString.call(value).slice(8, -1);
    if (tag !== 'Object') return ` is a ${tag}, which JSON cannot hold`;
  }
  for (const name in value) {
    const fault = faultOf((value as Record<string, unknown>)[name], depth + 1);
    if (fault !== undefined) return `.${name}${fault}`;
  }
  return undefined;
}

function tooDeep(value: object): string {
  try {
    JSON.stringify(value);
  } catch (error) {
    if (error instanceof TypeError) return ' contains itself';
  }
  return ` is nested deeper than ${DEPTH_MAX} levels`;
}

function invalid(message: string): SluiceError {
  // The way to a fault in a cycle is long and says nothing.
  const short = message.length > 300 ? `${message.slice(0, 100)} … ${message.slice(-150)}` : message;
  return new SluiceError('SLUICE_INVALID_VALUE', short);
}
