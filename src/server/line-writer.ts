import { codeOf, SluiceError, type SluiceErrorCode } from '../base/errors.ts';
import type { Database } from '../db/database.ts';
import { LineSplitter, parseLine } from './lines.ts';
import { conflict, type KnownTable, type PairTable, type RowTable, type Tables } from './tables.ts';

/** What is wrong with one line. */
export interface LineError {
  /** Number of the line, from 1, empty lines counted. */
  readonly line: number;
  readonly code: SluiceErrorCode;
  readonly message: string;
}

/** Errors that are told one by one; the others are counted. */
const ERRORS_MAX = 100;

/** Refusals of one line, which are nothing to the others. */
const OF_THE_LINE: readonly string[] = [
  'SLUICE_INVALID_OPTION',
  'SLUICE_INVALID_KEY',
  'SLUICE_INVALID_VALUE',
  'SLUICE_VALIDATION',
  'SLUICE_CONFLICT',
] satisfies SluiceErrorCode[];

/** `high`: taken, but it would be kind to wait; `full`: not taken. */
type Outcome = 'taken' | 'high' | 'full';

/** Where the lines of a {@link LineWriter} go. */
export interface Destination {
  readonly db: Database;
  readonly tables: Tables;
  /** Name of the table. */
  readonly table: string;
  /** How long to wait for room in staging before `SLUICE_FULL`. */
  readonly fullWaitMs: number;
}

/**
 * Writes lines into a table, in order and at the pace that the database takes them. The first good line says what a new
 * table is for, see {@link TableKind}; a line of the other kind is an error of that line.
 *
 * Everything that is not the fault of one line rejects. What was accepted until then stays accepted, and is in the counts.
 */
export class LineWriter {
  accepted = 0;
  rejected = 0;
  readonly errors: LineError[] = [];
  readonly #to: Destination;
  readonly #splitter = new LineSplitter();
  #table: PairTable | RowTable | KnownTable | undefined;
  #conflicts = 0;
  #line = 0;

  private constructor(to: Destination, table: KnownTable | undefined) {
    this.#to = to;
    this.#table = table;
  }

  static async open(to: Destination): Promise<LineWriter> {
    return new LineWriter(to, await to.tables.find(to.table, to.fullWaitMs));
  }

  /** Whether there were lines, and all of them belong into a table of another kind. */
  get isConflict(): boolean {
    return this.accepted === 0 && this.#conflicts > 0 && this.#conflicts === this.rejected;
  }

  /** Writes the lines that end in `chunk`. */
  async feed(chunk: Buffer): Promise<void> {
    for (const line of this.#splitter.split(chunk)) {
      const pressed = this.#writeLine(line);
      if (pressed !== undefined) await pressed;
    }
  }

  /** Writes the last line, if it had no end. */
  async end(): Promise<void> {
    for (const line of this.#splitter.end()) await this.#writeLine(line);
  }

  /** Writes what stood on line number `line`. */
  async write(value: Record<string, unknown>, line: number): Promise<void> {
    this.#line = line;
    const outcome = this.#offer(value);
    if (outcome !== 'taken') await this.#press(value, outcome);
  }

  /** Counts a line that could not even be read. */
  skip(error: SluiceError, line: number): void {
    this.#line = line;
    this.#refuse(error);
  }

  #refuse(error: SluiceError): void {
    this.rejected++;
    if (error.code === 'SLUICE_CONFLICT') this.#conflicts++;
    const { code, message } = error;
    if (this.errors.length < ERRORS_MAX) this.errors.push({ line: this.#line, code, message });
  }

  /** Not async: almost every line is taken at once, and a promise for each would cost more than the line. */
  #writeLine(line: Buffer | undefined): Promise<void> | undefined {
    this.#line++;
    let value: Record<string, unknown> | undefined;
    try {
      value = parseLine(line, this.#line === 1);
    } catch (error) {
      this.#refuse(ofTheLine(error));
    }
    if (value === undefined) return undefined;
    const outcome = this.#offer(value);
    return outcome === 'taken' ? undefined : this.#press(value, outcome);
  }

  #offer(value: Record<string, unknown>): Outcome {
    try {
      const table = this.#tableFor(value);
      const plenty = table.write(value);
      if (this.#table === undefined) this.#settle(table);
      this.accepted++;
      return plenty ? 'taken' : 'high';
    } catch (error) {
      if (codeOf(error) === 'SLUICE_FULL') return 'full';
      this.#refuse(ofTheLine(error));
      return 'taken';
    }
  }

  async #press(value: Record<string, unknown>, first: Outcome): Promise<void> {
    const deadline = performance.now() + this.#to.fullWaitMs;
    for (let outcome: Outcome = first; outcome !== 'taken'; outcome = this.#offer(value)) {
      await this.#room(Math.ceil(deadline - performance.now()));
      if (outcome === 'high') return;
    }
  }

  async #room(leftMs: number): Promise<void> {
    try {
      await this.#to.db.adrain({ timeoutMs: Math.max(1, leftMs) });
    } catch (error) {
      if (codeOf(error) !== 'SLUICE_TIMEOUT') throw error;
      throw new SluiceError(
        'SLUICE_FULL',
        `staging is full, and there was no room within ${this.#to.fullWaitMs} ms: send the rest later`,
        { cause: error },
      );
    }
  }

  #tableFor(value: Record<string, unknown>): PairTable | RowTable {
    const kind = isPair(value) ? 'pairs' : 'rows';
    const table = this.#table;
    if (table?.kind === kind) return table as PairTable | RowTable;
    if (table !== undefined) throw conflict(table);
    return this.#to.tables.claim(this.#to.table, kind);
  }

  /** A line was taken: from now on the table is of its kind. */
  #settle(table: PairTable | RowTable): void {
    this.#to.tables.keep(table);
    this.#table = table;
  }
}

/** `{"key":…, "value":…}`, and nothing else. */
function isPair(value: Record<string, unknown>): boolean {
  let members = 0;
  for (const name in value) {
    if (name !== 'key' && name !== 'value') return false;
    members++;
  }
  return members === 2;
}

function ofTheLine(error: unknown): SluiceError {
  if (error instanceof SluiceError && OF_THE_LINE.includes(error.code)) return error;
  throw error;
}
