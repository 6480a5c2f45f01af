import { parentPort, workerData } from 'node:worker_threads';
import { codeOf, messageOf } from '../base/errors.ts';
import { QueryConnection } from '../store/sqlite/index.ts';
import type { QueryReply, QueryRequest } from './query-protocol.ts';

const connection = new QueryConnection(workerData as string);

function answer({ sql, ...limits }: QueryRequest): QueryReply {
  try {
    return { ok: true, result: connection.run(sql, limits) };
  } catch (error) {
    return { ok: false, code: codeOf(error), message: messageOf(error) };
  }
}

parentPort?.on('message', (request: QueryRequest) => parentPort?.postMessage(answer(request)));
// Ready: see QueryProcess.
parentPort?.postMessage(null);
