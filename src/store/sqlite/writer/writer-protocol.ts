import type {
  Batch,
  BatchResult,
  Breaker,
  Checkpoint,
  ExecutedAll,
  ExecuteResult,
  KeysFound,
  Parameters,
  QueueChange,
  QueueChanged,
  QueueLimits,
  RepeatedStatement,
  RotationStep,
  RotationStepped,
  StoreFacts,
  StoreNumbers,
  Unlocked,
} from '../../store.ts';
import type { FileId } from '../file-identity.ts';
import type { Swept } from './sweeper.ts';

/** What the writer thread answers. Calls are answered one by one, in the order in which they were made. */
export type WriterProtocol = {
  /** The first call: opens the database, and says which keys it needs. */
  open: { request: WriterStart; response: KeysFound };
  /** The second one: from here on the database is this writer's. */
  start: { request: Unlocked | undefined; response: WriterFacts };
  apply: { request: Batch; response: { result: BatchResult; report: WriterReport } };
  /** Asked now and then: whether the files are still in their places, and how they are. Deletes what has expired by `now`. */
  look: { request: { now: number }; response: { report: WriterReport; swept: Swept } };
  execute: { request: { sql: string; parameters: Parameters }; response: ExecuteResult };
  executeAll: { request: readonly RepeatedStatement[]; response: ExecutedAll };
  /** The parts of a transaction that is held open: between its beginning and its end no other call may come but `close`. */
  begin: { request: null; response: null };
  executeHeld: { request: HeldStatement; response: HeldAnswer };
  commit: { request: null; response: null };
  rollback: { request: null; response: null };
  /** A change is made once under its id. */
  changeQueue: { request: { id: string; change: QueueChange }; response: QueueChanged };
  rotate: { request: RotationStep; response: RotationStepped };
  /** Carries all of the WAL into the database: whether that was possible. */
  settle: { request: null; response: boolean };
  /** The last call: carries the WAL into the database and closes it. */
  close: { request: null; response: null };
};

export interface HeldStatement {
  readonly sql: string;
  readonly parameters: Parameters;
  /** It must not write, and no more than so many of its rows are asked for. */
  readonly reading?: { readonly maxRows: number } | undefined;
}

/** What a statement did, or why SQLite has refused it. */
export interface HeldAnswer {
  readonly result?: ExecuteResult;
  readonly refusal?: { readonly message: string; readonly sqliteCode: string };
  /** Whether the transaction is still there. */
  readonly isOpen: boolean;
}

export interface WriterStart {
  readonly path: string;
  /** Names the process in the state row. */
  readonly owner: string;
  /** Become the owner, at open; a thread that replaces a dead one must find that it still is. */
  readonly takeOver: boolean;
  /** Run SQLite's own quick check first. */
  readonly check: boolean;
  readonly queueLimits: QueueLimits;
  readonly breaker: Breaker;
  /** The database file that the thread before this one had open. */
  readonly expected?: FileId | undefined;
}

export interface WriterFacts {
  readonly facts: StoreFacts;
  readonly database: FileId;
  readonly report: WriterReport;
}

export interface WriterReport extends Omit<StoreNumbers, 'checkpoints' | 'expired'> {
  /** Since the last report. */
  readonly checkpoints: readonly Checkpoint[];
}
