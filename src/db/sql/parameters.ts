import { SluiceError } from '../../base/errors.ts';
import type { SqlValue } from '../../base/frame/index.ts';
import { show } from '../../base/options.ts';
import type { Parameters } from '../../store/store.ts';
import { toSqlValue } from '../codec.ts';

/** Values for the parameters of a statement: a list for `?`, an object for `:name`, `@name` and `$name`. */
export type SqlParameters = readonly unknown[] | Readonly<Record<string, unknown>>;

/** A parameter as it travels: whole numbers as bigint, so that SQLite sees integers. */
export function toParameter(value: unknown, name: string): SqlValue {
  const stored = toSqlValue(value, name);
  return typeof stored === 'number' && Number.isSafeInteger(stored) ? BigInt(stored) : stored;
}

export function parametersOf(parameters: SqlParameters): Parameters {
  if (Array.isArray(parameters)) return parameters.map((value, i) => toParameter(value, `parameter ${i + 1}`));
  if (typeof parameters !== 'object' || parameters === null) {
    throw new SluiceError('SLUICE_INVALID_VALUE', `parameters must be a list or an object, not ${show(parameters)}`);
  }
  return Object.fromEntries(
    Object.entries(parameters).map(([name, value]) => [name, toParameter(value, `parameter ${name}`)]),
  );
}

/** Parameters of a statement that is written behind. */
export function stagedParameters(parameters: readonly unknown[]): SqlValue[] {
  if (!Array.isArray(parameters)) {
    throw new SluiceError(
      'SLUICE_INVALID_VALUE',
      `parameters of a staged statement must be a list, not ${show(parameters)}`,
    );
  }
  return parameters.map((value, i) => toSqlValue(value, `parameter ${i + 1}`));
}
