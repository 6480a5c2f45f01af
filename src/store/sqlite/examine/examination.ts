import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { SluiceError } from '../../../base/errors.ts';
import { Deferred } from '../../../base/waiting.ts';
import type { DatabaseFacts, ExamineFailure, ExamineReply, ExamineRequest } from './examine-protocol.ts';

const ENTRY = fileURLToPath(new URL('./examine-process.js', import.meta.url));

/**
 * Looks at a database from a process of its own, which changes nothing and blocks nobody's event loop. Must be ended.
 */
export class Examination {
  readonly #path: string;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;

  /** `folder`: of the log and the process lock. */
  constructor(path: string, folder: string) {
    this.#path = path;
    const stdio = ['ignore', 'ignore', 'inherit', 'ipc'] as const;
    this.#child = fork(ENTRY, [path, folder], { execArgv: [], serialization: 'advanced', stdio: [...stdio] });
    this.#exited = once(this.#child, 'exit').catch(() => undefined);
  }

  /** Whether a process has the database open. */
  async isHeld(): Promise<boolean> {
    return (await this.#ask({ ask: 'held' })) as boolean;
  }

  /** What the file says; with `check`, also what is wrong with it, which takes as long as reading all of it. */
  async facts(check: boolean): Promise<DatabaseFacts> {
    return (await this.#ask({ ask: 'facts', check })) as DatabaseFacts;
  }

  async end(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }

  async #ask(request: ExamineRequest): Promise<boolean | DatabaseFacts> {
    const done = new Deferred<ExamineReply>();
    const onMessage = (reply: unknown) => done.resolve(reply as ExamineReply);
    const onEnd = () => done.reject(this.#refused({ code: undefined, message: 'the process that reads it has died' }));
    this.#child.once('message', onMessage);
    this.#child.once('exit', onEnd);
    this.#child.once('error', onEnd);
    try {
      this.#child.send(request, (error) => {
        if (error !== null) onEnd();
      });
      const reply = await done.promise;
      if (!reply.ok) throw this.#refused(reply.failure);
      return reply.answer;
    } finally {
      this.#child.off('message', onMessage);
      this.#child.off('exit', onEnd);
      this.#child.off('error', onEnd);
    }
  }

  #refused({ code, message }: ExamineFailure): SluiceError {
    const what =
      code === 'SQLITE_NOTADB' ? `${this.#path} is no SQLite database` : `SQLite cannot read ${this.#path}: ${message}`;
    return new SluiceError('SLUICE_STORE', what, { sqliteCode: code });
  }
}
