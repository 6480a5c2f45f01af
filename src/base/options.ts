import leven from 'leven';
import { SluiceError } from './errors.ts';

/**
 * Reads one object of options field by field, collecting every problem instead of stopping at the first. Nested
 * objects share the list, so that `open` reports all that is wrong in one error.
 */
export class OptionReader {
  readonly #given: Readonly<Record<string, unknown>>;
  readonly #path: string;
  readonly #problems: string[];
  readonly #known = new Set<string>();
  readonly #nested: OptionReader[] = [];

  constructor(given: unknown, path = '', problems: string[] = []) {
    this.#path = path;
    this.#problems = problems;
    const isObject = isPlainObject(given);
    if (!isObject && given !== undefined)
      problems.push(`${path === '' ? 'options' : path} must be an object, not ${show(given)}`);
    this.#given = isObject ? given : {};
  }

  integer<Fallback extends number | undefined>(
    name: string,
    { min, max, fallback }: { min: number; max: number; fallback: Fallback },
  ): number | Fallback {
    const value = this.#take(name);
    if (value === undefined) return fallback;
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value;
    this.refuse(name, `must be an integer from ${min} to ${max}, not ${show(value)}`);
    return fallback;
  }

  /** A number from 0 to 1. */
  ratio(name: string, fallback: number): number {
    const value = this.#take(name);
    if (value === undefined) return fallback;
    if (typeof value === 'number' && value >= 0 && value <= 1) return value;
    this.refuse(name, `must be a number from 0 to 1, not ${show(value)}`);
    return fallback;
  }

  oneOf<const T extends string, Fallback extends T | undefined = T>(
    name: string,
    allowed: readonly T[],
    fallback: NoInfer<Fallback>,
  ): T | Fallback {
    const value = this.#take(name);
    if (value === undefined) return fallback;
    if ((allowed as readonly unknown[]).includes(value)) return value as T;
    this.refuse(name, `must be one of ${allowed.map((word) => `'${word}'`).join(', ')}, not ${show(value)}`);
    return fallback;
  }

  text<Fallback extends string | undefined>(name: string, fallback: Fallback): string | Fallback {
    const value = this.#take(name);
    if (value === undefined) return fallback;
    if (typeof value === 'string') return value;
    this.refuse(name, `must be a string, not ${show(value)}`);
    return fallback;
  }

  boolean(name: string, fallback: boolean): boolean {
    const value = this.#take(name);
    if (value === undefined) return fallback;
    if (typeof value === 'boolean') return value;
    this.refuse(name, `must be true or false, not ${show(value)}`);
    return fallback;
  }

  /** A value that only the caller can check. */
  any(name: string): unknown {
    return this.#take(name);
  }

  /** The options of a nested object. */
  nested(name: string): OptionReader {
    return this.element(name, this.#take(name));
  }

  /** The options of an object that lies deeper, as in a list, under the name that messages have for it. */
  element(name: string, given: unknown): OptionReader {
    const reader = new OptionReader(given, this.#pathOf(name), this.#problems);
    this.#nested.push(reader);
    return reader;
  }

  /** Records that option `name` is wrong: `refuse('table', 'must not be empty')`. */
  refuse(name: string, problem: string): void {
    this.#problems.push(`${this.#pathOf(name)} ${problem}`);
  }

  /** Throws one `SLUICE_INVALID_OPTION` with everything that was found, unknown names included. */
  finish(where: string): void {
    this.#reportUnknown();
    if (this.#problems.length === 0) return;
    throw new SluiceError('SLUICE_INVALID_OPTION', `${where}: ${this.#problems.join('; ')}`, {
      problems: [...this.#problems],
    });
  }

  #take(name: string): unknown {
    this.#known.add(name);
    return Object.hasOwn(this.#given, name) ? this.#given[name] : undefined;
  }

  #pathOf(name: string): string {
    return this.#path === '' ? name : `${this.#path}.${name}`;
  }

  #reportUnknown(): void {
    for (const name of Object.keys(this.#given)) {
      if (this.#known.has(name)) continue;
      this.#problems.push(unknownOption(name, [...this.#known], this.#pathOf('')));
    }
    for (const reader of this.#nested) reader.#reportUnknown();
  }
}

/** What to say of a name that no option has. */
export function unknownOption(name: string, known: readonly string[], path = ''): string {
  const near = nearest(name, known);
  return `unknown option '${path}${name}'${near === undefined ? '' : `, did you mean '${path}${near}'?`}`;
}

/** The known name that is closest to a misspelt one, if any is close. */
function nearest(name: string, known: readonly string[]): string | undefined {
  const ranked = known
    .map((word) => ({ word, distance: leven(name.toLowerCase(), word.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance);
  const best = ranked[0];
  const close = best !== undefined && best.distance <= Math.max(2, Math.floor(best.word.length / 2));
  return close ? best.word : undefined;
}

/**
 * Whether a value can hold options. A Set, a Map, a Date and a promise have no fields of their own, and would pass for
 * "nothing given": as the filter of a `clear`, for everything there is.
 */
export function isPlainObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return Object.prototype.toString.call(value) === '[object Object]';
}

/** A value as it may stand in a message: short, and never the inside of an object. */
export function show(value: unknown): string {
  if (typeof value === 'string') return `'${value.length > 40 ? `${value.slice(0, 40)}…` : value}'`;
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'object' && value !== null) {
    const kind = Object.prototype.toString.call(value).slice('[object '.length, -1);
    return `${/^[AEIO]/.test(kind) ? 'an' : 'a'} ${kind === 'Object' ? 'object' : kind}`;
  }
  return String(value);
}
