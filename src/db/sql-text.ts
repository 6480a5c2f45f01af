import { SluiceError } from '../base/errors.ts';
import { show } from '../base/options.ts';

/** A token of SQL that means something: white space and comments are left out. */
interface Token {
  readonly kind: 'word' | 'quoted' | 'string' | 'other';
  /** Upper case for words; without its quotes for quoted names. */
  readonly text: string;
}

const DML: readonly string[] = ['INSERT', 'UPDATE', 'DELETE', 'REPLACE'];
const VERBS: readonly string[] = [...DML, 'SELECT', 'VALUES'];
const TRANSACTION: readonly string[] = ['BEGIN', 'COMMIT', 'END', 'ROLLBACK', 'SAVEPOINT', 'RELEASE'];
const QUERIES: readonly string[] = ['SELECT', 'WITH', 'VALUES', 'EXPLAIN'];
const OUT_OF_REACH: readonly string[] = [...TRANSACTION, 'ATTACH', 'DETACH', 'PRAGMA'];

/** Checks a statement that is to be written behind; returns the table it is about, where it says so plainly. */
export function checkStagedSql(sql: unknown): string | null {
  const tokens = oneStatement(sql);
  refuseOwnTables(tokens);
  const statement = tokens.slice(mainVerb(tokens));
  const verb = statement[0];
  if (verb?.kind !== 'word' || !DML.includes(verb.text)) {
    throw invalid(
      `only INSERT, UPDATE, DELETE and REPLACE can be staged, not ${verb?.text ?? 'an empty text'}: run it with aexecute`,
    );
  }
  return tableOf(statement);
}

/** Where the statement itself begins: behind the common table expressions, if it has some. */
function mainVerb(tokens: readonly Token[]): number {
  if (tokens[0]?.text !== 'WITH') return 0;
  let depth = 0;
  const at = tokens.findIndex(({ kind, text }) => {
    if (kind === 'other') depth += text === '(' ? 1 : text === ')' ? -1 : 0;
    return depth === 0 && kind === 'word' && VERBS.includes(text);
  });
  return at < 0 ? 0 : at;
}

/** Checks a statement that is to be run at once. Sluice's own tables may be read, with SQL as with anything else. */
export function checkDirectSql(sql: unknown, purpose: 'read' | 'write'): asserts sql is string {
  const tokens = oneStatement(sql);
  if (purpose === 'write') refuseOwnTables(tokens);
  const first = tokens[0];
  if (first === undefined) throw invalid('there is no statement in the text');
  if (first.kind === 'word' && OUT_OF_REACH.includes(first.text)) {
    throw invalid(`${first.text} would change the connection that all writes go through: it cannot be run here`);
  }
}

/** Checks a statement that is only to read, for somebody who may not be trusted. */
export function checkQuerySql(sql: unknown): asserts sql is string {
  const tokens = oneStatement(sql);
  // Dead letters hold what was written, which is not for everybody.
  refuseOwnTables(tokens);
  const first = tokens[0];
  if (first?.kind === 'word' && QUERIES.includes(first.text)) return;
  throw invalid(`only SELECT, WITH, VALUES and EXPLAIN can be queried, not ${first?.text ?? 'an empty text'}`);
}

/** The tokens of a text with one statement. */
function oneStatement(sql: unknown): Token[] {
  if (typeof sql !== 'string') throw invalid(`the statement must be a string, not ${show(sql)}`);
  if (!sql.isWellFormed() || sql.includes('\0')) throw invalid('the statement must be well-formed Unicode without NUL');
  const tokens = tokenize(sql);
  const end = tokens.findIndex(({ kind, text }) => kind === 'other' && text === ';');
  if (isTrigger(tokens)) return tokens;
  if (end >= 0 && tokens.slice(end).some(({ text }) => text !== ';')) {
    throw invalid('there is more than one statement in the text: make a call for each');
  }
  return end < 0 ? tokens : tokens.slice(0, end);
}

function refuseOwnTables(tokens: readonly Token[]): void {
  // A string too: SQLite takes 'a name' for a name where it needs one.
  const own = tokens.find(({ kind, text }) => kind !== 'other' && text.toUpperCase().startsWith('_SLUICE_'));
  if (own !== undefined) throw invalid(`${own.text} belongs to Sluice and is out of reach here`);
}

/** `CREATE [TEMP] TRIGGER`: a list of statements is part of it. What comes behind its END, SQLite itself refuses. */
function isTrigger(tokens: readonly Token[]): boolean {
  return (
    tokens[0]?.text === 'CREATE' && tokens.slice(1, 3).some(({ kind, text }) => kind === 'word' && text === 'TRIGGER')
  );
}

/** `INSERT [OR …] INTO t`, `REPLACE INTO t`, `UPDATE [OR …] t`, `DELETE FROM t`. */
function tableOf(tokens: readonly Token[]): string | null {
  const verb = tokens[0]?.text;
  const words = tokens[1]?.text === 'OR' ? tokens.slice(3) : tokens.slice(1);
  const at = verb === 'UPDATE' ? 0 : 1;
  const name = words[at];
  const qualified = words[at + 1]?.text === '.';
  if (name === undefined || qualified || (verb !== 'UPDATE' && words[0]?.text !== 'INTO' && words[0]?.text !== 'FROM'))
    return null;
  return name.kind === 'quoted' ? name.text : name.kind === 'word' ? name.text.toLowerCase() : null;
}

/** SQLite's own lexical rules, as far as they matter here: https://sqlite.org/src/file/src/tokenize.c */
function tokenize(sql: string): Token[] {
  const pattern =
    /\s+|--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)|'(?:[^']|'')*'?|"((?:[^"]|"")*)"?|`((?:[^`]|``)*)`?|\[([^\]]*)\]?|([A-Za-z_\u0080-\u{10ffff}][\w$\u0080-\u{10ffff}]*)|[\s\S]/gu;
  const tokens: Token[] = [];
  for (const [text, double, back, bracket, word] of sql.matchAll(pattern)) {
    if (word !== undefined) tokens.push({ kind: 'word', text: word.toUpperCase() });
    else if (double !== undefined) tokens.push({ kind: 'quoted', text: double.replaceAll('""', '"') });
    else if (back !== undefined) tokens.push({ kind: 'quoted', text: back.replaceAll('``', '`') });
    else if (bracket !== undefined) tokens.push({ kind: 'quoted', text: bracket });
    else if (text.startsWith("'")) tokens.push({ kind: 'string', text: text.slice(1, -1) });
    else if (text.trim() !== '' && !text.startsWith('--') && !text.startsWith('/*'))
      tokens.push({ kind: 'other', text });
  }
  return tokens;
}

function invalid(message: string): SluiceError {
  return new SluiceError('SLUICE_INVALID_SQL', message);
}
