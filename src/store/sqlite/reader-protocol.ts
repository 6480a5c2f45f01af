import type { SqlValue } from '../../base/frame/index.ts';
import type { CountOverlay, DeadLetter, Entry, KeyRange, Parameters, QueryLimits, SqlRow } from '../store.ts';
import type { FileId } from './file-identity.ts';

/** What a reader thread answers, in the order in which it was asked. */
export type ReaderProtocol = {
  start: { request: { path: string; database: FileId }; response: null };
  getMany: { request: readonly { table: string; keys: readonly string[] }[]; response: (SqlValue | undefined)[][] };
  count: { request: { table: string; overlay: CountOverlay }; response: number };
  query: { request: { sql: string; parameters: Parameters; limits: QueryLimits }; response: SqlRow[] };
  openScan: { request: { table: string; range: KeyRange }; response: { scan: number; appliedSeq: number } };
  nextOfScan: { request: { scan: number; count: number }; response: Entry[] };
  closeScan: { request: { scan: number }; response: null };
  deadLetterCount: { request: null; response: number };
  deadLetters: { request: { afterId: number; limit: number }; response: DeadLetter[] };
  close: { request: null; response: null };
};
