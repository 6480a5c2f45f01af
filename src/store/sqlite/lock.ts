import { existsSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { codeOf, messageOf, SluiceError } from '../../base/errors.ts';
import type { FileSystem } from '../../base/file-system.ts';
import { sleep } from '../../base/waiting.ts';
import { type Connection, openConnection } from './connection.ts';

const LOCK_FILE = 'lock.db';
const OWNER_FILE = 'owner.json';
const RETRY_MS = 50;

/** Who holds the lock, for the message of whoever comes second. */
export interface Owner {
  readonly pid: number;
  readonly host: string;
  readonly startedAt: string;
}

/**
 * Locks held by this process, by folder. The strong reference is the point: a collected connection would free its lock.
 */
const held = new Map<string, Connection>();

/** The right to be the only process that writes to a database. */
export interface ProcessLock {
  release(): void;
}

/**
 * Takes the lock of a database: an exclusive transaction, never committed, on a tiny SQLite file. The operating system
 * frees it when the process dies, however it dies, so there is no stale lock to clean up. The lock file is touched by
 * SQLite alone: POSIX locks vanish when any descriptor of the file is closed in the process.
 */
export async function acquireLock(
  folder: string,
  database: string,
  timeoutMs: number,
  fileSystem: FileSystem,
  clock: Clock,
): Promise<ProcessLock> {
  const deadline = clock.elapsed() + timeoutMs;
  for (;;) {
    const connection = held.has(folder) ? undefined : tryLock(join(folder, LOCK_FILE));
    if (connection !== undefined) {
      held.set(folder, connection);
      const owner: Owner = { pid: process.pid, host: hostname(), startedAt: new Date(clock.now()).toISOString() };
      await writeOwner(join(folder, OWNER_FILE), owner, fileSystem);
      return { release: () => release(folder, connection) };
    }
    if (clock.elapsed() >= deadline) throw await lockedError(folder, database, fileSystem);
    await sleep(RETRY_MS, clock);
  }
}

/**
 * Whether a process holds the lock of a database. It is not taken: reading the lock file is what a holder keeps others
 * from, and disturbs nobody for longer than that takes.
 */
export function isLocked(folder: string): boolean {
  const path = join(folder, LOCK_FILE);
  if (held.has(folder)) return true;
  if (!existsSync(path)) return false;
  const connection = openConnection(path, { readonly: true, busyTimeoutMs: 0 });
  try {
    connection.prepare('SELECT 1 FROM sqlite_schema').all();
    return false;
  } catch (error) {
    if (codeOf(error) === 'SQLITE_BUSY') return true;
    throw new SluiceError('SLUICE_STORE', `the lock ${path} cannot be read: ${messageOf(error)}`, { cause: error });
  } finally {
    connection.close();
  }
}

/** Who took the lock last, as the note beside it says; `undefined` where there is none that can be read. */
export async function lastOwner(folder: string, fileSystem: FileSystem): Promise<Owner | undefined> {
  const note = await fileSystem.readNote(join(folder, OWNER_FILE)).catch(() => undefined);
  return note === undefined ? undefined : parseOwner(note);
}

/** Only a message depends on the note: a full disk must not keep anybody from opening, and perhaps making room. */
async function writeOwner(path: string, owner: Owner, fileSystem: FileSystem): Promise<void> {
  try {
    await fileSystem.writeNote(path, `${JSON.stringify(owner)}\n`);
  } catch {
    // Better no name than the one of whoever was here before.
    await fileSystem.unlink(path).catch(() => undefined);
  }
}

function tryLock(path: string): Connection | undefined {
  let connection: Connection | undefined;
  try {
    connection = openConnection(path, { readonly: false, busyTimeoutMs: 0 });
    connection.exec('BEGIN EXCLUSIVE');
    return connection;
  } catch (error) {
    connection?.close();
    if (codeOf(error) === 'SQLITE_BUSY') return undefined;
    if (error instanceof SluiceError) throw error;
    throw new SluiceError('SLUICE_STORE', `the lock ${path} cannot be taken: ${messageOf(error)}`, {
      cause: error,
      sqliteCode: codeOf(error),
    });
  }
}

function release(folder: string, connection: Connection): void {
  if (held.get(folder) !== connection) return;
  held.delete(folder);
  connection.close();
}

async function lockedError(folder: string, database: string, fileSystem: FileSystem): Promise<SluiceError> {
  const owner = await lastOwner(folder, fileSystem);
  const who =
    owner === undefined ? 'another process' : `process ${owner.pid} on ${owner.host}, running since ${owner.startedAt}`;
  return new SluiceError(
    'SLUICE_LOCKED',
    `${database} is locked (${join(folder, LOCK_FILE)}) by ${who}: one process writes to a database at a time. ` +
      'Stop it, or use another file; with lockTimeoutMs, open waits for it to go.',
  );
}

function parseOwner(note: string): Owner | undefined {
  try {
    return JSON.parse(note) as Owner;
  } catch {
    return undefined;
  }
}
