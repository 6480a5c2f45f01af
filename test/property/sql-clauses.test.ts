import Sqlite from 'better-sqlite3';
import fc from 'fast-check';
import { SluiceError } from 'sluicedb';
import { afterAll, describe, expect, test } from 'vitest';
import { Clauses } from '../../dist/db/sql/clauses.js';
import { columnType, literal } from '../../dist/db/sql/definitions.js';
import { quoteOwn } from '../../dist/db/sql/identifiers.js';
import { DEFAULT_POLICY } from '../../dist/db/sql/policy.js';
import { tokenize } from '../../dist/db/sql/tokens.js';

/** What one look at a clause may take. */
const LIMIT_MS = 5;

const db = new Sqlite(':memory:');
db.exec(`
  CREATE TABLE t (a INTEGER, b TEXT, "limit" TEXT, key TEXT, "o""x" TEXT);
  INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y'), (NULL, NULL);
  CREATE TABLE secret (a INTEGER, b TEXT);
  CREATE VIEW seen AS SELECT * FROM secret;`);
const rootOf = (name: string) => db.prepare('SELECT rootpage FROM sqlite_schema WHERE name = ?').pluck().get(name);
const T = rootOf('t');
afterAll(() => db.close());

interface Opcode {
  readonly opcode: string;
  readonly p1: number;
  readonly p2: number;
  readonly p4: string | null;
}

/** Opcodes that make or change something, or reach beyond the rows of a table. What is sorted lies in tables of their own. */
const BEYOND = /^(OpenWrite|VOpen|VUpdate|VFilter|Create|Destroy|Drop|ParseSchema|Clear$)/;

/**
 * Prepares a statement that ends with `LIMIT 7654 OFFSET 321`; what SQLite makes of it must read the table t and nothing else, call
 * pure functions only, and still have its end.
 */
function assertHarmless(sql: string, values: readonly unknown[]): 'prepared' | 'refused' {
  let opcodes: Opcode[];
  try {
    const statement = db.prepare(sql);
    expect([statement.readonly, statement.reader]).toEqual([true, true]);
    opcodes = db.prepare(`EXPLAIN ${sql}`).all(...values) as Opcode[];
  } catch (error) {
    // Syntax and names, and nothing that says that the text has taken hold of what stands around it.
    expect((error as { code?: string }).code, `${String(error)}: ${sql}`).toMatch(/^SQLITE_ERROR/);
    expect(String(error), sql).not.toMatch(/more than one statement|incomplete input|unrecognized token/);
    return 'refused';
  }
  const integers = opcodes.filter(({ opcode }) => opcode === 'Integer').map(({ p1 }) => p1);
  expect(integers.includes(7654) && integers.includes(321), `its end is gone: ${sql}`).toBe(true);
  expect(rowsOf(sql, values), `it does not stand for itself: ${sql}`).toEqual([]);
  for (const { opcode, p1, p2, p4 } of opcodes) {
    if (opcode === 'Transaction') expect(p2, sql).toBe(0);
    else expect(BEYOND.test(opcode), `${opcode} in ${sql}`).toBe(false);
    if (/^(OpenRead|ReopenIdx)$/.test(opcode)) expect(p2, `${opcode} ${p1} in ${sql}`).toBe(T);
    if (/^(Function|PureFunc|Agg)/.test(opcode)) {
      const [name = ''] = (p4 ?? '').split('(');
      expect(/^(->|current_)/.test(name) || DEFAULT_POLICY.allowed.has(name.toLowerCase()), `${name} in ${sql}`).toBe(
        true,
      );
    }
  }
  return 'prepared';
}

/** What a condition that no row fulfils lets through: it stands beside the clause. Other clauses have none. */
function rowsOf(sql: string, values: readonly unknown[]): unknown[] {
  if (!sql.includes(NEVER)) return [];
  try {
    return db.prepare(sql.slice(0, -END.length)).all(...values);
  } catch (error) {
    // Of the values: JSON that is none, an overflow.
    expect(error).toBeInstanceOf(Sqlite.SqliteError);
    return [];
  }
}

const NEVER = 'AND a = 987654321';

/** Looks at a clause; returns its statement, or `undefined` where it was refused, which must be with the one code. */
function built(make: (clauses: Clauses) => string): { sql: string; values: readonly unknown[] } | undefined {
  const clauses = new Clauses(
    DEFAULT_POLICY,
    Array.from({ length: 50 }, (_, i) => i),
  );
  try {
    return { sql: make(clauses), values: [...clauses.values] };
  } catch (error) {
    expect(error, String(error)).toBeInstanceOf(SluiceError);
    expect((error as SluiceError).code, String(error)).toBe('SLUICE_INVALID_SQL');
    return undefined;
  }
}

const counted = { inputs: 0, refused: 0, prepared: 0, refusedBySqlite: 0, slowest: 0 };

/** One input of the fuzz, timed: what is slow by chance is not so time and again. */
function check(make: (clauses: Clauses) => string): void {
  counted.inputs++;
  const start = performance.now();
  const statement = built(make);
  let took = performance.now() - start;
  for (let again = 0; again < 10 && took > LIMIT_MS / 2; again++) {
    const begin = performance.now();
    built(make);
    took = Math.min(took, performance.now() - begin);
  }
  counted.slowest = Math.max(counted.slowest, took);
  if (statement === undefined) counted.refused++;
  else if (assertHarmless(statement.sql, statement.values) === 'prepared') counted.prepared++;
  else counted.refusedBySqlite++;
}

const END = 'LIMIT 7654 OFFSET 321';
const whereOf = (text: string) => (clauses: Clauses) =>
  `SELECT * FROM "t" WHERE ${clauses.expression(text, 'where')} ${NEVER} ${END}`;
const orderOf = (text: string) => (clauses: Clauses) =>
  `SELECT * FROM "t" ORDER BY ${clauses.order(text, 'orderBy')} ${END}`;
const groupOf = (text: string) => (clauses: Clauses) =>
  `SELECT count(*) FROM "t" GROUP BY ${clauses.list(text, 'groupBy')} ${END}`;
const columnOf = (text: string) => (clauses: Clauses) => `SELECT ${clauses.column(text)} FROM "t" ${END}`;
const PLACES = [whereOf, orderOf, groupOf, columnOf];

/** Pieces that statements are made of, those that attacks are, and what only looks like either. */
const PIECES = [
  ...[
    'a',
    'b',
    'key',
    '"limit"',
    '"o""x"',
    't.a',
    '[a]',
    '`b`',
    'rowid',
    'a',
    'b',
    '1',
    "'x'",
    '?',
    '?2',
    ':n',
    '@n',
    '$n',
    '?99',
  ],
  ...[
    '=',
    '<',
    '>',
    '<=',
    '<>',
    '!=',
    '==',
    '||',
    '+',
    '-',
    '*',
    '/',
    '%',
    '&',
    '|',
    '~',
    '<<',
    '>>',
    '->',
    '->>',
    '.',
    ',',
  ],
  ...[' ', ' ', '\t', '\n', '\r', '\f', '\v', '\u00a0', '\u2028', '\u200b', '\ufeff', '\u3000', '\0', '\u0085'],
  ...[
    'AND',
    'OR',
    'NOT',
    'IN',
    'IS',
    'NULL',
    'LIKE',
    'GLOB',
    'BETWEEN',
    'CASE',
    'WHEN',
    'THEN',
    'ELSE',
    'END',
    'CAST',
    'AS',
  ],
  ...[
    'COLLATE NOCASE',
    'ESCAPE',
    'EXISTS',
    'DISTINCT',
    'ASC',
    'DESC',
    'NULLS FIRST',
    'FILTER (WHERE',
    'OVER (',
    'PARTITION BY',
  ],
  ...[
    'SELECT',
    'FROM',
    'WHERE',
    'UNION',
    'ALL',
    'JOIN',
    'VALUES',
    'WITH',
    'LIMIT',
    'OFFSET',
    'HAVING',
    'GROUP BY',
    'ORDER BY',
  ],
  ...[
    'DROP TABLE t',
    'DELETE FROM t',
    'INSERT INTO t',
    'UPDATE t SET',
    'CREATE',
    'ALTER',
    'ATTACH',
    'PRAGMA',
    'RETURNING',
    'BEGIN',
  ],
  ...[
    'secret',
    'main.secret',
    '"secret"',
    'seen',
    'sqlite_schema',
    '_sluice_state',
    'json_each(a)',
    'pragma_table_list',
    'temp.t',
  ],
  ...[
    '(SELECT a FROM secret)',
    'IN secret',
    'IN (SELECT a FROM secret)',
    'EXISTS (SELECT 1 FROM secret)',
    'UNION SELECT * FROM secret',
  ],
  ...[
    'count(',
    'max(',
    'upper(',
    'random(',
    'load_extension(',
    'randomblob(',
    '"random"(',
    '[random] (',
    'raise(',
    'sqlite_version(',
  ],
  ...[
    '(',
    ')',
    '(',
    ')',
    '((',
    '))',
    ';',
    ';;',
    '--',
    '-- x\n',
    '/*',
    '*/',
    '/**/',
    '/*/',
    '/* x */',
    '#',
    '\\',
    '{',
    '}',
    '^',
    '!',
  ],
  ...[
    "'",
    '"',
    '`',
    '[',
    ']',
    "''",
    '""',
    "'--'",
    "'/*'",
    '"/*"',
    "';'",
    "x'",
    "x'00'",
    "x'0'",
    "X'ab'",
    '0x1',
    '0x',
    '1e5',
    '1e',
    '1_0',
    '1__0',
    '.5',
    '5.',
  ],
  ...[
    'ＳＥＬＥＣＴ',
    'ſelect',
    'ſELECT',
    'dropı',
    'ＯＲ',
    '；',
    '\u037e',
    '＇',
    '‘',
    '’',
    '“',
    'а',
    'ѕecret',
    '（',
    '）',
    '−−',
    '🙂',
    'é',
  ],
];

const piece = fc.constantFrom(...PIECES);
const ofPieces = fc.array(piece, { maxLength: 12 }).map((parts) => parts.join(' '));
const glued = fc.array(piece, { maxLength: 12 }).map((parts) => parts.join(''));
const raw = fc.string({ unit: 'binary', maxLength: 60 });
const ascii = fc.string({ unit: 'binary-ascii', maxLength: 60 });
const long = fc.tuple(piece, fc.nat(1_200), piece).map(([a, n, b]) => a.repeat(n).slice(0, 1_000 - b.length) + b);

/** Expressions of SQL as it should be, which must be let through, and which SQLite must take. */
const { valid } = fc.letrec<{ valid: string }>((tie) => {
  const e = tie('valid');
  const binary = fc.constantFrom(
    '=',
    '<',
    '>=',
    '<>',
    '||',
    '+',
    '*',
    '%',
    '&',
    '<<',
    'AND',
    'or',
    'IS',
    'IS NOT',
    'LIKE',
    'NOT GLOB',
    'is distinct from',
  );
  const called = fc.constantFrom('upper', 'Length', 'abs', 'coalesce', 'REPLACE', '"max"', 'json_extract', 'if');
  const atom = fc.oneof(
    fc.constantFrom('a', 'b', 'key', '"limit"', '"o""x"', '[a]', '`b`', 't.a', 'rowid', 'NULL', 'current_time', 'TRUE'),
    fc.constantFrom('1', '-1.5e3', '0xFF', "x'00ff'", "''", "'it''s; -- /* DROP SELECT'", '?', '1_000', "'🙂ü'"),
  );
  return {
    valid: fc.oneof(
      { maxDepth: 4, depthIdentifier: 'sql', withCrossShrink: true },
      atom,
      fc.tuple(e, binary, e).map(([l, op, r]) => `(${l}) ${op} (${r})`),
      fc
        .tuple(e, fc.constantFrom('IN', 'NOT IN', 'in'), fc.array(e, { maxLength: 3 }))
        .map(([l, op, list]) => `(${l}) ${op} (${list.join(', ')})`),
      fc.tuple(e, e, e).map(([x, l, h]) => `(${x}) BETWEEN (${l}) AND (${h})`),
      fc.tuple(e, e, e).map(([c, x, y]) => `CASE WHEN (${c}) THEN (${x}) ELSE (${y}) END`),
      fc.tuple(e, e).map(([c, x]) => `case (${c}) when ${x} then 1 end`),
      fc.tuple(e, fc.constantFrom('TEXT', 'INTEGER', 'DECIMAL(10, 2)')).map(([x, type]) => `CAST(${x} AS ${type})`),
      e.map((x) => `NOT (${x})`),
      e.map((x) => `(${x}) COLLATE nocase`),
      e.map((x) => `(${x}) ISNULL`),
      fc
        .tuple(called, e, e)
        .map(([f, x, y]) =>
          /length|upper|abs/i.test(f) ? `${f}(${x})` : f === 'REPLACE' ? `${f}(${x}, ${y}, 'z')` : `${f}(${x}, ${y})`,
        ),
    ),
  };
});

/** A right expression with one wrong thing in it. */
const bent = fc.tuple(valid, fc.nat(), piece).map(([text, at, what]) => {
  const place = at % (text.length + 1);
  return text.slice(0, place) + what + text.slice(place);
});

/** An expression that ends too early, with something behind it. */
const breaks = [
  ') OR (',
  ') UNION SELECT a, b, a, b, a FROM secret WHERE (',
  ') OR 1 --',
  ') OR 1 /*',
  ') LIMIT 5 OFFSET (',
  ') GROUP BY (',
];
const torn = fc
  .tuple(valid, fc.constantFrom(...breaks, '); DROP TABLE t; --', ' OR ', ') = (', "' OR '", '" OR "'), valid)
  .map((parts) => parts.join(''));

const anything = fc.oneof(ofPieces, glued, bent, torn, raw, ascii, long);

describe('a clause', () => {
  test('reaches nothing but its rows, whatever is in it, and is looked at in no time', () => {
    const place = fc.constantFrom(...PLACES);
    fc.assert(
      fc.property(anything, place, (text, put) => check(put(text))),
      { numRuns: 80_000 },
    );
    expect(counted.inputs).toBeGreaterThanOrEqual(80_000);
    // None of the three is rare.
    expect(counted.refused).toBeGreaterThan(20_000);
    expect(counted.refusedBySqlite).toBeGreaterThan(2_000);
    expect(counted.prepared).toBeGreaterThan(2_000);
  });

  test('that is an expression as it should be is let through', () => {
    let prepared = 0;
    fc.assert(
      fc.property(valid, (text) => {
        fc.pre(text.length <= DEFAULT_POLICY.maxClauseLength && (text.match(/\?/g)?.length ?? 0) <= 50);
        for (const put of PLACES) {
          const statement = built(put(text));
          expect(statement, text).toBeDefined();
          if (put !== whereOf && put !== columnOf) continue;
          if (statement !== undefined && assertHarmless(statement.sql, statement.values) === 'prepared') prepared++;
        }
      }),
      { numRuns: 2_500 },
    );
    expect(prepared).toBeGreaterThan(4_000);
  });

  test('of a column has the name that it says, and is one column', () => {
    let named = 0;
    fc.assert(
      fc.property(valid, fc.string({ unit: 'binary', minLength: 1, maxLength: 20 }), (text, name) => {
        fc.pre(name.isWellFormed() && !name.includes('\0') && (text.match(/\?/g)?.length ?? 0) <= 50);
        fc.pre(text.length + name.length * 2 + 10 < DEFAULT_POLICY.maxClauseLength);
        const statement = built(columnOf(`${text} AS "${name.replaceAll('"', '""')}"`));
        expect(statement).toBeDefined();
        expect(
          db
            .prepare(statement?.sql ?? '')
            .columns()
            .map((column) => column.name),
        ).toEqual([name]);
        named++;
      }),
      { numRuns: 2_000 },
    );
    expect(named).toBeGreaterThan(1_500);
  });
});

describe('a name', () => {
  test('is taken as it is, whatever is in it', () => {
    let taken = 0;
    fc.assert(
      fc.property(fc.oneof(raw, ascii, glued, ofPieces), (name) => {
        counted.inputs++;
        let quoted: string;
        try {
          quoted = quoteOwn(name, 'the name of a table');
        } catch (error) {
          expect((error as SluiceError).code).toBe('SLUICE_INVALID_SQL');
          return;
        }
        expect(/^(sqlite_|_sluice_)/i.test(name)).toBe(false);
        if (/^(t|secret|seen|pragma_\w+)$/i.test(name)) return;
        expect(() => db.prepare(`SELECT 1 FROM ${quoted} ${END}`)).toThrow(
          expect.objectContaining({ message: `no such table: ${name}` }),
        );
        taken++;
      }),
      { numRuns: 20_000 },
    );
    expect(taken).toBeGreaterThan(10_000);
  });
});

describe('a definition', () => {
  const words =
    'TEXT INTEGER NOT NULL DEFAULT CHECK UNIQUE PRIMARY KEY COLLATE NOCASE REFERENCES t (a) ( ) , 1 -1 \'x\' "y"'.split(
      ' ',
    );
  const type = fc.oneof(
    fc.array(fc.constantFrom(...words), { maxLength: 8 }).map((parts) => parts.join(' ')),
    anything,
  );

  test('is one column, whatever is in it', () => {
    const own = new Sqlite(':memory:');
    let made = 0;
    fc.assert(
      fc.property(type, (text) => {
        let definition: string;
        try {
          definition = columnType(text, 'c');
        } catch (error) {
          expect((error as SluiceError).code, String(error)).toBe('SLUICE_INVALID_SQL');
          return;
        }
        try {
          own.prepare(`CREATE TABLE x ("c" ${definition})`).run();
        } catch (error) {
          expect((error as { code?: string }).code, `${String(error)}: ${text}`).toMatch(/^SQLITE_ERROR/);
          expect(String(error), text).not.toMatch(/more than one|incomplete input|unrecognized token/);
          return;
        }
        expect(own.prepare('SELECT name FROM pragma_table_xinfo(?)').pluck().all('x')).toEqual(['c']);
        expect(
          own.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'").pluck().all(),
        ).toEqual(['x']);
        own.exec('DROP TABLE x');
        made++;
      }),
      { numRuns: 10_000 },
    );
    expect(made).toBeGreaterThan(500);
    own.close();
  });

  test('has any value for its default', () => {
    const value = fc.oneof(
      raw,
      ascii,
      glued,
      fc.double({ noNaN: true, noDefaultInfinity: true }),
      fc.integer(),
      fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      fc.uint8Array(),
    );
    fc.assert(
      fc.property(value, (given) => {
        fc.pre(typeof given !== 'string' || (given.isWellFormed() && !given.includes('\0')));
        const read = db
          .prepare(`SELECT ${literal(given, 'default')}`)
          .pluck()
          .safeIntegers()
          .get();
        if (typeof given === 'bigint') expect(read).toBe(given);
        else if (typeof given === 'number') expect(Number(read)).toBe(given + 0);
        else expect(read instanceof Uint8Array ? Uint8Array.from(read) : read).toEqual(given);
      }),
      { numRuns: 5_000 },
    );
  });
});

describe('the tokenizer', () => {
  test('refuses what SQLite has no token for, and nothing that it takes', () => {
    const outcomes = { both: 0, neither: 0 };
    fc.assert(
      fc.property(fc.oneof(raw, ascii, glued, ofPieces), (text) => {
        // What SQLite does not tell: the text ends for it with a NUL, and half of a pair is another character.
        fc.pre(text.isWellFormed() && !text.includes('\0'));
        let said = '';
        try {
          db.prepare(`SELECT ${text}`);
        } catch (error) {
          said = String(error);
        }
        let refused = false;
        try {
          tokenize(`SELECT ${text}`);
        } catch {
          refused = true;
        }
        if (/unrecognized token/.test(said)) {
          expect(refused, text).toBe(true);
          outcomes.both++;
        } else if (said === '') {
          expect(refused, text).toBe(false);
          outcomes.neither++;
        }
      }),
      { numRuns: 20_000 },
    );
    expect(outcomes.both).toBeGreaterThan(1_000);
    expect(outcomes.neither).toBeGreaterThan(200);
  });

  test.each([
    ['"', 300_000],
    ["'", 300_001],
    ['[', 300_000],
    ['(', 300_000],
    ['/*', 150_000],
    ['/', 300_000],
    ["''", 150_000],
    ["x'", 150_000],
    ['x', 300_000],
    ['1_', 150_000],
    ['1e', 150_000],
    ['. ', 150_000],
    [':a', 150_000],
    ['- ', 150_000],
    ['--', 150_000],
    ['\n', 300_000],
    ['🙂', 150_000],
  ])('is done with many of %j in time that grows with them', (unit, count) => {
    const timed = (text: string) => {
      const runs = [1, 2, 3].map(() => {
        const start = performance.now();
        try {
          tokenize(text);
        } catch (error) {
          expect((error as SluiceError).code).toBe('SLUICE_INVALID_SQL');
        }
        return performance.now() - start;
      });
      return Math.min(...runs);
    };
    // One that looks back over what it has seen would take minutes.
    expect(timed(unit.repeat(count))).toBeLessThan(2_000);
  });
});

test('a hundred thousand inputs were looked at', () => {
  expect(counted.inputs).toBeGreaterThanOrEqual(100_000);
  expect(counted.slowest).toBeLessThan(LIMIT_MS);
});
