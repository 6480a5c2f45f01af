import type { SqlValue } from '../../../base/frame/index.ts';

/** What the parent asks the process that examines a database. */
export type ExamineRequest = { readonly ask: 'held' } | { readonly ask: 'facts'; readonly check: boolean };

/** What comes back. Errors cross by value. */
export type ExamineReply =
  | { readonly ok: true; readonly answer: boolean | DatabaseFacts }
  | { readonly ok: false; readonly failure: ExamineFailure };

export interface ExamineFailure {
  readonly code: string | undefined;
  readonly message: string;
}

/** A database file as it lies there. */
export interface DatabaseFacts {
  readonly pageSize: number;
  /** Version of the SQLite that read it. */
  readonly sqliteVersion: string;
  /** The rows of the state table; `undefined` where there is no such table: the database has never been Sluice's. */
  readonly state: readonly Readonly<Record<string, SqlValue>>[] | undefined;
  readonly deadLetters: DeadLetterFacts | undefined;
  /** Why the state or the dead letters cannot be read, where the file is damaged. */
  readonly unreadable: ExamineFailure | undefined;
  /** The outcome of the checks, where they were asked for. */
  readonly checks: DatabaseChecks | undefined;
}

export interface DeadLetterFacts {
  readonly count: number;
  readonly maxSeq: number;
  readonly oldest: {
    readonly id: number;
    readonly seq: number;
    readonly acceptedAt: number;
    readonly firstFailedAt: number;
  } | null;
}

export interface DatabaseChecks {
  /** What SQLite's integrity_check found. */
  readonly integrity: readonly string[];
  /** Why it could not be run to its end, though the file may be sound. */
  readonly integrityFailure: string | undefined;
  readonly deadLetters: number;
  readonly badDeadLetters: readonly { readonly id: number; readonly problem: string }[];
}
