import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { codeOf, messageOf, SluiceError } from '../../../base/errors.ts';
import { Deferred } from '../../../base/waiting.ts';
import type { CopyFacts, CopyWatch } from '../../store.ts';
import { fromWire } from '../rpc.ts';
import type { CopyMessage, CopyRequest } from './copy-protocol.ts';

const ENTRY = fileURLToPath(new URL('./copy-process.js', import.meta.url));

/** A process that copies databases. Must be ended. */
export class Copying {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;

  constructor() {
    const stdio = ['ignore', 'ignore', 'inherit', 'ipc'] as const;
    this.#child = fork(ENTRY, { execArgv: [], serialization: 'advanced', stdio: [...stdio] });
    this.#exited = once(this.#child, 'exit').catch(() => undefined);
  }

  /** Rejects with the reason of the signal as soon as that is aborted: then the process has ended. */
  async ask(request: CopyRequest, { signal, onProgress }: CopyWatch): Promise<CopyFacts | null> {
    signal.throwIfAborted();
    const done = new Deferred<CopyFacts | null>();
    const onMessage = (sent: unknown) => {
      const message = sent as CopyMessage;
      if ('progress' in message) onProgress(message.progress);
      else if ('error' in message) done.reject(errorOf(fromWire(message.error)));
      else done.resolve(message.facts);
    };
    const onEnd = () => done.reject(new SluiceError('SLUICE_STORE', 'the process that copies has died'));
    const onExit = () => {
      if (!signal.aborted) onEnd();
    };
    const onAbort = () => void this.end().then(() => done.reject(signal.reason));
    this.#child.on('message', onMessage);
    this.#child.once('error', onEnd);
    this.#child.once('exit', onExit);
    signal.addEventListener('abort', onAbort);
    try {
      this.#child.send(request, (error) => {
        if (error !== null && !signal.aborted) onEnd();
      });
      return await done.promise;
    } finally {
      this.#child.off('message', onMessage);
      this.#child.off('error', onEnd);
      this.#child.off('exit', onExit);
      signal.removeEventListener('abort', onAbort);
    }
  }

  async end(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}

/** What SQLite or the disk said, as the error a caller gets. */
function errorOf(error: Error): Error {
  if (error instanceof SluiceError) return error;
  const code = codeOf(error);
  return new SluiceError('SLUICE_STORE', `the database cannot be copied: ${messageOf(error)}`, {
    cause: error,
    sqliteCode: code?.startsWith('SQLITE_') ? code : undefined,
  });
}
