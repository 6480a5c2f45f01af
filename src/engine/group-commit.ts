import { backoffMs } from '../base/backoff.ts';
import type { Clock } from '../base/clock.ts';
import { SluiceError } from '../base/errors.ts';
import type { Frame } from '../base/frame/index.ts';
import { Pause } from '../base/pause.ts';
import type { Random } from '../base/random.ts';
import { Deferred } from '../base/waiting.ts';
import type { Emit, EngineEvents } from './events.ts';
import type { Health } from './health.ts';
import type { AppendLog } from './log/index.ts';
import { LogFailure } from './log/index.ts';

/** When a write counts as safe. */
export type LogDurability = 'os' | 'interval' | 'sync';

export interface GroupCommitOptions {
  readonly durability: LogDurability;
  readonly syncIntervalMs: number;
}

/** The two things the pipeline needs of the engine; a test gives it two functions. */
export interface CommitSource {
  /** Closes the open frame and hands over all that have not been handed over yet. */
  takeFrames(): Frame[];
  /** The log has changed size, or got rid of something. */
  onLogChange(): void;
}

/** Writes that are acknowledged together; the promise is made only if somebody asks. */
interface Group {
  /** `undefined` while the group is still filling. */
  lastSeq: number | undefined;
  /** When its first write came. */
  readonly since: number;
  acknowledged: Deferred<void> | undefined;
}

/** Somebody who waits for one sequence number, through failures and repairs. */
interface Awaited {
  readonly seq: number;
  readonly reached: Deferred<void>;
}

const BACKOFF_FIRST_MS = 20;
const BACKOFF_MAX_MS = 5_000;
const IO_FAILURES_MAX = 2;

/**
 * The group commit. While one write and fdatasync is in flight, the next frame fills; when it is done, everything that
 * has gathered goes next. All operations on the log happen in this one loop, so the log needs no locks.
 *
 * Invariants
 * 1. A group is acknowledged only by a round that wrote (and at `sync`, synced) all of it and everything before it.
 * 2. If a round fails, everybody who waits for a part of it is told so, once: "durability unknown". The frames stay in
 *    the log's memory and go first in the next round, with the same numbers.
 * 3. Room, descriptors and permissions are waited for, for ever; a failure of the disk itself is answered once, in a new
 *    segment; the second one in a row ends the engine.
 *
 * Rejected: a delay to let groups grow (the sync itself is the delay, and an idle log answers at once), and overlapping
 * syncs (an acknowledgement would need an order of its own).
 */
export class GroupCommit {
  readonly #log: AppendLog;
  readonly #source: CommitSource;
  readonly #options: GroupCommitOptions;
  readonly #health: Health;
  readonly #clock: Clock;
  readonly #pause: Pause;
  readonly #random: Random;
  readonly #emit: Emit<EngineEvents>;

  #groups: Group[] = [];
  #filling: Group | undefined;
  readonly #awaited: Awaited[] = [];
  #acknowledgedSeq: number;
  #running: Promise<void> | undefined;
  #requested = false;
  #syncDue = false;
  #sealDue = false;
  #releaseSeq = 0;
  #syncTimer = false;
  #releaseTimer = false;
  #stopped = false;
  #closing = false;
  /** Made once: a function that makes a closure somewhere makes an object for it at each call, and `request` is called by each write. */
  readonly #startRound = (): void => this.#start();
  syncs = 0;
  syncFailures = 0;

  constructor(
    log: AppendLog,
    source: CommitSource,
    options: GroupCommitOptions,
    startSeq: number,
    env: { health: Health; clock: Clock; random: Random; emit: Emit<EngineEvents> },
  ) {
    this.#log = log;
    this.#source = source;
    this.#options = options;
    this.#acknowledgedSeq = startSeq;
    this.#health = env.health;
    this.#clock = env.clock;
    this.#pause = new Pause(env.clock);
    this.#random = env.random;
    this.#emit = env.emit;
  }

  /** Everything up to here is as safe as the level says. */
  get acknowledgedSeq(): number {
    return this.#acknowledgedSeq;
  }

  /** Recovery has found everything up to `seq` in the log, and synced it. */
  adopt(seq: number): void {
    this.#acknowledgedSeq = seq;
  }

  /** Called after every write: the one thing on the hot path. */
  request(): void {
    if (this.#filling === undefined) {
      this.#filling = { lastSeq: undefined, since: this.#clock.elapsed(), acknowledged: undefined };
      this.#groups.push(this.#filling);
    }
    if (!this.#requested) {
      this.#requested = true;
      // A microtask comes after everything that the caller writes in one go.
      queueMicrotask(this.#startRound);
    }
  }

  /** Resolves when everything accepted so far is safe. One promise for all writes of a group. */
  acknowledgement(): Promise<void> {
    const group = this.#groups.at(-1);
    if (group === undefined) return RESOLVED;
    group.acknowledged ??= new Deferred();
    return group.acknowledged.promise;
  }

  /** Resolves when everything up to `seq` is safe, however often it has to be tried. */
  reached(seq: number): Promise<void> {
    if (seq <= this.#acknowledgedSeq) return RESOLVED;
    const reached = new Deferred<void>();
    this.#awaited.push({ seq, reached });
    return reached.promise;
  }

  /** Everything up to `seq` is durable in the store: segments that hold nothing else may go. */
  release(seq: number): void {
    this.#releaseSeq = Math.max(this.#releaseSeq, seq);
    this.#log.forget(seq);
    this.#start();
  }

  /** Ends the open segment, so that `release` can delete it. */
  seal(): void {
    // Asking again while nothing can be sealed would keep the loop going for ever.
    if (!this.#log.hasOpen) return;
    this.#sealDue = true;
    this.#start();
  }

  /** The log goes on for other data: see {@link AppendLog.renew}. To be called with everything applied, and no write coming. */
  async renew(epoch: number, seq: number): Promise<void> {
    while (this.#running !== undefined) await this.#running;
    this.#running = this.#log.renew(epoch, seq).finally(() => {
      this.#running = undefined;
    });
    await this.#running;
    this.#acknowledgedSeq = seq;
    this.release(seq);
  }

  /** Writes and syncs what is left, and ends. A disk that has no room now is not waited for. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#syncDue = true;
    this.#pause.cutShort();
    this.#start();
    // The loop that is just ending has not seen what is due now: another one follows it.
    while (this.#running !== undefined) await this.#running;
    this.#stopped = true;
    await this.#log.close();
  }

  /** Ends without another attempt: everybody who waits is told why. */
  stop(error: SluiceError): void {
    this.#stopped = true;
    this.#pause.cutShort();
    for (const group of this.#groups) group.acknowledged?.reject(error);
    for (const { reached } of this.#awaited.splice(0)) reached.reject(error);
  }

  #start(): void {
    this.#requested = false;
    if (this.#stopped) return;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      if (this.#requested || this.#hasWork()) this.#start();
    });
  }

  #hasWork(): boolean {
    return !this.#stopped && (this.#filling !== undefined || this.#sealDue || this.#syncDue);
  }

  async #run(): Promise<void> {
    let attempt = 0;
    let ioFailures = 0;
    do {
      try {
        await this.#round(this.#take());
        attempt = ioFailures = 0;
        this.#health.recovered('log');
      } catch (error) {
        if (!(error instanceof LogFailure)) return this.#health.fail('log', error as Error);
        this.#rejectGroups(error);
        if (error.failure === 'reopen' && ++ioFailures >= IO_FAILURES_MAX) {
          this.#health.fail('log', error);
          return;
        }
        this.#health.trouble('log', error.failure === 'space' ? 'space' : 'degraded', error);
        if (error.failure !== 'reopen') await this.#waitForDisk(error, ++attempt);
      }
      this.#source.onLogChange();
    } while (this.#hasWork() || (this.#log.hasWaiting && !this.#stopped));
  }

  /** What passes by itself is waited for, but not while the database closes. */
  async #waitForDisk({ message }: LogFailure, attempt: number): Promise<void> {
    if (this.#closing) {
      this.stop(new SluiceError('SLUICE_CLOSED', `the database was closed before the log was safe: ${message}`));
    } else {
      await this.#pause.wait(backoffMs(attempt, BACKOFF_FIRST_MS, BACKOFF_MAX_MS, this.#random));
    }
  }

  /** Moves what has gathered to the log; returns the number of the last write that this round is about. */
  #take(): number {
    this.#requested = false;
    const frames = this.#source.takeFrames();
    this.#log.append(frames);
    const last = frames.at(-1)?.lastSeq;
    if (this.#filling !== undefined && last !== undefined) {
      this.#filling.lastSeq = last;
      this.#filling = undefined;
    }
    return this.#groups.findLast((group) => group.lastSeq !== undefined)?.lastSeq ?? this.#acknowledgedSeq;
  }

  async #round(lastSeq: number): Promise<void> {
    const start = this.#clock.elapsed();
    const bytes = await this.#log.write();
    const written = this.#clock.elapsed();
    const sync = this.#options.durability === 'sync' || this.#syncDue || this.#closing;
    const synced = sync && this.#log.hasUnsynced;
    if (synced) await this.#sync();
    this.#syncDue = false;
    if (bytes > 0 || synced) {
      const now = this.#clock.elapsed();
      const [first] = this.#groups;
      this.#emit('commit', {
        writes: lastSeq - this.#acknowledgedSeq,
        bytes,
        writeMs: written - start,
        syncMs: synced ? now - written : undefined,
        ackMs: first?.lastSeq === undefined ? undefined : now - first.since,
      });
    }
    this.#acknowledge(lastSeq);
    this.#scheduleSync();
    await this.#tidy();
  }

  async #sync(): Promise<void> {
    try {
      await this.#log.sync();
      this.syncs++;
    } catch (error) {
      this.syncFailures++;
      throw error;
    }
  }

  /** Seals and deletes segments. A segment that cannot be deleted now is tried again later. */
  async #tidy(): Promise<void> {
    if (this.#sealDue) {
      this.#sealDue = false;
      await this.#log.seal();
    }
    try {
      await this.#log.release(this.#releaseSeq);
    } catch (error) {
      this.#emit('failure', { during: 'log', error: error as Error });
      this.#releaseLater();
    }
  }

  /** A full log takes nothing, so no later write would be the occasion to try again. */
  #releaseLater(): void {
    if (this.#releaseTimer) return;
    this.#releaseTimer = true;
    this.#clock.after(BACKOFF_MAX_MS, () => {
      this.#releaseTimer = false;
      this.#start();
    });
  }

  #acknowledge(lastSeq: number): void {
    this.#acknowledgedSeq = Math.max(this.#acknowledgedSeq, lastSeq);
    while (this.#groups[0]?.lastSeq !== undefined && this.#groups[0].lastSeq <= lastSeq) {
      this.#groups.shift()?.acknowledged?.resolve();
    }
    for (let i = this.#awaited.length - 1; i >= 0; i--) {
      const { seq, reached } = this.#awaited[i] as Awaited;
      if (seq > lastSeq) continue;
      this.#awaited.splice(i, 1);
      reached.resolve();
    }
  }

  #rejectGroups(cause: LogFailure): void {
    const error = new SluiceError(
      'SLUICE_LOG_IO',
      `${cause.message}: it is not known whether the write would survive a crash. It stays accepted, and is written again before anything later is acknowledged`,
      { cause },
    );
    for (const group of this.#groups) {
      if (group.lastSeq === undefined) continue;
      group.acknowledged?.reject(error);
      group.acknowledged = undefined;
    }
  }

  #scheduleSync(): void {
    if (this.#options.durability !== 'interval' || this.#syncTimer || !this.#log.hasUnsynced) return;
    this.#syncTimer = true;
    this.#clock.after(
      this.#options.syncIntervalMs,
      () => {
        this.#syncTimer = false;
        this.#syncDue = true;
        this.#start();
      },
      { hold: true },
    );
  }
}

const RESOLVED: Promise<void> = Promise.resolve();
