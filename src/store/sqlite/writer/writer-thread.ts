import { type MessagePort, workerData } from 'node:worker_threads';
import { StoreFailure } from '../../store.ts';
import { serve } from '../rpc.ts';
import { Writer } from './writer.ts';
import type { WriterProtocol } from './writer-protocol.ts';

// SQLite says no to a write by throwing. Collecting a stack trace is most of what that costs, and no trace leaves this
// thread: see `toWire`.
Error.stackTraceLimit = 0;

const port = workerData as MessagePort;
let writer: Writer | undefined;

function started(): Writer {
  if (writer === undefined) throw new StoreFailure('fatal', 'the writer was used before it was started');
  return writer;
}

serve<WriterProtocol>(port, {
  start(request) {
    writer = new Writer(request);
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
  changeQueue: ({ id, change }) => started().changeQueue(id, change),
  close() {
    started().close();
    return null;
  },
});
