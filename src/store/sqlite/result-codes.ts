import { codeOf, messageOf } from '../../base/errors.ts';
import { type FailureClass, StoreFailure } from '../store.ts';

/** `permanent`: SQLite will never take this one row, the rest of the batch is fine. */
export type ErrorClass = FailureClass | 'permanent';

/**
 * SQLite's result codes (https://sqlite.org/rescode.html) and what each one means for a batch of writes. A code that is
 * not listed has the class of its primary code.
 */
const CLASSES: Readonly<Record<string, ErrorClass>> = {
  SQLITE_BUSY: 'transient',
  SQLITE_LOCKED: 'transient',
  SQLITE_PROTOCOL: 'transient',
  SQLITE_SCHEMA: 'transient',
  SQLITE_NOMEM: 'transient',
  SQLITE_INTERRUPT: 'transient',
  SQLITE_ABORT: 'transient',
  SQLITE_ERROR_RETRY: 'transient',
  SQLITE_ERROR_SNAPSHOT: 'transient',
  SQLITE_IOERR_NOMEM: 'transient',

  SQLITE_FULL: 'space',
  SQLITE_NOLFS: 'space',
  // Write errors hide their errno: a quota and a size limit arrive like this, and so does a broken disk.
  SQLITE_IOERR_WRITE: 'space',
  SQLITE_IOERR_SHMSIZE: 'space',

  SQLITE_CONSTRAINT: 'permanent',
  SQLITE_MISMATCH: 'permanent',
  SQLITE_TOOBIG: 'permanent',

  SQLITE_ERROR: 'config',
  SQLITE_CONSTRAINT_COMMITHOOK: 'config',
  SQLITE_CANTOPEN: 'config',
  SQLITE_READONLY: 'config',
  SQLITE_PERM: 'config',
  SQLITE_AUTH: 'config',

  SQLITE_IOERR: 'reopen',

  SQLITE_READONLY_DBMOVED: 'fatal',
  SQLITE_IOERR_CORRUPTFS: 'fatal',
  SQLITE_IOERR_DATA: 'fatal',
  SQLITE_IOERR_IN_PAGE: 'fatal',
  SQLITE_CORRUPT: 'fatal',
  SQLITE_NOTADB: 'fatal',
  SQLITE_FORMAT: 'fatal',
  SQLITE_RANGE: 'fatal',
  SQLITE_MISUSE: 'fatal',
  SQLITE_INTERNAL: 'fatal',
  SQLITE_NOTFOUND: 'fatal',
};

/** Primary codes by number, for `UNKNOWN_SQLITE_ERROR_n`: better-sqlite3's name for extended codes newer than itself. */
const PRIMARY_CODES: readonly string[] =
  'OK ERROR INTERNAL PERM ABORT BUSY LOCKED NOMEM READONLY INTERRUPT IOERR CORRUPT NOTFOUND FULL CANTOPEN PROTOCOL EMPTY SCHEMA TOOBIG CONSTRAINT MISMATCH MISUSE NOLFS AUTH FORMAT RANGE NOTADB'.split(
    ' ',
  );

/** What went wrong, in words that can cross a thread. */
export interface Classified {
  readonly class: ErrorClass;
  readonly code: string;
  readonly message: string;
}

/**
 * Classifies what a statement threw. `ownStatement`: ours, on a table of ours; there a missing table or column means
 * that somebody has to repair the schema, while in the user's statement it is that statement's own fault.
 */
export function classify(error: unknown, { ownStatement }: { ownStatement: boolean }): Classified {
  const message = messageOf(error);
  const code = codeOf(error);
  if (code?.startsWith('SQLITE_') || code?.startsWith('UNKNOWN_SQLITE_ERROR_')) {
    const known = knownCode(code);
    if (known === 'SQLITE_ERROR' && !ownStatement) return { class: 'permanent', code, message };
    return { class: classOf(known), code, message };
  }
  if (message === 'The database connection is not open') return { class: 'reopen', code: 'CLOSED', message };
  // better-sqlite3 refuses values it cannot bind with errors that carry no code.
  if (error instanceof TypeError || error instanceof RangeError) return { class: 'permanent', code: 'BIND', message };
  return { class: 'fatal', code: code ?? 'UNKNOWN', message };
}

/** An error of the store's own statements as the failure that the flush understands. */
export function toFailure(error: unknown): StoreFailure {
  if (error instanceof StoreFailure) return error;
  const { class: found, code, message } = classify(error, { ownStatement: true });
  return new StoreFailure(found === 'permanent' ? 'config' : found, message, code, error);
}

/** Does work of the store's own, of which every error is a failure that the flush understands. */
export function withFailures<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw toFailure(error);
  }
}

function knownCode(code: string): string {
  if (!code.startsWith('UNKNOWN_SQLITE_ERROR_')) return code;
  const number = Number(code.slice('UNKNOWN_SQLITE_ERROR_'.length));
  return `SQLITE_${PRIMARY_CODES[number & 0xff] ?? 'INTERNAL'}`;
}

function classOf(code: string): ErrorClass {
  for (let name = code; name.length > 'SQLITE'.length; name = name.slice(0, name.lastIndexOf('_'))) {
    const found = CLASSES[name];
    if (found !== undefined) return found;
  }
  return 'fatal';
}
