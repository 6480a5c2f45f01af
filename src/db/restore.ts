import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { systemClock } from '../base/clock.ts';
import { codeOf, SluiceError } from '../base/errors.ts';
import { nodeFileSystem } from '../base/node-file-system.ts';
import { show } from '../base/options.ts';
import { stoppable } from '../base/waiting.ts';
import { acquireLock, settle, stageCopy, swapIn } from '../store/sqlite/index.ts';
import type { CopyIdentity, CopyWatch } from '../store/store.ts';
import { asking, type RestoreOptions, type RestoreResult, readRestore, restorable } from './backup.ts';
import { type InspectReport, inspect } from './inspect.ts';
import { makeLogFolder } from './open.ts';
import { realFile } from './real-file.ts';

/**
 * Puts the content of a file, a backup, in the place of a database that nobody has open, be it damaged or not there at all. Of an
 * open one: {@link Database.arestore}.
 *
 * The file is copied and checked first; then the copy takes the place of the database in one step. Killed at any point, there is
 * the one or the other. What was in the database is gone, and with it what its log has: the next `open` sets that aside. Keys are
 * not looked at: it is opened with those of the backup.
 *
 * Errors: `SLUICE_NOT_FOUND` for a file that is not there, or no database of Sluice's; `SLUICE_STORE` for one that is damaged or no
 * SQLite database, or where SQLite or the disk said no; `SLUICE_UNSUPPORTED` for a format of a later version; `SLUICE_LOCKED` where
 * the database, or the file, is open in a process; `SLUICE_CONFLICT` for a file that was not closed, or while another program uses
 * the database; `SLUICE_INVALID_OPTION`, `SLUICE_TIMEOUT`, `SLUICE_ABORTED`. The database is as it was then.
 *
 * @example
 * ```ts
 * import { mkdtempSync, rmSync } from 'node:fs';
 * import { tmpdir } from 'node:os';
 * import { join } from 'node:path';
 * import { open, restore } from 'sluicedb';
 *
 * const folder = mkdtempSync(join(tmpdir(), 'sluice-'));
 * const db = await open(join(folder, 'a.db'));
 * db.set('a', 1);
 * await db.abackup(join(folder, 'backup.db'));
 * await db.close();
 *
 * const { path } = await restore(join(folder, 'b.db'), join(folder, 'backup.db'));
 * const again = await open(path);
 * console.log(again.get('a')); // 1
 * await again.close();
 * rmSync(folder, { recursive: true });
 * ```
 */
export async function restore(path: string, from: string, options: RestoreOptions = {}): Promise<RestoreResult> {
  const { onProgress, wait } = readRestore(options, 'restore');
  if (typeof path !== 'string' || path === '' || path === ':memory:') {
    throw new SluiceError('SLUICE_INVALID_OPTION', `path must be the name of a database file, not ${show(path)}`);
  }
  const file = await realFile(path);
  return stoppable('restore', wait, systemClock, new AbortController(), (signal) =>
    restoreFile(file, from, { signal, onProgress }),
  );
}

async function restoreFile(path: string, given: string, watch: CopyWatch): Promise<RestoreResult> {
  const start = systemClock.elapsed();
  const from = await restorable(given, path);
  const directory = `${path}-log`;
  await makeLogFolder(nodeFileSystem, directory);
  const lock = await acquireLock(directory, path, 0, nodeFileSystem, systemClock);
  try {
    const before = await reportOf(path);
    const copy = await asking(stageCopy(from, path, watch));
    try {
      await asking(settleIfSound(path, watch));
      const facts = await asking(copy.seal(identityAfter(before)));
      watch.signal.throwIfAborted();
      await asking(Promise.resolve().then(() => swapIn(copy.path, path)));
      await asking(nodeFileSystem.syncDirectory(dirname(path)));
      const { bytes, appliedSeq, epoch } = facts;
      return { path, from, bytes, appliedSeq, epoch, durationMs: systemClock.elapsed() - start };
    } finally {
      await copy.discard();
    }
  } finally {
    lock.release();
  }
}

/** What stands at the place now; `undefined` where there is nothing, or nothing that can be read. */
async function reportOf(path: string): Promise<InspectReport | undefined> {
  try {
    return await inspect(path);
  } catch (error) {
    // Somebody else's database is no place for a backup; one of ours that is damaged is.
    if (codeOf(error) === 'SLUICE_NOT_FOUND' && existsSync(path)) throw error;
    return undefined;
  }
}

/** The database stays the one it was, in a new epoch: so its log is not for it. One that cannot be read becomes another one. */
function identityAfter(before: InspectReport | undefined): CopyIdentity {
  const common = { owner: 'restore', key: undefined };
  if (before === undefined) return { ...common, databaseId: randomBytes(16).toString('hex'), epoch: 1, appliedSeq: 0 };
  const { state, log } = before;
  const logged = log.segments.map(({ own, lastSeq }) => (own === true ? (lastSeq ?? 0) : 0));
  return {
    ...common,
    databaseId: state.databaseId,
    epoch: state.epoch + 1,
    appliedSeq: Math.max(state.watermark, ...logged),
  };
}

/**
 * A WAL that is left over goes into its database, so that until the swap nothing of it is missing. What is no database takes
 * nothing, and SQLite deletes the WAL of it.
 */
async function settleIfSound(path: string, watch: CopyWatch): Promise<void> {
  if (!existsSync(path)) return;
  try {
    await settle(path, watch);
  } catch (error) {
    const { sqliteCode = '' } = error instanceof SluiceError ? error : {};
    if (!/^SQLITE_(CORRUPT|NOTADB)/.test(sqliteCode)) throw error;
  }
}
