import type { Clock } from '../base/clock.ts';
import { codeOf, SluiceError } from '../base/errors.ts';
import {
  type AsciiText,
  acceptedAtOf,
  type Frame,
  FrameBuilder,
  FrameScratch,
  type SqlValue,
  type Target,
} from '../base/frame/index.ts';
import type { Random } from '../base/random.ts';
import { Deferred, type WaitOptions } from '../base/waiting.ts';
import type { WriteOperation } from '../store/store.ts';
import { Admission, type AdmissionOptions } from './admission.ts';
import type { Emit, EngineEvents } from './events.ts';
import type { ReadonlyGeneration, SealedGeneration, TableTarget } from './generation.ts';
import { GroupCommit, type GroupCommitOptions, type LogDurability } from './group-commit.ts';
import type { Health } from './health.ts';
import type { AppendLog, LogNumbers } from './log/index.ts';
import type { Staged } from './stage.ts';
import type { Encoded } from './staged-entries.ts';
import { Staging } from './staging.ts';

/** What an acknowledgement means. */
export type Durability = 'memory' | 'os' | 'interval' | 'sync' | 'applied';

export interface EngineOptions {
  readonly durability: Durability;
  readonly syncIntervalMs: number;
  readonly admission: AdmissionOptions;
  /** The log refuses more than this. */
  readonly logMaxBytes: number;
}

export interface EngineEnvironment {
  readonly health: Health;
  readonly clock: Clock;
  readonly random: Random;
  readonly emit: Emit<EngineEvents>;
}

/** What the flush has done with a batch. */
export interface Outcome {
  readonly applied: number;
  readonly coalesced: number;
  /** The sequence numbers that became dead letters. */
  readonly dead: readonly number[];
  /** Whether the log may forget what is below the watermark. */
  readonly durable: boolean;
}

/** A key in a group; `null` deletes it. */
export interface KeyMember {
  readonly table: TableTarget;
  readonly key: string;
  readonly value: Encoded | null;
}

/** One write of a group. */
export type GroupMember = KeyMember | { readonly target: Target; readonly values: readonly SqlValue[] };

/** Somebody who waits until everything up to a sequence number is applied. */
interface AppliedWaiter {
  readonly seq: number;
  /** Whether it is an error that the very write of that number died. */
  readonly mustLive: boolean;
  readonly done: Deferred<void>;
}

/** What a write costs in staging besides its key and value: index, frame record, and the text of a frame that somebody reads. */
const WRITE_OVERHEAD_BYTES = 96;

/** A frame is closed at this size, so that encoding it is a short piece of work. */
const FRAME_BYTES = 512 * 1024;

/** A generation is sealed at this size: growing a larger index would hold the event loop. */
const GENERATION_WRITES = 50_000;

/**
 * Accepts writes: admits, numbers and stages them, and hands them to the log. Knows no SQLite and no threads; what
 * happens below is the flush's business, which takes sealed generations away and reports what became of them.
 *
 * A write is in the open generation and in the open frame from the moment its call returns. The frame goes to the log
 * with the next group commit; the generation is sealed by the flush (or at its full size) and dropped when its writes are
 * applied or dead, so a read that looks through the generations, newest first, and then into the store misses nothing.
 */
export class Engine {
  readonly counters = { recovered: 0, applied: 0, coalesced: 0, deadLettered: 0, bytesAccepted: 0, bytesApplied: 0 };
  readonly accepted: Record<WriteOperation, number> = {
    put: 0,
    delete: 0,
    clear: 0,
    append: 0,
    sql: 0,
    ensure: 0,
    group: 0,
  };
  readonly admission: Admission;
  readonly commit: GroupCommit | undefined;
  readonly health: Health;
  /** Called after each write, to see whether it is time to flush. */
  onAccepted: () => void = () => {};
  /** Called when somebody waits until everything accepted so far is applied. */
  onAwaited: () => void = () => {};

  readonly #options: EngineOptions;
  readonly #clock: Clock;
  readonly #emit: Emit<EngineEvents>;
  readonly #log: AppendLog;
  readonly #appliedWaiters: AppliedWaiter[] = [];
  readonly #staging: Staging;
  readonly #scratch = new FrameScratch();
  #frame: FrameBuilder | undefined;
  #frames: Frame[] = [];
  #lastSeq: number;
  #appliedSeq: number;
  #framedSeq: number;
  #accepting = true;
  #held = false;
  #releasing: Promise<void> = RESOLVED;

  constructor(options: EngineOptions, log: AppendLog, appliedSeq: number, env: EngineEnvironment) {
    this.#options = options;
    this.#clock = env.clock;
    this.#emit = env.emit;
    this.#log = log;
    this.health = env.health;
    this.#lastSeq = this.#appliedSeq = this.#framedSeq = appliedSeq;
    this.#staging = new Staging(appliedSeq + 1);
    this.admission = new Admission(options.admission, env.clock, {
      isLogFull: () => this.isLogFull,
      onDrain: () => env.emit('drain'),
    });
    this.commit = options.durability === 'memory' ? undefined : this.#makeCommit(options.durability, env);
    env.health.onFailed(() => this.#fail());
  }

  /** The highest sequence number given to a write. */
  get lastSeq(): number {
    return this.#lastSeq;
  }

  /** The watermark. */
  get appliedSeq(): number {
    return this.#appliedSeq;
  }

  /** Writes that are accepted and neither applied nor dead. */
  get pending(): number {
    return this.#lastSeq - this.#appliedSeq;
  }

  get isLogFull(): boolean {
    return this.#log.bytes >= this.#options.logMaxBytes;
  }

  /** What the log has done and holds. */
  get log(): LogNumbers {
    return this.#log;
  }

  /** Every write up to this one is on the disk: synced in the log, or applied. */
  get durableSeq(): number {
    return this.commit === undefined ? this.#appliedSeq : Math.max(this.#appliedSeq, this.#log.syncedSeq);
  }

  /** What is neither synced nor applied: everything that is staged, where no log is kept. */
  get unsynced(): { readonly bytes: number; readonly since: number | undefined } {
    if (this.commit === undefined) return { bytes: this.admission.bytes, since: this.#staging.since };
    const { bytes, since } = this.#log.unsynced;
    const [first] = this.#frames;
    return {
      bytes: this.#frames.reduce((total, frame) => total + frame.bytes.length, bytes) + (this.#frame?.bytes ?? 0),
      since: since ?? (first === undefined ? this.#frame?.acceptedAt : acceptedAtOf(first)),
    };
  }

  /** When the oldest write was accepted that is neither applied nor dead: milliseconds since 1970. */
  get pendingSince(): number | undefined {
    return this.#staging.since;
  }

  // ── writes ────────────────────────────────────────────────────────────────────────────────────────────────────────

  put(table: TableTarget, key: string, value: Encoded | AsciiText): boolean {
    const bytes = bytesOfPut(key, value);
    this.#admit(bytes);
    const frame = this.#openFrame();
    frame.put(table, key, value);
    this.#staging.open.set(table, key, frame);
    this.accepted.put++;
    return this.#accept(bytes);
  }

  delete(table: TableTarget, key: string): boolean {
    const bytes = WRITE_OVERHEAD_BYTES + key.length;
    this.#admit(bytes);
    const frame = this.#openFrame();
    frame.delete(table, key);
    this.#staging.open.set(table, key, frame);
    this.accepted.delete++;
    return this.#accept(bytes);
  }

  clear(table: TableTarget): boolean {
    this.#admit(WRITE_OVERHEAD_BYTES);
    this.#openFrame().clear(table);
    this.#staging.clear(table);
    this.accepted.clear++;
    return this.#accept(WRITE_OVERHEAD_BYTES);
  }

  append(target: Target, values: readonly SqlValue[]): boolean {
    const bytes = bytesOfValues(values);
    this.#admit(bytes);
    this.#openFrame().append(target, values);
    this.accepted.append++;
    return this.#accept(bytes);
  }

  stage(target: Target, values: readonly SqlValue[]): boolean {
    const bytes = bytesOfValues(values);
    this.#admit(bytes);
    this.#openFrame().stage(target, values);
    this.accepted.sql++;
    return this.#accept(bytes);
  }

  /** Makes sure, at its place in the order, that a table has the columns that the target names. */
  ensure(target: Target): boolean {
    this.#admit(WRITE_OVERHEAD_BYTES);
    this.#openFrame().ensure(target);
    this.accepted.ensure++;
    return this.#accept(WRITE_OVERHEAD_BYTES);
  }

  /** Several writes as one: applied whole or not at all. */
  group(members: readonly GroupMember[]): boolean {
    if (members.length === 0) return !this.admission.needsDrain;
    const bytes = bytesOfGroup(members);
    this.#admit(bytes);
    const frame = this.#openFrame();
    let entry = frame.entries;
    frame.group(members.length);
    for (const member of members) {
      if (!('table' in member)) frame.append(member.target, member.values);
      else if (member.value === null) frame.delete(member.table, member.key);
      else frame.put(member.table, member.key, member.value);
    }
    // Room for all of them first: of a group that fails for want of it nothing is seen.
    const { open } = this.#staging;
    const ofKeys = members.filter((member) => 'table' in member);
    for (const { table } of ofKeys) open.stageFor(table).reserve(ofKeys.length);
    for (const { table, key } of ofKeys) open.set(table, key, frame, entry++);
    this.accepted.group++;
    return this.#accept(bytes);
  }

  /**
   * Throws where the caller holds up the flush, and would wait for it. Before anything is done: what has been accepted cannot be
   * refused any more.
   */
  assertMayWait: (what: string) => void = () => {};

  /** The same for whoever writes something and then waits until it is as durable as the level says. */
  assertMayAwait(what = 'the write'): void {
    if (this.#options.durability === 'applied') this.assertMayWait(`${what}, at the level 'applied',`);
  }

  /** Waits for room as long as the options say, then makes the write. */
  async whenRoom<T>(bytes: number, write: () => T | Promise<T>, wait: WaitOptions): Promise<T> {
    // There is none before a batch has gone down.
    this.assertMayWait('the write, which there is no room for,');
    return this.admission.whenRoom(bytes, write, wait);
  }

  /**
   * Resolves when everything accepted so far is as durable as the level says. At `'applied'` it rejects if the write
   * accepted last is refused by SQLite, which is what its caller wants to know; `mustLive: false` asks for all writes,
   * and for none in particular.
   */
  acknowledgement(mustLive = true): Promise<void> {
    if (this.health.state === 'failed') return rejected(this.#failedError());
    switch (this.#options.durability) {
      case 'memory':
        return RESOLVED;
      case 'applied':
        if (this.pending > 0) this.onAwaited();
        return this.whenApplied(this.#lastSeq, mustLive);
      default:
        return (this.commit as GroupCommit).acknowledgement();
    }
  }

  // ── reads ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The newest staged value of a key; `undefined` if staging does not know it. */
  lookup(target: TableTarget, key: string): Staged {
    return this.#staging.lookup(target, key);
  }

  /** Whether a write to a key-value table was found in the log at open. */
  hasRecovered(target: TableTarget): boolean {
    return this.#staging.hasRecovered(target);
  }

  /** What is accepted and not yet applied: see {@link Staging.all}. */
  generations(): readonly ReadonlyGeneration[] {
    return this.#staging.all();
  }

  // ── flush ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Ends the open generation and opens a new one. Its frame ends with it, so frames never cross generations. */
  seal(): void {
    if (this.#staging.open.writes === 0) return;
    this.#closeFrame();
    this.#staging.seal();
  }

  /**
   * The oldest sealed generations, as many as fit into one batch and are in the log, at least one; none where nothing is
   * sealed. Waits for the first to be logged, but for no other: what is applied makes room in a log that is full.
   */
  async nextBatch(maxWrites: number, maxBytes: number): Promise<readonly SealedGeneration[]> {
    const first = this.#staging.oldest;
    if (first === undefined) return [];
    await this.commit?.reached(first.lastSeq);
    return this.#staging.batch(this.commit?.acknowledgedSeq ?? this.#lastSeq, maxWrites, maxBytes);
  }

  /** The store has applied everything up to `seq`. */
  applied(seq: number, { applied, coalesced, dead, durable }: Outcome): void {
    this.counters.applied += applied;
    this.counters.coalesced += coalesced;
    this.counters.deadLettered += dead.length;
    this.#appliedSeq = seq;
    const done = this.#staging.drop(seq);
    const bytes = done.reduce((total, generation) => total + generation.bytes, 0);
    const writes = done.reduce((total, generation) => total + generation.writes, 0);
    this.counters.bytesApplied += bytes;
    if (durable) this.releaseLog();
    this.admission.release(bytes, writes);
    this.#settleAppliedWaiters(seq, dead);
  }

  /** Resolves when everything up to `seq` is applied or dead. */
  whenApplied(seq: number, mustLive = false): Promise<void> {
    if (seq <= this.#appliedSeq) return RESOLVED;
    if (this.health.state === 'failed') return rejected(this.#failedError());
    const done = new Deferred<void>();
    this.#appliedWaiters.push({ seq, mustLive, done });
    return done.promise;
  }

  // ── life ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Takes a frame over that recovery has found in the log. */
  adopt(frame: Frame): void {
    this.#staging.adopt(frame, this.#lastSeq);
    const writes = frame.lastSeq - this.#lastSeq;
    this.counters.recovered += writes;
    this.#lastSeq = this.#framedSeq = frame.lastSeq;
    this.commit?.adopt(frame.lastSeq);
    const { open } = this.#staging;
    if (open.writes === 0) open.since = acceptedAtOf(frame);
    open.writes += writes;
    open.bytes += frame.bytes.length;
    open.lastSeq = frame.lastSeq;
    this.admission.bytes += frame.bytes.length;
    this.admission.entries += writes;
    if (open.writes >= GENERATION_WRITES) this.seal();
  }

  /** Accepts nothing until the function that it returns is called: the data is about to be other data. */
  hold(): () => void {
    this.#held = true;
    return () => {
      this.#held = false;
    };
  }

  /**
   * Goes on for other data, which has everything up to `seq`, in a log of another epoch. To be called while it is held, with
   * nothing pending.
   */
  async renew(epoch: number, seq: number): Promise<void> {
    this.#lastSeq = this.#appliedSeq = this.#framedSeq = seq;
    this.#staging.restart(seq);
    if (this.commit !== undefined) return this.commit.renew(epoch, seq);
    await this.#releasing;
    await this.#log.renew(epoch, seq);
    this.releaseLog();
  }

  /** Accepts nothing any more. */
  stopIntake(): void {
    this.#accepting = false;
    this.admission.end(closedError());
  }

  /** To be called with an idle flush: syncs and closes the log. */
  async close(): Promise<void> {
    this.seal();
    if (this.pending === 0) this.commit?.seal();
    await this.commit?.close();
    const error = closedError();
    for (const { done } of this.#appliedWaiters.splice(0)) done.reject(error);
  }

  #makeCommit(durability: LogDurability | 'applied', env: EngineEnvironment): GroupCommit {
    const options: GroupCommitOptions = {
      // What is acknowledged when it is applied needs the log only against the death of the process.
      durability: durability === 'applied' ? 'os' : durability,
      syncIntervalMs: this.#options.syncIntervalMs,
    };
    const source = { takeFrames: () => this.#takeFrames(), onLogChange: () => this.#checkLogSize() };
    return new GroupCommit(this.#log, source, options, this.#lastSeq, env);
  }

  /** Throws where no write can be accepted, whatever room there is. */
  assertAccepting(): void {
    if (!this.#accepting) throw closedError();
    if (this.health.state === 'failed') throw this.#failedError();
    if (this.#held) throw heldError();
  }

  /** The same for a write: one that is turned away is counted. */
  assertAcceptingWrite(): void {
    if (this.#accepting && !this.#held && this.health.state !== 'failed') return;
    this.admission.refused[this.#accepting && !this.#held ? 'failed' : 'closed']++;
    this.assertAccepting();
  }

  /** Counts a write that was turned away for what it wanted to write. Returns the error, to be thrown: no closure per write. */
  countInvalid(error: unknown): unknown {
    // A row with a new column makes a write of its own first, which may have been turned away and counted.
    const code = codeOf(error) ?? '';
    const counted = ['SLUICE_FULL', 'SLUICE_CLOSED', 'SLUICE_FAILED'].includes(code);
    if (!counted && !(this.#held && code === 'SLUICE_CONFLICT')) this.admission.refused.invalid++;
    return error;
  }

  /** Throws unless there is room for several writes at once. */
  assertRoom(bytes: number, writes: number): void {
    this.assertAcceptingWrite();
    this.admission.checkMany(bytes, writes);
  }

  #admit(bytes: number): void {
    this.assertAcceptingWrite();
    this.admission.check(bytes);
  }

  #openFrame(): FrameBuilder {
    if (this.#frame === undefined) {
      const now = this.#clock.now();
      this.#frame = new FrameBuilder(now, this.#scratch);
      const { open } = this.#staging;
      if (open.writes === 0) open.since = now;
    }
    // Of a write that has failed half-way, and was not accepted.
    this.#frame.undo();
    return this.#frame;
  }

  #accept(bytes: number): boolean {
    (this.#frame as FrameBuilder).keep();
    this.#lastSeq++;
    this.counters.bytesAccepted += bytes;
    const { open } = this.#staging;
    open.lastSeq = this.#lastSeq;
    open.writes++;
    open.bytes += bytes;
    if ((this.#frame as FrameBuilder).bytes >= FRAME_BYTES) this.#closeFrame();
    if (open.writes >= GENERATION_WRITES) this.seal();
    this.commit?.request();
    const plenty = this.admission.take(bytes);
    this.onAccepted();
    return plenty;
  }

  #closeFrame(): void {
    if (this.#frame === undefined) return;
    this.#frame.undo();
    const { count, entries } = this.#frame;
    const frame = count === 0 ? undefined : this.#frame.build(this.#framedSeq + 1);
    this.#frame = undefined;
    if (frame === undefined) return;
    this.#framedSeq = frame.lastSeq;
    this.#staging.open.addFrame(frame, entries);
    // What it took for a large one is not kept until the next one is begun.
    this.#scratch.reset();
    if (this.commit !== undefined) this.#frames.push(frame);
  }

  #takeFrames(): Frame[] {
    this.#closeFrame();
    const frames = this.#frames;
    this.#frames = [];
    return frames;
  }

  /** Everything up to the watermark is durable in the store: the log need not keep it. */
  releaseLog(): void {
    const seq = this.#appliedSeq;
    if (this.commit === undefined) {
      // Without a log of its own, this run may still have found one. Nobody else uses it.
      this.#releasing = this.#releasing
        .then(() => this.#log.release(seq))
        .then(
          () => this.#checkLogSize(),
          (error: Error) => this.#emit('failure', { during: 'log', error }),
        );
      return;
    }
    this.commit.release(seq);
    if (seq === this.#lastSeq && this.#log.bytes > this.#options.logMaxBytes / 2) this.commit.seal();
    this.#checkLogSize();
  }

  /** The log has got smaller, or larger. */
  #checkLogSize(): void {
    if (!this.isLogFull) this.admission.admitWaiting();
    else if (this.pending === 0) this.commit?.seal();
    else this.onAccepted();
  }

  #settleAppliedWaiters(seq: number, dead: readonly number[]): void {
    const died = new Set(dead);
    for (let i = this.#appliedWaiters.length - 1; i >= 0; i--) {
      const waiter = this.#appliedWaiters[i] as AppliedWaiter;
      if (waiter.seq > seq) continue;
      this.#appliedWaiters.splice(i, 1);
      if (waiter.mustLive && died.has(waiter.seq)) waiter.done.reject(deadError(waiter.seq));
      else waiter.done.resolve();
    }
  }

  #fail(): void {
    const error = this.#failedError();
    this.commit?.stop(error);
    this.admission.end(error);
    for (const { done } of this.#appliedWaiters.splice(0)) done.reject(error);
  }

  #failedError(): SluiceError {
    const { cause } = this.health;
    return new SluiceError(
      'SLUICE_FAILED',
      `the database has failed and takes no writes: ${cause?.message ?? 'unknown'}. Reads still work. Repair the cause, then open it again: what was accepted and logged is replayed`,
      { cause },
    );
  }
}

/** What a put costs in staging. */
export function bytesOfPut(key: string, value: Encoded | AsciiText): number {
  return WRITE_OVERHEAD_BYTES + key.length + value.length;
}

/** What a row or a statement costs in staging. */
export function bytesOfValues(values: readonly SqlValue[]): number {
  let bytes = WRITE_OVERHEAD_BYTES;
  for (const value of values) bytes += typeof value === 'string' || value instanceof Uint8Array ? value.length : 16;
  return bytes;
}

export function bytesOfGroup(members: readonly GroupMember[]): number {
  return members.reduce(
    (total, member) =>
      total + ('table' in member ? bytesOfPut(member.key, member.value ?? '') : bytesOfValues(member.values)),
    0,
  );
}

function closedError(): SluiceError {
  return new SluiceError('SLUICE_CLOSED', 'the database is closed: open it again to write');
}

function heldError(): SluiceError {
  return new SluiceError(
    'SLUICE_CONFLICT',
    'the database is being restored and takes no writes until arestore() has resolved: decide then whether they are still meant',
  );
}

function deadError(seq: number): SluiceError {
  return new SluiceError(
    'SLUICE_STORE',
    `SQLite refused write ${seq} for good: it is in the dead-letter queue, see agetDlq()`,
  );
}

const RESOLVED: Promise<void> = Promise.resolve();

/** A rejection that nobody has to look at. */
function rejected(error: SluiceError): Promise<never> {
  const promise = Promise.reject(error);
  promise.catch(() => undefined);
  return promise;
}
