import { SluiceError } from '../../base/errors.ts';
import { foldName } from '../../base/fold-name.ts';
import type { SqlValue } from '../../base/frame/index.ts';
import { isPlainObject, show } from '../../base/options.ts';
import { columnList } from './definitions.ts';
import { quoteName } from './identifiers.ts';
import { toParameter } from './parameters.ts';

/** Host parameters of one statement: https://sqlite.org/limits.html */
const PARAMETERS_MAX = 32_766;

/** A row as the parts of a statement. */
export interface Insertion {
  readonly names: readonly string[];
  readonly columns: readonly string[];
  readonly values: readonly SqlValue[];
  readonly marks: string;
}

/** The columns of a row, quoted, and its values. What is undefined is left to its default. */
export function insertion(row: Readonly<Record<string, unknown>>): Insertion {
  if (!isPlainObject(row)) throw new SluiceError('SLUICE_INVALID_VALUE', `a row must be an object, not ${show(row)}`);
  const given = Object.entries(row).filter(([, value]) => value !== undefined);
  return {
    names: given.map(([name]) => name),
    columns: given.map(([name]) => quoteName(name)),
    values: given.map(([name, value]) => toParameter(value, name)),
    marks: given.map(() => '?').join(', '),
  };
}

/** What happens to a row that is there already. */
export function onConflict(names: readonly string[], keys: readonly string[] | undefined, option: string): string {
  const target = keys === undefined ? '' : ` (${columnList(keys, option)})`;
  const folded = new Set((keys ?? []).map(foldName));
  const missing = (keys ?? []).find((key) => !names.some((name) => foldName(name) === foldName(key)));
  if (missing !== undefined) {
    throw new SluiceError('SLUICE_INVALID_VALUE', `the row has no column ${show(missing)}, which ${option} names`);
  }
  const changes = names.filter((name) => !folded.has(foldName(name)));
  if (changes.length === 0) return `ON CONFLICT${target} DO NOTHING`;
  return `ON CONFLICT${target} DO UPDATE SET ${changes.map((name) => `${quoteName(name)} = excluded.${quoteName(name)}`).join(', ')}`;
}

/** All columns that one of the rows has, and the values of each row for them. */
export function importOf(rows: Iterable<Readonly<Record<string, unknown>>>): { names: string[]; sets: SqlValue[][] } {
  if (typeof rows !== 'object' || rows === null || !(Symbol.iterator in rows)) {
    throw new SluiceError('SLUICE_INVALID_VALUE', `rows must be an iterable of objects, not ${show(rows)}`);
  }
  const places = new Map<string, number>();
  const names: string[] = [];
  const sets: SqlValue[][] = [];
  for (const row of rows) {
    if (!isPlainObject(row)) throw new SluiceError('SLUICE_INVALID_VALUE', `a row must be an object, not ${show(row)}`);
    const set: SqlValue[] = [];
    for (const [name, value] of Object.entries(row)) {
      const folded = foldName(name);
      let place = places.get(folded);
      if (place === undefined) {
        place = names.push(name) - 1;
        places.set(folded, place);
      }
      if (set[place] !== undefined) {
        throw new SluiceError('SLUICE_INVALID_VALUE', `row ${sets.length + 1} has the column ${show(name)} twice`);
      }
      set[place] = toImported(value, `${name} of row ${sets.length + 1}`);
    }
    sets.push(set);
  }
  if (names.length > PARAMETERS_MAX) throw new SluiceError('SLUICE_INVALID_VALUE', 'the rows have too many columns');
  if (sets.length > 0 && names.length === 0) {
    throw new SluiceError('SLUICE_INVALID_VALUE', 'the rows have no columns');
  }
  return { names, sets: sets.map((set) => Array.from(names, (_, i) => set[i] ?? null)) };
}

/** Infinities too: SQL can have stored one, and so an export can have it. */
function toImported(value: unknown, name: string): SqlValue {
  if (value === undefined) return null;
  return value === Infinity || value === -Infinity ? value : toParameter(value, name);
}
