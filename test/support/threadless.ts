import { EventEmitter } from 'node:events';
import type { MessagePort, Worker } from 'node:worker_threads';
import type { Machine } from '../../dist/db/open.js';
import { serveWriter } from '../../dist/store/sqlite/writer/serve-writer.js';

/**
 * The writer without a thread of its own: what it does, and in which order, is the same, but opening a database takes 6 ms instead
 * of 70. For a test that opens thousands of them one after the other. There are no readers: only synchronous reads.
 */
export const withoutThreads: NonNullable<Machine['spawn']> = (entry, port) => {
  if (!entry.pathname.endsWith('writer-thread.js')) throw new Error(`there is no ${entry.pathname} without threads`);
  return new NoThread(port) as unknown as Worker;
};

class NoThread extends EventEmitter {
  readonly #port: MessagePort;

  constructor(port: MessagePort) {
    super();
    this.#port = port;
    serveWriter(port);
  }

  ref(): void {}

  unref(): void {}

  async terminate(): Promise<number> {
    this.#port.close();
    setImmediate(() => this.emit('exit', 1));
    return 1;
  }
}
