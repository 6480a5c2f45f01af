import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { BroadcastChannel } from 'node:worker_threads';
import Sqlite from 'better-sqlite3';
import { type Database, open, type State } from 'sluicedb';
import { expect, test } from 'vitest';
import { SQLITE_CODES } from '../../dist/base/failure.js';
import { type Machine, openOn } from '../../dist/db/open.js';
import { classify } from '../../dist/store/sqlite/result-codes.js';
import { Child, lockFromOutside } from '../support/child.ts';
import { codeFrom, eventually, isPending } from '../support/eventually.ts';
import { machine, Threads } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';
import { wrappedWriter } from '../support/wrapped-writer.ts';

/*
 * What becomes of a batch when SQLite gives its real errors. Those that need a broken disk are in broken-disk*.test.ts, a
 * full database in locked-database.test.ts, and the rows of the table themselves in unit/result-codes.test.ts.
 */

const MANUAL = { flush: { mode: 'manual' }, closeTimeoutMs: 500 } as const;

interface Opened {
  readonly db: Database;
  readonly file: string;
  readonly threads: Threads;
  readonly failures: string[];
  readonly states: State[];
}

async function opened(): Promise<Opened> {
  const file = join(tempDir(), 'a.db');
  const threads = new Threads();
  const db = await openOn(machine({ spawn: threads.spawn }), file, MANUAL);
  const failures: string[] = [];
  const states: State[] = [];
  db.on('failure', () => {});
  db.on('dead-letter', () => {});
  db.on('retry', ({ failure, error }) => failures.push(`${failure} ${(error as { sqliteCode?: string }).sqliteCode}`));
  db.on('state', ({ state }) => states.push(state));
  await db.aexecute('CREATE TABLE good (n INTEGER)');
  return { db, file, threads, failures, states };
}

async function codes(db: Database): Promise<string[]> {
  return (await db.agetDlq()).map(({ errorCode }) => errorCode);
}

async function numbers(db: Database, sql = 'SELECT n FROM good ORDER BY rowid'): Promise<unknown[]> {
  return (await db.afetchAll(sql)).map(({ n }) => n);
}

const GOOD = 'INSERT INTO good VALUES (?)';
const FK = 'CREATE TABLE parent (id INTEGER PRIMARY KEY)';

/** The code, what there is, and what SQLite will never take. */
const PERMANENT: readonly (readonly [code: string, schema: readonly string[], sql: string])[] = [
  ['SQLITE_CONSTRAINT', ['CREATE VIRTUAL TABLE t USING rtree(id, low, high)'], 'INSERT INTO t VALUES (1, 5, 1)'],
  [
    'SQLITE_CONSTRAINT_PRIMARYKEY',
    ['CREATE TABLE t (k TEXT PRIMARY KEY)', "INSERT INTO t VALUES ('a')"],
    "INSERT INTO t VALUES ('a')",
  ],
  ['SQLITE_CONSTRAINT_UNIQUE', ['CREATE TABLE t (u UNIQUE)', 'INSERT INTO t VALUES (1)'], 'INSERT INTO t VALUES (1)'],
  ['SQLITE_CONSTRAINT_NOTNULL', ['CREATE TABLE t (n NOT NULL)'], 'INSERT INTO t VALUES (NULL)'],
  ['SQLITE_CONSTRAINT_CHECK', ['CREATE TABLE t (n CHECK (n > 0))'], 'INSERT INTO t VALUES (0)'],
  [
    'SQLITE_CONSTRAINT_ROWID',
    ['CREATE TABLE t (n)', 'INSERT INTO t (rowid, n) VALUES (1, 1)'],
    'INSERT INTO t (rowid, n) VALUES (1, 1)',
  ],
  ['SQLITE_CONSTRAINT_DATATYPE', ['CREATE TABLE t (n INTEGER) STRICT'], "INSERT INTO t VALUES ('text')"],
  [
    'SQLITE_CONSTRAINT_TRIGGER',
    ['CREATE TABLE t (n)', "CREATE TRIGGER no BEFORE INSERT ON t BEGIN SELECT RAISE(ABORT, 'no'); END"],
    'INSERT INTO t VALUES (1)',
  ],
  ['SQLITE_CONSTRAINT_FOREIGNKEY', [FK, 'CREATE TABLE t (p REFERENCES parent)'], 'INSERT INTO t VALUES (1)'],
  ['SQLITE_MISMATCH', ['CREATE TABLE t (id INTEGER PRIMARY KEY)'], "INSERT INTO t VALUES ('text')"],
  ['SQLITE_TOOBIG', ['CREATE TABLE t (n)'], 'INSERT INTO t VALUES (zeroblob(2000000000))'],
  // In the user's own SQL nobody else can repair it.
  ['SQLITE_ERROR', [], 'INSERT INTO no_such_table VALUES (1)'],
  ['SQLITE_ERROR', ['CREATE TABLE t (n)'], 'INSERT INTO t (m) VALUES (1)'],
  ['SQLITE_ERROR_MISSING_COLLSEQ', ['CREATE TABLE t (n)'], "DELETE FROM t WHERE n = 'a' COLLATE unknown"],
];

test.for(PERMANENT)(
  '[fault 40] %s: only that write dies, in one transaction with the rest',
  async ([code, schema, sql]) => {
    const { db, failures } = await opened();
    for (const statement of schema) await db.aexecute(statement);
    db.stage(GOOD, [1]);
    db.stage(sql);
    db.stage(GOOD, [2]);
    expect(await db.aflush()).toMatchObject({ applied: 2, dead: 1 });
    expect(await codes(db)).toEqual([code]);
    expect((await db.agetDlq())[0]).toMatchObject({ errorClass: 'permanent', attempts: 1, operation: 'sql' });
    expect(await numbers(db)).toEqual([1, 2]);
    expect(failures).toEqual([]);
    expect(db.stats()).toMatchObject({ state: 'ok', flushes: 1, flushRetries: 0, pending: 0 });
    await db.close();
  },
);

test('[fault 41] RAISE(FAIL): what the statement had done before is undone with it', async () => {
  const { db } = await opened();
  await db.aexecute('CREATE TABLE t (n INTEGER)');
  await db.aexecute("CREATE TRIGGER no AFTER INSERT ON t WHEN new.n = 3 BEGIN SELECT RAISE(FAIL, 'no'); END");
  db.stage(GOOD, [1]);
  db.stage('INSERT INTO t VALUES (1), (2), (3), (4)');
  db.stage('INSERT OR FAIL INTO t VALUES (5)');
  db.rows('t').append({ n: 3 });
  db.stage(GOOD, [2]);
  expect(await db.aflush()).toMatchObject({ applied: 3, dead: 2 });
  expect(await codes(db)).toEqual(['SQLITE_CONSTRAINT_TRIGGER', 'SQLITE_CONSTRAINT_TRIGGER']);
  expect(await numbers(db, 'SELECT n FROM t')).toEqual([5]);
  expect(await numbers(db)).toEqual([1, 2]);
  await db.close();
});

test.for([
  ['RAISE(ROLLBACK)', 'INSERT INTO raising VALUES (1)', 'SQLITE_CONSTRAINT_TRIGGER'],
  ['OR ROLLBACK', 'INSERT OR ROLLBACK INTO u VALUES (1)', 'SQLITE_CONSTRAINT_UNIQUE'],
])(
  '[fault 42] %s takes the transaction away: the batch is run again, and exactly one write is dead',
  async ([, sql, code]) => {
    const { db, failures } = await opened();
    await db.aexecute('CREATE TABLE raising (n INTEGER)');
    await db.aexecute("CREATE TRIGGER no BEFORE INSERT ON raising BEGIN SELECT RAISE(ROLLBACK, 'no'); END");
    await db.aexecute('CREATE TABLE u (n UNIQUE)');
    await db.aexecute('INSERT INTO u VALUES (1)');
    for (let n = 1; n <= 100; n++) {
      db.stage(GOOD, [n]);
      if (n === 60) db.stage(sql as string);
      db.set(`k${n}`, n);
    }
    expect(await db.aflush()).toMatchObject({ applied: 200, dead: 1 });
    expect(await codes(db)).toEqual([code]);
    expect(await numbers(db)).toEqual(Array.from({ length: 100 }, (_, i) => i + 1));
    expect(db.size).toBe(100);
    expect(failures).toEqual([]);
    await db.close();
  },
);

/** The writer thread, which counts the transactions that it begins. */
function countingWriter(channel: string): NonNullable<Machine['spawn']> {
  return wrappedWriter(`
    const prepare = Sqlite.prototype.prepare;
    let begun = 0;
    Sqlite.prototype.prepare = function (sql) {
      const statement = prepare.call(this, sql);
      if (!sql.startsWith('BEGIN')) return statement;
      const { run } = statement;
      statement.run = () => {
        begun++;
        return run.call(statement);
      };
      return statement;
    };
    const channel = new threads.BroadcastChannel(${JSON.stringify(channel)});
    channel.onmessage = () => channel.postMessage(begun);
    channel.unref();
  `);
}

test.for([
  [64, [41]],
  [64, [3, 17, 60]],
  [1_000, [500]],
] as const)('[fault 43] deferred foreign keys, %i rows, guilty %j: found in few attempts', async ([rows, guilty]) => {
  const channel = new BroadcastChannel(`begun-${process.pid}-${rows}-${guilty.length}`);
  const counts: number[] = [];
  channel.onmessage = ({ data }: { data?: unknown }) => counts.push(data as number);
  channel.unref();
  const begun = async () => {
    const asked = counts.length;
    channel.postMessage('how many');
    await eventually(() => counts.length > asked, 'the writer has counted');
    return counts.at(-1) as number;
  };
  const db = await openOn(machine({ spawn: countingWriter(channel.name) }), join(tempDir(), 'a.db'), MANUAL);
  db.on('dead-letter', () => {});
  await db.aexecute(FK);
  await db.aexecute('INSERT INTO parent VALUES (1)');
  await db.aexecute('CREATE TABLE child (n INTEGER, p REFERENCES parent DEFERRABLE INITIALLY DEFERRED)');
  for (let n = 0; n < rows; n++) {
    db.stage('INSERT INTO child VALUES (?, ?)', [n, (guilty as readonly number[]).includes(n) ? 99 : 1]);
  }
  const before = await begun();
  expect(await db.aflush()).toMatchObject({ applied: rows - guilty.length, dead: guilty.length });
  const attempts = (await begun()) - before;
  expect(attempts).toBeGreaterThan(1);
  // One more for each of the guilty: the transaction that has its dead letter.
  expect(attempts).toBeLessThanOrEqual(guilty.length * (2 * Math.ceil(Math.log2(rows)) + 2));
  expect((await db.agetDlq()).map(({ errorCode, payload }) => [errorCode, (payload as unknown[])[0]])).toEqual(
    guilty.map((n) => ['SQLITE_CONSTRAINT_FOREIGNKEY', n]),
  );
  expect(await numbers(db, 'SELECT n FROM child')).toEqual(
    Array.from({ length: rows }, (_, n) => n).filter((n) => !(guilty as readonly number[]).includes(n)),
  );
  await db.close();
  channel.close();
});

test('[fault 45] what cannot be bound is a dead letter, and no crash', async () => {
  const { db, failures } = await opened();
  db.stage(GOOD, [1]);
  db.stage('INSERT INTO good VALUES (? + ?)', [1]);
  db.stage(GOOD, [1, 2]);
  db.stage('INSERT INTO good VALUES (:n)', [1]);
  db.stage(GOOD, [2]);
  expect(await db.aflush()).toMatchObject({ applied: 2, dead: 3 });
  const letters = await db.agetDlq();
  expect(letters.map(({ errorCode }) => errorCode)).toEqual(['BIND', 'BIND', 'BIND']);
  expect(await numbers(db)).toEqual([1, 2]);
  expect(failures).toEqual([]);
  await db.close();
});

test('[fault 33] BUSY for 3 seconds: retried with jitter, writers held back, nobody blocked, nothing dead', async () => {
  const file = join(tempDir(), 'a.db');
  const db = await open(file, { flush: { intervalMs: 10 }, staging: { maxEntries: 200 }, maxBlockMs: 30_000 });
  db.on('failure', () => {});
  const retries: { failure: string; delayMs: number; code: unknown }[] = [];
  db.on('retry', ({ failure, delayMs, error }) =>
    retries.push({ failure, delayMs, code: (error as { sqliteCode?: string }).sqliteCode }),
  );
  await db.aset('before', 1);
  await db.aflush();
  const unlock = await lockFromOutside(file);
  const start = performance.now();
  let longest = 0;
  let last = start;
  const watch = setInterval(() => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }, 10);
  let accepted = 0;
  while (accepted < 200 && db.set(`k${accepted}`, accepted)) accepted++;
  // Held back: the next ones wait for their turn.
  const waiting = Array.from({ length: 50 }, (_, i) => db.aset(`w${i}`, i));
  await eventually(() => db.state === 'degraded', 'the lock is seen');
  await eventually(() => performance.now() - start >= 3_000, '3 seconds have passed');
  expect(await isPending(Promise.all(waiting))).toBe(true);
  expect(db.stats()).toMatchObject({ state: 'degraded', applied: 1, deadLettered: 0 });
  clearInterval(watch);
  expect(longest).toBeLessThan(1_000);
  await unlock();
  await Promise.all(waiting);
  await db.aflush();
  expect(retries.length).toBeGreaterThan(3);
  expect(new Set(retries.map(({ failure, code }) => `${failure} ${String(code)}`))).toEqual(
    new Set(['transient SQLITE_BUSY']),
  );
  expect(new Set(retries.map(({ delayMs }) => delayMs)).size).toBe(retries.length);
  expect(Math.max(...retries.map(({ delayMs }) => delayMs))).toBeLessThanOrEqual(1_000);
  const stats = db.stats();
  expect(stats).toMatchObject({ state: 'ok', pending: 0, deadLettered: 0, writerRestarts: 0 });
  expect(stats.applied + stats.coalesced).toBe(stats.accepted);
  expect([db.get('w49'), db.get('k0')]).toEqual([49, 0]);
  await db.close();
});

test('[fault 34] BUSY_SNAPSHOT: no batch can meet it, for none begins with a read; and it would be tried again', async () => {
  const { db, file, failures } = await opened();
  const other = new Sqlite(file, { timeout: 5_000 });
  for (let n = 0; n < 50; n++) {
    db.stage(GOOD, [n]);
    const flushed = db.aflush();
    other.exec('INSERT INTO good VALUES (-1)');
    await flushed;
  }
  expect(failures.every((one) => one === 'transient SQLITE_BUSY')).toBe(true);
  expect(await numbers(db, 'SELECT n FROM good WHERE n >= 0 ORDER BY rowid')).toEqual(
    Array.from({ length: 50 }, (_, n) => n),
  );
  // The real one, on a connection that does begin with a read.
  const late = new Sqlite(file);
  late.exec('BEGIN');
  late.prepare('SELECT count(*) FROM good').get();
  other.exec('INSERT INTO good VALUES (-1)');
  expect(verdict(() => late.exec('INSERT INTO good VALUES (-1)'))).toEqual(['SQLITE_BUSY_SNAPSHOT', 'transient']);
  late.close();
  other.close();
  await db.close();
});

function verdict(call: () => unknown): [code: string, found: string] {
  try {
    call();
  } catch (error) {
    const { code, class: found } = classify(error, { ownStatement: true });
    return [code, found];
  }
  throw new Error('was not refused');
}

test('codes that no batch meets, from connections that do what the writer never does', () => {
  const folder = tempDir();
  const db = new Sqlite(join(folder, 'b.db'));
  db.exec('CREATE TABLE t (n); INSERT INTO t VALUES (1), (2)');
  db.unsafeMode();
  const rows = db.prepare('SELECT n FROM t').iterate();
  rows.next();
  expect(verdict(() => db.exec('DROP TABLE t'))).toEqual(['SQLITE_LOCKED', 'transient']);
  rows.return?.();
  db.pragma('query_only = 1');
  expect(verdict(() => db.exec('INSERT INTO t VALUES (1)'))).toEqual(['SQLITE_READONLY', 'config']);
  db.close();
  expect(verdict(() => new Sqlite(folder))).toEqual(['SQLITE_CANTOPEN', 'config']);
});

test('READONLY: a file without the right to write is refused at open, and opens when it has it', async () => {
  const file = join(tempDir(), 'a.db');
  // Root may write to any file, but for the capability that says so.
  const isRoot = process.getuid?.() === 0;
  const wrapper = isRoot ? ['setpriv', '--bounding-set', '-dac_override,-dac_read_search'] : [];
  const attempt = async () => {
    const child = new Child(
      `try {
         const db = await open(process.argv[2]);
         await db.aset('k', 1);
         console.log('closed', (await db.close()).pending);
       } catch (error) {
         console.log(error.code, error.sqliteCode);
       }`,
      [file],
      { wrapper },
    );
    const { output, errors } = await child.end();
    expect(errors).toBe('');
    return output.trim();
  };
  expect(await attempt()).toBe('closed 0');
  chmodSync(file, 0o444);
  expect(await attempt()).toBe('SLUICE_STORE SQLITE_READONLY');
  // SQLite gives its other files the rights of the first one.
  for (const one of [file, `${file}-wal`, `${file}-shm`]) if (existsSync(one)) chmodSync(one, 0o644);
  expect(await attempt()).toBe('closed 0');
});

test.for([
  ['the state of the database', '_sluice_state', 'SQLITE_ERROR'],
  ['a column of a key table', 'k', 'SQLITE_ERROR'],
])('%s is gone: config, waited for, nothing dead, and the repair lets everything through', async ([, table, code]) => {
  const { db, file, failures } = await opened();
  db.table('k').set('first', 1);
  await db.aflush();
  const other = new Sqlite(file, { timeout: 5_000 });
  const away = table === 'k' ? 'ALTER TABLE k RENAME COLUMN value TO v' : 'ALTER TABLE _sluice_state RENAME TO lost';
  const back = table === 'k' ? 'ALTER TABLE k RENAME COLUMN v TO value' : 'ALTER TABLE lost RENAME TO _sluice_state';
  other.exec(away);
  for (let n = 0; n < 20; n++) db.table('k').set(`k${n}`, n);
  const flushed = db.aflush();
  await eventually(() => failures.length >= 2, 'two attempts have failed');
  expect(new Set(failures)).toEqual(new Set([`config ${code}`]));
  expect(db.stats()).toMatchObject({ state: 'degraded', pending: 20, deadLettered: 0 });
  other.exec(back);
  other.close();
  await flushed;
  expect(db.stats()).toMatchObject({ state: 'ok', pending: 0, deadLettered: 0, applied: 21 });
  expect(db.table('k').size).toBe(21);
  await db.close();
});

test('a key table that was dropped is made again', async () => {
  const { db, file } = await opened();
  db.set('a', 1);
  await db.aflush();
  const other = new Sqlite(file, { timeout: 5_000 });
  other.exec('DROP TABLE data');
  other.close();
  db.set('b', 2);
  expect(await db.aflush()).toMatchObject({ applied: 1, dead: 0 });
  expect(Object.fromEntries(db.entries())).toEqual({ b: 2 });
  await db.close();
});

/** Overwrites a part of a file from another process: closing a descriptor here would free SQLite's locks. */
function scribble(file: string, at: number, bytes: number): void {
  execFileSync(process.execPath, [
    '-e',
    `const fs = require('fs');
     const file = fs.openSync(process.argv[1], 'r+');
     fs.writeSync(file, Buffer.alloc(${bytes}, 0xaa), 0, ${bytes}, ${at});
     fs.closeSync(file);`,
    file,
  ]);
}

test.for(['SQLITE_NOTADB', 'SQLITE_CORRUPT'])(
  '[fault 39] %s: the flush stops, the log and the file stay as they are, and a repaired file gets everything',
  async (code) => {
    const { db, file, threads, failures, states } = await opened();
    await db.aexecute('CREATE TABLE big (n INTEGER)');
    for (let n = 0; n < 3_000; n++) db.stage('INSERT INTO big VALUES (?)', [n]);
    await db.aflush();
    await eventually(() => statSync(`${file}-wal`).size === 0, 'everything is in the file');
    const repaired = join(tempDir(), 'repaired.db');
    execFileSync(process.execPath, ['-e', 'require("fs").copyFileSync(...process.argv.slice(1))', file, repaired]);
    const page =
      (await db.afetchOne<{ n: number }>("SELECT rootpage AS n FROM sqlite_master WHERE name = 'big'"))?.n ?? 0;
    if (code === 'SQLITE_NOTADB') scribble(file, 0, 100);
    else scribble(file, (page - 1) * 4_096, 4_096);
    // A new thread knows no page yet.
    await threads.writer.terminate();
    await db.aset('k', 'kept');
    db.stage('INSERT INTO big VALUES (-1)');
    expect(await codeFrom(() => db.aflush())).toBe('SLUICE_FAILED');
    expect(failures).toEqual([]);
    expect(states).toEqual(['failed']);
    expect(db.stats()).toMatchObject({ state: 'failed', pending: 2, deadLettered: 0 });
    expect(db.get('k')).toBe('kept');
    expect(await db.close()).toEqual({ pending: 2 });
    const left = readFileSync(file);
    // Nothing is made anew in its place.
    if (code === 'SQLITE_NOTADB') {
      await expect(open(file)).rejects.toMatchObject({ code: 'SLUICE_STORE', sqliteCode: code });
      expect(left.subarray(0, 100).every((byte) => byte === 0xaa)).toBe(true);
    }
    expect(left.length).toBe(statSync(repaired).size);
    expect(readFileSync(file).equals(left)).toBe(true);
    for (const end of ['-wal', '-shm']) rmSync(file + end, { force: true });
    copyFileSync(repaired, file);
    const again = await open(file);
    await again.aflush();
    expect(again.stats()).toMatchObject({ recovered: 2, applied: 2, deadLettered: 0, pending: 0 });
    expect(again.get('k')).toBe('kept');
    expect(await again.afetchOne('SELECT count(*) AS n FROM big')).toEqual({ n: 3_001 });
    await again.close();
  },
);

/** Codes that tests produce, here or in broken-disk*.test.ts. */
const PRODUCED =
  'BUSY BUSY_SNAPSHOT LOCKED NOMEM FULL MISMATCH TOOBIG ERROR ERROR_MISSING_COLLSEQ PERM READONLY READONLY_DIRECTORY CANTOPEN ' +
  'CONSTRAINT CONSTRAINT_CHECK CONSTRAINT_DATATYPE CONSTRAINT_FOREIGNKEY CONSTRAINT_NOTNULL CONSTRAINT_PRIMARYKEY ' +
  'CONSTRAINT_ROWID CONSTRAINT_TRIGGER CONSTRAINT_UNIQUE CORRUPT NOTADB IOERR IOERR_DELETE IOERR_FSTAT IOERR_FSYNC IOERR_LOCK ' +
  'IOERR_READ IOERR_SHMMAP IOERR_SHMOPEN IOERR_SHMSIZE IOERR_SHORT_READ IOERR_WRITE';

/** Codes that only an error made up for the purpose can have (unit/result-codes.test.ts), and why. */
const INJECTED: Readonly<Record<string, string>> = {
  'OK OK_LOAD_PERMANENTLY OK_SYMLINK ROW DONE NOTICE NOTICE_RBU NOTICE_RECOVER_ROLLBACK NOTICE_RECOVER_WAL WARNING WARNING_AUTOINDEX':
    'no errors: nothing throws them',
  'EMPTY FORMAT NOTFOUND INTERNAL MISUSE RANGE IOERR_BLOCKED IOERR_DIR_CLOSE IOERR_SHMLOCK CANTOPEN_DIRTYWAL AUTH_USER NOLFS':
    'SQLite does not use them (any more), or only for mistakes that better-sqlite3 does not let through',
  'AUTH INTERRUPT ABORT ABORT_ROLLBACK CONSTRAINT_COMMITHOOK CONSTRAINT_FUNCTION CONSTRAINT_VTAB CONSTRAINT_PINNED ERROR_RETRY ERROR_SNAPSHOT ERROR_UNABLE':
    'they need an authorizer, an interrupt, a hook, a virtual table, a cursor or an API that better-sqlite3 does not offer',
  'LOCKED_SHAREDCACHE LOCKED_VTAB CORRUPT_VTAB CORRUPT_SEQUENCE CORRUPT_INDEX IOERR_DATA IOERR_IN_PAGE ERROR_RESERVESIZE':
    'they need a shared cache, a corrupt virtual table or an extension (checksums, REINDEX in a corrupt file)',
  'ERROR_KEY IOERR_BADKEY IOERR_CODEC IOERR_BEGIN_ATOMIC IOERR_COMMIT_ATOMIC IOERR_ROLLBACK_ATOMIC IOERR_AUTH IOERR_VNODE IOERR_CONVPATH CANTOPEN_CONVPATH':
    'an encryption extension, F2FS, macOS, Cygwin',
  IOERR_CORRUPTFS:
    'SQLite turns it into CORRUPT before anybody sees it: a page that cannot be read, in broken-disk.test.ts',
  'IOERR_TRUNCATE IOERR_CLOSE IOERR_UNLOCK IOERR_RDLOCK IOERR_DIR_FSYNC IOERR_DELETE_NOENT IOERR_CHECKRESERVEDLOCK IOERR_ACCESS READONLY_ROLLBACK READONLY_DBMOVED':
    'in WAL mode only at a checkpoint, where a failure is left for later, or with a rollback journal, which the writer never has',
  'IOERR_SEEK IOERR_MMAP IOERR_GETTEMPPATH CANTOPEN_NOTEMPDIR':
    'pread instead of lseek, no memory mapping, temporary tables in memory',
  'SCHEMA PROTOCOL BUSY_RECOVERY BUSY_TIMEOUT':
    'a race inside SQLite, too rare to wait for, or a kind of lock it is not built with',
  IOERR_NOMEM: 'a malloc of a few bytes has to fail, and the whole process would with it',
  'READONLY_RECOVERY READONLY_CANTLOCK READONLY_CANTINIT':
    'a read-only connection to a WAL without its index: never the writer',
  'CANTOPEN_FULLPATH CANTOPEN_ISDIR CANTOPEN_SYMLINK':
    'open resolves the path before SQLite does, and SQLite calls a folder CANTOPEN',
};

test('every code is produced by a test, or there is a reason why not', () => {
  const injected = Object.keys(INJECTED).flatMap((names) => names.split(' '));
  const listed = [...PRODUCED.split(' '), ...injected].map((name) => `SQLITE_${name}`);
  expect(new Set(listed).size).toBe(listed.length);
  expect([...listed].sort()).toEqual([...SQLITE_CODES].sort());
});
