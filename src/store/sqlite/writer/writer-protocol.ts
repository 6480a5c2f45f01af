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
  /** A change is made once under its id. */
  changeQueue: { request: { id: string; change: QueueChange }; response: QueueChanged };
  rotate: { request: RotationStep; response: RotationStepped };
  /** Carries all of the WAL into the database: whether that was possible. */
  settle: { request: null; response: boolean };
  /** The last call: carries the WAL into the database and closes it. */
  close: { request: null; response: null };
};

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
