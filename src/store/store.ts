import type { Accepts, Algorithm, KeyDerivation, KeyMaterial, Secrets } from '../base/encryption/index.ts';
import { SluiceError } from '../base/errors.ts';
import type { FailureClass } from '../base/failure.ts';
import type { Frame, SqlValue } from '../base/frame/index.ts';
import type { WaitOptions } from '../base/waiting.ts';

export type { FailureClass } from '../base/failure.ts';

/**
 * Where applied data lives. Everything above this folder knows a store only through this file: a second store is a
 * second folder beside `sqlite/`.
 */
export interface Store {
  /** What the store said of itself when it was opened. */
  readonly facts: StoreFacts;
  /** How the store is, as of its last report: reading it asks nobody. */
  readonly numbers: StoreNumbers;

  /**
   * Applies all writes of a batch in order, writes the dead letters, moves the watermark, all in one transaction (in a
   * few, each with its own watermark, where a commit itself is refused). Applying a batch again is harmless.
   * Rejects with a {@link StoreFailure}; then nothing of the batch, or a prefix of it with its watermark, is applied.
   */
  apply(batch: Batch): Promise<BatchResult>;
  /** Throws the writer's connection away and opens a new one, with a check of the file. */
  reopen(): Promise<void>;

  /** Runs one statement on the writer, in a transaction of its own. Never run twice. */
  execute(sql: string, parameters: Parameters): Promise<ExecuteResult>;
  /** Runs statements on the writer, each with every set of its parameters, all in one transaction. Never run twice. */
  executeAll(statements: readonly RepeatedStatement[]): Promise<ExecutedAll>;
  /**
   * Begins a transaction on the writer. Until it has ended nothing else is done there: batches and all other calls wait their
   * turn. Rejects with a {@link StoreFailure}, and then there is none.
   */
  transaction(): Promise<StoreTransaction>;
  /**
   * Runs one reading statement on a reader, in its turn where all are taken. Called off by its signal or its time limit, the
   * turn of the next one comes, even where nothing can stop the statement.
   */
  query(sql: string, parameters: Parameters, limits: QueryLimits): Promise<SqlRow[]>;
  /** Runs reading statements on a reader, all at one moment. */
  queryAll(statements: readonly Statement[], limits: QueryLimits): Promise<SqlRow[][]>;
  /** Begins to read what a statement returns, all of it as it is at this moment. */
  cursor(statement: Statement): Promise<StoreCursor>;

  /** With `liveAt`, rows that have expired by then are not there: milliseconds since 1970. */
  getMany(table: string, keys: readonly string[], liveAt?: number): Promise<(SqlValue | undefined)[]>;
  /** How many keys the table would have with `present` written and `absent` deleted. */
  count(table: string, overlay: CountOverlay): Promise<number>;
  scan(table: string, range: KeyRange): Promise<StoreScan>;
  /** The same reads on the calling thread. */
  readonly sync: SyncReads;

  readonly deadLetters: DeadLetterStore;

  /**
   * Writes a copy of what is committed at one moment to a new file, checks it, makes it a database of its own, and gives it
   * its name when it is on the disk. Work goes on meanwhile. Rejected or aborted, it leaves nothing behind.
   */
  backUp(order: BackupOrder, watch: CopyWatch): Promise<CopyFacts>;
  /** Copies a file that may take the place of this store, and checks it. Must be discarded, whatever becomes of it. */
  stage(source: string, watch: CopyWatch): Promise<StagedCopy>;
  /**
   * Puts a staged copy in the place of the store, all of it or nothing. Whoever reads waits meanwhile, and walks over a
   * snapshot end. To be called with nothing to apply. Rejected, everything is as it was before.
   */
  replaceWith(copy: StagedCopy, replacement: Replacement, signal: AbortSignal): Promise<Replaced>;

  /** Does a piece of what brings an encrypted store to another key. A step that was done already may be made again. */
  rotate(step: RotationStep): Promise<RotationStepped>;

  /**
   * Resolves when nothing is left open, and after `limitMs` at the latest. Work that cannot be stopped, inside a native
   * call, then goes on without us: `stuck` resolves when it has ended, and until then the store is not to be opened again.
   */
  close(limitMs?: number): Promise<{ readonly stuck: Promise<void> | undefined }>;
}

export interface StoreNumbers {
  /** Size of the store's own write-ahead log. */
  readonly walBytes: number;
  /** Pages in it … */
  readonly walFrames: number;
  /** … and how many of them are in the database too. */
  readonly walFramesCheckpointed: number;
  readonly checkpoints: CheckpointCounts;
  /** Room on the disk of the database, for those without special rights. `undefined` where the system does not say. */
  readonly diskFreeBytes: number | undefined;
  /** Rows deleted because they had expired. */
  readonly expired: number;
}

/** An attempt to carry the store's own write-ahead log into the database. */
export interface Checkpoint {
  readonly result: keyof CheckpointCounts;
  readonly durationMs: number;
}

/** Why the writer thread was started again: `death` it had died, `reopen` its connection could not be trusted any more. */
export type RestartReason = 'death' | 'reopen';

/** Attempts to carry the store's own write-ahead log into the database, by what came of them. */
export interface CheckpointCounts {
  readonly complete: number;
  /** A reader has held a part of it up. */
  readonly partial: number;
  readonly failed: number;
}

export interface StoreFacts {
  readonly databaseId: string;
  /** Grows with every restore: log segments of another epoch are not for this data. */
  readonly epoch: number;
  /** The watermark: every write up to it is applied or dead. */
  readonly appliedSeq: number;
  /** Whether the watermark is known to be on the disk, so that log segments below it may go. */
  readonly durable: boolean;
  readonly queue: QueueState;
  /** Version of the engine below, such as `3.53.2`. */
  readonly version: string;
}

/** A key as the database names it, without telling it. */
export interface StoredKey {
  readonly id: string;
  readonly algorithm: Algorithm;
  /** How it is made, of a passphrase. */
  readonly derivation: KeyDerivation | undefined;
  /** Whether it is the one to encrypt with; others are there while values are still encrypted with them. */
  readonly active: boolean;
  /** What only this key opens. */
  readonly proof: Uint8Array;
}

/** What a store knows of keys before it has one. */
export interface KeysFound {
  readonly keys: readonly StoredKey[];
  /** What its values may be, where it names no key yet. */
  readonly before: Accepts;
  /** A value that the key must open, if there is one. */
  readonly sample: Uint8Array | undefined;
}

/** The keys to go on with. */
export interface Unlocked {
  readonly secrets: Secrets;
  /** To be written down: a key that was not there, or was not the active one. */
  readonly store: StoredKey | undefined;
}

/** A piece of a rotation of keys: see {@link Store.rotate}. */
export type RotationStep =
  /** Encrypt with this key from now on. */
  | { readonly do: 'begin'; readonly key: StoredKey; readonly material: KeyMaterial }
  /** Which key-value tables are there? */
  | { readonly do: 'tables' }
  /** The values of the next keys of a table. */
  | { readonly do: 'values'; readonly table: string; readonly after: string | undefined; readonly limit: number }
  /** The next dead letters. Values in them for the tables `except`, folded names, stay as they are. */
  | {
      readonly do: 'dead-letters';
      readonly after: number;
      readonly limit: number;
      readonly except: readonly string[];
    }
  /** Everything is encrypted with this key: the others may go. */
  | { readonly do: 'finish'; readonly key: StoredKey };

/** What a step has done. */
export interface RotationStepped {
  readonly tables: readonly string[];
  /** Where the next step of the kind goes on; `undefined` after the last one. */
  readonly last: string | number | undefined;
  readonly rewritten: number;
}

/** How far a backup or a restore is. */
export interface CopyProgress {
  /** `copy` while it is written, `check` while SQLite checks it, which says nothing of how far it is. */
  readonly phase: 'copy' | 'check';
  /** What is copied. */
  readonly bytes: number;
  /** What there is to be copied. */
  readonly totalBytes: number;
}

/** Who watches a copy, and may call it off. */
export interface CopyWatch {
  readonly signal: AbortSignal;
  readonly onProgress: (progress: CopyProgress) => void;
}

export interface BackupOrder {
  readonly destination: string;
  readonly deadLetters: 'include' | 'refuse';
  /** Permissions of the file that is replaced, if one is. */
  readonly mode: number | undefined;
  /** Throws where the destination is not free any more. */
  readonly recheck: () => Promise<void>;
}

/** What a copy holds. */
export interface CopyFacts {
  readonly databaseId: string;
  readonly epoch: number;
  /** No write and no dead letter in it has a higher number. */
  readonly appliedSeq: number;
  readonly queue: QueueState;
  readonly keys: KeysFound;
  /** What of the user's is in it. */
  readonly tables: readonly CopiedTable[];
  /** Size of the file. */
  readonly bytes: number;
}

/** A table, or a view, of a copy. */
export interface CopiedTable {
  readonly name: string;
  /** Whether keys can be written to it. */
  readonly isKeyValue: boolean;
  /** What its first value is encrypted with, if it is. */
  readonly keyId: string | undefined;
}

/** A copy that lies ready beside a store. */
export interface StagedCopy {
  readonly facts: CopyFacts;
  /** What the copy is to be, written into it; it is on the disk then. */
  seal(identity: CopyIdentity): Promise<CopyFacts>;
  /** The file. */
  readonly path: string;
  /** Deletes what is left of it. */
  discard(): Promise<void>;
}

/** Which database a copy becomes. */
export interface CopyIdentity {
  readonly databaseId: string;
  readonly epoch: number;
  /** New writes get numbers above this one, and above what is in the copy. */
  readonly appliedSeq: number;
  readonly owner: string;
  /** The key that encrypts from now on, where the copy names another one. */
  readonly key: StoredKey | undefined;
}

/** What takes the place of a store. */
export interface Replacement {
  readonly appliedSeq: number;
  readonly unlocked: Unlocked | undefined;
  /** Called right before it takes its place; where it throws, it does not. */
  readonly beforeSwap: () => void;
  /** Called in the moment in which it takes its place. */
  readonly onSwap: () => void;
}

/** What came of it. From here on there is no way back. */
export interface Replaced {
  readonly facts: CopyFacts;
  /** Why the store cannot go on all the same: it is as it has to be, but not known to be so after a power cut, say. */
  readonly failure: Error | undefined;
}

export interface Batch {
  readonly frames: readonly Frame[];
  /** The watermark must be here before … */
  readonly afterSeq: number;
  /** … and here afterwards. */
  readonly lastSeq: number;
  /**
   * Let every write that cannot be applied die, also where somebody could repair the cause, and however many they are: see
   * {@link FailureClass}, `config` and `breaker`.
   */
  readonly take?: boolean | undefined;
}

export interface BatchResult {
  readonly applied: number;
  readonly coalesced: number;
  /** The writes that died, also those whose entry is gone again. */
  readonly deadSeqs: readonly number[];
  /** Their entries, but for those that somebody has retried or cleared before the batch could be answered. */
  readonly dead: readonly DeadLetterSummary[];
  /** Entries that left the queue because a newer write of their keys was applied. */
  readonly superseded: readonly SupersededLetter[];
  /** Entries that were dropped to keep the queue within its limits. */
  readonly evicted: readonly DeadLetterSummary[];
  readonly untold: Untold;
  /** The queue afterwards. */
  readonly queue: QueueState;
  /** See {@link StoreFacts.durable}. */
  readonly durable: boolean;
  /** Time on the writer thread. */
  readonly durationMs: number;
  /** How often the batch was run again, in parts or without a part, to find out which write is at fault. */
  readonly splits: number;
}

/** A failure of the store that is nobody's write's fault: what is `permanent` becomes a dead letter and never leaves it. */
export class StoreFailure extends Error {
  override readonly name = 'StoreFailure';
  readonly failure: FailureClass;
  readonly sqliteCode: string | undefined;

  constructor(failure: FailureClass, message: string, sqliteCode?: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.failure = failure;
    this.sqliteCode = sqliteCode;
  }
}

/** What a caller is told where the store failed at what they asked for themselves; any other error stays what it is. */
export function toCallerError(error: unknown): unknown {
  if (!(error instanceof StoreFailure)) return error;
  return new SluiceError('SLUICE_STORE', `SQLite refused: ${error.message}`, {
    cause: error,
    sqliteCode: error.sqliteCode,
  });
}

/** Parameters of a statement: by position, or by name. */
export type Parameters = readonly SqlValue[] | Readonly<Record<string, SqlValue>>;

/** A row as an object. Integers that a JavaScript number cannot hold exactly are bigint. */
export type SqlRow = Record<string, SqlValue>;

/** What a direct statement did. */
export interface ExecuteResult {
  /** Rows it returned: of a `SELECT`, or through `RETURNING`. */
  readonly rows: SqlRow[];
  /** Rows it inserted, updated or deleted itself: not those that triggers and foreign keys have changed because of it. */
  readonly changes: number;
  /** The rowid of the last row it inserted, as SQLite's `last_insert_rowid()` tells it. */
  readonly lastInsertRowid: number | bigint;
}

/** A statement with the values of its parameters. */
export interface Statement {
  readonly sql: string;
  readonly parameters: Parameters;
}

/** A statement that is run with one set of parameters after the other. */
export interface RepeatedStatement {
  readonly sql: string;
  readonly sets: readonly Parameters[];
}

/** What several statements did together. */
export type ExecutedAll = Omit<ExecuteResult, 'rows'>;

/** The rows of one statement at one moment, read page by page. Must be closed. */
export interface StoreCursor {
  /** The next rows; fewer than asked for means the end. */
  next(count: number): Promise<SqlRow[]>;
  close(): void;
}

/**
 * A transaction that is held open on the writer. Calls are carried out in the order in which they are made; each rejects with
 * what its caller is to be told.
 */
export interface StoreTransaction {
  /**
   * Whether there is nothing left to commit or to roll back. A statement that is refused leaves the transaction open, but for
   * one that ends it (`OR ROLLBACK`, `RAISE(ROLLBACK)`); the death of the thread rolls it back.
   */
  readonly isOver: boolean;
  /** Runs one statement. */
  execute(sql: string, parameters: Parameters): Promise<ExecuteResult>;
  /** The rows of a statement that only reads, with what the transaction has written. */
  query(sql: string, parameters: Parameters, maxRows?: number): Promise<SqlRow[]>;
  /** The last call: the transaction is over, also where it rejects. `SLUICE_OUTCOME_UNKNOWN` alone leaves open how. */
  commit(): Promise<void>;
  /** The last call, harmless where it is over already. */
  rollback(): Promise<void>;
}

export interface QueryLimits extends WaitOptions {
  readonly maxRows?: number | undefined;
}

/** A range of keys in the order of their UTF-8 bytes (SQLite's BINARY collation). */
export interface KeyRange {
  readonly gt?: string | undefined;
  readonly gte?: string | undefined;
  readonly lt?: string | undefined;
  readonly lte?: string | undefined;
  readonly reverse?: boolean | undefined;
  /** Leave the values out: they come as `null`. */
  readonly keysOnly?: boolean | undefined;
  /** Leave out what has expired by then: milliseconds since 1970. */
  readonly liveAt?: number | undefined;
}

export interface CountOverlay {
  readonly cleared: boolean;
  readonly present: readonly string[];
  readonly absent: readonly string[];
  /** As of {@link KeyRange.liveAt}, for what the table has. */
  readonly liveAt: number | undefined;
}

export type Entry = readonly [key: string, value: SqlValue];

/** One snapshot of a table, read page by page. Must be closed. */
export interface StoreScan {
  /** The watermark inside the snapshot. */
  readonly appliedSeq: number;
  /** The next entries; fewer than asked for means the end. */
  next(count: number): Promise<Entry[]>;
  close(): void;
}

export interface SyncScan {
  readonly appliedSeq: number;
  next(count: number): Entry[];
  close(): void;
}

export interface SyncReads {
  get(table: string, key: string, liveAt?: number): SqlValue | undefined;
  count(table: string, overlay: CountOverlay): number;
  scan(table: string, range: KeyRange): SyncScan;
  /** The columns of a table, `undefined` where there is no such table. */
  columns(table: string): Column[] | undefined;
  /**
   * Whether the write of a key of the table may do more than say, or a write to another table may change this one: there are
   * triggers, foreign keys with actions, or the table was not made by Sluice.
   */
  writesSpread(table: string): boolean;
}

export interface Column {
  readonly name: string;
  /** The declared type, upper case, empty where none was declared. */
  readonly type: string;
  readonly primaryKey: boolean;
}

/** Whether these are the columns of a key-value table: there may be others, but a key that is only a part of the primary one names several rows. */
export function haveKeysAndValues(columns: readonly Column[]): boolean {
  const isNamed = (column: Column | undefined, name: string) => column?.name.toLowerCase() === name;
  const [key, ...others] = columns.filter(({ primaryKey }) => primaryKey);
  return isNamed(key, 'key') && others.length === 0 && columns.some((column) => isNamed(column, 'value'));
}

/** Everything about a dead write but its payload, which may hold secrets. */
export interface DeadLetterSummary {
  /** Names the entry for `retry` and `clear`. Grows in the order in which writes die. */
  readonly id: number;
  /** The sequence number the write was accepted under. */
  readonly seq: number;
  /** The table it was for, `null` where a staged statement does not say, or a group has several. */
  readonly table: string | null;
  readonly operation: WriteOperation;
  /** The key, of `put` and `delete`. */
  readonly key: string | null;
  /** When the write was accepted: milliseconds since 1970. */
  readonly acceptedAt: number;
  /** When it was first refused: milliseconds since 1970. */
  readonly firstFailedAt: number;
  /** When it was last refused: milliseconds since 1970. */
  readonly lastFailedAt: number;
  /** How often SQLite has refused it. */
  readonly attempts: number;
  /** `config`: somebody could have repaired the cause, but the write was sent here all the same, see `dlq.take()`. */
  readonly errorClass: 'permanent' | 'config';
  /**
   * SQLite's extended result code, `BIND` where the value could not be bound, `TRANSACTION_ENDED` where the statement ended
   * the transaction.
   */
  readonly errorCode: string;
  /** What SQLite said, the last time. */
  readonly errorMessage: string;
  /** Size of the stored write. */
  readonly bytes: number;
}

/**
 * What a write does: `append` rows, `sql` a staged statement, `ensure` the table or columns that rows need, `group`
 * several writes as one.
 */
export type WriteOperation = 'put' | 'delete' | 'clear' | 'append' | 'sql' | 'ensure' | 'group';

/** A dead write with what it wanted to write. */
export interface DeadLetter extends DeadLetterSummary {
  /** The statement, of `append` and `sql`. */
  readonly statement: string | null;
  /** The value of a `put` (JSON text or bytes); the parameters of `append` and `sql`; the members of a `group`. */
  readonly payload: SqlValue | readonly SqlValue[] | readonly DeadLetterMember[];
}

/** One of the writes that an atomic group is made of. Its fields are those of a {@link DeadLetter}. */
export interface DeadLetterMember {
  readonly table: string | null;
  readonly operation: WriteOperation;
  readonly key: string | null;
  readonly statement: string | null;
  readonly payload: SqlValue | readonly SqlValue[];
}

/** An entry whose keys have all been written since. */
export interface SupersededLetter extends DeadLetterSummary {
  /** The write that took its place. */
  readonly bySeq: number;
}

/** Which dead letters: those that fit everything that is given. */
export interface DeadLetterFilter {
  /** For this table, whatever the case of its letters. */
  readonly table?: string | undefined;
  readonly operation?: WriteOperation | undefined;
  /** With this result code, or one that extends it: `SQLITE_CONSTRAINT` means all constraints. */
  readonly errorCode?: string | undefined;
  /** First refused at this time or later: milliseconds since 1970. */
  readonly since?: number | undefined;
  /** First refused before this time. */
  readonly until?: number | undefined;
}

/** A part of the queue, in the order of the ids. */
export interface DeadLetterRange {
  readonly filter: DeadLetterFilter;
  /** Only these. */
  readonly ids?: readonly number[] | undefined;
  /** Begin behind this id. */
  readonly after?: number | undefined;
  /** Ids up to this one. */
  readonly upTo?: number | undefined;
  readonly newestFirst?: boolean | undefined;
  readonly limit: number;
}

/** How large the queue is. */
export interface QueueState {
  readonly entries: number;
  /** Size of the stored writes. */
  readonly bytes: number;
  /** When the oldest entry was first refused: milliseconds since 1970, `undefined` for an empty queue. */
  readonly oldestAt: number | undefined;
}

/** Dead letters that have table, operation and error code in common. */
export interface DeadLetterGroup {
  readonly table: string | null;
  readonly operation: WriteOperation;
  /** See {@link DeadLetterSummary.errorCode}. */
  readonly errorCode: string;
  /** How many they are. */
  readonly entries: number;
  /** Size of the stored writes. */
  readonly bytes: number;
  /** When the first of them was first refused: milliseconds since 1970. */
  readonly firstFailedAt: number;
  /** When one of them was last refused. */
  readonly lastFailedAt: number;
  /** What SQLite said of the newest of them. */
  readonly errorMessage: string;
}

/** How much the queue may hold, and what happens when it holds more. */
export interface QueueLimits {
  readonly maxEntries: number;
  readonly maxBytes: number;
  readonly maxAgeMs: number | undefined;
  readonly overflow: 'block' | 'evict-oldest';
}

/** When a batch is held back instead of filling the queue. */
export interface Breaker {
  /** The share of the batch that may die. */
  readonly maxDeadShare: number;
  /** Smaller batches are let through. */
  readonly minWrites: number;
}

/** An entry as it travels from one database to another. */
export interface PortableDeadLetter extends DeadLetter {
  /** Where the write was accepted: id of the database, and the sequence number there. */
  readonly origin: string;
  /** The stored write. */
  readonly write: Uint8Array;
  /** The keys of a group, or below a `clear`, that have been written since: tables, folded, and keys. */
  readonly overwritten: readonly (readonly [table: string, key: string])[];
}

export interface DeadLetterStore {
  list(range: DeadLetterRange): Promise<DeadLetter[]>;
  /** As `list`, without the payloads. */
  listSummaries(range: DeadLetterRange): Promise<DeadLetterSummary[]>;
  listPortable(range: DeadLetterRange): Promise<PortableDeadLetter[]>;
  get(id: number): Promise<DeadLetter | undefined>;
  summary(filter: DeadLetterFilter): Promise<DeadLetterGroup[]>;
  /**
   * Changes the queue on the writer, in one transaction (one per entry where an entry takes the transaction with it).
   * What was done is counted once, whatever becomes of the thread. Rejects with a {@link StoreFailure}.
   */
  change(change: QueueChange): Promise<QueueChanged>;
}

/** What is to be done with the queue. */
export type QueueChange =
  /** Apply entries again, and the newer entries of their keys before them. */
  | { readonly do: 'retry'; readonly ids: readonly number[] }
  | { readonly do: 'clear'; readonly ids: readonly number[] }
  | { readonly do: 'import'; readonly letters: readonly PortableDeadLetter[] }
  /** Drop what is over the limits. */
  | { readonly do: 'evict' };

/**
 * How many more entries there were than `superseded` and `evicted` list: beyond {@link LISTED_MAX} of each they are only
 * counted, since what has become of a batch is kept in the database and travels between threads.
 */
export interface Untold {
  readonly superseded: number;
  readonly evicted: number;
}

export const LISTED_MAX = 10_000;

/** What was done. Entries are named by their ids. */
export interface QueueChanged {
  readonly applied: readonly number[];
  readonly failed: readonly number[];
  readonly superseded: readonly SupersededLetter[];
  readonly cleared: number;
  readonly imported: number;
  readonly evicted: readonly DeadLetterSummary[];
  readonly untold: Untold;
  /** `false` where a retry was cut short after a part that is committed: what went wrong shows when the rest is asked for. */
  readonly complete: boolean;
  readonly queue: QueueState;
}
