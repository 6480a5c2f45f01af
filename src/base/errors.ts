/**
 * The closed list of error codes. A code keeps its meaning within a minor version; messages may change.
 * `docs/errors.md` has one heading per code, and a test holds the two together.
 */
export const ERROR_CODES = [
  'SLUICE_INVALID_OPTION',
  'SLUICE_INVALID_KEY',
  'SLUICE_INVALID_VALUE',
  'SLUICE_INVALID_SQL',
  'SLUICE_VALIDATION',
  'SLUICE_NOT_FOUND',
  'SLUICE_FULL',
  'SLUICE_TIMEOUT',
  'SLUICE_ABORTED',
  'SLUICE_CLOSED',
  'SLUICE_FAILED',
  'SLUICE_LOCKED',
  'SLUICE_LOG_CORRUPT',
  'SLUICE_LOG_IO',
  'SLUICE_STORE',
  'SLUICE_CONFLICT',
  'SLUICE_OUTCOME_UNKNOWN',
  'SLUICE_DECRYPT',
  'SLUICE_NATIVE',
  'SLUICE_UNSUPPORTED',
] as const;

/** One of the stable codes of {@link SluiceError}. */
export type SluiceErrorCode = (typeof ERROR_CODES)[number];

/** What a {@link SluiceError} carries besides its code and message. */
export interface SluiceErrorDetails {
  /** The error that led to this one. */
  readonly cause?: unknown;
  /** SQLite's extended result code as text, such as `SQLITE_CONSTRAINT_UNIQUE`, where SQLite said no. */
  readonly sqliteCode?: string | undefined;
  /** Every single finding, where one error reports several (options at open). */
  readonly problems?: readonly string[];
}

/**
 * Every refusal of Sluice. Match on {@link SluiceError.code}, never on the message: the message says what to do
 * and may change, the code does not.
 *
 * @example
 * ```ts
 * import { open, SluiceError } from 'sluicedb';
 *
 * const db = await open(':memory:');
 * try {
 *   db.set('nan', Number.NaN);
 * } catch (error) {
 *   if (!(error instanceof SluiceError)) throw error;
 *   console.log(error.code); // SLUICE_INVALID_VALUE
 * } finally {
 *   await db.close();
 * }
 * ```
 */
export class SluiceError extends Error {
  override readonly name = 'SluiceError';
  /** The stable code. */
  readonly code: SluiceErrorCode;
  /** SQLite's extended result code, where SQLite said no. */
  readonly sqliteCode: string | undefined;
  /** Every single finding, where one error reports several. Empty otherwise. */
  readonly problems: readonly string[];

  constructor(code: SluiceErrorCode, message: string, details: SluiceErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.sqliteCode = details.sqliteCode;
    this.problems = details.problems ?? [];
  }
}

/** The text of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of anything thrown, as Node's system errors and better-sqlite3 carry it. */
export function codeOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' ? code : undefined;
}
