import * as fs from 'node:fs';
import { dirname } from 'node:path';
import { diskCode, diskMeaning, type FailureClass, sqliteMeaning } from '../../../base/failure.ts';
import { StoreFailure } from '../../store.ts';

const PROBE_BYTES = 64 * 1024;

/**
 * Some codes of SQLite hide the errno that tells what is to be done: the same failure again, with the class that the
 * disk gives it now.
 */
export function reclassify(failure: StoreFailure, database: string): StoreFailure {
  const { sqliteCode } = failure;
  const probe = sqliteMeaning(sqliteCode)?.probe;
  if (probe === undefined) return failure;
  const errno = probeDisk(database);
  const found = classAfter(probe, errno) ?? failure.failure;
  const message = errno === undefined ? failure.message : `${failure.message} (writing beside it: ${errno})`;
  return new StoreFailure(found, message, sqliteCode, failure.cause);
}

/** Room on the disk of the database, for those without special rights; `undefined` where the system does not say. */
export function freeBytes(database: string): number | undefined {
  try {
    const { bavail, bsize } = fs.statfsSync(dirname(database));
    return bavail * bsize;
  } catch {
    return undefined;
  }
}

function classAfter(probe: 'room' | 'descriptors', errno: string | undefined): FailureClass | undefined {
  if (errno === undefined) return undefined;
  if (probe === 'room' && errno === 'EROFS') return 'fatal';
  const wanted = probe === 'room' ? 'space' : 'transient';
  return diskMeaning(errno) === wanted ? wanted : undefined;
}

/**
 * Writes and syncs a scratch file beside the database, as far from its beginning as SQLite writes, so that a limit on the
 * size of files shows too; returns the code of what failed. SQLite's own files are never opened here: closing any
 * descriptor of them would free the locks of the whole process.
 */
function probeDisk(database: string): string | undefined {
  const scratch = `${database}-sluice-probe`;
  try {
    const position = Math.max(sizeOf(database), sizeOf(`${database}-wal`));
    fs.rmSync(scratch, { force: true });
    const file = fs.openSync(scratch, 'wx');
    try {
      const bytes = Buffer.alloc(PROBE_BYTES);
      // A disk that fills up takes a part, and says why only when it is asked for the rest.
      for (let written = 0; written < PROBE_BYTES; ) {
        written += fs.writeSync(file, bytes, written, PROBE_BYTES - written, position + written);
      }
      fs.fsyncSync(file);
    } finally {
      fs.closeSync(file);
      fs.rmSync(scratch, { force: true });
    }
    return undefined;
  } catch (error) {
    return diskCode(error);
  }
}

function sizeOf(path: string): number {
  return fs.statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
