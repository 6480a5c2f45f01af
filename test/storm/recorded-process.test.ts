import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Durability } from 'sluicedb';
import { afterAll, describe, expect, it } from 'vitest';
import { NO_RECORDER, type Recording, readRecording, record } from '../support/disk-recorder.ts';
import { layInto, layOut } from '../support/laid-disk.ts';
import {
  Disk,
  type DiskImage,
  type DiskOperation,
  PROCESS_CRASH,
  SURVIVALS,
  type Survival,
} from '../support/power-loss.ts';
import { seededRandom } from '../support/seed.ts';
import { tempDir } from '../support/temp-dir.ts';
import { type Step, stepsFor } from './recorded-program.ts';
import {
  BACKUP,
  brokenPromise,
  Contents,
  DATABASE,
  type Expectation,
  type Found,
  look,
  optionsFor,
} from './recorded-state.ts';

/**
 * Power loss under the real process: Node.js, its threads and SQLite. A program is recorded at each durability level, down to every
 * write and sync (disk-recorder.c). Then the disk is built as it could stand if the power had gone at any of these operations
 * (power-loss.ts), opened, and held against what had been acknowledged by then.
 */
const LEVELS: readonly Durability[] = ['memory', 'os', 'interval', 'sync', 'applied'];
const FACTOR = Number(process.env['SLUICE_STORM'] ?? 1);
const CHILD = join(import.meta.dirname, 'recorded-child.mjs');

/** States per level that differ from each other in at least one byte. */
const STATES = Math.ceil(400 * FACTOR);
const RECOVERIES = 6;
const STATES_OF_RECOVERY = Math.ceil(60 * FACTOR);

/** One state in so many is opened with its threads. */
const WITH_THREADS = 25;

/** A power cut nobody can look behind: a compiler is part of every Linux image that CI has. */
if (NO_RECORDER !== undefined && process.env['CI'] !== undefined)
  throw new Error(`nothing can be recorded: ${NO_RECORDER}`);
if (NO_RECORDER !== undefined) console.log(`skipped: ${NO_RECORDER}`);

const KEPT = process.env['SLUICE_STORM_STATE'];

/** What a state was found in the middle of. */
type Path =
  | 'checkpoint'
  | 'commit that is not synced'
  | 'log unlink that is not synced'
  | 'rotation'
  | 'recovery'
  | 'restore'
  | 'torn log tail'
  | 'log set aside'
  | 'writes to recover'
  | 'lost names'
  | 'dead letters'
  | 'only the process is gone'
  | 'opened with threads';

interface Program {
  readonly durability: Durability;
  readonly steps: readonly Step[];
  readonly contents: Contents;
}

/** What had been said up to an operation. */
interface Said {
  readonly acked: { readonly steps: number; readonly at: number }[];
  safe: number;
  backedUp: boolean;
  /** When the process was killed, until the next one has opened the database: nobody syncs anything meanwhile. */
  diedAt: number | undefined;
}

/** Follows a recording: what is under way. */
class Situation {
  readonly #paths = new Map<number, string>();
  readonly #dirty = new Set<string>();
  #unlinked = false;
  #unnamed = false;
  #recovering = false;
  #restoring = false;
  readonly said: Said = { acked: [], safe: 0, backedUp: false, diedAt: undefined };

  apply(operation: DiskOperation, ended: number): void {
    switch (operation.kind) {
      case 'open':
        this.#paths.set(operation.inode, operation.path);
        if (isSegment(operation.path) && operation.truncate === true) this.#unnamed = true;
        return;
      case 'write':
        this.#dirty.add(this.#paths.get(operation.inode) as string);
        return;
      case 'sync':
        this.#dirty.delete(this.#paths.get(operation.inode) as string);
        return;
      case 'unlink':
        if (isSegment(operation.path)) this.#unlinked = true;
        return;
      case 'syncDirectory':
        if (operation.path.endsWith('-log')) this.#unlinked = this.#unnamed = false;
        return;
      case 'mark':
        return this.#note(String(operation.note).split(' '), ended);
      default:
    }
  }

  #note([what, value]: readonly string[], ended: number): void {
    if (what === 'opening') this.#recovering = true;
    if (what === 'opened') this.#recovering = false;
    if (what === 'die' || what === 'opened') this.said.diedAt = what === 'die' ? ended : undefined;
    if (what === 'restoring') this.#restoring = true;
    if (what === 'restored') this.#restoring = false;
    if (what === 'backed') this.said.backedUp = true;
    if (what === 'safe') this.said.safe = Math.max(this.said.safe, Number(value));
    if (what === 'acked') this.said.acked.push({ steps: Number(value), at: ended });
  }

  get paths(): Path[] {
    const paths: Path[] = [];
    if (this.#dirty.has(`/${DATABASE}`)) paths.push('checkpoint');
    if (this.#dirty.has(`/${DATABASE}-wal`)) paths.push('commit that is not synced');
    if (this.#unlinked) paths.push('log unlink that is not synced');
    if (this.#unnamed) paths.push('rotation');
    if (this.#recovering) paths.push('recovery');
    if (this.#restoring) paths.push('restore');
    return paths;
  }
}

function isSegment(path: string): boolean {
  return /\/\d{10}\.log$/.test(path);
}

/**
 * How much later than its interval a sync may have ended, by the recording's own word: the timer, its round and what is in front of it
 * each wait for the event loop and for the disk.
 */
function windowOf(recording: Recording): number {
  const late = recording.map(({ operation: { kind, ...rest } }) =>
    kind === 'mark' && 'note' in rest ? Number(/^delay (.*)/.exec(String(rest.note))?.[1] ?? 0) : 0,
  );
  const longest = Math.max(...recording.map(({ begun, ended }) => ended - begun));
  return (optionsFor('interval').syncIntervalMs as number) + 2 * Math.max(...late) + 4 * longest;
}

/** How many steps cannot be missing when the power goes at a moment. */
function floorOf(
  durability: Durability,
  { acked, safe, diedAt }: Said,
  survival: Survival,
  now: number,
  window: number,
): number {
  const all = Math.max(safe, ...acked.map(({ steps }) => steps));
  if (durability === 'sync' || durability === 'applied') return all;
  if (survival === PROCESS_CRASH && durability !== 'memory') return all;
  if (durability !== 'interval') return safe;
  const due = (diedAt ?? now) - window;
  return Math.max(safe, ...acked.filter(({ at }) => at < due).map(({ steps }) => steps));
}

class Storm {
  readonly #program: Program;
  readonly #found = new Map<string, Found>();
  readonly #random: () => number;
  readonly tally: Record<string, number> = {};
  evaluated = 0;
  /** States for which something was promised only by the clock. */
  byInterval = 0;
  #label = '';

  constructor(program: Program, random: () => number) {
    this.#program = program;
    this.#random = random;
  }

  get distinct(): number {
    return this.#found.size;
  }

  /** A power cut at each operation, again and again with other survivals, until there were so many states. */
  async rage(recording: Recording, states: number, label: string, base?: Base): Promise<Recovery[]> {
    const { durability, steps } = this.#program;
    const worthARecovery: Recovery[] = [];
    const window = windowOf(recording);
    this.#label = label;
    for (
      const target = this.distinct + states, rounds = { left: 20 };
      rounds.left > 0 && this.distinct < target;
      rounds.left--
    ) {
      const disk = Disk.from(base?.image);
      const situation = new Situation();
      for (const [at, { operation, begun, ended }] of recording.entries()) {
        if (operation.kind !== 'mark') {
          const survival = this.#random() < 0.05 ? PROCESS_CRASH : pick(SURVIVALS, this.#random);
          const { said, paths } = situation;
          const floor = base?.floor ?? floorOf(durability, said, survival, begun, window);
          if (base === undefined && durability === 'interval' && survival !== PROCESS_CRASH && floor > said.safe)
            this.byInterval++;
          const image = disk.image(survival, this.#random);
          if (hasLostNames(disk, image)) paths.push('lost names');
          if (survival === PROCESS_CRASH) paths.push('only the process is gone');
          const expectation = { durability, steps, floor, backedUp: base?.backedUp ?? said.backedUp, ...base?.found };
          const where = `at operation ${at} of ${recording.length} (${nameOf(operation)}), ${typeof survival.data === 'number' ? `blocks of ${survival.data}` : survival.data} of the data and ${survival.names} of the names`;
          const found = await this.#check(image, expectation, paths, where, recording);
          if (found !== undefined && isWorthARecovery(found))
            worthARecovery.push({ image, floor, found, backedUp: expectation.backedUp });
        }
        disk.apply(operation);
        situation.apply(operation, ended);
      }
    }
    return worthARecovery;
  }

  /** What was found for the first time; a state that was there before need not be opened again, but may have to hold more. */
  async #check(
    image: DiskImage,
    expectation: Expectation,
    paths: readonly Path[],
    where: string,
    recording: Recording,
  ): Promise<Found | undefined> {
    this.evaluated++;
    const hash = hashOf(image);
    const known = this.#found.get(hash);
    const threads = known === undefined && this.distinct % WITH_THREADS === 0;
    try {
      const found = known ?? (await lookAt(image, this.#program, threads));
      const broken = brokenPromise(expectation, found);
      if (broken !== undefined) throw new Error(broken);
      if (known !== undefined) return undefined;
      this.#found.set(hash, found);
      const more: Path[] = [];
      if (found.recovery.tornBytes > 0) more.push('torn log tail');
      if (found.recovery.setAside > 0) more.push('log set aside');
      if (found.recovered > 0) more.push('writes to recover');
      if (found.deadLetters > 0) more.push('dead letters');
      if (threads) more.push('opened with threads');
      for (const path of [...paths, ...more]) this.tally[path] = (this.tally[path] ?? 0) + 1;
      return found;
    } catch (error) {
      const kept = keep(image, expectation, recording);
      throw new Error(
        `${(error as Error).message}\n${this.#label}, ${where}\nseed ${process.env['SLUICE_SEED']}; to look at this state again: ` +
          `SLUICE_STORM_STATE=${kept} npx vitest run test/storm/recorded-process.test.ts`,
        { cause: error },
      );
    }
  }
}

interface Recovery {
  readonly image: DiskImage;
  readonly floor: number;
  readonly backedUp: boolean;
  readonly found: Found;
}

/** Where a recording of a recovery begins. */
interface Base {
  readonly image: DiskImage;
  readonly floor: number;
  readonly backedUp: boolean;
  readonly found: { readonly exactly: string };
}

function isWorthARecovery({ recovery, recovered }: Found): boolean {
  return recovered > 0 || recovery.tornBytes > 0 || recovery.setAside > 0;
}

async function lookAt(image: DiskImage, { durability, contents }: Program, threads: boolean): Promise<Found> {
  const folder = layOut(image);
  try {
    return await look(folder, durability, contents, threads);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function pick<T>(from: readonly T[], random: () => number): T {
  return from[Math.floor(random() * from.length)] as T;
}

function hashOf({ files, directories }: DiskImage): string {
  const hash = createHash('sha1');
  for (const directory of [...directories].sort()) hash.update(`${directory}/\n`);
  // Who had the lock is for a message only.
  const named = [...files].filter(([path]) => !path.endsWith('/owner.json')).sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [path, bytes] of named) hash.update(`${path} ${bytes.length}\n`).update(bytes);
  return hash.digest('hex');
}

function hasLostNames(disk: Disk, { files }: DiskImage): boolean {
  const names = ['/', `/${DATABASE}-log`].flatMap((folder) =>
    disk.has(folder) || folder === '/' ? disk.list(folder).map((name) => join(folder, name)) : [],
  );
  return (
    names.some((name) => !files.has(name) && disk.read(name) !== undefined) ||
    [...files.keys()].some((name) => !names.includes(name))
  );
}

function nameOf(operation: DiskOperation): string {
  const { kind } = operation;
  if ('path' in operation) return `${kind} ${operation.path}`;
  return 'from' in operation ? `${kind} ${operation.from}` : kind;
}

/** Keeps what a promise was broken by, to be looked at. */
function keep(image: DiskImage, expectation: Expectation, recording: Recording): string {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-storm-kept-'));
  mkdirSync(join(folder, 'disk'));
  layInto(join(folder, 'disk'), image);
  writeFileSync(join(folder, 'expected.json'), JSON.stringify(expectation));
  const lines = recording.map(({ operation, begun, ended }, at) => {
    const { bytes, ...rest } = { bytes: undefined, ...operation };
    return JSON.stringify({ at, begun, ended, ...rest, length: (bytes as Uint8Array | undefined)?.length });
  });
  writeFileSync(join(folder, 'operations.ndjson'), lines.join('\n'));
  return folder;
}

/** Records a program to its end, life after life. */
async function recordProgram(durability: Durability, steps: readonly Step[]): Promise<Recording> {
  const work = tempDir();
  const disk = join(work, 'disk');
  const program = join(work, 'program.json');
  const file = join(work, 'recording');
  mkdirSync(disk);
  const options = optionsFor(durability);
  writeFileSync(program, JSON.stringify({ file: join(disk, DATABASE), backup: join(disk, BACKUP), options, steps }));
  for (let from = 0; ; ) {
    const { code, signal, output } = await record(file, disk, CHILD, [program, String(from)]);
    expect(output).toBe('');
    if (signal === null) {
      expect(code).toBe(0);
      break;
    }
    from = steps.findIndex((step, i) => i >= from && step.do === 'die') + 1;
    expect([signal, from]).toEqual(['SIGKILL', expect.any(Number)]);
    expect(from).toBeGreaterThan(0);
  }
  const recording = readRecording(file, disk);
  expectComplete(recording, disk);
  return recording;
}

/** All that is on the disk has come there by what was recorded. */
function expectComplete(recording: Recording, folder: string, base?: DiskImage): void {
  const disk = Disk.from(base);
  for (const { operation } of recording) disk.apply(operation);
  const { files } = disk.image(PROCESS_CRASH, Math.random);
  const there = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => statSync(join(folder, name)).isFile() && !name.endsWith('-shm'))
    .map((name) => `/${name}`);
  expect([...files.keys()].sort()).toEqual(there.sort());
  for (const [path, bytes] of files) expect(readFileSync(join(folder, path)).equals(bytes), path).toBe(true);
}

/** Records how the engine recovers from a state. */
async function recordRecovery({ durability, steps }: Program, image: DiskImage): Promise<Recording> {
  const work = tempDir();
  const disk = join(work, 'disk');
  const program = join(work, 'program.json');
  const file = join(work, 'recording');
  mkdirSync(disk);
  layInto(disk, image);
  writeFileSync(program, JSON.stringify({ options: optionsFor(durability), steps }));
  const { code, output } = await record(file, disk, CHILD, [program, 'open', join(disk, DATABASE)]);
  expect([code, output]).toEqual([0, '']);
  const recording = readRecording(file, disk);
  expectComplete(recording, disk, image);
  return recording;
}

/** Of the states that a recovery has something to do in, some of each kind. */
function chosen(from: readonly Recovery[], random: () => number): Recovery[] {
  const kinds = [
    from.filter(({ found }) => found.recovery.setAside > 0),
    from.filter(({ found }) => found.recovery.tornBytes > 0),
    from.filter(({ found }) => found.recovered > 0),
  ].filter((kind) => kind.length > 0);
  return kinds.length === 0
    ? []
    : Array.from({ length: RECOVERIES }, (_, i) => pick(kinds[i % kinds.length] as Recovery[], random));
}

const totals = { states: 0, evaluated: 0 };
const paths: Record<string, number> = {};

afterAll(() => {
  if (totals.states > 0) console.log(`${totals.states} states of the recorded process: ${JSON.stringify(paths)}`);
});

describe.skipIf(NO_RECORDER !== undefined || KEPT !== undefined)(
  'power loss at every operation of a recorded process',
  () => {
    for (const [i, durability] of LEVELS.entries()) {
      it(`${durability}: what was acknowledged is there, in order, whole and once, and a fresh write works`, {
        timeout: 120_000 * Math.max(1, FACTOR),
      }, async () => {
        const random = seededRandom(i);
        const steps = stepsFor(durability, random);
        const program = { durability, steps, contents: new Contents(steps) };
        const begun = performance.now();
        const recording = await recordProgram(durability, steps);
        const recorded = performance.now();
        const storm = new Storm(program, random);
        const candidates = await storm.rage(recording, STATES, durability);
        const raged = performance.now();
        const own = storm.distinct;
        // The power may go again while it recovers.
        const recoveries = chosen(candidates, random);
        const before = storm.distinct;
        for (const { image, floor, backedUp, found } of recoveries) {
          const again = await recordRecovery(program, image);
          const base = { image, floor, backedUp, found: { exactly: found.content } };
          await storm.rage(again, Math.ceil(STATES_OF_RECOVERY / RECOVERIES), `${durability}, in a recovery`, base);
        }
        storm.tally['power loss in a recovery after a power loss'] = storm.distinct - before;
        const took = [recorded - begun, raged - recorded, performance.now() - raged].map((ms) => Math.round(ms));
        console.log(
          `${durability}: ${own} + ${storm.distinct - before} distinct states (${storm.evaluated} built, ${storm.byInterval} by the interval) of ${recording.length} operations in ${took.join(' + ')} ms: ${JSON.stringify(storm.tally)}`,
        );
        expect(own).toBeGreaterThanOrEqual(STATES);
        totals.states += storm.distinct;
        for (const [path, count] of Object.entries(storm.tally)) paths[path] = (paths[path] ?? 0) + count;
      });
    }

    it('there were states enough, and every rare path was among them', () => {
      expect(totals.states).toBeGreaterThanOrEqual(2_000);
      console.log(JSON.stringify(paths));
    });
  },
);

describe.runIf(KEPT !== undefined)('a state that was kept', () => {
  it('holds what was promised', async () => {
    const expectation = JSON.parse(readFileSync(join(KEPT as string, 'expected.json'), 'utf8')) as Expectation;
    const folder = join(tempDir(), 'disk');
    cpSync(join(KEPT as string, 'disk'), folder, { recursive: true });
    const found = await look(folder, expectation.durability, new Contents(expectation.steps), true);
    expect(brokenPromise(expectation, found)).toBeUndefined();
  });
});
