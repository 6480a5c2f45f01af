import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { endWithParent } from '../../../base/end-with-parent.ts';
import { codeOf, messageOf } from '../../../base/errors.ts';
import { isLocked } from '../lock.ts';
import type { ExamineReply, ExamineRequest } from './examine-protocol.ts';
import { examine } from './examiner.ts';

/**
 * The process in which a database is examined. SQLite works on a thread of it, so that the first one is free to see the
 * parent go: whatever is being read, it ends with the parent, and never in order (see `examiner.ts`).
 */
if (isMainThread) {
  const thread = new Worker(new URL(import.meta.url), { workerData: process.argv.slice(2) });
  thread.on('message', (reply: unknown) => process.send?.(reply));
  process.on('message', (request: unknown) => thread.postMessage(request));
  endWithParent();
  // Ctrl+C goes to all processes of a terminal; the parent ends this one when it is done.
  process.on('SIGINT', () => undefined);
} else {
  const [path, folder] = workerData as [string, string];
  parentPort?.on('message', (request: ExamineRequest) => parentPort?.postMessage(answer(path, folder, request)));
}

function answer(path: string, folder: string, request: ExamineRequest): ExamineReply {
  try {
    return { ok: true, answer: request.ask === 'held' ? isLocked(folder) : examine(path, folder, request.check) };
  } catch (error) {
    return { ok: false, failure: { code: codeOf(error), message: messageOf(error) } };
  }
}
