import { randomUUID } from 'node:crypto';
import { dirname } from 'node:path';
import pLimit from 'p-limit';
import { type Clock, systemClock, type Timer } from '../../base/clock.ts';
import type { Secrets } from '../../base/encryption/index.ts';
import { codeOf, messageOf, SluiceError } from '../../base/errors.ts';
import { diskMeaning, sqliteMeaning } from '../../base/failure.ts';
import type { FileSystem } from '../../base/file-system.ts';
import type { SqlValue } from '../../base/frame/index.ts';
import { nodeFileSystem } from '../../base/node-file-system.ts';
import { Deferred, settledWithin, sleep } from '../../base/waiting.ts';
import {
  type BackupOrder,
  type Batch,
  type BatchResult,
  type Breaker,
  type Checkpoint,
  type CopyFacts,
  type CopyWatch,
  type CountOverlay,
  type DeadLetterStore,
  type ExecutedAll,
  type ExecuteResult,
  type KeyRange,
  type KeysFound,
  type Parameters,
  type QueryLimits,
  type QueueChange,
  type QueueChanged,
  type QueueLimits,
  type RepeatedStatement,
  type Replaced,
  type Replacement,
  type RestartReason,
  type RotationStep,
  type RotationStepped,
  type SqlRow,
  type StagedCopy,
  type Statement,
  type Store,
  type StoreCursor,
  type StoreFacts,
  StoreFailure,
  type StoreNumbers,
  type StoreScan,
  type StoreTransaction,
  type Unlocked,
} from '../store.ts';
import { backUpTo, discardStaged, stageCopy, swapIn } from './copy/replacing.ts';
import { type FileId, fileIdOf } from './file-identity.ts';
import { HeldByCaller } from './held-by-caller.ts';
import { SqliteReader } from './reader/reader.ts';
import { ReaderPool, storeClosed } from './reader/reader-pool.ts';
import { directFailure, type Spawn, spawnWithin, spawnWorker, ThreadClient, ThreadDied } from './rpc.ts';
import type { WriterFacts, WriterProtocol, WriterReport, WriterStart } from './writer/writer-protocol.ts';

type WriterThread = ThreadClient<WriterProtocol>;

const WRITER_ENTRY = new URL('./writer/writer-thread.js', import.meta.url);

/** What a batch is decoded to is either gone at once or there until its end: more room for what is young is room for nothing. */
const WRITER_LIMITS = { maxYoungGenerationSizeMb: 12 };

/** Deaths of the writer thread in a row, with nothing done between them, before it is given up on. */
const DEATHS_MAX = 5;

/** How often the writer thread is asked how it is, whether or not there is work for it. */
const LOOK_MS = 2_000;

/** How long the writer thread has to itself between two goes at rows that have expired, where there are many. */
const SWEEP_PAUSE_MS = 20;

/** How long something else may read the database before it is not replaced under it. */
const SETTLE_MS = 5_000;
const SETTLE_PAUSE_MS = 50;

/** How often a writer thread for what has replaced the database is started, and how long the pause between two is. */
const RESTARTS_MAX = 5;
const RESTART_PAUSE_MS = 200;

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
  /** Renames copies that are complete. */
  readonly fileSystem?: FileSystem | undefined;
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
  readonly sync: SqliteReader;
  readonly deadLetters: DeadLetterStore;
  readonly #options: SqliteStoreOptions;
  readonly #readers: ReaderPool;
  readonly #clock: Clock;
  #facts: StoreFacts;
  /** The database file that the writer opened first: another one in its place is another database. */
  #database: FileId;
  /** While another file takes its place. */
  #replacing: Deferred<void> | undefined;
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
    discardStaged(options.path);
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
    this.#facts = started.facts;
    this.#report = started.report;
    this.#take(started.report);
    this.sync = new SqliteReader(options.path, started.database, 0);
    this.#readers = new ReaderPool(
      options.path,
      started.database,
      options.readers,
      options.spawn ?? spawnWorker,
      this.#clock,
    );
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

  get facts(): StoreFacts {
    return this.#facts;
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
    return this.#once('execute', { sql, parameters });
  }

  executeAll(statements: readonly RepeatedStatement[]): Promise<ExecutedAll> {
    return this.#once('executeAll', statements);
  }

  /** A call that is never made again: nobody knows how far it came where the thread died. */
  async #once<C extends 'execute' | 'executeAll'>(
    call: C,
    request: WriterProtocol[C]['request'],
  ): Promise<WriterProtocol[C]['response']> {
    // It was meant for what was there before.
    if (this.#replacing !== undefined) throw beingRestored();
    try {
      return await this.#turns(async () => (await this.#liveWriter()).call(call, request));
    } catch (error) {
      throw directFailure(error);
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

  backUp(order: BackupOrder, watch: CopyWatch): Promise<CopyFacts> {
    return backUpTo(order, { path: this.#options.path, database: this.#database }, this.#fileSystem, watch);
  }

  stage(source: string, watch: CopyWatch): Promise<StagedCopy> {
    return stageCopy(source, this.#options.path, watch);
  }

  /**
   * Until the rename, which replaces all at once, everything is as it was: the database without a WAL, with its log. From then
   * on there is the other one, and the log is not for it. So nobody may have the file open in between: SQLite would carry on
   * with what lies beside it, whichever database that is of.
   */
  replaceWith(copy: StagedCopy, replacement: Replacement, signal: AbortSignal): Promise<Replaced> {
    return this.#turns(() => this.#replaceWith(copy, replacement, signal));
  }

  async #replaceWith(
    copy: StagedCopy,
    { appliedSeq, unlocked, beforeSwap, onSwap }: Replacement,
    signal: AbortSignal,
  ): Promise<Replaced> {
    const { path, owner } = this.#options;
    const { databaseId, epoch } = this.#facts;
    await this.#liveWriter();
    this.#replacing = new Deferred();
    let facts: CopyFacts;
    try {
      await unlessAborted(this.#readers.hold(), signal);
      await this.#settle(signal);
      facts = await copy.seal({ databaseId, epoch: epoch + 1, appliedSeq, owner, key: unlocked?.store });
      signal.throwIfAborted();
      await this.#endWriter();
      // No turn of the event loop from here on, so that no synchronous read opens anything in between.
      beforeSwap();
      this.sync.close();
      swapIn(copy.path, path);
      this.#database = fileIdOf(path);
      this.sync.replaced(this.#database);
      const { epoch: next, appliedSeq: watermark, queue } = facts;
      this.#facts = { ...this.#facts, epoch: next, appliedSeq: watermark, queue, durable: true };
      this.#secrets = unlocked?.secrets;
      if (this.#secrets !== undefined) this.#readers.unlock(this.#secrets);
      onSwap();
    } catch (error) {
      this.#goOn();
      throw error;
    }
    return { facts, failure: await this.#goOnWithReplacement().catch((error: Error) => error) };
  }

  /** Nothing is in the WAL alone any more. */
  async #settle(signal: AbortSignal): Promise<void> {
    const latest = this.#clock.elapsed() + SETTLE_MS;
    for (;;) {
      this.sync.endScans();
      if (await this.#writer.call('settle', null)) return;
      if (this.#clock.elapsed() > latest) {
        throw new SluiceError(
          'SLUICE_CONFLICT',
          `some other program is reading ${this.#options.path}, and would go on with what is replaced: let it end, and try again`,
        );
      }
      await sleep(SETTLE_PAUSE_MS, this.#clock, signal);
      signal.throwIfAborted();
    }
  }

  async #endWriter(): Promise<void> {
    await this.#writer.call('close', null);
    await this.#writer.terminate();
    // It is started again on purpose: that is nothing to tell of, and no death.
    this.#restartTold = true;
    this.#deaths = 0;
  }

  async #goOnWithReplacement(): Promise<undefined> {
    try {
      await this.#fileSystem.syncDirectory(dirname(this.#options.path));
      for (let attempt = 1; ; attempt++) {
        try {
          await this.#restart();
          return undefined;
        } catch (error) {
          const isFinal = error instanceof StoreFailure && error.failure === 'fatal';
          if (isFinal || attempt === RESTARTS_MAX) throw error;
        }
        await sleep(RESTART_PAUSE_MS, this.#clock);
      }
    } finally {
      this.#goOn();
    }
  }

  #goOn(): void {
    this.#readers.release(this.#database);
    this.#replacing?.resolve();
    this.#replacing = undefined;
  }

  get #fileSystem(): FileSystem {
    return this.#options.fileSystem ?? nodeFileSystem;
  }

  query(sql: string, parameters: Parameters, limits: QueryLimits): Promise<SqlRow[]> {
    return this.#readers.query(sql, parameters, limits);
  }

  queryAll(statements: readonly Statement[], limits: QueryLimits): Promise<SqlRow[][]> {
    return this.#readers.queryAll(statements, limits);
  }

  cursor(statement: Statement): Promise<StoreCursor> {
    return this.#readers.cursor(statement);
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
      const isBusy = this.#starting !== undefined || this.#replacing !== undefined || this.#held !== undefined;
      if (!this.#writer.dead && !isBusy) {
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
    if (this.#replacing !== undefined) return this.#replacing.promise.then(() => this.#liveWriter());
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

/** What was asked of a database whose place another one takes. */
function beingRestored(): SluiceError {
  return new SluiceError(
    'SLUICE_CONFLICT',
    'the database is being restored: ask again when arestore() has resolved, and for what is there then',
  );
}

async function unlessAborted(done: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const aborted = new Deferred<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener('abort', onAbort);
  try {
    await Promise.race([done, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
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

function spawnWriter({ spawn = spawnWithin(WRITER_LIMITS) }: SqliteStoreOptions): WriterThread {
  return new ThreadClient(WRITER_ENTRY, spawn);
}
