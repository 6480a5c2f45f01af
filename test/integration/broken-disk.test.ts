import { execFileSync } from 'node:child_process';
import { closeSync, openSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { open } from 'sluicedb';
import { expect, type TestContext, test } from 'vitest';
import { NO_PRELOAD } from '../support/compiled.ts';
import { eventually } from '../support/eventually.ts';
import { type Fault, FaultShim } from '../support/fault-shim.ts';
import { RemoteDatabase } from '../support/remote-database.ts';
import { tempDir } from '../support/temp-dir.ts';

/*
 * What SQLite says of a broken disk, produced by system calls that fail. The database lives in a process of its own.
 */

const OPTIONS = { flush: { mode: 'manual' }, closeTimeoutMs: 500, log: { segmentBytes: 1_048_576 } } as const;
const PROBE = 'a.db-sluice-probe';
const WAL = 'a.db-wal';
const SHM = 'a.db-shm';

interface Broken {
  readonly file: string;
  readonly shim: FaultShim;
  readonly db: RemoteDatabase;
}

/** A database with one row applied, and no reader yet that would share its descriptors with the writer, on a disk that will do as it is told. */
async function broken(context: TestContext): Promise<Broken> {
  if (NO_PRELOAD !== undefined) context.skip(NO_PRELOAD);
  const shim = new FaultShim();
  const file = join(tempDir(), 'a.db');
  const db = await RemoteDatabase.open(file, OPTIONS, { env: shim.env });
  await db.run(`
    await db.aexecute('CREATE TABLE r (n INTEGER, text TEXT)');
    await db.aexecute('CREATE TABLE other (n INTEGER)');
    db.stage('INSERT INTO r VALUES (0, NULL)');
    kept.written = 0;
    await db.aflush();`);
  return { file, shim, db };
}

/** Writes rows that SQLite will have to take one day, and starts a flush. */
async function write({ db }: Pick<Broken, 'db'>, { rows = 50, bytes = 100 } = {}): Promise<void> {
  await db.run(`
    for (let i = 0; i < ${rows}; i++) db.stage('INSERT INTO r VALUES (?, ?)', [++kept.written, 'x'.repeat(${bytes})]);
    await db.adurable();
    kept.flushed = db.aflush({ timeoutMs: 20_000 });
    kept.flushed.catch(() => undefined);`);
}

/** Everything is applied, once, nothing is dead, and a fresh write goes through. */
async function allIsWell({ db, file }: Pick<Broken, 'db' | 'file'>): Promise<void> {
  await db.run('await kept.flushed');
  await db.run(
    `db.stage('INSERT INTO r VALUES (?, ?)', [++kept.written, 'fresh']); await db.aflush({ timeoutMs: 10_000 });`,
  );
  const written = await db.run<number>('return kept.written');
  const stats = await db.stats();
  expect(stats).toMatchObject({ state: 'ok', pending: 0, deadLettered: 0, applied: stats.accepted + stats.recovered });
  expect((await db.seen()).dead).toBe(0);
  expect(await db.close()).toEqual({ pending: 0 });
  const sqlite = new Sqlite(file);
  expect(sqlite.prepare('SELECT count(*) AS n, count(DISTINCT n) AS different, max(n) AS last FROM r').get()).toEqual({
    n: written + 1,
    different: written + 1,
    last: written,
  });
  expect(sqlite.prepare('SELECT count(*) FROM _sluice_dead_letters').pluck().get()).toBe(0);
  expect(sqlite.pragma('integrity_check', { simple: true })).toBe('ok');
  sqlite.close();
}

/** The engine has given up: reads and the log are there, and an open on a disk that is well goes on. */
async function failedAndKept(given: Broken): Promise<void> {
  const { db, file, shim } = given;
  await eventually(async () => (await db.stats()).state === 'failed', 'the engine gives up');
  expect(await db.run("try { db.set('k', 1); } catch (error) { return error.code; }")).toBe('SLUICE_FAILED');
  const { pending } = await db.stats();
  expect(pending).toBeGreaterThan(0);
  expect((await db.seen()).dead).toBe(0);
  const written = await db.run<number>('return kept.written');
  expect(await db.close()).toEqual({ pending });
  shim.arm();
  const next = await RemoteDatabase.open(file, OPTIONS);
  expect((await next.stats()).recovered).toBeLessThanOrEqual(pending);
  await next.run(`kept.written = ${written}; kept.flushed = db.aflush();`);
  await allIsWell({ ...given, db: next });
}

interface Case {
  readonly name: string;
  readonly faults: readonly Fault[];
  /** Class and code of the attempts that failed, each once. */
  readonly failures: readonly string[];
  /** They fail until the disk is well. */
  readonly lasts?: boolean;
  /** What is written. */
  readonly load?: { readonly rows: number; readonly bytes: number };
  /** The writer has to read its pages again. */
  readonly coldCache?: boolean;
}

const ONCE = { times: 1 } as const;
/** After this the thread opens the database again. */
const REOPEN: Fault = { operation: 'sync', file: WAL, error: 'EIO', ...ONCE };
const MANY_PAGES = { rows: 560, bytes: 32_000 };

const CASES: readonly Case[] = [
  {
    name: '[fault 36] IOERR_WRITE from EIO: the disk takes other writes, so the connection is reopened',
    faults: [{ operation: 'write', file: WAL, error: 'EIO', ...ONCE }],
    failures: ['reopen SQLITE_IOERR_WRITE'],
  },
  {
    name: '[fault 36] IOERR_WRITE from EDQUOT: space',
    faults: [
      { operation: 'write', file: WAL, error: 'EDQUOT' },
      { operation: 'write', file: PROBE, error: 'EDQUOT' },
    ],
    failures: ['space SQLITE_IOERR_WRITE'],
    lasts: true,
  },
  {
    name: '[fault 36] IOERR_WRITE from a quota that other files meet at fsync alone: space',
    faults: [
      { operation: 'write', file: WAL, error: 'EDQUOT' },
      { operation: 'sync', file: PROBE, error: 'EDQUOT' },
    ],
    failures: ['space SQLITE_IOERR_WRITE'],
    lasts: true,
  },
  {
    name: 'FULL from ENOSPC: space',
    faults: [{ operation: 'write', file: WAL, error: 'ENOSPC' }],
    failures: ['space SQLITE_FULL'],
    lasts: true,
  },
  {
    name: 'IOERR_FSYNC, once: reopened',
    faults: [REOPEN],
    failures: ['reopen SQLITE_IOERR_FSYNC'],
  },
  {
    name: 'IOERR_FSYNC from a full disk, once: reopened, and not taken for a lack of space',
    faults: [{ ...REOPEN, error: 'ENOSPC' }],
    failures: ['reopen SQLITE_IOERR_FSYNC'],
  },
  {
    name: 'IOERR_READ, once: reopened',
    faults: [{ operation: 'read', file: WAL, error: 'ESTALE', ...ONCE }],
    failures: ['reopen SQLITE_IOERR_READ'],
    coldCache: true,
  },
  {
    name: 'IOERR_SHORT_READ, once: reopened',
    faults: [{ operation: 'read', file: WAL, error: 'SHORT', ...ONCE }],
    failures: ['reopen SQLITE_IOERR_SHORT_READ'],
    coldCache: true,
  },
  {
    name: 'IOERR_SHMSIZE: reopened',
    faults: [{ operation: 'write', file: SHM, error: 'EIO', ...ONCE }],
    failures: ['reopen SQLITE_IOERR_SHMSIZE'],
    load: MANY_PAGES,
  },
  {
    name: 'IOERR_SHMSIZE with a full disk: space',
    faults: [
      { operation: 'write', file: SHM, error: 'ENOSPC' },
      { operation: 'write', file: PROBE, error: 'ENOSPC' },
    ],
    failures: ['space SQLITE_IOERR_SHMSIZE'],
    lasts: true,
    load: MANY_PAGES,
  },
  {
    name: 'IOERR_SHMMAP: reopened',
    faults: [{ operation: 'map', file: SHM, error: 'ENODEV', ...ONCE }],
    failures: ['reopen SQLITE_IOERR_SHMMAP'],
    load: MANY_PAGES,
  },
  {
    name: 'CANTOPEN while the process is out of descriptors: transient',
    faults: [
      REOPEN,
      { operation: 'open', file: WAL, error: 'EMFILE' },
      { operation: 'open', file: PROBE, error: 'EMFILE' },
    ],
    failures: ['reopen SQLITE_IOERR_FSYNC', 'transient SQLITE_CANTOPEN'],
    lasts: true,
  },
  {
    name: 'CANTOPEN for another reason: config',
    faults: [REOPEN, { operation: 'open', file: WAL, error: 'EACCES' }],
    failures: ['reopen SQLITE_IOERR_FSYNC', 'config SQLITE_CANTOPEN'],
    lasts: true,
  },
];

test.for(CASES.map((one) => [one.name, one] as const))(
  '%s, and everything is applied once',
  async ([, one], context) => {
    const { faults, failures, lasts, load, coldCache } = one;
    const given = await broken(context);
    const { db, shim } = given;
    const warm = coldCache ? await coolDown(given) : () => {};
    shim.arm(...faults);
    await write(given, load);
    await eventually(async () => (await db.seen()).failures.length > 0, 'an attempt has failed');
    warm();
    if (lasts) {
      const last = failures.at(-1);
      await eventually(
        async () => (await db.seen()).failures.filter((one) => one === last).length >= 2,
        `${last}, twice`,
      );
      const state = last?.startsWith('space') ? 'space' : 'degraded';
      expect((await db.stats()).state).toBe(state);
      shim.arm();
    }
    await db.run('await kept.flushed');
    const seen = await db.seen();
    expect([...new Set(seen.failures)]).toEqual(failures);
    if (!lasts) expect(shim.hits().slice(0, faults.length)).toEqual(faults.map(() => 1));
    const reopened = seen.failures.filter((one) => one.startsWith('reopen')).length;
    expect(seen.restarts.filter((reason) => reason === 'reopen').length).toBeGreaterThanOrEqual(reopened);
    await allIsWell(given);
  },
);

/**
 * Makes the writer read its pages again, from the WAL: another program has written, and a reader keeps the last commits from
 * being checkpointed. Returns what lets the reader go.
 */
async function coolDown({ db, file }: Broken): Promise<() => void> {
  const reader = new Sqlite(file);
  reader.exec('BEGIN');
  reader.prepare('SELECT count(*) FROM r').get();
  await db.run(`db.stage('INSERT INTO r VALUES (?, NULL)', [++kept.written]); await db.aflush();`);
  const other = new Sqlite(file, { timeout: 5_000 });
  other.exec('INSERT INTO other VALUES (1)');
  other.close();
  return () => reader.close();
}

const FATAL_CASES: readonly (Omit<Case, 'failures'> & {
  readonly retries: readonly string[];
  readonly cause?: string;
})[] = [
  {
    name: '[fault 37] IOERR_FSYNC, and again on the new connection',
    faults: [{ operation: 'sync', file: WAL, error: 'EIO' }],
    retries: ['reopen SQLITE_IOERR_FSYNC'],
    cause: 'disk I/O error (2 times)',
  },
  {
    name: 'IOERR_READ, and again on the new connection',
    faults: [{ operation: 'read', file: WAL, error: 'ESTALE' }],
    retries: ['reopen SQLITE_IOERR_READ'],
    coldCache: true,
  },
  {
    // SQLite's own word for EIO where it reads, IOERR_CORRUPTFS inside.
    name: 'CORRUPT from a page that cannot be read',
    faults: [{ operation: 'read', file: WAL, error: 'EIO' }],
    retries: [],
    cause: 'database disk image is malformed',
    coldCache: true,
  },
  {
    name: 'IOERR_WRITE on a file system that has become read-only',
    faults: [
      { operation: 'write', file: WAL, error: 'EROFS' },
      { operation: 'open', file: PROBE, error: 'EROFS' },
    ],
    retries: [],
    cause: 'disk I/O error (writing beside it: EROFS)',
  },
  {
    name: 'IOERR_WRITE that stays although there is room',
    faults: [{ operation: 'write', file: WAL, error: 'EIO' }],
    retries: Array(3).fill('reopen SQLITE_IOERR_WRITE'),
    cause: 'disk I/O error',
  },
];

test.for(FATAL_CASES.map((one) => [one.name, one] as const))(
  '%s: failed, with nothing lost and nothing dead',
  async ([, { faults, retries, cause, coldCache }], context) => {
    const given = await broken(context);
    const warm = coldCache ? await coolDown(given) : () => {};
    given.shim.arm(...faults);
    await write(given);
    await eventually(async () => (await given.db.stats()).state !== 'ok', 'an attempt has failed');
    warm();
    await eventually(async () => (await given.db.stats()).state === 'failed', 'the engine gives up');
    const seen = await given.db.seen();
    expect(seen.failures).toEqual(retries);
    expect(seen.restarts).toEqual(retries.map(() => 'reopen'));
    if (cause !== undefined) expect(seen.cause).toBe(cause);
    expect(given.shim.hits()[0]).toBeGreaterThan(retries.length);
    await failedAndKept(given);
  },
);

test('[fault 37] the new connection checks the file: damage ends in failed', async (context) => {
  const given = await broken(context);
  const { db, shim, file } = given;
  await db.run(
    `await db.aexecute("INSERT INTO other WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 5000) SELECT i FROM c");`,
  );
  await eventually(() => statSync(`${file}-wal`).size === 0, 'a checkpoint is made');
  // The log is in no need of this table: only a check finds the damage.
  damage(file, 'other');
  shim.arm(REOPEN);
  await write(given);
  await eventually(async () => (await db.stats()).state === 'failed', 'the engine gives up');
  const seen = await db.seen();
  expect(seen.failures).toEqual(['reopen SQLITE_IOERR_FSYNC']);
  expect(seen.restarts).toEqual(['reopen']);
  expect(seen.cause).toMatch(/quick check|malformed/);
  expect(seen.dead).toBe(0);
  expect((await db.close()).pending).toBe(50);
});

test('NOMEM: three attempts, then a new connection, and everything is applied once', async (context) => {
  const given = await broken(context);
  const { db, shim } = given;
  shim.arm({ operation: 'malloc', error: 'ENOMEM' });
  await db.run(`
    db.stage('INSERT INTO r VALUES (?, length(hex(zeroblob(20000000))))', [++kept.written]);
    kept.flushed = db.aflush();
    kept.flushed.catch(() => undefined);`);
  await eventually(async () => (await db.seen()).failures.length >= 4, 'four attempts have failed');
  shim.arm();
  await db.run('await kept.flushed');
  const { failures, restarts } = await db.seen();
  expect(failures.slice(0, 4)).toEqual([...Array(3).fill('transient SQLITE_NOMEM'), 'reopen SQLITE_NOMEM']);
  expect(restarts[0]).toBe('reopen');
  await allIsWell(given);
});

test.for([
  ['a direct statement', `db.aexecute('INSERT INTO other VALUES (1)')`],
  ['several', `db.aexecuteMany('INSERT INTO other VALUES (?)', [[1]])`],
  ['a transaction', `db.atransaction((tx) => tx.aexecute('INSERT INTO other VALUES (1)'), { sql: true })`],
])('IOERR_FSYNC at the COMMIT of %s: nobody knows, for a crash may bring it back', async ([, write], context) => {
  const { file, shim, db } = await broken(context);
  const rows = 'SELECT n FROM other';
  shim.arm({ operation: 'sync', file: WAL, error: 'EIO', times: 1 });
  const code = await db.run(`
    const code = await ${write}.then(() => 'done', ({ code }) => code);
    return [code, await db.afetchAll('${rows}')];`);
  db.child.process.kill('SIGKILL');
  await db.child.ended;
  expect([code, shim.hits()[0]]).toEqual([['SLUICE_OUTCOME_UNKNOWN', []], 1]);
  const after = await open(file);
  expect([[], [{ n: 1 }]]).toContainEqual(await after.afetchAll(rows));
  await after.close();
});

test('IOERR_TRUNCATE: a checkpoint between batches is left for later', async (context) => {
  const given = await broken(context);
  const { db, shim, file } = given;
  shim.arm({ operation: 'truncate', file: WAL, error: 'EIO' });
  await write(given);
  await db.run('await kept.flushed');
  await eventually(() => (shim.hits()[0] ?? 0) > 0, 'a checkpoint fails');
  expect((await db.seen()).failures).toEqual([]);
  expect(await db.stats()).toMatchObject({ state: 'ok', pending: 0 });
  expect(statSync(`${file}-wal`).size).toBeGreaterThan(0);
  shim.arm();
  await write(given);
  await eventually(() => statSync(`${file}-wal`).size === 0, 'a checkpoint is made');
  await allIsWell(given);
});

/** Overwrites the pages of a table but the first, without a lock of ours ever being touched. */
function damage(file: string, table: string): void {
  const sqlite = new Sqlite(file, { readonly: true });
  const page = sqlite.prepare('SELECT rootpage FROM sqlite_master WHERE name = ?').pluck().get(table) as number;
  sqlite.close();
  const descriptor = openSync(file, 'r+');
  writeSync(descriptor, Buffer.alloc(4_096, 0xaa), 0, 4_096, (page - 1) * 4_096);
  closeSync(descriptor);
}

test('[fault 36] a limit on the size of files is a lack of space, and it goes on by itself when the limit is raised', async (context) => {
  if (process.platform !== 'linux')
    context.skip(`only Linux can raise a limit from outside, this is ${process.platform}`);
  const file = join(tempDir(), 'a.db');
  const db = await RemoteDatabase.open(
    file,
    { ...OPTIONS, log: { segmentBytes: 65_536 } },
    // Units of 512 bytes.
    { limits: 'ulimit -S -f 2000' },
  );
  await db.run(`await db.aexecute('CREATE TABLE r (n INTEGER, text TEXT)');
    kept.written = 0; db.stage('INSERT INTO r VALUES (0, NULL)');`);
  const given = { db, file };
  await write(given, { rows: 300, bytes: 10_000 });
  await eventually(async () => (await db.seen()).failures.length >= 2, 'two attempts have failed');
  expect(await db.stats()).toMatchObject({ state: 'space', applied: 0, deadLettered: 0 });
  execFileSync('prlimit', ['--pid', String(db.child.process.pid), '--fsize=unlimited:unlimited']);
  await db.run('await kept.flushed');
  expect(new Set((await db.seen()).failures)).toEqual(new Set(['space SQLITE_IOERR_WRITE']));
  expect((await db.seen()).states).toEqual(['space', 'ok']);
  await allIsWell(given);
});

test('a process that is out of descriptors cannot start the thread again: waited for, and no crash loop', async (context) => {
  if (NO_PRELOAD !== undefined) context.skip(NO_PRELOAD);
  const shim = new FaultShim();
  const file = join(tempDir(), 'a.db');
  const db = await RemoteDatabase.open(file, OPTIONS, { env: shim.env, limits: 'ulimit -n 60' });
  await db.run(`await db.aexecute('CREATE TABLE r (n INTEGER, text TEXT)');
    kept.written = 0; db.stage('INSERT INTO r VALUES (0, NULL)'); await db.aflush();
    kept.fs = await import('node:fs');`);
  shim.arm(REOPEN);
  await db.run(`
    for (let i = 0; i < 50; i++) db.stage('INSERT INTO r VALUES (?, NULL)', [++kept.written]);
    await db.adurable();
    kept.open = [];
    try { for (;;) kept.open.push(kept.fs.openSync('/dev/null')); } catch (error) { if (error.code !== 'EMFILE') throw error; }
    kept.flushed = db.aflush();
    kept.flushed.catch(() => undefined);`);
  // More than the deaths in a row that end in failed.
  await eventually(async () => (await db.seen()).failures.length > 7, 'many attempts have failed');
  expect(await db.stats()).toMatchObject({ state: 'degraded', deadLettered: 0 });
  await db.run('for (const one of kept.open) kept.fs.closeSync(one); await kept.flushed;');
  const { failures } = await db.seen();
  expect(failures[0]).toBe('reopen SQLITE_IOERR_FSYNC');
  expect(failures.slice(1).every((one) => one.startsWith('transient'))).toBe(true);
  await allIsWell({ db, file });
});

test('a connection that is given up while a checkpoint fails does not take the process with it', async (context) => {
  const given = await broken(context);
  const { db, shim } = given;
  for (let round = 0; round < 6; round++) {
    shim.arm();
    await write(given, { rows: 400, bytes: 32_000 });
    // The checkpoint comes some 100 ms after the batch, the end of the connection up to 100 ms after its failure.
    await db.run(`await kept.flushed; await new Promise((resolve) => setTimeout(resolve, ${15 * round}));`);
    shim.arm(REOPEN, { operation: 'sync', file: 'a.db', error: 'EIO' });
    await write(given, { rows: 1 });
    await eventually(async () => (await db.seen()).restarts.length > round, 'the connection is reopened');
  }
  shim.arm();
  expect(new Set((await db.seen()).failures)).toEqual(new Set(['reopen SQLITE_IOERR_FSYNC']));
  await allIsWell(given);
});

test.for([
  ['EDQUOT', 'write', 'space'],
  ['EFBIG', 'write', 'space'],
  ['EACCES', 'open', 'degraded'],
  ['EMFILE', 'open', 'degraded'],
] as const)('the log: %s from %s is waited for, in the state %s', async ([error, operation, state], context) => {
  const given = await broken(context);
  const { db, shim } = given;
  // A new segment.
  await db.run('await db.aflush();');
  shim.arm({ operation, file: '.log', error });
  await db.run(`
    for (let i = 0; i < 9; i++) db.stage('INSERT INTO r VALUES (?, ?)', [++kept.written, 'x'.repeat(600_000)]);
    kept.durable = db.adurable();
    kept.durable.catch(() => undefined);`);
  await eventually(async () => (await db.stats()).state === state, 'the log is in trouble');
  await eventually(() => (shim.hits()[0] ?? 0) >= 3, 'several attempts have failed');
  expect((await db.stats()).state).toBe(state);
  shim.arm();
  await db.run('kept.flushed = db.aflush();');
  await allIsWell(given);
});
