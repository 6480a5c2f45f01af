import { randomUUID } from 'node:crypto';
import { codeOf, messageOf, SluiceError } from '../../base/errors.ts';
import { diskMeaning, sqliteMeaning } from '../../base/failure.ts';
import type { SqlValue } from '../../base/frame/index.ts';
import type { CountOverlay } from '../store.ts';
import {
  type Batch,
  type BatchResult,
  type Breaker,
  type DeadLetterStore,
  type ExecuteResult,
  type KeyRange,
  type Parameters,
  type QueryLimits,
  type QueueChange,
  type QueueChanged,
  type QueueLimits,
  type SqlRow,
  type Store,
  type StoreFacts,
  StoreFailure,
  type StoreScan,
} from '../store.ts';
import { SqliteReader } from './reader.ts';
import { ReaderPool, storeClosed } from './reader-pool.ts';
import { type Spawn, spawnWorker, ThreadClient, ThreadDied } from './rpc.ts';
import type { WriterProtocol, WriterStart } from './writer-protocol.ts';

type WriterThread = ThreadClient<WriterProtocol>;

const WRITER_ENTRY = new URL('./writer-thread.js', import.meta.url);

/** Deaths of the writer thread in a row, with no batch applied between them, before it is given up on. */
const DEATHS_MAX = 5;

export interface SqliteStoreOptions {
  readonly path: string;
  /** Names this process in the state row. */
  readonly owner: string;
  readonly readers: number;
  readonly queueLimits: QueueLimits;
  readonly breaker: Breaker;
  readonly spawn?: Spawn | undefined;
  readonly onWriterRestart?: ((reason: string) => void) | undefined;
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
  #writer: WriterThread;
  #deaths = 0;
  /** Failures by code since a batch was applied. */
  readonly #failures = new Map<string, number>();
  #starting: Promise<WriterThread> | undefined;
  #check = false;
  #closed = false;

  static async open(options: SqliteStoreOptions): Promise<SqliteStore> {
    const writer = spawnWriter(options);
    try {
      const facts = await writer.call('start', { ...startOf(options), takeOver: true, check: false });
      return new SqliteStore(options, writer, facts);
    } catch (error) {
      await writer.terminate();
      if (error instanceof SluiceError) throw error;
      throw new SluiceError('SLUICE_STORE', `SQLite cannot open ${options.path}: ${messageOf(error)}`, {
        cause: error,
        sqliteCode: error instanceof StoreFailure ? error.sqliteCode : undefined,
      });
    }
  }

  private constructor(options: SqliteStoreOptions, writer: WriterThread, facts: StoreFacts) {
    this.#options = options;
    this.#writer = writer;
    this.facts = facts;
    this.sync = new SqliteReader(options.path, 0);
    this.#readers = new ReaderPool(options.path, options.readers, options.spawn ?? spawnWorker);
    this.deadLetters = {
      list: (range) => this.#readers.call('deadLetters', range),
      listSummaries: (range) => this.#readers.call('deadLetterSummaries', range),
      listPortable: (range) => this.#readers.call('portableDeadLetters', range),
      get: (id) => this.#readers.call('deadLetter', id),
      summary: (filter) => this.#readers.call('deadLetterGroups', filter),
      change: (change) => this.#changeQueue(change),
    };
  }

  async apply(batch: Batch): Promise<BatchResult> {
    try {
      const result = await this.#call('apply', batch);
      this.#deaths = 0;
      this.#failures.clear();
      return result;
    } catch (error) {
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

  async reopen(): Promise<void> {
    // Terminated in the middle of a call, as of a checkpoint in a gap, better-sqlite3 aborts the process when it throws.
    await this.#writer.call('close', null).catch(() => null);
    await this.#writer.terminate();
    this.#check = true;
  }

  execute(sql: string, parameters: Parameters): Promise<ExecuteResult> {
    return this.#direct('execute', { sql, parameters });
  }

  /** A call of the user's own, which is made once: what goes wrong is for the caller to know. */
  async #direct<C extends keyof WriterProtocol & string>(
    call: C,
    request: WriterProtocol[C]['request'],
  ): Promise<WriterProtocol[C]['response']> {
    try {
      return await (await this.#liveWriter()).call(call, request);
    } catch (error) {
      if (error instanceof ThreadDied) {
        throw new SluiceError(
          'SLUICE_OUTCOME_UNKNOWN',
          'the writer thread died before it answered: what was asked for may or may not have been committed, look before you ask again',
          { cause: error },
        );
      }
      if (error instanceof StoreFailure) {
        throw new SluiceError('SLUICE_STORE', `SQLite refused: ${error.message}`, {
          cause: error,
          sqliteCode: error.sqliteCode,
        });
      }
      throw error;
    }
  }

  async #changeQueue(change: QueueChange): Promise<QueueChanged> {
    const id = randomUUID();
    for (;;) {
      try {
        return await (await this.#liveWriter()).call('changeQueue', { id, change });
      } catch (error) {
        // Under its id it is done once, however often it is asked for. Deaths in a row end in a failure of the start.
        if (!(error instanceof ThreadDied)) throw error;
      }
    }
  }

  query(sql: string, parameters: Parameters, limits: QueryLimits): Promise<SqlRow[]> {
    return this.#readers.query(sql, parameters, limits);
  }

  getMany(table: string, keys: readonly string[]): Promise<(SqlValue | undefined)[]> {
    return this.#readers.getMany(table, keys);
  }

  count(table: string, overlay: CountOverlay): Promise<number> {
    return this.#readers.count(table, overlay);
  }

  scan(table: string, range: KeyRange): Promise<StoreScan> {
    return this.#readers.scan(table, range);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.sync.close();
    await this.#readers.close();
    if (!this.#writer.dead) await this.#writer.call('close', null).catch(() => null);
    await this.#writer.terminate();
  }

  async #call<C extends keyof WriterProtocol & string>(
    call: C,
    request: WriterProtocol[C]['request'],
  ): Promise<WriterProtocol[C]['response']> {
    try {
      return await (await this.#liveWriter()).call(call, request);
    } catch (error) {
      if (!(error instanceof ThreadDied)) throw error;
      throw new StoreFailure('transient', error.message, undefined, error);
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
      throw new StoreFailure('fatal', `the writer thread died ${DEATHS_MAX} times without applying anything`);
    }
    this.#options.onWriterRestart?.(this.#check ? 'reopen' : 'death');
    const writer = spawnWriter(this.#options);
    this.#writer = writer;
    try {
      await writer.call('start', { ...startOf(this.#options), takeOver: false, check: this.#check });
    } catch (error) {
      // It did not die by itself: a locked database, say, or a process that is out of descriptors, is no crash loop.
      if (!(error instanceof ThreadDied) || isStarved(error.cause)) this.#deaths--;
      await writer.terminate();
      throw error;
    }
    this.#check = false;
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
