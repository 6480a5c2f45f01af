import { type BigIntStats, statSync } from 'node:fs';
import { codeOf, messageOf } from '../../base/errors.ts';
import { StoreFailure } from '../store.ts';

/** A file, whatever its name. Nobody else gets its inode while a connection has it open. */
export interface FileId {
  readonly dev: bigint;
  readonly ino: bigint;
}

/** What has become of a file, seen from its name. */
export type Fate = 'there' | 'missing' | 'replaced';

export interface Look {
  readonly database: Fate;
  readonly wal: Fate;
  readonly walBytes: number;
}

/**
 * The files that a connection has open, to be told from whatever stands at their names later. SQLite itself goes on in
 * silence when they are unlinked, renamed or replaced: its commits then go into files that nobody will find again.
 *
 * Only ever `stat`: to open one of these files and close it again frees SQLite's locks in the whole process.
 */
export class FileIdentity {
  readonly database: FileId;
  readonly #path: string;
  readonly #wal: FileId;

  /** To be taken when the connection has both files open. */
  constructor(path: string) {
    const database = statOf(path);
    const wal = statOf(walOf(path));
    if (database === undefined || wal === undefined) throw filesGone(path, fateOf(database), fateOf(wal));
    this.#path = path;
    this.database = { dev: database.dev, ino: database.ino };
    this.#wal = { dev: wal.dev, ino: wal.ino };
  }

  look(): Look {
    const wal = statOf(walOf(this.#path));
    return {
      database: fateOf(statOf(this.#path), this.database),
      wal: fateOf(wal, this.#wal),
      walBytes: Number(wal?.size ?? 0),
    };
  }
}

/** The database that stands at a name now. */
export function fileIdOf(path: string): FileId {
  const found = statOf(path);
  if (found === undefined) throw filesGone(path, 'missing', 'there');
  return { dev: found.dev, ino: found.ino };
}

/** Size of the WAL beside a database: 0 where there is none. */
export function walBytesOf(path: string): number {
  return Number(statOf(walOf(path))?.size ?? 0);
}

/** Throws unless the database that a thread before this one had open is still in its place. */
export function assertSameDatabase(path: string, expected: FileId): void {
  const fate = fateOf(statOf(path), expected);
  if (fate !== 'there') throw filesGone(path, fate, 'there');
}

export function filesGone(path: string, database: Fate, wal: Fate): StoreFailure {
  const [file, fate] = database === 'there' ? [walOf(path), wal] : [path, database];
  const what = fate === 'missing' ? 'is not there any more' : 'is not the file that was opened';
  return new StoreFailure(
    'fatal',
    `${file} ${what}: something has moved, deleted or replaced it under the open database. What was accepted since is in the log. Close the database, put the file back in its place, and open it again`,
  );
}

function walOf(path: string): string {
  return `${path}-wal`;
}

function fateOf(found: BigIntStats | undefined, expected: FileId | undefined = found): Fate {
  if (found === undefined) return 'missing';
  return found.dev === expected?.dev && found.ino === expected.ino ? 'there' : 'replaced';
}

function statOf(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true });
  } catch (error) {
    const code = codeOf(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    // A stat that fails proves nothing about the file, and nothing is acknowledged without proof.
    throw new StoreFailure('transient', `SQLite's files cannot be looked at: ${messageOf(error)}`, code, error);
  }
}
