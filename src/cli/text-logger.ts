import { messageOf } from '../base/errors.ts';
import type { LogFields, Logger } from '../db/logging.ts';

function say({ err, errorMessage = err && messageOf(err) }: LogFields, message: string): void {
  console.error(`sluice: ${message}${errorMessage === undefined ? '' : `: ${String(errorMessage)}`}`);
}

/** The log of a database for people, on standard error. */
export const textLogger: Logger = { debug() {}, info: say, warn: say, error: say };
