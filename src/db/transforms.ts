import { SluiceError } from '../base/errors.ts';
import { isPlainObject, show } from '../base/options.ts';

/** Options of `increment`. */
export interface IncrementOptions {
  /** The field of an object that is to grow, in the place of the whole value. */
  readonly field?: string | undefined;
  /** What to begin with where there is no value, or no such field. @defaultValue none: `SLUICE_NOT_FOUND` */
  readonly default?: number | undefined;
}

/** Options of `patch`. */
export interface PatchOptions {
  /** Begin with an empty object where there is no value, instead of `SLUICE_NOT_FOUND`. @defaultValue false */
  readonly create?: boolean | undefined;
}

/** What a value becomes when it, or a field of it, grows. */
export function incremented(
  key: string,
  value: unknown,
  amount: number,
  { field, default: base }: IncrementOptions,
): unknown {
  if (field === undefined) return sum(value === undefined ? base : value, amount, key);
  if (value === undefined && base === undefined) throw notFound(key);
  const object = value === undefined ? {} : objectIn(key, value);
  const before = Object.hasOwn(object, field) ? object[field] : base;
  return { ...object, [field]: sum(before, amount, key, field) };
}

/** What an object becomes when some of its fields are replaced. */
export function patched(key: string, value: unknown, changes: object, { create = false }: PatchOptions): unknown {
  if (!isPlainObject(changes)) {
    throw new SluiceError('SLUICE_INVALID_VALUE', `the changes of a patch must be an object, not ${show(changes)}`);
  }
  if (value === undefined && !create) throw notFound(key);
  return { ...(value === undefined ? {} : objectIn(key, value)), ...changes };
}

function sum(before: unknown, amount: number, key: string, field?: string): number {
  const what = field === undefined ? `the value of ${show(key)}` : `the field ${show(field)} of ${show(key)}`;
  if (typeof amount !== 'number' || !Number.isFinite(amount)) {
    throw new SluiceError('SLUICE_INVALID_VALUE', `the amount must be a finite number, not ${show(amount)}`);
  }
  if (before === undefined) throw notFound(key, field);
  if (typeof before !== 'number') {
    throw new SluiceError('SLUICE_INVALID_VALUE', `${what} is ${show(before)}, which cannot grow: it must be a number`);
  }
  const after = before + amount;
  if (Number.isFinite(after)) return after;
  throw new SluiceError('SLUICE_INVALID_VALUE', `${what} would be ${after}, which JSON cannot hold`);
}

function objectIn(key: string, value: unknown): Readonly<Record<string, unknown>> {
  if (isPlainObject(value)) return value;
  throw new SluiceError('SLUICE_INVALID_VALUE', `the value of ${show(key)} is ${show(value)}, and has no fields`);
}

function notFound(key: string, field?: string): SluiceError {
  const what = field === undefined ? show(key) : `a field ${show(field)} in ${show(key)}`;
  return new SluiceError(
    'SLUICE_NOT_FOUND',
    `there is no ${field === undefined ? 'value under ' : ''}${what}: say what to begin with`,
  );
}
