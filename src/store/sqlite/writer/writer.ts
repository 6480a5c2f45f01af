import { performance } from 'node:perf_hooks';
import { ValueCipher } from '../../../base/encryption/index.ts';
import { SluiceError } from '../../../base/errors.ts';
import {
  type Batch,
  type BatchResult,
  type Checkpoint,
  type CheckpointCounts,
  type ExecutedAll,
  type ExecuteResult,
  type KeysFound,
  type Parameters,
  type QueueChange,
  type QueueChanged,
  type RepeatedStatement,
  type RotationStep,
  type RotationStepped,
  type StoreFacts,
  StoreFailure,
  type Unlocked,
} from '../../store.ts';
import { type Connection, checkVersion, openConnection } from '../connection.ts';
import { findKeys, storeKey } from '../encryption-keys.ts';
import { assertSameDatabase, type FileId, FileIdentity, filesGone } from '../file-identity.ts';
import { classify, toFailure } from '../result-codes.ts';
import { claimState, SELECT_STATE, type StateRow } from '../schema.ts';
import { Applier } from './applier.ts';
import { HeldTransaction } from './held-transaction.ts';
import { KeyRotator } from './key-rotator.ts';
import { lastInsertRowid, perform, runOnce } from './perform.ts';
import { QueueChanger } from './queue-changer.ts';
import { freeBytes, reclassify } from './space-probe.ts';
import { NOTHING_SWEPT, Sweeper, type Swept } from './sweeper.ts';
import { type WriterParts, writerParts } from './writer-parts.ts';
import type { HeldAnswer, HeldStatement, WriterReport, WriterStart } from './writer-protocol.ts';

/** At start another program may hold the file for a moment; nobody else waits for this thread yet. Not for checkpoints. */
const START_BUSY_TIMEOUT_MS = 5_000;

/** Pages in the WAL that wait for a checkpoint, at which none waits for a gap any more. */
const WAL_PAGES_MAX = 16_000;
const WAL_LIMIT_BYTES = 64 * 1024 * 1024;
const PAGE_CACHE_KIB = 16 * 1024;

const GAP_MS = 100;

/** How long a checkpoint that a reader has held up waits for the next attempt. */
const HELD_UP_MS = 2_000;

/** A connection that can write, with everything set as a writer needs it, and the keys that the database names. */
export function openDatabase({ path, expected, check }: WriterStart): {
  readonly db: Connection;
  readonly keys: KeysFound;
} {
  // Or SQLite would make a new file in its place.
  if (expected !== undefined) assertSameDatabase(path, expected);
  let db: Connection | undefined;
  try {
    db = openConnection(path, { readonly: false, busyTimeoutMs: START_BUSY_TIMEOUT_MS });
    checkVersion(db);
    configure(db);
    if (check) quickCheck(db);
    return { db, keys: findKeys(db) };
  } catch (error) {
    db?.close();
    throw failureAt(path, error);
  }
}

function failureAt(path: string, error: unknown): Error {
  return error instanceof SluiceError ? error : reclassify(toFailure(error), path);
}

/** The only read-write connection to the database, and what it does between two calls. */
export class Writer {
  readonly #path: string;
  readonly #db: Connection;
  readonly #parts: WriterParts;
  readonly #applier: Applier;
  readonly #queue: QueueChanger;
  readonly #sweeper: Sweeper;
  readonly #held: HeldTransaction;
  readonly facts: StoreFacts;
  readonly #files: FileIdentity;
  #durable: boolean;
  #gap: NodeJS.Timeout | undefined;
  #soon: NodeJS.Immediate | undefined;
  #checkpoints: Checkpoint[] = [];
  #walFrames = 0;
  #walFramesCheckpointed = 0;
  #heldUpUntil = 0;

  constructor(
    db: Connection,
    { path, owner, takeOver, queueLimits, breaker }: WriterStart,
    unlocked: Unlocked | undefined,
  ) {
    this.#path = path;
    this.#db = db;
    try {
      const version = checkVersion(this.#db);
      this.#transaction(() => {
        claimState(db, owner, takeOver);
        if (unlocked?.store !== undefined) storeKey(db, unlocked.store);
      });
      if (this.#db.pragma('synchronous', { simple: true }) !== 2) {
        throw new StoreFailure('fatal', 'SQLite did not keep synchronous=FULL');
      }
      this.#files = new FileIdentity(path);
      this.#db.pragma('busy_timeout = 0');
      // The watermark may have been written and never synced by a process that was killed: until a complete checkpoint
      // has carried it into the database file, no log segment may be deleted on its word.
      this.#durable = this.#checkpoint('TRUNCATE');
      const parts = writerParts(this.#db, owner, unlocked && new ValueCipher(unlocked.secrets));
      this.#parts = parts;
      this.#applier = new Applier(parts, { limits: queueLimits, breaker });
      this.#queue = new QueueChanger(parts, queueLimits);
      this.#sweeper = new Sweeper(parts);
      this.#held = new HeldTransaction(parts);
      this.facts = { ...this.#readFacts(version), queue: parts.dead.state };
    } catch (error) {
      this.#db.close();
      throw this.#failureOf(error);
    }
  }

  #failureOf(error: unknown): Error {
    return failureAt(this.#path, error);
  }

  apply(batch: Batch): BatchResult {
    const start = performance.now();
    const result = this.#onFiles(() => this.#applier.apply(batch));
    if (!this.#durable) this.#durable = this.#checkpoint('TRUNCATE');
    this.#awaitGap();
    return { ...result, durable: this.#durable, durationMs: performance.now() - start };
  }

  /** One statement of the user's, in a transaction of its own. */
  execute(sql: string, parameters: Parameters): ExecuteResult {
    return this.#ofUsers(() => {
      const result = perform(this.#db, this.#db.prepare(sql), parameters);
      if (this.#db.inTransaction) {
        this.#db.exec('ROLLBACK');
        throw new SluiceError('SLUICE_INVALID_SQL', 'the statement left a transaction open, which was rolled back');
      }
      return result;
    });
  }

  /** Statements of the user's, each with every set of its parameters, all in one transaction. */
  executeAll(statements: readonly RepeatedStatement[]): ExecutedAll {
    return this.#ofUsers(() => {
      let changes = 0;
      this.#transaction(() => {
        for (const { sql, sets } of statements) {
          const statement = this.#db.prepare(sql);
          for (const parameters of sets) {
            changes += runOnce(this.#db, statement, parameters).changes;
            // With OR ROLLBACK, say: what comes next would be committed by itself.
            if (!this.#db.inTransaction)
              throw new SluiceError('SLUICE_INVALID_SQL', 'a statement ended the transaction');
          }
        }
      });
      return { changes, lastInsertRowid: lastInsertRowid(this.#db) };
    });
  }

  /** Work that somebody asked for and waits for: nothing of it is left where it fails, and its failure is theirs. */
  #ofUsers<T>(work: () => T): T {
    try {
      this.assertFiles();
      const result = work();
      this.assertFiles();
      this.#awaitGap();
      return result;
    } catch (error) {
      if (this.#db.inTransaction) this.#db.exec('ROLLBACK');
      if (error instanceof SluiceError) throw error;
      const { class: found, code, message } = classify(error, { ownStatement: false });
      if (found === 'permanent')
        throw new SluiceError('SLUICE_STORE', `SQLite refused the statement: ${message}`, { sqliteCode: code });
      throw toFailure(error);
    }
  }

  /** Begins a transaction of the user's. Until its end no checkpoint is tried, which would fail for nothing. */
  begin(): void {
    this.#onFiles(() => this.#held.begin());
    this.#endGap();
  }

  executeHeld(statement: HeldStatement): HeldAnswer {
    return this.#held.execute(statement);
  }

  commit(): void {
    try {
      this.assertFiles();
      this.#held.commit();
      this.assertFiles();
    } catch (error) {
      this.#held.rollback();
      if (error instanceof SluiceError || error instanceof StoreFailure) throw error;
      const { class: found, code, message } = classify(error, { ownStatement: true });
      if (found !== 'permanent') throw this.#failureOf(error);
      throw new SluiceError('SLUICE_STORE', `SQLite refused to commit: ${message}`, { sqliteCode: code });
    } finally {
      this.#awaitGap();
    }
  }

  rollback(): void {
    this.#held.rollback();
    this.#awaitGap();
  }

  changeQueue(id: string, change: QueueChange): QueueChanged {
    const changed = this.#onFiles(() => this.#queue.change(id, change));
    this.#awaitGap();
    return changed;
  }

  /** Deletes rows that have expired by `now`. Where that fails nobody has asked for anything: it is tried again. */
  sweep(now: number): Swept {
    try {
      const swept = this.#onFiles(() => this.#sweeper.sweep(now));
      if (swept.expired > 0) this.#awaitGap();
      return swept;
    } catch (error) {
      if (error instanceof StoreFailure && error.failure === 'fatal') throw error;
      return NOTHING_SWEPT;
    }
  }

  rotate(step: RotationStep): RotationStepped {
    const stepped = this.#onFiles(() => new KeyRotator(this.#parts).step(step));
    this.#awaitGap();
    return stepped;
  }

  /** The database file as the operating system knows it. */
  get database(): FileId {
    return this.#files.database;
  }

  /** Throws unless the database and its WAL are where they were opened. */
  assertFiles(): void {
    const { database, wal } = this.#files.look();
    if (database !== 'there' || wal !== 'there') throw filesGone(this.#path, database, wal);
  }

  report(): WriterReport {
    this.#measureWal();
    const checkpoints = this.#checkpoints;
    this.#checkpoints = [];
    return {
      walBytes: this.#files.look().walBytes,
      walFrames: this.#walFrames,
      walFramesCheckpointed: this.#walFramesCheckpointed,
      checkpoints,
      diskFreeBytes: freeBytes(this.#path),
    };
  }

  /** Whether the database file has everything now: nothing of it is in the WAL alone. */
  settle(): boolean {
    return this.#onFiles(() => this.#checkpoint('TRUNCATE'));
  }

  close(): void {
    this.#endGap();
    this.#held.rollback();
    this.#checkpoint('TRUNCATE');
    this.#db.close();
  }

  /**
   * Carries what was committed into the database: when nothing has been asked for a moment, or before the next batch where
   * too much waits for it. SQLite's own checkpoint, which is turned off, would do that inside a commit, and tell nobody.
   */
  #awaitGap(): void {
    this.#checkpointIn(GAP_MS);
    this.#measureWal();
    const waiting = this.#walFrames - this.#walFramesCheckpointed;
    if (waiting < WAL_PAGES_MAX || performance.now() < this.#heldUpUntil) return;
    clearImmediate(this.#soon);
    this.#soon = setImmediate(() => {
      // PASSIVE leaves the file as it is, to be written again from its beginning: no gap is coming in which it could grow anew.
      if (!this.#checkpoint('PASSIVE')) this.#heldUpUntil = performance.now() + HELD_UP_MS;
      // What has come meanwhile goes first: this was no gap.
      this.#checkpointIn(GAP_MS);
    });
  }

  #endGap(): void {
    clearTimeout(this.#gap);
    clearImmediate(this.#soon);
  }

  /** How much is in the WAL, and how much of that is in the database too. */
  #measureWal(): void {
    try {
      this.#takeWal(this.#db.pragma('wal_checkpoint(NOOP)'));
    } catch {
      // What was known stays; a real fault of the disk comes back with the next batch.
    }
  }

  #takeWal(answer: unknown): CheckpointRow | undefined {
    const [row] = answer as CheckpointRow[];
    this.#walFrames = Math.max(0, row?.log ?? 0);
    this.#walFramesCheckpointed = Math.max(0, row?.checkpointed ?? 0);
    return row;
  }

  /** A reader that holds it up may be the last thing that happens for long: the WAL must shrink when it has gone. */
  #checkpointIn(delayMs: number): void {
    clearTimeout(this.#gap);
    this.#gap = setTimeout(() => {
      if (!this.#checkpoint('TRUNCATE')) this.#checkpointIn(HELD_UP_MS);
    }, delayMs);
  }

  /**
   * Work on the database: a commit into a file that is gone is none, and the log must keep these writes. What cannot be done
   * has the class that the disk gives it.
   */
  #onFiles<T>(work: () => T): T {
    try {
      this.assertFiles();
      const result = work();
      this.assertFiles();
      return result;
    } catch (error) {
      throw this.#failureOf(error);
    }
  }

  #checkpoint(mode: 'PASSIVE' | 'TRUNCATE'): boolean {
    const start = performance.now();
    const result = this.#tryCheckpoint(mode);
    this.#checkpoints.push({ result, durationMs: performance.now() - start });
    // After a sync that failed, only a complete checkpoint proves anything again.
    if (result === 'failed') this.#durable = false;
    return result === 'complete';
  }

  /**
   * Complete is: all of the WAL is in the database file. `busy = 0` alone says nothing.
   *
   * Not into a database that has lost its name, nor where another WAL stands in the place of ours: what is left as it is
   * can be put together again by whoever puts the files back. A WAL that is only gone is still open here, and what is in
   * it goes when this connection does: into the database with it.
   */
  #tryCheckpoint(mode: 'PASSIVE' | 'TRUNCATE'): keyof CheckpointCounts {
    try {
      const { database, wal } = this.#files.look();
      if (database !== 'there' || wal === 'replaced') return 'failed';
      const row = this.#takeWal(this.#db.pragma(`wal_checkpoint(${mode})`));
      const complete = row !== undefined && row.busy === 0 && row.log >= 0 && row.log === row.checkpointed;
      return complete ? 'complete' : 'partial';
    } catch {
      // Nothing is lost by a checkpoint that did not happen; a real fault of the disk comes back with the next batch.
      return 'failed';
    }
  }

  #transaction(body: () => void): void {
    this.#db.exec('BEGIN IMMEDIATE');
    body();
    this.#db.exec('COMMIT');
  }

  #readFacts(version: string): Omit<StoreFacts, 'queue'> {
    const { databaseId, epoch, appliedSeq } = this.#db.prepare(SELECT_STATE).get() as StateRow;
    return { databaseId, epoch, appliedSeq, durable: this.#durable, version };
  }
}

/** What SQLite answers to a checkpoint: pages in the WAL, and pages of them that are in the database. */
interface CheckpointRow {
  readonly busy: number;
  readonly log: number;
  readonly checkpointed: number;
}

function configure(db: Connection): void {
  const mode = db.pragma('journal_mode = WAL', { simple: true });
  if (mode !== 'wal') {
    throw new SluiceError(
      'SLUICE_UNSUPPORTED',
      `SQLite cannot use a write-ahead log here (journal mode is ${String(mode)}): use a file on a local file system`,
    );
  }
  // After journal_mode, which resets it: better-sqlite3 is built to default to NORMAL in WAL mode, and a watermark that
  // a power cut can take back must never have let a log segment go.
  db.pragma('synchronous = FULL');
  db.pragma('wal_autocheckpoint = 0');
  db.pragma(`journal_size_limit = ${WAL_LIMIT_BYTES}`);
  db.pragma(`cache_size = -${PAGE_CACHE_KIB}`);
  db.pragma('temp_store = MEMORY');
  if (process.platform === 'darwin') db.pragma('fullfsync = ON');
}

function quickCheck(db: Connection): void {
  const finding = db.pragma('quick_check(1)', { simple: true });
  if (finding !== 'ok')
    throw new StoreFailure('fatal', `SQLite's quick check found: ${String(finding)}`, 'SQLITE_CORRUPT');
}
