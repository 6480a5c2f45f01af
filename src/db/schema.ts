import { messageOf, SluiceError } from '../base/errors.ts';
import { type OptionReader, show } from '../base/options.ts';

/**
 * A schema that can check a value: any validator that follows Standard Schema (https://standardschema.dev), such as zod,
 * valibot or arktype. It must answer at once, not with a promise.
 */
export interface Schema<T = unknown> {
  readonly '~standard': {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => SchemaResult<T> | Promise<SchemaResult<T>>;
  };
}

/** What a {@link Schema} answers. */
export type SchemaResult<T> =
  | { readonly value: T; readonly issues?: undefined }
  | { readonly issues: readonly { readonly message: string; readonly path?: readonly unknown[] | undefined }[] };

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

/** The value as it is to be stored: what the schema made of it with `coerce`, otherwise what was given. */
export function validated<T>({ schema, coerce }: Validation, value: T, what: string): T {
  const result = resultOf(schema, value, what) as SchemaResult<T>;
  if (isThenable(result)) throw answersLate('the schema', result);
  if (result.issues === undefined) return coerce ? result.value : value;
  const problems = result.issues.map(({ message, path = [] }) =>
    path.length === 0 ? message : `${path.map(stepOf).join('.')}: ${message}`,
  );
  throw new SluiceError('SLUICE_VALIDATION', `${what} does not fit its schema: ${problems.join('; ')}`, { problems });
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
