import { copyFileSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { type Logger as Pino, pino } from 'pino';
import { type Database, type Logger, open } from 'sluicedb';
import { startCollector } from 'sluicedb/server';
import { expect, onTestFinished, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { CHANNELS, listenTo } from '../support/channels.ts';
import { Child, lockFromOutside } from '../support/child.ts';
import { codeFrom, eventually, refusal } from '../support/eventually.ts';
import { FaultFileSystem } from '../support/fault-file-system.ts';
import { post } from '../support/http.ts';
import { flip, killed, segment, WRITES } from '../support/left-behind.ts';
import { machine, Threads } from '../support/machine.ts';
import { Recorder } from '../support/recorder.ts';
import { tempDir } from '../support/temp-dir.ts';

const MANUAL = { flush: { mode: 'manual' } } as const;

/** A line as pino writes it. */
interface Entry {
  readonly level: number;
  readonly db: string;
  readonly msg: string;
  readonly err?: { readonly message: string; readonly stack: string };
  readonly [field: string]: unknown;
}

/** A real pino that writes to memory. When SQLite makes its checkpoints is not what is asked for here. */
function memoryLog(): { logger: Pino; entries(): Entry[]; text(): string } {
  let text = '';
  const write = (line: string) => {
    text += line;
  };
  const entries = () =>
    text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Entry)
      .filter(({ result }) => result !== 'complete' && result !== 'partial');
  return { logger: pino({ level: 'trace' }, { write }), entries, text: () => text };
}

const { debug: DEBUG, info: INFO, warn: WARN, error: ERROR } = pino.levels.values as Record<string, number>;

/** The warnings of this process from here on. */
function warnings(): Error[] {
  const seen: Error[] = [];
  const note = (warning: Error) => seen.push(warning);
  process.on('warning', note);
  onTestFinished(() => {
    process.off('warning', note);
  });
  return seen;
}

async function breakTable(db: Database): Promise<void> {
  await db.aset('before', 1);
  await db.aflush();
  await db.aexecute('ALTER TABLE data RENAME COLUMN value TO wrong');
}

test('the life of a database, as pino writes it', async () => {
  const { logger, entries } = memoryLog();
  const db = await open(join(tempDir(), 'a.db'), { ...MANUAL, logger });
  for (let i = 0; i < 10; i++) db.set(`k${i % 4}`, i);
  await db.aflush();
  await db.close();
  expect(entries().map(({ level, msg }) => [level, msg])).toEqual([
    [INFO, `opened ${db.path}`],
    [DEBUG, '10 writes were flushed'],
    [INFO, `closed ${db.path}`],
  ]);
  for (const entry of entries()) expect(entry.db).toBe(db.path);
  const [opened, flushed, closed] = entries();
  expect(opened).toMatchObject({ durability: 'sync', recovered: 0 });
  expect(flushed).toMatchObject({ writes: 10, applied: 4, coalesced: 6, dead: 0, durationMs: expect.any(Number) });
  expect(closed).toMatchObject({ pending: 0 });
});

test('several databases share a logger, and the console is one', async () => {
  const { logger, entries } = memoryLog();
  const folder = tempDir();
  const all = await Promise.all(['1', '2'].map((name) => open(join(folder, name), { logger })));
  await Promise.all(all.map((db) => db.close()));
  for (const { path } of all) {
    expect(
      entries()
        .filter(({ db }) => db === path)
        .map(({ level }) => level),
    ).toEqual([INFO, INFO]);
  }
  // It need only compile.
  const consoleLogger: Logger = console;
  expect(typeof consoleLogger.debug).toBe('function');
});

test('what a recovery found: a torn tail, damage, files of another database, and writes', async () => {
  const torn = await killed();
  const last = segment(torn, -1);
  truncateSync(last, readFileSync(last).length - 100);
  const damaged = await killed();
  flip(segment(damaged, 1), 9_000);
  const foreign = await killed();
  copyFileSync(segment(await killed({ writes: 3 }), 0), join(`${foreign}-log`, '0000000099.log'));
  const said = async (file: string, recovery: 'refuse' | 'keep-prefix' = 'refuse') => {
    const { logger, entries } = memoryLog();
    await (await open(file, { recovery, logger })).close();
    return entries().filter(({ level }) => level !== DEBUG);
  };

  expect(await said(torn)).toMatchObject([
    { level: INFO, tornBytes: expect.any(Number), msg: expect.stringMatching(/^\d+ bytes .* cut off/) },
    { level: INFO, recovered: WRITES - 1, msg: `opened ${torn}: ${WRITES - 1} writes were recovered from its log` },
    { level: INFO, pending: 0 },
  ]);
  const [damage, opened] = await said(damaged, 'keep-prefix');
  expect(damage).toMatchObject({ level: WARN, damage: expect.any(String), setAside: expect.any(Array) });
  expect(damage?.msg).toContain(damage?.['damage']);
  expect(opened).toMatchObject({ level: INFO, msg: expect.stringMatching(/^opened .* were recovered from its log$/) });
  expect(await said(foreign)).toMatchObject([
    { level: WARN, setAside: ['0000000099.log'], msg: expect.stringContaining('0000000099.log') },
    { level: INFO, recovered: WRITES },
    { level: INFO },
  ]);
});

test('an open that is refused logs nothing: its caller knows', async () => {
  const file = await killed();
  flip(segment(file, 1), 9_000);
  const { logger, entries } = memoryLog();
  expect(await codeFrom(() => open(file, { logger }))).toBe('SLUICE_LOG_CORRUPT');
  expect(entries()).toEqual([]);
});

test('writes that die: as many as they are in few lines, and no warning of the process', async () => {
  const warned = warnings();
  const { logger, entries } = memoryLog();
  const db = await open(join(tempDir(), 'a.db'), { ...MANUAL, logger });
  await db.aexecute('CREATE TABLE r (n INTEGER NOT NULL)');
  const rows = db.rows('r');
  for (let batch = 0; batch < 5; batch++) {
    for (let i = 0; i < 200; i++) rows.append({ n: i % 2 === 0 ? null : i });
    await db.aflush();
  }
  await db.close();
  expect(db.stats().deadLettered).toBe(500);
  const dead = entries().filter(({ msg }) => msg.startsWith('SQLite refused'));
  expect(dead.reduce((total, { count }) => total + (count as number), 0)).toBe(500);
  expect(dead.length).toBeLessThan(5);
  expect(dead[0]).toMatchObject({
    level: WARN,
    table: 'r',
    operation: 'append',
    errorCode: 'SQLITE_CONSTRAINT_NOTNULL',
    errorMessage: 'NOT NULL constraint failed: r.n',
  });
  await new Promise((resolve) => setImmediate(resolve));
  expect(warned).toEqual([]);
});

test('dead letters that are dropped for good are an error', async () => {
  const { logger, entries } = memoryLog();
  const db = await open(join(tempDir(), 'a.db'), {
    ...MANUAL,
    logger,
    dlq: { maxEntries: 5, overflow: 'evict-oldest' },
  });
  await db.aexecute('CREATE TABLE r (n INTEGER NOT NULL)');
  for (let i = 0; i < 100; i++) db.stage('INSERT INTO r VALUES (NULL)');
  await db.close();
  const dropped = entries().filter(({ level }) => level === ERROR);
  expect(dropped).toMatchObject([{ count: 95, msg: expect.stringContaining('95 dead letters were dropped for good') }]);
});

test('a flush that stands still is an error, and that it goes on is worth a line', async () => {
  const warned = warnings();
  const { logger, entries } = memoryLog();
  const db = await open(join(tempDir(), 'a.db'), { flush: { intervalMs: 5 }, logger });
  await breakTable(db);
  db.set('k', 1);
  await eventually(
    () => entries().filter(({ msg }) => msg.includes('is tried again')).length > 1,
    'it was tried twice',
  );
  await db.aexecute('ALTER TABLE data RENAME COLUMN wrong TO value', { ahead: true });
  await db.aflush();
  await db.close();
  const said = entries().filter(({ level }) => level !== DEBUG);
  expect(said.map(({ level, msg }) => [level, msg.replace(/[\d.]+ s/, 'n s')])).toEqual([
    [INFO, expect.stringMatching(/^opened/)],
    [WARN, 'something failed in the flush'],
    [WARN, 'the database is degraded, it was ok'],
    [ERROR, 'nothing is applied any more (config)'],
    [INFO, 'the database is ok, it was degraded'],
    [INFO, 'writes are applied again, after n s (config)'],
    [INFO, expect.stringMatching(/^closed/)],
  ]);
  const [, failure, state, stall] = said;
  for (const { err } of [failure, state, stall] as Entry[]) {
    expect(err?.message).toContain('data');
    expect(err?.stack).toContain('StoreFailure');
  }
  const attempts = entries().filter(({ msg }) => msg === 'a flush failed (config) and is tried again');
  expect(attempts[0]).toMatchObject({ level: DEBUG, attempt: 1, failure: 'config', err: failure?.err });
  expect(warned).toEqual([]);
});

test('a database that is locked for a while: one line however often it is tried, and one when it is over', async () => {
  const file = join(tempDir(), 'a.db');
  const { logger, entries } = memoryLog();
  const db = await open(file, { ...MANUAL, logger });
  await db.aset('before', 1);
  await db.aflush();
  const unlock = await lockFromOutside(file);
  db.set('k', 1);
  const flushed = db.aflush();
  const attempts = () => entries().filter(({ attempt }) => attempt !== undefined).length;
  await eventually(() => attempts() >= 4, 'several attempts have failed');
  await unlock();
  await flushed;
  expect(entries().filter(({ level }) => level === WARN)).toHaveLength(2);
  await db.close();
  const said = entries().filter(({ level }) => level !== DEBUG);
  expect(said.map(({ msg }) => msg)).toEqual([
    `opened ${db.path}`,
    'something failed in the flush',
    'the database is degraded, it was ok',
    'the database is ok, it was degraded',
    `closed ${db.path}`,
  ]);
});

test('a disk that fails for good: the end is an error, and what is left a warning', async () => {
  const disk = new FaultFileSystem();
  const { logger, entries } = memoryLog();
  const db = await openOn(machine({ fileSystem: disk }), join(tempDir(), 'a.db'), { ...MANUAL, logger });
  await db.aset('before', 1);
  disk.fail('datasync', 'EIO');
  await refusal(() => db.aset('k', 1));
  await eventually(() => db.state === 'failed', 'it gives up');
  await db.close();
  const said = entries().filter(({ level }) => level > (INFO as number));
  expect(disk.hits.get('datasync')).toBe(2);
  expect(said.find(({ level }) => level === ERROR)).toMatchObject({
    state: 'failed',
    msg: expect.stringMatching(/^the database is failed, it was \w+$/),
    err: { message: expect.stringContaining('EIO') },
  });
  expect(said.at(-1)).toMatchObject({
    level: WARN,
    pending: db.stats().pending,
    msg: expect.stringMatching(/^closed/),
  });
  expect(db.stats().pending).toBeGreaterThan(0);
});

test('a writer thread that died', async () => {
  const threads = new Threads();
  const { logger, entries } = memoryLog();
  const db = await openOn(machine({ spawn: threads.spawn }), join(tempDir(), 'a.db'), { ...MANUAL, logger });
  await db.aset('a', 1);
  await db.aflush();
  await threads.writer.terminate();
  await db.aset('b', 1);
  await db.aflush();
  await db.close();
  expect(entries().filter(({ level }) => level === WARN)).toMatchObject([
    { reason: 'death', msg: 'the writer thread was started again: it had died' },
  ]);
});

test('what a logger throws ends up with the process, and the database does its work all the same', async () => {
  const child = new Child(
    `let thrown = 0, called = 0;
     process.on('uncaughtException', ({ message }) => { if (message === 'no log') thrown++; });
     const fail = () => { called++; throw new Error('no log'); };
     const logger = { debug: fail, info: fail, warn: fail, error: fail };
     const db = await open(process.argv[2], { flush: { mode: 'manual' }, logger });
     await db.aexecute('CREATE TABLE t (n INTEGER NOT NULL)');
     db.stage('INSERT INTO t VALUES (NULL)');
     await db.aset('k', 1);
     const { applied, dead } = await db.aflush();
     const { pending } = await db.close();
     await new Promise((resolve) => setImmediate(resolve));
     console.log(JSON.stringify({ applied, dead, pending, called, thrown }));`,
    [join(tempDir(), 'a.db')],
  );
  const { code, output, errors } = await child.end();
  expect([code, errors]).toEqual([0, '']);
  const { called, thrown, ...said } = JSON.parse(output) as Record<string, number>;
  expect(said).toEqual({ applied: 1, dead: 1, pending: 0 });
  expect(thrown).toBe(called);
  // Opened, flushed, a dead letter, closed.
  expect(called).toBeGreaterThanOrEqual(4);
});

test('without a logger nothing is said', async () => {
  const child = new Child(
    `const db = await open(process.argv[2], { flush: { intervalMs: 5 } });
     const rows = db.rows('r', { columns: { n: 'integer' } });
     for (let i = 0; i < 5_000; i++) { db.set('k' + i % 100, i); rows.append({ n: i }); }
     await db.adurable();
     await db.aflush();
     await db.afetchAll('SELECT * FROM r LIMIT 3');
     await db.aexecute('DELETE FROM r');
     await db.close();
     const again = await open(process.argv[2]);
     await again.close();`,
    [join(tempDir(), 'a.db')],
  );
  expect(await child.end()).toMatchObject({ code: 0, output: '', errors: '' });
});

test('what was written, and where, is in no line and in no message', async () => {
  const secret = 'hunter2-correct-horse';
  const { logger, text, entries } = memoryLog();
  const channels = CHANNELS.map((name) => listenTo(name));
  const db = await open(join(tempDir(), 'a.db'), {
    flush: { intervalMs: 5 },
    logger,
    dlq: { maxEntries: 8, overflow: 'evict-oldest' },
  });
  await db.aexecute('CREATE TABLE guarded (key TEXT PRIMARY KEY, value TEXT CHECK (length(value) < 3)) STRICT');
  await db.aexecute('CREATE TABLE r (n INTEGER NOT NULL UNIQUE, data BLOB) STRICT');
  await db.aexecute('CREATE TABLE parent (id TEXT PRIMARY KEY)');
  await db.aexecute('CREATE TABLE child (id TEXT REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED)');
  const guarded = db.table('guarded');
  guarded.set(`${secret}2`, Buffer.from(secret));
  guarded.setMany({ [secret]: 1, [`${secret}3`]: secret });
  const rows = db.rows('r', { onNewColumn: 'add' });
  rows.append({ n: secret });
  rows.append({ n: null, data: secret });
  db.stage('INSERT INTO r (n) VALUES (?)', [secret]);
  db.stage('INSERT OR ROLLBACK INTO r (n, data) VALUES (NULL, ?)', [secret]);
  db.stage('INSERT INTO r (n) SELECT json(?)', [`{${secret}`]);
  db.stage('INSERT INTO r (n) SELECT abs(?) FROM nowhere', [secret]);
  db.stage('INSERT INTO r (n) VALUES (?, ?)', [secret]);
  db.stage('INSERT INTO child VALUES (?)', [secret]);
  // The last one of a burst is the one that is told of.
  guarded.set(secret, secret);
  await db.aflush();
  const listed = await db.dlq.list();
  expect(listed.length + db.dlq.counters.evicted).toBe(11);
  expect(listed.filter((entry) => JSON.stringify(entry).includes(secret)).length).toBeGreaterThanOrEqual(7);
  // It stands still over a key and a value, too.
  await breakTable(db);
  db.set(secret, secret);
  await eventually(() => entries().some(({ msg }) => msg.startsWith('nothing is applied')), 'it stands still');
  await eventually(() => entries().some(({ msg }) => msg.includes('tried again')), 'it was tried again');
  await db.aexecute('ALTER TABLE data RENAME COLUMN wrong TO value', { ahead: true });
  await db.aflush();
  await db.close();

  const seen = channels.flatMap(({ seen: messages }) => messages as readonly { readonly error?: Error }[]);
  for (const { seen: messages } of channels) expect(messages.length).toBeGreaterThan(0);
  const told = [
    text(),
    JSON.stringify(seen),
    ...seen.map(({ error }) => `${error?.stack} ${String(error?.cause)} ${JSON.stringify(error)}`),
  ];
  expect(told.join('\n')).toContain('CHECK constraint failed');
  for (const words of told) expect(words).not.toMatch(/hunter2|correct-horse/);
  for (const level of [DEBUG, INFO, WARN, ERROR]) expect(entries().some((entry) => entry.level === level)).toBe(true);
});

test("SQLite's own words are in two fields, and nowhere when these are left out", async () => {
  const secret = 'hunter2';
  let text = '';
  const write = (line: string) => {
    text += line;
  };
  const logger = pino({ redact: { paths: ['err', 'errorMessage'], remove: true } }, { write });
  const db = await open(join(tempDir(), 'a.db'), { ...MANUAL, logger });
  await db.aexecute('CREATE TABLE r (n)');
  db.stage("INSERT INTO r SELECT json_extract('{}', ?)", [secret]);
  await db.aflush();
  const [entry] = await db.dlq.listSummaries();
  expect(entry?.errorMessage).toContain(secret);
  await db.close();
  expect(text).toContain('SQLite refused a write to r for good');
  expect(text).not.toContain(secret);
});

test('a collector logs what its database logs; one that is passed in keeps its own logger', async () => {
  const { logger, entries } = memoryLog();
  const collector = await startCollector({ file: ':memory:', port: 0, open: { logger } });
  await post(`${collector.url}/write/t`, '{"n":1}');
  await collector.close();
  expect(
    entries()
      .filter(({ level }) => level === INFO)
      .map(({ msg }) => msg),
  ).toEqual([`opened ${collector.db.path}`, `closed ${collector.db.path}`]);

  const own = new Recorder();
  const db = await open(':memory:', { logger: own });
  const second = await startCollector({ db, port: 0 });
  await second.close();
  expect(own.said).toEqual([`info: opened ${db.path}`]);
  await db.close();
  expect(own.said.at(-1)).toBe(`info: closed ${db.path}`);

  const refused = await refusal(() => startCollector({ file: ':memory:', port: 0, open: { logger: {} as never } }));
  expect(refused.code).toBe('SLUICE_INVALID_OPTION');
  expect(refused.message).toContain('logger must be an object with the methods');
});
