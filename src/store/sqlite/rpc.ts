import { MessageChannel, type MessagePort, type ResourceLimits, Worker } from 'node:worker_threads';
import { messageOf, SluiceError, type SluiceErrorCode } from '../../base/errors.ts';
import { Deferred } from '../../base/waiting.ts';
import { type FailureClass, StoreFailure, toCallerError } from '../store.ts';

/** The calls that a thread answers: one type-only file per thread declares them. */
export type Protocol = Record<string, { request: unknown; response: unknown }>;

interface RequestMessage {
  readonly id: number;
  readonly call: string;
  readonly request: unknown;
}

interface ResponseMessage {
  readonly id: number;
  readonly response?: unknown;
  readonly error?: WireError;
}

/** An error by value: a class instance does not survive the way through a port. */
export interface WireError {
  readonly name: string;
  readonly message: string;
  readonly code?: string | undefined;
  readonly failure?: FailureClass;
  readonly sqliteCode?: string | undefined;
}

/** How a thread is started: passed in, so that a test can get hold of it and kill it. */
export type Spawn = (entry: URL, port: MessagePort) => Worker;

export const spawnWorker: Spawn = spawnWithin({});

/** The same for a thread that is to do with less memory than it could have. */
export function spawnWithin(resourceLimits: ResourceLimits): Spawn {
  return (entry, port) =>
    new Worker(entry, { workerData: port, transferList: [port], execArgv: [], name: 'sluice', resourceLimits });
}

/** The thread is gone, and with it the answers it owed. */
export class ThreadDied extends Error {
  override readonly name = 'ThreadDied';
}

/** What the caller of a write is told that has no number: it must not be made again unseen. */
export function directFailure(error: unknown): unknown {
  if (error instanceof ThreadDied) return outcomeUnknown('the writer thread died before it answered', error);
  // What was committed is in the WAL by then. SQLite takes it back, but a crash may find it there.
  if (error instanceof StoreFailure && error.sqliteCode === 'SQLITE_IOERR_FSYNC')
    return outcomeUnknown('the disk refused to sync it', error);
  return toCallerError(error);
}

function outcomeUnknown(why: string, cause: ThreadDied | StoreFailure): SluiceError {
  return new SluiceError(
    'SLUICE_OUTCOME_UNKNOWN',
    `${why}: what was asked for may or may not have been committed, look before you ask again`,
    { cause, sqliteCode: 'sqliteCode' in cause ? cause.sqliteCode : undefined },
  );
}

/** One thread, from start to death, and the calls it has not answered yet. */
export class ThreadClient<P extends Protocol> {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #pending = new Map<number, Deferred<unknown>>();
  readonly #exited = new Deferred<void>();
  #calls = 0;
  #dead: ThreadDied | undefined;
  #abandoned = false;

  constructor(entry: URL, spawn: Spawn) {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    this.#worker = spawn(entry, port2);
    // The thread holds the process only while it owes an answer: through its port, never by itself.
    this.#worker.unref();
    this.#port.on('message', (message: ResponseMessage) => this.#settle(message));
    this.#port.on('close', () => {
      // No answer can come any more. Its end says why, if it has not come already.
      if (this.#dead === undefined) void this.terminate();
    });
    this.#port.unref();
    this.#worker.on('error', (error) => this.#die(`a thread died: ${messageOf(error)}`, error));
    this.#worker.on('exit', (code) => {
      this.#die(`a thread ended with code ${code}`);
      this.#exited.resolve();
    });
  }

  get dead(): boolean {
    return this.#dead !== undefined;
  }

  call<C extends keyof P & string>(call: C, request: P[C]['request']): Promise<P[C]['response']> {
    const id = ++this.#calls;
    const answer = new Deferred<unknown>();
    if (this.#dead !== undefined) {
      answer.reject(this.#dead);
      return answer.promise as Promise<P[C]['response']>;
    }
    if (this.#pending.size === 0) this.#port.ref();
    this.#pending.set(id, answer);
    this.#port.postMessage({ id, call, request } satisfies RequestMessage);
    return answer.promise as Promise<P[C]['response']>;
  }

  /** How many calls wait for their answer. */
  get load(): number {
    return this.#pending.size;
  }

  /** Ends the thread, which owes nothing, and resolves when it has ended. It holds the process until then. */
  async terminate(): Promise<void> {
    if (!this.#abandoned) void this.#worker.terminate();
    this.#worker.ref();
    await this.#exited.promise;
  }

  /**
   * Waits no longer for a thread that may be inside a native call, which nothing can stop: its callers are told, and it
   * ends by itself when it has done what was asked of it. {@link terminate} still resolves when it has.
   *
   * Rejected: to terminate it. Where a native call then ends in an error, better-sqlite3 cannot make an exception of that, and aborts
   * the process. So does Node.js as it exits: it waits for its threads in any case, and waits for this one as long as it runs.
   */
  abandon(): void {
    this.#abandoned = true;
    this.#die('a thread was given up on: it did not end in time');
    this.#worker.ref();
  }

  #settle({ id, response, error }: ResponseMessage): void {
    const answer = this.#pending.get(id);
    if (answer === undefined) return;
    this.#pending.delete(id);
    if (this.#pending.size === 0) this.#port.unref();
    if (error === undefined) answer.resolve(response);
    else answer.reject(fromWire(error));
  }

  #die(message: string, cause?: unknown): void {
    if (this.#dead !== undefined) return;
    this.#dead = new ThreadDied(message, { cause });
    this.#port.close();
    for (const answer of this.#pending.values()) answer.reject(this.#dead);
    this.#pending.clear();
  }
}

/** The other end: answers the calls that come in through `port`, in the order in which they come. */
export function serve<P extends Protocol>(
  port: MessagePort,
  handlers: { [C in keyof P]: (request: P[C]['request']) => P[C]['response'] },
): void {
  port.on('message', ({ id, call, request }: RequestMessage) => {
    let answer: ResponseMessage;
    try {
      answer = { id, response: handlers[call as keyof P](request) };
    } catch (error) {
      answer = { id, error: toWire(error) };
    }
    port.postMessage(answer);
  });
}

export function toWire(error: unknown): WireError {
  const { name, message, code } = error as Partial<SluiceError> & { name?: string };
  const wire = { name: name ?? 'Error', message: message ?? String(error), code };
  if (error instanceof StoreFailure) return { ...wire, failure: error.failure, sqliteCode: error.sqliteCode };
  if (error instanceof SluiceError) return { ...wire, sqliteCode: error.sqliteCode };
  return wire;
}

export function fromWire({ name, message, code, failure, sqliteCode }: WireError): Error {
  if (failure !== undefined) return new StoreFailure(failure, message, sqliteCode);
  if (name === 'SluiceError') return new SluiceError(code as SluiceErrorCode, message, { sqliteCode });
  const error = new Error(message);
  return Object.assign(error, { name, code });
}
