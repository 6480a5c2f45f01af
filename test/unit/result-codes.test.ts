import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { expect, test } from 'vitest';
import { SQLITE_CODES, sqliteMeaning } from '../../dist/base/failure.js';
import { LogFailure } from '../../dist/engine/log/index.js';
import { classify, toFailure } from '../../dist/store/sqlite/result-codes.js';
import { StoreFailure } from '../../dist/store/store.js';
import { tempDir } from '../support/temp-dir.ts';

const OWN = { ownStatement: true };
const coded = (code: string) => Object.assign(new Error('text that says nothing'), { code });

/** What each code means for a batch: https://sqlite.org/rescode.html */
const ROWS: Record<string, readonly string[]> = {
  transient: [
    'BUSY BUSY_RECOVERY BUSY_SNAPSHOT BUSY_TIMEOUT LOCKED LOCKED_SHAREDCACHE LOCKED_VTAB PROTOCOL SCHEMA',
    'NOMEM IOERR_NOMEM INTERRUPT ABORT ABORT_ROLLBACK ERROR_RETRY ERROR_SNAPSHOT',
  ],
  space: ['FULL NOLFS'],
  permanent: [
    'CONSTRAINT CONSTRAINT_CHECK CONSTRAINT_DATATYPE CONSTRAINT_FOREIGNKEY CONSTRAINT_FUNCTION CONSTRAINT_NOTNULL',
    'CONSTRAINT_PINNED CONSTRAINT_PRIMARYKEY CONSTRAINT_ROWID CONSTRAINT_TRIGGER CONSTRAINT_UNIQUE CONSTRAINT_VTAB',
    'MISMATCH TOOBIG',
  ],
  config: [
    'ERROR ERROR_MISSING_COLLSEQ ERROR_RESERVESIZE ERROR_KEY ERROR_UNABLE CONSTRAINT_COMMITHOOK',
    'CANTOPEN CANTOPEN_ISDIR CANTOPEN_FULLPATH CANTOPEN_SYMLINK CANTOPEN_NOTEMPDIR CANTOPEN_CONVPATH CANTOPEN_DIRTYWAL',
    'READONLY READONLY_DIRECTORY READONLY_CANTLOCK READONLY_CANTINIT READONLY_RECOVERY READONLY_ROLLBACK',
    'PERM AUTH AUTH_USER',
  ],
  reopen: [
    'IOERR IOERR_READ IOERR_SHORT_READ IOERR_WRITE IOERR_FSYNC IOERR_DIR_FSYNC IOERR_TRUNCATE IOERR_FSTAT IOERR_LOCK',
    'IOERR_RDLOCK IOERR_UNLOCK IOERR_CHECKRESERVEDLOCK IOERR_ACCESS IOERR_CLOSE IOERR_DIR_CLOSE IOERR_DELETE',
    'IOERR_DELETE_NOENT IOERR_SEEK IOERR_MMAP IOERR_GETTEMPPATH IOERR_SHMOPEN IOERR_SHMMAP IOERR_SHMSIZE IOERR_SHMLOCK',
    'IOERR_BLOCKED IOERR_CONVPATH IOERR_VNODE IOERR_AUTH IOERR_BEGIN_ATOMIC IOERR_COMMIT_ATOMIC IOERR_ROLLBACK_ATOMIC',
    'IOERR_BADKEY IOERR_CODEC',
  ],
  fatal: [
    'READONLY_DBMOVED IOERR_CORRUPTFS IOERR_DATA IOERR_IN_PAGE CORRUPT CORRUPT_VTAB CORRUPT_SEQUENCE CORRUPT_INDEX',
    'NOTADB FORMAT RANGE MISUSE INTERNAL NOTFOUND EMPTY',
    // No errors at all: thrown, they are a bug.
    'OK OK_LOAD_PERMANENTLY OK_SYMLINK ROW DONE NOTICE NOTICE_RECOVER_WAL NOTICE_RECOVER_ROLLBACK NOTICE_RBU',
    'WARNING WARNING_AUTOINDEX',
  ],
};

const CASES = Object.entries(ROWS).flatMap(([expected, names]) =>
  names.flatMap((line) => line.split(' ').map((name) => [`SQLITE_${name}`, expected] as const)),
);

test.each(CASES)('%s is %s', (code, expected) => {
  expect(classify(coded(code), OWN)).toMatchObject({ class: expected, code });
});

test.each([
  ['NOMEM IOERR_NOMEM', 4, 'reopen'],
  ['LOCKED LOCKED_SHAREDCACHE LOCKED_VTAB', 2, 'reopen'],
  ['SCHEMA', 4, 'config'],
  ['IOERR_FSYNC IOERR_DIR_FSYNC IOERR_READ IOERR_SHORT_READ', 2, 'fatal'],
] as const)('%s: from failure %i in a row on it is %s', (names, from, later) => {
  for (const name of names.split(' ')) expect(sqliteMeaning(`SQLITE_${name}`)?.later).toEqual({ from, class: later });
});

test('no other code means more when it comes back, and only codes that hide their cause ask the disk', () => {
  const named = (wanted: (code: string) => unknown) =>
    SQLITE_CODES.filter(wanted).map((code) => code.slice('SQLITE_'.length));
  expect(named((code) => sqliteMeaning(code)?.later)).toHaveLength(10);
  expect(named((code) => sqliteMeaning(code)?.probe === 'room').sort()).toEqual([
    'IOERR_SHMMAP',
    'IOERR_SHMOPEN',
    'IOERR_SHMSIZE',
    'IOERR_WRITE',
  ]);
  expect(named((code) => sqliteMeaning(code)?.probe === 'descriptors').every((code) => /^CANTOPEN/.test(code))).toBe(
    true,
  );
  expect(named((code) => sqliteMeaning(code)?.probe === 'descriptors')).toHaveLength(7);
});

const SQLITE_SOURCE = new URL('../../node_modules/better-sqlite3/', import.meta.url);

test('every code that better-sqlite3 can name has a row', () => {
  const source = readFileSync(new URL('src/util/constants.cpp', SQLITE_SOURCE), 'utf8');
  const named = [...source.matchAll(/SetCode\(isolate, \w+, "(\w+)"\)/g)].map(([, name]) => name as string);
  expect(named.length).toBeGreaterThan(100);
  expect(named.filter((name) => !SQLITE_CODES.includes(name))).toEqual([]);
});

test('every code in the header of its SQLite has a row, and no row is for a code that there is not', () => {
  const header = readFileSync(new URL('deps/sqlite3/sqlite3.h', SQLITE_SOURCE), 'utf8');
  const codes = header.slice(header.indexOf('SQLITE_OK '), header.indexOf('SQLITE_OPEN_READONLY'));
  const named = [...codes.matchAll(/^#define (SQLITE_\w+)/gm)].map(([, name]) => name as string);
  expect(named.length).toBeGreaterThan(100);
  expect([...SQLITE_CODES].sort()).toEqual(
    [...named, 'SQLITE_OK'].filter((name, i, all) => all.indexOf(name) === i).sort(),
  );
  expect(new Set(CASES.map(([code]) => code))).toEqual(new Set(SQLITE_CODES));
});

test("an error in the user's own statement is that statement's fault, any other is not", () => {
  const users = { ownStatement: false };
  expect(classify(coded('SQLITE_ERROR'), users).class).toBe('permanent');
  expect(classify(coded(`UNKNOWN_SQLITE_ERROR_${1 | (99 << 8)}`), users).class).toBe('permanent');
  expect(classify(coded('SQLITE_ERROR_MISSING_COLLSEQ'), users).class).toBe('permanent');
  expect(classify(coded('SQLITE_ERROR_RETRY'), users).class).toBe('transient');
  for (const [code, expected] of CASES) {
    if (!code.startsWith('SQLITE_ERROR')) expect(classify(coded(code), users).class).toBe(expected);
  }
});

test.each([
  [1 | (99 << 8), 'config'],
  [5 | (3 << 8), 'transient'],
  [5 | (7 << 8), 'transient'],
  [10 | (99 << 8), 'reopen'],
  [13, 'space'],
  [14 | (99 << 8), 'config'],
  [19 | (99 << 8), 'permanent'],
  [11 | (9 << 8), 'fatal'],
  [250, 'fatal'],
  ['', 'fatal'],
] as const)('[fault 47] UNKNOWN_SQLITE_ERROR_%s goes by its primary code: %s', (number, expected) => {
  const code = `UNKNOWN_SQLITE_ERROR_${number}`;
  expect(classify(coded(code), OWN)).toMatchObject({ class: expected, code });
});

test.each([
  ['ENOSPC EDQUOT EFBIG', 'space'],
  ['EMFILE ENFILE EAGAIN EINTR ENOMEM', 'transient'],
  ['EACCES EPERM ENOENT ENOTDIR', 'config'],
  ['EIO ENXIO EROFS ESTALE EBADF no-code', 'reopen'],
] as const)("of Node's codes for a disk, %s are %s for the log", (codes, expected) => {
  for (const code of codes.split(' ')) expect(new LogFailure('write', coded(code)).failure).toBe(expected);
  expect(new LogFailure('write', new Error('no code')).failure).toBe('reopen');
});

test('a disk error that Node.js has no name for goes by its number', () => {
  const unnamed = (code: string, name: 'EDQUOT' | 'ESTALE') =>
    Object.assign(new Error('UNKNOWN: unknown error, write'), { code, errno: -constants.errno[name] });
  expect(new LogFailure('write', unnamed('UNKNOWN', 'EDQUOT')).failure).toBe('space');
  expect(new LogFailure('write', unnamed('Unknown system error -122', 'EDQUOT')).failure).toBe('space');
  expect(new LogFailure('write', unnamed('UNKNOWN', 'ESTALE')).failure).toBe('reopen');
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
  expect(classify(closed, OWN)).toMatchObject({ class: 'reopen', code: 'CLOSED' });
});

test('what better-sqlite3 says without a code of a connection, and not of a row', () => {
  const thrown = (call: () => unknown): unknown => {
    try {
      return call();
    } catch (error) {
      return error;
    }
  };
  const missing = thrown(() => new Sqlite(join(tempDir(), 'no', 'such', 'folder.db')));
  expect(classify(missing, OWN)).toMatchObject({ class: 'config', code: 'NO_DIRECTORY' });
  const db = new Sqlite(':memory:');
  db.exec('CREATE TABLE t (n); INSERT INTO t VALUES (1), (2)');
  const statement = db.prepare('SELECT n FROM t');
  const rows = statement.iterate();
  rows.next();
  for (const busy of [() => db.exec('DROP TABLE t'), () => statement.get()]) {
    const error = thrown(busy);
    expect(error).toBeInstanceOf(TypeError);
    expect(classify(error, OWN)).toMatchObject({ class: 'transient', code: 'CONNECTION_BUSY' });
  }
  rows.return?.();
  db.close();
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
