import type { Frame, SqlValue } from '../base/frame/index.ts';

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
  /** Runs one reading statement on a reader. The time limit is checked between rows. */
  query(sql: string, parameters: Parameters, limits: QueryLimits): Promise<SqlRow[]>;

  getMany(table: string, keys: readonly string[]): Promise<(SqlValue | undefined)[]>;
  /** How many keys the table would have with `present` written and `absent` deleted. */
  count(table: string, overlay: CountOverlay): Promise<number>;
  scan(table: string, range: KeyRange): Promise<StoreScan>;
  /** The same reads on the calling thread. */
  readonly sync: SyncReads;

  readonly deadLetters: DeadLetterStore;

  /**
   * Resolves when nothing is left open, and after `limitMs` at the latest. Work that cannot be stopped, inside a native
   * call, then goes on without us: `stuck` resolves when it has ended, and until then the store is not to be opened again.
   */
  close(limitMs?: number): Promise<{ readonly stuck: Promise<void> | undefined }>;
}

export interface StoreNumbers {
  /** Size of the store's own write-ahead log. */
  readonly walBytes: number;
  readonly checkpoints: CheckpointCounts;
}

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
  /** The highest sequence number among the dead letters, 0 for none. */
  readonly deadSeq: number;
  readonly deadEntries: number;
  /** Version of the engine below, such as `3.53.2`. */
  readonly version: string;
}

export interface Batch {
  readonly frames: readonly Frame[];
  /** The watermark must be here before … */
  readonly afterSeq: number;
  /** … and here afterwards. */
  readonly lastSeq: number;
}

export interface BatchResult {
  readonly applied: number;
  readonly coalesced: number;
  readonly superseded: number;
  readonly dead: readonly DeadLetterSummary[];
  /** See {@link StoreFacts.durable}. */
  readonly durable: boolean;
  /** Time on the writer thread. */
  readonly durationMs: number;
}

/**
 * What a failure of the store means, whatever its text:
 * `transient` try again, `space` try again when there is room, `config` somebody has to repair something,
 * `reopen` the connection is not to be trusted any more, `fatal` stop and keep the log.
 * (`permanent`, which is about one row, never leaves the store: it becomes a dead letter.)
 */
export type FailureClass = 'transient' | 'space' | 'config' | 'reopen' | 'fatal';

/** A failure of the store that is nobody's write's fault. */
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

/** Parameters of a statement: by position, or by name. */
export type Parameters = readonly SqlValue[] | Readonly<Record<string, SqlValue>>;

/** A row as an object. Integers that a JavaScript number cannot hold exactly are bigint. */
export type SqlRow = Record<string, SqlValue>;

/** What a direct statement did. */
export interface ExecuteResult {
  /** Rows it returned: of a `SELECT`, or through `RETURNING`. */
  readonly rows: SqlRow[];
  /** Rows it inserted, updated or deleted. */
  readonly changes: number;
  /** The rowid of the last row it inserted, as SQLite's `last_insert_rowid()` tells it. */
  readonly lastInsertRowid: number | bigint;
}

export interface QueryLimits {
  readonly maxRows?: number | undefined;
  readonly timeoutMs?: number | undefined;
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
}

export interface CountOverlay {
  readonly cleared: boolean;
  readonly present: readonly string[];
  readonly absent: readonly string[];
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
  get(table: string, key: string): SqlValue | undefined;
  count(table: string, overlay: CountOverlay): number;
  scan(table: string, range: KeyRange): SyncScan;
  /** The columns of a table, `undefined` where there is no such table. */
  columns(table: string): Column[] | undefined;
}

export interface Column {
  readonly name: string;
  /** The declared type, upper case, empty where none was declared. */
  readonly type: string;
  readonly primaryKey: boolean;
}

/** Everything about a dead write but its payload, which may hold secrets. */
export interface DeadLetterSummary {
  /** Names the entry for `retry` and `clear`. */
  readonly id: number;
  /** The sequence number the write was accepted under. */
  readonly seq: number;
  /** The table it was for, `null` where a staged statement does not say. */
  readonly table: string | null;
  readonly operation: DeadOperation;
  /** The key, of `put` and `delete`. */
  readonly key: string | null;
  /** When the write was accepted, first refused and last refused: milliseconds since 1970. */
  readonly acceptedAt: number;
  readonly firstFailedAt: number;
  readonly lastFailedAt: number;
  /** How often SQLite has refused it. */
  readonly attempts: number;
  readonly errorClass: 'permanent';
  /** SQLite's extended result code, or `BIND` where the value could not be bound. */
  readonly errorCode: string;
  readonly errorMessage: string;
}

/** What a dead write wanted. */
export type DeadOperation = 'put' | 'delete' | 'clear' | 'append' | 'sql' | 'ensure' | 'group';

/** A dead write with what it wanted to write. */
export interface DeadLetter extends DeadLetterSummary {
  /** The statement, of `append` and `sql`. */
  readonly statement: string | null;
  /** The value of a `put` (JSON text or bytes); the parameters of `append` and `sql`. */
  readonly payload: SqlValue | readonly SqlValue[];
}

export interface DeadLetterStore {
  size(): Promise<number>;
  /** Entries with an id above `afterId`, oldest first. */
  list(afterId: number, limit: number): Promise<DeadLetter[]>;
  /** Applies the entries again, each in a transaction of its own, oldest first. */
  retry(ids: readonly number[]): Promise<RetryOutcome[]>;
  /** Deletes the entries; returns how many there were. */
  clear(ids: readonly number[]): Promise<number>;
}

export interface RetryOutcome {
  readonly id: number;
  /** `gone`: the entry was retried, cleared or superseded meanwhile. */
  readonly result: 'applied' | 'failed' | 'gone';
  /** Older entries of the same key that this one has superseded. */
  readonly superseded: number;
}
