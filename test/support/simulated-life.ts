import { SluiceError } from 'sluicedb';
import type { Frame } from '../../dist/base/frame/index.js';
import { Target } from '../../dist/base/frame/index.js';
import { makeLogFolder } from '../../dist/db/open.js';
import { type Durability, Engine, Health, TableTarget } from '../../dist/engine/index.js';
import { AppendLog, Recovery, type RecoveryReport } from '../../dist/engine/log/index.js';
import { Flusher, type FlushMode } from '../../dist/flush/index.js';
import { DiskFaults, type Fault } from './disk-faults.ts';
import { HeldClock } from './held-clock.ts';
import { LOG } from './log-image.ts';
import { errorOf, type MemoryFileSystem } from './memory-file-system.ts';
import type { Contents, SimulatedStore, StoreState } from './simulated-store.ts';
import { asStored, type Write, writesOf } from './writes.ts';

/** What is noted between the operations of the disk: what was true, and what had been promised, from there on. */
export type Note =
  /** Everything up to `seq` was acknowledged, at this time of the life. */
  | { readonly what: 'acknowledged'; readonly seq: number; readonly at: number }
  /** Somebody was told that everything up to `seq` is applied; `proven`: no commit before it may have missed the disk. */
  | { readonly what: 'applied'; readonly seq: number; readonly proven: boolean }
  /** The engine said that everything up to `seq` is on the disk. */
  | { readonly what: 'durable'; readonly seq: number }
  | { readonly what: 'time'; readonly at: number }
  | { readonly what: 'commit'; readonly state: StoreState; readonly synced: boolean }
  | { readonly what: 'fault'; readonly fault: Fault }
  /** Nothing is under way, and nothing has gone wrong. */
  | { readonly what: 'rest' };

export interface LifeOptions {
  readonly level: Durability;
  readonly mode: FlushMode;
  readonly segmentBytes: number;
  readonly logMaxBytes: number;
  readonly syncIntervalMs: number;
  /** How long a sync takes. */
  readonly slowMs: number;
  readonly epoch: number;
  readonly faults: readonly Fault[];
  /** Whether they are counted from the first look at the disk, and not from the end of the recovery. */
  readonly faultsAtOpen?: boolean;
}

const TABLE = 'data';
const ROWS = new Target('events', 'INSERT INTO events (id, n, pad) VALUES (?, ?, ?)');
const TALLY = new Target(null, 'UPDATE tally SET n = n + 1');

/** What a write does to the contents of the store. */
export function perform(contents: Contents, write: Write, seq: number): Contents {
  const members = write.kind === 'group' ? write.members : [write];
  const poison = members.some((each) => each.kind === 'append' && Number(each.values[1]) < 0);
  if (poison) return { ...contents, dead: [...contents.dead, seq] };
  const keys = new Map(contents.keys);
  const rows = [...contents.rows];
  let { tally } = contents;
  for (const each of members) {
    if (each.kind === 'put') keys.set(each.key, each.value as string);
    else if (each.kind === 'delete') keys.delete(each.key);
    else if (each.kind === 'clear') keys.clear();
    else if (each.kind === 'append') rows.push(Number(each.values[0]));
    else tally++;
  }
  return { keys, rows, tally, dead: contents.dead };
}

/** The same text for the same write, before and after its way through the log. */
export function textOf(write: Write): string {
  return JSON.stringify(asStored(write), (_, value) => (typeof value === 'bigint' ? String(value) : value));
}

/** What a recovery finds in the log: its writes above the watermark, in order. Throws on a hole or a refusal. */
export async function recover(
  fileSystem: MemoryFileSystem,
  { appliedSeq, epoch }: { appliedSeq: number; epoch: number },
): Promise<{ recovery: Recovery; frames: Frame[]; texts: string[]; skipped: number }> {
  const recovery = await Recovery.scan({ ...LOG, epoch, fileSystem, appliedSeq, policy: 'refuse', now: new Date(0) });
  await recovery.repair();
  const frames: Frame[] = [];
  const texts: string[] = [];
  let skipped = 0;
  for await (const frame of recovery.frames()) {
    frames.push(frame);
    for (const { seq, write } of writesOf(frame.bytes)) {
      if (seq <= appliedSeq) {
        skipped++;
        continue;
      }
      if (seq !== appliedSeq + texts.length + 1) throw new Error(`write ${seq} follows ${appliedSeq + texts.length}`);
      texts.push(textOf(write));
    }
  }
  return { recovery, frames, texts, skipped };
}

/** One life of the engine, on a simulated disk and over a simulated store, from its open on. Ends without a close. */
export class Life {
  readonly clock = new HeldClock();
  /** Every write that was accepted in this life and the ones before it, by its number. */
  readonly writes: Write[];
  readonly report: RecoveryReport;
  readonly skipped: number;
  readonly engine: Engine;
  readonly health: Health;
  /** What went wrong at what was promised, said as it happened. */
  readonly broken: string[] = [];
  readonly counted: { shortWrites: number; rejected: number; refused: number; logFull: number; dead: number };
  readonly fired: Fault[] = [];
  #ill = false;
  #waiting = 0;
  readonly #fileSystem: MemoryFileSystem;
  readonly #store: SimulatedStore;
  readonly #options: LifeOptions;
  readonly #faults: DiskFaults;
  readonly #flusher: Flusher;
  readonly #log: AppendLog;
  readonly #table = new TableTarget(TABLE);
  #short = 0;
  #durableSeq = 0;

  private constructor(parts: {
    fileSystem: MemoryFileSystem;
    store: SimulatedStore;
    options: LifeOptions;
    writes: readonly Write[];
    recovered: Awaited<ReturnType<typeof recover>>;
    random: () => number;
    faults: DiskFaults;
  }) {
    const { fileSystem, store, options, recovered } = parts;
    this.#fileSystem = fileSystem;
    this.#store = store;
    this.#options = options;
    const { recovery, frames, skipped } = recovered;
    this.report = recovery.report;
    this.skipped = skipped;
    const { appliedSeq } = store.state;
    this.writes = parts.writes.slice(0, appliedSeq + recovered.texts.length);
    this.counted = { shortWrites: 0, rejected: 0, refused: 0, logFull: 0, dead: 0 };
    this.#faults = parts.faults;
    const emit = () => {};
    this.health = new Health(emit);
    const env = { health: this.health, clock: this.clock, random: parts.random, emit };
    this.#log = new AppendLog(
      { ...LOG, epoch: options.epoch, fileSystem, segmentBytes: options.segmentBytes },
      recovery.start,
    );
    const { level, syncIntervalMs, logMaxBytes } = options;
    const admission = {
      maxBytes: 1 << 20,
      maxEntries: 1000,
      highWaterRatio: 0.5,
      whenFull: 'reject' as const,
      maxBlockMs: 1000,
      maxWaiting: 10,
    };
    const engineOptions = { durability: level, syncIntervalMs, admission, logMaxBytes };
    this.engine = new Engine(engineOptions, this.#log, appliedSeq, env);
    const flush = { mode: options.mode, intervalMs: 50, maxWrites: 6, maxBytes: 1 << 20 };
    this.#flusher = new Flusher(this.engine, store.asStore, flush, env);
    for (const frame of frames) this.engine.adopt(frame);
    this.#listen(parts.random);
    if (this.engine.pending > 0) this.#flusher.request();
    else if (store.durable) this.engine.releaseLog();
    else this.#flusher.confirmLater();
  }

  /** As `open` does it. Throws what `open` would throw. */
  static async begin(
    fileSystem: MemoryFileSystem,
    store: SimulatedStore,
    options: LifeOptions,
    writes: readonly Write[],
    random: () => number,
  ): Promise<Life> {
    const faults =
      options.faultsAtOpen === true ? DiskFaults.on(fileSystem, options.faults) : new DiskFaults(options.faults);
    await makeLogFolder(fileSystem, LOG.directory);
    const recovered = await recover(fileSystem, { appliedSeq: store.state.appliedSeq, epoch: options.epoch });
    return new Life({ fileSystem, store, options, writes, recovered, random, faults });
  }

  get failed(): boolean {
    return this.health.state === 'failed';
  }

  /** A write, which may be refused for want of room or because the disk is broken, and then is no write. */
  write(write: Write): void {
    try {
      this.#accept(write);
      this.writes.push(write);
    } catch (error) {
      if (!(error instanceof SluiceError) || !['SLUICE_FULL', 'SLUICE_FAILED'].includes(error.code)) throw error;
      this.counted.refused++;
      if (this.engine.isLogFull) this.counted.logFull++;
    }
    if (this.engine.lastSeq !== this.writes.length) {
      this.broken.push(`write ${this.writes.length} has number ${this.engine.lastSeq}`);
    }
  }

  acknowledgement(): void {
    const seq = this.engine.lastSeq;
    const isApplied = this.#options.level === 'applied';
    this.#await(this.engine.acknowledgement(), () =>
      this.#note(
        isApplied
          ? { what: 'applied', seq, proven: this.#store.durable }
          : { what: 'acknowledged', seq, at: this.clock.elapsed() },
      ),
    );
  }

  barrier(): void {
    const seq = this.engine.lastSeq;
    this.#await(this.#flusher.barrier('test'), () => this.#note({ what: 'applied', seq, proven: this.#store.durable }));
  }

  /** The next write of the disk takes no more than this. */
  shortWrite(bytes: number): void {
    this.#short = bytes;
  }

  /** Everything that can go on without time passing has gone on. */
  async settle(): Promise<void> {
    await new Promise((turn) => setImmediate(turn));
    const { counters, accepted, pending } = this.engine;
    const all = Object.values(accepted).reduce((total, count) => total + count, 0) + counters.recovered;
    const { applied, coalesced, deadLettered } = counters;
    if (all !== applied + coalesced + deadLettered + pending) {
      this.broken.push(`${all} accepted, ${applied} + ${coalesced} + ${deadLettered} + ${pending} accounted for`);
    }
    this.#noteDurable();
  }

  async wait(ms: number): Promise<void> {
    await this.settle();
    let left = ms;
    for (let turns = 0; turns < 1_000; turns++) {
      const step = Math.min(left, this.clock.nextIn ?? left);
      this.clock.advance(step);
      this.#note({ what: 'time', at: this.clock.elapsed() });
      left -= step;
      await this.settle();
      if (left === 0) return;
    }
    this.broken.push(`time does not go on: at ${this.clock.elapsed()} there is always something to do at once`);
  }

  /** The disk gets well, and time goes on: by then everybody who waits has been told. */
  async end(): Promise<void> {
    this.#faults.heal();
    await this.wait(30_000);
    this.#expectAllTold();
    if (!this.#ill && !this.failed) this.#note({ what: 'rest' });
  }

  /** All of it goes down, where it can. */
  async drain(): Promise<void> {
    if (this.failed) return;
    this.barrier();
    await this.end();
    if (this.engine.pending > 0) this.broken.push(`${this.engine.pending} are pending, and everything is well`);
  }

  async close(): Promise<void> {
    this.engine.stopIntake();
    await this.#whenDone(this.#flusher.close());
    await this.#whenDone(this.engine.close());
    await this.settle();
    this.#expectAllTold();
  }

  async #whenDone(work: Promise<void>): Promise<void> {
    let done = false;
    const settled = work.then(
      () => {
        done = true;
      },
      (error: unknown) => {
        done = true;
        throw error;
      },
    );
    for (let i = 0; i < 20 && !done; i++) await this.wait(3_000);
    if (done) await settled;
    else this.broken.push('close hangs');
  }

  #expectAllTold(): void {
    if (this.#waiting > 0) this.broken.push(`${this.#waiting} have never been told, in the state ${this.health.state}`);
  }

  #accept(write: Write): void {
    const { engine } = this;
    switch (write.kind) {
      case 'put':
        engine.put(this.#table, write.key, write.value as string);
        return;
      case 'delete':
        engine.delete(this.#table, write.key);
        return;
      case 'clear':
        engine.clear(this.#table);
        return;
      case 'append':
        engine.append(ROWS, write.values);
        return;
      case 'stage':
        engine.stage(TALLY, write.values);
        return;
      case 'group':
        engine.group(
          write.members.map((member) =>
            member.kind === 'put'
              ? { table: this.#table, key: member.key, value: member.value as string }
              : { target: ROWS, values: member.kind === 'append' ? member.values : [] },
          ),
        );
        return;
      default:
        throw new Error(`${write.kind} is no write of these tests`);
    }
  }

  #await(promise: Promise<unknown>, done: () => void): void {
    this.#waiting++;
    promise.then(
      () => {
        this.#waiting--;
        done();
      },
      (error: unknown) => {
        this.#waiting--;
        this.counted.rejected++;
        const code = error instanceof SluiceError ? error.code : String(error);
        if (code === 'SLUICE_STORE') this.counted.dead++;
        else if (!['SLUICE_LOG_IO', 'SLUICE_FAILED', 'SLUICE_CLOSED'].includes(code)) this.broken.push(code);
        else if (this.fired.length === 0) this.broken.push(`${code}, and nothing was wrong with the disk`);
      },
    );
  }

  #listen(random: () => number): void {
    const fileSystem = this.#fileSystem;
    this.#store.between = async () => pauses(random);
    this.#store.onCommit = (state, synced) => this.#note({ what: 'commit', state, synced });
    fileSystem.before = async (operation) => {
      this.#noteDurable();
      await pauses(random);
      const { slowMs } = this.#options;
      if (slowMs > 0 && (operation.name === 'datasync' || operation.name === 'syncDirectory')) {
        await new Promise<void>((resolve) => this.clock.after(slowMs, resolve));
      }
      const fault = this.#faults.due(operation);
      if (fault === undefined) return;
      this.#ill = true;
      this.fired.push(fault);
      this.#note({ what: 'fault', fault });
      throw errorOf(fault.code, operation.path);
    };
    fileSystem.onWrite = (bytes) => {
      if (this.#short === 0 || this.#short >= bytes) return bytes;
      const taken = this.#short;
      this.#short = 0;
      this.counted.shortWrites++;
      return taken;
    };
  }

  #noteDurable(): void {
    // What was found in a store whose last commit may not be on the disk is no promise.
    if (!this.#store.durable && this.engine.durableSeq === this.engine.appliedSeq) return;
    if (this.engine.durableSeq <= this.#durableSeq) return;
    this.#durableSeq = this.engine.durableSeq;
    this.#note({ what: 'durable', seq: this.#durableSeq });
  }

  #note(note: Note): void {
    this.#fileSystem.record({ kind: 'mark', note });
  }
}

/** Other things that are ready go first, sometimes. */
async function pauses(random: () => number): Promise<void> {
  for (let i = Math.floor(random() * 4); i > 0; i--) await undefined;
}
