import { setEnvironmentData, type Worker } from 'node:worker_threads';
import type { Machine } from '../../dist/db/open.js';
import { wrappedWriter } from './wrapped-writer.ts';

const NAME = 'sluice-mortal-writer';

/**
 * Writer threads that can be ended at any moment between two statements, and before or after a COMMIT. (`terminate` would end
 * them inside a statement as well, where better-sqlite3 aborts the whole process if it is just about to throw.)
 */
export class MortalWriter {
  /** Moments until it ends: any, and those of statements alone. */
  readonly #countdown = new Int32Array(new SharedArrayBuffer(8));
  #writer: Worker | undefined;
  readonly spawn: NonNullable<Machine['spawn']>;

  /** Outside of a test it has to be told where it may put a file. */
  constructor(folder?: string) {
    const spawn = wrappedWriter(
      `
      const countdown = new Int32Array(threads.getEnvironmentData(${JSON.stringify(NAME)}));
      const count = (which) => {
        if (Atomics.load(countdown, which) > 0 && Atomics.sub(countdown, which, 1) === 1) process.exit(1);
      };
      const tick = () => {
        count(0);
        count(1);
      };
      const prepare = Sqlite.prototype.prepare;
      Sqlite.prototype.prepare = function (sql) {
        const statement = prepare.call(this, sql);
        const { run } = statement;
        statement.run = (...values) => {
          tick();
          const result = run.apply(statement, values);
          tick();
          return result;
        };
        return statement;
      };
      // While there is nothing to do.
      setInterval(() => count(0), 1).unref();
    `,
      folder === undefined ? {} : { folder },
    );
    this.spawn = (entry, port) => {
      setEnvironmentData(NAME, this.#countdown.buffer);
      const worker = spawn(entry, port);
      if (entry.pathname.endsWith('writer-thread.js')) this.#writer = worker;
      return worker;
    };
  }

  /** Ends the thread after so many moments before and after statements that it runs, if it comes to as many. */
  arm(moments: number): void {
    Atomics.store(this.#countdown, 1, moments);
  }

  disarm(): void {
    Atomics.store(this.#countdown, 1, 0);
  }

  /** Ends the thread after so many moments; resolves when it is dead. */
  async kill(moments = 1): Promise<void> {
    const writer = this.#writer;
    if (writer === undefined || writer.threadId === -1) return;
    const exited = new Promise((resolve) => writer.once('exit', resolve));
    Atomics.store(this.#countdown, 0, Math.max(1, moments));
    await exited;
  }
}
