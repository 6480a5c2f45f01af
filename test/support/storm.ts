import { posix } from 'node:path';
import { FRAME_MAGIC, frameAt } from '../../dist/base/frame/index.js';
import type { Durability } from '../../dist/engine/index.js';
import { SEGMENT_HEADER_BYTES, saltOf, segmentNumber } from '../../dist/engine/log/segment.js';
import { MemoryFileSystem } from './memory-file-system.ts';
import {
  DATA_SURVIVALS,
  Disk,
  type DiskImage,
  type DiskOperation,
  NAME_SURVIVALS,
  PROCESS_CRASH,
  type Survival,
} from './power-loss.ts';
import { type LifeOptions, type Note, perform, recover, textOf } from './simulated-life.ts';
import type { Contents, StoreStart, StoreState } from './simulated-store.ts';
import type { Write } from './writes.ts';

export const LEVELS: readonly Durability[] = ['memory', 'os', 'interval', 'sync', 'applied'];

const STRICT: Survival = { data: 'none', names: 'none' };

/** Blocks of 64 bytes are smaller than any disk's: they tear what is too small to be torn by the others. */
const SURVIVALS: readonly Survival[] = [...DATA_SURVIVALS, 64].flatMap((data) =>
  NAME_SURVIVALS.map((names) => ({ data, names })),
);

/** What a life stands on: a disk as a power cut has left it, and what processes that were killed have done to it since. */
export interface Ground {
  readonly image: DiskImage | undefined;
  readonly past: readonly DiskOperation[];
  readonly store: StoreStart;
  readonly owed: Owed;
}

/** What must be there after a crash: every write up to these. */
export interface Owed {
  /** After a power cut … */
  readonly power: number;
  /** … after the death of the process, too … */
  readonly kill: number;
  /** … and in the store, after either. */
  readonly applied: number;
}

/** How often something rare has happened. */
export const paths: Record<string, number> = {
  rotation: 0,
  tornTail: 0,
  holeInTheTail: 0,
  nameLost: 0,
  unlinkUndone: 0,
  emptySegment: 0,
  setAside: 0,
  watermarkSkip: 0,
  commitLost: 0,
  crashInRecovery: 0,
  crashInRecoveryOfThat: 0,
  killThenPowerCut: 0,
  deathAfterFailedSync: 0,
  faultInRotation: 0,
  failedSync: 0,
  noSpace: 0,
  engineFailed: 0,
  shortWrite: 0,
  deadLetter: 0,
  logFull: 0,
  lostWithinTheInterval: 0,
};

export function hit(path: string, times = 1): void {
  paths[path] = (paths[path] ?? 0) + times;
}

/** States that a power cut can lead to, and deaths of the process, each recovered and judged. */
export const states: Record<Durability, { power: number; kill: number }> = {
  memory: { power: 0, kill: 0 },
  os: { power: 0, kill: 0 },
  interval: { power: 0, kill: 0 },
  sync: { power: 0, kill: 0 },
  applied: { power: 0, kill: 0 },
};

export function diskOf({ image, past }: Ground): Disk {
  const disk = Disk.from(image);
  for (const operation of past) disk.apply(operation);
  return disk;
}

/** What had been promised up to a point of a life's history. */
class Promises {
  readonly #options: LifeOptions;
  readonly #ground: Ground;
  readonly #acknowledged: { readonly seq: number; readonly at: number }[] = [];
  #now = 0;
  #ill = false;
  #safe = 0;
  #seen = 0;
  #applied = 0;
  visible: StoreState;
  synced: StoreState;
  /** Whether all is quiet, so that nothing may be left to be synced. */
  rest = false;

  constructor(options: LifeOptions, ground: Ground) {
    this.#options = options;
    this.#ground = ground;
    this.visible = ground.store.state;
    this.synced = ground.store.synced ?? ground.store.state;
  }

  take(operation: DiskOperation): void {
    this.rest = false;
    if (operation.kind !== 'mark') return;
    const note = operation.note as Note;
    switch (note.what) {
      case 'acknowledged':
        this.#acknowledged.push(note);
        return;
      case 'applied':
        this.#seen = Math.max(this.#seen, note.seq);
        // Otherwise the commits may yet be undone: what is in the log stays there until they are proven.
        if (note.proven) this.#applied = Math.max(this.#applied, note.seq);
        return;
      case 'durable':
        this.#safe = Math.max(this.#safe, note.seq);
        return;
      case 'time':
        this.#now = note.at;
        return;
      case 'commit':
        this.visible = note.state;
        if (note.synced) this.synced = note.state;
        return;
      case 'fault':
        this.#ill = true;
        return;
      case 'rest':
        this.rest = true;
    }
  }

  get owed(): Owed {
    const { level } = this.#options;
    const owed = this.#ground.owed;
    const all = this.#acknowledged.at(-1)?.seq ?? 0;
    const power = Math.max(owed.power, this.#safe, this.#applied, level === 'sync' ? all : this.#beyondInterval);
    return {
      power,
      kill: Math.max(owed.kill, power, this.#seen, level === 'memory' ? 0 : all),
      applied: Math.max(owed.applied, this.#applied),
    };
  }

  /** What was acknowledged longer ago than the interval, and the syncs that may have been under way. */
  get #beyondInterval(): number {
    const { level, syncIntervalMs, slowMs } = this.#options;
    if (level !== 'interval' || this.#ill) return 0;
    const before = this.#now - syncIntervalMs - 5 * slowMs;
    return this.#acknowledged.findLast(({ at }) => at < before)?.seq ?? 0;
  }
}

/** Where a next life begins. */
export interface Crash {
  readonly at: number;
  readonly survival: Survival;
}

/** Lets the power go, and the process die, after each operation of a life, and looks what is left. Returns where to go on. */
export async function explore(
  history: readonly DiskOperation[],
  { ground, options, writes }: { ground: Ground; options: LifeOptions; writes: readonly Write[] },
  random: () => number,
  { cuts, next, from = 0 }: { cuts: number; next: Crash; from?: number },
): Promise<{ ground: Ground; writes: Write[] }> {
  const disk = diskOf(ground);
  const promises = new Promises(options, ground);
  let outcome: { ground: Ground; writes: Write[] } | undefined;
  for (const [i, operation] of history.entries()) {
    disk.apply(operation);
    promises.take(operation);
    if (i < from) continue;
    const where = `after operation ${i} of ${history.length} (${describe(operation)}) at '${options.level}'`;
    const judge = async (survival: Survival) => {
      const isKill = survival === PROCESS_CRASH;
      const store =
        isKill || promises.visible === promises.synced || random() < 0.5 ? promises.visible : promises.synced;
      const image = disk.image(survival, random);
      const state = { image, store, owed: promises.owed, writes, epoch: options.epoch };
      states[options.level][isKill ? 'kill' : 'power']++;
      if (store !== promises.visible) hit('commitLost');
      count(image, disk);
      try {
        const end = await examine(state, isKill, random);
        if (options.level === 'interval' && end < promises.owed.kill) hit('lostWithinTheInterval');
        return { end, image, store };
      } catch (error) {
        const { message } = error as Error;
        const told = [...ground.past, ...history.slice(0, i + 1)].slice(-40).map(describe);
        const found = [...image.files].map(([path, bytes]) => `${path}: ${bytes.length} bytes`);
        throw new Error(
          `${where}, with ${JSON.stringify(survival)}: ${message}\nThe disk has been through\n  ${told.join('\n  ')}\nand has\n  ${found.join('\n  ')}`,
          { cause: error },
        );
      }
    };
    await judge(STRICT);
    // A promise changes nothing on the disk.
    if (operation.kind !== 'mark') {
      await judge(PROCESS_CRASH);
      for (let n = 0; n < cuts; n++) await judge(SURVIVALS[Math.floor(random() * SURVIVALS.length)] as Survival);
    }
    if (promises.rest) expectRest(disk, where, ground.past.length > 0);
    if (i !== next.at) continue;
    const { end, image, store } = await judge(next.survival);
    const { owed } = promises;
    // The next process makes a commit of its own as it opens, whose sync carries the ones before it, unless a sync had failed
    // then: that the log is kept until a checkpoint has proved them is to be seen, so where there is a log.
    const isSynced = store === promises.synced || options.level === 'memory';
    const start = { state: store, synced: isSynced ? undefined : promises.synced };
    const kept = writes.slice(0, end);
    if (next.survival === PROCESS_CRASH) {
      const past = [...ground.past, ...history.slice(0, i + 1)];
      if (past.some((each) => each.kind === 'sync' && each.failed === true)) hit('deathAfterFailedSync');
      // A process that is killed loses nothing that the next one has found, however often that happens.
      outcome = { ground: { image: ground.image, past, store: start, owed: { ...owed, kill: end } }, writes: kept };
    } else {
      const nothing = { state: store, synced: undefined };
      outcome = {
        ground: { image, past: [], store: nothing, owed: { ...owed, power: end, kill: end } },
        writes: kept,
      };
    }
  }
  if (outcome === undefined) throw new Error('the life was shorter than was thought');
  return outcome;
}

interface Left {
  readonly image: DiskImage;
  readonly store: StoreState;
  readonly owed: Owed;
  readonly writes: readonly Write[];
  readonly epoch: number;
}

/** Recovers what is left, and holds it against what was promised; returns the last write that is there. */
async function examine(left: Left, isKill: boolean, random: () => number): Promise<number> {
  const { image, store, owed } = left;
  const fileSystem = MemoryFileSystem.from(image);
  const end = await recovered(left, fileSystem);
  const power = isKill ? owed.kill : owed.power;
  if (end < power) throw new Error(`only ${end} writes are left, and ${power} were promised`);
  if (store.appliedSeq < owed.applied)
    throw new Error(`${store.appliedSeq} are applied, ${owed.applied} were promised`);
  if (random() < 0.03) await interrupt(left, fileSystem.history, end, random, 2);
  return end;
}

async function recovered({ store, writes, epoch }: Left, fileSystem: MemoryFileSystem): Promise<number> {
  const { appliedSeq } = store;
  const found = await recover(fileSystem, { appliedSeq, epoch });
  const { tornBytes, setAside } = found.recovery.report;
  if (tornBytes > 0) hit('tornTail');
  if (setAside.length > 0) hit('setAside');
  if (found.skipped > 0 || found.recovery.start.sealed.some(({ lastSeq }) => lastSeq <= appliedSeq))
    hit('watermarkSkip');
  if (fileSystem.history.some(({ kind }) => kind === 'unlink')) hit('emptySegment');
  const end = appliedSeq + found.texts.length;
  if (end > writes.length) throw new Error(`${end} writes are there, of ${writes.length} that were made`);
  for (const [i, text] of found.texts.entries()) {
    const expected = textOf(writes[appliedSeq + i] as Write);
    if (text !== expected) throw new Error(`write ${appliedSeq + i + 1} is ${text}, and was ${expected}`);
  }
  return end;
}

/** Lets the power go during a recovery, too: the next one must come to the same end, and so must one after that. */
async function interrupt(
  left: Left,
  repair: readonly DiskOperation[],
  end: number,
  random: () => number,
  depth: number,
): Promise<void> {
  const disk = Disk.from(left.image);
  for (const operation of repair) {
    disk.apply(operation);
    const image = disk.image(SURVIVALS[Math.floor(random() * SURVIVALS.length)] as Survival, random);
    const fileSystem = MemoryFileSystem.from(image);
    const again = await recovered({ ...left, image }, fileSystem);
    hit(depth === 2 ? 'crashInRecovery' : 'crashInRecoveryOfThat');
    if (again !== end) throw new Error(`a recovery that was cut short leaves ${again} writes, and not ${end}`);
    if (depth > 1) await interrupt({ ...left, image }, fileSystem.history, end, random, depth - 1);
  }
}

/**
 * At rest every name is on the disk, and what was deleted does not come back: the room that it took is free for good. What a
 * process before this one has done last, which was killed, may come undone: deleted and set aside again by the next.
 */
function expectRest(disk: Disk, where: string, afterKill: boolean): void {
  const names = (survival: Survival) => [...disk.image(survival, () => 0).files.keys()].sort();
  const there = names(PROCESS_CRASH).filter((name) => !afterKill || isSegment(name));
  const left = names(STRICT).filter((name) => !afterKill || there.includes(name));
  if (left.join() === there.join()) return;
  throw new Error(`${where} all is at rest, and of ${there.join()} a power cut would leave ${left.join()}`);
}

function isSegment(path: string): boolean {
  return segmentNumber(posix.basename(path)) !== undefined;
}

function count(image: DiskImage, disk: Disk): void {
  const now = disk.image(PROCESS_CRASH, () => 0).files;
  for (const path of now.keys()) if (!image.files.has(path)) hit('nameLost');
  for (const path of image.files.keys()) if (!now.has(path)) hit('unlinkUndone');
  for (const [path, bytes] of image.files) if (isSegment(path) && hasHole(bytes)) hit('holeInTheTail');
}

/** Whether a whole frame comes after something that is none. */
function hasHole(bytes: Buffer): boolean {
  const salt = saltOf(bytes);
  let end = SEGMENT_HEADER_BYTES;
  for (let frame = frameAt(bytes, end, salt); frame !== undefined; frame = frameAt(bytes, end, salt))
    end += frame.length;
  const magic = Buffer.alloc(4);
  magic.writeUInt32LE(FRAME_MAGIC);
  for (let at = bytes.indexOf(magic, end); at >= 0; at = bytes.indexOf(magic, at + 1)) {
    if (frameAt(bytes, at, salt) !== undefined) return true;
  }
  return false;
}

/** What the store must hold when the first `count` writes are applied. */
export function contentsOf(writes: readonly Write[], count: number): Contents {
  let contents: Contents = { keys: new Map(), rows: [], tally: 0, dead: [] };
  for (const [i, write] of writes.slice(0, count).entries()) contents = perform(contents, write, i + 1);
  return contents;
}

function describe(operation: DiskOperation): string {
  if (operation.kind === 'mark') {
    const note = operation.note as Note;
    if (note.what === 'commit') return `# ${note.synced ? 'synced' : 'committed'} up to ${note.state.appliedSeq}`;
    return `# ${JSON.stringify(note)}`;
  }
  const { kind } = operation;
  const rest = Object.entries(operation).filter(([name]) => name !== 'kind');
  return `${kind} ${rest.map(([name, value]) => `${name}=${name === 'bytes' ? (value as Uint8Array).length : value}`).join(' ')}`;
}
