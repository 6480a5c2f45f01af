import pLimit, { type LimitFunction } from 'p-limit';
import type { Clock } from '../../../base/clock.ts';
import type { Secrets } from '../../../base/encryption/index.ts';
import { messageOf, SluiceError } from '../../../base/errors.ts';
import type { SqlValue } from '../../../base/frame/index.ts';
import { Deferred, type WaitOptions, waitFor } from '../../../base/waiting.ts';
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
import { type Spawn, ThreadClient, ThreadDied } from '../rpc.ts';
import { scansEnded } from './reader.ts';
import type { PointRead, ReaderProtocol } from './reader-protocol.ts';
import { callOff, callOffAll, type StopWord, stopWord } from './stop-word.ts';

type Reader = ThreadClient<ReaderProtocol>;

const ENTRY = new URL('./reader-thread.js', import.meta.url);

/** How long a query that is called off has to notice it, between two rows, before its thread is given up on. */
const NOTICE_MS = 100;

const QUERY_ID_MAX = 0x7fff_ffff;

/** Point reads that were asked for in one tick and travel in one message. */
interface PointReads {
  readonly requests: PointRead[];
  readonly answer: Promise<(SqlValue | undefined)[][]>;
}

/** One thread, and what it is taken by. */
interface Seat {
  readonly thread: Reader;
  readonly started: Promise<unknown>;
  readonly stop: StopWord;
  /** Queries and pages of cursors under way. They may take any time, so nothing else is put behind them. */
  queries: number;
  /** Scans and cursors that are open: their snapshots are the thread's. */
  walks: number;
  /** Its query was called off, and has not noticed. */
  isLate: boolean;
  /** Its thread was given up on: what else it owed can be asked of another one. */
  isLost: boolean;
}

/**
 * The reader threads, started when first needed; a dead one is replaced. At most `size` queries run at a time, the others wait in
 * their order; each has a thread to itself while it runs. Key reads never wait for a query: where all threads are taken, they
 * get one more. So do walks, each of which keeps the thread that it began on.
 */
export class ReaderPool {
  readonly #path: string;
  #database: FileId;
  readonly #size: number;
  readonly #spawn: Spawn;
  readonly #clock: Clock;
  readonly #turns: LimitFunction;
  readonly #seats: Seat[] = [];
  /** Threads inside a native call, which nothing can stop, that nobody waits for. Each keeps a processor busy. */
  readonly #lost = new Set<Reader>();
  /** Queries that wait for their turn. */
  readonly #waiting = new Set<(error: SluiceError) => void>();
  #queryId = 0;
  #secrets: Secrets | undefined;
  #pointReads: PointReads | undefined;
  /** While the database is being replaced. */
  #held: Deferred<void> | undefined;
  #closed = false;
  /** Threads that are to end, and have not. */
  readonly #ending = new Set<Reader>();
  /** Threads whose snapshots were let go, so that the database can be replaced. */
  readonly #endedOnPurpose = new WeakSet<Reader>();

  constructor(path: string, database: FileId, size: number, spawn: Spawn, clock: Clock) {
    this.#path = path;
    this.#database = database;
    this.#size = size;
    this.#spawn = spawn;
    this.#clock = clock;
    this.#turns = pLimit(size);
  }

  async getMany(table: string, keys: readonly string[], liveAt?: number): Promise<(SqlValue | undefined)[]> {
    const reads = this.#pointReads ?? this.#collectPointReads();
    const place = reads.requests.push({ table, keys, liveAt }) - 1;
    return (await reads.answer)[place] as (SqlValue | undefined)[];
  }

  count(table: string, overlay: CountOverlay): Promise<number> {
    return this.call('count', { table, overlay });
  }

  query(sql: string, parameters: Parameters, { maxRows, ...wait }: QueryLimits): Promise<SqlRow[]> {
    return this.#query(wait, ({ thread }, id) => thread.call('query', { id, sql, parameters, maxRows }));
  }

  queryAll(statements: readonly Statement[], wait: QueryLimits): Promise<SqlRow[][]> {
    return this.#query(wait, ({ thread }, id) => thread.call('queryAll', { id, statements }));
  }

  async scan(table: string, range: KeyRange): Promise<StoreScan> {
    const seat = await this.#seatToWalk();
    const { thread } = seat;
    const { scan, appliedSeq } = await this.#begun(seat, thread.call('openScan', { table, range }));
    return {
      appliedSeq,
      next: (count) => this.#walking(thread, readerErrors(thread.call('nextOfScan', { scan, count }))),
      close: once(() => {
        seat.walks--;
        void thread.call('closeScan', { scan });
      }),
    };
  }

  async cursor(statement: Statement): Promise<StoreCursor> {
    const seat = await this.#seatToWalk();
    const { thread } = seat;
    const cursor = await this.#begun(seat, thread.call('openCursor', statement));
    const closed = new AbortController();
    return {
      next: (count) =>
        this.#walking(
          thread,
          this.#query({ signal: closed.signal }, (_, id) => thread.call('nextOfCursor', { id, cursor, count }), seat),
        ),
      close: once(() => {
        seat.walks--;
        // A page may be under way that nobody waits for any more.
        closed.abort();
        void thread.call('closeCursor', cursor);
      }),
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#held?.resolve();
    for (const refuse of this.#waiting) refuse(storeClosed());
    await this.#end();
  }

  /** Ends the threads when they have answered. Who asks for something meanwhile waits until {@link release}. */
  hold(): Promise<void> {
    this.#held = new Deferred();
    for (const { thread } of this.#seats) this.#endedOnPurpose.add(thread);
    return this.#end();
  }

  async #walking<T>(thread: Reader, answer: Promise<T>): Promise<T> {
    try {
      return await readerErrors(answer);
    } catch (error) {
      if (this.#closed) throw storeClosed();
      throw thread.dead && this.#endedOnPurpose.has(thread) ? scansEnded() : error;
    }
  }

  /** Goes on, with the file that stands there now. */
  release(database: FileId): void {
    this.#database = database;
    this.#held?.resolve();
    this.#held = undefined;
  }

  async #end(): Promise<void> {
    for (const { thread } of this.#seats.splice(0)) this.#ending.add(thread);
    for (const thread of this.#lost) this.#ending.add(thread);
    await Promise.all(
      [...this.#ending].map(async (thread) => {
        if (!thread.dead) await thread.call('close', null).catch(() => null);
        await thread.terminate();
        this.#ending.delete(thread);
      }),
    );
  }

  /** Lets {@link close} wait no longer for reads that are still running. */
  abandon(): void {
    for (const thread of this.#ending) thread.abandon();
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
    for (const { thread } of this.#seats) void thread.call('unlock', secrets).catch(() => null);
  }

  /** Any call that one answer settles, and that takes no time to speak of. */
  async call<C extends keyof ReaderProtocol & string>(
    call: C,
    request: ReaderProtocol[C]['request'],
  ): Promise<ReaderProtocol[C]['response']> {
    for (;;) {
      if (this.#held !== undefined) await this.#held.promise;
      const seat = this.#pick(this.#living().filter(({ queries }) => queries === 0));
      try {
        return await readerErrors(seat.thread.call(call, request));
      } catch (error) {
        // It was in the way of a query that was called off.
        if (!(seat.isLost && (error as SluiceError).cause instanceof ThreadDied)) throw error;
      }
    }
  }

  /** Something that may take any time: in its turn, on a thread on which nobody waits behind it, until it is called off. */
  async #query<T>(wait: WaitOptions, ask: (seat: Seat, id: number) => Promise<T>, pinned?: Seat): Promise<T> {
    const answer = new Deferred<T>();
    this.#queryId = (this.#queryId + 1) & QUERY_ID_MAX;
    const id = this.#queryId;
    let seat: Seat | undefined;
    let state: 'waiting' | 'running' | 'over' = 'waiting';
    this.#waiting.add(answer.reject);
    const turn = this.#turns(async () => {
      if (this.#held !== undefined) await this.#held.promise;
      this.#waiting.delete(answer.reject);
      if (state === 'over') return;
      seat = pinned ?? this.#pick(this.#living().filter(isFree));
      state = 'running';
      seat.queries++;
      try {
        answer.resolve(await readerErrors(ask(seat, id)));
      } finally {
        seat.queries--;
        seat.isLate = false;
        state = 'over';
      }
    });
    turn.catch(answer.reject);
    const callOff = () => {
      if (state === 'running' && seat !== undefined) this.#callOff(seat, id, () => state === 'running');
      else state = 'over';
    };
    try {
      return await waitFor(answer.promise, 'the query', wait, this.#clock, callOff);
    } catch (error) {
      if (!(error instanceof SluiceError && error.code === 'SLUICE_TIMEOUT')) throw error;
      throw seat === undefined && this.#held === undefined ? allTaken(this.#size) : tookTooLong();
    }
  }

  #callOff(seat: Seat, id: number, isRunning: () => boolean): void {
    callOff(seat.stop, id);
    const giveUp = () => {
      if (!isRunning() || seat.thread.dead) return;
      seat.isLate = true;
      this.#giveUp(seat);
    };
    const started = () => void this.#clock.after(NOTICE_MS, giveUp);
    seat.started.then(started, started);
  }

  /**
   * Goes on without a thread that does not come back. As many as there are readers may be lost at a time: each still has
   * its snapshot, and a processor. Beyond that, the turn ends when the call does.
   */
  #giveUp(seat: Seat): void {
    if (this.#lost.size >= this.#size) return;
    const place = this.#seats.indexOf(seat);
    if (place >= 0) this.#seats.splice(place, 1);
    const { thread } = seat;
    seat.isLost = true;
    this.#lost.add(thread);
    callOffAll(seat.stop);
    thread.abandon();
    void thread.terminate().then(() => {
      this.#lost.delete(thread);
      const next = this.#seats.find(({ isLate }) => isLate);
      if (next !== undefined) this.#giveUp(next);
    });
  }

  /** The thread of a walk: as few of them as may be on one, and no more threads with walks than there are readers. */
  async #seatToWalk(): Promise<Seat> {
    if (this.#held !== undefined) await this.#held.promise;
    const living = this.#living();
    const walking = living.filter(({ walks }) => walks > 0);
    const seat = walking.length < this.#size ? this.#pick(living.filter(isFree)) : fewestWalks(walking);
    seat.walks++;
    return seat;
  }

  async #begun<T>(seat: Seat, beginning: Promise<T>): Promise<T> {
    try {
      return await readerErrors(beginning);
    } catch (error) {
      seat.walks--;
      throw error;
    }
  }

  #living(): Seat[] {
    for (const seat of [...this.#seats]) {
      if (seat.thread.dead) this.#seats.splice(this.#seats.indexOf(seat), 1);
    }
    return this.#seats;
  }

  /** One of some threads, or a new one. */
  #pick(among: readonly Seat[]): Seat {
    if (this.#closed) throw storeClosed();
    const idle = among.find(({ thread }) => thread.load === 0);
    if (idle !== undefined) return idle;
    return among.length === 0 || this.#seats.length < this.#size ? this.#start() : leastLoaded(among);
  }

  #start(): Seat {
    const thread: Reader = new ThreadClient(ENTRY, this.#spawn);
    const stop = stopWord();
    const started = thread.call('start', { path: this.#path, database: this.#database, stop });
    const seat: Seat = { thread, started, stop, queries: 0, walks: 0, isLate: false, isLost: false };
    this.#seats.push(seat);
    if (this.#secrets !== undefined) void thread.call('unlock', this.#secrets);
    return seat;
  }
}

const isFree = ({ queries, walks }: Seat): boolean => queries === 0 && walks === 0;

function leastLoaded(seats: readonly Seat[]): Seat {
  return seats.reduce((least, seat) => (seat.thread.load < least.thread.load ? seat : least));
}

function fewestWalks(seats: readonly Seat[]): Seat {
  return seats.reduce((fewest, seat) => (seat.walks < fewest.walks ? seat : fewest));
}

function allTaken(readers: number): SluiceError {
  return new SluiceError(
    'SLUICE_TIMEOUT',
    `the query did not begin in time: as many others as \`readers\` lets run at once (${readers}) are under way. Give those that may take long a timeoutMs or a signal, or raise readers`,
  );
}

function tookTooLong(): SluiceError {
  return new SluiceError('SLUICE_TIMEOUT', 'the query did not finish within its timeoutMs, and was called off');
}

function once(run: () => void): () => void {
  let isDone = false;
  return () => {
    if (isDone) return;
    isDone = true;
    run();
  };
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
