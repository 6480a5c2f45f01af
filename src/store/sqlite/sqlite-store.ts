import { randomUUID } from 'node:crypto';
import pLimit from 'p-limit';
import { type Clock, systemClock, type Timer } from '../../base/clock.ts';
import type { Secrets } from '../../base/encryption/index.ts';
import { codeOf, messageOf, SluiceError } from '../../base/errors.ts';
import { diskMeaning, sqliteMeaning } from '../../base/failure.ts';
import type { SqlValue } from '../../base/frame/index.ts';
import { Deferred, settledWithin } from '../../base/waiting.ts';
import {
  type Batch,
  type BatchResult,
  type Breaker,
  type Checkpoint,
  type CountOverlay,
  type DeadLetterStore,
  type ExecuteResult,
  type KeyRange,
  type KeysFound,
  type Parameters,
  type QueryLimits,
  type QueueChange,
  type QueueChanged,
  type QueueLimits,
  type RestartReason,
  type RotationStep,
  type RotationStepped,
  type SqlRow,
  type Store,
  type StoreFacts,
  StoreFailure,
  type StoreNumbers,
  type StoreScan,
  type StoreTransaction,
  toCallerError,
  type Unlocked,
} from '../store.ts';
import type { FileId } from './file-identity.ts';
import { HeldByCaller } from './held-by-caller.ts';
import { SqliteReader } from './reader/reader.ts';
import { ReaderPool, storeClosed } from './reader/reader-pool.ts';
import { outcomeUnknown, type Spawn, spawnWorker, ThreadClient, ThreadDied } from './rpc.ts';
import type { WriterFacts, WriterProtocol, WriterReport, WriterStart } from './writer/writer-protocol.ts';

type WriterThread = ThreadClient<WriterProtocol>;

const WRITER_ENTRY = new URL('./writer/writer-thread.js', import.meta.url);

/** Deaths of the writer thread in a row, with nothing done between them, before it is given up on. */
const DEATHS_MAX = 5;

/** How often the writer thread is asked how it is, whether or not there is work for it. */
const LOOK_MS = 2_000;

/** How long the writer thread has to itself between two goes at rows that have expired, where there are many. */
const SWEEP_PAUSE_MS = 20;

export interface SqliteStoreOptions {
  readonly path: string;
  /** Names this process in the state row. */
  readonly owner: string;
  readonly readers: number;
  readonly queueLimits: QueueLimits;
  readonly breaker: Breaker;
  /** Is asked for the keys that the database needs; throws where they are not there. */
  readonly unlock?: ((found: KeysFound) => Promise<Unlocked | undefined>) | undefined;
  readonly spawn?: Spawn | undefined;
  readonly clock?: Clock | undefined;
  readonly onWriterRestart?: ((reason: RestartReason) => void) | undefined;
  readonly onCheckpoint?: ((checkpoint: Checkpoint) => void) | undefined;
  /** The database is lost to this process, without a batch that could have said so. */
  readonly onLost?: ((failure: StoreFailure) => void) | undefined;
}

/**
 * The store on SQLite: one writer thread with the only read-write connection, a pool of reader threads, and a reader on
 * the calling thread for the synchronous calls.
 */
export class SqliteStore implements Store {
  readonly facts: StoreFacts;
  readonly sync: SqliteReader;
  readonly deadLetters: DeadLetterStore;
  readonly #options: SqliteStoreOptions;
  readonly #readers: ReaderPool;
  readonly #clock: Clock;
  /** The database file that the writer opened first: another one in its place is another database. */
  readonly #database: FileId;
  #secrets: Secrets | undefined;
  #writer: WriterThread;
  #report: WriterReport;
  readonly #checkpoints = { complete: 0, partial: 0, failed: 0 };
  #expired = 0;
  #look: Timer | undefined;
  #deaths = 0;
  /** Whether the restart was told of that is still to succeed. */
  #restartTold = false;
  /** Failures by code since a batch was applied. */
  readonly #failures = new Map<string, number>();
  #starting: Promise<WriterThread> | undefined;
  #check = false;
  #closed = false;
  /** Calls of the writer, in the order in which they come: a transaction is one, from its beginning to its end. */
  readonly #turns = pLimit(1);
  /** The transaction whose turn it is. */
  #held: Deferred<void> | undefined;

  static async open(options: SqliteStoreOptions): Promise<SqliteStore> {
    const writer = spawnWriter(options);
    try {
      const found = await writer.call('open', { ...startOf(options), takeOver: true, check: false });
      const unlocked = await options.unlock?.(found);
      return new SqliteStore(options, writer, await writer.call('start', unlocked), unlocked?.secrets);
    } catch (error) {
      await writer.terminate();
      if (error instanceof SluiceError) throw error;
      throw new SluiceError('SLUICE_STORE', `SQLite cannot open ${options.path}: ${messageOf(error)}`, {
        cause: error,
        sqliteCode: error instanceof StoreFailure ? error.sqliteCode : undefined,
      });
    }
  }

  private constructor(
    options: SqliteStoreOptions,
    writer: WriterThread,
    started: WriterFacts,
    secrets: Secrets | undefined,
  ) {
    this.#secrets = secrets;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#writer = writer;
    this.#database = started.database;
    this.facts = started.facts;
    this.#report = started.report;
    this.#take(started.report);
    this.sync = new SqliteReader(options.path, started.database, 0);
    this.#readers = new ReaderPool(options.path, started.database, options.readers, options.spawn ?? spawnWorker);
    if (secrets !== undefined) this.#readers.unlock(secrets);
    this.deadLetters = {
      list: (range) => this.#readers.call('deadLetters', range),
      listSummaries: (range) => this.#readers.call('deadLetterSummaries', range),
      listPortable: (range) => this.#readers.call('portableDeadLetters', range),
      get: (id) => this.#readers.call('deadLetter', id),
      summary: (filter) => this.#readers.call('deadLetterGroups', filter),
      change: (change) => this.#changeQueue(change),
    };
    this.#lookLater();
  }

  get numbers(): StoreNumbers {
    return { ...this.#report, checkpoints: { ...this.#checkpoints }, expired: this.#expired };
  }

  apply(batch: Batch): Promise<BatchResult> {
    return this.#turns(() => this.#apply(batch));
  }

  async #apply(batch: Batch): Promise<BatchResult> {
    try {
      const { result, report } = await (await this.#liveWriter()).call('apply', batch);
      this.#take(report);
      this.#deaths = 0;
      this.#failures.clear();
      return result;
    } catch (error) {
      if (error instanceof ThreadDied) throw new StoreFailure('transient', error.message, undefined, error);
      throw error instanceof StoreFailure ? this.#escalate(error) : error;
    }
  }

  /** A failure that comes back may mean something else than the first one did. */
  #escalate(failure: StoreFailure): StoreFailure {
    const { sqliteCode: code } = failure;
    if (code === undefined) return failure;
    const count = (this.#failures.get(code) ?? 0) + 1;
    this.#failures.set(code, count);
    const later = sqliteMeaning(code)?.later;
    if (later === undefined || count < later.from) return failure;
    return new StoreFailure(later.class, `${failure.message} (${count} times)`, code, failure.cause);
  }

  reopen(): Promise<void> {
    return this.#turns(() => this.#reopen());
  }

  async #reopen(): Promise<void> {
    // Terminated in the middle of a call, as of a checkpoint in a gap, better-sqlite3 aborts the process when it throws.
    await this.#writer.call('close', null).catch(() => null);
    await this.#writer.terminate();
    this.#check = true;
  }

  execute(sql: string, parameters: Parameters): Promise<ExecuteResult> {
    return this.#turns(() => this.#execute(sql, parameters));
  }

  async #execute(sql: string, parameters: Parameters): Promise<ExecuteResult> {
    try {
      return await (await this.#liveWriter()).call('execute', { sql, parameters });
    } catch (error) {
      throw error instanceof ThreadDied ? outcomeUnknown(error) : toCallerError(error);
    }
  }

  transaction(): Promise<StoreTransaction> {
    const begun = new Deferred<StoreTransaction>();
    const turn = this.#turns(async () => {
      this.#held = new Deferred();
      const { resolve: end, promise: ended } = this.#held;
      try {
        const writer = await this.#liveWriter();
        await writer.call('begin', null);
        begun.resolve(
          new HeldByCaller(writer, (isCommitted) => {
            if (isCommitted) this.#deaths = 0;
            end();
          }),
        );
        await ended;
      } catch (error) {
        throw error instanceof ThreadDied ? new StoreFailure('transient', error.message, undefined, error) : error;
      } finally {
        this.#held = undefined;
      }
    });
    turn.catch(begun.reject);
    return begun.promise;
  }

  /** Under its id it is done once, however often it is asked for. */
  #changeQueue(change: QueueChange): Promise<QueueChanged> {
    return this.#untilAnswered('changeQueue', { id: randomUUID(), change });
  }

  /** A call that may be made again where the thread died before it could answer. A crash loop ends in a failure of the start. */
  #untilAnswered<C extends 'changeQueue' | 'rotate'>(
    call: C,
    request: WriterProtocol[C]['request'],
  ): Promise<WriterProtocol[C]['response']> {
    return this.#turns(() => this.#askUntilAnswered(call, request));
  }

  async #askUntilAnswered<C extends 'changeQueue' | 'rotate'>(
    call: C,
    request: WriterProtocol[C]['request'],
  ): Promise<WriterProtocol[C]['response']> {
    for (;;) {
      try {
        const answer = await (await this.#liveWriter()).call(call, request);
        this.#deaths = 0;
        return answer;
      } catch (error) {
        if (!(error instanceof ThreadDied)) throw error;
      }
    }
  }

  async rotate(step: RotationStep): Promise<RotationStepped> {
    const stepped = await this.#untilAnswered('rotate', step);
    const secrets = this.#secrets as Secrets;
    if (step.do === 'begin') {
      const others = secrets.keys.filter(({ id }) => id !== step.material.id);
      this.#secrets = { ...secrets, keys: [step.material, ...others] };
    }
    if (step.do === 'finish') this.#secrets = { ...secrets, accepts: 'nothing' };
    this.#readers.unlock(this.#secrets as Secrets);
    return stepped;
  }

  query(sql: string, parameters: Parameters, limits: QueryLimits): Promise<SqlRow[]> {
    return this.#readers.query(sql, parameters, limits);
  }

  getMany(table: string, keys: readonly string[], liveAt?: number): Promise<(SqlValue | undefined)[]> {
    return this.#readers.getMany(table, keys, liveAt);
  }

  count(table: string, overlay: CountOverlay): Promise<number> {
    return this.#readers.count(table, overlay);
  }

  scan(table: string, range: KeyRange): Promise<StoreScan> {
    return this.#readers.scan(table, range);
  }

  async close(limitMs?: number): Promise<{ readonly stuck: Promise<void> | undefined }> {
    this.#closed = true;
    this.#look?.cancel();
    // The end of its thread rolls it back.
    this.#held?.resolve();
    this.sync.close();
    const ended = this.#endThreads();
    if (limitMs === undefined) await ended;
    else if (!(await settledWithin(ended, limitMs, this.#clock))) {
      this.#readers.abandon();
      this.#writer.abandon();
      return { stuck: ended };
    }
    return { stuck: undefined };
  }

  async #endThreads(): Promise<void> {
    await this.#readers.close();
    if (!this.#writer.dead) await this.#writer.call('close', null).catch(() => null);
    await this.#writer.terminate();
  }

  #lookLater(): void {
    this.#look = this.#clock.after(LOOK_MS, () => void this.#lookNow());
  }

  /**
   * Whether SQLite's files are where they were: without this, nobody would know before the next write. And rows that have
   * expired are deleted, a few at a time; not inside somebody's transaction.
   */
  async #lookNow(): Promise<void> {
    let more = false;
    try {
      if (!this.#writer.dead && this.#starting === undefined && this.#held === undefined) {
        const { report, swept } = await this.#writer.call('look', { now: this.#clock.now() });
        this.#take(report);
        this.#expired += swept.expired;
        more = swept.more;
      }
    } catch (error) {
      if (error instanceof StoreFailure && error.failure === 'fatal') return this.#options.onLost?.(error);
      // A thread that has died, or a stat that failed: whoever writes next meets it.
    }
    if (this.#closed) return;
    if (more) this.#lookInGap(this.#clock.elapsed() + LOOK_MS);
    else this.#lookLater();
  }

  /** The next look, as soon as the writer has nothing to do: a batch does not wait for rows to be deleted. */
  #lookInGap(latest: number): void {
    this.#look = this.#clock.after(SWEEP_PAUSE_MS, () => {
      if (this.#writer.load > 0 && this.#clock.elapsed() < latest) this.#lookInGap(latest);
      else void this.#lookNow();
    });
  }

  #take(report: WriterReport): void {
    this.#report = report;
    for (const checkpoint of report.checkpoints) {
      this.#checkpoints[checkpoint.result]++;
      this.#options.onCheckpoint?.(checkpoint);
    }
  }

  /** The writer thread, started again if it has died. What it had not committed, SQLite has rolled back. */
  #liveWriter(): Promise<WriterThread> {
    // The lock may be another process's by now.
    if (this.#closed) return Promise.reject(storeClosed());
    if (this.#starting === undefined && this.#writer.dead) {
      this.#starting = this.#restart().finally(() => {
        this.#starting = undefined;
      });
    }
    return this.#starting ?? Promise.resolve(this.#writer);
  }

  async #restart(): Promise<WriterThread> {
    if (++this.#deaths > DEATHS_MAX) {
      throw new StoreFailure('fatal', `the writer thread died ${DEATHS_MAX} times without doing anything`);
    }
    if (!this.#restartTold) this.#options.onWriterRestart?.(this.#check ? 'reopen' : 'death');
    this.#restartTold = true;
    const writer = spawnWriter(this.#options);
    this.#writer = writer;
    try {
      const start = { ...startOf(this.#options), takeOver: false, check: this.#check, expected: this.#database };
      await writer.call('open', start);
      const secrets = this.#secrets;
      const { report } = await writer.call('start', secrets && { secrets, store: undefined });
      this.#take(report);
    } catch (error) {
      // It did not die by itself: a locked database, say, or a process that is out of descriptors, is no crash loop.
      if (!(error instanceof ThreadDied) || isStarved(error.cause)) this.#deaths--;
      else this.#restartTold = false;
      await writer.terminate();
      throw error;
    }
    this.#check = this.#restartTold = false;
    return writer;
  }
}

function startOf({ path, owner, queueLimits, breaker }: SqliteStoreOptions): Omit<WriterStart, 'takeOver' | 'check'> {
  return { path, owner, queueLimits, breaker };
}

/** Whether a thread could not start for want of descriptors or memory. */
function isStarved(cause: unknown): boolean {
  const code = codeOf(cause);
  return code === 'ERR_WORKER_INIT_FAILED' || diskMeaning(code) === 'transient';
}

function spawnWriter({ spawn = spawnWorker }: SqliteStoreOptions): WriterThread {
  return new ThreadClient(WRITER_ENTRY, spawn);
}
