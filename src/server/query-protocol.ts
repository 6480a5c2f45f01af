import type { QueryResult, ResultLimits } from '../store/sqlite/index.ts';

/** A statement on its way to the child process. */
export interface QueryRequest extends ResultLimits {
  readonly sql: string;
}

/** What comes back. Errors cross by value. */
export type QueryReply =
  | { readonly ok: true; readonly result: QueryResult }
  | { readonly ok: false; readonly code: string | undefined; readonly message: string };
