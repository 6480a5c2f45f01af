import { Worker } from 'node:worker_threads';
import { endWithParent } from '../base/end-with-parent.ts';

/**
 * The process that queries run in. SQLite works on a thread of it, so that this one is free to see the parent go: whatever
 * the query is doing, it ends with the parent.
 */
const [, , path] = process.argv;
const thread = new Worker(new URL('./query-thread.js', import.meta.url), { workerData: path });

thread.on('message', (reply: unknown) => process.send?.(reply));
process.on('message', (request: unknown) => thread.postMessage(request));
endWithParent();
// Ctrl+C goes to all processes of a terminal; the parent ends this one when it is done.
process.on('SIGINT', () => undefined);
