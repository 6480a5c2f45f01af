/**
 * Sluice: a write-behind storage engine on SQLite.
 *
 * @packageDocumentation
 */

export type { Algorithm, EncryptionKey, EncryptionOptions } from './base/encryption/index.ts';
export { ERROR_CODES, SluiceError, type SluiceErrorCode, type SluiceErrorDetails } from './base/errors.ts';
export type { DeathReason, DiskClass } from './base/failure.ts';
export type { SqlValue } from './base/frame/index.ts';
export type { WaitOptions } from './base/waiting.ts';
export type { BackupOptions, BackupResult, CopyProgress, RestoreOptions, RestoreResult } from './db/backup.ts';
export type { CacheLimits, CacheOptions, CacheStrategy, ResolvedCacheOptions } from './db/cache.ts';
export { CheckHook, type ConstraintOptions, ForeignKeyHook, type Part, UniqueHook } from './db/constraints.ts';
export type {
  CloseResult,
  Database,
} from './db/database.ts';
export type {
  DeadLetterMessage,
  DiagnosticMessage,
  DiagnosticMessages,
  FlushMessage,
  ResumeMessage,
  StallMessage,
  SyncMessage,
} from './db/diagnostics.ts';
export type { Entries } from './db/entries.ts';
export type { DatabaseEvents } from './db/events.ts';
export type { HookedTable, KeyVersion, TableHook } from './db/hooks.ts';
export { type Finding, type InspectReport, inspect, type VerifyReport, verify } from './db/inspect.ts';
export type { RotationOptions, RotationProgress } from './db/key-rotation.ts';
export type { ScanOptions } from './db/keys.ts';
export type { LogFields, Logger } from './db/logging.ts';
export { open } from './db/open.ts';
export type {
  BreakerOptions,
  DlqOptions,
  FlushOptions,
  LogOptions,
  OpenOptions,
  ResolvedOptions,
  StagingOptions,
} from './db/options.ts';
export { restore } from './db/restore.ts';
export type { ColumnType, RowHook, Rows, RowsOptions } from './db/rows.ts';
export type { Schema, SchemaResult, Stored } from './db/schema.ts';
export { closeOnSignals } from './db/signals.ts';
export type { Clause } from './db/sql/clauses.ts';
export type { ExecuteOptions, IterateOptions, QueryOptions } from './db/sql/direct.ts';
export type {
  AddColumnOptions,
  ChangeOptions,
  ColumnSchema,
  CountOptions,
  CreateIndexOptions,
  CreateTableOptions,
  DropOptions,
  ImportOptions,
  IndexSchema,
  Page,
  PaginationOptions,
  SelectOptions,
  SqlFace,
  UpsertOptions,
  WhereOptions,
} from './db/sql/face.ts';
export type { SqlParameters } from './db/sql/parameters.ts';
export type { SqlPolicyOptions } from './db/sql/policy.ts';
export type { ReadablePragma, SettablePragma, TablePragma } from './db/sql/pragmas.ts';
export { Sql, type SqlTag, sql } from './db/sql/template.ts';
export type { SqlTransaction, SqlTransactionOptions } from './db/sql-transaction.ts';
export type { V2Metrics } from './db/stats.ts';
export type { Table } from './db/table.ts';
export type { ResolvedTableOptions, TableOptions } from './db/table-options.ts';
export type {
  Transaction,
  TransactionOptions,
  TransactionRows,
  TransactionTable,
} from './db/transaction.ts';
export type { IncrementOptions, PatchOptions } from './db/transforms.ts';
export type {
  ClearProgress,
  DeadLetterCounters,
  DeadLetterPage,
  DeadLetterQuery,
  DeadLetterQueue,
  DeadLetterSelection,
  ImportResult,
  NdjsonSource,
  QueueRunOptions,
  RetryProgress,
  RetryResult,
} from './dlq/index.ts';
export type { Durability, EngineEvents, RefusalReason, State } from './engine/index.ts';
export type {
  LogOperation,
  RecoveryForecast,
  RecoveryPolicy,
  RecoveryReport,
  SegmentFacts,
} from './engine/log/index.ts';
export type { FlushEvents, FlushMode, FlushResult, RetryClass, Stall, StallReason } from './flush/index.ts';
export type { DatabaseStats, ReadSource, RecoveryNumbers } from './metrics/stats.ts';
export type {
  Checkpoint,
  CheckpointCounts,
  DeadLetter,
  DeadLetterGroup,
  DeadLetterMember,
  DeadLetterSummary,
  ExecutedAll,
  ExecuteResult,
  FailureClass,
  QueueState,
  RestartReason,
  SqlRow,
  SupersededLetter,
  WriteOperation,
} from './store/store.ts';
