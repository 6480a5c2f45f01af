import type { Stats } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import type { ValueCipher } from '../base/encryption/index.ts';
import { codeOf, messageOf, SluiceError } from '../base/errors.ts';
import { OptionReader, show } from '../base/options.ts';
import { checkWait, type WaitOptions } from '../base/waiting.ts';
import type { DeadLetterQueue } from '../dlq/index.ts';
import {
  type CopiedTable,
  type CopyFacts,
  type CopyProgress,
  type CopyWatch,
  StoreFailure,
  toCallerError,
} from '../store/store.ts';
import type { Core } from './core.ts';
import { unlockCopy } from './encryption.ts';
import { inspect } from './inspect.ts';
import { realFile } from './real-file.ts';
import { tell } from './tell.ts';

export type { CopyProgress } from '../store/store.ts';

/** Options of {@link Database.abackup}. The limit of time, and the signal, are for all of it. */
export interface BackupOptions extends WaitOptions {
  /** Replace a file that is there, when the copy is complete. @defaultValue false */
  readonly overwrite?: boolean | undefined;
  /**
   * What to do where there are dead letters, which are in no table: the copy has them too (`'include'`), or there is no copy
   * (`'refuse'`, `SLUICE_CONFLICT`).
   * @defaultValue 'include'
   */
  readonly deadLetters?: 'include' | 'refuse' | undefined;
  /** Is told how far it is. */
  readonly onProgress?: ((progress: CopyProgress) => void) | undefined;
}

/** What a backup is. */
export interface BackupResult {
  /** The file, with all links resolved. */
  readonly path: string;
  /** Its size. */
  readonly bytes: number;
  /** Every write up to this sequence number is in it, applied or as a dead letter, and none after it. */
  readonly appliedSeq: number;
  readonly durationMs: number;
}

/** Options of {@link Database.arestore} and {@link restore}. The limit of time, and the signal, end with the swap. */
export interface RestoreOptions extends WaitOptions {
  /** Is told how far it is. */
  readonly onProgress?: ((progress: CopyProgress) => void) | undefined;
}

/** What a restore has done. */
export interface RestoreResult {
  /** The database, with all links resolved. */
  readonly path: string;
  /** What it was restored from. */
  readonly from: string;
  /** Size of the file now. */
  readonly bytes: number;
  /** New writes get sequence numbers above this one. */
  readonly appliedSeq: number;
  /** The epoch of the database: segments of the log of earlier ones are never replayed. */
  readonly epoch: number;
  readonly durationMs: number;
}

/** What a backup or a restore works on. */
export interface CopyParts {
  readonly core: Core;
  readonly queue: DeadLetterQueue;
  readonly path: string;
}

/** The options of a backup, checked. */
export function readBackup(given: BackupOptions): {
  overwrite: boolean;
  deadLetters: 'include' | 'refuse';
  onProgress: (progress: CopyProgress) => void;
  wait: WaitOptions;
} {
  const options = new OptionReader(given);
  const overwrite = options.boolean('overwrite', false);
  const deadLetters = options.oneOf('deadLetters', ['include', 'refuse'], 'include');
  return { overwrite, deadLetters, ...finishCopyOptions(options, 'abackup') };
}

/** The options of a restore, checked. */
export function readRestore(
  given: RestoreOptions,
  what: string,
): { onProgress: (progress: CopyProgress) => void; wait: WaitOptions } {
  return finishCopyOptions(new OptionReader(given), what);
}

function finishCopyOptions(
  options: OptionReader,
  what: string,
): { onProgress: (progress: CopyProgress) => void; wait: WaitOptions } {
  const onProgress = options.any('onProgress');
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    options.refuse('onProgress', `must be a function, not ${show(onProgress)}`);
  }
  const wait = { signal: options.any('signal'), timeoutMs: options.any('timeoutMs') } as WaitOptions;
  options.finish(what);
  checkWait(wait);
  return { onProgress: (progress) => tell(() => (onProgress as BackupOptions['onProgress'])?.(progress)), wait };
}

/** What the database has to do with the swap of a restore. */
export interface Swapping {
  /** Throws where tables that are in use could not go on with those that take their place. */
  readonly assertFit: (tables: readonly CopiedTable[]) => void;
  readonly onSwap: () => void;
}

/** Writes a copy of an open database: see {@link Database.abackup}. */
export async function backUp(
  { core, path }: CopyParts,
  destination: string,
  { overwrite, deadLetters, onProgress }: ReturnType<typeof readBackup>,
  signal: AbortSignal,
): Promise<BackupResult> {
  const { store, flusher, clock } = core;
  const start = clock.elapsed();
  const { file, mode } = await freePlace(destination, path, overwrite);
  await flusher.barrier('abackup', { signal });
  const recheck = async () => void (await freePlace(file, path, overwrite));
  const { bytes, appliedSeq } = await asking(
    store.backUp({ destination: file, deadLetters, mode, recheck }, { signal, onProgress }),
  );
  return { path: file, bytes, appliedSeq, durationMs: clock.elapsed() - start };
}

/**
 * Puts the content of a file in the place of that of an open database: see {@link Database.arestore}. What takes long, copying and
 * checking, is done while the database works; then it stands still for as long as it takes to swap the files.
 */
export async function restoreInto(
  { core, queue, path }: CopyParts,
  cipher: ValueCipher | undefined,
  source: string,
  { assertFit, onSwap }: Swapping,
  watch: CopyWatch,
): Promise<RestoreResult> {
  const { store, engine, flusher, clock } = core;
  const start = clock.elapsed();
  const from = await restorable(source, path);
  const copy = await asking(store.stage(from, watch));
  try {
    const unlocked = unlockCopy(cipher, copy.facts.keys);
    const beforeSwap = () => assertFit(copy.facts.tables);
    // Now, while nothing has been held up, and again: a table may be asked for meanwhile.
    beforeSwap();
    const facts = await queue.whileIdle(async (): Promise<CopyFacts> => {
      // Most of the way while writes are still taken.
      await flusher.barrierUnlessStalled('arestore', { signal: watch.signal });
      const release = engine.hold();
      try {
        await flusher.barrierUnlessStalled('arestore', { signal: watch.signal });
        // What is applied must go on above what was, as must what is restored.
        const appliedSeq = Math.max(engine.lastSeq, copy.facts.appliedSeq);
        const { facts, failure } = await asking(
          store.replaceWith(copy, { appliedSeq, unlocked, beforeSwap, onSwap }, watch.signal),
        );
        if (cipher !== undefined && unlocked !== undefined) cipher.accepts = unlocked.secrets.accepts;
        queue.replaced(facts.queue);
        if (failure !== undefined) {
          engine.health.fail('flush', failure);
          engine.assertAccepting();
        }
        await engine.renew(facts.epoch, facts.appliedSeq);
        return facts;
      } finally {
        release();
      }
    }, watch.signal);
    const { bytes, appliedSeq, epoch } = facts;
    return { path, from, bytes, appliedSeq, epoch, durationMs: clock.elapsed() - start };
  } finally {
    await copy.discard();
  }
}

/** Where a backup goes, if it may: nothing that belongs to the database, and nothing that somebody still needs. */
async function freePlace(
  destination: string,
  path: string,
  overwrite: boolean,
): Promise<{ file: string; mode: number | undefined }> {
  if (typeof destination !== 'string' || destination === '' || destination === ':memory:') {
    throw new SluiceError('SLUICE_INVALID_OPTION', `a backup must go to a file, not to ${show(destination)}`);
  }
  const file = await realFile(destination);
  const found = await statOf(file);
  if (await isOneOf(file, found, path)) {
    throw new SluiceError('SLUICE_INVALID_OPTION', `${file} belongs to the database itself: choose another file`);
  }
  if (found !== undefined && !found.isFile()) {
    throw new SluiceError('SLUICE_INVALID_OPTION', `${file} is there, and is no file: choose another name`);
  }
  if (found !== undefined && !overwrite) {
    throw new SluiceError('SLUICE_CONFLICT', `${file} is there already: choose another name, or pass overwrite: true`);
  }
  for (const suffix of ['-wal', '-journal']) {
    if (((await statOf(file + suffix))?.size ?? 0) === 0) continue;
    throw new SluiceError(
      'SLUICE_CONFLICT',
      `beside ${file} lies ${basename(file)}${suffix}, of a database that was not closed, which SQLite would carry into the copy: choose another name`,
    );
  }
  return { file, mode: found?.mode };
}

/** Whether it is one of the files that a database consists of, under whatever name. */
async function isOneOf(file: string, found: Stats | undefined, path: string): Promise<boolean> {
  const folder = `${path}-log`;
  if (file === folder || dirname(file) === folder) return true;
  for (const suffix of ['', '-wal', '-shm', '-journal', '-restoring']) {
    if (file === path + suffix) return true;
    const own = await statOf(path + suffix);
    if (own !== undefined && own.ino === found?.ino && own.dev === found.dev) return true;
  }
  return false;
}

/** The file to restore from, if all that it has is in it. */
export async function restorable(source: string, path: string): Promise<string> {
  const { path: file, process, recovery } = await inspect(source);
  if (await isOneOf(file, await statOf(file), path)) {
    throw new SluiceError('SLUICE_INVALID_OPTION', `${file} is the database itself: name the file to restore from`);
  }
  if (process.open) {
    throw new SluiceError(
      'SLUICE_LOCKED',
      `${file} is open in a process: restore from a backup of it, or close it first`,
    );
  }
  if (recovery !== null && recovery.outcome !== 'nothing') {
    throw new SluiceError(
      'SLUICE_CONFLICT',
      `${file} was not closed, and its log has writes that are not in it: open it and close it first, or take its log away`,
    );
  }
  return file;
}

/** By name alone: a file of SQLite's is never opened here, see `store/sqlite/lock.ts`. */
async function statOf(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return undefined;
    throw new SluiceError('SLUICE_INVALID_OPTION', `${path} cannot be looked at: ${messageOf(cause)}`, { cause });
  }
}

/** What the store or the disk said, as the error a caller gets. */
export async function asking<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof StoreFailure) throw toCallerError(error);
    if (error instanceof SluiceError || !(error instanceof Error) || error.name === 'AbortError') throw error;
    throw new SluiceError('SLUICE_STORE', messageOf(error), { cause: error });
  }
}
