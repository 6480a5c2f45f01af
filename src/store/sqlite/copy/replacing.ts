import { randomBytes } from 'node:crypto';
import { chmodSync, closeSync, fsyncSync, openSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { messageOf, SluiceError } from '../../../base/errors.ts';
import type { FileSystem } from '../../../base/file-system.ts';
import type { BackupOrder, CopyFacts, CopyWatch, StagedCopy } from '../../store.ts';
import { type FileId, walBytesOf } from '../file-identity.ts';
import { Copying } from './copying.ts';

/** What SQLite may have beside a database. */
const BESIDE = ['-wal', '-shm', '-journal'] as const;

const UNWATCHED: CopyWatch = { signal: new AbortController().signal, onProgress: () => {} };

/** Writes a copy of an open database under another name, and renames it when it is complete and on the disk. */
export async function backUpTo(
  { destination, deadLetters, mode, recheck }: BackupOrder,
  { path: source, database }: { readonly path: string; readonly database: FileId },
  fileSystem: FileSystem,
  watch: CopyWatch,
): Promise<CopyFacts> {
  const target = `${destination}-${randomBytes(4).toString('hex')}.partial`;
  const copying = new Copying();
  let facts: CopyFacts;
  try {
    const request = { do: 'backup', source, database, target, destination, deadLetters, mode } as const;
    facts = (await copying.ask(request, watch)) as CopyFacts;
    await recheck();
    watch.signal.throwIfAborted();
    await fileSystem.rename(target, destination).catch((error: unknown) => {
      throw notWritten(destination, error);
    });
  } finally {
    await copying.end();
    removeCopy(target);
  }
  await fileSystem.syncDirectory(dirname(destination)).catch((error: unknown) => {
    throw new SluiceError(
      'SLUICE_STORE',
      `${destination} is complete, but the disk did not say that its name is safe: ${messageOf(error)}`,
      { cause: error },
    );
  });
  return facts;
}

/** Copies what is to take the place of the database at `path`, beside it. Whoever stages holds the lock of that database. */
export async function stageCopy(source: string, path: string, watch: CopyWatch): Promise<StagedCopy> {
  discardStaged(path);
  const target = stagedOf(path);
  const copying = new Copying();
  const discard = async () => {
    await copying.end();
    removeCopy(target);
  };
  try {
    const facts = (await copying.ask({ do: 'stage', source, target }, watch)) as CopyFacts;
    return {
      facts,
      path: target,
      seal: async (identity) => (await copying.ask({ do: 'seal', target, identity }, UNWATCHED)) as CopyFacts,
      discard,
    };
  } catch (error) {
    await discard();
    throw error;
  }
}

/** Carries into a database that nobody has open what a killed process has left beside it. */
export async function settle(path: string, watch: CopyWatch): Promise<void> {
  const copying = new Copying();
  try {
    await copying.ask({ do: 'settle', path }, watch);
  } finally {
    await copying.end();
  }
}

/**
 * Puts a sealed copy in the place of a database that nobody has open, and whose WAL is empty: so that what lies beside it can
 * go first. The other way round, a crash in between would leave the copy with the WAL of another database, which SQLite
 * would carry into it.
 */
export function swapIn(copy: string, path: string): void {
  const before = statSync(path, { throwIfNoEntry: false });
  if (before !== undefined) {
    if (walBytesOf(path) > 0) {
      throw new SluiceError('SLUICE_CONFLICT', `some other program has written to ${path}: let it end, and try again`);
    }
    chmodSync(copy, before.mode & 0o777);
  }
  for (const suffix of BESIDE) rmSync(path + suffix, { force: true });
  // SQLite has emptied the WAL, and unlinked it perhaps, without a sync: the power must not go and leave it beside the copy.
  syncFolder(dirname(path));
  renameSync(copy, path);
}

/** At once, as all of a swap is. */
function syncFolder(path: string): void {
  const folder = openSync(path, 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/** Deletes what a process has left behind that was killed while it restored. Whoever does holds the lock of the database. */
export function discardStaged(path: string): void {
  removeCopy(stagedOf(path));
}

function stagedOf(path: string): string {
  return `${path}-restoring`;
}

function removeCopy(path: string): void {
  for (const suffix of ['', ...BESIDE]) rmSync(path + suffix, { force: true });
}

function notWritten(destination: string, cause: unknown): SluiceError {
  return new SluiceError('SLUICE_STORE', `${destination} cannot be written: ${messageOf(cause)}`, { cause });
}
