import { SluiceError } from '../../base/errors.ts';
import { show } from '../../base/options.ts';
import { toSqlValue } from '../codec.ts';
import { quoteName } from './identifiers.ts';
import { refuseOwnTables } from './statements.ts';
import { depthOf, invalidSql, isKeyword, isOperator, tokenize } from './tokens.ts';

const TYPE_LENGTH_MAX = 10_000;

/** What no definition of a column has. Conflict clauses and foreign keys have `REPLACE`, `DELETE` and `UPDATE`. */
const NEVER = new Set(
  `ALTER ANALYZE ATTACH BEGIN COMMIT CREATE DETACH DROP FROM INSERT JOIN PRAGMA REINDEX RETURNING SAVEPOINT SELECT TABLE TRIGGER
   UNION VACUUM VALUES WHERE`.split(/\s+/),
);

/** The type of a column with its constraints, as it may stand behind the name: nothing in it reaches beyond the column. */
export function columnType(given: unknown, column: string): string {
  const what = `the type of column ${show(column)}`;
  if (typeof given === 'string' && given.length > TYPE_LENGTH_MAX) {
    throw invalidSql(`${what} is longer than ${TYPE_LENGTH_MAX} characters`);
  }
  const { tokens, commentAt } = tokenize(given, what);
  if (commentAt !== undefined) throw invalidSql(`${what} has a comment: leave it out`);
  refuseOwnTables(tokens);
  let depth = 0;
  for (const token of tokens) {
    depth += depthOf(token);
    if (depth < 0) throw invalidSql(`${what} has a ) without a (`);
    if (isOperator(token, ';') || (depth === 0 && isOperator(token, ','))) {
      throw invalidSql(`${what} goes beyond one column: it has a ${token.text} outside of brackets`);
    }
    if (token.kind === 'parameter') throw invalidSql(`${what} has a parameter, which a definition cannot have`);
    if (token.kind === 'word' && NEVER.has(token.text)) {
      throw invalidSql(`${what} has the keyword ${token.text}, which no definition of a column has`);
    }
  }
  if (depth > 0) throw invalidSql(`${what} has a ( without a )`);
  // Not trimmed: what is white space for JavaScript is the letter of a name for SQLite.
  return (given as string).slice(tokens[0]?.start ?? 0, tokens.at(-1)?.end ?? 0);
}

/** Whether a type makes its column the primary key. */
export function isPrimaryKey(type: string): boolean {
  const { tokens } = tokenize(type);
  return tokens.some((token, i) => isKeyword(token, 'PRIMARY') && isKeyword(tokens[i + 1], 'KEY'));
}

/** A value as it stands in a definition, where there are no parameters. */
export function literal(value: unknown, what: string): string {
  const stored = toSqlValue(value, what);
  if (stored === null) return 'NULL';
  if (typeof stored === 'string') {
    // It would end the statement there for SQLite.
    if (stored.includes('\0')) throw new SluiceError('SLUICE_INVALID_VALUE', `${what} must not have a NUL in it`);
    return `'${stored.replaceAll("'", "''")}'`;
  }
  if (stored instanceof Uint8Array) return `x'${Buffer.from(stored).toString('hex')}'`;
  // In brackets, or a minus would need none and an exponent another rule.
  return `(${Object.is(stored, -0) ? 0 : stored})`;
}

/** A list of columns by their names. */
export function columnList(given: unknown, what: string): string {
  const names = typeof given === 'string' ? [given] : given;
  if (!Array.isArray(names) || names.length === 0) {
    throw invalidSql(`${what} must be the name of a column, or a list of names, not ${show(given)}`);
  }
  return names.map(quoteName).join(', ');
}
