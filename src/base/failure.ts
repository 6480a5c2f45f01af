import { constants } from 'node:os';
import { codeOf } from './errors.ts';

/**
 * What a failure means for the work that failed, whatever its text:
 * `transient` try again, `space` try again when there is room, `config` somebody has to repair something, `breaker` too
 * large a share of a batch died, so somebody should look, `reopen` what was open (a connection, a log segment) is not to be
 * trusted any more, `fatal` stop and keep the log.
 */
export type FailureClass = 'transient' | 'space' | 'config' | 'breaker' | 'reopen' | 'fatal';

/** What a disk alone can be the cause of: see `FailureClass`. */
export type DiskClass = 'transient' | 'space' | 'config' | 'reopen';

/** `permanent`: SQLite will never take this one row, the rest of the batch is fine. */
export type ErrorClass = FailureClass | 'permanent';

/** A row of the table. */
export interface Meaning {
  readonly class: ErrorClass;
  /** What it is from the `from`th failure with this code on, if nothing was applied in between. */
  readonly later?: { readonly from: number; readonly class: FailureClass };
  /** The code hides its cause: a look at the disk tells a lack of room, or of file descriptors, from anything else. */
  readonly probe?: 'room' | 'descriptors';
}

/**
 * Every result code of SQLite (https://sqlite.org/rescode.html), without `SQLITE_`, and what it means for a batch of
 * writes. A test holds this against the codes that better-sqlite3 and its SQLite know.
 */
const SQLITE_ROWS: readonly (readonly [Meaning, string])[] = [
  // Another connection is in the way, or the transaction was: the next attempt begins a new one.
  [
    { class: 'transient' },
    'BUSY BUSY_RECOVERY BUSY_SNAPSHOT BUSY_TIMEOUT PROTOCOL INTERRUPT ABORT ABORT_ROLLBACK ERROR_RETRY ERROR_SNAPSHOT',
  ],
  [{ class: 'transient', later: { from: 4, class: 'reopen' } }, 'NOMEM IOERR_NOMEM'],
  // Something of the same connection is in the way: a statement that nobody has ended.
  [{ class: 'transient', later: { from: 2, class: 'reopen' } }, 'LOCKED LOCKED_SHAREDCACHE LOCKED_VTAB'],
  // SQLite has prepared the statement again by itself, many times.
  [{ class: 'transient', later: { from: 4, class: 'config' } }, 'SCHEMA'],

  [{ class: 'space' }, 'FULL NOLFS'],

  [
    { class: 'permanent' },
    'CONSTRAINT CONSTRAINT_CHECK CONSTRAINT_DATATYPE CONSTRAINT_FOREIGNKEY CONSTRAINT_FUNCTION CONSTRAINT_NOTNULL ' +
      'CONSTRAINT_PINNED CONSTRAINT_PRIMARYKEY CONSTRAINT_ROWID CONSTRAINT_TRIGGER CONSTRAINT_UNIQUE CONSTRAINT_VTAB ' +
      'MISMATCH TOOBIG',
  ],

  [
    { class: 'config' },
    'ERROR ERROR_MISSING_COLLSEQ ERROR_RESERVESIZE ERROR_KEY ERROR_UNABLE CONSTRAINT_COMMITHOOK PERM AUTH AUTH_USER ' +
      'READONLY READONLY_CANTINIT READONLY_CANTLOCK READONLY_DIRECTORY READONLY_RECOVERY READONLY_ROLLBACK',
  ],
  [
    { class: 'config', probe: 'descriptors' },
    'CANTOPEN CANTOPEN_CONVPATH CANTOPEN_DIRTYWAL CANTOPEN_FULLPATH CANTOPEN_ISDIR CANTOPEN_NOTEMPDIR CANTOPEN_SYMLINK',
  ],

  [
    { class: 'reopen' },
    'IOERR IOERR_ACCESS IOERR_AUTH IOERR_BADKEY IOERR_BEGIN_ATOMIC IOERR_BLOCKED IOERR_CHECKRESERVEDLOCK IOERR_CLOSE ' +
      'IOERR_CODEC IOERR_COMMIT_ATOMIC IOERR_CONVPATH IOERR_DELETE IOERR_DELETE_NOENT IOERR_DIR_CLOSE IOERR_FSTAT ' +
      'IOERR_GETTEMPPATH IOERR_LOCK IOERR_MMAP IOERR_RDLOCK IOERR_ROLLBACK_ATOMIC IOERR_SEEK IOERR_SHMLOCK ' +
      'IOERR_TRUNCATE IOERR_UNLOCK IOERR_VNODE',
  ],
  // Only ENOSPC is SQLITE_FULL: a quota, a limit on the size of files and a broken disk all arrive like this.
  [{ class: 'reopen', probe: 'room' }, 'IOERR_WRITE IOERR_SHMMAP IOERR_SHMOPEN IOERR_SHMSIZE'],
  // The kernel reports a page that it could not write once, and then calls it clean: asking twice proves nothing.
  [{ class: 'reopen', later: { from: 2, class: 'fatal' } }, 'IOERR_FSYNC IOERR_DIR_FSYNC IOERR_READ IOERR_SHORT_READ'],

  [
    { class: 'fatal' },
    'CORRUPT CORRUPT_INDEX CORRUPT_SEQUENCE CORRUPT_VTAB NOTADB FORMAT IOERR_CORRUPTFS IOERR_DATA IOERR_IN_PAGE ' +
      'READONLY_DBMOVED',
  ],
  // A bug: ours, or somebody's.
  [
    { class: 'fatal' },
    'INTERNAL MISUSE NOTFOUND RANGE EMPTY OK OK_LOAD_PERMANENTLY OK_SYMLINK ROW DONE NOTICE NOTICE_RBU ' +
      'NOTICE_RECOVER_ROLLBACK NOTICE_RECOVER_WAL WARNING WARNING_AUTOINDEX',
  ],
];

/** What better-sqlite3 throws without a code, by how the text begins; any other TypeError or RangeError is the row's. */
const CODELESS_ROWS: readonly (readonly [text: string, Meaning, code: string])[] = [
  ['The database connection is not open', { class: 'reopen' }, 'CLOSED'],
  ['This database connection is busy', { class: 'transient' }, 'CONNECTION_BUSY'],
  ['This statement is busy', { class: 'transient' }, 'CONNECTION_BUSY'],
  ['Cannot open database because the directory does not exist', { class: 'config' }, 'NO_DIRECTORY'],
];

/** Codes of a disk, as the log meets them; for a code that is not here, what was open is given up. */
const DISK_ROWS: readonly (readonly [DiskClass, string])[] = [
  ['space', 'ENOSPC EDQUOT EFBIG'],
  ['transient', 'EMFILE ENFILE EAGAIN EINTR ENOMEM'],
  ['config', 'EACCES EPERM ENOENT ENOTDIR'],
  ['reopen', 'EIO ENXIO EROFS ESTALE'],
];

/** Primary codes by number, for `UNKNOWN_SQLITE_ERROR_n`: better-sqlite3's name for codes newer than itself. */
const PRIMARY_CODES: readonly string[] =
  'OK ERROR INTERNAL PERM ABORT BUSY LOCKED NOMEM READONLY INTERRUPT IOERR CORRUPT NOTFOUND FULL CANTOPEN PROTOCOL EMPTY SCHEMA TOOBIG CONSTRAINT MISMATCH MISUSE NOLFS AUTH FORMAT RANGE NOTADB'.split(
    ' ',
  );

const UNKNOWN = 'UNKNOWN_SQLITE_ERROR_';
const FATAL: Meaning = { class: 'fatal' };
const BIND = { code: 'BIND', meaning: { class: 'permanent' } } as const satisfies { code: string; meaning: Meaning };

const sqliteMeanings: ReadonlyMap<string, Meaning> = new Map(
  SQLITE_ROWS.flatMap(([meaning, names]) => names.split(' ').map((name) => [`SQLITE_${name}`, meaning] as const)),
);
const diskClasses: ReadonlyMap<string, DiskClass> = new Map(
  DISK_ROWS.flatMap(([found, codes]) => codes.split(' ').map((code) => [code, found] as const)),
);

/** Every code of SQLite that has a row. */
export const SQLITE_CODES: readonly string[] = [...sqliteMeanings.keys()];

/** SQLite's name of a code of better-sqlite3: of its primary code, where better-sqlite3 knows no name. */
export function sqliteName(code: string | undefined): string | undefined {
  if (code?.startsWith(UNKNOWN)) return `SQLITE_${PRIMARY_CODES[Number(code.slice(UNKNOWN.length)) & 0xff]}`;
  return code?.startsWith('SQLITE_') ? code : undefined;
}

/** The primary codes that a failure is counted under; `other` is what has no code, as a thread that died. */
export const COUNTED_CODES: readonly string[] = [...PRIMARY_CODES.slice(1).map((name) => `SQLITE_${name}`), 'other'];

/** Which of {@link COUNTED_CODES} a failure is counted under. */
export function countedCode(code: string | undefined): string {
  const primary = sqliteName(code)?.split('_').slice(0, 2).join('_') ?? 'other';
  return COUNTED_CODES.includes(primary) ? primary : 'other';
}

/**
 * Why a write died, in one word: `constraint`, `type` a value of the wrong type, `size` too large, `statement` what it says is
 * wrong or what it names is not there, `transaction` it ended the transaction that it ran in.
 */
export type DeathReason = 'constraint' | 'type' | 'size' | 'statement' | 'transaction' | 'other';

/** The reason that an error code stands for. */
export function deathReason(code: string): DeathReason {
  if (code === 'SQLITE_MISMATCH' || code === 'SQLITE_CONSTRAINT_DATATYPE' || code === BIND.code) return 'type';
  if (code === 'SQLITE_TOOBIG') return 'size';
  if (code === 'TRANSACTION_ENDED') return 'transaction';
  if (code.startsWith('SQLITE_CONSTRAINT')) return 'constraint';
  return code.startsWith('SQLITE_ERROR') ? 'statement' : 'other';
}

/** What a code of better-sqlite3 means; undefined if it is no code of SQLite. */
export function sqliteMeaning(code: string | undefined): Meaning | undefined {
  const name = sqliteName(code);
  return name === undefined ? undefined : (sqliteMeanings.get(name) ?? FATAL);
}

/** What an error without a code means, if it is one that better-sqlite3 throws. */
export function codelessMeaning(error: unknown): { readonly code: string; readonly meaning: Meaning } | undefined {
  if (!(error instanceof TypeError || error instanceof RangeError)) return undefined;
  const [, meaning, code] = CODELESS_ROWS.find(([text]) => error.message.startsWith(text)) ?? [];
  return meaning === undefined || code === undefined ? BIND : { code, meaning };
}

/** The name of a disk's error; by number where Node.js has none, as for EDQUOT. */
export function diskCode(error: unknown): string | undefined {
  const code = codeOf(error);
  const { errno } = (error ?? {}) as { errno?: unknown };
  if (typeof errno !== 'number' || (code !== undefined && diskClasses.has(code))) return code;
  return Object.entries(constants.errno).find(([, number]) => number === -errno)?.[0] ?? code;
}

/** What the code of a disk's error means. */
export function diskMeaning(code: string | undefined): DiskClass {
  return diskClasses.get(code ?? '') ?? 'reopen';
}
