import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { open } from 'sluicedb';
import { expect, onTestFinished, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { tempDir } from '../support/temp-dir.ts';

const ENTRY = new URL('../../dist/index.js', import.meta.url).href;

/** What the child under the limit does: a batch that does not fit, and then a report of how it went. */
const PROGRAM = `
  import { open } from ${JSON.stringify(ENTRY)};
  const db = await open(process.argv[2], { flush: { mode: 'manual' }, log: { segmentBytes: 65536 } });
  const failures = new Set();
  db.on('failure', () => {});
  db.on('retry', ({ failure, error }) => failures.add(failure + ' ' + error.sqliteCode));
  db.on('state', ({ state }) => console.log('state ' + state));
  await db.aset('before', 1);
  await db.aflush();
  for (let i = 0; i < 60; i++) await db.aset('k' + i, String(i % 10).repeat(50_000));
  const flushed = db.aflush();
  await flushed;
  const { applied, pending, deadLettered, flushRetries } = db.stats();
  const dead = (await db.agetDlq()).length;
  console.log('report ' + JSON.stringify({ applied, pending, deadLettered, dead, retried: flushRetries > 0, failures: [...failures] }));
  await db.close();
  console.log('closed');`;

interface Limited {
  readonly pid: number;
  readonly output: () => string;
  readonly ended: Promise<number | null>;
}

function start(command: string, args: readonly string[]): Limited {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const hear = (text: Buffer) => {
    output += text.toString();
  };
  child.stdout.on('data', hear);
  child.stderr.on('data', hear);
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  return { pid: child.pid as number, output: () => output, ended };
}

async function expectResumed(child: Limited, code: string): Promise<void> {
  await eventually(() => child.output().includes('closed'), 'it has gone on by itself', 30_000).catch((error) => {
    throw new Error(child.output(), { cause: error });
  });
  expect(await child.ended).toBe(0);
  const report = /report (.*)/.exec(child.output())?.[1] ?? '{}';
  expect(JSON.parse(report)).toEqual({
    applied: 61,
    pending: 0,
    deadLettered: 0,
    dead: 0,
    retried: true,
    failures: [code],
  });
  expect(child.output().match(/state \w+/g)).toEqual(['state space', 'state ok', 'state closing', 'state closed']);
}

async function expectKept(file: string): Promise<void> {
  const db = await open(file);
  expect(db.size).toBe(61);
  expect(db.get('k59')).toBe('9'.repeat(50_000));
  await db.close();
}

const has = (tool: string, ...args: string[]) => spawnSync(tool, args, { stdio: 'ignore' }).status === 0;

test('[fault 35] no file may grow beyond a size (ulimit -f): state space, and on by itself when the limit is raised', async () => {
  if (!has('prlimit', '--version')) {
    console.log('not run: there is no prlimit here to raise the limit of another process with');
    return;
  }
  const folder = tempDir();
  const program = join(folder, 'program.mjs');
  const file = join(folder, 'a.db');
  writeFileSync(program, PROGRAM);
  const child = start('bash', ['-c', 'ulimit -S -f 1024 && exec "$@"', 'bash', process.execPath, program, file]);
  await eventually(() => child.output().includes('state space'), 'the disk is full', 20_000).catch((error) => {
    throw new Error(child.output(), { cause: error });
  });
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(child.output()).not.toContain('report');
  execFileSync('prlimit', [`--fsize=${1 << 30}:`, '--pid', String(child.pid)]);
  await expectResumed(child, 'space SQLITE_IOERR_WRITE');
  await expectKept(file);
});

test('[fault 35] a small file system is full: state space, and on by itself when somebody makes room', async () => {
  const folder = tempDir();
  if (!has('unshare', '-Urm', 'mount', '-t', 'tmpfs', 'tmpfs', folder)) {
    console.log('not run: a file system of a limited size needs user namespaces, which this machine does not allow');
    return;
  }
  const program = join(folder, 'program.mjs');
  writeFileSync(program, PROGRAM);
  // The log has a disk of its own here: on the same one, it would be full before SQLite is.
  const script = `
    mkdir small && mount -t tmpfs -o size=2m tmpfs small && mkdir log small/a.db-log && mount --bind log small/a.db-log &&
    { (while [ ! -e room ]; do sleep 0.05; done; mount -o remount,size=64m small) & } &&
    "$0" program.mjs small/a.db && cp small/a.db saved.db && cp -r log saved.db-log`;
  const child = start('unshare', ['-Urm', 'bash', '-c', `cd '${folder}' && ${script}`, process.execPath]);
  await eventually(() => child.output().includes('state space'), 'the disk is full', 20_000).catch((error) => {
    throw new Error(child.output(), { cause: error });
  });
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(child.output()).not.toContain('report');
  writeFileSync(join(folder, 'room'), '');
  await expectResumed(child, 'space SQLITE_FULL');
  await expectKept(join(folder, 'saved.db'));
});
