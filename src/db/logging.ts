import type { Clock, Timer } from '../base/clock.ts';
import { show } from '../base/options.ts';
import type { Durability, State } from '../engine/index.ts';
import type { RecoveryReport } from '../engine/log/index.ts';
import type { DeadLetterSummary } from '../store/store.ts';
import type { BackupResult, RestoreResult } from './backup.ts';
import type { DatabaseEvents, EventHandlers } from './events.ts';
import { tell } from './tell.ts';

/**
 * What a line is about: `db` (the path) in every line; what went wrong as `err`, an Error, or as `errorMessage`, a string. The
 * message of the line does not repeat these two, so that they can be left out.
 */
export type LogFields = Readonly<Record<string, unknown>>;

/**
 * What a logger must have: the part of pino's and bunyan's that Sluice uses. What a method throws becomes an
 * `uncaughtException`, and stays out of the way of the work that it was told of.
 *
 * @example
 * ```ts
 * import { type LogFields, type Logger, open } from 'sluicedb';
 *
 * const line = (level: string) => (fields: LogFields, message: string) =>
 *   console.log(level, message, fields['errorMessage'] ?? fields['err'] ?? '');
 * const logger: Logger = { debug: () => {}, info: line('info'), warn: line('warn'), error: line('error') };
 *
 * const db = await open(':memory:', { logger });
 * await db.aexecute('CREATE TABLE t (n INTEGER CHECK (n > 0))');
 * db.stage('INSERT INTO t VALUES (?)', [-1]);
 * await db.close(); // … warn SQLite refused a write to t for good CHECK constraint failed: n > 0 …
 * ```
 */
export interface Logger {
  /** Each batch and each attempt. */
  debug(fields: LogFields, message: string): void;
  /** The few things one looks for later. */
  info(fields: LogFields, message: string): void;
  /** Something went wrong. */
  warn(fields: LogFields, message: string): void;
  /** Somebody has to do something, or something is lost. */
  error(fields: LogFields, message: string): void;
}

type Level = keyof Logger;

const LEVELS: readonly Level[] = ['debug', 'info', 'warn', 'error'];

/** What is wrong with a logger, if anything. */
export function loggerProblem(logger: unknown): string | undefined {
  if (logger === undefined) return undefined;
  const methods = Object(logger) as Readonly<Record<string, unknown>>;
  const missing = LEVELS.filter((level) => typeof methods[level] !== 'function');
  if (missing.length === 0) return undefined;
  const shape = `must be an object with the methods ${LEVELS.join(', ')}, as pino's are`;
  return missing.length === LEVELS.length
    ? `${shape}, not ${show(logger)}`
    : `${shape}: it has no ${missing.join(' and no ')}`;
}

/** How long what comes by the thousand is counted before it is told again. */
const BURST_MS = 1_000;

/** A failure that is the same as the last one is tried again many times a minute, and worth a line a minute. */
const SAME_FAILURE_MS = 60_000;

/** How bad a state is. */
const SEVERITY: Readonly<Record<State, number>> = { closed: 0, closing: 0, ok: 0, degraded: 1, space: 2, failed: 3 };

/** What a log says of a database besides its events. */
interface Subject {
  readonly path: string;
  readonly durability: Durability;
  readonly clock: Clock;
}

/**
 * The one place that decides what deserves a line in somebody's log, and on which level: see {@link Logger}. A line for each
 * write that died would say less than their number, and cost more.
 *
 * No value and no key is put into a line: what a logger is given ends up in places where it must not be.
 */
export class DatabaseLog {
  readonly #logger: Logger;
  readonly #subject: Subject;
  readonly #dead: Burst<DeadLetterSummary>;
  readonly #evicted: Burst<DeadLetterSummary>;
  /** What was said within the last minute, and when. */
  readonly #told = new Map<string, number>();
  #toldState: State = 'ok';
  #lastFailure: Error | undefined;

  static of(logger: Logger | undefined, subject: Subject): DatabaseLog | undefined {
    return logger === undefined ? undefined : new DatabaseLog(logger, subject);
  }

  private constructor(logger: Logger, subject: Subject) {
    this.#logger = logger;
    this.#subject = subject;
    this.#dead = new Burst(subject.clock, (count, { table, operation, errorCode, errorMessage }) => {
      const to = table === null ? '' : ` to ${table}`;
      const what = count === 1 ? `a write${to} for good` : `${count} writes for good, the last one${to}`;
      this.#say('warn', { count, table, operation, errorCode, errorMessage }, `SQLite refused ${what}`);
    });
    this.#evicted = new Burst(subject.clock, (count, { table }) => {
      const what = count === 1 ? 'a dead letter was' : `${count} dead letters were`;
      this.#say('error', { count, table }, `${what} dropped for good, to keep their queue within its limits`);
    });
  }

  /** Before anything of it is applied. */
  recovered({ tornBytes, setAside, damage }: RecoveryReport): void {
    if (tornBytes > 0) {
      this.#say('info', { tornBytes }, `${tornBytes} bytes that nothing vouched for were cut off the end of the log`);
    }
    if (damage !== undefined) {
      this.#say('warn', { damage, setAside }, `the log was damaged, what comes before the damage is kept: ${damage}`);
    } else if (setAside.length > 0) {
      this.#say('warn', { setAside }, `files in the log folder are not of this database: ${setAside.join(', ')}`);
    }
  }

  opened({ writes }: RecoveryReport): void {
    const { path, durability } = this.#subject;
    const found = writes === 0 ? '' : `: ${writes} writes were recovered from its log`;
    this.#say('info', { durability, recovered: writes }, `opened ${path}${found}`);
  }

  backedUp({ path, bytes, appliedSeq, durationMs }: BackupResult): void {
    this.#say('info', { destination: path, bytes, appliedSeq, durationMs }, `backed up to ${path}`);
  }

  restored({ from, bytes, appliedSeq, durationMs }: RestoreResult): void {
    this.#say('warn', { source: from, bytes, appliedSeq, durationMs }, `restored from ${from}: what was here is gone`);
  }

  closed(pending: number): void {
    const { path, durability } = this.#subject;
    this.#tellAll();
    if (pending === 0) return this.#say('info', { pending }, `closed ${path}`);
    const fate = durability === 'memory' ? 'they are lost' : 'those that are in the log are applied at the next open';
    this.#say('warn', { pending }, `closed ${path}, with ${pending} writes that are not applied: ${fate}`);
  }

  readonly handlers: EventHandlers = {
    flush: (flush) => this.#say('debug', flush, `${flush.writes} writes were flushed`),
    retry: ({ error, ...retry }) =>
      this.#say('debug', { ...retry, err: error }, `a flush failed (${retry.failure}) and is tried again`),
    checkpoint: (checkpoint) => {
      const isLoud = checkpoint.result === 'failed' && this.#isNews('checkpoint', '');
      this.#say(isLoud ? 'warn' : 'debug', { ...checkpoint }, `a checkpoint of SQLite's WAL: ${checkpoint.result}`);
    },
    failure: ({ during, error }) => {
      this.#lastFailure = error;
      const isLoud = this.#isNews(during, error.message);
      this.#say(isLoud ? 'warn' : 'debug', { during, err: error }, `something failed in the ${during}`);
    },
    state: (change) => this.#changed(change),
    stall: ({ reason, since, error }) =>
      this.#say('error', { reason, since, err: error }, `nothing is applied any more (${reason})`),
    resume: ({ reason, stalledMs }) => {
      const seconds = (stalledMs / 1_000).toFixed(1);
      this.#say('info', { reason, stalledMs }, `writes are applied again, after ${seconds} s (${reason})`);
    },
    'writer-restart': ({ reason }) => {
      const why = reason === 'death' ? 'it had died' : 'its connection could not be trusted any more';
      this.#say('warn', { reason }, `the writer thread was started again: ${why}`);
    },
    'dead-letter': (letter) => this.#dead.add(letter),
    evicted: (letter) => this.#evicted.add(letter),
  };

  /** Whether it was not said just so already, within the last minute. Another number, as of the next segment, is no news. */
  #isNews(topic: string, text: string): boolean {
    const now = this.#subject.clock.elapsed();
    for (const [told, at] of this.#told) if (now - at >= SAME_FAILURE_MS) this.#told.delete(told);
    const news = `${topic} ${text.replace(/\d+/g, '#')}`;
    if (this.#told.has(news)) return false;
    this.#told.set(news, now);
    return true;
  }

  #changed({ state, previous }: DatabaseEvents['state'][0]): void {
    // One line tells of the end, when all of it is over.
    if (state === 'closing' || state === 'closed') return;
    if (state === 'failed') this.#tellAll();
    const isWorse = SEVERITY[state] > SEVERITY[previous];
    // Where another program writes to the file as well, it goes to and fro all the time.
    const isLoud =
      state === 'failed' ||
      (isWorse ? this.#isNews(state, this.#lastFailure?.message ?? '') : SEVERITY[state] < SEVERITY[this.#toldState]);
    if (isLoud) this.#toldState = state;
    const level = !isLoud ? 'debug' : state === 'failed' ? 'error' : isWorse ? 'warn' : 'info';
    // The failure that brought it about is told right before it.
    const fields = isWorse ? { state, previous, err: this.#lastFailure } : { state, previous };
    this.#say(level, fields, `the database is ${state}, it was ${previous}`);
  }

  #tellAll(): void {
    this.#dead.tell();
    this.#evicted.tell();
  }

  #say(level: Level, fields: LogFields, message: string): void {
    tell(() => this.#logger[level]({ db: this.#subject.path, ...fields }, message));
  }
}

/** Tells what comes at once in one go, and then at most once a second how much more there was. */
class Burst<T> {
  readonly #clock: Clock;
  readonly #say: (count: number, last: T) => void;
  #count = 0;
  #last: T | undefined;
  #due = false;
  #quiet: Timer | undefined;

  constructor(clock: Clock, say: (count: number, last: T) => void) {
    this.#clock = clock;
    this.#say = say;
  }

  add(one: T): void {
    this.#count++;
    this.#last = one;
    if (this.#due || this.#quiet !== undefined) return;
    this.#due = true;
    setImmediate(() => this.tell());
  }

  tell(): void {
    this.#due = false;
    if (this.#last === undefined) return;
    const [count, last] = [this.#count, this.#last];
    this.#count = 0;
    this.#last = undefined;
    this.#quiet ??= this.#clock.after(BURST_MS, () => {
      this.#quiet = undefined;
      this.tell();
    });
    this.#say(count, last);
  }
}
