import { SluiceError } from '../../base/errors.ts';
import { show } from '../../base/options.ts';

/**
 * - `word` a bare name or keyword
 * - `quoted` a name in "…", […] or `…`
 * - `string`, `blob`, `number` literals
 * - `parameter` `?`, `?NNN`, `:name`, `@name`, `$name`
 * - `operator` everything else: brackets, commas, signs
 */
export type TokenKind = 'word' | 'quoted' | 'string' | 'blob' | 'number' | 'parameter' | 'operator';

/** A token of SQL that means something: white space and comments are left out. */
export interface Token {
  readonly kind: TokenKind;
  /** Upper case for words; without its quotes, and with what is doubled once, for quoted names and strings. */
  readonly text: string;
  /** Where it is in the statement. */
  readonly start: number;
  readonly end: number;
}

/** What a text is made of. */
export interface Tokens {
  readonly tokens: readonly Token[];
  /** Where the first comment is, if there is one. */
  readonly commentAt: number | undefined;
}

/** Characters by what they can begin or be part of, as SQLite has them; all above ASCII are letters. */
const SPACE_FIRST = 1;
const SPACE = 2;
const NAME = 4;
const DIGIT = 8;
const HEX = 16;
const NAME_FIRST = 32;

const CLASS = new Uint8Array(128);
for (const c of '\t\n\f\r ') CLASS[c.charCodeAt(0)] = SPACE_FIRST | SPACE;
// A vertical tab is white space behind other white space, and nothing at all by itself.
CLASS[0x0b] = SPACE;
for (let c = 0; c < 26; c++) {
  const hex = c < 6 ? HEX : 0;
  CLASS[0x41 + c] = CLASS[0x61 + c] = NAME | NAME_FIRST | hex;
}
for (let c = 0x30; c <= 0x39; c++) CLASS[c] = NAME | DIGIT | HEX;
CLASS[0x5f] = NAME | NAME_FIRST;
CLASS[0x24] = NAME;

const BYTE_ORDER_MARK = 0xfeff;

const OPERATORS = new Set(['->', '->>', '||', '<<', '>>', '<>', '<=', '>=', '==', '!=']);
const SINGLE = new Set('();+-*/%=<>|,&~.');

/**
 * SQLite's own lexical rules, https://sqlite.org/draft/tokenreq.html and https://sqlite.org/src/file/src/tokenize.c, with its
 * odd corners: a comment that does not end is one, a byte order mark is white space unless it is inside a name. But for one: a slash
 * and a star at the very end are no comment for SQLite, and one as soon as something follows them, as it does where a clause is
 * put into its statement. Looks at each character a bounded number of times. Refuses what SQLite has no token for.
 */
export function tokenize(sql: unknown, what = 'the statement'): Tokens {
  if (typeof sql !== 'string') throw invalidSql(`${what} must be a string, not ${show(sql)}`);
  if (!sql.isWellFormed() || sql.includes('\0')) throw invalidSql(`${what} must be well-formed Unicode without NUL`);
  return new Scanner(sql, what).run();
}

/** A refusal of a statement, or of a part of one. */
export function invalidSql(message: string): SluiceError {
  return new SluiceError('SLUICE_INVALID_SQL', message);
}

/** Whether a token is a keyword, not in quotes. */
export function isKeyword(token: Token | undefined, text: string): boolean {
  return token?.kind === 'word' && token.text === text;
}

export function isOperator(token: Token | undefined, text: string): boolean {
  return token?.kind === 'operator' && token.text === text;
}

/** What a token adds to the number of brackets that are open. */
export function depthOf(token: Token): number {
  return isOperator(token, '(') ? 1 : isOperator(token, ')') ? -1 : 0;
}

/** Only of ASCII, as SQLite has it: there are letters beyond that which JavaScript would make a keyword's. */
function upperCase(word: string): string {
  return word.replaceAll(/[a-z]+/g, (letters) => letters.toUpperCase());
}

class Scanner {
  readonly #sql: string;
  readonly #what: string;
  readonly #tokens: Token[] = [];
  #at = 0;
  #commentAt: number | undefined;

  constructor(sql: string, what: string) {
    this.#sql = sql;
    this.#what = what;
  }

  run(): Tokens {
    while (this.#at < this.#sql.length) this.#next();
    return { tokens: this.#tokens, commentAt: this.#commentAt };
  }

  #next(): void {
    const sql = this.#sql;
    const start = this.#at;
    const first = sql[start] as string;
    if (this.#is(start, SPACE_FIRST)) this.#at = this.#while(start + 1, SPACE);
    else if (sql.charCodeAt(start) === BYTE_ORDER_MARK) this.#at++;
    else if (first === '-' && sql[start + 1] === '-') this.#comment(sql.indexOf('\n', start));
    else if (first === '/' && sql[start + 1] === '*') this.#longComment();
    else if (first === "'") this.#delimited("'", 'string');
    else if (first === '"' || first === '`') this.#delimited(first, 'quoted');
    else if (first === '[') this.#bracketed();
    else if (first === '?') this.#push('parameter', this.#while(start + 1, DIGIT));
    else if (first === '$' || first === '@' || first === ':' || first === '#') this.#named();
    else if (this.#is(start, DIGIT) || (first === '.' && this.#is(start + 1, DIGIT))) this.#number();
    else if ((first === 'x' || first === 'X') && sql[start + 1] === "'") this.#blob();
    else if (this.#is(start, NAME_FIRST)) this.#word();
    else this.#operator();
  }

  #word(): void {
    const end = this.#while(this.#at + 1, NAME);
    this.#push('word', end, upperCase(this.#sql.slice(this.#at, end)));
  }

  #comment(newline: number): void {
    this.#commentAt ??= this.#at;
    this.#at = newline < 0 ? this.#sql.length : newline;
  }

  #longComment(): void {
    this.#commentAt ??= this.#at;
    const end = this.#sql.indexOf('*/', this.#at + 2);
    this.#at = end < 0 ? this.#sql.length : end + 2;
  }

  #delimited(mark: string, kind: 'string' | 'quoted'): void {
    const sql = this.#sql;
    const start = this.#at;
    for (let end = sql.indexOf(mark, start + 1); end >= 0; end = sql.indexOf(mark, end + 2)) {
      if (sql[end + 1] === mark) continue;
      return this.#push(kind, end + 1, sql.slice(start + 1, end).replaceAll(mark + mark, mark));
    }
    throw this.#refusal(start, kind === 'string' ? 'a string that does not end' : 'a quoted name that does not end');
  }

  #bracketed(): void {
    const end = this.#sql.indexOf(']', this.#at);
    if (end < 0) throw this.#refusal(this.#at, 'a quoted name that does not end');
    this.#push('quoted', end + 1, this.#sql.slice(this.#at + 1, end));
  }

  /** `:name`. TCL's `$name::other(anything)` is left out of the SQLite that is in use; another one must not read it otherwise. */
  #named(): void {
    const sql = this.#sql;
    const start = this.#at;
    const end = this.#while(start + 1, NAME);
    if (end === start + 1) throw this.#refusal(start, `a ${sql[start]} that names no parameter`);
    if (sql[end] === '(' || sql.startsWith('::', end)) throw this.#refusal(start, 'a parameter of TCL');
    this.#push('parameter', end);
  }

  #number(): void {
    const sql = this.#sql;
    let at = this.#at;
    if (sql[at] === '0' && /[xX]/.test(sql[at + 1] ?? '') && this.#is(at + 2, HEX)) at = this.#digits(at + 2, HEX);
    else {
      at = this.#digits(at, DIGIT);
      if (sql[at] === '.') at = this.#digits(at + 1, DIGIT);
      if (/[eE]/.test(sql[at] ?? '')) {
        const digits = /[+-]/.test(sql[at + 1] ?? '') ? at + 2 : at + 1;
        if (this.#is(digits, DIGIT)) at = this.#digits(digits, DIGIT);
      }
    }
    if (this.#is(at, NAME)) throw this.#refusal(this.#at, 'a number that runs into a name');
    this.#push('number', at);
  }

  /** Digits, with `_` between them. */
  #digits(start: number, digit: number): number {
    let at = start;
    while (this.#is(at, digit) || (this.#sql[at] === '_' && this.#is(at - 1, digit) && this.#is(at + 1, digit))) at++;
    return at;
  }

  #blob(): void {
    const start = this.#at;
    const end = this.#while(start + 2, HEX);
    if (this.#sql[end] !== "'" || (end - start) % 2 !== 0) throw this.#refusal(start, 'a blob that is not one');
    this.#push('blob', end + 1);
  }

  #operator(): void {
    const sql = this.#sql;
    const start = this.#at;
    for (const length of [3, 2]) {
      if (OPERATORS.has(sql.slice(start, start + length))) return this.#push('operator', start + length);
    }
    if (!SINGLE.has(sql[start] as string)) {
      throw this.#refusal(start, `the character ${show(String.fromCodePoint(sql.codePointAt(start) as number))}`);
    }
    this.#push('operator', start + 1);
  }

  #push(kind: TokenKind, end: number, text: string = this.#sql.slice(this.#at, end)): void {
    this.#tokens.push({ kind, text, start: this.#at, end });
    this.#at = end;
  }

  #is(at: number, what: number): boolean {
    const code = this.#sql.charCodeAt(at);
    if (Number.isNaN(code)) return false;
    return code < 128 ? ((CLASS[code] as number) & what) !== 0 : (what & (NAME | NAME_FIRST)) !== 0;
  }

  #while(start: number, what: number): number {
    let at = start;
    while (this.#is(at, what)) at++;
    return at;
  }

  #refusal(at: number, found: string): SluiceError {
    return invalidSql(`${this.#what} has ${found}, at character ${at + 1}`);
  }
}
