import type { MessagePort } from 'node:worker_threads';
import { StoreFailure } from '../../store.ts';
import type { Connection } from '../connection.ts';
import { serve } from '../rpc.ts';
import { openDatabase, Writer } from './writer.ts';
import type { WriterProtocol, WriterStart } from './writer-protocol.ts';

/** Answers the calls of the writer's protocol: one writer for each port. */
export function serveWriter(port: MessagePort): void {
  let opened: { readonly db: Connection; readonly start: WriterStart } | undefined;
  let writer: Writer | undefined;

  function started(): Writer {
    if (writer === undefined) throw new StoreFailure('fatal', 'the writer was used before it was started');
    return writer;
  }

  serve<WriterProtocol>(port, {
    open(start) {
      const { db, keys } = openDatabase(start);
      opened = { db, start };
      return keys;
    },
    start(unlocked) {
      if (opened === undefined) throw new StoreFailure('fatal', 'the writer was started before it was opened');
      writer = new Writer(opened.db, opened.start, unlocked);
      return { facts: writer.facts, database: writer.database, report: writer.report() };
    },
    apply: (batch) => {
      const result = started().apply(batch);
      return { result, report: started().report() };
    },
    look: ({ now }) => {
      started().assertFiles();
      const swept = started().sweep(now);
      return { report: started().report(), swept };
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
      started().close();
      return null;
    },
  });
}
