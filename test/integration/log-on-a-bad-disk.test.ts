import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type OpenOptions, open } from 'sluicedb';
import { expect, type TestContext, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { Child } from '../support/child.ts';
import { NO_PRELOAD } from '../support/compiled.ts';
import { codeFrom, eventually } from '../support/eventually.ts';
import { FaultFileSystem } from '../support/fault-file-system.ts';
import { type Fault, FaultShim } from '../support/fault-shim.ts';
import { machine } from '../support/machine.ts';
import { RemoteDatabase } from '../support/remote-database.ts';
import { tempDir } from '../support/temp-dir.ts';

/** Nothing is flushed: what is there after a SIGKILL is what the log has. */
const MANUAL: OpenOptions = { flush: { mode: 'manual' }, log: { segmentBytes: 4_096 } };
const FIRST = 'a.db-log/0000000001.log';
const SECOND = 'a.db-log/0000000002.log';

interface Broken {
  readonly db: RemoteDatabase;
  readonly shim: FaultShim;
  readonly file: string;
}

/** A database in a process of its own, with one write in its log, whose system calls can be made to fail. */
async function broken(context: TestContext, options = MANUAL): Promise<Broken> {
  if (NO_PRELOAD !== undefined) context.skip(NO_PRELOAD);
  const shim = new FaultShim();
  const file = join(tempDir(), 'a.db');
  const db = await RemoteDatabase.open(file, options, { env: shim.env });
  await db.run("await db.aset('before', 1)");
  return { db, shim, file };
}

/** What an awaited write is answered with. */
const answerTo = (db: RemoteDatabase, key: string) =>
  db.run<string>(`return db.aset('${key}', 2).then(() => 'acknowledged', ({ code }) => code)`);

/** What the log alone has: the process is killed, and the database opened again. */
async function afterKill({ db, file }: Pick<Broken, 'db' | 'file'>): Promise<Record<string, unknown>> {
  db.child.process.kill('SIGKILL');
  await db.child.end();
  const again = await open(file, MANUAL);
  const found = Object.fromEntries(again.entries());
  expect(again.stats().recovered).toBe(Object.keys(found).length);
  await again.close();
  return found;
}

interface Once {
  readonly name: string;
  readonly fault: Fault;
  /** Whether the segment has to be full first, so that the next write makes another. */
  readonly full?: true;
  readonly state: 'space' | 'degraded';
  /** As the log counts it. */
  readonly counted: readonly [operation: string, meaning: string];
  readonly segments: number;
}

const ONCE: readonly Once[] = [
  {
    name: '[fault 2] ENOSPC on the first byte',
    fault: { operation: 'write', file: FIRST, error: 'ENOSPC', times: 3 },
    state: 'space',
    counted: ['write', 'space'],
    segments: 1,
  },
  {
    name: '[fault 1] a write of which nothing is taken',
    fault: { operation: 'write', file: FIRST, error: 'SHORT', times: 1 },
    state: 'degraded',
    counted: ['write', 'reopen'],
    segments: 2,
  },
  {
    name: '[fault 3] EIO of a write',
    fault: { operation: 'write', file: FIRST, error: 'EIO', times: 1 },
    state: 'degraded',
    counted: ['write', 'reopen'],
    segments: 2,
  },
  {
    name: '[fault 4] EIO of fdatasync',
    fault: { operation: 'sync', file: FIRST, error: 'EIO', times: 1 },
    state: 'degraded',
    counted: ['fsync', 'reopen'],
    segments: 2,
  },
  {
    name: '[fault 6] ENOSPC of fdatasync',
    fault: { operation: 'sync', file: FIRST, error: 'ENOSPC' },
    state: 'space',
    counted: ['fsync', 'space'],
    segments: 2,
  },
  {
    name: '[fault 6] EDQUOT of fdatasync',
    fault: { operation: 'sync', file: FIRST, error: 'EDQUOT' },
    state: 'space',
    counted: ['fsync', 'space'],
    segments: 2,
  },
  {
    name: '[fault 7] EIO of the sync of the folder, behind a new segment',
    fault: { operation: 'sync', file: 'a.db-log', error: 'EIO', times: 1 },
    full: true,
    state: 'degraded',
    counted: ['create', 'reopen'],
    segments: 2,
  },
  {
    name: '[fault 8] EMFILE at the making of a segment',
    fault: { operation: 'open', file: SECOND, error: 'EMFILE', times: 1 },
    full: true,
    state: 'degraded',
    counted: ['create', 'transient'],
    segments: 2,
  },
];

test.for(ONCE.map((one) => [one.name, one] as const))(
  '%s: not acknowledged, written again, and none is lost',
  async ([, one], context) => {
    const given = await broken(context);
    const { db, shim } = given;
    const expected: Record<string, unknown> = { before: 1, during: 2, after: 2 };
    if (one.full) await db.run(`await db.aset('filler', '${'x'.repeat(5_000)}')`);
    if (one.full) expected['filler'] = 'x'.repeat(5_000);
    shim.arm(one.fault);
    expect(await answerTo(db, 'during')).toBe('SLUICE_LOG_IO');
    expect(await db.run('return db.get("during")')).toBe(2);
    await eventually(async () => (await db.stats()).state === 'ok', 'the log goes on');
    expect(await answerTo(db, 'after')).toBe('acknowledged');
    expect((await db.seen()).states).toEqual([one.state, 'ok']);
    const [hits] = shim.hits();
    // A segment whose fdatasync has failed is never synced again, though its disk would go on failing.
    expect(hits).toBe(one.fault.times ?? 1);
    const { logErrors, logSegments, pending } = await db.stats();
    expect(logErrors).toMatchObject({ [one.counted[0]]: { [one.counted[1]]: hits } });
    expect({ logSegments, pending }).toEqual({ logSegments: one.segments, pending: Object.keys(expected).length });
    expect(await afterKill(given)).toEqual(expected);
  },
);

test.for([
  ['[fault 3] EIO of every write', { operation: 'write', file: '.log', error: 'EIO' }],
  ['[fault 5] EIO of every fdatasync', { operation: 'sync', file: '.log', error: 'EIO' }],
] as [string, Fault][])(
  '%s: failed at the second, everybody is told once, what was acknowledged is there',
  async ([, fault], context) => {
    const given = await broken(context);
    const { db, shim } = given;
    shim.arm(fault);
    const answers = await db.run<string[]>(`
      const outcome = (promise) => promise.then(() => 'acknowledged', ({ code }) => code);
      return Promise.all([db.aset('a', 1), db.aset('b', 1), db.adurable(), db.aflush()].map(outcome));`);
    expect(answers).toEqual(['SLUICE_LOG_IO', 'SLUICE_LOG_IO', 'SLUICE_LOG_IO', 'SLUICE_FAILED']);
    expect((await db.seen()).states).toEqual(['degraded', 'failed']);
    expect(shim.hits()[0]).toBe(2);
    expect(await answerTo(db, 'late')).toBe('SLUICE_FAILED');
    expect(await db.run("return [db.get('before'), db.get('a')]")).toEqual([1, 1]);
    // It is not known whether the others would be there.
    expect(await afterKill(given)).toMatchObject({ before: 1 });
  },
);

test('[fault 1] a file that may not grow takes a part of a frame: it is cut off, and goes in whole when there is room', async (context) => {
  if (spawnSync('prlimit', ['--version']).status !== 0) context.skip('there is no prlimit here');
  const file = join(tempDir(), 'a.db');
  // 512 blocks of 512 bytes: room for SQLite's files, but not for the value.
  const db = await RemoteDatabase.open(file, MANUAL, { limits: 'ulimit -S -f 512' });
  await db.run("await db.aset('before', 1)");
  const { logBytes } = await db.stats();
  const refused =
    "db.aset('during', 'x'.repeat(300_000)).then(() => 'acknowledged', ({ code, cause }) => [code, cause.cause.code])";
  expect(await db.run(`return ${refused}`)).toEqual(['SLUICE_LOG_IO', 'EFBIG']);
  expect(await db.stats()).toMatchObject({ state: 'space', logBytes, logSegments: 1 });
  // Tried again and again, and cut off each time.
  await eventually(() => statSync(`${file}-log/0000000001.log`).size === logBytes, 'the part is cut off');
  execFileSync('prlimit', [`--fsize=${1 << 30}:`, '--pid', String(db.child.process.pid)]);
  expect(await answerTo(db, 'after')).toBe('acknowledged');
  expect((await db.seen()).states).toEqual(['space', 'ok']);
  expect(await afterKill({ db, file })).toEqual({ before: 1, during: 'x'.repeat(300_000), after: 2 });
});

test('[fault 8] a process that is out of descriptors makes no segment: waited for, and nothing is lost', async () => {
  const file = join(tempDir(), 'a.db');
  const db = await RemoteDatabase.open(file, MANUAL, { limits: 'ulimit -n 64' });
  await db.run(`
    await db.aset('before', 1);
    await db.aset('filler', 'x'.repeat(5_000));
    kept.fs = await import('node:fs');
    kept.open = [];
    try { for (;;) kept.open.push(kept.fs.openSync('/dev/null')); } catch (error) { if (error.code !== 'EMFILE') throw error; }`);
  expect(await answerTo(db, 'during')).toBe('SLUICE_LOG_IO');
  await eventually(async () => (await db.stats()).logErrors.create.transient > 1, 'several attempts');
  expect((await db.stats()).state).toBe('degraded');
  await db.run('for (const one of kept.open) kept.fs.closeSync(one)');
  await eventually(async () => (await db.stats()).state === 'ok', 'the log goes on');
  expect(await answerTo(db, 'after')).toBe('acknowledged');
  expect((await db.seen()).states).toEqual(['degraded', 'ok']);
  const found = await afterKill({ db, file });
  expect(found).toMatchObject({ before: 1, during: 2, after: 2 });
});

test.for(['EROFS', 'EACCES'] as const)(
  '[fault 9] %s at open: an error that names the folder, an exit code, and nothing is made',
  async (error, context) => {
    if (NO_PRELOAD !== undefined) context.skip(NO_PRELOAD);
    const shim = new FaultShim();
    const folder = join(tempDir(), 'folder');
    mkdirSync(folder);
    shim.arm({ operation: 'mkdir', file: 'a.db-log', error });
    const child = new Child(`await open(process.argv[2])`, [join(folder, 'a.db')], { env: shim.env });
    const { code, errors } = await child.end();
    expect(code).toBe(1);
    expect(errors).toMatch(new RegExp(`SLUICE_LOG_IO[^]*log folder .*a\\.db-log cannot be made: .*${error}`));
    const cli = spawnSync(
      process.execPath,
      [join(import.meta.dirname, '../../dist/cli/main.js'), 'serve', join(folder, 'a.db'), '--port', '0'],
      { env: { ...process.env, ...shim.env }, encoding: 'utf8', timeout: 20_000 },
    );
    expect({ status: cli.status, stderr: cli.stderr }).toEqual({ status: 1, stderr: expect.stringContaining(error) });
    expect(shim.hits()[0]).toBe(2);
    expect(readdirSync(folder)).toEqual([]);
  },
);

test('[fault 10] an fdatasync that takes long: the event loop goes on, writers are held back, and the time is told', async (context) => {
  const slowMs = 800;
  const { db, shim } = await broken(context, { ...MANUAL, flush: { mode: 'auto' }, staging: { maxEntries: 20 } });
  await db.run(`
    const { monitorEventLoopDelay } = await import('node:perf_hooks');
    kept.loop = monitorEventLoopDelay({ resolution: 10 });
    kept.commits = [];
    db.on('commit', ({ syncMs }) => kept.commits.push(syncMs));
    await db.aflush();
    kept.loop.enable();`);
  shim.arm({ operation: 'sync', file: '.log', error: { slowMs } });
  const seen = await db.run<Record<string, number | string | boolean>>(`
    let turns = 0;
    const timer = setInterval(() => turns++, 10);
    const first = db.aset('first', 1);
    await new Promise((resolve) => setTimeout(resolve, 100));
    // They wait for the next sync, and the flush waits for it too: staging fills.
    let plenty = true;
    for (let i = 0; i < 19; i++) plenty = db.set('k' + i, i);
    const full = await Promise.resolve().then(() => db.set('more', 1)).catch(({ code }) => code);
    const waits = db.aset('waits', 1);
    const { waiting, unsyncedAgeMs } = db.stats();
    kept.reads = db.get('k7');
    await first;
    await waits;
    clearInterval(timer);
    kept.loop.disable();
    return { plenty, full, waiting, unsyncedAgeMs, turns, slowest: Math.max(...kept.commits), loopMs: kept.loop.max / 1e6, read: kept.reads };`);
  shim.arm();
  expect(seen).toMatchObject({ plenty: false, full: 'SLUICE_FULL', waiting: 1, read: 7 });
  expect(seen['unsyncedAgeMs']).toBeGreaterThan(50);
  expect(seen['slowest']).toBeGreaterThanOrEqual(slowMs - 10);
  // The loop had turns all the while, none as long as a sync.
  expect(seen['turns']).toBeGreaterThan(20);
  expect(seen['loopMs']).toBeLessThan(slowMs / 2);
  expect((await db.stats()).state).toBe('ok');
  expect(await db.close()).toEqual({ pending: 0 });
});

test('[fault 14] of 50 producers, each is acknowledged behind the fdatasync of its own write, and few syncs serve them', async () => {
  const disk = new FaultFileSystem();
  const file = join(tempDir(), 'a.db');
  const db = await openOn(machine({ fileSystem: disk }), file, { flush: { mode: 'manual' } });
  const segment = join(`${file}-log`, '0000000001.log');
  // What a power cut would leave: no more than there was when the last sync that is over began.
  let synced = 0;
  let asked = 0;
  const ended = () => disk.count('datasync');
  let seenEnds = 0;
  disk.before = (operation, name) => {
    if (operation !== 'datasync' || name !== '0000000001.log') return;
    asked = statSync(segment).size;
  };
  const look = () => {
    if (ended() === seenEnds) return;
    seenEnds = ended();
    synced = asked;
  };
  let acknowledged = 0;
  await Promise.all(
    Array.from({ length: 50 }, async (_, producer) => {
      for (let i = 0; i < 10; i++) {
        const key = `<${producer}/${i}>`;
        await db.aset(key, i);
        look();
        acknowledged++;
        expect(readFileSync(segment).subarray(0, synced).includes(key), key).toBe(true);
      }
    }),
  );
  expect(acknowledged).toBe(500);
  expect(ended()).toBeGreaterThan(1);
  expect(ended()).toBeLessThan(acknowledged / 10);
  await db.close();
});

test('[fault 14] as the kernel counts them: few calls of fdatasync for the acknowledgements of 50 producers', async (context) => {
  const { db, shim } = await broken(context, { flush: { mode: 'manual' } });
  shim.arm({ operation: 'sync', file: '.log', error: { slowMs: 1 } });
  const acknowledged = await db.run<number>(`
    let acknowledged = 0;
    await Promise.all(Array.from({ length: 50 }, async (_, producer) => {
      for (let i = 0; i < 20; i++) { await db.aset(producer + '/' + i, i); acknowledged++; }
    }));
    return acknowledged;`);
  const [syncs] = shim.hits();
  expect(acknowledged).toBe(1_000);
  expect(syncs).toBeGreaterThan(1);
  expect(syncs).toBeLessThan(100);
  expect((await db.stats()).syncs).toBeGreaterThanOrEqual(Number(syncs));
});

test('[fault 11] a write that is too large is refused in the call, whatever its kind, and costs nobody else anything', async () => {
  const db = await open(join(tempDir(), 'a.db'), { flush: { mode: 'manual' }, staging: { maxBytes: 100_000 } });
  const rows = db.rows('r', { columns: { text: 'text' } });
  const large = 'x'.repeat(110_000);
  const others = [db.aset('a', 1), rows.aappend({ text: 'b' })];
  const { accepted, stagedBytes } = db.stats();
  const calls = [
    () => db.set('large', large),
    () => db.setMany({ small: 1, large }),
    () => rows.append({ text: large }),
    () => db.stage('INSERT INTO r VALUES (?)', [large]),
  ];
  for (const call of calls) expect(() => call()).toThrow(expect.objectContaining({ code: 'SLUICE_INVALID_VALUE' }));
  expect(await codeFrom(() => db.aset('large', large))).toBe('SLUICE_INVALID_VALUE');
  expect(db.stats()).toMatchObject({ accepted, stagedBytes, refusedBy: { too_large: 5 } });
  expect(db.has('large')).toBe(false);
  await Promise.all(others);
  await db.aset('after', 2);
  await db.aflush();
  expect([...db.entries()]).toEqual([
    ['a', 1],
    ['after', 2],
  ]);
  await db.close();
});
