import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { keyIdOf } from '../../../base/encryption/index.ts';
import { codeOf, messageOf, SluiceError } from '../../../base/errors.ts';
import {
  type CopiedTable,
  type CopyFacts,
  type CopyIdentity,
  type CopyProgress,
  haveKeysAndValues,
} from '../../store.ts';
import { type Connection, openConnection, quote } from '../connection.ts';
import { findKeys, storeKey } from '../encryption-keys.ts';
import { assertSameDatabase, walBytesOf } from '../file-identity.ts';
import { checkIntegrity, isDamage } from '../integrity.ts';
import { isLocked } from '../lock.ts';
import { claimState, columnsOf, SELECT_STATE, type StateRow } from '../schema.ts';
import type { CopyRequest } from './copy-protocol.ts';

type Tell = (progress: CopyProgress) => void;
type Asked<Do extends CopyRequest['do']> = Extract<CopyRequest, { do: Do }>;

const BUSY_TIMEOUT_MS = 5_000;

/** Pages that are copied between two looks at whether anybody still wants them. */
const PAGES = 256;
const CHUNK_BYTES = 4 * 1024 * 1024;

/** The owner of a copy that nobody has opened yet. */
const NOBODY = 'backup';

/** Does what is asked. Everything here runs in a process of its own, which may be killed at any point. */
export function copy(request: CopyRequest, tell: Tell): CopyFacts | null | Promise<CopyFacts> {
  switch (request.do) {
    case 'backup':
      return backUp(request, tell);
    case 'stage':
      return stage(request, tell);
    case 'seal':
      return seal(request.target, request.identity);
    case 'settle':
      return settle(request.path);
  }
}

/**
 * SQLite's online backup begins again whenever another connection has written, and under load never comes to its end. On a
 * connection that holds a read transaction it copies that one snapshot, whatever is written meanwhile.
 *
 * `VACUUM INTO` would be a snapshot too, but it tells nobody how far it is, and gives rows without an INTEGER PRIMARY KEY
 * other rowids.
 */
async function backUp(
  { source, database, target, destination, deadLetters, mode }: Asked<'backup'>,
  tell: Tell,
): Promise<CopyFacts> {
  assertNotOpen(destination, 'write it elsewhere');
  const db = openConnection(source, { readonly: true, busyTimeoutMs: BUSY_TIMEOUT_MS });
  try {
    assertSameDatabase(source, database);
    db.exec('BEGIN');
    // The first read pins the snapshot.
    const letters = db.prepare('SELECT count(*) FROM _sluice_dead_letters').pluck().get() as number;
    if (letters > 0 && deadLetters === 'refuse') {
      throw new SluiceError(
        'SLUICE_CONFLICT',
        `there are ${letters} dead letters, writes that the tables do not have: retry or clear them first, or let the copy have them`,
      );
    }
    const pageBytes = db.pragma('page_size', { simple: true }) as number;
    makeFile(target, mode ?? fs.statSync(source).mode);
    await db.backup(target, {
      progress({ totalPages, remainingPages }) {
        tell({ phase: 'copy', bytes: (totalPages - remainingPages) * pageBytes, totalBytes: totalPages * pageBytes });
        return PAGES;
      },
    });
    db.exec('COMMIT');
  } finally {
    db.close();
  }
  return onCopy(target, (copy) => {
    // A database of its own: if it is ever put in the place of the original, or opened beside it, the log that lies there is
    // not for it, nor is one write to be taken for another because both have the same number.
    identify(copy, {
      databaseId: randomBytes(16).toString('hex'),
      epoch: 1,
      appliedSeq: 0,
      owner: NOBODY,
      key: undefined,
    });
    check(copy, target, tell);
  });
}

/**
 * Byte by byte: nothing is opened with SQLite that is not ours, so that the source stays as it is, whatever it is, and may lie
 * where nothing can be written. What a process that was killed has left beside it belongs to it.
 */
function stage({ source, target }: Asked<'stage'>, tell: Tell): CopyFacts {
  const parts = ['', '-wal', '-journal'].filter((suffix) => fs.existsSync(source + suffix));
  const looks = () => parts.map((suffix) => lookOf(source + suffix)).join();
  const before = looks();
  const totalBytes = parts.reduce((total, suffix) => total + fs.statSync(source + suffix).size, 0);
  let done = 0;
  for (const suffix of parts) {
    copyFile(source + suffix, target + suffix, (bytes) => {
      done += bytes;
      tell({ phase: 'copy', bytes: done, totalBytes });
    });
  }
  if (looks() !== before) {
    throw new SluiceError(
      'SLUICE_CONFLICT',
      `${source} was written to while it was copied: let whoever uses it close it`,
    );
  }
  try {
    return onCopy(target, (copy) => {
      if (columnsOf(copy, '_sluice_state') === undefined) {
        throw new SluiceError(
          'SLUICE_NOT_FOUND',
          `${source} is no database of Sluice's: it has no state of Sluice's in it`,
        );
      }
      check(copy, source, tell);
      transaction(copy, () => claimState(copy, NOBODY, true));
    });
  } catch (error) {
    if (codeOf(error) === 'SQLITE_NOTADB' || isDamage(error)) throw damaged(source, messageOf(error), codeOf(error));
    throw error;
  }
}

/** The name of the database changes, and with it what lies in the log beside it: see `engine/log/recovery.ts`. */
function seal(target: string, identity: CopyIdentity): CopyFacts {
  return onCopy(target, (copy) => {
    identify(copy, identity);
    // As it is used: the change of modes needs a moment without readers, which there will not be.
    copy.pragma('journal_mode = WAL');
  });
}

function settle(path: string): null {
  if (walBytesOf(path) === 0 && !fs.existsSync(`${path}-journal`)) return null;
  const db = openConnection(path, { readonly: false, mustExist: true, busyTimeoutMs: BUSY_TIMEOUT_MS });
  try {
    // A journal of somebody else's is rolled back by whoever reads first.
    db.pragma('schema_version');
    db.pragma('wal_checkpoint(TRUNCATE)');
  } finally {
    db.close();
  }
  if (walBytesOf(path) > 0) {
    throw new SluiceError('SLUICE_CONFLICT', `some other program is reading ${path}: let it end, and try again`);
  }
  return null;
}

function identify(db: Connection, { databaseId, epoch, appliedSeq, owner, key }: CopyIdentity): void {
  transaction(db, () => {
    const before = db.prepare(SELECT_STATE).get() as StateRow;
    // A dead letter keeps where its write was accepted, so that it is known again where it has been already.
    db.prepare(`UPDATE _sluice_dead_letters SET origin = ? || ':' || seq WHERE origin IS NULL`).run(before.databaseId);
    db.prepare(`UPDATE _sluice_dead_letters SET origin = NULL WHERE origin = ? || ':' || seq`).run(databaseId);
    db.prepare(
      `UPDATE _sluice_state SET database_id = ?, epoch = ?, owner = ?,
         applied_seq = max(?, applied_seq, (SELECT ifnull(max(seq), 0) FROM _sluice_dead_letters)),
         batch_after = -1, batch_result = '', change_id = '', change_result = ''`,
    ).run(databaseId, BigInt(epoch), owner, BigInt(appliedSeq));
    if (key !== undefined) storeKey(db, key);
  });
}

function check(db: Connection, name: string, tell: Tell): void {
  const bytes =
    (db.pragma('page_size', { simple: true }) as number) * (db.pragma('page_count', { simple: true }) as number);
  tell({ phase: 'check', bytes, totalBytes: bytes });
  const { integrity } = checkIntegrity(db);
  if (integrity.length > 0) throw damaged(name, integrity.slice(0, 3).join('; '), 'SQLITE_CORRUPT');
}

/** Works on a copy, which nobody else knows; it is one file on the disk afterwards, with nothing beside it. */
function onCopy(target: string, work: (copy: Connection) => void): CopyFacts {
  const db = openConnection(target, { readonly: false, mustExist: true, busyTimeoutMs: 0 });
  let facts: Omit<CopyFacts, 'bytes'>;
  try {
    db.pragma('journal_mode = DELETE');
    // With no WAL, each commit is on the disk then when it returns: nobody has to sync the file once more.
    db.pragma('synchronous = FULL');
    work(db);
    facts = factsOf(db);
  } finally {
    db.close();
  }
  return { ...facts, bytes: fs.statSync(target).size };
}

function factsOf(db: Connection): Omit<CopyFacts, 'bytes'> {
  const { databaseId, epoch, appliedSeq } = db.prepare(SELECT_STATE).get() as StateRow;
  const queue = db
    .prepare(
      'SELECT count(*) AS entries, ifnull(sum(length("write")), 0) AS bytes, min(first_failed_at) AS oldestAt FROM _sluice_dead_letters',
    )
    .get() as { entries: number; bytes: number; oldestAt: number | null };
  return {
    databaseId,
    epoch,
    appliedSeq,
    queue: { ...queue, oldestAt: queue.oldestAt ?? undefined },
    keys: findKeys(db),
    tables: tablesOf(db),
  };
}

function tablesOf(db: Connection): CopiedTable[] {
  const names = db
    .prepare(
      `SELECT name FROM sqlite_schema
         WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_sluice\\_%' ESCAPE '\\'`,
    )
    .pluck()
    .all() as string[];
  return names.map((name) => {
    const isKeyValue = haveKeysAndValues(columnsOf(db, name) ?? []);
    return { name, isKeyValue, keyId: isKeyValue ? firstKeyId(db, name) : undefined };
  });
}

/** One value tells, as at `db.table`. */
function firstKeyId(db: Connection, table: string): string | undefined {
  const value = db
    .prepare(`SELECT value FROM ${quote(table)} WHERE key >= '' ORDER BY key LIMIT 1`)
    .pluck()
    .get();
  return value instanceof Uint8Array ? keyIdOf(value) : undefined;
}

function transaction(db: Connection, body: () => void): void {
  db.exec('BEGIN IMMEDIATE');
  body();
  db.exec('COMMIT');
}

/** A file that is not there yet, for those alone who may read what is copied into it. */
function makeFile(path: string, mode: number): void {
  fs.closeSync(fs.openSync(path, 'wx', 0o600));
  fs.chmodSync(path, mode & 0o777);
}

function copyFile(from: string, to: string, copied: (bytes: number) => void): void {
  const input = fs.openSync(from, 'r');
  try {
    makeFile(to, fs.fstatSync(input).mode | 0o600);
    const output = fs.openSync(to, 'r+');
    try {
      const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
      for (let bytes = fs.readSync(input, chunk); bytes > 0; bytes = fs.readSync(input, chunk)) {
        for (let done = 0; done < bytes; ) done += fs.writeSync(output, chunk, done, bytes - done);
        copied(bytes);
      }
    } finally {
      fs.closeSync(output);
    }
  } finally {
    fs.closeSync(input);
  }
}

function lookOf(path: string): string {
  const { ino, size, mtimeNs } = fs.statSync(path, { bigint: true });
  return `${ino} ${size} ${mtimeNs}`;
}

function assertNotOpen(file: string, advice: string): void {
  if (!isLocked(`${file}-log`)) return;
  throw new SluiceError('SLUICE_LOCKED', `${file} is a database that a process has open: ${advice}`);
}

function damaged(path: string, finding: string, sqliteCode: string | undefined): SluiceError {
  const what = sqliteCode === 'SQLITE_NOTADB' ? 'is no SQLite database' : `is damaged: ${finding}`;
  return new SluiceError('SLUICE_STORE', `${path} ${what}`, { sqliteCode });
}
