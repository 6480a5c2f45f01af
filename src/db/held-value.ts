import type { SqlValue } from '../base/frame/index.ts';
import { isPlainObject } from '../base/options.ts';
import { decodeValue } from './codec.ts';

/** What SQLite has under a key. A value is never SQL's NULL: it reads as that of JSON. */
export type Value = Exclude<SqlValue, null>;

type Flat = Readonly<Record<string, string | number | boolean | null>>;

/** Objects with more fields are not kept parsed: V8 copies them no faster than it parses them. */
const FIELDS_MAX = 64;

/** How many sets of fields the values of one table may have. */
const SHAPES_MAX = 64;

/**
 * Which sets of fields the values of a table have. V8 describes each once for all objects that have it, so that they take about as
 * much memory as their JSON text; of objects that share none with others, it would be many times as much.
 */
export class Shapes {
  readonly #known = new Set<string>();

  /** Whether a value is an object of plain fields, and one of few shapes. */
  has(value: unknown): value is Flat {
    if (!isPlainObject(value)) return false;
    const names = Object.keys(value);
    if (names.length > FIELDS_MAX || !names.every((name) => isPlain(value[name]))) return false;
    const shape = JSON.stringify(names);
    if (!this.#known.has(shape) && this.#known.size < SHAPES_MAX) this.#known.add(shape);
    return this.#known.has(shape);
  }
}

/** Whether a copy of an object may share a field, and JSON has it again: another program may have stored `-0`, or `1e999`. */
function isPlain(field: unknown): boolean {
  if (typeof field === 'number') return Number.isFinite(field) && !Object.is(field, -0);
  return typeof field !== 'object' || field === null;
}

/**
 * A value in the read cache. It comes as it is stored; from the first read on, a flat object is kept parsed instead, because to copy
 * one takes a fifth of the time that parsing it takes.
 */
export class HeldValue {
  /** When the row expires, in milliseconds since 1970: it is absent then. */
  readonly expiresAt: number;
  #stored: Value | undefined;
  #flat: Flat | undefined;
  #isRead = false;

  constructor(stored: Value, expiresAt: number = Number.POSITIVE_INFINITY) {
    this.#stored = stored;
    this.expiresAt = expiresAt;
  }

  /** As it is stored, or another JSON text of what `JSON.parse` makes of it. For readers: it is never stored again. */
  get stored(): Value {
    return this.#stored ?? JSON.stringify(this.#flat);
  }

  /** The value as the caller's own copy. */
  copy(shapes: Shapes): unknown {
    if (this.#flat !== undefined) return { ...this.#flat };
    const value = decodeValue(this.stored);
    if (this.#isRead) return value;
    this.#isRead = true;
    if (!shapes.has(value)) return value;
    this.#flat = value;
    this.#stored = undefined;
    return { ...value };
  }
}
