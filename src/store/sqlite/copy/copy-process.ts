import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { endWithParent } from '../../../base/end-with-parent.ts';
import { toWire } from '../rpc.ts';
import { copy } from './copier.ts';
import type { CopyMessage, CopyRequest } from './copy-protocol.ts';

/**
 * The process in which databases are copied: here files are opened and closed as it has to be, which in the process that has
 * them open would free its locks; and it can be killed at any point, inside a call of SQLite too. The work is done on a
 * thread of it, so that the first one is free to see the parent go.
 */
if (isMainThread) {
  const thread = new Worker(new URL(import.meta.url));
  // A parent that has gone hears nothing, and this process ends in a moment.
  thread.on('message', (message: unknown) => process.send?.(message, () => undefined));
  process.on('message', (request: unknown) => thread.postMessage(request));
  endWithParent();
  // Ctrl+C goes to all processes of a terminal; the parent ends this one when it is done.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined);
} else {
  const say = (message: CopyMessage) => parentPort?.postMessage(message);
  parentPort?.on('message', async (request: CopyRequest) => {
    try {
      say({ facts: await copy(request, (progress) => say({ progress })) });
    } catch (error) {
      say({ error: toWire(error) });
    }
  });
}
