import { messageOf } from '../../base/errors.ts';
import { diskCode, diskMeaning, type FailureClass } from '../../base/failure.ts';

/** An operation on the log that the disk refused. `reopen`: the segment is lost, a new one may do. */
export class LogFailure extends Error {
  override readonly name = 'LogFailure';
  readonly failure: FailureClass;

  constructor(operation: string, cause: unknown) {
    super(`${operation} failed: ${messageOf(cause)}`, { cause });
    this.failure = diskMeaning(diskCode(cause));
  }
}
