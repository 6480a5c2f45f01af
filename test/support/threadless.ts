import { EventEmitter } from 'node:events';
import type { MessagePort, Worker } from 'node:worker_threads';
import type { Machine } from '../../dist/db/open.js';
import type { Connection } from '../../dist/store/sqlite/connection.js';
import { serve } from '../../dist/store/sqlite/rpc.js';
import { openDatabase, Writer } from '../../dist/store/sqlite/writer/writer.js';
import type { WriterProtocol, WriterStart } from '../../dist/store/sqlite/writer/writer-protocol.js';

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

/** As writer-thread.ts does. */
function serveWriter(port: MessagePort): void {
  let opened: { readonly db: Connection; readonly start: WriterStart } | undefined;
  let writer: Writer | undefined;
  const started = (): Writer => {
    if (writer === undefined) throw new Error('the writer was used before it was started');
    return writer;
  };
  serve<WriterProtocol>(port, {
    open(start) {
      const { db, keys } = openDatabase(start);
      opened = { db, start };
      return keys;
    },
    start(unlocked) {
      if (opened === undefined) throw new Error('the writer was started before it was opened');
      writer = new Writer(opened.db, opened.start, unlocked);
      return { facts: writer.facts, database: writer.database, report: writer.report() };
    },
    apply: (batch) => ({ result: started().apply(batch), report: started().report() }),
    look({ now }) {
      started().assertFiles();
      return { swept: started().sweep(now), report: started().report() };
    },
    execute: ({ sql, parameters }) => started().execute(sql, parameters),
    executeAll: (statements) => started().executeAll(statements),
    begin() {
      started().begin();
      return null;
    },
    executeHeld: (statement) => started().executeHeld(statement),
    commit() {
      started().commit();
      return null;
    },
    rollback() {
      started().rollback();
      return null;
    },
    changeQueue: ({ id, change }) => started().changeQueue(id, change),
    rotate: (step) => started().rotate(step),
    settle: () => started().settle(),
    close() {
      writer?.close();
      return null;
    },
  });
}
