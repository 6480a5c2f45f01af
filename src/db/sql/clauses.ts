import { SluiceError } from '../../base/errors.ts';
import type { SqlValue } from '../../base/frame/index.ts';
import { isPlainObject, show } from '../../base/options.ts';
import { quoteName } from './identifiers.ts';
import { type SqlParameters, toParameter } from './parameters.ts';
import type { SqlPolicy } from './policy.ts';
import { refuseOwnTables } from './statements.ts';
import { Sql } from './template.ts';
import { depthOf, invalidSql, isKeyword, isOperator, type Token, tokenize } from './tokens.ts';

const words = (text: string): ReadonlySet<string> => new Set(text.trim().split(/\s+/));

/** Keywords that SQLite takes for nothing else: https://sqlite.org/lang_keywords.html and the fallbacks of its grammar. */
const RESERVED = words(`
  ADD ALL ALTER AND AS AUTOINCREMENT BETWEEN CASE CHECK COLLATE COMMIT CONSTRAINT CREATE DEFAULT DEFERRABLE DELETE DISTINCT DROP
  ELSE ESCAPE EXCEPT EXISTS FOREIGN FROM GROUP HAVING IN INDEX INSERT INTERSECT INTO IS ISNULL JOIN LIMIT NOT NOTHING NOTNULL
  NULL ON OR ORDER PRIMARY REFERENCES RETURNING SELECT SET TABLE THEN TO TRANSACTION UNION UNIQUE UPDATE USING VALUES WHEN WHERE`);

/** Those of them that an expression is made of, wherever they stand. */
const OF_EXPRESSIONS = words(`
  AND BETWEEN CASE COLLATE ELSE ESCAPE EXISTS IN IS ISNULL NOT NOTNULL NULL OR THEN WHEN`);

/** What no clause says, of whatever kind. SQLite would take some of them for names. */
const CHANGING = words(`
  ALTER ANALYZE ATTACH COMMIT CREATE DELETE DETACH DROP INSERT PRAGMA REINDEX REPLACE TRANSACTION UPDATE VACUUM`);

/** Keywords that can be names, too, and not the names of functions. */
const NO_FUNCTIONS = words('BY CAST');

/** Operators that call the function of their name. */
const CALLING = words('LIKE GLOB REGEXP MATCH');

/** Operators that can stand before what they are about. */
const PREFIXES: ReadonlySet<string> = new Set(['-', '+', '~']);

/** An expression as it is, or made with {@link sql}. */
export type Clause = string | Sql;

/**
 * The clauses of one statement, each checked by its tokens and put into brackets, where it can be nothing but an expression: what
 * it says cannot reach beyond them. Parameters become `?`, and their values are collected: so clauses are to be asked for in the
 * order in which they stand in the statement.
 */
export class Clauses {
  readonly #policy: SqlPolicy;
  readonly #values: SqlValue[] = [];
  readonly #parameters: ParameterSource;

  constructor(policy: SqlPolicy, parameters: SqlParameters | undefined) {
    this.#policy = policy;
    this.#parameters = new ParameterSource(parameters ?? []);
  }

  /** One expression. */
  expression(given: Clause, what: string): string {
    const part = this.#read(given, what);
    return this.#bracketed(part.tokens, part);
  }

  /** A column, or an expression, with or without `AS name`. */
  column(given: Clause): string {
    const part = this.#read(given, 'a column');
    const { tokens } = part;
    const [first] = tokens;
    if (tokens.length === 1 && isOperator(first, '*')) return '*';
    if (tokens.length === 1 && first !== undefined && isName(first)) return quoteName(part.nameOf(first));
    const last = tokens.at(-1);
    const hasAlias = tokens.length > 2 && isKeyword(tokens.at(-2), 'AS') && last !== undefined && isAlias(last);
    const expression = hasAlias ? tokens.slice(0, -2) : tokens;
    const alias = hasAlias ? part.nameOf(last as Token) : part.text.slice(first?.start, last?.end);
    return `${this.#bracketed(expression, part)} AS ${quoteName(alias)}`;
  }

  /** A list of expressions, to group by. */
  list(given: Clause | readonly Clause[], what: string): string {
    return this.#terms(given, what, () => '');
  }

  /** A list of expressions with their directions, to order by. */
  order(given: Clause | readonly Clause[], what: string): string {
    return this.#terms(given, what, takeDirection);
  }

  /** Those that were asked for up to now. */
  get values(): readonly SqlValue[] {
    return this.#values;
  }

  /** The values of all parameters, in the order of the clauses. Refuses those that none of them has asked for. */
  finish(): SqlValue[] {
    this.#parameters.finish();
    return this.#values;
  }

  #terms(given: Clause | readonly Clause[], what: string, takeEnd: (term: Token[]) => string): string {
    const clauses = Array.isArray(given) ? (given as readonly Clause[]) : [given as Clause];
    if (clauses.length === 0) throw invalidSql(`${what} must name at least one column`);
    const terms = clauses.flatMap((clause) => {
      const part = this.#read(clause, what);
      return splitAtCommas(part.tokens).map((term) => {
        const end = takeEnd(term);
        const [first] = term;
        const isColumn = term.length === 1 && first !== undefined && isName(first);
        return (isColumn ? quoteName(part.nameOf(first)) : this.#bracketed(term, part)) + end;
      });
    });
    return terms.join(', ');
  }

  #read(given: Clause, what: string): Part {
    const isTemplate = given instanceof Sql;
    const text: unknown = isTemplate ? given.text : given;
    if (typeof text === 'string' && text.length > this.#policy.maxClauseLength) {
      throw invalidSql(
        `${what} is ${text.length} characters long, and maxClauseLength is ${this.#policy.maxClauseLength}: pass long lists as parameters, or raise it`,
      );
    }
    const { tokens, commentAt } = tokenize(text, what);
    if (commentAt !== undefined) {
      throw invalidSql(`${what} has a comment, at character ${commentAt + 1}: leave it out`);
    }
    refuseOwnTables(tokens);
    const source = isTemplate ? new ParameterSource(given.checkedValues()) : this.#parameters;
    return new Part(text as string, tokens, what, source);
  }

  /** The text of an expression in brackets, checked, with a plain `?` for each parameter. */
  #bracketed(tokens: readonly Token[], { text, what, source }: Part): string {
    const [first] = tokens;
    const last = tokens.at(-1);
    if (first === undefined || last === undefined) throw invalidSql(`${what} is empty`);
    checkDepth(tokens, what, this.#policy);
    checkExpression(tokens, what, this.#policy);
    let result = '(';
    let at = first.start;
    for (const token of tokens) {
      if (token.kind !== 'parameter') continue;
      this.#values.push(source.take(token.text, what));
      result += `${text.slice(at, token.start)}?`;
      at = token.end;
    }
    return `${result}${text.slice(at, last.end)})`;
  }
}

/** A clause as it was given. */
class Part {
  readonly text: string;
  readonly tokens: readonly Token[];
  readonly what: string;
  readonly source: ParameterSource;

  constructor(text: string, tokens: readonly Token[], what: string, source: ParameterSource) {
    this.text = text;
    this.tokens = tokens;
    this.what = what;
    this.source = source;
  }

  /** A name as it was written: words have lost their case. */
  nameOf(token: Token): string {
    return token.kind === 'word' ? this.text.slice(token.start, token.end) : token.text;
  }
}

/** Takes `ASC`, `DESC` and `NULLS FIRST | LAST` off the end of a term. */
function takeDirection(term: Token[]): string {
  let nulls = '';
  const last = term.at(-1);
  if (term.length > 2 && isKeyword(term.at(-2), 'NULLS') && (isKeyword(last, 'FIRST') || isKeyword(last, 'LAST'))) {
    nulls = ` NULLS ${last?.text}`;
    term.length -= 2;
  }
  const direction = term.at(-1);
  if (term.length < 2 || !(isKeyword(direction, 'ASC') || isKeyword(direction, 'DESC'))) return nulls;
  term.length -= 1;
  return ` ${direction?.text}${nulls}`;
}

function splitAtCommas(tokens: readonly Token[]): Token[][] {
  const terms: Token[][] = [[]];
  let depth = 0;
  for (const token of tokens) {
    depth += depthOf(token);
    if (depth === 0 && isOperator(token, ',')) terms.push([]);
    else terms.at(-1)?.push(token);
  }
  return terms;
}

/** Refuses what is not one expression in itself, and what the policy does not let through. */
function checkExpression(tokens: readonly Token[], what: string, policy: SqlPolicy): void {
  let depth = 0;
  for (const [i, token] of tokens.entries()) {
    depth += depthOf(token);
    if (depth < 0) throw invalidSql(`${what} has a ) without a (`);
    if (isOperator(token, ';')) throw invalidSql(`${what} has a semicolon: it is a part of one statement`);
    if (depth === 0 && isOperator(token, ',')) throw invalidSql(`${what} must be one expression: it has a comma`);
    if (token.kind === 'word') checkWord(tokens, i, depth, what, policy);
    if (isOperator(tokens[i + 1], '(')) checkCall(tokens, i, what, policy);
  }
  if (depth > 0) throw invalidSql(`${what} has a ( without a )`);
}

/** Refuses what is nested so deeply that SQLite would take long for it: the square of the depth. */
function checkDepth(tokens: readonly Token[], what: string, { maxClauseDepth }: SqlPolicy): void {
  const outside: number[] = [];
  /** How deep whatever stands in the brackets is that are open, … */
  let inside = 0;
  /** … and what comes next, behind operators that are about it. */
  let next = 0;
  for (const [i, token] of tokens.entries()) {
    if (isOperator(token, '(')) {
      outside.push(inside);
      inside = ++next;
    } else if (isOperator(token, ')')) next = inside = outside.pop() ?? 0;
    else if (isKeyword(token, 'NOT') || (token.kind === 'operator' && PREFIXES.has(token.text))) next++;
    else if (!isOperator(tokens[i + 1], '(')) next = inside;
    if (next <= maxClauseDepth) continue;
    throw invalidSql(
      `${what} is nested deeper than maxClauseDepth, ${maxClauseDepth}, at character ${token.start + 1}: make it flatter, or raise it`,
    );
  }
}

function checkWord(tokens: readonly Token[], i: number, depth: number, what: string, policy: SqlPolicy): void {
  const { text } = tokens[i] as Token;
  if (CHANGING.has(text) && !(text === 'REPLACE' && isOperator(tokens[i + 1], '('))) throw noKeyword(text, what);
  if (CALLING.has(text) && isInfix(tokens, i)) checkForbidden(text, what, policy);
  if (!policy.strict || !RESERVED.has(text)) return;
  if (text === 'IN' && !isOperator(tokens[i + 1], '(')) {
    throw invalidSql(`${what} has an IN that no list in brackets follows: it would read another table`);
  }
  if (!OF_EXPRESSIONS.has(text) && !hasItsPlace(tokens, i, depth)) throw noKeyword(text, what);
}

/** Whether a keyword stands where an expression can have it. */
function hasItsPlace(tokens: readonly Token[], i: number, depth: number): boolean {
  const [before, previous] = [tokens[i - 2], tokens[i - 1]];
  switch (tokens[i]?.text) {
    case 'DISTINCT':
      return isOperator(previous, '(') || isKeyword(previous, 'IS') || isKeyword(previous, 'NOT');
    case 'FROM':
      return isKeyword(previous, 'DISTINCT') && !isOperator(before, '(');
    case 'WHERE':
      return isOperator(previous, '(') && isKeyword(before, 'FILTER') && isOperator(tokens[i - 3], ')');
    case 'ORDER':
      return depth > 0 && isKeyword(tokens[i + 1], 'BY');
    case 'AS':
      return depth > 0;
    default:
      return false;
  }
}

/** Looks at what stands before a bracket: a function, or a keyword. */
function checkCall(tokens: readonly Token[], i: number, what: string, policy: SqlPolicy): void {
  const { kind, text } = tokens[i] as Token;
  if (kind !== 'word' && kind !== 'quoted' && kind !== 'string') return;
  if (kind === 'word') {
    if (RESERVED.has(text) || NO_FUNCTIONS.has(text) || (CALLING.has(text) && isInfix(tokens, i))) return;
    if (isTypeOfCast(tokens, i)) return;
    // Keywords only behind the call of a function.
    if ((text === 'FILTER' || text === 'OVER') && isOperator(tokens[i - 1], ')')) return;
  }
  checkForbidden(text, what, policy);
  if (!policy.strict || policy.allowed.has(text.toLowerCase())) return;
  throw invalidSql(
    `${what} calls the function ${show(text.toLowerCase())}, which is not allowed: if it may be called, name it in allowedFunctions`,
  );
}

/** `CAST(x AS DECIMAL(10, 2))`: what is in the brackets of a type are numbers. */
function isTypeOfCast(tokens: readonly Token[], i: number): boolean {
  let at = i;
  while (tokens[at]?.kind === 'word' && !isKeyword(tokens[at], 'AS')) at--;
  return isKeyword(tokens[at], 'AS');
}

function checkForbidden(name: string, what: string, { forbidden }: SqlPolicy): void {
  if (!forbidden.has(name.toLowerCase()) && !forbidden.has('*')) return;
  throw invalidSql(`${what} calls the function ${show(name.toLowerCase())}, which forbiddenFunctions rules out`);
}

/** Whether a word that is an operator and a function is the former: something comes before it that it can be applied to. */
function isInfix(tokens: readonly Token[], i: number): boolean {
  let at = i - 1;
  while (isKeyword(tokens[at], 'NOT')) at--;
  const left = tokens[at];
  if (left === undefined) return false;
  if (left.kind === 'operator') return left.text === ')';
  return left.kind !== 'word' || !RESERVED.has(left.text) || /NULL$/.test(left.text);
}

function noKeyword(text: string, what: string): SluiceError {
  return invalidSql(
    `${what} has the keyword ${text}, which is not for it: if it is the name of a column, write "${text.toLowerCase()}" in double quotes; for more than an expression there is afetchAll`,
  );
}

function isName({ kind }: Token): boolean {
  return kind === 'word' || kind === 'quoted';
}

function isAlias(token: Token): boolean {
  return isName(token) || token.kind === 'string';
}

/** Where the values of the parameters of clauses come from. */
class ParameterSource {
  readonly #list: readonly unknown[] | undefined;
  readonly #named: Readonly<Record<string, unknown>> | undefined;
  readonly #used = new Set<string | number>();
  #next = 0;

  constructor(given: SqlParameters) {
    if (Array.isArray(given)) this.#list = given as readonly unknown[];
    else if (isPlainObject(given)) this.#named = given;
    else throw new SluiceError('SLUICE_INVALID_VALUE', `parameters must be a list or an object, not ${show(given)}`);
  }

  take(parameter: string, what: string): SqlValue {
    const name = parameter.slice(1);
    if (parameter.startsWith('?')) {
      const index = name === '' ? this.#next++ : Number(name) - 1;
      if (this.#list === undefined || index < 0 || index >= this.#list.length) {
        throw invalidSql(`${what} has a parameter ${parameter} that parameters has no value for`);
      }
      this.#used.add(index);
      return toParameter(this.#list[index], `parameter ${index + 1}`);
    }
    if (this.#named === undefined || !Object.hasOwn(this.#named, name)) {
      throw invalidSql(`${what} has a parameter ${parameter} that parameters has no value for`);
    }
    this.#used.add(name);
    return toParameter(this.#named[name], `parameter ${name}`);
  }

  finish(): void {
    const names = this.#list === undefined ? Object.keys(this.#named ?? {}) : [...this.#list.keys()];
    const unused = names.find((name) => !this.#used.has(name));
    if (unused === undefined) return;
    const which = typeof unused === 'number' ? `number ${unused + 1}` : show(unused);
    throw invalidSql(`of parameters, ${which} is in none of the clauses`);
  }
}
