import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { messageOf } from '../base/errors.ts';
import { Deferred } from '../base/waiting.ts';
import { Refusal } from './answer.ts';
import type { QueryReply, QueryRequest } from './query-protocol.ts';

const ENTRY = fileURLToPath(new URL('./query-child.js', import.meta.url));

/** Queries that may wait for their turn. */
const QUEUE_MAX = 32;

/**
 * Runs statements of others in a child process, one at a time. One that takes longer than its time is killed with its
 * process, for SQLite cannot be stopped otherwise; the next one gets a new process.
 */
export class QueryProcess {
  readonly #path: string;
  readonly #timeoutMs: number;
  #child: ChildProcess | undefined;
  #started: Promise<void> = Promise.resolve();
  #last: Promise<unknown> = Promise.resolve();
  #queued = 0;
  #closed = false;
  /** Queries that were killed at their limit. */
  killed = 0;

  constructor(path: string, timeoutMs: number) {
    this.#path = path;
    this.#timeoutMs = timeoutMs;
  }

  /** The process that is at hand, for tests. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Has a process at hand, so that the next query need not wait for one. */
  async warm(): Promise<void> {
    await this.#ready();
  }

  /** Runs a statement when its turn comes. `signal` calls it off while it waits. */
  run(request: QueryRequest, signal: AbortSignal): Promise<QueryReply> {
    if (this.#queued >= QUEUE_MAX) {
      throw new Refusal(503, 'HTTP_BUSY', `${QUEUE_MAX} queries are waiting already: try again`, {
        'retry-after': '1',
      });
    }
    this.#queued++;
    const reply = this.#last.then(() => {
      this.#queued--;
      signal.throwIfAborted();
      return this.#runNow(request);
    });
    this.#last = reply.catch(() => undefined);
    return reply;
  }

  /** Ends the process, with whatever it is doing. */
  close(): void {
    this.#closed = true;
    this.#child?.kill('SIGKILL');
  }

  async #runNow(request: QueryRequest): Promise<QueryReply> {
    const child = await this.#ready();
    const done = new Deferred<QueryReply>();
    const onMessage = (reply: unknown) => done.resolve(reply as QueryReply);
    const onExit = () =>
      done.reject(new Refusal(500, 'HTTP_INTERNAL', 'the process of the query has ended before its answer'));
    const timer = setTimeout(() => {
      this.killed++;
      child.kill('SIGKILL');
      done.reject(new Refusal(504, 'SLUICE_TIMEOUT', `the query was stopped after ${this.#timeoutMs} ms`));
    }, this.#timeoutMs);
    child.on('message', onMessage);
    child.once('exit', onExit);
    child.send(request, (error) => {
      if (error !== null) done.reject(new Refusal(500, 'HTTP_INTERNAL', `the query was not sent: ${messageOf(error)}`));
    });
    try {
      return await done.promise;
    } finally {
      clearTimeout(timer);
      child.off('message', onMessage);
      child.off('exit', onExit);
      if (child.killed && !this.#closed) this.#start();
    }
  }

  /** A process that waits for queries. The time of a query starts when there is one. */
  async #ready(): Promise<ChildProcess> {
    if (this.#closed) throw new Refusal(503, 'SLUICE_CLOSED', 'the collector is closing');
    const child = this.#child?.connected === true && !this.#child.killed ? this.#child : this.#start();
    await this.#started;
    return child;
  }

  #start(): ChildProcess {
    const { SLUICE_TOKEN: _, SLUICE_ENCRYPTION_KEY: __, SLUICE_ENCRYPTION_PASSPHRASE: ___, ...env } = process.env;
    const stdio = ['ignore', 'ignore', 'inherit', 'ipc'] as const;
    const child = fork(ENTRY, [this.#path], { execArgv: [], env, serialization: 'advanced', stdio: [...stdio] });
    const started = new Deferred<void>();
    child.once('message', () => started.resolve());
    child.once('error', (error) => started.reject(notStarted(error.message)));
    child.once('exit', () => started.reject(notStarted('it ended at once')));
    // It ends with this process, and is no reason to go on.
    child.unref();
    child.channel?.unref();
    this.#child = child;
    this.#started = started.promise;
    return child;
  }
}

function notStarted(reason: string): Refusal {
  return new Refusal(500, 'HTTP_INTERNAL', `the process for queries did not start: ${reason}`);
}
