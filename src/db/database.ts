import type { EventEmitter } from 'eventemitter3';
import { type EncryptionKey, keyIdOf, type ValueCipher } from '../base/encryption/index.ts';
import { SluiceError } from '../base/errors.ts';
import { foldName } from '../base/fold-name.ts';
import { type SqlValue, Target } from '../base/frame/index.ts';
import { show } from '../base/options.ts';
import { checkWait, settledWithin, stoppable, type WaitOptions, waitFor } from '../base/waiting.ts';
import type { DeadLetterPage, DeadLetterQueue, DeadLetterSelection, RetryResult } from '../dlq/index.ts';
import { bytesOfValues, type State } from '../engine/index.ts';
import type { FlushResult } from '../flush/index.ts';
import type { DatabaseStats, RecoveryNumbers } from '../metrics/stats.ts';
import { type CopiedTable, type DeadLetter, haveKeysAndValues, type RestartReason } from '../store/store.ts';
import {
  type BackupOptions,
  type BackupResult,
  backUp,
  type CopyParts,
  type RestoreOptions,
  type RestoreResult,
  readBackup,
  readRestore,
  restoreInto,
  type Swapping,
} from './backup.ts';
import type { Core } from './core.ts';
import type { DatabaseEvents } from './events.ts';
import { type RotationOptions, type RotationProgress, rotateKey } from './key-rotation.ts';
import { Keyspace } from './keyspace.ts';
import type { DatabaseLog } from './logging.ts';
import { checkName } from './names.ts';
import type { ResolvedOptions } from './options.ts';
import { RowShape, Rows, type RowsOptions, readRowsOptions } from './rows.ts';
import type { Stored } from './schema.ts';
import { givenStaged } from './sql/direct.ts';
import { SqlFace } from './sql/face.ts';
import { checkStagedSql } from './sql/statements.ts';
import type { Sql } from './sql/template.ts';
import { type SqlTransaction, type SqlTransactionOptions, SqlTransactions } from './sql-transaction.ts';
import { readStats, toV2Metrics, type V2Metrics } from './stats.ts';
import { Table } from './table.ts';
import {
  type ResolvedTableOptions,
  resolveTableOptions,
  sameTableOptions,
  type TableOptions,
} from './table-options.ts';
import {
  assertFunction,
  runTransaction,
  runTransactionAsync,
  Transaction,
  type TransactionOptions,
} from './transaction.ts';

/** What `close` left behind. */
export interface CloseResult {
  /**
   * Writes that were accepted and not applied. They are in the log, and are applied at the next open; those that are not,
   * because the level is `'memory'` or the disk of the log did not take them, are lost.
   */
  readonly pending: number;
}

/** @internal What `open` has put together. */
export interface DatabaseParts {
  readonly path: string;
  readonly options: ResolvedOptions;
  /** Kept apart from the options, which everybody can read. */
  readonly cipher: ValueCipher | undefined;
  readonly core: Omit<Core, 'assertOpen' | 'foreignChanges' | 'restores'>;
  readonly queue: DeadLetterQueue;
  readonly events: Events;
  readonly log: DatabaseLog | undefined;
  /** Its duration is known when `open` is done. */
  readonly recovery: RecoveryNumbers;
  /** Runs when everything else is closed. */
  readonly release: () => Promise<void>;
}

/** @internal */
export type Events = EventEmitter<DatabaseEvents>;

const STAGED_STATEMENTS_MAX = 500;

/** What `close` takes beyond `closeTimeoutMs`, at most: for the batch that is on its way, and the last checkpoint. */
const CLOSE_GRACE_MS = 2_000;

/**
 * An open database. It is also its own default table, see {@link OpenOptions.table}.
 *
 * One process opens a file at a time. Close it when you are done: `close` carries everything staged into SQLite. A process
 * that ends without it loses nothing that was acknowledged (see {@link OpenOptions.durability}); the rest of the work is
 * done at the next open.
 *
 * Not promised: safety on network file systems or disks that lie about syncing, and when other programs move or replace
 * the log folder. If they move or replace the file itself or its `-wal`, the database fails before it acknowledges anything
 * on their word; put back in their place, they are opened again with nothing lost.
 */
export class Database<T = unknown, In = T> extends SqlFace<T, In> {
  /** The file, with all links resolved. */
  readonly path: string;
  /** The options with everything filled in. */
  readonly options: ResolvedOptions;
  /** Writes that SQLite refused for good. */
  readonly dlq: DeadLetterQueue;
  readonly #cipher: ValueCipher | undefined;
  readonly #events: Events;
  readonly #log: DatabaseLog | undefined;
  readonly #recovery: RecoveryNumbers;
  readonly #release: () => Promise<void>;
  readonly #tables = new Map<string, Table<never>>();
  readonly #shapes = new Map<string, RowShape>();
  readonly #staged = new Map<string, Target>();
  #closing: Promise<CloseResult> | undefined;
  readonly #writerRestarts: Record<RestartReason, number> = { death: 0, reopen: 0 };
  #isRotating = false;
  #isRestoring = false;
  #restores = 0;
  /** Backups and restores that are under way, and how to call them off. */
  readonly #copies = new Map<AbortController, Promise<unknown>>();
  /** The watermark that was found at open. */
  readonly #foundSeq: number;
  readonly #transactions: SqlTransactions;

  /** @internal */
  constructor({ path, options, cipher, core, queue, events, log, recovery, release }: DatabaseParts) {
    const openCore: Core = {
      ...core,
      assertOpen: () => core.engine.health.assertOpen(),
      foreignChanges: () => this.#foreignChanges(),
      restores: () => this.#restores,
    };
    const inUse = {
      rows: (name: string) => this.#shapes.get(name),
      hasKeys: (name: string) => this.#tables.has(name),
    };
    super(openCore, options, { ...options.defaults, cipher }, inUse);
    this.#cipher = cipher;
    this.path = path;
    this.options = options;
    this.dlq = queue;
    this.#events = events;
    this.#log = log;
    this.#recovery = recovery;
    this.#foundSeq = core.store.facts.appliedSeq;
    this.#release = release;
    this.#transactions = new SqlTransactions(this.core);
    this.#checkShape(options.table);
    this.#tables.set(foldName(options.table), this as unknown as Table<never>);
    events.on('writer-restart', ({ reason }) => this.#writerRestarts[reason]++);
  }

  // ── tables and rows ───────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * A key-value table, made when first written to. The same object for the same name, whatever the case of its letters: with
   * the options that it was first asked for with.
   *
   * Errors: `SLUICE_INVALID_OPTION` for a name that is taken or cannot be one, for a table of another shape, and for other
   * options than the table has; `SLUICE_DECRYPT` for another key than its values are encrypted with.
   */
  table<U = unknown, UIn = U, Coerce extends boolean = boolean>(
    name: string,
    options?: TableOptions<U, UIn, Coerce>,
  ): Table<Stored<U, UIn, Coerce>, UIn> {
    this.core.assertOpen();
    checkName(name, 'table name');
    const resolved = resolveTableOptions<U, UIn, Coerce>(options ?? {}, this.tableOptions);
    let table = this.#tables.get(foldName(name));
    if (table === undefined) {
      this.#checkShape(name);
      this.#checkKey(name, resolved);
      table = new Table<never>(this.core, name, resolved);
      this.#tables.set(foldName(name), table);
    } else if (options !== undefined && !sameTableOptions(table.tableOptions, resolved)) {
      throw new SluiceError(
        'SLUICE_INVALID_OPTION',
        `table ${show(name)} is in use with other options: ask for it without options, or with the same ones`,
      );
    }
    return table as unknown as Table<Stored<U, UIn, Coerce>, UIn>;
  }

  /**
   * A table to append rows to, see {@link Rows}.
   *
   * Errors: `SLUICE_INVALID_OPTION` for names and columns that do not fit, `SLUICE_NOT_FOUND` where there is no such table
   * and nothing to make it from.
   */
  rows<R extends object = Record<string, unknown>, RIn extends object = R, Coerce extends boolean = boolean>(
    name: string,
    options: RowsOptions<R, RIn, Coerce> = {},
  ): Rows<RIn> {
    this.core.assertOpen();
    checkName(name, 'table name');
    const resolved = readRowsOptions(options);
    const addColumns = resolved.onNewColumn === 'add';
    const shape = this.#shapes.get(foldName(name)) ?? new RowShape(this.core, name);
    if (!shape.exists && this.#tables.has(foldName(name))) {
      throw new SluiceError(
        'SLUICE_INVALID_OPTION',
        `${show(name)} is a key-value table, which is made when it is first written to: choose another name for the rows`,
      );
    }
    if (resolved.columns !== undefined) shape.declare(resolved.columns, addColumns);
    else if (!shape.exists && !addColumns) {
      throw new SluiceError(
        'SLUICE_NOT_FOUND',
        `there is no table ${show(name)}: pass its columns, or onNewColumn: 'add', to make it`,
      );
    }
    this.#shapes.set(foldName(name), shape);
    return new Rows<RIn>(this.core, shape, resolved);
  }

  // ── transactions ──────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Writes what a function writes, in several tables and keys, as one atomic write: in the log, in SQLite and in the dead-letter queue
   * there is all of it, or none. What the function throws takes everything back, and is thrown. Its reads see its own writes.
   *
   * The function is synchronous, so nobody can come between. What is written past `tx`, with `db.set` say, is not part of it.
   *
   * Errors: whatever the function throws; `SLUICE_FULL` when staging has no room for all of it; `SLUICE_UNSUPPORTED` for an
   * asynchronous function.
   *
   * @example
   * ```ts
   * import { open } from 'sluicedb';
   *
   * const db = await open<number>(':memory:');
   * db.setMany({ ada: 100, bob: 0 });
   * db.transaction((tx) => {
   *   tx.increment('ada', -30);
   *   tx.increment('bob', 30);
   * });
   * console.log(db.toDict()); // { ada: 70, bob: 30 }
   * await db.close();
   * ```
   */
  transaction<R>(body: (tx: Transaction<T, In>) => R): R {
    return runTransaction(this.core, (work) => new Transaction<T, In>(work, work.whole, this, this), body);
  }

  /**
   * {@link Database.transaction} for a function that is asynchronous; resolves when its writes are as safe as the durability level
   * says. If a key that it has read is written by somebody else before it is done, or SQL changes anything, nothing of it is made, and
   * the function is called again: what it does besides reading and writing through `tx` should bear that.
   *
   * Errors: whatever the function throws; `SLUICE_CONFLICT` where it did not get through after `maxRetries`, or runs SQL itself, past
   * `tx`, after it has read something; `SLUICE_TIMEOUT` and `SLUICE_ABORTED`.
   */
  async atransaction<R>(body: (tx: Transaction<T, In>) => Promise<R>, options?: TransactionOptions): Promise<R>;
  /**
   * Runs a function with an SQL transaction that is held open on the writer thread: statements with their results, one after the
   * other, which see what those before them have done; all of it is committed when the function is done, and resolves when that is
   * on the disk, or rolled back when it throws: then what it threw is thrown. It begins when everything accepted before the call is
   * applied. Meanwhile no batch is written: what is staged comes after it. So it has a limit of time, see
   * {@link SqlTransactionOptions.timeoutMs}.
   *
   * What is called on the database itself, inside the function too, is not part of the transaction. Calls that would wait for its end
   * are refused there, with `SLUICE_CONFLICT`. Never run twice: if the thread dies before it answers to the COMMIT, the error is
   * `SLUICE_OUTCOME_UNKNOWN`, and before that everything is rolled back.
   *
   * Errors: whatever the function throws; `SLUICE_STORE`, with `sqliteCode`, where SQLite says no; `SLUICE_TIMEOUT` and
   * `SLUICE_ABORTED` at the end of its time.
   *
   * @example
   * ```ts
   * import { open } from 'sluicedb';
   *
   * const db = await open(':memory:');
   * await db.aexecute('CREATE TABLE account (name TEXT PRIMARY KEY, cents INTEGER CHECK (cents >= 0))');
   * await db.aexecute("INSERT INTO account VALUES ('ada', 100), ('bob', 0)");
   * await db.atransaction(
   *   async (tx) => {
   *     await tx.aexecute('UPDATE account SET cents = cents - ? WHERE name = ?', [30, 'ada']);
   *     await tx.aexecute('UPDATE account SET cents = cents + ? WHERE name = ?', [30, 'bob']);
   *   },
   *   { sql: true },
   * );
   * console.log(await db.afetchAll('SELECT * FROM account')); // [ { name: 'ada', cents: 70 }, { name: 'bob', cents: 30 } ]
   * await db.close();
   * ```
   */
  async atransaction<R>(
    body: (tx: SqlTransaction) => Promise<R>,
    options: SqlTransactionOptions & { readonly sql: true },
  ): Promise<R>;
  async atransaction<R>(
    body: (tx: never) => Promise<R>,
    options: TransactionOptions | (SqlTransactionOptions & { readonly sql: true }) = {},
  ): Promise<R> {
    checkWait(options, ['sql', 'maxRetries']);
    const { sql = false, ...limits } = options;
    assertFunction(body);
    if (sql === true) return this.#transactions.run(body as (tx: SqlTransaction) => Promise<R>, limits);
    if (sql !== false) {
      throw new SluiceError('SLUICE_INVALID_OPTION', `sql must be true or false, not ${show(sql)}`);
    }
    const ofKeys = body as (tx: Transaction<T, In>) => Promise<R>;
    return runTransactionAsync(
      this.core,
      (work) => new Transaction<T, In>(work, work.whole, this, this),
      ofKeys,
      limits,
    );
  }

  /**
   * Begins an SQL transaction that the caller ends: with {@link Database.acommit} or {@link Database.arollback}, or with those of the
   * transaction itself. One at a time: `SLUICE_CONFLICT` while there is one. Better is {@link Database.atransaction}, which cannot
   * be forgotten: this one is rolled back after `timeoutMs`.
   *
   * Unlike NanaSQLite's, only what is called on the transaction is part of it: another task's write, accepted and acknowledged, is not
   * undone with it.
   */
  abeginTransaction(options: SqlTransactionOptions = {}): Promise<SqlTransaction> {
    return this.#transactions.begin(options);
  }

  /** @internal One that its caller ends, and as many at a time as there are callers: for who knows them by other names. */
  holdTransaction(what: string): Promise<SqlTransaction> {
    return this.#transactions.hold(what, {});
  }

  /** Commits what {@link Database.abeginTransaction} has begun: see {@link SqlTransaction.acommit}. `SLUICE_CONFLICT` where there is nothing. */
  async acommit(): Promise<void> {
    await this.#transactions.takeBegun().acommit();
  }

  /** Rolls back what {@link Database.abeginTransaction} has begun: see {@link SqlTransaction.arollback}. `SLUICE_CONFLICT` where there is nothing. */
  async arollback(): Promise<void> {
    await this.#transactions.takeBegun().arollback();
  }

  /** Whether what {@link Database.abeginTransaction} has begun is open. */
  get inTransaction(): boolean {
    return this.#transactions.hasBegun;
  }

  // ── SQL ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Stages one `INSERT`, `UPDATE`, `DELETE` or `REPLACE`, which is run in its place in the order of writes. Parameters are
   * a list; values are stored as in {@link Rows}. Returns `false` when staging is filling up.
   *
   * What it changes is seen by SQL reads, which wait for it, and by key reads once it is applied. A statement that SQLite
   * refuses goes to the dead-letter queue.
   *
   * Errors: `SLUICE_INVALID_SQL` for any other statement, `SLUICE_INVALID_VALUE`, `SLUICE_FULL`.
   */
  stage(sql: string | Sql, parameters: readonly unknown[] = []): boolean {
    const { target, values } = this.#prepareStaged(sql, parameters);
    return this.#stageSql(target, values);
  }

  /** Stages a statement; resolves when it is as safe as the durability level says. */
  async astage(sql: string | Sql, parameters: readonly unknown[] = [], wait?: WaitOptions): Promise<void> {
    checkWait(wait);
    const { engine, clock } = this.core;
    engine.assertMayAwait();
    const { target, values } = this.#prepareStaged(sql, parameters);
    const stage = () => {
      this.#stageSql(target, values);
      return engine.acknowledgement();
    };
    const bytes = bytesOfValues(values);
    const done = engine.admission.hasRoom(bytes) ? stage() : engine.whenRoom(bytes, stage, wait ?? {});
    return wait === undefined ? done : waitFor(done, 'the write', wait, clock);
  }

  // ── waiting ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Resolves when everything accepted before the call is as safe as the durability level says. */
  async adurable(wait: WaitOptions = {}): Promise<void> {
    checkWait(wait);
    this.core.assertOpen();
    this.core.engine.assertMayAwait('adurable');
    return waitFor(this.core.engine.acknowledgement(false), 'adurable', wait, this.core.clock);
  }

  /**
   * Flushes; resolves when everything accepted before the call is applied or dead, with what was done meanwhile. With
   * `wait: false` it only starts the flush.
   */
  async aflush(options: WaitOptions & { readonly wait?: boolean } = {}): Promise<FlushResult> {
    this.core.assertOpen();
    checkWait(options, ['wait']);
    const { wait = true, ...limits } = options;
    if (wait) return this.core.flusher.barrier('aflush', limits);
    this.core.flusher.request();
    return { applied: 0, coalesced: 0, dead: 0, durationMs: 0 };
  }

  /** Resolves when there is room in staging again: at once, unless a write has returned `false` or was refused. */
  async adrain(wait: WaitOptions = {}): Promise<void> {
    const { engine, flusher, clock } = this.core;
    checkWait(wait);
    this.core.assertOpen();
    if (engine.admission.needsDrain) engine.assertMayWait('adrain');
    const drained = engine.admission.whenDrained();
    if (engine.admission.needsDrain) flusher.request();
    await waitFor(drained, 'adrain', wait, clock);
  }

  /** Whether it would be kind to wait for room: see {@link Database.adrain}. */
  get needsDrain(): boolean {
    return this.core.engine.admission.needsDrain;
  }

  // ── dead letters ──────────────────────────────────────────────────────────────────────────────────────────────────

  /** {@link DeadLetterQueue.list} under the name that NanaSQLite has for it. */
  agetDlq(page: DeadLetterPage & WaitOptions = {}): Promise<DeadLetter[]> {
    return this.dlq.list(page);
  }

  /** {@link DeadLetterQueue.retry} under the name that NanaSQLite has for it. */
  aretryDlq(selection: DeadLetterSelection = 'all', wait: WaitOptions = {}): Promise<RetryResult> {
    return this.dlq.retry(selection, wait);
  }

  /** {@link DeadLetterQueue.clear} under the name that NanaSQLite has for it. */
  aclearDlq(selection: DeadLetterSelection = 'all', wait: WaitOptions = {}): Promise<number> {
    return this.dlq.clear(selection, wait);
  }

  // ── backup ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Writes a copy of the database, while it works on: everything accepted before the call, and all of it as of one moment.
   * The file is checked by SQLite and on the disk before it gets its name; if something goes wrong there is no new file, and
   * one that was there is as it was. It is a database by itself, to be opened like any other, beside the original too.
   *
   * It lasts as long as it takes to flush, to read the database once and to check the copy. SQLite's WAL grows meanwhile by what is
   * written. A process that is killed leaves a file `….partial`, which can be deleted.
   *
   * Errors: `SLUICE_INVALID_OPTION` for the database's own files, a folder that is not there, or `:memory:`; `SLUICE_CONFLICT`
   * for a file that is there, without `overwrite`, for dead letters with `deadLetters: 'refuse'`, and while a restore is under way;
   * `SLUICE_LOCKED` where the file is a database that is open; `SLUICE_STORE` where SQLite or the disk said no; `SLUICE_FAILED`,
   * `SLUICE_CLOSED`, `SLUICE_TIMEOUT`, `SLUICE_ABORTED`.
   *
   * @example
   * ```ts
   * import { mkdtempSync, rmSync } from 'node:fs';
   * import { tmpdir } from 'node:os';
   * import { join } from 'node:path';
   * import { open } from 'sluicedb';
   *
   * const folder = mkdtempSync(join(tmpdir(), 'sluice-'));
   * const db = await open(join(folder, 'a.db'));
   * db.set('a', 1);
   * const { appliedSeq } = await db.abackup(join(folder, 'backup.db'));
   * console.log(appliedSeq); // 1
   * await db.close();
   * rmSync(folder, { recursive: true });
   * ```
   */
  async abackup(path: string, options: BackupOptions = {}): Promise<BackupResult> {
    this.core.engine.assertAccepting();
    this.core.engine.assertMayWait('abackup');
    const order = readBackup(options);
    if (this.#isRestoring) throw new SluiceError('SLUICE_CONFLICT', 'the database is being restored: wait for that');
    const result = await this.#copying('abackup', order.wait, (signal) => backUp(this.#copyParts, path, order, signal));
    this.#log?.backedUp(result);
    return result;
  }

  /**
   * Replaces everything in the database by what a file has: a backup, or any database of Sluice's that was closed. The file is
   * copied and checked first, while the database works on; it stays as it is. Then no write is taken (`SLUICE_CONFLICT`, as of the
   * calls of SQL and of the dead-letter queue that change something) until what was accepted is applied and the copy has taken the
   * place of the database, which is one step: killed at any point, the next `open` finds the one or the other, and never replays
   * the log of what was before.
   *
   * Afterwards reads, tables, dead letters and numbers are those of the restored data; `Rows` may have other columns, or have to be
   * asked for again. Walks over a snapshot end with `SLUICE_CONFLICT`, and what is awaited in a reader thread is waited for. What was
   * in the database is gone: back it up first if it may be needed. Of a database that has failed, or whose flush stands still, close
   * it and call {@link restore}.
   *
   * Errors: `SLUICE_NOT_FOUND` for a file that is not there, or no database of Sluice's; `SLUICE_STORE` for one that is damaged or
   * no SQLite database, and where SQLite, the disk or a stall is in the way; `SLUICE_UNSUPPORTED` for a format of a later
   * version; `SLUICE_DECRYPT` for one with a key that the database is not open with; `SLUICE_LOCKED` for one that is open;
   * `SLUICE_CONFLICT` for one that was not closed, while a backup, another restore or a change of keys is under way, and while
   * another program reads the database; `SLUICE_INVALID_OPTION`, `SLUICE_CLOSED`, `SLUICE_TIMEOUT`, `SLUICE_ABORTED`. The database
   * goes on with what it had. `SLUICE_FAILED`: it is restored, but could not go on; close it, and open it again.
   *
   * @example
   * ```ts
   * import { mkdtempSync, rmSync } from 'node:fs';
   * import { tmpdir } from 'node:os';
   * import { join } from 'node:path';
   * import { open } from 'sluicedb';
   *
   * const folder = mkdtempSync(join(tmpdir(), 'sluice-'));
   * const db = await open(join(folder, 'a.db'));
   * db.set('a', 1);
   * await db.abackup(join(folder, 'backup.db'));
   * db.set('a', 2);
   * await db.arestore(join(folder, 'backup.db'));
   * console.log(db.get('a')); // 1
   * await db.close();
   * rmSync(folder, { recursive: true });
   * ```
   */
  async arestore(path: string, options: RestoreOptions = {}): Promise<RestoreResult> {
    this.core.engine.assertAccepting();
    this.core.engine.assertMayWait('arestore');
    const { onProgress, wait } = readRestore(options, 'arestore');
    if (this.#isRestoring || this.#isRotating || this.#copies.size > 0) {
      throw new SluiceError(
        'SLUICE_CONFLICT',
        'the database is being backed up, restored or encrypted anew: wait for that',
      );
    }
    this.#isRestoring = true;
    const before = this.#restores;
    try {
      const cipher = this.#cipher;
      const swapping: Swapping = {
        assertFit: (tables) => this.#assertFit(tables),
        onSwap: () => this.#restores++,
      };
      const result = await this.#copying('arestore', wait, (signal) =>
        restoreInto(this.#copyParts, cipher, path, swapping, { signal, onProgress }),
      );
      this.#log?.restored(result);
      return result;
    } finally {
      this.#isRestoring = false;
      // Not of the database as it was: it may have columns that are staged.
      if (this.#restores > before) for (const shape of this.#shapes.values()) shape.reload();
    }
  }

  // ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Brings everything that is encrypted to one key: to the one that is given, or, without, to the one that encrypts now. Values of
   * all key-value tables and dead letters are encrypted anew, in batches between the writes; those that were not encrypted at all,
   * or by NanaSQLite, are so afterwards. Tables that have a key of their own or `encryption: null`, and were asked for before, stay
   * as they are. Resolves to what was done.
   *
   * If it is interrupted, the database needs both keys: open it with the new one, and the old one as `encryption.previous`, and call
   * `arotateKey()`. When it is done the old key opens nothing any more, but copies that were made before, and what a disk keeps of
   * overwritten data.
   *
   * Errors: `SLUICE_UNSUPPORTED` for a database without `encryption`, `SLUICE_DECRYPT` for a value that none of the keys opens,
   * `SLUICE_CONFLICT` while another rotation runs, `SLUICE_ABORTED`, `SLUICE_INVALID_OPTION`.
   *
   * @example
   * ```ts
   * import { randomBytes } from 'node:crypto';
   * import { open } from 'sluicedb';
   *
   * const db = await open(':memory:', { encryption: { key: randomBytes(32) } });
   * db.set('kitchen', 21.5);
   * const { values } = await db.arotateKey({ key: randomBytes(32) });
   * console.log(values, db.get('kitchen')); // 1 21.5
   * await db.close();
   * ```
   */
  async arotateKey(to?: EncryptionKey, options: RotationOptions = {}): Promise<RotationProgress> {
    this.core.engine.assertAccepting();
    this.core.engine.assertMayWait('arotateKey');
    const cipher = this.#cipher;
    if (cipher === undefined) {
      throw new SluiceError('SLUICE_UNSUPPORTED', 'the database has no key: open it with the option encryption first');
    }
    if (this.#isRestoring) throw new SluiceError('SLUICE_CONFLICT', 'the database is being restored: wait for that');
    if (this.#isRotating) throw new SluiceError('SLUICE_CONFLICT', 'the key is being changed already: wait for that');
    this.#isRotating = true;
    try {
      return await rotateKey({ core: this.core, cipher, except: () => this.#tablesOfOtherKeys(cipher) }, to, options);
    } finally {
      this.#isRotating = false;
    }
  }

  // ── looking in ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** How the database is, in one word. */
  get state(): State {
    return this.core.engine.health.state;
  }

  /** Version of the SQLite that is in use, such as `3.53.2`. */
  get sqliteVersion(): string {
    return this.core.store.facts.version;
  }

  /** The numbers of this moment. Reads plain fields: cheap enough for every scrape. */
  stats(): DatabaseStats {
    return readStats(this.core, this.dlq, {
      writerRestartsBy: { ...this.#writerRestarts },
      directStatements: this.direct.statements + this.#transactions.counts.statements,
      recovery: { ...this.#recovery },
    });
  }

  /** The numbers that NanaSQLite's `get_v2_metrics` has, under its names in camel case. */
  async agetV2Metrics(): Promise<V2Metrics> {
    return toV2Metrics(this.stats());
  }

  /** Listens to an event, see {@link DatabaseEvents}. */
  on<Name extends keyof DatabaseEvents>(event: Name, listener: (...payload: DatabaseEvents[Name]) => void): this {
    this.#events.on(event, listener as never);
    return this;
  }

  /** Listens to the next occurrence of an event. */
  once<Name extends keyof DatabaseEvents>(event: Name, listener: (...payload: DatabaseEvents[Name]) => void): this {
    this.#events.once(event, listener as never);
    return this;
  }

  /** Stops listening. */
  off<Name extends keyof DatabaseEvents>(event: Name, listener: (...payload: DatabaseEvents[Name]) => void): this {
    this.#events.off(event, listener as never);
    return this;
  }

  // ── end ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Takes no more writes, applies what is staged (for at most `closeTimeoutMs`), syncs the log and closes everything.
   * Nothing accepted is deleted: what is left over is in the log, and counted in the result. Called again, it returns the
   * same promise.
   *
   * It returns within two seconds of `closeTimeoutMs` even if SQLite hangs in a call, which nothing can stop. The database
   * then stays locked until that call has returned: `open` says `SLUICE_LOCKED`, or waits with `lockTimeoutMs`.
   */
  close(): Promise<CloseResult> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** For `await using` (Node.js 24). */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<CloseResult> {
    const { engine, flusher, store, clock } = this.core;
    const deadline = clock.elapsed() + this.options.closeTimeoutMs + CLOSE_GRACE_MS;
    const left = () => Math.max(0, deadline - clock.elapsed());
    engine.stopIntake();
    engine.health.close('closing');
    this.dlq.close();
    await this.#endCopies();
    this.#transactions.close();
    await this.#drainForClose();
    const flushed = flusher.close();
    // The store gives up on a batch that does not come back, and that ends the flush.
    const hanging = (await settledWithin(flushed, left(), clock)) ? undefined : store.close(0);
    await flushed;
    const { pending } = engine;
    try {
      await engine.close();
    } finally {
      engine.health.close('closed');
      for (const cache of this.core.caches) cache.clear();
      const { stuck } = await (hanging ?? store.close(left()));
      if (stuck === undefined) await this.#release();
      else this.#releaseAfter(stuck);
      this.#log?.closed(pending);
    }
    return { pending };
  }

  /**
   * The lock stays as long as a thread of ours may still commit: whoever opens next reads the watermark and the log at
   * one moment, and must not have the one move on after the other. The fence of the watermark would keep a late batch
   * out, but not a late statement of `aexecute`, which has no number; and a claim would wait in vain for the write lock
   * that a stuck transaction holds. The system frees the lock with the process.
   */
  #releaseAfter(stuck: Promise<void>): void {
    stuck
      .then(() => this.#release())
      .catch(() => {
        // All that can fail is deleting the folder of a ':memory:' database, and nobody waits to be told.
      });
  }

  get #copyParts(): CopyParts {
    return { core: this.core, queue: this.dlq, path: this.path };
  }

  #copying<R>(what: string, wait: WaitOptions, work: (signal: AbortSignal) => Promise<R>): Promise<R> {
    const stop = new AbortController();
    const copying = stoppable(what, wait, this.core.clock, stop, work).finally(() => this.#copies.delete(stop));
    this.#copies.set(stop, copying);
    return copying;
  }

  async #endCopies(): Promise<void> {
    const copies = [...this.#copies];
    const ended = new SluiceError('SLUICE_CLOSED', 'the database is being closed: the copy was called off');
    for (const [stop] of copies) stop.abort(ended);
    await Promise.allSettled(copies.map(([, copying]) => copying));
  }

  async #drainForClose(): Promise<void> {
    const { engine, flusher } = this.core;
    const { closeTimeoutMs } = this.options;
    if (engine.pending === 0 || closeTimeoutMs === 0 || engine.health.cause !== undefined) return;
    try {
      await flusher.barrier('close', { timeoutMs: closeTimeoutMs });
    } catch (error) {
      // Late or failed: what is left is in the log, and in the result of close.
      if (!(error instanceof SluiceError)) throw error;
    }
  }

  #stageSql(target: Target, values: readonly SqlValue[]): boolean {
    const { engine } = this.core;
    const plenty = engine.stage(target, values);
    this.core.indirect.lastSeq = engine.lastSeq;
    return plenty;
  }

  /** A sum of what only grows. What is staged changes something when it is applied, with each batch until then. */
  #foreignChanges(): number {
    const { engine, indirect } = this.core;
    const recoveredSeq = this.#foundSeq + engine.counters.recovered;
    const applied = Math.min(engine.appliedSeq, Math.max(indirect.lastSeq, recoveredSeq));
    const direct = this.#restores + this.direct.executed + this.#transactions.counts.commits;
    return direct + this.dlq.counters.retried + engine.counters.deadLettered + applied;
  }

  #prepareStaged(given: string | Sql, parameters: readonly unknown[]): { target: Target; values: SqlValue[] } {
    try {
      const { sql, values } = givenStaged(given, parameters);
      return { target: this.#stagedTarget(sql), values };
    } catch (error) {
      throw this.core.engine.countInvalid(error);
    }
  }

  #stagedTarget(sql: string): Target {
    let target = this.#staged.get(sql);
    if (target === undefined) {
      target = new Target(checkStagedSql(sql), sql);
      if (this.#staged.size >= STAGED_STATEMENTS_MAX) this.#staged.clear();
      this.#staged.set(sql, target);
    }
    return target;
  }

  #tablesOfOtherKeys(cipher: ValueCipher): string[] {
    return [...this.#tables].flatMap(([name, table]) => (table.tableOptions.cipher === cipher ? [] : [name]));
  }

  /** One value tells: a table is encrypted with one key, or is being brought to it by the database. */
  #checkKey(name: string, options: ResolvedTableOptions): void {
    const { cipher } = options;
    const [first] = new Keyspace(this.core, name, { ...options, cache: undefined }).scan({ limit: 1 });
    const [key, value] = first ?? [];
    if (key === undefined || !(typeof value === 'string' || value instanceof Uint8Array)) return;
    const id = typeof value === 'string' ? undefined : keyIdOf(value);
    // A value that somebody has planted in a table of the database must not lock up all others: it is told when it is read.
    const isAnyOfOurs = cipher === this.#cipher && (id === undefined || cipher?.keyring.has(id) === true);
    if (cipher !== undefined && isAnyOfOurs) return;
    if (cipher !== undefined) cipher.open(name, key, value);
    else if (id !== undefined) {
      throw new SluiceError(
        'SLUICE_DECRYPT',
        `table ${show(name)} is encrypted with the key ${id}: ask for it with that, or without the option encryption where it is the key of the database`,
      );
    }
  }

  /** A key-value table that is in use must be one in what is restored, too, with a key that it knows: or it would hold up all writes. */
  #assertFit(restored: readonly CopiedTable[]): void {
    for (const { name, isKeyValue, keyId } of restored) {
      const cipher = this.#tables.get(foldName(name))?.tableOptions.cipher;
      if (!this.#tables.has(foldName(name))) continue;
      if (!isKeyValue) {
        throw new SluiceError(
          'SLUICE_CONFLICT',
          `table ${show(name)} is in use here for keys and values, and is no such table in what is to be restored: close the database, and call restore()`,
        );
      }
      if (keyId === undefined || cipher?.keyring.has(keyId) === true) continue;
      throw new SluiceError(
        'SLUICE_DECRYPT',
        `table ${show(name)} is encrypted with the key ${keyId} in what is to be restored, and is in use here with another one, or none`,
      );
    }
  }

  #checkShape(name: string): void {
    const columns = this.core.store.sync.columns(name);
    // A table of rows may still be staged. A write of the wrong shape would hold up all that come after it.
    if (columns === undefined && this.#shapes.get(foldName(name))?.exists !== true) return;
    if (columns !== undefined && haveKeysAndValues(columns)) return;
    throw new SluiceError(
      'SLUICE_INVALID_OPTION',
      `table ${show(name)} exists and is no key-value table: it needs the columns "key TEXT PRIMARY KEY" and "value TEXT". Choose another name, or use rows() and SQL`,
    );
  }
}
