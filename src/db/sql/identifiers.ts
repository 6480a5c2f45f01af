import { show } from '../../base/options.ts';
import { nameProblem } from '../names.ts';
import { invalidSql } from './tokens.ts';

/** A name as SQL takes it, whatever is in it. Names of columns that a result is to have, too. */
export function quoteName(name: unknown): string {
  if (typeof name !== 'string' || name === '') throw invalidSql(`a name must be a non-empty string, not ${show(name)}`);
  if (!name.isWellFormed() || name.includes('\0')) {
    throw invalidSql('a name must be well-formed Unicode without NUL');
  }
  return `"${name.replaceAll('"', '""')}"`;
}

/** The name of a table, an index or a column of the user's own. */
export function quoteOwn(name: unknown, what: string): string {
  const problem = nameProblem(name);
  if (problem !== undefined) throw invalidSql(`${what} ${problem}`);
  return quoteName(name);
}
