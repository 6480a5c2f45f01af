import { messageOf } from '../../base/errors.ts';
import { type DiskClass, diskCode, diskMeaning } from '../../base/failure.ts';

/** What the log does on the disk: `fsync` is of a segment or of the folder. */
export type LogOperation = 'create' | 'write' | 'fsync' | 'delete';

const TEXTS: Readonly<Record<LogOperation, string>> = {
  create: 'creating a log segment',
  write: 'writing to the log',
  fsync: 'fdatasync of the log',
  delete: 'deleting a log segment',
};

/** An operation on the log that the disk refused. `reopen`: the segment is lost, a new one may do. */
export class LogFailure extends Error {
  override readonly name = 'LogFailure';
  readonly operation: LogOperation;
  readonly failure: DiskClass;

  constructor(operation: LogOperation, cause: unknown) {
    super(`${TEXTS[operation]} failed: ${messageOf(cause)}`, { cause });
    this.operation = operation;
    this.failure = diskMeaning(diskCode(cause));
  }
}
