import type { Durability } from 'sluicedb';
import type { Recording } from '../support/disk-recorder.ts';
import { type DiskOperation, PROCESS_CRASH, type Survival } from '../support/power-loss.ts';
import { DATABASE, optionsFor } from './recorded-state.ts';

/** What a state was found in the middle of, or with. */
export const PATHS = [
  'a checkpoint',
  'a commit that is not synced',
  'a log unlink that is not synced',
  'a rotation',
  'a start',
  'a recovery after a power loss',
  'a restore',
  'a torn log tail',
  'a log to set aside',
  'writes to recover',
  'lost names',
  'dead letters',
  'a kill, with the power on',
  'a promise of the interval',
  'threads',
] as const;

export type Path = (typeof PATHS)[number];

export function noPaths(): Record<Path, number> {
  return Object.fromEntries(PATHS.map((path) => [path, 0])) as Record<Path, number>;
}

/** Follows a recording: what is under way, and what has been promised. */
export class Situation {
  readonly #durability: Durability;
  /** How much later than it was acknowledged a write must be on the disk, at `interval`. */
  readonly #window: number;
  readonly #paths = new Map<number, string>();
  readonly #dirty = new Set<string>();
  /** Since the last sync of a folder. */
  #isRenamed = false;
  #isSettled = false;
  #unlinked = false;
  #unnamed = false;
  #opening = false;
  #restoring = false;
  #safe = 0;
  readonly #acked: { readonly steps: number; readonly at: number }[] = [];
  /** When the process was killed, until the next one has opened the database: nobody syncs anything meanwhile. */
  #diedAt: number | undefined;
  backedUp = false;

  constructor(durability: Durability, recording: Recording) {
    this.#durability = durability;
    this.#window = windowOf(recording);
  }

  apply(operation: DiskOperation, ended: number): void {
    this.#followNames(operation);
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

  #followNames(operation: DiskOperation): void {
    const { kind } = operation;
    if (kind === 'rename' || kind === 'syncDirectory') this.#isRenamed = kind === 'rename';
    const paths = 'path' in operation ? [operation.path] : 'from' in operation ? [operation.from, operation.to] : [];
    if (kind !== 'syncDirectory' && paths.some(isSegment)) this.#isSettled = false;
  }

  /**
   * How often the power is to go here, at least. Between a change of names and the sync of their folder there are few operations, and
   * many ways in which names and contents can go together.
   */
  get cuts(): number {
    if (this.#isRenamed) return 60;
    return this.#unnamed || this.#unlinked ? 4 : 0;
  }

  /** Since the database was opened or closed no file of the log has come, gone or got another name: those that there are, are there. */
  get isSettled(): boolean {
    return this.#isSettled;
  }

  #note([what, value]: readonly string[], ended: number): void {
    if (what === 'opening' || what === 'opened') this.#opening = what === 'opening';
    if (what === 'restoring' || what === 'restored') this.#restoring = what === 'restoring';
    if (what === 'die' || what === 'opened') this.#diedAt = what === 'die' ? ended : undefined;
    // What has been applied may be deleted as soon as it is open; who closes it waits for that.
    if (what === 'closed' || (what === 'opened' && !this.#unlinked)) this.#isSettled = true;
    if (what === 'backed') this.backedUp = true;
    if (what === 'safe') this.#safe = Math.max(this.#safe, Number(value));
    if (what === 'acked') this.#acked.push({ steps: Number(value), at: ended });
  }

  get paths(): Path[] {
    const paths: Path[] = [];
    if (this.#dirty.has(`/${DATABASE}`)) paths.push('a checkpoint');
    if (this.#dirty.has(`/${DATABASE}-wal`)) paths.push('a commit that is not synced');
    if (this.#unlinked) paths.push('a log unlink that is not synced');
    if (this.#unnamed) paths.push('a rotation');
    if (this.#opening) paths.push('a start');
    if (this.#restoring) paths.push('a restore');
    return paths;
  }

  /** How many steps cannot be missing when the power goes at a moment, and how many were in SQLite for good. */
  floorAt(now: number, survival: Survival): { readonly floor: number; readonly safe: number } {
    const safe = this.#safe;
    const since = (due: number) =>
      Math.max(safe, ...this.#acked.filter(({ at }) => at < due).map(({ steps }) => steps));
    const all = Number.POSITIVE_INFINITY;
    switch (this.#durability) {
      case 'memory':
        return { floor: safe, safe };
      case 'os':
        return { floor: survival === PROCESS_CRASH ? since(all) : safe, safe };
      case 'interval':
        return { floor: since(survival === PROCESS_CRASH ? all : (this.#diedAt ?? now) - this.#window), safe };
      default:
        return { floor: since(all), safe };
    }
  }
}

/**
 * The interval, and how much later a sync may have ended by the recording's own word: its timer, the round that it begins and what is
 * in front of that each wait for the event loop and for the disk.
 */
function windowOf(recording: Recording): number {
  let late = 0;
  let longest = 0;
  for (const { operation, begun, ended } of recording) {
    longest = Math.max(longest, ended - begun);
    const delay = operation.kind === 'mark' ? /^delay (.*)/.exec(String(operation.note))?.[1] : undefined;
    late = Math.max(late, Number(delay ?? 0));
  }
  return (optionsFor('interval').syncIntervalMs as number) + 2 * late + 4 * longest;
}

export function isSegment(path: string): boolean {
  return /\/\d{10}\.log$/.test(path);
}
