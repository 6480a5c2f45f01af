import { SluiceError } from '../base/errors.ts';
import { show } from '../base/options.ts';

const NAME_LENGTH_MAX = 128;

/** Why a text cannot be the name of a table or a column; `undefined` if it can. Names are quoted wherever they go. */
export function nameProblem(name: unknown): string | undefined {
  if (typeof name !== 'string' || name === '') return `must be a non-empty string, not ${show(name)}`;
  if (name.length > NAME_LENGTH_MAX) return `must not be longer than ${NAME_LENGTH_MAX} characters`;
  if (!name.isWellFormed() || name.includes('\0')) return 'must be well-formed Unicode without NUL';
  if (/^(sqlite_|_sluice_)/i.test(name)) return `must not begin with 'sqlite_' or '_sluice_': ${show(name)} is taken`;
  return undefined;
}

export function checkName(name: unknown, what: string): asserts name is string {
  const problem = nameProblem(name);
  if (problem !== undefined) throw new SluiceError('SLUICE_INVALID_OPTION', `${what} ${problem}`);
}
