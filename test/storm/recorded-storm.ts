import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Durability } from 'sluicedb';
import type { Recording } from '../support/disk-recorder.ts';
import { layInto, layOut } from '../support/laid-disk.ts';
import {
  Disk,
  type DiskImage,
  type DiskOperation,
  PROCESS_CRASH,
  SURVIVALS,
  type Survival,
} from '../support/power-loss.ts';
import type { Step } from './recorded-program.ts';
import { isSegment, noPaths, type Path, Situation } from './recorded-situation.ts';
import { brokenPromise, type Contents, DATABASE, type Expectation, type Found, look } from './recorded-state.ts';

export interface Program {
  readonly durability: Durability;
  readonly steps: readonly Step[];
  readonly contents: Contents;
}

/** A state that was looked at, and what had been promised of it. */
export interface State {
  readonly image: DiskImage;
  readonly floor: number;
  readonly backedUp: boolean;
  readonly found: Found;
}

/** A recording, and the state that it begins with where that is not an empty disk: then it must be what comes out again. */
export interface Weather {
  readonly label: string;
  readonly recording: Recording;
  readonly base?: State;
}

/** A recording of a few operations has few states: so often it is gone through, and no more. */
const ROUNDS = 40;

/** One state in so many is opened with its threads. */
const WITH_THREADS = 25;

/** After the last operation. */
const END: Recording[number] = { operation: { kind: 'mark', note: 'the end' }, begun: 0, ended: 0 };

/** Power cuts at the operations of recordings of one program, with what they leave looked at. */
export class Storm {
  readonly #program: Program;
  readonly #found = new Map<string, Found>();
  readonly #random: () => number;
  readonly tally: Record<Path, number> = noPaths();
  /** States that were built; those that were there before, byte by byte, are not opened again. */
  built = 0;

  constructor(program: Program, random: () => number) {
    this.#program = program;
    this.#random = random;
  }

  /** How many different states were opened. */
  get states(): number {
    return this.#found.size;
  }

  /** Cuts the power until there were so many more states; returns those in which a recovery has something to do. */
  async rage(weather: Weather, states: number): Promise<State[]> {
    const { recording, base } = weather;
    const { durability } = this.#program;
    const worthRecovery: State[] = [];
    const target = this.states + states;
    // A share of the operations in each round, so that the last round leaves no part of them out either.
    const share = Math.min(1, states / recording.length / 2);
    for (let round = 0; round < ROUNDS && this.states < target; round++) {
      const disk = Disk.from(base?.image);
      const situation = new Situation(durability, recording);
      for (const [at, { operation, begun, ended }] of [...recording, END].entries()) {
        const isMark = operation.kind === 'mark' && operation !== END.operation;
        const isCut = operation === END.operation || this.#random() < share;
        const cuts = isMark ? 0 : Math.max(situation.cuts, isCut ? 1 : 0);
        for (let cut = 0; cut < cuts; cut++) {
          const state = await this.#cut(weather, at, begun, disk, situation);
          if (state !== undefined && isWorthRecovery(state.found)) worthRecovery.push(state);
        }
        disk.apply(operation);
        situation.apply(operation, ended);
      }
    }
    return worthRecovery;
  }

  /** The power goes ahead of an operation. Returns what was looked at for the first time. */
  async #cut(weather: Weather, at: number, now: number, disk: Disk, situation: Situation): Promise<State | undefined> {
    const { durability, steps } = this.#program;
    const { base } = weather;
    const survival = this.#random() < 0.05 ? PROCESS_CRASH : pick(SURVIVALS, this.#random);
    const image = disk.image(survival, this.#random);
    const { floor, safe } = situation.floorAt(now, survival);
    const expectation: Expectation = {
      durability,
      steps,
      floor: base?.floor ?? floor,
      backedUp: base?.backedUp ?? situation.backedUp,
      ...(base === undefined ? {} : { exactly: base.found.content }),
    };
    this.built++;
    const hash = hashOf(image);
    const known = this.#found.get(hash);
    const threads = this.states % WITH_THREADS === 0;
    try {
      const found = known ?? (await lookAt(image, this.#program, threads));
      const broken = brokenPromise(expectation, found);
      if (broken !== undefined) throw new Error(broken);
      if (situation.isSettled) expectNames(disk, image);
      if (known !== undefined) return undefined;
      this.#found.set(hash, found);
      const paths = [...situation.paths, ...pathsOf(found)];
      if (hasLostNames(disk, image)) paths.push('lost names');
      if (survival === PROCESS_CRASH) paths.push('a kill, with the power on');
      else if (durability === 'interval' && base === undefined && floor > safe) paths.push('a promise of the interval');
      if (base !== undefined) paths.push('a recovery after a power loss');
      if (threads) paths.push('threads');
      for (const path of paths) this.tally[path]++;
      return { image, floor: expectation.floor, backedUp: expectation.backedUp, found };
    } catch (cause) {
      const message = [
        (cause as Error).message,
        `${weather.label}: the power goes at ${placeOf(weather.recording, at)}, ${describe(survival)}`,
        `seed ${process.env['SLUICE_SEED']}; to look at this very state again:`,
        `SLUICE_STORM_STATE=${keep(image, expectation, weather.recording)} npx vitest run test/storm/recorded-process.test.ts`,
      ];
      throw new Error(message.join('\n'), { cause });
    }
  }
}

function isWorthRecovery({ recovery, recovered }: Found): boolean {
  return recovered > 0 || recovery.tornBytes > 0 || recovery.setAside > 0;
}

function pathsOf({ recovery, recovered, deadLetters }: Found): Path[] {
  const paths: Path[] = [];
  if (recovery.tornBytes > 0) paths.push('a torn log tail');
  if (recovery.setAside > 0) paths.push('a log to set aside');
  if (recovered > 0) paths.push('writes to recover');
  if (deadLetters > 0) paths.push('dead letters');
  return paths;
}

async function lookAt(image: DiskImage, { durability, contents }: Program, threads: boolean): Promise<Found> {
  const folder = layOut(image);
  try {
    return await look(folder, durability, contents, threads);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export function pick<T>(from: readonly T[], random: () => number): T {
  return from[Math.floor(random() * from.length)] as T;
}

function hashOf({ files, directories }: DiskImage): string {
  const hash = createHash('sha1');
  for (const directory of [...directories].sort()) hash.update(`${directory}/\n`);
  // Who had the lock is for a message only, and makes no other state.
  const named = [...files].filter(([path]) => !path.endsWith('/owner.json')).sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [path, bytes] of named) hash.update(`${path} ${bytes.length}\n`).update(bytes);
  return hash.digest('hex');
}

function hasLostNames(disk: Disk, { files }: DiskImage): boolean {
  const log = `/${DATABASE}-log`;
  const names = ['/', ...(disk.has(log) ? [log] : [])]
    .flatMap((folder) => disk.list(folder).map((name) => join(folder, name)))
    .filter((path) => path !== log);
  return names.length !== files.size || names.some((name) => !files.has(name));
}

/** The log has the files that it had when it was opened, or closed: no name comes back, and none goes. */
function expectNames(disk: Disk, { files }: DiskImage): void {
  const log = `/${DATABASE}-log`;
  const isOfLog = (path: string) => isSegment(path) || isSegment(path.replace(/\.(set-aside|corrupt)-[^/]*$/, ''));
  const there = [...files.keys()].filter(isOfLog).sort();
  const expected = disk
    .list(log)
    .map((name) => join(log, name))
    .filter(isOfLog)
    .sort();
  if (there.join() !== expected.join())
    throw new Error(`the log was to have ${expected.join()}, and has ${there.join()}`);
}

function placeOf(recording: Recording, at: number): string {
  const { operation } = recording[at] ?? END;
  return `operation ${at} of ${recording.length} (${nameOf(operation)})`;
}

function nameOf(operation: DiskOperation): string {
  if ('path' in operation) return `${operation.kind} ${operation.path}`;
  return 'from' in operation ? `${operation.kind} ${operation.from}` : operation.kind;
}

function describe({ data, names }: Survival): string {
  return `with ${typeof data === 'number' ? `blocks of ${data} bytes` : data} of the data and ${names} of the names`;
}

/** Keeps what has broken a promise, and how it came about. */
function keep(image: DiskImage, expectation: Expectation, recording: Recording): string {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-storm-kept-'));
  mkdirSync(join(folder, 'disk'));
  layInto(join(folder, 'disk'), image);
  writeFileSync(join(folder, 'expected.json'), JSON.stringify(expectation));
  const lines = recording.map(({ operation, begun, ended }, at) =>
    JSON.stringify({ at, begun, ended, ...operation }, (key, value) =>
      key === 'bytes' ? (value as { data: unknown[] }).data.length : (value as unknown),
    ),
  );
  writeFileSync(join(folder, 'operations.ndjson'), `${lines.join('\n')}\n`);
  return folder;
}
