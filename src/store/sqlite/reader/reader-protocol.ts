import type { Secrets } from '../../../base/encryption/index.ts';
import type { SqlValue } from '../../../base/frame/index.ts';
import type {
  CountOverlay,
  DeadLetter,
  DeadLetterFilter,
  DeadLetterGroup,
  DeadLetterRange,
  DeadLetterSummary,
  Entry,
  KeyRange,
  Parameters,
  PortableDeadLetter,
  SqlRow,
  Statement,
} from '../../store.ts';
import type { FileId } from '../file-identity.ts';
import type { StopWord } from './stop-word.ts';

/** The values of some keys; with `liveAt`, of those that have not expired by then. */
export interface PointRead {
  readonly table: string;
  readonly keys: readonly string[];
  readonly liveAt: number | undefined;
}

/** What a reader thread answers, in the order in which it was asked. */
export type ReaderProtocol = {
  start: { request: { path: string; database: FileId; stop: StopWord }; response: null };
  /** The keys of an encrypted database, and again when they have changed. */
  unlock: { request: Secrets; response: null };
  getMany: { request: readonly PointRead[]; response: (SqlValue | undefined)[][] };
  count: { request: { table: string; overlay: CountOverlay }; response: number };
  query: {
    request: { id: number; sql: string; parameters: Parameters; maxRows: number | undefined };
    response: SqlRow[];
  };
  queryAll: { request: { id: number; statements: readonly Statement[] }; response: SqlRow[][] };
  openCursor: { request: Statement; response: number };
  nextOfCursor: { request: { id: number; cursor: number; count: number }; response: SqlRow[] };
  closeCursor: { request: number; response: null };
  openScan: { request: { table: string; range: KeyRange }; response: { scan: number; appliedSeq: number } };
  nextOfScan: { request: { scan: number; count: number }; response: Entry[] };
  closeScan: { request: { scan: number }; response: null };
  deadLetters: { request: DeadLetterRange; response: DeadLetter[] };
  deadLetterSummaries: { request: DeadLetterRange; response: DeadLetterSummary[] };
  portableDeadLetters: { request: DeadLetterRange; response: PortableDeadLetter[] };
  deadLetter: { request: number; response: DeadLetter | undefined };
  deadLetterGroups: { request: DeadLetterFilter; response: DeadLetterGroup[] };
  close: { request: null; response: null };
};
