import { messageOf, SluiceError } from '../base/errors.ts';
import { type OptionReader, show } from '../base/options.ts';
import { DEPTH_MAX } from './codec.ts';

/**
 * A schema that can check a value: any validator that follows Standard Schema (https://standardschema.dev), such as zod,
 * valibot or arktype. It must answer at once, not with a promise. What it makes of a value has the type `T`; what it takes has the type
 * `In`, which is another one where there are defaults or conversions.
 */
export interface Schema<T = unknown, In = T> {
  readonly '~standard': {
    readonly version: 1;
    readonly vendor: string;
    /** Says what it makes of a value, or what is wrong with it. */
    readonly validate: (value: unknown) => SchemaResult<T> | Promise<SchemaResult<T>>;
    /** What it takes and what it makes of that, for the compiler alone. */
    readonly types?: { readonly input: In; readonly output: T } | undefined;
  };
}

/** What a {@link Schema} answers. */
export type SchemaResult<T> =
  | { readonly value: T; readonly issues?: undefined }
  | { readonly issues: readonly { readonly message: string; readonly path?: readonly unknown[] | undefined }[] };

/**
 * The type of values as they are stored: what the schema makes of them with `coerce: true`, what was given with `false`, and either
 * where nothing is said. All the same for a schema that converts nothing.
 */
export type Stored<T, In, Coerce extends boolean> = Coerce extends true ? T : [In] extends [T] ? T : In;

/** How values are checked: see `validator` and `coerce` of {@link TableOptions}. */
export interface Validation {
  readonly schema: Schema;
  readonly coerce: boolean;
}

/** Reads an option that is a schema; `null` is one that is switched off. */
export function readSchema(options: OptionReader, name: string): Schema | null | undefined {
  const schema = options.any(name);
  if (schema === undefined || schema === null) return schema;
  const problem = schemaProblem(schema);
  if (problem === undefined) return schema as Schema;
  options.refuse(name, problem);
  return undefined;
}

/** What is wrong with a schema, if anything. */
export function schemaProblem(schema: unknown): string | undefined {
  if (typeof (schema as Partial<Schema> | null | undefined)?.['~standard']?.validate === 'function') return undefined;
  return `must follow Standard Schema (zod, valibot, arktype …), not be ${show(schema)}`;
}

/**
 * The value as it is to be stored. Properties that a schema leaves `undefined` (zod does that to optional ones) read the same if
 * they are not there, and whoever gave the value cannot leave them out.
 */
export function storable<T>(validation: Validation, value: T, what: string): T {
  const checked = validated(validation, value, what);
  return validation.coerce ? (withoutUndefined(checked, new Map()) as T) : checked;
}

/** What the schema made of a value with `coerce`, otherwise what was given. */
export function validated<T>({ schema, coerce }: Validation, value: T, what: string): T {
  const result = resultOf(schema, value, what) as SchemaResult<T>;
  if (isThenable(result)) throw answersLate('the schema', result);
  if (result.issues === undefined) return coerce ? result.value : value;
  const problems = result.issues.map(({ message, path = [] }) =>
    path.length === 0 ? message : `${path.map(stepOf).join('.')}: ${message}`,
  );
  throw new SluiceError('SLUICE_VALIDATION', `${what} does not fit its schema: ${problems.join('; ')}`, { problems });
}

/** The same in plain objects and lists, or the value itself where nothing has to go. */
function withoutUndefined(value: unknown, seen: Map<object, unknown>, depth = 0): unknown {
  if (typeof value !== 'object' || value === null || depth > DEPTH_MAX) return value;
  const known = seen.get(value);
  if (known !== undefined) return known;
  // Should it contain itself, that is refused later, and must end here.
  seen.set(value, value);
  const left = Array.isArray(value) ? listWithout(value, seen, depth) : objectWithout(value, seen, depth);
  seen.set(value, left);
  return left;
}

function listWithout(list: readonly unknown[], seen: Map<object, unknown>, depth: number): unknown {
  const left = list.map((item) => withoutUndefined(item, seen, depth + 1));
  return left.every((item, i) => Object.is(item, list[i])) ? list : left;
}

function objectWithout(value: object, seen: Map<object, unknown>, depth: number): unknown {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return value;
  const given = Object.entries(value);
  const left = given
    .filter(([, property]) => property !== undefined)
    .map(([name, property]) => [name, withoutUndefined(property, seen, depth + 1)] as const);
  const isSame = left.length === given.length && left.every(([, property], i) => Object.is(property, given[i]?.[1]));
  return isSame ? value : Object.fromEntries(left);
}

/** What a function in a schema throws says no, as what a hook throws does. */
function resultOf(schema: Schema, value: unknown, what: string): unknown {
  try {
    return schema['~standard'].validate(value);
  } catch (cause) {
    if (cause instanceof SluiceError) throw cause;
    throw new SluiceError('SLUICE_VALIDATION', `the schema refused ${what}: ${messageOf(cause)}`, { cause });
  }
}

function stepOf(step: unknown): string {
  return String(typeof step === 'object' && step !== null && 'key' in step ? step.key : step);
}

/** A write is accepted or refused at the call, so nothing that decides about it can be waited for. */
export function answersLate(who: string, answer: PromiseLike<unknown>): SluiceError {
  // Or what it ends with would be an unhandled rejection on top.
  answer.then(undefined, () => undefined);
  return new SluiceError(
    'SLUICE_UNSUPPORTED',
    `${who} answers with a promise: hooks and validators are called where nothing can wait, use a synchronous one`,
  );
}

export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function';
}
