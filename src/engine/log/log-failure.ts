import { codeOf, messageOf } from '../../base/errors.ts';

/**
 * What a failure of the log's disk means: `space` goes away when there is room, `transient` by itself, `io` does not.
 */
export type LogFailureClass = 'space' | 'transient' | 'io';

const CLASSES: Readonly<Record<string, LogFailureClass>> = {
  ENOSPC: 'space',
  EDQUOT: 'space',
  EFBIG: 'space',
  EMFILE: 'transient',
  ENFILE: 'transient',
  EAGAIN: 'transient',
  EINTR: 'transient',
  ENOMEM: 'transient',
};

/** An operation on the log that the disk refused. */
export class LogFailure extends Error {
  override readonly name = 'LogFailure';
  readonly failure: LogFailureClass;

  constructor(operation: string, cause: unknown) {
    super(`${operation} failed: ${messageOf(cause)}`, { cause });
    this.failure = CLASSES[codeOf(cause) ?? ''] ?? 'io';
  }
}
