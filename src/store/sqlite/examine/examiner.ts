import { accessSync, constants, copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { keyIdOf } from '../../../base/encryption/index.ts';
import { codeOf, messageOf } from '../../../base/errors.ts';
import { type SqlValue, singleWriteProblem } from '../../../base/frame/index.ts';
import { type Connection, narrow, openConnection } from '../connection.ts';
import { decodeWrite, namesOf } from '../dead-letters/write-copy.ts';
import { isLocked } from '../lock.ts';
import type { DatabaseChecks, DatabaseFacts, DeadLetterFacts, ExamineFailure } from './examine-protocol.ts';

const FINDINGS_MAX = 100;

const BUSY_TIMEOUT_MS = 2_000;

/**
 * Reads a database, and leaves the folder as it was, byte for byte and name for name. To be run in a process that is
 * killed afterwards: an orderly end would let SQLite checkpoint a WAL that somebody left behind.
 *
 * - Somebody has it open: a read-only connection, as any other reader.
 * - It was closed (no `-wal`): a read-write connection that never writes. When it is closed, SQLite itself deletes the
 *   `-wal` and `-shm` that it made, if nobody else has come meanwhile. A read-only one would leave them.
 * - It was killed (a `-wal`, and nobody there): an exclusive connection keeps the index of the WAL in its own memory, so
 *   that `-shm` is neither made nor rebuilt. It is never closed. As long as it is there, nobody else gets in.
 * - It cannot be written to: a copy.
 */
export function examine(path: string, folder: string, check: boolean): DatabaseFacts {
  const hasWal = existsSync(`${path}-wal`);
  if (isLocked(folder)) return readAndClose(path, true, check);
  if (!isWritable(path)) return examineCopy(path, check);
  // A rollback journal is some other program's, and a read-write connection would roll it back.
  if (!hasWal) return readAndClose(path, existsSync(`${path}-journal`), check);
  const db = openConnection(path, { readonly: false, mustExist: true, busyTimeoutMs: 0 });
  leftOpen.push(db);
  try {
    db.pragma('locking_mode = EXCLUSIVE');
    db.pragma('query_only = ON');
    db.pragma('schema_version');
  } catch (error) {
    // Not Sluice, but some other program has it open, and is there to keep the WAL.
    if (codeOf(error) === 'SQLITE_BUSY') return readAndClose(path, true, check);
    throw error;
  }
  return readFacts(db, check);
}

/** A collected connection would be closed. */
const leftOpen: Connection[] = [];

function readAndClose(path: string, readonly: boolean, check: boolean): DatabaseFacts {
  const db = openConnection(path, { readonly, mustExist: true, busyTimeoutMs: BUSY_TIMEOUT_MS });
  try {
    db.pragma('query_only = ON');
    return readFacts(db, check);
  } finally {
    db.close();
  }
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    accessSync(dirname(path), constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** No connection of this process is open on the file, so that touching it frees nobody's locks. */
function examineCopy(path: string, check: boolean): DatabaseFacts {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-examine-'));
  try {
    const copy = join(folder, 'copy.db');
    for (const suffix of ['', '-wal']) {
      if (suffix === '' || existsSync(path + suffix)) {
        copyFileSync(path + suffix, copy + suffix, constants.COPYFILE_FICLONE);
      }
    }
    return readAndClose(copy, true, check);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function readFacts(db: Connection, check: boolean): DatabaseFacts {
  const pageSize = db.pragma('page_size', { simple: true }) as number;
  const sqliteVersion = libraryVersion();
  let state: DatabaseFacts['state'];
  let deadLetters: DeadLetterFacts | undefined;
  let unreadable: ExamineFailure | undefined;
  try {
    if (hasTable(db, '_sluice_state')) state = rowsOf(db, 'SELECT * FROM _sluice_state');
    if (hasTable(db, '_sluice_dead_letters')) deadLetters = deadLetterFacts(db);
  } catch (error) {
    if (codeOf(error) === 'SQLITE_NOTADB' || !isDamage(error)) throw error;
    unreadable = { code: codeOf(error), message: messageOf(error) };
  }
  const isOurs = state !== undefined || unreadable !== undefined;
  const checks = check && isOurs ? runChecks(db, deadLetters !== undefined) : undefined;
  return { pageSize, sqliteVersion, state, deadLetters, unreadable, checks };
}

/** Asked of no file: one whose schema is damaged answers nothing. */
function libraryVersion(): string {
  const db = openConnection(':memory:', { readonly: false, busyTimeoutMs: 0 });
  try {
    return db.prepare('SELECT sqlite_version()').pluck().get() as string;
  } finally {
    db.close();
  }
}

function isDamage(error: unknown): boolean {
  return /^SQLITE_(CORRUPT|NOTADB|IOERR)/.test(codeOf(error) ?? '');
}

function hasTable(db: Connection, name: string): boolean {
  return db.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?").get(name) !== undefined;
}

function rowsOf(db: Connection, sql: string): Record<string, SqlValue>[] {
  const rows = db.prepare(sql).safeIntegers().all() as Record<string, SqlValue>[];
  for (const row of rows) for (const name in row) row[name] = narrow(row[name] as SqlValue);
  return rows;
}

function deadLetterFacts(db: Connection): DeadLetterFacts {
  const [totals] = rowsOf(db, 'SELECT count(*) AS count, ifnull(max(seq), 0) AS maxSeq FROM _sluice_dead_letters');
  const [oldest] = rowsOf(
    db,
    `SELECT id, seq, accepted_at AS acceptedAt, first_failed_at AS firstFailedAt FROM _sluice_dead_letters
     ORDER BY first_failed_at, id LIMIT 1`,
  );
  return { ...totals, oldest: oldest ?? null } as unknown as DeadLetterFacts;
}

function runChecks(db: Connection, hasDeadLetters: boolean): DatabaseChecks {
  const letters = hasDeadLetters ? checkDeadLetters(db) : { deadLetters: 0, badDeadLetters: [] };
  return { ...letters, ...checkIntegrity(db) };
}

function checkIntegrity(db: Connection): Pick<DatabaseChecks, 'integrity' | 'integrityFailure'> {
  try {
    const rows = db.pragma(`integrity_check(${FINDINGS_MAX})`) as { integrity_check: string }[];
    const found = rows.map((row) => row.integrity_check).filter((text) => text !== 'ok');
    return { integrity: found, integrityFailure: undefined };
  } catch (error) {
    // An index may need a function or collation that only the program knows whose database it is.
    if (!isDamage(error)) return { integrity: [], integrityFailure: messageOf(error) };
    return { integrity: [messageOf(error)], integrityFailure: undefined };
  }
}

interface DeadLetterRow {
  readonly id: bigint;
  readonly seq: bigint;
  readonly table_name: string | null;
  readonly operation: string;
  readonly key: string | null;
  readonly write: Uint8Array;
  readonly origin?: string | null;
}

function checkDeadLetters(db: Connection): Pick<DatabaseChecks, 'deadLetters' | 'badDeadLetters'> {
  const badDeadLetters: { id: number; problem: string }[] = [];
  let deadLetters = 0;
  try {
    // Databases of older formats have no origins.
    const rows = db
      .prepare('SELECT * FROM _sluice_dead_letters ORDER BY id')
      .safeIntegers()
      .iterate() as IterableIterator<DeadLetterRow>;
    for (const row of rows) {
      deadLetters++;
      const problem = problemOf(row);
      if (problem !== undefined && badDeadLetters.length < FINDINGS_MAX) {
        badDeadLetters.push({ id: Number(row.id), problem });
      }
    }
  } catch (error) {
    // The integrity check says what is wrong with the pages.
    if (!isDamage(error)) throw error;
  }
  return { deadLetters, badDeadLetters };
}

function problemOf(row: DeadLetterRow): string | undefined {
  if (!(row.write instanceof Uint8Array)) return 'its write is not stored as bytes';
  // Encrypted: only the key tells what it holds, and it is not asked for here.
  if (keyIdOf(row.write) !== undefined) return undefined;
  const problem = singleWriteProblem(Buffer.from(row.write));
  if (problem !== undefined) return `its write does not decode: ${problem}`;
  const write = decodeWrite(row.write);
  const { table, operation, key } = namesOf(write);
  // An entry that was imported has another number here than where its write was accepted.
  const accepted = row.origin == null ? Number(row.seq) : Number(row.origin.split(':').at(-1));
  const pairs = [
    ['seq', accepted, write.seq],
    ['operation', row.operation, operation],
    ['table_name', row.table_name, table],
    ['key', row.key, key],
  ] as const;
  const [name, column, written] = pairs.find(([, a, b]) => a !== b) ?? [];
  return name === undefined
    ? undefined
    : `its ${name} is ${show(column ?? null)}, that of its write is ${show(written ?? null)}`;
}

/** Keys can be secrets, and long. */
function show(value: string | number | null): string {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}
