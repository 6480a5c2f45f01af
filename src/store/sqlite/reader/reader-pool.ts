import type { Secrets } from '../../../base/encryption/index.ts';
import { messageOf, SluiceError } from '../../../base/errors.ts';
import type { SqlValue } from '../../../base/frame/index.ts';
import { Deferred } from '../../../base/waiting.ts';
import type {
  CountOverlay,
  KeyRange,
  Parameters,
  QueryLimits,
  SqlRow,
  Statement,
  StoreCursor,
  StoreScan,
} from '../../store.ts';
import type { FileId } from '../file-identity.ts';
import { type Spawn, ThreadClient } from '../rpc.ts';
import { scansEnded } from './reader.ts';
import type { PointRead, ReaderProtocol } from './reader-protocol.ts';

type Reader = ThreadClient<ReaderProtocol>;

const ENTRY = new URL('./reader-thread.js', import.meta.url);

/** Point reads that were asked for in one tick and travel in one message. */
interface PointReads {
  readonly requests: PointRead[];
  readonly answer: Promise<(SqlValue | undefined)[][]>;
}

/** The reader threads: started when first needed, the least loaded one serves, a dead one is replaced. */
export class ReaderPool {
  readonly #path: string;
  #database: FileId;
  readonly #size: number;
  readonly #spawn: Spawn;
  readonly #readers: Reader[] = [];
  #secrets: Secrets | undefined;
  #pointReads: PointReads | undefined;
  /** While the database is being replaced. */
  #held: Deferred<void> | undefined;
  #closed = false;
  #closing: readonly Reader[] = [];
  /** Threads whose snapshots were let go, so that the database can be replaced. */
  readonly #endedOnPurpose = new WeakSet<Reader>();

  constructor(path: string, database: FileId, size: number, spawn: Spawn) {
    this.#path = path;
    this.#database = database;
    this.#size = size;
    this.#spawn = spawn;
  }

  async getMany(table: string, keys: readonly string[], liveAt?: number): Promise<(SqlValue | undefined)[]> {
    const reads = this.#pointReads ?? this.#collectPointReads();
    const place = reads.requests.push({ table, keys, liveAt }) - 1;
    return (await reads.answer)[place] as (SqlValue | undefined)[];
  }

  count(table: string, overlay: CountOverlay): Promise<number> {
    return this.call('count', { table, overlay });
  }

  query(sql: string, parameters: Parameters, limits: QueryLimits): Promise<SqlRow[]> {
    return this.call('query', { sql, parameters, limits });
  }

  async scan(table: string, range: KeyRange): Promise<StoreScan> {
    if (this.#held !== undefined) await this.#held.promise;
    const reader = this.#pick();
    const { scan, appliedSeq } = await readerErrors(reader.call('openScan', { table, range }));
    return {
      appliedSeq,
      next: (count) => this.#walking(reader, reader.call('nextOfScan', { scan, count })),
      close: () => void reader.call('closeScan', { scan }),
    };
  }

  async cursor(statement: Statement): Promise<StoreCursor> {
    if (this.#held !== undefined) await this.#held.promise;
    const reader = this.#pick();
    const cursor = await readerErrors(reader.call('openCursor', statement));
    return {
      next: (count) => this.#walking(reader, reader.call('nextOfCursor', { cursor, count })),
      close: () => void reader.call('closeCursor', cursor),
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#held?.resolve();
    await this.#end();
  }

  /** Ends the threads when they have answered. Who asks for something meanwhile waits until {@link release}. */
  hold(): Promise<void> {
    this.#held = new Deferred();
    for (const reader of this.#readers) this.#endedOnPurpose.add(reader);
    return this.#end();
  }

  async #walking<T>(reader: Reader, answer: Promise<T>): Promise<T> {
    try {
      return await readerErrors(answer);
    } catch (error) {
      if (this.#closed) throw storeClosed();
      throw reader.dead && this.#endedOnPurpose.has(reader) ? scansEnded() : error;
    }
  }

  /** Goes on, with the file that stands there now. */
  release(database: FileId): void {
    this.#database = database;
    this.#held?.resolve();
    this.#held = undefined;
  }

  async #end(): Promise<void> {
    this.#closing = this.#readers.splice(0);
    await Promise.all(
      this.#closing.map(async (reader) => {
        if (!reader.dead) await reader.call('close', null).catch(() => null);
        await reader.terminate();
      }),
    );
  }

  /** Lets {@link close} wait no longer for reads that are still running. */
  abandon(): void {
    for (const reader of this.#closing) reader.abandon();
  }

  #collectPointReads(): PointReads {
    const requests: PointReads['requests'] = [];
    const answer = Promise.resolve().then(() => {
      this.#pointReads = undefined;
      return this.call('getMany', requests);
    });
    this.#pointReads = { requests, answer };
    return this.#pointReads;
  }

  /** Hands the keys of the database to all threads, those to come included. */
  unlock(secrets: Secrets): void {
    this.#secrets = secrets;
    for (const reader of this.#readers) void reader.call('unlock', secrets).catch(() => null);
  }

  /** Any call that one answer settles. */
  async call<C extends keyof ReaderProtocol & string>(
    call: C,
    request: ReaderProtocol[C]['request'],
  ): Promise<ReaderProtocol[C]['response']> {
    if (this.#held !== undefined) await this.#held.promise;
    return readerErrors(this.#pick().call(call, request));
  }

  #pick(): Reader {
    if (this.#closed) throw storeClosed();
    for (const [i, reader] of this.#readers.entries()) if (reader.dead) this.#readers.splice(i, 1);
    const free = this.#readers.find((reader) => reader.load === 0);
    if (free !== undefined) return free;
    if (this.#readers.length < this.#size) return this.#start();
    return this.#readers.reduce((least, reader) => (reader.load < least.load ? reader : least));
  }

  #start(): Reader {
    const reader: Reader = new ThreadClient(ENTRY, this.#spawn);
    this.#readers.push(reader);
    void reader.call('start', { path: this.#path, database: this.#database });
    if (this.#secrets !== undefined) void reader.call('unlock', this.#secrets);
    return reader;
  }
}

/** For whoever still has something to ask when the threads have been ended. */
export function storeClosed(): SluiceError {
  return new SluiceError('SLUICE_CLOSED', 'the database is closed: open it again to use it');
}

/** A reader that died has done no harm: its caller may ask again. */
async function readerErrors<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof SluiceError) throw error;
    throw new SluiceError('SLUICE_STORE', `a read failed, ask again: ${messageOf(error)}`, { cause: error });
  }
}
