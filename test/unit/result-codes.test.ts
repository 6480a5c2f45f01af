import Sqlite from 'better-sqlite3';
import { expect, test } from 'vitest';
import { classify, toFailure } from '../../dist/store/sqlite/result-codes.js';
import { StoreFailure } from '../../dist/store/store.js';

const OWN = { ownStatement: true };
const coded = (code: string) => Object.assign(new Error('text that says nothing'), { code });

/** What each code means for a batch: https://sqlite.org/rescode.html */
const ROWS: Record<string, readonly string[]> = {
  transient: [
    'BUSY BUSY_RECOVERY BUSY_SNAPSHOT BUSY_TIMEOUT LOCKED LOCKED_SHAREDCACHE LOCKED_VTAB PROTOCOL SCHEMA',
    'NOMEM IOERR_NOMEM INTERRUPT ABORT ABORT_ROLLBACK ERROR_RETRY ERROR_SNAPSHOT',
  ],
  space: ['FULL NOLFS IOERR_WRITE IOERR_SHMSIZE'],
  permanent: [
    'CONSTRAINT CONSTRAINT_CHECK CONSTRAINT_DATATYPE CONSTRAINT_FOREIGNKEY CONSTRAINT_FUNCTION CONSTRAINT_NOTNULL',
    'CONSTRAINT_PINNED CONSTRAINT_PRIMARYKEY CONSTRAINT_ROWID CONSTRAINT_TRIGGER CONSTRAINT_UNIQUE CONSTRAINT_VTAB',
    'MISMATCH TOOBIG',
  ],
  config: [
    'ERROR ERROR_MISSING_COLLSEQ CONSTRAINT_COMMITHOOK CANTOPEN CANTOPEN_ISDIR CANTOPEN_FULLPATH CANTOPEN_SYMLINK',
    'READONLY READONLY_DIRECTORY READONLY_CANTLOCK READONLY_CANTINIT READONLY_RECOVERY READONLY_ROLLBACK PERM AUTH',
  ],
  reopen: [
    'IOERR IOERR_READ IOERR_SHORT_READ IOERR_FSYNC IOERR_DIR_FSYNC IOERR_TRUNCATE IOERR_FSTAT IOERR_LOCK IOERR_RDLOCK',
    'IOERR_UNLOCK IOERR_CHECKRESERVEDLOCK IOERR_ACCESS IOERR_CLOSE IOERR_DELETE IOERR_DELETE_NOENT IOERR_SEEK IOERR_MMAP',
    'IOERR_GETTEMPPATH IOERR_SHMOPEN IOERR_SHMMAP',
  ],
  fatal: [
    'READONLY_DBMOVED IOERR_CORRUPTFS IOERR_DATA IOERR_IN_PAGE CORRUPT CORRUPT_VTAB CORRUPT_SEQUENCE CORRUPT_INDEX',
    'NOTADB FORMAT RANGE MISUSE INTERNAL NOTFOUND',
  ],
};

const CASES = Object.entries(ROWS).flatMap(([expected, names]) =>
  names.flatMap((line) => line.split(' ').map((name) => [`SQLITE_${name}`, expected] as const)),
);

test.each(CASES)('%s is %s', (code, expected) => {
  expect(classify(coded(code), OWN)).toMatchObject({ class: expected, code });
});

test("an error in the user's own statement is that statement's fault, any other is not", () => {
  const users = { ownStatement: false };
  expect(classify(coded('SQLITE_ERROR'), users).class).toBe('permanent');
  for (const [code, expected] of CASES) {
    if (code !== 'SQLITE_ERROR') expect(classify(coded(code), users).class).toBe(expected);
  }
});

test.each([
  [5 | (7 << 8), 'transient'],
  [10 | (99 << 8), 'reopen'],
  [13, 'space'],
  [19 | (99 << 8), 'permanent'],
  [11 | (9 << 8), 'fatal'],
  [250, 'fatal'],
] as const)('UNKNOWN_SQLITE_ERROR_%i goes by its primary code: %s', (number, expected) => {
  expect(classify(coded(`UNKNOWN_SQLITE_ERROR_${number}`), OWN).class).toBe(expected);
});

test('what better-sqlite3 itself refuses to bind is the fault of the row', () => {
  const db = new Sqlite(':memory:');
  const statement = db.prepare('SELECT ?');
  for (const wrong of [[], [1, 2], [undefined, 1], [{}], [true], [2n ** 64n]]) {
    let thrown: unknown;
    try {
      statement.get(...wrong);
    } catch (error) {
      thrown = error;
    }
    expect(classify(thrown, OWN)).toMatchObject({ class: 'permanent', code: 'BIND' });
  }
  db.close();
  let closed: unknown;
  try {
    statement.get(1);
  } catch (error) {
    closed = error;
  }
  expect(classify(closed, OWN).class).toBe('reopen');
});

test('anything else stops the flush', () => {
  expect(classify(new Error('a bug'), OWN).class).toBe('fatal');
  expect(classify('a string', OWN).class).toBe('fatal');
});

test('a permanent failure of a statement of ours is no row: somebody has to repair something', () => {
  const failure = toFailure(coded('SQLITE_CONSTRAINT_CHECK'));
  expect(failure).toBeInstanceOf(StoreFailure);
  expect([failure.failure, failure.sqliteCode]).toEqual(['config', 'SQLITE_CONSTRAINT_CHECK']);
  expect(toFailure(failure)).toBe(failure);
});
