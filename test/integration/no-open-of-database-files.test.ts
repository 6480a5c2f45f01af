import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import { tempDir } from '../support/temp-dir.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const dist = (path: string) => pathToFileURL(join(root, 'dist', path)).href;

/** Every function of node:fs says what it was called with, in whatever thread this is imported first. */
const SPY = `
  import * as fs from 'node:fs';
  import { syncBuiltinESMExports } from 'node:module';
  const say = fs.writeSync.bind(fs);
  for (const [where, functions] of [['fs', fs.default], ['fs.promises', fs.default.promises]]) {
    for (const [name, original] of Object.entries(functions)) {
      if (typeof original !== 'function' || /^[A-Z]|^_/.test(name)) continue;
      functions[name] = function (...given) {
        const paths = given.slice(0, 2).filter((one) => typeof one === 'string');
        if (paths.length > 0) say(3, JSON.stringify({ where, name, paths }) + '\\n');
        return original.apply(this, given);
      };
      Object.assign(functions[name], original);
    }
  }
  syncBuiltinESMExports();`;

/** Opens, writes in every way, recovers, reads, scans, is refused at the lock, retries dead letters, closes. */
const WORKLOAD = (spy: string) => `
  import ${JSON.stringify(spy)};
  import { Worker } from 'node:worker_threads';
  const { openOn } = await import(${JSON.stringify(dist('db/open.js'))});
  const { systemClock } = await import(${JSON.stringify(dist('base/clock.js'))});
  const { systemRandom } = await import(${JSON.stringify(dist('base/random.js'))});
  const { nodeFileSystem } = await import(${JSON.stringify(dist('base/node-file-system.js'))});
  let threads = 0;
  let writer;
  const spawn = (entry, port) => {
    threads++;
    const worker = new Worker(
      new URL('data:text/javascript,' + encodeURIComponent(
        'import ' + JSON.stringify(${JSON.stringify(spy)}) + '; await import(' + JSON.stringify(entry.href) + ');')),
      { workerData: port, transferList: [port], execArgv: [] });
    if (entry.href.includes('writer')) writer = worker;
    return worker;
  };
  const machine = { clock: systemClock, random: systemRandom, fileSystem: nodeFileSystem, spawn };
  const file = process.argv[2];
  for (const round of [0, 1, 2]) {
    const db = await openOn(machine, file, { flush: { mode: 'manual' }, closeTimeoutMs: round === 0 ? 0 : 10_000 });
    db.on('failure', () => {});
    db.on('dead-letter', () => {});
    if (round === 0) await db.aexecute('CREATE TABLE r (n INTEGER CHECK (n > 0))');
    for (let i = 0; i < 50; i++) await db.aset('k' + i, i);
    db.rows('r').append({ n: -1 });
    await openOn(machine, file, {}).catch((error) => console.log(error.code));
    if (round > 0) {
      await db.aflush();
      await writer.terminate();
      db.set('after', round);
      await db.aflush();
      await db.aget('k1');
      db.get('k1');
      for await (const _ of db.ascan()) break;
      await db.afetchAll('SELECT * FROM r');
      await db.agetDlq();
      await db.aretryDlq();
      await db.aclearDlq();
      // Past the next look at the files.
      await new Promise((resolve) => setTimeout(resolve, 2_300));
    }
    await db.close();
  }
  console.log('threads', threads);`;

interface Call {
  readonly where: string;
  readonly name: string;
  readonly paths: readonly string[];
}

test('[fault 53] no file that SQLite has open is ever opened with fs: to close it would free the locks of the process', () => {
  const folder = tempDir();
  const file = join(folder, 'a.db');
  const spy = join(folder, 'spy.mjs');
  const program = join(folder, 'program.mjs');
  const calls = join(folder, 'calls.ndjson');
  writeFileSync(spy, SPY);
  writeFileSync(program, WORKLOAD(pathToFileURL(spy).href));
  const shell = `exec "$0" "$1" "$2" 3>>"$3"`;
  const run = spawnSync('bash', ['-c', shell, process.execPath, program, file, calls], {
    encoding: 'utf8',
    timeout: 50_000,
  });
  expect(run.stderr).toBe('');
  expect(run.stdout.match(/SLUICE_LOCKED/g)).toHaveLength(3);
  expect(Number(/threads (\d+)/.exec(run.stdout)?.[1])).toBeGreaterThan(5);
  const made = readFileSync(calls, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Call);
  // The spy sees what there is to see: the log, and the looks of the writer thread.
  expect(made.filter(({ name, paths }) => name === 'open' && paths[0]?.endsWith('.log')).length).toBeGreaterThan(0);
  expect(made.filter(({ name, paths }) => name === 'statSync' && paths[0] === `${file}-wal`).length).toBeGreaterThan(
    20,
  );
  const sqlites = new Set([
    file,
    ...['-wal', '-shm', '-journal', '-log/lock.db', '-log/lock.db-journal'].map((end) => file + end),
  ]);
  const touching = made.filter(({ paths }) => paths.some((path) => sqlites.has(path)));
  // Names and inodes only: none of these has a descriptor to close.
  expect(new Set(touching.map(({ where, name }) => `${where}.${name}`))).toEqual(
    new Set(['fs.statSync', 'fs.promises.realpath', 'fs.promises.readlink']),
  );
});

/** Who may touch files at all, and with what. A new line here has to be asked the question of the test above. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  'base/node-file-system.ts': ['node:fs', 'node:fs/promises'],
  // Reads what is imported, which is no database.
  'cli/dlq-command.ts': ['node:fs'],
  // Whether the file is there.
  'cli/main.ts': ['node:fs'],
  'cli/records.ts': ['node:fs', 'node:fs/promises'],
  // Sizes, for the progress.
  'cli/verify-command.ts': ['node:fs/promises'],
  // Looks at names: where a backup may go.
  'db/backup.ts': ['node:fs', 'node:fs/promises'],
  'db/inspect.ts': ['node:fs', 'node:fs/promises'],
  'db/open.ts': ['node:fs', 'node:fs/promises'],
  'db/real-file.ts': ['node:fs/promises'],
  // Whether the file is there.
  'db/restore.ts': ['node:fs'],
  // Reads what nobody has open, and writes copies, in a process of its own.
  'store/sqlite/copy/copier.ts': ['node:fs'],
  // Renames, and deletes names, of files that nobody has open any more.
  'store/sqlite/copy/replacing.ts': ['node:fs'],
  // Reads a private copy where the folder cannot be written to, in a process of its own.
  'store/sqlite/examine/examiner.ts': ['node:fs'],
  'store/sqlite/file-identity.ts': ['node:fs'],
  'store/sqlite/lock.ts': ['node:fs'],
  // Writes a scratch file beside the database.
  'store/sqlite/writer/space-probe.ts': ['node:fs'],
};

test('[fault 53] few files import node:fs, and the one that knows the files of an open database imports stat alone', () => {
  const src = join(root, 'src');
  const found: Record<string, string[]> = {};
  for (const name of readdirSync(src, { recursive: true, encoding: 'utf8' }).sort()) {
    if (!name.endsWith('.ts')) continue;
    const text = readFileSync(join(src, name), 'utf8');
    const modules = [
      ...text.matchAll(
        /^(?:import|export) .*from '((?:node:)?fs(?:\/promises)?)'|(?:import|require)\('((?:node:)?fs[^']*)'\)/gm,
      ),
    ];
    if (modules.length > 0) found[name] = modules.map(([, one, other]) => (one ?? other) as string);
  }
  expect(found).toEqual(ALLOWED);
  expect(readFileSync(join(src, 'store/sqlite/file-identity.ts'), 'utf8')).toContain(
    "import { type BigIntStats, statSync } from 'node:fs';",
  );
});
