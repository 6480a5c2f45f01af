import { codeOf, messageOf } from '../../base/errors.ts';
import type { Connection } from './connection.ts';

const FINDINGS_MAX = 100;

/** What SQLite's own check of all pages and indexes says. */
export interface Integrity {
  /** What it found; nothing in a file that is sound. */
  readonly integrity: readonly string[];
  /** Why it could not be run to its end, though the file may be sound. */
  readonly integrityFailure: string | undefined;
}

export function checkIntegrity(db: Connection): Integrity {
  try {
    const rows = db.pragma(`integrity_check(${FINDINGS_MAX})`) as { integrity_check: string }[];
    const found = rows.map((row) => row.integrity_check).filter((text) => text !== 'ok');
    return { integrity: found, integrityFailure: undefined };
  } catch (error) {
    // An index may need a function or collation that only the program knows whose database it is.
    if (!isDamage(error)) return { integrity: [], integrityFailure: messageOf(error) };
    return { integrity: [messageOf(error)], integrityFailure: undefined };
  }
}

/** Whether SQLite says that a file is damaged, or is none of its own. */
export function isDamage(error: unknown): boolean {
  return /^SQLITE_(CORRUPT|NOTADB|IOERR)/.test(codeOf(error) ?? '');
}
