import { foldName } from '../../base/fold-name.ts';
import { depthOf, invalidSql, isKeyword, isOperator, type Token, tokenize } from './tokens.ts';

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
    throw invalidSql(
      `only INSERT, UPDATE, DELETE and REPLACE can be staged, not ${verb?.text ?? 'an empty text'}: run it with aexecute`,
    );
  }
  return tableOf(statement);
}

/** Where the statement itself begins: behind the common table expressions, if it has some. */
function mainVerb(tokens: readonly Token[]): number {
  if (!isKeyword(tokens[0], 'WITH')) return 0;
  let depth = 0;
  const at = tokens.findIndex((token) => {
    depth += depthOf(token);
    return depth === 0 && token.kind === 'word' && VERBS.includes(token.text);
  });
  return at < 0 ? 0 : at;
}

/** What a direct statement does, as far as it concerns who runs it. */
export interface DirectStatement {
  /** Whether it only reads, so that a reader can run it. */
  readonly reads: boolean;
  /** Whether it inserts, so that there is a last rowid to tell. */
  readonly inserts: boolean;
}

/** Checks a statement that is to be run at once. Sluice's own tables may be read, with SQL as with anything else. */
export function checkDirectSql(sql: unknown, purpose: 'read' | 'write'): DirectStatement {
  const tokens = oneStatement(sql);
  if (purpose === 'write') refuseOwnTables(tokens);
  const first = tokens[0];
  if (first === undefined) throw invalidSql('there is no statement in the text');
  if (first.kind === 'word' && OUT_OF_REACH.includes(first.text)) {
    throw invalidSql(`${first.text} would change the connection that all writes go through: it cannot be run here`);
  }
  if (isVacuumInto(tokens)) {
    throw invalidSql(
      'the copy that VACUUM INTO makes has the id of this database, and nobody has checked it: use abackup, which makes a copy that can be opened beside it',
    );
  }
  if (isTemporary(tokens)) {
    throw invalidSql(
      'what is temporary belongs to the connection that all writes go through: they would go to it where it has the name of a table, and be gone with it. Make a table, and drop it',
    );
  }
  return directOf(tokens);
}

/** What a statement does that was not checked yet, and may be none at all. */
export function directStatement(sql: string): DirectStatement {
  return directOf(oneStatement(sql));
}

function directOf(tokens: readonly Token[]): DirectStatement {
  const verb = tokens[mainVerb(tokens)];
  const is = (words: readonly string[]) => verb?.kind === 'word' && words.includes(verb.text);
  return { reads: is(['SELECT', 'VALUES', 'EXPLAIN']), inserts: is(['INSERT', 'REPLACE']) };
}

/** Checks a statement that is only to read, for somebody who may not be trusted. */
export function checkQuerySql(sql: unknown): asserts sql is string {
  const tokens = oneStatement(sql);
  // Dead letters hold what was written, which is not for everybody.
  refuseOwnTables(tokens);
  const first = tokens[0];
  if (first?.kind === 'word' && QUERIES.includes(first.text)) return;
  throw invalidSql(`only SELECT, WITH, VALUES and EXPLAIN can be queried, not ${first?.text ?? 'an empty text'}`);
}

/** The tokens of a text with one statement. */
function oneStatement(sql: unknown): readonly Token[] {
  const { tokens } = tokenize(sql);
  if (isTrigger(tokens)) return tokens;
  const end = tokens.findIndex(isEnd);
  if (end >= 0 && !tokens.slice(end).every(isEnd)) {
    throw invalidSql('there is more than one statement in the text: make a call for each');
  }
  return end < 0 ? tokens : tokens.slice(0, end);
}

function isEnd(token: Token): boolean {
  return isOperator(token, ';');
}

/** Refuses any mention of a table of Sluice's. */
export function refuseOwnTables(tokens: readonly Token[]): void {
  // A string too: SQLite takes 'a name' for a name where it needs one.
  const own = tokens.find(({ kind, text }) => NAMES.includes(kind) && /^_sluice_/i.test(text));
  if (own !== undefined) throw invalidSql(`${own.text} belongs to Sluice and is out of reach here`);
}

const NAMES: readonly Token['kind'][] = ['word', 'quoted', 'string'];

/** `CREATE [TEMP] TRIGGER`: a list of statements is part of it. What comes behind its END, SQLite itself refuses. */
function isTrigger(tokens: readonly Token[]): boolean {
  return isKeyword(tokens[0], 'CREATE') && tokens.slice(1, 3).some((token) => isKeyword(token, 'TRIGGER'));
}

/** `VACUUM [schema] INTO file`. */
function isVacuumInto(tokens: readonly Token[]): boolean {
  return isKeyword(tokens[0], 'VACUUM') && tokens.slice(1, 3).some((token) => isKeyword(token, 'INTO'));
}

/** `CREATE TEMP …`, or of something in the database `temp`. */
function isTemporary(tokens: readonly Token[]): boolean {
  if (!isKeyword(tokens[0], 'CREATE')) return false;
  if (isKeyword(tokens[1], 'TEMP') || isKeyword(tokens[1], 'TEMPORARY')) return true;
  let at = tokens.slice(0, 4).findIndex(({ kind, text }) => kind === 'word' && MADE.includes(text)) + 1;
  if (isKeyword(tokens[at], 'IF')) at += 3;
  const [name, dot] = [tokens[at], tokens[at + 1]];
  return name !== undefined && dot?.text === '.' && NAMES.includes(name.kind) && /^temp$/i.test(name.text);
}

const MADE: readonly string[] = ['TABLE', 'VIEW', 'INDEX', 'TRIGGER'];

/** `INSERT [OR …] INTO t`, `REPLACE INTO t`, `UPDATE [OR …] t`, `DELETE FROM t`. */
function tableOf(tokens: readonly Token[]): string | null {
  const verb = tokens[0]?.text;
  const words = isKeyword(tokens[1], 'OR') ? tokens.slice(3) : tokens.slice(1);
  const at = verb === 'UPDATE' ? 0 : 1;
  const name = words[at];
  const qualified = words[at + 1]?.text === '.';
  if (name === undefined || qualified || (verb !== 'UPDATE' && words[0]?.text !== 'INTO' && words[0]?.text !== 'FROM'))
    return null;
  return name.kind === 'quoted' ? name.text : name.kind === 'word' ? foldName(name.text) : null;
}
