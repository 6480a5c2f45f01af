import { codeOf, messageOf } from '../../base/errors.ts';
import { codelessMeaning, type ErrorClass, sqliteMeaning, sqliteName } from '../../base/failure.ts';
import { StoreFailure } from '../store.ts';

/** What went wrong, in words that can cross a thread. */
export interface Classified {
  readonly class: ErrorClass;
  readonly code: string;
  readonly message: string;
}

/**
 * Classifies what a statement threw. `ownStatement`: ours, on a table of ours; there a missing table or column means
 * that somebody has to repair the schema, while in the user's statement it is that statement's own fault. So is an unknown
 * collation: waiting for a repair that nobody can make would stop everything behind it.
 */
export function classify(error: unknown, { ownStatement }: { ownStatement: boolean }): Classified {
  const message = messageOf(error);
  const code = codeOf(error);
  const meaning = sqliteMeaning(code);
  if (code !== undefined && meaning !== undefined) {
    const users = !ownStatement && meaning.class === 'config' && sqliteName(code)?.startsWith('SQLITE_ERROR');
    return { class: users ? 'permanent' : meaning.class, code, message };
  }
  const codeless = code === undefined ? codelessMeaning(error) : undefined;
  if (codeless !== undefined) return { class: codeless.meaning.class, code: codeless.code, message };
  return { class: 'fatal', code: code ?? 'UNKNOWN', message };
}

/** An error of the store's own statements as the failure that the flush understands. */
export function toFailure(error: unknown): StoreFailure {
  if (error instanceof StoreFailure) return error;
  const { class: found, code, message } = classify(error, { ownStatement: true });
  return new StoreFailure(found === 'permanent' ? 'config' : found, message, code, error);
}
