import { cpSync, existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { open, verify } from 'sluicedb';
import { expect, test } from 'vitest';
import { Child, type Ended } from '../support/child.ts';
import { tempDir } from '../support/temp-dir.ts';

const dist = (name: string) => JSON.stringify(new URL(`../../dist/${name}`, import.meta.url).href);

/**
 * Kills its process at the k-th step of a restore: ahead of each call that changes a name, a mode or a folder, and at each
 * word of how far the copy is. Everything that a restore does to the disk in this process goes through one of these.
 */
const KILLER = `
  import fs from 'node:fs';
  import { syncBuiltinESMExports } from 'node:module';
  const { nodeFileSystem } = await import(${dist('base/node-file-system.js')});
  const { openOn } = await import(${dist('db/open.js')});
  const { systemClock } = await import(${dist('base/clock.js')});
  const { systemRandom } = await import(${dist('base/random.js')});
  const [, , file, backup, at] = process.argv;
  let step = 0;
  let armed = false;
  const pass = (name) => {
    if (!armed || ++step < Number(at)) return;
    fs.writeSync(1, 'killed at ' + name + '\\n');
    process.kill(process.pid, 'SIGKILL');
    for (;;);
  };
  for (const name of ['renameSync', 'chmodSync', 'rmSync']) {
    const original = fs[name];
    fs[name] = (...given) => {
      const what = name + ' ' + String(given[0]).split('/').at(-1);
      // Of the copy there is one file.
      if (!/-restoring-/.test(what)) pass(what);
      const result = original(...given);
      if (name === 'renameSync') pass('after ' + what);
      return result;
    };
  }
  syncBuiltinESMExports();
  const fileSystem = { ...nodeFileSystem };
  for (const name of ['syncDirectory', 'unlink', 'create', 'rename']) {
    fileSystem[name] = async (...given) => {
      pass(name);
      return nodeFileSystem[name](...given);
    };
  }
  const onProgress = ({ phase, bytes }) => pass(phase + ' ' + bytes);`;

/** Some of what it has is in the file, some in the WAL, some in the log alone. */
const OPEN = `${KILLER}
  const machine = { clock: systemClock, random: systemRandom, fileSystem };
  const db = await openOn(machine, file, { flush: { mode: 'manual' } });
  for (let i = 0; i < 20; i++) await db.aset('old' + i, i);
  await db.aflush();
  for (let i = 20; i < 40; i++) await db.aset('old' + i, i);
  armed = true;
  await db.arestore(backup, { onProgress });
  await db.aset('after', 1);
  console.log('restored');
  process.kill(process.pid, 'SIGKILL');`;

const CLOSED = `${KILLER}
  const { restore } = await import(${dist('index.js')});
  armed = true;
  await restore(file, backup, { onProgress });
  console.log('restored');
  process.kill(process.pid, 'SIGKILL');`;

/** The WAL has some of the pages: all of them would make a whole database of any file that they are carried into. */
const LEFT_BEHIND = `
  const before = await open(process.argv[2]);
  for (let i = 0; i < 300; i++) before.set('base' + i, 'x'.repeat(200));
  await before.close();
  const db = await open(process.argv[2], { flush: { mode: 'manual' }, log: { segmentBytes: 65536 } });
  for (let i = 0; i < 20; i++) await db.aset('old' + i, i);
  for (let i = 0; i < 20; i++) await db.aset('pad' + i, 'y'.repeat(10_000));
  await db.aflush();
  // What is in the WAL is in no segment of the log any more.
  while (db.stats().logSegmentsDeleted === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  for (let i = 20; i < 40; i++) await db.aset('old' + i, i);
  process.kill(process.pid, 'SIGKILL');`;

const OLD = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`old${i}`, i]));
const BASE = Object.fromEntries([
  ...Array.from({ length: 300 }, (_, i) => [`base${i}`, 'x'.repeat(200)]),
  ...Array.from({ length: 20 }, (_, i) => [`pad${i}`, 'y'.repeat(10_000)]),
]);
const NEW = { restored: true, old3: 'of the backup' };

async function makeBackup(): Promise<string> {
  const db = await open(join(tempDir(), 'source.db'));
  db.setMany(NEW);
  const { path } = await db.abackup(join(tempDir(), 'backup.db'));
  await db.close();
  return path;
}

/** Kills a restore at every step, one after the other, until there is no step left. */
async function killEverywhere(program: string, prepare: (file: string) => unknown): Promise<string[]> {
  const backup = await makeBackup();
  const outcomes = { old: 0, new: 0 };
  const places: string[] = [];
  const once = async (at: number): Promise<Ended> => {
    const file = join(tempDir(), 'a.db');
    prepare(file);
    const ended = await new Child(program, [file, backup, String(at)]).end();
    expect([ended.errors, ended.signal]).toEqual(['', 'SIGKILL']);
    places[at] = /killed at (.*)/.exec(ended.output)?.[1] ?? 'the end';
    const isDone = ended.output.includes('restored\n');
    const db = await open(file);
    const { after, ...content } = db.toDict();
    // The one or the other, whole: never the log of the one over the other.
    const isOld = Object.hasOwn(content, 'old0');
    const base = program === OPEN ? {} : BASE;
    expect([places[at], content]).toEqual([places[at], isOld ? { ...base, ...OLD } : NEW]);
    if (isDone) expect([isOld, after]).toEqual([false, program === OPEN ? 1 : undefined]);
    outcomes[isOld ? 'old' : 'new']++;
    // It can be written to, and opened again.
    await db.aset('again', 1);
    await db.close();
    expect(await verify(file)).toMatchObject({ findings: [] });
    return ended;
  };
  for (let at = 1; places.at(-1) !== 'the end'; at += 3) {
    expect(at).toBeLessThan(60);
    await Promise.all([once(at), once(at + 1), once(at + 2)]);
  }
  expect(outcomes.old).toBeGreaterThan(5);
  expect(outcomes.new).toBeGreaterThan(3);
  return places;
}

const STEPS = ['copy', 'check', 'chmodSync a.db-restoring', 'rmSync a.db-wal', 'renameSync', 'after renameSync'];

test('killed at any step, a restore under an open database leaves the one or the other, and no log over it', async () => {
  const places = await killEverywhere(OPEN, () => undefined);
  for (const step of STEPS) expect(places.some((place) => place?.startsWith(step))).toBe(true);
}, 120_000);

test('killed at any step, so does a restore of a database that was killed itself', async () => {
  const left = tempDir();
  await new Child(LEFT_BEHIND, [join(left, 'a.db')]).end();
  const places = await killEverywhere(CLOSED, (file) => cpSync(left, dirname(file), { recursive: true }));
  for (const step of STEPS) expect(places.some((place) => place?.startsWith(step))).toBe(true);
}, 120_000);

test('a backup that is killed leaves the database as it was, and no file under the name of the backup', async () => {
  const file = join(tempDir(), 'a.db');
  const copy = join(tempDir(), 'backup.db');
  const child = new Child(
    `const db = await open(process.argv[2]);
     for (let i = 0; i < 2000; i++) db.set('k' + i, 'x'.repeat(1000));
     await db.abackup(process.argv[3], { onProgress: ({ phase }) => phase === 'check' && process.kill(process.pid, 'SIGKILL') });`,
    [file, copy],
  );
  expect((await child.end()).signal).toBe('SIGKILL');
  expect(existsSync(copy)).toBe(false);
  const db = await open(file);
  expect(db.size).toBe(2_000);
  await db.abackup(copy);
  await db.close();
  expect((await verify(copy)).ok).toBe(true);
});
